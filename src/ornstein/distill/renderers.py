"""Renderers make pictures from parameters: pixels as they are, strokes on paper, a volume seen from some side.

Score distillation only needs a renderer to be differentiable. Each of these is one formula.

*Strokes.* A stroke is a quadratic Bezier curve, cut into straight pieces. With d(p) the distance of a pixel p from it,
w half its width and o its opacity, it covers the share

    a(p) = o sigmoid((w - d(p))/softness)

of the pixel, and later strokes lie over earlier ones: x <- (1 - a) x + a colour, starting from white paper. An edge
that is soft over half a pixel looks sharp, and still has a gradient (Li et al. 2020, differentiable rasterising;
for drawings by score distillation Jain et al. 2022, 2211.11319).

*A volume.* Density rho >= 0 and colour c on a grid in [-1, 1]^3, interpolated linearly between its points. A ray that
runs through it in steps of length h sees, front to back,

    x = sum_i T_i (1 - exp(-rho_i h)) c_i + T_end white,      T_i = exp(-h sum_{j<i} rho_j),

emission and absorption (Max 1995; Mildenhall et al. 2020, 2003.08934). All rays are parallel: the view from azimuth a
and elevation e above the horizon is a sum over the grid turned by them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ornstein.core.condition import Condition
from ornstein.core.numerics import noise_like
from ornstein.errors import InputError, must_be_whole

#: the paper, and the background of a volume, in model space
WHITE = 1.0
#: the part of a condition that says from where a volume is seen: cosine and sine of its azimuth
VIEW = "view"
#: how many views a volume's picture shows, evenly round, and how many its film
SHOWN, TURNED = 8, 48
#: straight pieces of a stroke, and its initial opacity before the sigmoid
_PIECES, _OPAQUE = 4, 1.0


@dataclass(frozen=True)
class Renderer(ABC):
    """Initial parameters, and their renders; with the last two arguments of a call bound it is a `Render`.

    Attributes:
        lr: a rate for Adam that suits the units of the parameters.
        channels: of the pictures that it can make; () for any.
        told: whether it says from where a picture is seen, by the part `VIEW`, which the model must then know.
        vector: whether `svg` can write its pictures.
    """

    lr: ClassVar[float] = 0.05
    channels: ClassVar[tuple[int, ...]] = (1, 3)
    told: ClassVar[bool] = False
    vector: ClassVar[bool] = False

    @abstractmethod
    def begin(self, n: int, shape: tuple[int, ...], generator: Generator) -> dict[str, Tensor]:
        """Parameters of n pictures of shape (C, H, W), to optimise; or of one volume, for n views at a time."""

    @abstractmethod
    def __call__(
        self, parameters: Mapping[str, Tensor], generator: Generator, n: int, shape: tuple[int, ...]
    ) -> "Tensor | tuple[Tensor, Condition]":
        """n pictures (n, C, H, W) in model space, [-1, 1]; and, if `told`, from where each is seen."""

    def shown(self, parameters: Mapping[str, Tensor], n: int, shape: tuple[int, ...]) -> Tensor:
        """The pictures that show the work, (m, C, H, W); nothing about them is random."""
        found = self(parameters, torch.Generator(), n, shape)
        return found if isinstance(found, Tensor) else found[0]

    def turned(self, parameters: Mapping[str, Tensor], shape: tuple[int, ...]) -> list[Tensor]:
        """The frames of a film of the finished work, (1, C, H, W) each; [] if there is nothing to turn round."""
        return []

    def svg(self, parameters: Mapping[str, Tensor]) -> str:
        """The work as a scalable picture; "" if that is not possible."""
        return ""


@final
@dataclass(frozen=True)
class Pixels(Renderer):
    """Each pixel is a parameter, in model space."""

    channels: ClassVar[tuple[int, ...]] = ()

    def begin(self, n: int, shape: tuple[int, ...], generator: Generator) -> dict[str, Tensor]:
        return {"pixels": torch.zeros(n, *shape)}

    def __call__(
        self, parameters: Mapping[str, Tensor], generator: Generator, n: int, shape: tuple[int, ...]
    ) -> Tensor:
        return parameters["pixels"]


@final
@dataclass(frozen=True)
class Strokes(Renderer):
    """Soft strokes on paper.

    Args:
        count: number of strokes in each picture.
        softness: of their edges, in pixels.
        paper: its brightness, from -1, black, to 1, white.

    Raises:
        InputError: no strokes, no softness, or paper out of range.
    """

    count: int = 64
    softness: float = 0.5
    paper: float = WHITE

    lr: ClassVar[float] = 0.03
    vector: ClassVar[bool] = True

    def __post_init__(self) -> None:
        must_be_whole("count", self.count, 1, 4096)
        if not 0 < self.softness < math.inf:
            raise InputError(f"softness={self.softness!r} must be a positive number of pixels.")
        if not -1 <= self.paper <= 1:
            raise InputError(f"paper={self.paper!r} must be from -1, black, to 1, white.")

    def begin(self, n: int, shape: tuple[int, ...], generator: Generator) -> dict[str, Tensor]:
        empty = torch.zeros(n, self.count, 3, 2)
        middle = 0.45 * noise_like(empty[:, :, :1], generator)
        side = 2 / shape[-1]
        return {
            "points": middle + 0.15 * noise_like(empty, generator),  # x right and y down, [-1, 1] is the paper
            "width": torch.full((n, self.count), math.log(1.5 * side)),  # log of half the width, in the same units
            "opacity": torch.full((n, self.count), _OPAQUE),  # before the sigmoid
            "colour": 0.3 * noise_like(torch.zeros(n, self.count, shape[0]), generator),
        }

    def __call__(
        self, parameters: Mapping[str, Tensor], generator: Generator, n: int, shape: tuple[int, ...]
    ) -> Tensor:
        points, (height, width) = parameters["points"], shape[1:]
        across, down = ((torch.arange(k, device=points.device) + 0.5) * 2 / k - 1 for k in (width, height))
        pixel = torch.cartesian_prod(down, across).flip(1).to(points)  # (H W, 2), x and y
        u = torch.linspace(0, 1, _PIECES + 1, device=points.device, dtype=points.dtype)
        curve = torch.einsum("pu,nkpd->nkud", torch.stack([(1 - u) ** 2, 2 * u * (1 - u), u**2]), points)
        start, along = curve[:, :, :-1], curve.diff(dim=2)
        # the squared distance to each piece, (n, count, pieces, H W): |v|^2 - 2 share v.along + share^2 |along|^2, with
        # v from the start of the piece, and share the place along it that is nearest
        length = along.square().sum(-1, keepdim=True).clamp(min=1e-9)
        ahead = along @ pixel.T - (along * start).sum(-1, keepdim=True)
        off = pixel.square().sum(-1) - 2 * start @ pixel.T + start.square().sum(-1, keepdim=True)
        share = (ahead / length).clamp(0, 1)
        square = (off + share * (share * length - 2 * ahead)).amin(2)
        distance = square.clamp(min=1e-9).sqrt().unflatten(-1, (height, width))
        inside = (parameters["width"].exp()[..., None, None] - distance) * (width / 2) / self.softness
        cover = parameters["opacity"].sigmoid()[..., None, None] * inside.sigmoid()
        x = points.new_full((n, *shape), self.paper)
        for k in range(self.count):
            a = cover[:, k, None]
            x = x + a * (parameters["colour"][:, k, :, None, None].tanh() - x)
        return x

    def svg(self, parameters: Mapping[str, Tensor]) -> str:
        """The drawings side by side as one scalable picture, each a hundred units wide."""
        n, paper = len(parameters["points"]), _rgb(torch.tensor([self.paper]))
        lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-50 -50 {100 * n} 100">']
        for i in range(n):
            # a nested picture, so that what hangs over its edge is cut off
            lines.append(f'<svg x="{100 * i - 50}" y="-50" width="100" height="100" viewBox="-50 -50 100 100">')
            lines.append(f'<rect x="-50" y="-50" width="100" height="100" fill="{paper}"/>')
            kept = (parameters[name][i].detach().cpu() for name in ("points", "width", "opacity", "colour"))
            for points, width, opacity, colour in zip(*kept, strict=True):
                a, b, c = (f"{50 * x:.2f} {50 * y:.2f}" for x, y in points.tolist())
                lines.append(
                    f'<path d="M{a}Q{b} {c}" fill="none" stroke="{_rgb(colour.tanh())}" stroke-linecap="round" '
                    f'stroke-width="{100 * width.exp():.2f}" stroke-opacity="{opacity.sigmoid():.3f}"/>'
                )
            lines.append("</svg>")
        return "\n".join([*lines, "</svg>"])


def _rgb(colour: Tensor) -> str:
    """A colour (1,) or (3,) in [-1, 1] in SVG's notation."""
    red, green, blue = ((colour + 1) * 127.5).round().int().expand(3).tolist()
    return f"rgb({red},{green},{blue})"


