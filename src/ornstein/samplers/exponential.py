"""Exponential integrators: solve exactly what is known, approximate only the network.

With mu = alpha/sigma, or u = sigma/alpha = 1/mu, as time, the probability-flow ODE reads

    d(x/sigma) = x0(x, mu) d mu,            d(x/alpha) = eps(x, u) du:

everything but the network's answer has been absorbed by a scale. From level t down to level s, exactly,

    x_s = (sigma_s/sigma_t) x_t + sigma_s * integral of x0 d mu                               (data prediction)
    x_s = (alpha_s/alpha_t) x_t + alpha_s * integral of eps du                                (noise prediction)

(Zhang & Chen 2022, 2204.13902; Lu et al. 2022, 2206.00927 and 2211.01095.) Freezing the answer at its value at t gives
DDIM, either way. A *multistep* method puts the polynomial through the last k answers under the integral, and so has
order k for one call a step: the idea of Adams and Bashforth (1883) in these variables. It is a polynomial in a *clock*,

    "log-snr"   lambda = log(alpha/sigma)          DPM-Solver++, UniPC
    "ratio"     u = sigma/alpha                    DEIS's rho
    "flow"      sigma/(alpha + sigma)              the time of flow matching
    "signal"    alpha/sqrt(alpha^2 + sigma^2)      the signal scale of a variance preserving process

with sigma/alpha in units of sigma_data, as everywhere here, so that the units of the data make no difference. How close
the answers are to a polynomial in the clock decides what a method of given order is worth. Along a trajectory
x0 is a smooth function of u^2 near the data, where the marginals obey a heat equation in that time, and of 1/u near
pure noise, where it leaves the mean of the data in proportion to it. Only "signal" is smooth in both.

The weights, one for each answer, are integrals of Lagrange's polynomials over mu or u, computed on the actual grid in
float64 (Gauss & Legendre's rule, to rounding), once, and kept.

A step may be repeated once the answer at its end is known (`ornstein.samplers.unipc`). Methods of order 3 and above
need this at the start: their first step has only one answer to use, and its error, left alone, would dominate on a fine
grid.

In every clock but log-SNR the polynomial also has a value at the clean point, where u = 0. A method that remembers
answers can end there instead of at its last answer, E[x_0 given x_t]; `last` says through how many answers.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ornstein.core.drive import Ask, Noise, Stepper
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level
from ornstein.errors import InputError, lookup

#: the variable that answers are polynomials of, as a function of lambda = log(alpha/sigma)
CLOCKS: dict[str, Callable[[float], float]] = {
    "log-snr": lambda lam: lam,
    "ratio": lambda lam: math.exp(-lam),
    "flow": lambda lam: math.exp(-lam) / (1 + math.exp(-lam)) if lam > 0 else 1 / (1 + math.exp(lam)),
    "signal": lambda lam: 1 / math.sqrt(1 + math.exp(-2 * lam)),
}
#: more points than this and the weights of their polynomial drown the answers
MOST = 8


@lru_cache(maxsize=1)
def _rule() -> tuple[tuple[float, float], ...]:
    """Gauss & Legendre's sixteen nodes and weights on [-1, 1], from an eigenvalue problem (Golub & Welsch 1969)."""
    k = torch.arange(1, 16, dtype=torch.float64)
    beside = k / (4 * k * k - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return tuple(zip(nodes.tolist(), (2 * vectors[0] ** 2).tolist(), strict=True))


def _lagrange(points: list[float], c: float) -> list[float]:
    """The values at c of the polynomials that are 1 at one of the points and 0 at the others."""
    values = []
    for j, at in enumerate(points):
        value = 1.0
        for i, other in enumerate(points):
            if i != j:
                value *= (c - other) / (at - other)
        values.append(value)
    return values


@lru_cache(maxsize=16384)
def polynomial_weights(
    predicts: str, clock: str, start: float, end: float, points: tuple[float, ...], rule: str = "exact"
) -> tuple[float, ...]:
    """w with sum_j w_j F_j the integral of the polynomial through the answers F_j, from `start` to `end`.

    Args:
        predicts: "x0", integrated over mu = exp(lambda); or "eps", over u = exp(-lambda).
        clock: which variable it is a polynomial of, a key of `CLOCKS`.
        start, end: lambda at the ends of the step; start may be -inf, no signal, for data prediction.
        points: lambda of each answer, distinct, with finite clocks.
        rule: "exact"; or, for the straight line through `start` and another point in log-SNR, "b1" or "b2": UniPC's
            rule of half the slope times B(h), with B = h or 1 - exp(-h). DPM-Solver++(2M) is "b2".
    """
    total = math.exp(-end) - math.exp(-start) if predicts == "eps" else math.exp(end) - math.exp(start)
    if len(points) == 1:
        return (total,)
    if rule != "exact" and len(points) == 2 and clock == "log-snr" and predicts == "x0":
        h = end - start
        other = points[0] if points[1] == start else points[1]
        b = h if rule == "b1" else -math.expm1(-h)
        weight = 0.5 * math.exp(end) * b * h / (other - start)
        return (weight, total - weight) if points[1] == start else (total - weight, weight)
    read = CLOCKS[clock]
    at = [read(lam) for lam in points]
    # the variable of integration: lambda or, from no signal at all, asinh(mu)
    blind = start == -math.inf
    a, b = (0.0, math.asinh(math.exp(end))) if blind else (start, end)
    panels = math.ceil(abs(b - a) / 2)
    half = 0.5 * (b - a) / panels
    weights = [0.0] * len(at)
    for panel in range(panels):
        for node, share in _rule():
            v = a + half * (2 * panel + 1 + node)
            lam = math.log(math.sinh(v)) if blind else v
            rate = math.cosh(v) if blind else -math.exp(-v) if predicts == "eps" else math.exp(v)
            for j, value in enumerate(_lagrange(at, read(lam))):
                weights[j] += half * share * rate * value
    # a constant is integrated to the last digit
    weights[0] = total - math.fsum(weights[1:])
    return tuple(weights)


@lru_cache(maxsize=16384)
def _end_weights(clock: str, points: tuple[float, ...]) -> tuple[float, ...]:
    """The weights of the answers in the value of their polynomial at the clean point."""
    return tuple(_lagrange([CLOCKS[clock](lam) for lam in points], CLOCKS[clock](math.inf)))


def _lam(level: Level[float], unit: float = 1.0) -> float:
    """log(alpha/sigma) of a level of the grid, for noise in units of the data's."""
    return 0.5 * level.log_snr + math.log(unit)


class Answer(NamedTuple):
    """What is remembered of a level: log(alpha/sigma) there, in the data's units, and what the network said."""

    lam: float
    value: Tensor


class _Memory(NamedTuple):
    """Between steps: the level that the step to here began at, from how many answers, and the answers, last first."""

    level: Level[float]
    points: int
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class DPMpp2M(Stepper):
    """DPM-Solver++(2M): a two-step exponential integrator in log-SNR. Lu et al. 2022 (2211.01095), algorithm 2.

    The first step, and one from exactly no signal, is DDIM's.

    Order 2. One call a step. Deterministic.
    """

    order: ClassVar[int] = 2

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        x0 = denoiser(x, t).x0
        lambda_t, lambda_s = _lam(t), _lam(s)
        ratio = s.sigma / t.sigma
        new = s.alpha - ratio * t.alpha
        after = ratio * x
        if memory is not None and memory.lam > -math.inf:
            weight = (lambda_s - lambda_t) / (2 * (lambda_t - memory.lam))
            after.add_(x0, alpha=new * (1 + weight)).add_(memory.value, alpha=-new * weight)
        else:
            after.add_(x0, alpha=new)
        return after, Answer(lambda_t, x0)


@dataclass(frozen=True)
class _Multistep(Stepper):
    """What the multistep methods share; a subclass says what it predicts, from how many answers, and corrects."""

    order: int = 3
    clock: str = "log-snr"
    predicts: ClassVar[str] = "x0"
    #: whether `order` may be None, left to the number of steps
    by_steps: ClassVar[bool] = False
    #: no step from a lower log(alpha/sigma), noise in units of the data's, is remembered
    deepest: ClassVar[float] = -math.inf

    def __post_init__(self) -> None:
        whole = isinstance(self.order, int) and not isinstance(self.order, bool) and 1 <= self.order <= MOST
        if not whole and not (self.order is None and self.by_steps):
            raise InputError(f"order={self.order!r} must be a whole number in [1, {MOST}].")
        lookup(CLOCKS, self.clock, "clock")

    def points(self, steps: int) -> int:
        """How many answers a step of a walk of so many goes by, once there are so many."""
        return self.order

    @property
    def rule(self) -> str:
        """How the polynomial is integrated: see `polynomial_weights`."""
        return "exact"

    @abstractmethod
    def corrects(self, points: int) -> bool:
        """Whether a step that was made from so many answers is done over."""

    def answer(self, prediction: Prediction) -> Tensor:
        """What is integrated."""
        return prediction.x0

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        prediction, lam = denoiser(x, t), _lam(t, denoiser.unit)
        if lam < self.deepest or math.isinf(CLOCKS[self.clock](lam)):
            # beyond the reach of the clock: DDIM's step, in the form that needs no signal
            return (s.sigma / t.sigma) * x + (s.alpha - s.sigma / t.sigma * t.alpha) * prediction.x0, None
        answers: tuple[Answer, ...] = (Answer(lam, self.answer(prediction)),)
        start = None
        if memory is not None:
            answers += memory.answers
            if self.corrects(memory.points):
                start = memory.level, memory.points
        points = min(len(answers), self.points(denoiser.steps))
        kept, shares = _shares(self, start, t, s, points, tuple([answer.lam for answer in answers]), denoiser.unit)
        after = kept * x
        for share, answer in zip(shares, answers, strict=False):
            after.add_(answer.value, alpha=share)
        return after, _Memory(t, points, answers[: MOST - 1])


@lru_cache(maxsize=16384)
def _shares(
    method: _Multistep,
    start: tuple[Level[float], int] | None,
    t: Level[float],
    s: Level[float],
    points: int,
    lams: tuple[float, ...],
    unit: float,
) -> tuple[float, list[float]]:
    """What x at level s has of x at level t, and of each answer.

    Args:
        start: where the step to t began, and from how many answers, if it is to be corrected.
        points: how many answers the step from t goes by.
        lams: log(alpha/sigma) of the answers, last first.
        unit: what noise is in units of, there and here.
    """

    def weights(a: Level[float], b: Level[float], points: tuple[float, ...]) -> list[float]:
        scale = b.alpha * unit if method.predicts == "eps" else b.sigma / unit
        found = polynomial_weights(method.predicts, method.clock, _lam(a, unit), _lam(b, unit), points, method.rule)
        return [scale * weight for weight in found]

    kept = s.alpha / t.alpha if method.predicts == "eps" else s.sigma / t.sigma
    shares = weights(t, s, lams[:points])
    if start is not None:
        # what the step to t lacked, as a change of x, whatever else may have moved x since
        level, count = start
        now, then = weights(level, t, lams[: count + 1]), [0.0, *weights(level, t, lams[1 : count + 1])]
        lacked = [kept * (a - b) for a, b in zip(now, then, strict=True)]
        shares = [a + b for a, b in zip_longest(shares, lacked, fillvalue=0.0)]
    return kept, shares


@dataclass(frozen=True)
class DataMultistep(_Multistep):
    """Multistep methods that predict the data, and so can end beyond their last answer."""

    last: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.last, bool) or not isinstance(self.last, int) or not 1 <= self.last <= MOST:
            raise InputError(f"last={self.last!r} must be a whole number in [1, {MOST}].")
        if self.last > 1 and self.clock == "log-snr":
            raise InputError(f"last={self.last!r} needs another clock than 'log-snr', which never reaches the data.")

    def finish(self, denoiser: Ask, x: Tensor, t: Level[float], memory: Any, noise: Noise) -> Tensor:
        x0 = denoiser(x, t).x0
        if memory is None or self.last == 1:
            return x0
        answers = memory.answers[: self.last - 1]
        weights = _end_weights(self.clock, (_lam(t, denoiser.unit), *(answer.lam for answer in answers)))
        # by differences, so that answers that agree come out as they are
        return sum((weight * (answer.value - x0) for weight, answer in zip(weights[1:], answers, strict=True)), x0)


