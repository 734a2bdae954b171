"""Predictor and corrector: any stepper, and a few steps of Langevin dynamics at the level where it arrives.

A solver of the reverse-time equation carries its errors along. Langevin dynamics at a fixed level,

    x <- x + gamma score + sqrt(2 gamma) z,

has q_s as its stationary distribution and forgets errors. Song et al. 2021 (2011.13456, algorithms 2 to 5) alternate
the two: a step of the predictor from t to s, then L corrections at s. The predictor may be any stepper, also a fast
multistep one: it does not know of the corrections.

The size of a correction either follows from a *signal-to-noise ratio* r, of the score's part of a step to the noise's,
or is given, gamma = delta sigma_s^2. Both scale with the data. The paper's rule for the ratio is

    gamma = (r |z|/|score|)^2,

with lengths averaged over a batch, which couples its samples. Lengths of a single sample do not work either: a step
that depends on the state has another stationary distribution. (Its drift lacks grad gamma, 2/d of the score; in two
dimensions we measured errors of two standard deviations.) Here |z|^2 is its mean, the number of dimensions d, and
|score|^2 is measured on the sample and shrunk, as by 100 more dimensions, towards its mean where x is noise, d/sigma^2,

    gamma = r^2 sigma^2 (d + 100)/(sigma^2 |score|^2 + 100),         at most sigma^2:

which is the paper's rule for pictures, and r^2 sigma^2 in few dimensions. Beyond 2 sigma^2 the dynamics explode where x
is noise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ornstein.core.drive import Ask, Noise, Stepper
from ornstein.core.process import Level
from ornstein.errors import InputError
from ornstein.samplers.table import stepper_named

#: dimensions by which the measured length of the score is drawn towards its mean
_SHRINKING = 100


@dataclass(frozen=True)
class PredictorCorrector(Stepper):
    """Any stepper, corrected by Langevin dynamics at each level. Song et al. 2021 (2011.13456), algorithms 2 to 5.

    The step to the clean point has no correction.

    Args:
        predictor: a stepper, its name, or a mapping of its name and options.
        corrections: L, Langevin steps at each level.
        snr: the signal-to-noise ratio of a correction, which sets its size; 0.16 in the paper, for 32 by 32 pictures.
        delta: gamma/sigma^2 in (0, 1], instead of `snr`: one for all levels, or one for each step from noise to data.

    Raises:
        InputError: numbers out of range, both or neither of snr and delta, fewer deltas than steps.

    No order: at a fixed number of corrections a finer grid does not remove their bias. Two calls a step by default: the
    predictor's, and one for each correction. Stochastic.
    """

    predictor: Any = "dpm++2m"
    corrections: int = 1
    snr: float | None = 0.16
    delta: float | tuple[float, ...] | None = None
    order: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if not isinstance(self.predictor, Stepper):
            given = dict(self.predictor) if isinstance(self.predictor, Mapping) else {"name": self.predictor}
            object.__setattr__(self, "predictor", stepper_named(given.pop("name", None), **given))
        if isinstance(self.corrections, bool) or not isinstance(self.corrections, int) or self.corrections < 1:
            raise InputError(f"corrections={self.corrections!r} must be a whole number, at least 1.")
        if isinstance(self.delta, list):
            object.__setattr__(self, "delta", tuple(self.delta))
        for delta in self.delta if isinstance(self.delta, tuple) else (self.delta,):
            if delta is not None and not 0 < delta <= 1:
                raise InputError(f"delta={delta!r} must be in (0, 1], in units of sigma^2.")
        if self.delta is None and (self.snr is None or not 0 < self.snr <= 1):
            raise InputError(f"snr={self.snr!r} must be in (0, 1], or delta given in its place.")

    @property
    def calls(self) -> int | None:
        return None if self._inner.calls is None else self._inner.calls + self.corrections

    @property
    def last_calls(self) -> int | None:
        return self._inner.last_calls

    @property
    def stochastic(self) -> bool:
        return True

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        k, inner = memory or (0, None)
        x, inner = self._inner.step(denoiser, x, t, s, inner, noise)
        for _ in range(self.corrections):
            eps, z = denoiser(x, s).eps, noise()
            # in units of sigma^2: the score is -eps/sigma
            if self.delta is None:
                assert self.snr is not None
                square, d = eps.flatten(1).square().sum(1), x[0].numel()
                size = (self.snr**2 * (d + _SHRINKING) / (square + _SHRINKING)).clamp(max=1.0)
                size = size.reshape(-1, *[1] * (x.ndim - 1))
                x = x + s.sigma * ((2 * size).sqrt() * z - size * eps)
            else:
                delta = self._delta(k)
                x = x + s.sigma * (math.sqrt(2 * delta) * z - delta * eps)
        return x, (k + 1, inner)

    def finish(self, denoiser: Ask, x: Tensor, t: Level[float], memory: Any, noise: Noise) -> Tensor:
        return self._inner.finish(denoiser, x, t, memory[1] if memory else None, noise)

    @property
    def _inner(self) -> Stepper:
        assert isinstance(self.predictor, Stepper)  # since `__post_init__`
        return self.predictor

    def _delta(self, k: int) -> float:
        assert self.delta is not None
        if not isinstance(self.delta, tuple):
            return self.delta
        if k >= len(self.delta):
            raise InputError(f"delta has {len(self.delta)} sizes, and the grid more steps: give one for each.")
        return self.delta[k]
