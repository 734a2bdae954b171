"""Distributions in the plane: small enough to see whole, hard enough to break a bad sampler.

Each stresses something else. *Eight Gaussians*: separate modes of equal weight, so a mode that is dropped shows at
once. *Checkerboard*: constant density with sharp edges, which a score model blurs. *Moons*, *spirals* and *Swiss
roll*: mass on curved lines, where a step that is too long leaves the line. *Pinwheel*: anisotropic, curved clusters
of unequal width.

The forms are the usual ones (moons and Swiss roll after scikit-learn; pinwheel after Johnson et al. 2016,
arXiv:1603.06277; the others as in Grathwohl et al., "FFJORD", 2019, arXiv:1810.01367), up to scale.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ornstein.data.condition import labelled
from ornstein.data.dataset import Dataset, Source
from ornstein.data.layout import Layout
from ornstein.data.splitting import split
from ornstein.data.statistics import standardise
from ornstein.errors import InputError, must_fit
from ornstein.memory import free_bytes

#: bytes of a point while it is made, at least: label, place in the split, the point itself twice
_EACH = 8 + 8 + 2 * 8


@dataclass(frozen=True)
class Toy(Source, ABC):
    """Points in the plane, drawn with torch alone.

    Args:
        count: points in all, at least 3; each class gets its share at random.
        noise: standard deviation of the Gaussian blur, in the plane's units; 0 or more.
        seed: random seed of the points and of the split.
        test_fraction: share that is held out.
    """

    count: int = 20_000
    noise: float = 0.05
    seed: int = 0
    test_fraction: float = 0.1

    name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.count < 3:
            raise InputError(f"data.count={self.count!r} must be at least 3.")
        if not 0 <= self.noise < math.inf:
            raise InputError(f"data.noise={self.noise!r} must be 0 or more.")

    @abstractmethod
    def draw(self, label: Tensor, generator: torch.Generator) -> Tensor:
        """Points (N, 2), before the blur, of the given classes (N,), int64; all 0 where there are no classes."""

    def load(self) -> Dataset:
        free = free_bytes()
        fits = f"up to {free / _EACH:,.0f} would fit"
        must_fit(f"data.count={self.count} takes", float(self.count) * _EACH, free, fits)
        generator = torch.Generator().manual_seed(self.seed)
        label = torch.randint(max(len(self.classes), 1), (self.count,), generator=generator)
        points = self.draw(label, generator)
        points = points + self.noise * torch.randn(points.shape, generator=generator)
        train, test = split(self.count, self.test_fraction, self.seed)
        transform, note = standardise(points[train])
        return Dataset(
            name=self.name,
            train=points[train],
            test=points[test],
            conditions=labelled(label[train], label[test], self.classes),
            kind="vector",
            transform=transform,
            note=note,
            layout=Layout("ND"),
        )


@final
@dataclass(frozen=True)
class Moons(Toy):
    """Two interleaved half circles of radius 1, one class each."""

    name = "moons"
    classes = ("upper", "lower")

    def draw(self, label: Tensor, generator: torch.Generator) -> Tensor:
        angle = math.pi * torch.rand(len(label), generator=generator)
        upper = torch.stack([angle.cos(), angle.sin()], 1)
        return torch.where(label[:, None] == 0, upper, torch.tensor([1.0, 0.5]) - upper)


@final
@dataclass(frozen=True)
class SwissRoll(Toy):
    """A spiral band of one and a half turns, the Swiss roll seen from its side; no classes."""

    name = "swiss-roll"

    def draw(self, label: Tensor, generator: torch.Generator) -> Tensor:
        angle = 1.5 * math.pi * (1 + 2 * torch.rand(len(label), generator=generator))
        return torch.stack([angle * angle.cos(), angle * angle.sin()], 1) / 7.0


@final
@dataclass(frozen=True)
class EightGaussians(Toy):
    """Eight equal Gaussians on a circle of radius 2, with standard deviation `noise`, one class each."""

    noise: float = 0.2

    name = "eight-gaussians"
    classes = ("E", "NE", "N", "NW", "W", "SW", "S", "SE")

    def draw(self, label: Tensor, generator: torch.Generator) -> Tensor:
        angle = label * (math.pi / 4)
        return 2 * torch.stack([angle.cos(), angle.sin()], 1)


@final
@dataclass(frozen=True)
class Checkerboard(Toy):
    """Eight squares of a 4 x 4 board on [-2, 2]^2, uniform and sharp-edged (noise is 0 by default); no classes."""

    noise: float = 0.0

    name = "checkerboard"

    def draw(self, label: Tensor, generator: torch.Generator) -> Tensor:
        square = torch.randint(8, (len(label),), generator=generator)
        column = square % 4
        row = 2 * (square // 4) + column % 2
        within = torch.rand(len(label), 2, generator=generator)
        return torch.stack([column, row], 1) + within - 2


@final
@dataclass(frozen=True)
class Pinwheel(Toy):
    """Five curved arms around a centre, each a stretched Gaussian wound by its distance, one class each."""

    noise: float = 0.0

    name = "pinwheel"
    classes = tuple(f"arm {k}" for k in range(5))

    def draw(self, label: Tensor, generator: torch.Generator) -> Tensor:
        spread = torch.tensor([0.3, 0.1])  # along and across an arm
        along, across = (torch.randn(len(label), 2, generator=generator) * spread).unbind(1)
        along = along + 1
        angle = label * (2 * math.pi / 5) + 0.25 * along.exp()
        cos, sin = angle.cos(), angle.sin()
        return 2 * torch.stack([along * cos - across * sin, along * sin + across * cos], 1)


@final
@dataclass(frozen=True)
class Spirals(Toy):
    """Two interleaved spirals of one and a half turns, uniform along their length, one class each."""

    name = "spirals"
    classes = ("first", "second")

    def draw(self, label: Tensor, generator: torch.Generator) -> Tensor:
        # the length of a spiral grows as the square of its angle, so the root makes it evenly covered
        angle = 3 * math.pi * torch.rand(len(label), generator=generator).sqrt()
        sign = 1 - 2 * label
        return torch.stack([-sign * angle * angle.cos(), sign * angle * angle.sin()], 1) / (1.5 * math.pi)
