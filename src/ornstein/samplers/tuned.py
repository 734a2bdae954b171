"""Solvers as triangles of numbers.

A deterministic method that calls the network once a step, and is linear in what it has seen, must have this form:
start from x_0, and go from level t_i to the next by

    x_{i+1} = r (1 + a_i) x_i + (alpha' - r alpha) * sum over j <= i of w_ij x0_j,        r = sigma'/sigma,

with alpha, sigma at t_i and alpha', sigma' at t_{i+1}; x0_j is the network's answer at level j. DDIM is a_i = 0 and
w_ij = 1 for j = i alone; DPM-Solver++, DEIS, PLMS and UniPC, corrector included, are other triangles w; extrapolating
to the clean point is the last row. So all of them are points of one space of K levels and some K^2/2 numbers, and the
best solver for one model at K calls is a point of that space too: `ornstein.distill.solver` looks for it.

**A little more than linear.** A trajectory that ends on a narrow mode and one that ends on a wide mode need different
weights, and soon show which they are. From the second answer on, two numbers of each sample's own path say so: with
eps = (x - alpha x0)/sigma the noise that the last answer sees in x,

    kept  = log(10^-4 + |eps|^2/|eps_0|^2)/4,        of the first noise: r^2/(s^2 + r^2) on a Gaussian of width s,
    moved = |x0_i - x0_{i-1}| / sqrt(|x0_i - x0_{i-1}|^2 + |r eps|^2) - 1/2,                        r = sigma/alpha,

and the weights may *lean* on them, w + kept u + moved v, and the drift likewise: three triangles in place of one.
Nothing else of the state enters, so that a solver for images has no more numbers than one for points, and a sample
does not depend on others.

`Triangles` makes the steps, also while the numbers are being fitted; `Tuned` is a stepper of them; `as_tuned` finds
the triangle of any method that has one. If the network always gives the same answer, the result is exactly that answer,
since the last row sums to one, leans by sums of zero, and is applied to differences.

The weights are fixed numbers, valid only at the levels they were fitted for: a `Tuned` knows its grid and refuses
another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.denoiser import FunctionDenoiser
from ornstein.core.drive import Ask, Noise, Stepper, trajectory
from ornstein.core.process import Level, Number, Process
from ornstein.core.walk import Asked
from ornstein.errors import InputError


class Triangles(NamedTuple):
    """The numbers of K steps, and the steps that they make: see the module.

    Floats, of a `Tuned`; or, while they are looked for, tensors of the type and on the device of the data, which the
    end of a walk then depends on differentiably.
    """

    drift: Sequence[Number]
    weights: Sequence[Sequence[Number] | Tensor]
    leanings: Sequence[Sequence[Sequence[float]] | Tensor]

    def step(self, ask: Asked[Tensor, Any, Any], x: Tensor, t: Level, s: Level, memory: Any) -> tuple[Tensor, Any]:
        """From t to s: `Stepper.step`, without noise; levels of 0-d float64 tensors may be differentiated by."""
        answers, first = self._heard(ask, x, t, memory)
        ratio = s.sigma / t.sigma
        # the share is a small difference: taken in float64
        ratio, share = _like(x, ratio, s.alpha - ratio * t.alpha)
        i = len(answers) - 1
        drift, *weights = self._leant((self.drift[i], *self.weights[i]), x, t, answers, first)
        after = ratio * (1 + drift) * x
        for weight, answer in zip(weights, answers, strict=True):
            part = share * weight
            # one pass over the data each; neither needs what it overwrites for gradients
            after = after.addcmul_(part, answer) if isinstance(part, Tensor) else after.add_(answer, alpha=part)
        return after, (answers, first)

    def finish(self, ask: Asked[Tensor, Any, Any], x: Tensor, t: Level, memory: Any) -> Tensor:
        """From t to the clean point."""
        answers, first = self._heard(ask, x, t, memory)
        *earlier, x0 = answers
        weights = self._leant(self.weights[-1][:-1], x, t, answers, first)
        # by differences, so that answers that agree come out as they are
        return sum((w * (answer - x0) for w, answer in zip(weights, earlier, strict=True)), x0)

    def _heard(
        self, ask: Asked[Tensor, Any, Any], x: Tensor, t: Level, memory: Any
    ) -> tuple[list[Tensor], Tensor | None]:
        """The answers so far, and the squared length of the noise that the first one saw, (B,)."""
        x0 = ask(x, t).x0
        if memory is not None:
            return [*memory[0], x0], memory[1]
        alpha, sigma = _like(x, t.alpha, t.sigma)
        return [x0], squared(x - alpha * x0) / sigma**2 if self.leanings else None

    def _leant(
        self, numbers: Sequence[Number] | Tensor, x: Tensor, t: Level, answers: list[Tensor], first: Tensor | None
    ) -> Sequence[Number]:
        """What the numbers of this step are: as they stand, or for each sample, (B, 1, ...) each."""
        if len(answers) == 1 or first is None:
            return list(numbers)
        each = (-1, *[1] * (x.ndim - 1))
        alpha, sigma = _like(x, t.alpha, t.sigma)
        kept, moved = (part.reshape(each) for part in path(x, answers, alpha, sigma, first))
        leanings = self.leanings[len(answers) - 2]
        return [n + u * kept + v * moved for n, u, v in zip(numbers, *leanings, strict=True)]


def _like(x: Tensor, *numbers: Number) -> list[Number]:
    """Numbers to multiply x with: floats as they are, tensors in its type, where it lies."""
    return [number.to(x) if isinstance(number, Tensor) else number for number in numbers]


@dataclass(frozen=True)
class Tuned(Stepper):
    """Linear multistep with fitted numbers on a fitted grid: sample(..., stepper=tuned, grid=tuned.grid).

    Args:
        grid: the K + 1 times, falling to 0, that the numbers belong to.
        drift: a_0 .. a_{K-2}: the share by which each step keeps more of x than sigma'/sigma.
        weights: K rows w_i, of i + 1 numbers each: the share of each answer so far; the last row sums to 1.
        leanings: how steps 1 .. K-1 lean, each on (kept, moved): two rows, of the drift's and the i + 1 weights'
            leaning, in the last step of its i first weights', of which the last weight's is minus the sum. Empty: not.

    Raises:
        InputError: numbers that do not fit together; when stepping, a level that is not of the grid.

    No order: it is fitted, not derived. One call a step. Deterministic.
    """

    grid: tuple[float, ...]
    drift: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    leanings: tuple[tuple[tuple[float, ...], ...], ...] = ()
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
        expected = leaning_sizes(steps)
        if self.leanings and [[len(row) for row in rows] for rows in self.leanings] != [[n, n] for n in expected]:
            raise InputError(
                f"leanings={self.leanings!r} do not fit {steps} steps: they must be pairs of rows of {expected}."
            )

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        i = self._place(t, memory)
        if self.grid[i + 1] != s.t:
            raise InputError(self._elsewhere(s))
        return self._triangles.step(denoiser, x, t, s, memory)

    def finish(self, denoiser: Ask, x: Tensor, t: Level[float], memory: Any, noise: Noise) -> Tensor:
        if self._place(t, memory) != len(self.grid) - 2:
            raise InputError(self._elsewhere(t))
        return self._triangles.finish(denoiser, x, t, memory)

    @property
    def _triangles(self) -> Triangles:
        return Triangles(self.drift, self.weights, self.leanings)

    def _place(self, t: Level[float], memory: Any) -> int:
        """Which step this is: as many answers as there are, at the level that is next."""
        i = 0 if memory is None else len(memory[0])
        if i >= len(self.grid) - 1 or self.grid[i] != t.t:
            raise InputError(self._elsewhere(t))
        return i

    def _elsewhere(self, t: Level[float]) -> str:
        return f"t={t.t!r} is not where a tuned stepper's {len(self.grid) - 1} steps were fitted: give grid=tuned.grid."


def leaning_sizes(steps: int) -> list[int]:
    """How many numbers lean in steps 1 .. K-1: drift and weights; in the last, the weights but one."""
    return [i + 2 if i + 1 < steps else i for i in range(1, steps)]


def path(
    x: Tensor, answers: Sequence[Tensor], alpha: "float | Tensor", sigma: "float | Tensor", first: Tensor
) -> tuple[Tensor, Tensor]:
    """`kept` and `moved` of each sample, (B,) each, at least -2.3 and in [-1/2, 1/2]; see the module.

    Args:
        x: (B, ...) where the last of the answers was given.
        answers: so far, at least two, (B, ...) each.
        alpha, sigma: of the last answer's level.
        first: squared length of the noise that the first answer saw, (B,).
    """
    # lengths that vanish have no gradient, and divide nothing
    tiny = 1e-12
    noise = squared(x - alpha * answers[-1]) / sigma**2
    moved = squared(answers[-1] - answers[-2])
    kept = (1e-4 + noise / (first + tiny)).log() / 4
    # in the noise's own scale, since alpha may be zero
    moved, noise = moved * (alpha / sigma) ** 2, noise + tiny
    return kept, ((moved + tiny) / (moved + noise)).sqrt() - 0.5


def squared(x: Tensor) -> Tensor:
    """The squared length of each sample, (B,)."""
    return x.flatten(1).square().sum(1)


def as_tuned(stepper: Stepper, process: Process, grid: "Sequence[float] | Tensor", sigma_data: float = 1.0) -> Tuned:
    """The triangle of a deterministic one-call method on a grid, read off by letting it solve symbols.

    The starting noise and each answer of the "network" are separate unit vectors; the components of a state are then
    exactly the method's coefficients.

    Args:
        stepper: the method.
        process: the clock of the grid.
        grid: its times, as `ornstein.core.grids.times` gives them.
        sigma_data: of the denoiser that the triangle is for, since methods measure noise by it.

    Raises:
        InputError: a method that draws noise, calls the network more than once a step, or has no such triangle.
    """
    times = [float(t) for t in grid]
    steps = len(times) - 1
    none = f"stepper={stepper!r} is no triangle: only deterministic methods of one call a step, linear in it, are."
    if stepper.stochastic or stepper.calls != 1:
        raise InputError(none)
    unit = torch.eye(steps + 1, dtype=torch.float64)
    asked = 0

    def answer(x: Tensor, level: Level, condition: Condition) -> Tensor:
        nonlocal asked
        asked += 1
        return unit[asked : asked + 1].clone() if asked <= steps else torch.zeros_like(x)

    symbols = FunctionDenoiser(answer, process, sigma_data)
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
