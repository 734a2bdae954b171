"""Solvers as triangles of numbers.

A deterministic method that asks the network once a step, and is linear in what it has seen, can do nothing but this:
start from x_0, and go from level t_i to the next by

    x_{i+1} = r (1 + a_i) x_i + (alpha' - r alpha) * sum over j <= i of w_ij x0_j,        r = sigma'/sigma,

with alpha, sigma at t_i and alpha', sigma' at t_{i+1}; x0_j is the network's answer at level j. DDIM is a_i = 0 and
w_ij = 1 for j = i alone; DPM-Solver++, DEIS, PLMS and UniPC, corrector included, are other triangles w; extrapolating
to the clean point is the last row. So all of them are points of one space of K levels and some K^2/2 numbers, and the
best solver for one model at K calls is a point of that space too: `ornstein.samplers.fitting` looks for it.

`Tuned` steps by such a triangle; `as_tuned` reads off the triangle of any method that has one. The data come out
exactly where the network always gives the same answer, since the last row sums to one and is applied to differences.

The weights are fixed numbers, worth something at the levels they were fitted for and nowhere else: a `Tuned` knows its
grid and refuses another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from ornstein.core.denoiser import FunctionDenoiser
from ornstein.core.drive import Ask, Noise, Stepper, trajectory
from ornstein.core.process import Level, Process
from ornstein.errors import InputError


@dataclass(frozen=True)
class Tuned(Stepper):
    """Linear multistep with numbers of its own, on a grid of its own: sample(..., stepper=tuned, grid=tuned.grid).

    Args:
        grid: the K + 1 times, falling to 0, that the numbers belong to.
        drift: a_0 .. a_{K-2}: by how much more than sigma'/sigma each step keeps of x.
        weights: K rows w_i, of i + 1 numbers each: the share of each answer so far; the last row sums to 1.

    Raises:
        InputError: numbers that do not fit together; when stepping, a level that is not of the grid.

    No order: it is fitted, not derived. One call a step. Deterministic.
    """

    grid: tuple[float, ...]
    drift: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    order: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        steps = len(self.grid) - 1
        if steps < 1 or self.grid[-1] != 0 or any(s >= t for t, s in pairwise(self.grid)):
            raise InputError(f"grid={self.grid!r} must be times that fall strictly to 0.")
        if len(self.drift) != steps - 1 or [len(row) for row in self.weights] != list(range(1, steps + 1)):
            raise InputError(
                f"drift has {len(self.drift)} numbers and weights rows of {[len(row) for row in self.weights]}; "
                f"for {steps} steps they must have {steps - 1}, and rows of 1 to {steps}."
            )
        if abs(sum(self.weights[-1]) - 1) > 1e-6:
            raise InputError(f"weights: the last row sums to {sum(self.weights[-1]):g}; it must sum to 1.")

    def step(self, denoiser: Ask, x: Tensor, t: Level, s: Level, memory: Any, noise: Noise) -> tuple[Tensor, Any]:
        i = self._place(t, memory)
        if self.grid[i + 1] != s.t:
            raise InputError(self._elsewhere(s))
        answers = [*(memory or ()), denoiser(x, t).x0]
        ratio = s.sigma / t.sigma
        share = float(s.alpha - ratio * t.alpha)
        after = (ratio * (1 + self.drift[i])) * x
        for weight, answer in zip(self.weights[i], answers, strict=True):
            after.add_(answer, alpha=share * weight)
        return after, answers

    def finish(self, denoiser: Ask, x: Tensor, t: Level, memory: Any) -> Tensor:
        i = self._place(t, memory)
        if i != len(self.grid) - 2:
            raise InputError(self._elsewhere(t))
        x0 = denoiser(x, t).x0
        # by differences, so that answers that agree come out as they are
        return sum((w * (answer - x0) for w, answer in zip(self.weights[-1], memory or (), strict=False)), x0)

    def _place(self, t: Level, memory: Any) -> int:
        """Which step this is: as many answers as there are, at the level that is next."""
        i = 0 if memory is None else len(memory)
        if i >= len(self.grid) - 1 or self.grid[i] != t.t:
            raise InputError(self._elsewhere(t))
        return i

    def _elsewhere(self, t: Level) -> str:
        return f"t={t.t!r} is not where a tuned stepper's {len(self.grid) - 1} steps were fitted: give grid=tuned.grid."


def as_tuned(stepper: Stepper, process: Process, grid: "Sequence[float] | Tensor") -> Tuned:
    """The triangle of a deterministic one-call method on a grid, read off by letting it solve symbols.

    The starting noise and each answer of the "network" are unit vectors of their own; what a state has of each is the
    method's coefficient, exactly.

    Args:
        stepper: to be read.
        process: the clock that the grid is of.
        grid: its times, as `ornstein.core.grids.times` gives them.

    Raises:
        InputError: a method that draws noise, asks more than once a step, or has no such triangle.
    """
    times = [float(t) for t in grid]
    steps = len(times) - 1
    none = f"stepper={stepper!r} is no triangle: only deterministic methods of one call a step, linear in it, are."
    if stepper.stochastic or stepper.calls != 1:
        raise InputError(none)
    unit = torch.eye(steps + 1, dtype=torch.float64)
    asked = 0

    def answer(x: Tensor, level: Level, cond: Tensor | None) -> Tensor:
        nonlocal asked
        asked += 1
        return unit[asked : asked + 1].clone() if asked <= steps else torch.zeros_like(x)

    symbols = FunctionDenoiser(answer, process)
    walk = trajectory(symbols, (1, steps + 1), stepper, grid=times, x=unit[:1].clone(), dtype=torch.float64)
    states = [state.x[0] for state in walk]
    if asked != steps:
        raise InputError(none)
    drift: list[float] = []
    rows: list[tuple[float, ...]] = []
    for (t, s), x, after in zip(
        pairwise(process.levels(torch.tensor(times, dtype=torch.float64))), states[:-1], states[1:], strict=True
    ):
        ratio = s.sigma / t.sigma
        kept = after[0] / x[0]
        row = (after - kept * x)[1:] / (s.alpha - ratio * t.alpha) if s.sigma > 0 else after[1:]
        if s.sigma > 0:
            drift.append(float(kept / ratio) - 1)
        rows.append(tuple(row[: len(rows) + 1].tolist()))
    if not all(map(math.isfinite, drift)) or abs(float(states[-1][0])) > 1e-9:
        raise InputError(none)
    return Tuned(tuple(times), tuple(drift), tuple(rows))
