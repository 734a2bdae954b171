"""What a network is here, and what all configurations of networks have in common.

A network is a map `net(x, noise_level, condition) -> tensor`. Besides its input it takes a condition and one number,
and does not know where they come from:

| argument | shape | meaning |
|---|---|---|
| `x` | (B, *shape) | input, scaled by the caller to about unit variance |
| `noise_level` | (B,) | natural logarithm of the noise-to-signal ratio, in [-12, 12]; not to be written into |
| `condition` | name -> tensor, B rows each | the parts that it was built for; one left out is absent in every row |

It returns a tensor of x's shape, or with `out_multiple` times as many channels. A new network returns exactly zero, so
training starts from what the caller makes of a zero (Karras et al. 2022, arXiv:2206.00364). If it calls its last layer
`out`, what that layer reads can be looked at (`Denoiser.features`).

A part of the condition is described by one of

| `conditions=` | tensor | absent | how it enters |
|---|---|---|---|
| `Label(classes)` | int64 (B,) in [-1, classes) | -1 | a row of a table |
| `Number()` | float (B,), of about unit variance | NaN | cosines and sines of it, and itself |
| `Vector(size)` | float (B, size) | a row with a NaN | a linear map |
| `Tokens(vocabulary, length)` | int64 (B, L), L <= length, -1 after the end | -1 throughout | a mean; by attention |
| `Picture(channels, shape)` | float (B, channels, *shape) | a row with a NaN | as channels beside x, at x's size |

A row in which the part is absent gets a learned vector instead (for a picture, zeros).

A configuration is a frozen dataclass that can be written to a file; `build` makes the module.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from ornstein.errors import InputError, must_be_whole

Shape = tuple[int, ...]


def require_fraction(field: str, value: object) -> None:
    """Raise `InputError` unless `value` is a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise InputError(f"{field}={value!r} must be a number in [0, 1).")


@dataclass(frozen=True)
class Label:
    """One of `classes` names, by its number."""

    classes: int

    def __post_init__(self) -> None:
        must_be_whole("classes", self.classes, 1)


@dataclass(frozen=True)
class Number:
    """A number, scaled by the caller to about unit variance."""


@dataclass(frozen=True)
class Vector:
    """`size` numbers, each scaled by the caller to about unit variance."""

    size: int

    def __post_init__(self) -> None:
        must_be_whole("size", self.size, 1)


@dataclass(frozen=True)
class Picture:
    """A grid (channels, *shape) that covers the same area as x, at the same size or coarser."""

    channels: int
    shape: Shape

    def __post_init__(self) -> None:
        must_be_whole("channels", self.channels, 1)
        for size in self.shape:
            must_be_whole("each size in shape", size, 1)


@dataclass(frozen=True)
class Tokens:
    """A text of at most `length` tokens, numbers below `vocabulary`."""

    vocabulary: int
    length: int

    def __post_init__(self) -> None:
        must_be_whole("vocabulary", self.vocabulary, 1)
        must_be_whole("length", self.length, 1)


#: the most layers in sequence: a larger number is a typing error, and would take minutes to build
MOST_LAYERS = 1000

Part = Label | Number | Vector | Picture | Tokens

#: no part of any condition
NOTHING: Mapping[str, torch.Tensor] = {}


@dataclass(frozen=True)
class NetConfig(ABC):
    """The description of a network; a subclass adds fields and `_module`."""

    @final
    def build(
        self, shape: Shape, conditions: Mapping[str, Part] | None = None, out_multiple: int = 1, seed: int = 0
    ) -> nn.Module:
        """The network, freshly initialised.

        Args:
            shape: of one sample: (d,) for vectors, (C, *space) for grids.
            conditions: the parts of a condition by name, each with its description.
            out_multiple: output channels (length, for vectors) per input channel.
            seed: of the initial weights; the global random state is neither used nor changed.

        Raises:
            InputError: a shape that this network cannot take, or an argument out of range.
        """
        if not isinstance(shape, tuple | list) or not shape:
            raise InputError(f"shape={shape!r} must be a tuple of one or more positive whole numbers.")
        for size in shape:
            must_be_whole("each size in shape", size, 1)
        must_be_whole("out_multiple", out_multiple, 1)
        conditions = dict(conditions or {})
        for name, part in conditions.items():
            if not isinstance(name, str) or not name or not isinstance(part, Part):
                raise InputError(
                    f"conditions has {name!r}: {part!r}; it must map names to Label, Number, Vector, Picture or Tokens."
                )
            if isinstance(part, Picture) and len(part.shape) != len(shape) - 1:
                raise InputError(
                    f"conditions has the picture {name!r} of size {part.shape}, which does not lie over shape={shape}."
                )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._module(tuple(shape), conditions, out_multiple)

    @abstractmethod
    def _module(self, shape: Shape, conditions: Mapping[str, Part], out_multiple: int) -> nn.Module:
        """The module itself; arguments are already checked, and the random state is seeded."""


def check_input(x: torch.Tensor, noise_level: torch.Tensor, expected: str, fits: bool) -> None:
    """Raise `InputError` unless `x` fits what the net was built for and `noise_level` has one entry per sample."""
    if not fits:
        raise InputError(f"x has shape {tuple(x.shape)} but this network was built for {expected}.")
    if noise_level.dim() != 1 or noise_level.shape[0] != x.shape[0]:
        raise InputError(f"noise_level has shape {tuple(noise_level.shape)} but must be ({x.shape[0]},), one a sample.")