@dataclass(frozen=True)
class Multistep(DataMultistep):
    """Exponential multistep of any order, data prediction: DPM-Solver++(kM). Lu et al. 2022 (2211.01095).

    The polynomial through the last `order` answers, integrated exactly. Order 3 in log-SNR is DPM-Solver++(3M); order
    2 differs from (2M) by terms of third order, order 1 is DDIM. Until there are enough answers it goes by those there
    are; where that costs order, the step is corrected.

    Args:
        order: order of the method, in [1, 8].
        clock: the variable of the polynomial: "log-snr", "ratio", "flow" or "signal"; see
            `ornstein.samplers.exponential`.
        last: through how many answers to extrapolate to the clean point; 1 ends at the last of them.

    Raises:
        InputError: numbers out of range; `last` with log-SNR.

    Order 3 by default, as given from pure noise; at most 3 from a start in the middle. One call a step. Deterministic.
    """

    def corrects(self, points: int) -> bool:
        return points < self.order - 1


@dataclass(frozen=True)
class DEIS(_Multistep):
    """Exponential multistep of any order, noise prediction: DEIS. Zhang & Chen 2022 (2204.13902).

    The methods of Adams and Bashforth in the variables x/alpha and sigma/alpha: with clock="ratio" to the letter (the
    paper's rho-AB), with "log-snr" in the variable of DPM-Solver. Extrapolated noise multiplies rounding, and any error
    of the network, by sigma/alpha: steps from where that exceeds 32 sigma_data, or is infinite, are DDIM's and not
    remembered.

    Args:
        order: order of the method, in [1, 8].
        clock: the variable of the polynomial: "log-snr", "ratio", "flow" or "signal"; see
            `ornstein.samplers.exponential`.

    Raises:
        InputError: numbers out of range.

    Order 3 by default, as given from pure noise; at most 3 from a start in the middle. One call a step. Deterministic.
    """

    predicts: ClassVar[str] = "eps"
    deepest: ClassVar[float] = -math.log(32)

    def corrects(self, points: int) -> bool:
        return points < self.order - 1

    def answer(self, prediction: Prediction) -> Tensor:
        return prediction.eps
