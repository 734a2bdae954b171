"""Moments: a student whose samples, noised, have the means that its teacher knows of data.

Whatever draws samples x of a law p has, at any level of noise, a posterior mean E_p[x given x_s]; and two laws whose
posterior means agree at one level with some noise are the same law, since the mean is the score there (Tweedie),

    E_p[x given x_s] = (x_s + sigma_s^2 grad log p_s(x_s))/alpha_s.

The teacher knows that mean of the data. A second network, the *auxiliary*, learns it of the student's own samples, by
the ordinary regression, while the student learns. Where they differ, a sample is to move from the one to the other:

    x0* = x + teacher(x_s) - auxiliary(x_s),        x_s = alpha_s x + sigma_s eps,        s even in u of `ladder`,

and the student is taught x0* as if it were known. In the mean over eps that is a step downhill of the divergence
KL(p_s of the student || p_s of the teacher), so it stands still where the laws agree; no sample has to end where a
trajectory of the teacher's does. The gradient goes back through the one call that made x, and through neither of the
two that judge it.

This is matching of distributions (Yin et al. 2024, 2311.18828) and of first moments (Salimans et al. 2024, 2406.04103,
who also say that it takes several calls: each is taught at a level of its own). Here the levels are those that the
calls have in common, x_t is made of data, and the student's sample is noised afresh on the way to the next level, as
`Renoise` walks; the auxiliary is told which of the levels a sample is from, so that the law is right from each of them
and not in their mixture alone. Both networks move at every step.

An auxiliary that lags behind sends the student astray, and a student that is astray asks its teacher about what that
has never seen. So a share of the rows are lessons of consistency instead, in the place of Yin's regression on pairs of
noise and sample: they say roughly where each sample belongs from the first step on.

On a Gaussian, where the student is affine, only two maps to the right law stand still, which differ in their sign; the
one that a student reaches from its teacher is the exact flow map.
"""

import math
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
from ornstein.distill.students import Consistency, Distillation, in_common, weight
from ornstein.errors import InputError

#: the part of a condition that tells an auxiliary which of a student's levels a sample is from
RUNG = "rung"


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
        share: of the rows, which are lessons of consistency; in [0, 1).
        pull: weight of the two means' difference beside those lessons.

    Raises:
        InputError: a share or a weight out of range.
    """

    scale: float = 1.0
    drop_label: float = 0.1
    share: float = 0.5
    pull: float = 0.1
    assisted: ClassVar[bool] = True
    stepper: ClassVar[str] = "renoise"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share < 1:
            raise InputError(f"share={self.share!r} must be a share of the rows in [0, 1).")
        if not 0 < self.pull < math.inf:
            raise InputError(f"pull={self.pull!r} must be a weight above 0.")

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
        k = int(self.share * len(x0))
        matched = self._matched(student, x0[k:], condition[k:], generator, teacher, self.rungs(calls))
        if not k:
            return matched
        held = Consistency().loss(student, x0[:k], condition[:k], generator, teacher, calls)
        return torch.cat([held, matched])

    def _matched(
        self, student: Assisted, x0: Tensor, condition: Condition, generator: Generator, teacher: Denoiser, rungs: int
    ) -> Tensor:
        ladder = Ladder(student, rungs)
        # the next level every row, so that each meets the noise levels, which rise with the rows, evenly
        rung = torch.arange(len(x0), device=x0.device) % rungs
        level = ladder.at(rung, x0)
        made = student.predict(level.noised(x0, noise_like(x0, generator)), level, condition).x0
        x, noisier = made.detach(), scattered(student, x0, generator)
        xs = noisier.noised(x, noise_like(x0, generator))
        mean = student.auxiliary.predict(xs, noisier, Condition({**condition.parts, RUNG: rung})).x0
        with torch.no_grad():
            wanted = x + teacher.predict(xs, noisier, condition).x0 - mean
        counts = weight(noisier, student.unit)
        # by 1/out the student is drawn by how far the two are apart in the reading "edm", which is of one size at all
        # levels; by 1/out^2 what they say of the least noise would drown the rest
        return self.pull * mean_square(made - wanted, x, counts.sqrt() / student.unit) + mean_square(
            mean - x, x, counts
        )
