"""Endpoint: a student whose K calls, taken together, end where its teacher's walk ends.

The other methods teach one call at a time, on noised data, and a walk of several calls meets states that no lesson was
about. Here the lesson is the walk itself. From noise z the teacher goes to its end y in fine steps of its solver; the
student goes to x in K calls of the same solver, each a call of its own network, and all K are trained together by

    |x - y| in the end,        K calls and the solver between them being one deep network from z to x.

(Regression of noise on its end: Luhman & Luhman 2021, 2101.02388, in one call; training along the student's own walk:
Zhou et al. 2024, 2409.19681, and Kohler et al. 2024, 2405.05224.) With the teacher's weights this *is* the teacher's
default solver at K calls: the student begins as good as that, where a student that draws by noise anew begins far
behind it. It is deterministic, so the same noise gives the student's sample and the teacher's, and it never sees data.

*Regression blurs.* Where ends that differ come from noises that a network of finite size and little training cannot
tell apart, the least distance is at their middle, which is like none of them. So the ends of a batch are also compared
as two *sets*, by the energy distance (Székely & Rizzo 2013),

    E = 2 mean |x_i - y_j| - mean |x_i - x_j| - mean |y_i - y_j|,

which is zero only where they are equally distributed: a sample is drawn to the ends around it and pushed away from its
siblings. (A scoring rule in place of an adversary, as in De Bortoli et al. 2025, 2502.02483.) Since x and y come from
the same noises, E is exactly zero, and its gradient too, where the student is exact: on a Gaussian what is learned is
the exact flow map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser
from ornstein.core.numerics import noise_like
from ornstein.distill.ladder import walked
from ornstein.distill.students import SEGMENTS, Distillation, in_common, with_calls
from ornstein.errors import InputError
from ornstein.samplers import UniPCAuto

#: distances are even, as |x|^2/2, below this share of the data's spread, and count as they are above
SOFT = 0.02


@dataclass(frozen=True)
class Endpoint(Distillation):
    """Its walk of a few calls, as a whole, ends where the teacher's walk does, and as those ends are distributed.

    Args:
        scale: of the teacher's guidance to its labels, which the student then has built in; 1 for none.
        drop_label: the probability of a lesson without its label.
        segments: the least number of calls in the teacher's walk; rounded up to a multiple of every number of calls.
        spread: weight of the energy distance between the ends of a batch, relative to the distances of pairs.

    Raises:
        InputError: a number out of range.
    """

    scale: float = 1.0
    drop_label: float = 0.1
    segments: int = SEGMENTS
    spread: float = 4.0
    tells: ClassVar[bool] = True
    stepper: ClassVar[str] = "unipc-auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.segments < 1:
            raise InputError(f"segments={self.segments!r} must be a positive whole number.")
        if not self.spread >= 0:
            raise InputError(f"spread={self.spread!r} must be a weight of at least 0.")

    def rungs(self, calls: Sequence[int]) -> int:
        common = in_common(calls)
        return -(-self.segments // common) * common

    def loss(
        self,
        student: Denoiser,
        x0: Tensor,
        condition: Condition,
        generator: Generator,
        teacher: Denoiser,
        calls: Sequence[int],
    ) -> Tensor:
        taught, segments, stepper = self.taught(calls), self.rungs(calls), UniPCAuto()
        # one walk of the teacher serves every number of calls
        few = -(-len(x0) // len(taught))
        noise, given = noise_like(x0, generator)[:few], condition[:few]
        with torch.no_grad():
            ends = walked(teacher, stepper, segments, segments, noise, given)
        found = []
        for which, count in enumerate(taught):
            rows = min(few, len(x0) - which * few)
            if rows > 0:
                told = with_calls(given[:rows], torch.full((rows,), which, device=x0.device))
                x = walked(student, stepper, segments, count, noise[:rows], told, gradients=True)
                found.append(self._missed(x, ends[:rows], student.unit))
        return torch.cat(found)

    def _missed(self, x: Tensor, y: Tensor, unit: float) -> Tensor:
        """What each of the ends x (B, ...) misses of those that are wanted, y, (B,)."""
        x, y = x.flatten(1) / unit, y.flatten(1) / unit
        pairs = soft((x - y).square().mean(1))
        if not self.spread:
            return pairs
        across, within = soft(apart(x, y)), soft(apart(x, x))
        return pairs + self.spread * (2 * across - within - soft(apart(y, y))).mean(1)


def apart(x: Tensor, y: Tensor) -> Tensor:
    """The mean squared difference of each x (N, d) from each y (M, d), (N, M)."""
    inner = x @ y.T
    return ((x.square().sum(1)[:, None] + y.square().sum(1) - 2 * inner) / x.shape[1]).clamp(min=0)


def soft(squares: Tensor) -> Tensor:
    """Distances from their squares, without a kink at zero: pseudo-Huber."""
    return (squares + SOFT**2).sqrt() - SOFT