@final
@dataclass(frozen=True)
class Volume(Renderer):
    """A grid of density and colour, seen from all round by parallel rays, against white.

    Args:
        side: points of the grid along each axis.
        sides: number of azimuths to see it from, evenly round; 0 for any.
        elevation: of all views, above the horizon, in degrees.

    Raises:
        InputError: a grid or an elevation out of range.
    """

    side: int = 32
    sides: int = 0
    elevation: float = 25.0

    lr: ClassVar[float] = 0.15
    channels: ClassVar[tuple[int, ...]] = (3,)
    told: ClassVar[bool] = True

    def __post_init__(self) -> None:
        must_be_whole("side", self.side, 2, 512)
        must_be_whole("sides", self.sides, 0)
        if not -90 <= self.elevation <= 90:
            raise InputError(f"elevation={self.elevation!r} must be from -90 to 90 degrees.")

    def begin(self, n: int, shape: tuple[int, ...], generator: Generator) -> dict[str, Tensor]:
        at = torch.linspace(-1, 1, self.side)
        away = torch.stack(torch.meshgrid(at, at, at, indexing="ij")).square().sum(0).sqrt()
        return {
            "density": 4 - 8 * away,  # before the softplus: a ball of mist
            "colour": 0.1 * noise_like(torch.zeros(shape[0], *away.shape), generator),  # before the tanh
        }

    def __call__(
        self, parameters: Mapping[str, Tensor], generator: Generator, n: int, shape: tuple[int, ...]
    ) -> tuple[Tensor, Condition]:
        turn = torch.rand(n, generator=generator, device=generator.device).to(parameters["density"])
        if self.sides:
            turn = (turn * self.sides).floor() / self.sides
        azimuth = 2 * math.pi * turn
        return self.seen(*self.matter(parameters), azimuth, shape[-1]), Condition({VIEW: view_of(azimuth)})

    def shown(self, parameters: Mapping[str, Tensor], n: int, shape: tuple[int, ...]) -> Tensor:
        return self.round(parameters, SHOWN, shape[-1])

    def turned(self, parameters: Mapping[str, Tensor], shape: tuple[int, ...]) -> list[Tensor]:
        return list(self.round(parameters, TURNED, shape[-1])[:, None])

    def round(self, parameters: Mapping[str, Tensor], views: int, side: int) -> Tensor:
        """Views (views, C, side, side) from azimuths evenly round, the first from 0."""
        azimuth = torch.arange(views, device=parameters["density"].device) * 2 * math.pi / views
        return self.seen(*self.matter(parameters), azimuth, side)

    @staticmethod
    def matter(parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The density (D, D, D) per unit of length and the colour (C, D, D, D) in [-1, 1] that parameters give."""
        return 10 * F.softplus(parameters["density"]), parameters["colour"].tanh()

    def seen(self, density: Tensor, colour: Tensor, azimuth: Tensor, side: int) -> Tensor:
        """Views (V, C, side, side) of a density (D, D, D) and a colour (C, D, D, D) from azimuths (V,) in radians.

        The axes of the grid are z (up), y, x. Azimuth 0 looks along -x, with y to the right.
        """
        e = math.radians(self.elevation)
        cos, sin, one = azimuth.cos(), azimuth.sin(), torch.ones_like(azimuth)
        right = torch.stack([-sin, cos, 0 * one], -1)
        up = torch.stack([-cos * math.sin(e), -sin * math.sin(e), one * math.cos(e)], -1)
        away = -torch.stack([cos * math.cos(e), sin * math.cos(e), one * math.sin(e)], -1)
        depth, across = self.side, (torch.arange(side, device=density.device) + 0.5).to(density) * 2 / side - 1
        steps = (torch.arange(depth, device=density.device) + 0.5).to(density) * 2 / depth - 1
        place = (
            steps[None, :, None, None, None] * away[:, None, None, None]
            - across[None, None, :, None, None] * up[:, None, None, None]
            + across[None, None, None, :, None] * right[:, None, None, None]
        )  # (V, depth, side, side, 3), as x, y, z
        both = torch.cat([density[None], density * colour])[None]
        found = F.grid_sample(both, place.flatten(0, 1)[None], align_corners=True)[0]
        found = found.reshape(len(both[0]), len(azimuth), depth, side, side)
        rho, tinted = found[0], found[1:]
        thickness = rho * 2 / depth
        before = torch.cat([torch.zeros_like(thickness[:, :1]), thickness.cumsum(1)], 1)
        light = torch.exp(-before)
        emitted = light[:, :-1] * -torch.expm1(-thickness)
        shade = tinted / rho.clamp(min=1e-6)  # weighted by density, so that empty neighbours lend no colour
        return ((emitted * shade).sum(2) + WHITE * light[:, -1]).movedim(0, 1)


def view_of(azimuth: Tensor) -> Tensor:
    """An azimuth (V,) in radians without a jump at 360 degrees: cosine and sine, (V, 2)."""
    return torch.stack([azimuth.cos(), azimuth.sin()], -1)


#: what can be optimised, by their common names
RENDERERS: dict[str, type[Renderer]] = {"pixels": Pixels, "strokes": Strokes, "volume": Volume}
