"""Endpoint: a student whose K calls, taken together, end where its teacher's walk ends.

The other methods teach one call at a time, on noised data, and a walk of several calls meets states that no lesson was
about. Here the lesson is the walk itself. From noise z the teacher goes to its end y in fine steps of its solver; the
student goes to x in K calls of the same solver, each a call of its own network, and all K are trained together by

    |x - y| in the end,        K calls and the solver between them being one deep network from z to x.

(Regression of noise on its end: Luhman & Luhman 2021, 2101.02388, in one call; training along the student's own walk:
Zhou et al. 2024, 2409.19681, and Kohler et al. 2024, 2405.05224.) With the teacher's weights this *is* the teacher's
default solver at K calls, except that its levels begin lower, at `TOP`. That is a worse place to begin and a better
one to learn from: a call at more noise than this says little but the mean of the data, and K calls are few. The walk is
deterministic, so the same noise gives the student's sample and the teacher's, and the student never sees data.

*Regression blurs.* Where ends that differ come from noises that a network of finite size and little training cannot
tell apart, the least distance is at their middle, which is like none of them. So the ends of a batch are also compared
as two *sets*, by the energy distance (Székely & Rizzo 2013),

    E = 2 mean |x_i - y_j| - mean |x_i - x_j| - mean |y_i - y_j|,

which is zero only where they are equally distributed: a sample is drawn to the ends around it and pushed away from its
siblings. (A scoring rule in place of an adversary, as in De Bortoli et al. 2025, 2502.02483.) Since x and y come from
the same noises, E is exactly zero, and its gradient too, where the student is exact: on a Gaussian what is learned is
the exact flow map.

*An end may serve several lessons.* The teacher's walk is the dearer half of a lesson, and what it finds stays true. So
ends are kept in a pool, each with its noise and its condition; every step walks a few new ones, in place of the oldest,
and takes its lesson from rows of the pool drawn at random.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Generator, Tensor

from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser
from ornstein.core.drive import Ask, Noise, drawing, start
from ornstein.core.grids import times
from ornstein.core.numerics import noise_like
from ornstein.core.process import Level, Process
from ornstein.core.walk import end, walk
from ornstein.distill.ladder import falling
from ornstein.distill.students import SEGMENTS, Distillation, with_calls
from ornstein.errors import InputError
from ornstein.samplers import UniPCAuto

#: q = sigma/(alpha sigma_data) at which a student begins, and at which its samples are looked at
TOP, CLOSE = 20.0, 0.15
#: a distance below this counts as its square does
SOFT = 0.02
#: the pool in the loss's memory: how many were walked so far; their noise, ends and conditions
WALKED, NOISE, END, GIVEN = "pool.walked", "pool.noise", "pool.end", "pool.given."


@dataclass(frozen=True)
class Endpoint(Distillation):
    """Its walk of a few calls, as a whole, ends where the teacher's walk does, and spreads as those ends do.

    Args:
        scale: of the teacher's guidance to its labels, which the student then has built in; 1 for none.
        drop_label: the probability of a lesson without its label.
        segments: calls in the teacher's walk.
        spread: weight of the energy distance between the ends of a batch, relative to the distances of pairs.
        reuse: lessons that an end of the teacher serves, on average; 1 for a new end in each.

    Raises:
        InputError: a number out of range.
    """

    scale: float = 1.0
    drop_label: float = 0.1
    segments: int = SEGMENTS
    spread: float = 12.0
    reuse: int = 4
    tells: ClassVar[bool] = True
    stepper: ClassVar[str] = "unipc-auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("segments", "reuse"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)!r} must be a positive whole number.")
        if not 0 <= self.spread < math.inf:
            raise InputError(f"spread={self.spread!r} must be a weight of at least 0.")

    def rungs(self, calls: Sequence[int]) -> int:
        return self.segments

    def levels(self, process: Process, unit: float, count: int, calls: Sequence[int]) -> Tensor:
        return falling(process, count, unit, TOP)

    def memory(self, x0: Tensor, condition: Condition) -> dict[str, Tensor]:
        if self.reuse == 1:
            return {}
        rows = {NOISE: x0, END: x0, **_named(condition)}
        pool = {name: x.new_zeros(self.reuse * len(x), *x.shape[1:]) for name, x in rows.items()}
        return {**pool, WALKED: torch.zeros((), dtype=torch.long, device=x0.device)}

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
        taught, process, unit = self.taught(calls), student.process, student.unit
        # one walk of the teacher serves every number of calls
        few = -(-len(x0) // len(taught))
        noise, y, given = self._ends(x0, condition, few, generator, teacher, memory)
        with torch.no_grad():
            wanted = seen(teacher, y, given)
        # in units of their own, whatever the network's are
        size = wanted.std().clamp(min=1e-12)
        found = []
        for which, count in enumerate(taught):
            rows = min(few, len(x0) - which * few)
            if rows > 0:
                some = given[:rows]
                told = with_calls(some, torch.full((rows,), which, device=x0.device))
                levels = _falling(process, count, unit)
                x = walked(student, noise[:rows], told, levels, gradients=True)
                missed = soft(((x - y[:rows]) / unit).flatten(1).square().mean(1))
                apart = energy(seen(teacher, x, some) / size, wanted[:, :rows] / size) if self.spread else 0.0
                found.append(missed + self.spread * apart)
        return torch.cat(found)

    @torch.no_grad()
    def _ends(
        self,
        x0: Tensor,
        condition: Condition,
        rows: int,
        generator: Generator,
        teacher: Denoiser,
        memory: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor, Condition]:
        """Noise, the ends that the teacher takes it to, and their conditions, `rows` of each."""
        few = -(-rows // self.reuse)
        noise, given = noise_like(x0, generator)[:few], condition[:few]
        y = walked(teacher, noise, given, _steps(teacher.process, self.segments, teacher.unit))
        if self.reuse == 1:
            return noise, y, given
        # where they go and which are drawn is worked out on the device, so that no step waits for it
        size, device = len(memory[NOISE]), x0.device
        places = (memory[WALKED] + torch.arange(few, device=device)) % size
        for name, found in {NOISE: noise, END: y, **_named(given)}.items():
            memory[name].index_copy_(0, places, found)
        memory[WALKED] += few
        # in random order, those not yet filled last; their places stand for filled ones while there are too few
        order = torch.rand(size, generator=generator, device=generator.device).to(device)
        order += torch.arange(size, device=device) >= memory[WALKED]
        drawn = order.argsort()[:rows] % memory[WALKED].clamp(max=size)
        told = Condition({name: memory[GIVEN + name][drawn] for name in given.parts})
        return memory[NOISE][drawn], memory[END][drawn], told


def _named(condition: Condition) -> dict[str, Tensor]:
    return {GIVEN + name: part for name, part in condition.parts.items()}


@lru_cache(maxsize=64)
def _steps(process: Process, calls: int, unit: float) -> list[Level[float]]:
    """The levels of the default solver, on a chain too."""
    return process.levels(times(process, calls, UniPCAuto().usual_grid, unit))


@lru_cache(maxsize=64)
def _falling(process: Process, calls: int, unit: float) -> list[Level[float]]:
    """The levels of a student."""
    return process.levels(falling(process, calls, unit, TOP))


@lru_cache(maxsize=64)
def _close(process: Process, unit: float) -> Level[float]:
    """The level at which samples are looked at, on a chain the nearest whole one."""
    t = process.time(-2 * math.log(CLOSE * unit))
    return process.at(t if process.chain is None else max(1.0, round(t)))


def walked(
    denoiser: Denoiser, noise: Tensor, condition: Condition, levels: Sequence[Level[float]], gradients: bool = False
) -> Tensor:
    """Where the default solver takes standard normal noise (B, ...) along these levels; with gradients, if asked."""
    stepper, silent = UniPCAuto(), Noise(noise, (), noise.dtype)

    def finish(ask: Ask, x: Tensor, t: Level[float], memory: object) -> Tensor:
        return stepper.finish(ask, x, t, memory, silent)

    ask, x = Ask(denoiser, condition, len(levels) - 1), start(levels[0], denoiser.sigma_data, lambda: noise)
    return end(walk(ask, x, levels, drawing(stepper, silent), finish, gradients=gradients)).x


def seen(teacher: Denoiser, x: Tensor, condition: Condition) -> Tensor:
    """What the teacher makes of clean samples x (B, ...), (places, B, features)."""
    level = _close(teacher.process, teacher.unit)
    return teacher.features(level.alpha * x, level, condition).transpose(0, 1)


def energy(x: Tensor, y: Tensor) -> Tensor:
    """What each of x (places, B, d) adds to the energy distance to y of that shape, (B,): the mean over places."""

    def distances(a: Tensor, b: Tensor) -> Tensor:
        return soft(torch.cdist(a, b).square() / a.shape[-1])

    return (2 * distances(x, y) - distances(x, x) - distances(y, y)).mean((0, 2))


def soft(squares: Tensor) -> Tensor:
    """Distances from their squares, without a kink at zero: pseudo-Huber."""
    return (squares + SOFT**2).sqrt() - SOFT
