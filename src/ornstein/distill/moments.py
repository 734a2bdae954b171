"""Moments: a student whose samples, noised, have the posterior means that its teacher knows of data.

Samples x of any distribution p have a posterior mean at each level of noise, E_p[x given x_s]. Two distributions with
the same posterior means at one level with some noise are the same, since the mean gives the score there (Tweedie),

    E_p[x given x_s] = (x_s + sigma_s^2 grad log p_s(x_s))/alpha_s.

The teacher knows that mean of the data. While the student learns, a second network, the *auxiliary*, learns that of the
student's own samples, by the ordinary regression. Where they differ, a sample should move from the one to the other:

    x0* = x + teacher(x_s) - auxiliary(x_s),        x_s = alpha_s x + sigma_s eps,        s even in u of `ladder`,

and the student is trained on x0* as if it were known. On average over eps that is a descent step on the divergence
KL(p_s of the student || p_s of the teacher), so it comes to rest where the distributions agree; no sample has to end
where a trajectory of the teacher ends. The gradient goes back through the one call that made x, and through neither of
the two that judge it.

This is distribution matching (Yin et al. 2024, 2311.18828) and matching of first moments (Salimans et al. 2024,
2406.04103, who also extend it to several calls, each trained at a level of its own). Here the levels are those that the
numbers of calls share, x_t is noised data, and the student's sample gets fresh noise on the way to the next level, as
`Renoise` does it; the auxiliary is told from which of the levels a sample comes, so that the distribution is right from
each of them and not only in their mixture. Both networks are updated at every step.

An auxiliary that lags behind sends the student astray, and then the teacher is asked about samples that it has never
seen. So a share of the rows are lessons of consistency, in place of Yin's regression on pairs of noise and sample: from
the first step on they say roughly where each sample belongs.

On a Gaussian, where the student is affine, the loss leaves only two maps unchanged, which differ in sign; the one that
a student reaches when it starts from its teacher is the exact flow map.
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

#: the part of a condition that tells an auxiliary from which of a student's levels a sample comes
RUNG = "rung"


@dataclass(frozen=True, eq=False)
class Assisted(Around):
    """A student together with a denoiser of its own samples.

    Args:
        base: the student.
        auxiliary: E[x given x_s] of the student's samples x, also given the part `RUNG`.
    """

    auxiliary: Denoiser

    @property
    def process(self) -> Any:  # type: ignore[override]
        return self.base.process

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        return self.base.predict(x, level, condition)


@dataclass(frozen=True)
class Moments(Distillation):
    """Noised, its samples have the teacher's posterior means (Salimans et al. 2024, 2406.04103; Yin 2311.18828).

    Args:
        scale: of the teacher's guidance to its labels, which the student then has built in; 1 for none.
        drop_label: the probability of a lesson without its label.
        share: of the rows that are lessons of consistency; in [0, 1).
        pull: weight of the loss from the two means' difference, relative to those lessons.

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
        memory: dict[str, Tensor],
    ) -> Tensor:
        assert isinstance(student, Assisted)  # as for all that are `assisted`
        k = int(self.share * len(x0))
        matched = self._matched(student, x0[k:], condition[k:], generator, teacher, self.rungs(calls))
        if not k:
            return matched
        held = Consistency().loss(student, x0[:k], condition[:k], generator, teacher, calls, memory)
        return torch.cat([held, matched])

    def _matched(
        self, student: Assisted, x0: Tensor, condition: Condition, generator: Generator, teacher: Denoiser, rungs: int
    ) -> Tensor:
        ladder = Ladder(student, rungs)
        # consecutive rows take different levels, so that each meets all noise levels, which rise with the rows
        rung = torch.arange(len(x0), device=x0.device) % rungs
        level = ladder.at(rung, x0)
        made = student.predict(level.noised(x0, noise_like(x0, generator)), level, condition).x0
        x, noisier = made.detach(), scattered(student, x0, generator)
        xs = noisier.noised(x, noise_like(x0, generator))
        mean = student.auxiliary.predict(xs, noisier, Condition({**condition.parts, RUNG: rung})).x0
        with torch.no_grad():
            wanted = x + teacher.predict(xs, noisier, condition).x0 - mean
        counts = weight(noisier, student.unit)
        # weighted by 1/out, the pull is the difference of the two in the reading "edm", which has one size at all
        # levels; with 1/out^2 the levels of least noise would drown the rest
        return self.pull * mean_square(made - wanted, x, counts.sqrt() / student.unit) + mean_square(
            mean - x, x, counts
        )
