"""What a network is in this house, and what every configuration of one has in common.

A network is a map `net(x, noise_level, cond) -> tensor`. It knows a condition and one number besides its input, and not
where they come from:

| argument | shape | meaning |
|---|---|---|
| `x` | (B, *shape) | input, scaled by the caller to about unit variance |
| `noise_level` | (B,) | natural logarithm of the noise-to-signal ratio, in [-12, 12] |
| `cond` | None, int64 (B,), or float (B, features) | labels, or features; none: None, label -1, a row with a NaN |

and it returns a tensor of x's shape, or with `out_multiple` times as many channels. Just built it returns exactly zero:
what the caller makes of a zero is the starting point of training (Karras et al. 2022, arXiv:2206.00364).

A configuration is a frozen dataclass that can be written to a file; `build` makes the module.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from ornstein.errors import InputError

Shape = tuple[int, ...]


def require_integer(field: str, value: object, least: int) -> None:
    """Raise `InputError` unless `value` is an int (not a bool) of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{field}={value!r} must be a whole number of at least {least}.")


def require_fraction(field: str, value: object) -> None:
    """Raise `InputError` unless `value` is a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise InputError(f"{field}={value!r} must be a number in [0, 1).")


@dataclass(frozen=True)
class NetConfig(ABC):
    """The description of a network; a subclass adds fields and `_module`."""

    @final
    def build(
        self, shape: Shape, classes: int = 0, features: int = 0, out_multiple: int = 1, seed: int = 0
    ) -> nn.Module:
        """The network, freshly initialised.

        Args:
            shape: of one sample: (d,) for vectors, (C, *space) for grids.
            classes: number of labels, 0 for none; the net then takes int64 labels in [-1, classes), -1 = no label.
            features: length of a conditioning vector, 0 for none; exclusive with `classes`.
            out_multiple: output channels (length, for vectors) per input channel.
            seed: of the initial weights; the global random state is neither used nor changed.

        Raises:
            InputError: for a shape that this network cannot take, or an argument out of range.
        """
        if not isinstance(shape, tuple | list) or not shape:
            raise InputError(f"shape={shape!r} must be a tuple of one or more positive whole numbers.")
        for size in shape:
            require_integer("each size in shape", size, 1)
        require_integer("classes", classes, 0)
        require_integer("features", features, 0)
        require_integer("out_multiple", out_multiple, 1)
        if classes and features:
            raise InputError(f"classes={classes} and features={features} exclude each other; set one of them to 0.")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._module(tuple(shape), classes, features, out_multiple)

    @abstractmethod
    def _module(self, shape: Shape, classes: int, features: int, out_multiple: int) -> nn.Module:
        """The module itself; the arguments have been checked, and the random state is seeded."""


def check_input(x: torch.Tensor, noise_level: torch.Tensor, expected: str, fits: bool) -> None:
    """Raise `InputError` unless `x` fits what the net was built for and `noise_level` has one entry for each sample."""
    if not fits:
        raise InputError(f"x has shape {tuple(x.shape)} but this network was built for {expected}.")
    if noise_level.dim() != 1 or noise_level.shape[0] != x.shape[0]:
        raise InputError(f"noise_level has shape {tuple(noise_level.shape)} but must be ({x.shape[0]},), one a sample.")
