"""Moments: a student whose samples, noised, have the means that its teacher knows of data.

Whatever draws samples x of a law p has, at any level of noise, a posterior mean E_p[x given x_s]; and two laws whose
posterior means agree at one level with some noise are the same law, since the mean is the score there (Tweedie),

    E_p[x given x_s] = (x_s + sigma_s^2 grad log p_s(x_s))/alpha_s.

The teacher knows that mean of the data. A second network, the *auxiliary*, learns it of the student's own samples, by
the ordinary regression, while the student learns. Where they differ, a sample is moved from the one to the other:

    x  <-  x + (teacher(x_s) - auxiliary(x_s)) / mean |teacher(x_s) - x|,        x_s = alpha_s x + sigma_s eps,

s even in u of `ladder`. In the mean over eps that is a step downhill of the divergence KL(p_s of the student || p_s of
the teacher), so it stands still where the laws agree; no sample has to agree with any trajectory of the teacher's. The
gradient goes back through the one call that made x, and through neither of the two that judge it.

This is matching of distributions (Yin et al. 2024, 2311.18828, whose division by the teacher's own distance it is) and
of first moments (Salimans et al. 2024, 2406.04103, who also say that it takes several calls: each is taught at a level
of its own). Here the levels are those that the calls have in common, x_t is made of data, and the student's sample is
noised afresh on the way to the next level, as `Renoise` walks; the auxiliary is told which of the levels a sample is
from, so that the law is right from each of them and not in their mixture alone. Both networks move at every step.

On a Gaussian, where the student is affine, only two maps to the right law stand still, which differ in their sign; the
one that a student reaches from its teacher is the exact flow map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from ornstein.core.condition import Condition
from ornstein.core.denoiser import Around, Denoiser
from ornstein.core.gaps import mean_square
from ornstein.core.numerics import noise_like
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level
from ornstein.distill.ladder import Ladder, scattered
from ornstein.distill.students import Distillation, in_common, weight

#: the part of a condition that tells an auxiliary which of a student's levels a sample is from
RUNG = "rung"
#: the least mean distance, in units of sigma_data, that a step is divided by
_LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class Assisted(Around):
    """A student beside a denoiser of its own samples.

    Args:
        base: the student.
        auxiliary: E[x given x_s] of the samples x that the student makes, given the part `RUNG` too.
    """

    auxiliary: Denoiser

    @property
    def process(self) -> Any:  # type: ignore[override]
        return self.base.process

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        return self.base.predict(x, level, condition)


@dataclass(frozen=True)
class Moments(Distillation):
    """A sample's mean given it noised is what the teacher says (Salimans et al. 2024, 2406.04103; Yin 2311.18828).

    Args:
        scale: of guidance of the teacher to its labels, which the student then has in itself; 1 for none.
        drop_label: the probability of a lesson without its label.
    """

    scale: float = 1.0
    drop_label: float = 0.1
    assisted: ClassVar[bool] = True
    stepper: ClassVar[str] = "renoise"

    def rungs(self, calls: Sequence[int]) -> int:
        return in_common(calls)

    def loss(
        self,
        student: Denoiser,
        x0: Tensor,
        condition: Condition,
        generator: Generator,
        teacher: Denoiser,
        calls: Sequence[int],
    ) -> Tensor:
        assert isinstance(student, Assisted)  # of those that are `assisted`
        ladder = Ladder(student, self.rungs(calls))
        # the next level every row, so that each meets the noise levels, which rise with the rows, evenly
        rung = torch.arange(len(x0), device=x0.device) % ladder.segments
        level = ladder.at(rung, x0)
        made = student.predict(level.noised(x0, noise_like(x0, generator)), level, condition).x0
        x = made.detach()
        noisier = scattered(student, x0, generator)
        xs = noisier.noised(x, noise_like(x0, generator))
        mean = student.auxiliary.predict(xs, noisier, Condition({**condition.parts, RUNG: rung})).x0
        with torch.no_grad():
            known = teacher.predict(xs, noisier, condition).x0
            least = _LEAST * student.unit
            far = (known - x).abs().flatten(1).mean(1).clamp(min=least).reshape(-1, *[1] * (x.ndim - 1))
            # of unit length where the two differ as much as the teacher is off
            moved = x + (known - mean) / far
        learned = mean_square(mean - x, x, weight(noisier, student.unit))
        return mean_square(made - moved, x) / 2 + learned
