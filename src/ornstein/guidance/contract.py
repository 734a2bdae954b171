"""What all guidance shares: a denoiser that calls another one, on its clock, and answers in its place.

Bayes' rule for the noisy data, log p(x_t given y) = log p(x_t) + log p(y given x_t) + const, turned by Tweedie's
formula x0 = (x_t + sigma^2 score)/alpha into a rule for denoisers, gives all guidance:

    E[x_0 given x_t, y] = E[x_0 given x_t] + (sigma^2/alpha) grad log p(y given x_t).

Since the result is a denoiser, every stepper works with it, and it can be guided again. Methods differ in what they use
for log p(y given x_t): the difference of two models, a classifier, or, for a measurement of x_0, what the denoiser
itself says of x_0.
"""

from abc import ABC
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.denoiser import Around
from ornstein.core.process import Level, Number, Process
from ornstein.errors import InputError


@dataclass(frozen=True, eq=False)
class Guidance(Around, ABC):
    """A denoiser made from a denoiser: write `predict`, and call `self.base.predict` in it.

    Args:
        base: the denoiser to guide.
    """

    @property
    def process(self) -> Process:  # type: ignore[override]
        return self.base.process


def check_scale(scale: float, interval: "tuple[float, float] | None") -> None:
    """Raise `InputError` unless `scale` is a finite number and `interval` two noise ratios in order."""
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) < float("inf"):
        raise InputError(f"scale={scale!r} must be a finite number.")
    if interval is not None and not (len(interval) == 2 and 0 <= interval[0] < interval[1]):
        raise InputError(f"interval={interval!r} must be two noise ratios sigma/alpha, the smaller first, or None.")


def scale_at(level: Level, scale: float, interval: "tuple[float, float] | None", neutral: float) -> Number:
    """`scale` where sigma/alpha lies in the interval, `neutral` elsewhere; a tensor for a level of each sample."""
    if interval is None:
        return scale
    ratio, (low, high) = level.noise_ratio, interval
    if isinstance(ratio, Tensor):
        return torch.where((ratio >= low) & (ratio <= high), scale, neutral)
    return scale if low <= ratio <= high else neutral
