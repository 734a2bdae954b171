"""Replacing the noisy data themselves: the replacement method, and RePaint.

The oldest way to inpaint: at every level overwrite the known part of x_s with the truth, noised to that level (Song et
al. 2021, 2011.13456, appendix I). The known and the unknown part are then drawn independently, and meet only in the
next step, so what is filled in does not fit. RePaint (Lugmayr et al. 2022, 2201.09865) gives them time to agree: it
noises x_s back up to level t and takes the step again, a number of times. One such pair of steps is a Gibbs move
between the two levels; with many of them the joint distribution approaches the right one.

This replaces x_t, not x0, so it is a *stepper around a stepper*, not a denoiser. The last step is the loop's and
returns x0: give the sampler a denoiser with `Replacement` on the same measurement, which makes that exact as well.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ornstein.core.drive import Ask, Noise, Stepper
from ornstein.core.process import Level
from ornstein.errors import InputError
from ornstein.guidance.inverse import Measurement


@dataclass(frozen=True, eq=False)
class RePaint(Stepper):
    """Any stepper, with the known part noised and put in after each step, several times (Lugmayr et al. 2022).

    For a linear operator A without noise: x_s + A^+ (alpha_s y + sigma_s A z - A x_s). Jumps are one step long.

    Args:
        stepper: takes the step from t to s; one with fresh noise at each call, such as DDPM. One with memory gets the
            same memory at each repeat.
        measurement: what is known, without noise, by a linear operator.
        repeats: how often each step is taken; 1 is the replacement method.

    No order. Calls a step: the stepper's times `repeats`. Stochastic.

    Raises:
        InputError: a measurement with noise, or an operator that is not linear; repeats below 1.
    """

    stepper: Stepper
    measurement: Measurement
    repeats: int = 10
    order: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if isinstance(self.repeats, bool) or not isinstance(self.repeats, int) or self.repeats < 1:
            raise InputError(f"repeats={self.repeats!r} must be a whole number of at least 1.")
        if self.measurement.noise > 0 or not self.measurement.operator.linear:
            raise InputError("RePaint puts in what is known exactly: give a linear operator, with noise=0.")
        if getattr(self.stepper, "path", False):
            raise InputError(f"stepper={self.stepper!r} takes its noise from one path, and would repeat itself.")

    @property
    def calls(self) -> int | None:
        return None if self.stepper.calls is None else self.repeats * self.stepper.calls

    @property
    def last_calls(self) -> int | None:
        return self.stepper.last_calls

    @property
    def stochastic(self) -> bool:
        return True

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        operator = self.measurement.operator
        y = self.measurement.residual(0 * x)  # y itself, as many rows as x
        a, variance = t.kernel_from(s)
        for turn in range(self.repeats):
            after, kept = self.stepper.step(denoiser, x, t, s, memory, noise)
            after = operator.project(after, s.alpha * y + s.sigma * operator.apply(noise()))
            if turn + 1 < self.repeats:
                x = a * after + math.sqrt(variance) * noise()
        return after, kept

    def finish(self, denoiser: Ask, x: Tensor, t: Level[float], memory: Any, noise: Noise) -> Tensor:
        return self.stepper.finish(denoiser, x, t, memory, noise)
