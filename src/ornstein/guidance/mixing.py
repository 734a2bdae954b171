"""Guidance by the difference of two denoisers: away from a worse one.

*Classifier-free.* A network that has learned p(x given c) and, with the label sometimes left out, p(x), contains the
gradient of a classifier, by Bayes: grad log p(c given x_t) is the difference of its two scores. So

    x0 = x0(none) + w (x0(c) - x0(none)).

**w = 1 is the conditional model**, exactly, and w = 0 the unconditional one. With w > 1 each noise level draws from
p(x) p(c given x)^w (though not from noised versions of one density, since noising does not commute with the power),
which trades diversity for samples of unmistakable class. (Half of the literature calls w - 1 the scale.)

At high noise a large w narrows the choice of modes, at low noise it only adds contrast: within an *interval* of noise
levels it has the benefit without the cost (Kynkaanniemi et al. 2024, 2404.07724).

*Autoguidance.* What is left out need not be the label. Between a good model and a weaker one of the same kind (smaller,
or trained less) the difference points away from the errors that both make, without giving up diversity (Karras et al.
2024, 2406.02507).

References: Ho & Salimans 2022 (2207.12598); Lin et al. 2023 (2305.08891), section 3.4, for the rescaling.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level
from ornstein.errors import InputError
from ornstein.guidance.contract import Guidance, check_scale, scale_at


@dataclass(frozen=True, eq=False)
class ClassifierFree(Guidance):
    """Classifier-free guidance: away from the unconditional answer (Ho & Salimans 2022, 2207.12598).

    x0 = x0(none) + scale (x0(condition) - x0(none)). Both answers come from one call with twice the batch. A sample of
    which every part is absent gets the unconditional answer at any scale.

    Args:
        base: a denoiser that knows both: one trained with labels sometimes dropped.
        scale: 1 is the conditional model exactly, 0 the unconditional.
        interval: noise ratios sigma/alpha between which to guide; outside them it is the conditional model.
        rescale: in [0, 1], how far to bring each sample's x0 back to the standard deviation of the conditional x0,
            since large scales over-expose (Lin et al. 2023).

    Raises:
        InputError: numbers out of range; no condition at all where the scale is not 1.
    """

    scale: float = 2.0
    interval: tuple[float, float] | None = None
    rescale: float = 0.0

    def __post_init__(self) -> None:
        check_scale(self.scale, self.interval)
        if not 0 <= self.rescale <= 1:
            raise InputError(f"rescale={self.rescale!r} must be in [0, 1].")

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        scale = scale_at(level, self.scale, self.interval, 1.0)
        plain = isinstance(scale, float | int)  # a number, and not one for each sample
        if plain and scale == 1.0:
            return self.base.predict(x, level, condition)
        if not condition:
            raise InputError("classifier-free guidance needs condition=, what to guide each sample to.")
        none = condition.none()
        if plain and scale == 0.0:
            return self.base.predict(x, level, none)
        both = self.base.predict(torch.cat([x, x]), _twice(level), Condition.cat([condition, none]))
        given, free = both.x0.chunk(2)
        x0 = free + scale * (given - free)
        if self.rescale:
            spread, wanted = (v.flatten(1).std(1, correction=0) for v in (x0, given))
            factor = 1 + self.rescale * (wanted / spread.clamp(min=1e-8) - 1)
            x0 = x0 * factor.reshape(-1, *[1] * (x.ndim - 1))
        return Prediction(x0, x, level, None if both.log_var is None else both.log_var.chunk(2)[0])


@dataclass(frozen=True, eq=False)
class Autoguidance(Guidance):
    """Autoguidance: away from a weaker version of the same model (Karras et al. 2024, 2406.02507).

    x0 = x0(weaker) + scale (x0(base) - x0(weaker)), both with the same condition.

    Args:
        base: the good model.
        weaker: a smaller or less trained one for the same data, on any clock.
        scale: 1 is the base exactly.
        interval: noise ratios sigma/alpha between which to guide; outside them it is the base.

    Raises:
        InputError: numbers out of range.
    """

    weaker: Denoiser
    scale: float = 2.0
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_scale(self.scale, self.interval)
        if self.weaker.process != self.process:
            object.__setattr__(self, "weaker", self.weaker.on(self.process))

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        good = self.base.predict(x, level, condition)
        scale = scale_at(level, self.scale, self.interval, 1.0)
        if isinstance(scale, float | int) and scale == 1.0:
            return good
        weak = self.weaker.predict(x, level, condition).x0
        return Prediction(weak + scale * (good.x0 - weak), x, level, good.log_var)


def _twice(level: Level) -> Level:
    """The level of a batch laid after itself."""
    if not isinstance(level.alpha, Tensor):
        return level
    values = [torch.as_tensor(value) for value in (level.t, level.alpha, level.sigma)]
    return Level(level.process, *(torch.cat([value, value]) for value in values))
