"""Measured order of convergence of a stepper against the order that it declares.

*Deterministic* steppers are compared along the path: from one x_T on an asymmetric mixture, down to sigma/alpha = 0.05
on 16, 32, 64 steps even in log-SNR, against the probability-flow ODE solved by Runge & Kutta in another variable.

*Stochastic* steppers are compared in law, without sampling: on Gaussian data a denoiser is affine, so the state after n
steps is an affine function of the starting noise and of every draw. One walk of a batch in which each row switches on
one of these gives all coefficients, and so the exact mean and variance of what the stepper draws. Their distance to the
true marginal must fall with the declared order.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ornstein.core.clocks import EDM
from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser, FunctionDenoiser
from ornstein.core.drive import Ask, Stepper
from ornstein.core.grids import ends
from ornstein.core.numerics import normal
from ornstein.core.process import Level, Process
from ornstein.laws.broken import hold
from ornstein.laws.oracles import mixture
from ornstein.laws.oracles import processes as every

F64 = torch.float64
COUNTS = (16, 32, 64)
LOW = 0.05


def processes() -> dict[str, Process]:
    """The processes on which orders are measured."""
    return {name: p for name, p in every().items() if name not in ("betas[scaled-linear]", "betas[sigmoid]")}


def top(process: Process) -> float:
    """The noise ratio to start from: 20, or the clock's end if that is lower."""
    return min(float(process.at(ends(process)[1]).noise_ratio), 20.0)


def grid_between(process: Process, high: float, low: float, n: int) -> Tensor:
    """n + 1 times even in log-SNR between two noise ratios."""
    ratios = high * (low / high) ** torch.linspace(0, 1, n + 1, dtype=F64)
    t = process.time(-2 * ratios.log())
    assert isinstance(t, Tensor)
    return t.clamp(max=process.t_max)


def walk(stepper: Stepper, denoiser: Denoiser, x: Tensor, levels: Sequence[Level[float]], noise: Any) -> Tensor:
    """The stepper from the first level to the last, which is noisy, so that no denoising step hides the error."""
    memory, ask = None, Ask(denoiser, Condition())
    for t, s in itertools.pairwise(levels):
        x, memory = stepper.step(ask, x, t, s, memory, noise)
    return x


def true_path(process: Process) -> tuple[Tensor, Tensor]:
    """24 starts and their ends, from one noise ratio to the other."""
    first, last = process.levels(grid_between(process, top(process), LOW, 1))
    start, end = scaled_path(round(first.noise_ratio, 12), round(last.noise_ratio, 12))
    return first.alpha * start, last.alpha * end


@lru_cache(maxsize=64)
def scaled_path(high: float, low: float) -> tuple[Tensor, Tensor]:
    """24 starts and ends of y = x/alpha, which is the same on every clock.

    d y/d log u = y - E[x_0], u = sigma/alpha, by classical Runge-Kutta.
    """
    mix, clock, n = mixture(), EDM(t_max=1e6), 200
    start = math.hypot(1.0, high) * normal(torch.arange(24), (2,), 0, F64)
    y, log_u = start, math.log(high)
    h = (math.log(low) - log_u) / n

    def slope(log_u: float, y: Tensor) -> Tensor:
        return y - mix.posterior_mean(y, clock.at(math.exp(log_u)))

    for i in range(n):
        a = log_u + i * h
        k1 = slope(a, y)
        k2 = slope(a + h / 2, y + h / 2 * k1)
        k3 = slope(a + h / 2, y + h / 2 * k2)
        k4 = slope(a + h, y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return start, y


def path_errors(stepper: Stepper, process: Process) -> list[float]:
    """Root mean square distance from the end of the true path, in 16, 32 and 64 steps."""
    start, end = true_path(process)
    denoiser = mixture().denoiser(process)
    errors = []
    for n in COUNTS:
        got = walk(stepper, denoiser, start, process.levels(grid_between(process, top(process), LOW, n)), None)
        errors.append((got - end).square().mean().sqrt().item())
    return errors


def law_error(stepper: Stepper, process: Process, n: int, m: float, v: float) -> float:
    """|error of the mean| + |error of the standard deviation| of what n steps draw, for data N(m, v)."""

    def answer(x: Tensor, level: Level, condition: Condition) -> Tensor:
        gain = level.alpha * v / (level.alpha**2 * v + level.sigma**2)
        return m + gain * (x - level.alpha * m)

    levels = process.levels(grid_between(process, top(process), LOW, n))
    rows, draws = 4 * n + 2, 0
    x = torch.zeros(rows, 1, dtype=F64)
    x[1] = 1.0  # row 0: nothing; row 1: the starting state; row 1 + k: the k-th draw

    def noise() -> Tensor:
        nonlocal draws
        draws += 1
        z = torch.zeros(rows, 1, dtype=F64)
        z[1 + draws] = 1.0
        return z

    # increments of a path over disjoint steps are independent draws
    noise.between = lambda t, s, power=1.0: noise()  # type: ignore[attr-defined]
    end = walk(stepper, FunctionDenoiser(answer, process), x, levels, noise)[:, 0]
    hold(draws > 0, f"{stepper} declares that it is stochastic but draws no noise.")
    parts = end[1:] - end[0]
    first, last = levels[0], levels[-1]
    mean = end[0] + parts[0] * first.alpha * m
    variance = parts[0] ** 2 * (first.alpha**2 * v + first.sigma**2) + (parts[1:] ** 2).sum()
    spread = math.sqrt(last.alpha**2 * v + last.sigma**2)
    return abs(mean.item() - float(last.alpha) * m) + abs(variance.sqrt().item() - spread)


#: means and variances of the data, several because the error for one of them may pass through zero
DATA = ((0.6, 0.1), (-0.3, 0.5), (1.5, 1.3))


def law_errors(
    stepper_of: Callable[[int], Stepper], process: Process, data: Sequence[tuple[float, float]] = DATA
) -> list[float]:
    """The errors in law, summed over the data, in 16, 32 and 64 steps; the stepper may depend on their number."""
    return [sum(law_error(stepper_of(n), process, n, m, v) for m, v in data) for n in COUNTS]


def orders(errors: Sequence[float]) -> list[float]:
    """log2 of the factor by which each doubling of the steps divides the error."""
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


def order_is_as_declared(process: Process, stepper: Stepper, bounded_above: bool = True) -> None:
    """The order measured on a process is the declared one: no less and, if `bounded_above`, no more."""
    assert stepper.order is not None
    errors = law_errors(lambda n: stepper, process) if stepper.stochastic else path_errors(stepper, process)
    measured, where = orders(errors)[-1], f"{stepper} on {process}"
    hold(errors[-1] < 0.2, f"{where}: an error of {errors[-1]:.3g} after {COUNTS[-1]} steps; it must be below 0.2.")
    # a multistep method starts with one answer: at high noise that costs nothing, at low noise it leaves order 3
    declared = min(stepper.order, 3) if stepper.calls == 1 and top(process) < 10 else stepper.order
    hold(measured > declared - 0.2, f"{where}: order {measured:.2f} is measured; {stepper.order} is declared.")
    # the declared order must not be too low either; in law, a stepper's leading error happens to vanish on some clocks
    if declared == stepper.order and bounded_above:
        hold(measured < stepper.order + 0.3, f"{where}: order {measured:.2f} is measured; {stepper.order} is declared.")
