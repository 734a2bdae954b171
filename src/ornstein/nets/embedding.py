"""The noise level and the condition, as one vector for each sample.

The level u = ln(noise / signal), divided by 4 (Karras et al. 2022, arXiv:2206.00364, table 1), enters by cosines and
sines. Fourier features sqrt(2) cos(2 pi f u / 4 + phase) with f from N(0, 1) span a Gaussian kernel in u (Rahimi &
Recht 2007; Tancik et al. 2020, arXiv:2006.10739), here of width 4 / (2 pi) = 0.64 nat. In one dimension nothing is
gained by drawing f at random: the quantiles Phi^-1(1/2 + (k + 1/2) / 2n) cover the half-normal evenly, in every run.

Each part of the condition adds its own vector, or, in rows where it is absent, a vector learned for absence. So one
network works with or without any of its parts, as classifier-free guidance requires (Ho & Salimans 2022,
arXiv:2207.12598). A number is encoded like the level, whose scale it has, and also enters as it is, for values far out.
In a text the place of a token matters, so token and place are joined by a nonlinearity before the mean is taken;
networks with attention also look at each token, by `Embedding.keys` (Saharia et al. 2022, arXiv:2205.11487, do both).
Pictures do not pass through here: they enter as channels beside x.
"""

import math
from collections.abc import Mapping
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import InputError

from .attention import Keys
from .contract import Label, Number, Part, Picture, Tokens, Vector

WAVES = 32  # frequencies, each as cosine and sine


