"""What a metric is: a number from two sets of points, and how that number is to be read.

A metric compares a set `x` (usually what a model made) with a set `y` (real data) and knows nothing of the
model. Its number is rarely meaningful alone: estimates from finite sets are noisy, several are biased upwards,
and all depend on the units of the data. So each metric also states how to read its number beside the *floor*,
the value that real data get in place of the samples (see `ornstein.metrics.floor`).

To add a metric, write a frozen dataclass with `__call__` and put it in `METRICS`.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ornstein.errors import InputError


class Metric(ABC):
    """A number from two sets of points, `metric(x, y, generator)`.

    The class attributes say how to read it. `better`: whether lower or higher is good. `close`: the ratio to the
    floor at which the verdict passes from the second word of `words` to the third. `fixed`: which real set
    is `y`; the other one takes the place of the samples when the floor is measured. `reads`: what it should
    be given: the "data" in the units of their columns, "features" of them, or their "marks" (see `Ruler`).
    """

    better: ClassVar[Literal["lower", "higher"]] = "lower"
    close: ClassVar[float] = 1.5
    words: ClassVar[tuple[str, str, str]] = ("matches", "close", "differs")
    fixed: ClassVar[Literal["heldout", "train"]] = "heldout"
    reads: ClassVar[Literal["data", "features", "marks"]] = "data"

    @abstractmethod
    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        """The metric between `x`, shape (N, *shape), and `y`, shape (M, *shape): floats on one device.

        Whatever is random (projections, subsets, folds) is drawn from `generator`: same generator state, same number.
        """

    def on_subsets(self, x: Tensor, y: Tensor, size: int, repeats: int, generator: torch.Generator) -> Tensor:
        """The metric between `repeats` random subsets of `x`, `size` points each, and the whole of `y`: (repeats,)."""
        values = [self(x[choose(len(x), size, generator, x)], y, generator) for _ in range(repeats)]
        return torch.tensor(values, dtype=torch.float64)


def choose(count: int, size: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """`size` different indices out of `count`, shape (size,), on the device of `like`."""
    return torch.randperm(count, generator=generator, device=generator.device)[:size].to(like.device)


def vectors(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets flattened to (N, d) and (M, d), in one dtype of at least float32.

    Raises `InputError` for integers, fewer than two points, NaN or infinity, and shapes or devices that disagree.
    """
    for name, points in (("x", x), ("y", y)):
        if not points.is_floating_point():
            raise InputError(f"{name} has dtype {points.dtype}; a metric takes floating point tensors.")
        if points.ndim < 1 or len(points) < 2 or points[0].numel() < 1:
            raise InputError(
                f"{name} has shape {tuple(points.shape)}; a metric takes at least two points, (N, *shape)."
            )
    if x.shape[1:] != y.shape[1:]:
        raise InputError(f"x has points of shape {tuple(x.shape[1:])}, y of {tuple(y.shape[1:])}; they must agree.")
    if x.device != y.device:
        raise InputError(f"x is on {x.device}, y on {y.device}; move one of them.")
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    x, y = x.detach().reshape(len(x), -1).to(dtype), y.detach().reshape(len(y), -1).to(dtype)
    for name, points in (("x", x), ("y", y)):
        if not points.isfinite().all():
            bad = int((~points.isfinite()).any(dim=1).sum())
            raise InputError(
                f"{name} has NaN or infinity in {bad} of its {len(points)} points; a metric takes finite values."
            )
    return x, y
