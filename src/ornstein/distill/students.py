"""Students of few calls: networks trained to land, in a few calls, where their teacher's walk would.

A teacher answers E[x_0 given x_t] and is walked down many levels. A student is the same network, starting from the same
weights, that answers another question: *which x0 takes one of my steps to where the teacher's walk goes?* All methods
below are regressions of that answer,

    loss = w |student(x_t) - x0*|^2 / d,        w = 1/out^2 of the reading "edm",

on data noised by the forward process, with levels spread evenly in u = q/(1 + q), q = sigma/(alpha sigma_data). The
teacher goes from level to level by Heun's rule. The methods differ in x0*:

**Progressive** (Salimans & Ho 2022, 2202.00512). A step of DDIM from level t to s lands at r x_t + (alpha_s - r
alpha_t) x0, r = sigma_s/sigma_t; so for whatever place x_s the step should reach there is one answer that reaches it,

    x0* = (x_s - r x_t)/(alpha_s - r alpha_t).

The student of most calls learns x_s from the teacher. The student of half as many calls learns from the student of
twice as many: x_s is where two steps of that one arrive. Here all of them are one network, which is told how many calls
it has (as in Frans et al. 2024, 2410.12557), so all rounds run at the same time and none is forgotten.

**Consistency** (Song et al. 2023, 2303.01469). All points of a trajectory end in one place. So the answer at t is the
answer at the next level below, at the point where the teacher's step arrives; at the last level it is that point
itself. The student answers with the end from anywhere: in one call, or in several with fresh noise between, `Renoise`.

**Rectified** (reflow; Liu et al. 2022, 2209.03003). Join each noise z with the end x that the teacher takes it to, and
learn from x_t = alpha x + sigma z at all levels, with the same z. The answer is x, and the trajectories of the
resulting ODE are straighter than the teacher's, so that a few steps of DDIM follow them.

On a Gaussian everything is known in closed form: with an exact teacher, each method has one student that its lessons do
not change, and that student's walk is the exact flow map.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser
from ornstein.core.gaps import mean_square
from ornstein.core.numerics import noise_like, strata
from ornstein.core.prediction import READINGS
from ornstein.core.process import Level, Process
from ornstein.distill.ladder import Ladder, grid, scattered
from ornstein.errors import InputError
from ornstein.guidance import ClassifierFree

#: the part of a condition that tells a student how many calls it has: an index into the numbers that it learns
CALLS = "calls"
#: segments of the teacher's walk, by Heun's rule, and the most levels that several numbers of calls may share
SEGMENTS, MOST_RUNGS = 12, 64


def with_calls(condition: Condition, which: Tensor) -> Condition:
    """The condition of a student that has the `which`-th (B,) of the numbers of calls that it learns."""
    return Condition({**condition.parts, CALLS: which})


class Lesson(NamedTuple):
    """What a student is asked, and the right answer.

    Attributes:
        x: (B, ...) noisy data.
        level: the level of each.
        condition: the condition of each.
        answer: (B, ...), the right x0.
    """

    x: Tensor
    level: Level[Tensor]
    condition: Condition
    answer: Tensor


def in_common(calls: Sequence[int]) -> int:
    """The fewest segments of a ladder that walks of all these numbers of calls can share.

    Raises:
        InputError: they would share more than `MOST_RUNGS`.
    """
    common = math.lcm(*calls)
    if common > MOST_RUNGS:
        raise InputError(
            f"steps={', '.join(map(str, sorted(calls)))} have {common} levels in common, of at most {MOST_RUNGS}: "
            "take numbers of which each divides the next."
        )
    return common


@dataclass(frozen=True)
class Distillation(ABC):
    """A student's objective: `(student, x0, condition, generator, teacher, calls) -> loss (B,)`. Write `loss`.

    Attributes:
        scale: of the teacher's classifier-free guidance, which the student then has built in; 1 for none.
        drop_label: the probability of a lesson without its label.
        tells: whether the network is told how many calls it has, and so can draw in those numbers alone.
        assisted: whether a second network beside the student learns what its samples are like.
        stepper: the stepper that draws from its student.
    """

    scale: float
    drop_label: float
    tells: ClassVar[bool] = False
    assisted: ClassVar[bool] = False
    stepper: ClassVar[str] = "ddim"

    def __post_init__(self) -> None:
        if not 0 <= self.drop_label <= 1:
            raise InputError(f"drop_label={self.drop_label!r} must be a probability in [0, 1].")
        if not self.scale >= 0:
            raise InputError(f"scale={self.scale!r} must be at least 0: 1 is the teacher as it is.")

    def taught(self, calls: Sequence[int]) -> tuple[int, ...]:
        """The numbers of calls to train so that these are learned, the most first."""
        return tuple(sorted(set(calls), reverse=True))

    @abstractmethod
    def rungs(self, calls: Sequence[int]) -> int:
        """Segments of the ladder of levels used in training.

        Raises:
            InputError: the numbers of calls share no such ladder.
        """

    def levels(self, process: Process, unit: float, count: int, calls: Sequence[int]) -> Tensor:
        """The times of a student's walk of `count` calls, (count + 1,), falling to 0: those taught, if there are such.

        Args:
            process, unit: the clock, and what noise is measured in.
            calls: the numbers of calls that were taught.
        """
        rungs = self.rungs(calls)
        return grid(process, count, unit) if rungs % count else grid(process, rungs, unit)[:: rungs // count]

    def memory(self, x0: Tensor, condition: Condition) -> dict[str, Tensor]:
        """What the lessons keep from step to step, in its first state, for batches like this one; {} for most."""
        return {}

    @abstractmethod
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
        """The loss of each row (B,) of data x0 (B, ...), given `condition` in which parts are left out already."""

    def __call__(
        self,
        student: Denoiser,
        x0: Tensor,
        condition: Given,
        generator: Generator,
        teacher: Denoiser,
        calls: Sequence[int],
        memory: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """The loss of each lesson, (B,).

        Args:
            student: called with gradients for the lesson, and without them where it teaches itself.
            x0: (B, ...) data in model space.
            condition: of B rows.
            generator: of all randomness.
            teacher: on the student's clock.
            calls: the numbers of calls in which the student is to draw.
            memory: what the lessons keep from step to step, changed in place; by default, of this step alone.
        """
        given = Condition.of(condition).dropped(self.drop_label, generator)
        if self.scale != 1:
            teacher = ClassifierFree(teacher, self.scale)
        memory = self.memory(x0, given) if memory is None else memory
        return self.loss(student, x0, given, generator, teacher, calls, memory)


@dataclass(frozen=True)
class Lessons(Distillation):
    """A regression of answers that can be computed beforehand. Write `lesson`."""

    @abstractmethod
    def lesson(
        self,
        student: Denoiser,
        x0: Tensor,
        condition: Condition,
        generator: Generator,
        teacher: Denoiser,
        calls: Sequence[int],
    ) -> Lesson:
        """B lessons about data x0 (B, ...), given `condition` in which parts are left out already."""

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
        with torch.no_grad():
            lesson = self.lesson(student, x0, condition, generator, teacher, calls)
        found = student.predict(lesson.x, lesson.level, lesson.condition).x0
        return mean_square(found - lesson.answer, lesson.answer, weight(lesson.level, student.unit))


def weight(level: Level[Tensor], unit: float) -> Tensor:
    """The weight at a level of a squared error of x0, 1/out^2 of the reading "edm"."""
    out = torch.as_tensor(READINGS["edm"](level, unit)[1])
    return out**-2


@dataclass(frozen=True)
class Progressive(Lessons):
    """Each step lands where two steps of the student of twice the calls do (Salimans & Ho 2022, 2202.00512).

    Args:
        scale: of the teacher's guidance to its labels, which the student then has built in; 1 for none.
        drop_label: the probability of a lesson without its label.
        substeps: of the teacher, by Heun's rule, in one step of the student of most calls; 0 for 12, or a few more, in
            the whole walk.
    """

    scale: float = 1.0
    drop_label: float = 0.1
    substeps: int = 0
    tells: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.substeps < 0:
            raise InputError(f"substeps={self.substeps!r} must be a positive whole number, or 0 for 12 in all.")

    def taught(self, calls: Sequence[int]) -> tuple[int, ...]:
        """From the most calls down to the fewest, halving.

        Raises:
            InputError: numbers of calls that are not powers of two.
        """
        for count in calls:
            if count & (count - 1):
                raise InputError(
                    f"steps={count} is no power of two: progressive distillation halves the steps; take 1, 2, 4, 8, "
                    "..., or another method."
                )
        most, fewest = max(calls), min(calls)
        return tuple(most >> k for k in range((most // fewest).bit_length()))

    def rungs(self, calls: Sequence[int]) -> int:
        return max(calls) * (self.substeps or -(-SEGMENTS // max(calls)))

    def lesson(
        self,
        student: Denoiser,
        x0: Tensor,
        condition: Condition,
        generator: Generator,
        teacher: Denoiser,
        calls: Sequence[int],
    ) -> Lesson:
        taught = self.taught(calls)
        ladder = Ladder(student, self.rungs(calls))
        each = ladder.segments // taught[0]
        # every number of calls, and each of its steps, gets equally many rows; the first rows are those of the most
        # calls, so that their place is known without asking the device
        n, rounds = len(x0), len(taught)
        split = -(-n // rounds)
        which = torch.arange(n, device=x0.device) * rounds // n
        counts = taught[0] // 2**which
        stride = ladder.segments // counts
        u = strata(n, generator).to(x0.device) * rounds % 1
        start = (u * counts).floor().long() * stride
        eps = noise_like(x0, generator)
        t, s = ladder.at(start, x0), ladder.at(start + stride, x0)
        x = t.noised(x0, eps)
        first, at, given = x[:split], start[:split], condition[:split]
        for _ in range(each):
            first, at = ladder.heun(teacher, first, at, at + 1, given), at + 1
        landed = [first]
        if split < n:
            rest, at, half = x[split:], start[split:], stride[split:] // 2
            given = with_calls(condition[split:], which[split:] - 1)
            for _ in range(2):
                rest, at = ladder.ddim(student, rest, at, at + half, given), at + half
            landed.append(rest)
        ratio = s.sigma / t.sigma
        answer = (torch.cat(landed) - ratio * x) / (s.alpha - ratio * t.alpha)
        return Lesson(x, t, with_calls(condition, which), answer)


@dataclass(frozen=True)
class Consistency(Lessons):
    """The answer anywhere is the answer a step of the teacher further down (Song et al. 2023, 2303.01469).

    Args:
        scale: of the teacher's guidance to its labels, which the student then has built in; 1 for none.
        drop_label: the probability of a lesson without its label.
        segments: the least number of levels in training, each of which teaches the next noisier one; rounded up to a
            multiple of every number of calls.
    """

    scale: float = 1.0
    drop_label: float = 0.1
    segments: int = SEGMENTS
    stepper: ClassVar[str] = "renoise"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.segments < 1:
            raise InputError(f"segments={self.segments!r} must be a positive whole number.")

    def rungs(self, calls: Sequence[int]) -> int:
        common = in_common(calls)
        return -(-self.segments // common) * common

    def lesson(
        self,
        student: Denoiser,
        x0: Tensor,
        condition: Condition,
        generator: Generator,
        teacher: Denoiser,
        calls: Sequence[int],
    ) -> Lesson:
        ladder = Ladder(student, self.rungs(calls))
        u = strata(len(x0), generator).to(x0.device)
        start = (u * ladder.segments).floor().long().clamp(max=ladder.segments - 1)
        eps = noise_like(x0, generator)
        level = ladder.at(start, x0)
        x = level.noised(x0, eps)
        below = ladder.heun(teacher, x, start, start + 1, condition)
        end = (start + 1 == ladder.segments).reshape(-1, *[1] * (x.ndim - 1))
        # the clean point needs no answer: the level above stands in, and its answer is not used
        further = ladder.at(torch.where(end.flatten(), start, start + 1), x0)
        answer = torch.where(end, below, student.predict(below, further, condition).x0)
        return Lesson(x, level, condition, answer)


@dataclass(frozen=True)
class Rectified(Lessons):
    """Straight lines between each noise and the end that the teacher takes it to: reflow (Liu et al. 2022, 2209.03003).

    Args:
        scale: of the teacher's guidance to its labels, which the student then has built in; 1 for none.
        drop_label: the probability of a lesson without its label.
        segments: of the teacher's walk from noise to its end, by Heun's rule.
        lines: lessons from each line, each at a level of its own.
    """

    scale: float = 1.0
    drop_label: float = 0.1
    segments: int = SEGMENTS
    lines: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("segments", "lines"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)!r} must be a positive whole number.")

    def rungs(self, calls: Sequence[int]) -> int:
        return self.segments

    def lesson(
        self,
        student: Denoiser,
        x0: Tensor,
        condition: Condition,
        generator: Generator,
        teacher: Denoiser,
        calls: Sequence[int],
    ) -> Lesson:
        ladder = Ladder(student, self.rungs(calls))
        n = len(x0)
        # consecutive rows take different lines, so that each line is met at levels that are spread out
        few = -(-n // self.lines)
        line = torch.arange(n, device=x0.device) % few
        eps = noise_like(x0, generator)[:few]
        at = torch.zeros(few, dtype=torch.long, device=x0.device)
        top = ladder.at(at, eps)
        x = ((top.alpha * student.sigma_data) ** 2 + top.sigma**2) ** 0.5 * eps
        for _ in range(self.segments):
            x, at = ladder.heun(teacher, x, at, at + 1, condition[:few]), at + 1
        level = scattered(student, x0, generator)
        return Lesson(level.noised(x[line], eps[line]), level, condition[:few][line], x[line])