class Embedding(nn.Module):
    """(noise_level (B,), condition) -> (B, width), already passed through SiLU; (1, width) where all rows are alike.

    They are, without a condition, if the noise level is one number that was expanded to B rows, as in drawing samples.

    Args:
        width: of the result.
        conditions: the parts to expect, each of which becomes a child module of the same name.

    Attributes:
        texts: the names of those that are tokens.
    """

    def __init__(self, width: int, conditions: Mapping[str, Part]) -> None:
        super().__init__()
        self.waves = Waves()
        self.noise = nn.Linear(2 * WAVES, width)
        self.known = tuple(conditions)
        self.texts = tuple(name for name, part in conditions.items() if isinstance(part, Tokens))
        self.child_of: dict[str, str] = {}
        made = {Label: LabelEmbedding, Number: NumberEmbedding, Vector: VectorEmbedding, Tokens: TokensEmbedding}
        for name, part in conditions.items():
            if isinstance(part, Picture):
                continue
            child = name.replace(".", "_")
            while hasattr(self, child):  # such as "noise", "type", "forward"
                child += "_"
            self.add_module(child, made[type(part)](width, part))
            self.child_of[name] = child
        self.mix = nn.Linear(width, width)

    def forward(self, noise_level: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        for name in condition:
            if name not in self.known:
                built = ", ".join(self.known) or "no condition"
                raise InputError(f"condition has the part {name!r} but this network was built for {built}.")
        h = self.noise(self.waves(noise_level if noise_level.stride(0) else noise_level[:1]))
        for name, child in self.child_of.items():
            part = getattr(self, child)
            h = h + (part(condition[name], name, noise_level.shape[0]) if name in condition else part.none())
        return F.silu(self.mix(F.silu(h)))

    def keys(self, batch: int, condition: Mapping[str, Tensor]) -> Keys | None:
        """Keys to attend to: for each text "no text", then its tokens; None for a network without texts."""
        found = [getattr(self, self.child_of[name]).keys(condition.get(name), batch) for name in self.texts]
        return (torch.cat([k[0] for k in found], 1), torch.cat([k[1] for k in found], 3)) if found else None


class Waves(nn.Module):
    """Numbers (B,) -> (B, 2 WAVES), cosines and sines of unit mean square."""

    frequency: Tensor
    phase: Tensor

    def __init__(self) -> None:
        super().__init__()
        quantiles = [NormalDist().inv_cdf(0.5 + (k + 0.5) / (2 * WAVES)) for k in range(WAVES)]
        self.register_buffer("frequency", torch.tensor(2 * quantiles) * (2 * math.pi / 4), persistent=False)
        self.register_buffer("phase", torch.tensor([0.0] * WAVES + [-math.pi / 2] * WAVES), persistent=False)

    def forward(self, u: Tensor) -> Tensor:
        return torch.addcmul(self.phase, u.to(self.frequency.dtype).unsqueeze(1), self.frequency).cos() * math.sqrt(2)


class LabelEmbedding(nn.Embedding):
    """Rows of a table; row 0 means no label.

    Labels are int64 in [-1, classes). The table itself refuses a label outside: with an IndexError on a CPU, with a
    device-side assertion on CUDA, where a check beforehand would stall the stream.
    """

    def __init__(self, width: int, part: Label) -> None:
        super().__init__(part.classes + 1, width)

    def none(self) -> Tensor:
        return self.weight[:1]

    def forward(self, part: Tensor, name: str, batch: int) -> Tensor:  # type: ignore[override]
        check_part(
            part, name, part.dtype == torch.int64 and part.shape == (batch,), f"int64 labels of shape ({batch},)"
        )
        return super().forward(part + 1)


class VectorEmbedding(nn.Linear):
    """A linear map, or a learned vector where a number is missing."""

    def __init__(self, width: int, part: Vector) -> None:
        super().__init__(part.size, width)
        self.missing = nn.Parameter(torch.zeros(width))

    def none(self) -> Tensor:
        return self.missing

    def forward(self, part: Tensor, name: str, batch: int) -> Tensor:  # type: ignore[override]
        fits = part.is_floating_point() and part.shape == (batch, self.in_features)
        check_part(part, name, fits, f"floats of shape ({batch}, {self.in_features})")
        missing = part.isnan().any(dim=1, keepdim=True)
        return torch.where(missing, self.missing, super().forward(part.masked_fill(missing, 0.0).to(self.weight.dtype)))


class NumberEmbedding(nn.Linear):
    """A linear map of a number and its waves, or a learned vector where the number is missing."""

    def __init__(self, width: int, part: Number) -> None:
        super().__init__(2 * WAVES + 1, width)
        self.waves = Waves()
        self.missing = nn.Parameter(torch.zeros(width))

    def none(self) -> Tensor:
        return self.missing

    def forward(self, part: Tensor, name: str, batch: int) -> Tensor:  # type: ignore[override]
        fits = part.is_floating_point() and part.shape == (batch,)
        check_part(part, name, fits, f"floats of shape ({batch},)")
        missing = part.isnan()
        number = part.masked_fill(missing, 0.0).to(self.weight.dtype)
        read = torch.cat([self.waves(number).to(self.weight.dtype), number.unsqueeze(1)], 1)
        return torch.where(missing.unsqueeze(1), self.missing, super().forward(read))


class TokensEmbedding(nn.Module):
    """The mean over a text of what each token means at its place; row 0 of the table means no text."""

    def __init__(self, width: int, part: Tokens) -> None:
        super().__init__()
        self.table = nn.Embedding(part.vocabulary + 1, width)
        self.places = nn.Parameter(torch.randn(part.length, width))
        self.joined = nn.Linear(width, width)

    def none(self) -> Tensor:
        return self.table.weight[:1]

    def forward(self, part: Tensor, name: str, batch: int) -> Tensor:
        longest = self.places.shape[0]
        fits = part.dtype == torch.int64 and part.dim() == 2 and part.shape[0] == batch and part.shape[1] <= longest
        check_part(part, name, fits, f"int64 tokens of shape ({batch}, L) with L up to {longest}")
        there, each = (part >= 0).unsqueeze(2), self._each(part)
        count = there.sum(1)
        mean = torch.where(there, each, 0.0).sum(1) / count.clamp(min=1)
        return torch.where(count > 0, self.joined(mean), self.none())

    def _each(self, part: Tensor) -> Tensor:
        """What each token means at its place, (B, L, width)."""
        return F.silu(self.table(part + 1) + self.places[: part.shape[1]])

    def keys(self, part: Tensor | None, batch: int) -> Keys:
        """A key for "no text", never masked, and then the tokens of the text; None means no text in any row.

        The key that is never masked gives a row without a text something to attend to, and costs a text nothing.
        """
        none = F.silu(self.none()).expand(batch, 1, -1)
        always = torch.ones(batch, 1, 1, 1, dtype=torch.bool, device=none.device)
        if part is None:
            return none, always
        return torch.cat([none, self._each(part)], 1), torch.cat([always, (part >= 0)[:, None, None]], 3)


def check_part(part: Tensor, name: str, fits: bool, wanted: str) -> None:
    """Raise `InputError` unless a part of the condition is what the network was built for."""
    if not fits:
        kind = str(part.dtype).removeprefix("torch.")
        raise InputError(f"condition {name!r} is {kind} {tuple(part.shape)} but must be {wanted}.")


class Beside(nn.Module):
    """Pictures of the condition as channels beside x, each with one more channel that is 1 in rows that have it.

    Attributes:
        channels: how many channels this adds in all.
    """

    def __init__(self, conditions: Mapping[str, Part]) -> None:
        super().__init__()
        self.pictures = {name: part for name, part in conditions.items() if isinstance(part, Picture)}
        self.channels = sum(part.channels + 1 for part in self.pictures.values())

    def forward(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """x (B, C, *space) -> (B, C + channels, *space)."""
        return torch.cat([x, *self.laid(x, condition)], 1) if self.pictures else x

    def laid(self, x: Tensor, condition: Mapping[str, Tensor]) -> list[Tensor]:
        """What comes beside x, in parts that have `channels` in all."""
        laid = list[Tensor]()
        for name, part in self.pictures.items():
            if name not in condition:
                laid.append(x.new_zeros(x.shape[0], part.channels + 1, *x.shape[2:]))
                continue
            picture, shape = condition[name], (x.shape[0], part.channels, *part.shape)
            fits = picture.is_floating_point() and picture.dim() == len(shape) and picture.shape[:2] == shape[:2]
            check_part(picture, name, fits, f"floats of shape {shape}")
            picture = picture.to(x.dtype)
            missing = picture.isnan().flatten(1).any(1).reshape(-1, *[1] * (x.dim() - 1))
            picture = picture.masked_fill(missing, 0.0)
            if picture.shape[2:] != x.shape[2:]:
                smooth = {3: "linear", 4: "bilinear", 5: "trilinear"}[x.dim()]
                picture = F.interpolate(picture, size=x.shape[2:], mode=smooth)
            laid += [picture, (~missing).to(x.dtype).expand(-1, 1, *x.shape[2:])]
        return laid
