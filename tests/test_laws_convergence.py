"""Measured order of convergence of every stepper against the order that it declares, and its law on a mixture.

*Deterministic* steppers are compared along the path: from one x_T on an asymmetric mixture, down to sigma/alpha = 0.05
on 16, 32, 64 steps even in log-SNR, against the probability-flow ODE solved by Runge & Kutta in another variable.

*Stochastic* ones are compared in law, without sampling: on Gaussian data a denoiser is affine, so the state after n
steps is an affine function of the starting noise and of every draw. One walk of a batch whose rows switch on one of
them each gives all coefficients, hence the exact mean and variance of what the scheme draws. Their distance to the
true marginal must fall with the declared order.
"""

import dataclasses
import itertools
import math
from functools import lru_cache

import pytest
import torch
from laws import PROCESSES, WAYS, mixture

from ornstein import EDM, FunctionDenoiser, sample
from ornstein.core.drive import Ask
from ornstein.core.grids import ends
from ornstein.core.numerics import normal
from ornstein.samplers import STEPPERS
from ornstein.samplers.sde import ReverseDiffusion

F64 = torch.float64
NAMES = [name for name in PROCESSES if name not in ("betas[scaled-linear]", "betas[sigmoid]")]
COUNTS = (16, 32, 64)
LOW = 0.05
DEFAULTS = {name: make() for name, make in STEPPERS.items()}


def top(process):
    """The noise ratio to start from: 20, or where the clock ends."""
    return min(process.at(ends(process)[1]).noise_ratio, 20.0)


def grid_between(process, high, low, n):
    """n + 1 times even in log-SNR between two noise ratios."""
    ratios = high * (low / high) ** torch.linspace(0, 1, n + 1, dtype=F64)
    t = process.time(-2 * ratios.log())
    return t.clamp(max=process.t_max)


def walk(stepper, denoiser, x, levels, noise):
    """The stepper from the first level to the last, which is a noisy one: no denoising step hides the error."""
    memory, ask = None, Ask(denoiser, None)
    for t, s in itertools.pairwise(levels):
        x, memory = stepper.step(ask, x, t, s, memory, noise)
    return x


@lru_cache(maxsize=64)
def true_path(process):
    """Where 24 starts end up: d(x/alpha)/d log u = x/alpha - E[x_0], u = sigma/alpha, by Runge & Kutta's fourth."""
    mix, clock, n = mixture(), EDM(t_max=1e6), 200
    first, last = process.levels(grid_between(process, top(process), LOW, 1))
    start = math.hypot(first.alpha, first.sigma) * normal(torch.arange(24), (2,), 0, F64)
    y, log_u = start / first.alpha, math.log(first.noise_ratio)
    h = (math.log(last.noise_ratio) - log_u) / n

    def slope(log_u, y):
        return y - mix.posterior_mean(y, clock.at(math.exp(log_u)))

    for i in range(n):
        a = log_u + i * h
        k1 = slope(a, y)
        k2 = slope(a + h / 2, y + h / 2 * k1)
        k3 = slope(a + h / 2, y + h / 2 * k2)
        k4 = slope(a + h, y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return start, last.alpha * y


def path_errors(stepper, process):
    start, end = true_path(process)
    denoiser = mixture().denoiser(process)
    errors = []
    for n in COUNTS:
        got = walk(stepper, denoiser, start, process.levels(grid_between(process, top(process), LOW, n)), None)
        errors.append((got - end).square().mean().sqrt().item())
    return errors


def law_error(stepper, process, n, m, v):
    """|error of the mean| + |error of the standard deviation| of what n steps draw, for data N(m, v)."""

    def answer(x, level, condition):
        gain = level.alpha * v / (level.alpha**2 * v + level.sigma**2)
        return m + gain * (x - level.alpha * m)

    levels = process.levels(grid_between(process, top(process), LOW, n))
    rows, draws = 4 * n + 2, 0
    x = torch.zeros(rows, 1, dtype=F64)
    x[1] = 1.0  # row 0: nothing; row 1: the starting state; row 1 + k: the k-th draw

    def noise():
        nonlocal draws
        draws += 1
        z = torch.zeros(rows, 1, dtype=F64)
        z[1 + draws] = 1.0
        return z

    # increments of a path over steps that do not overlap are draws like any other
    noise.between = lambda t, s, power=1.0: noise()
    end = walk(stepper, FunctionDenoiser(answer, process), x, levels, noise)[:, 0]
    assert draws > 0
    parts = end[1:] - end[0]
    first, last = levels[0], levels[-1]
    mean = end[0] + parts[0] * first.alpha * m
    variance = parts[0] ** 2 * (first.alpha**2 * v + first.sigma**2) + (parts[1:] ** 2).sum()
    spread = math.sqrt(last.alpha**2 * v + last.sigma**2)
    return abs(mean.item() - last.alpha * m) + abs(variance.sqrt().item() - spread)


def law_errors(stepper_of, process, data=((0.6, 0.1), (-0.3, 0.5), (1.5, 1.3))):
    """Over data of several widths, since the error of one of them may pass through zero."""
    return [sum(law_error(stepper_of(n), process, n, m, v) for m, v in data) for n in COUNTS]


def orders(errors):
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


@pytest.mark.parametrize("stepper", [name for name, stepper in DEFAULTS.items() if stepper.order is not None])
@pytest.mark.parametrize("name", NAMES)
def test_order_is_the_declared_one(name, stepper):
    process, stepper = PROCESSES[name], DEFAULTS[stepper]
    errors = law_errors(lambda n: stepper, process) if stepper.stochastic else path_errors(stepper, process)
    assert errors[-1] < 0.2, errors
    # a multistep method starts with one answer: from much noise that costs nothing, from little it leaves order 3
    declared = min(stepper.order, 3) if stepper.calls == 1 and top(process) < 10 else stepper.order
    assert orders(errors)[-1] > declared - 0.2, (orders(errors), errors)
    # nor is it declared too modestly; in law, some clocks happen to spare a stepper its leading error
    if declared == stepper.order and (not stepper.stochastic or name == "vp"):
        assert orders(errors)[-1] < stepper.order + 0.3, (orders(errors), errors)


@pytest.mark.parametrize("stepper", [way for way in WAYS if way.order and way not in DEFAULTS.values()], ids=repr)
@pytest.mark.parametrize("name", ["vp", "flow"])
def test_order_does_not_depend_on_the_options(name, stepper):
    def of(n):
        # churn is a share per step: as steps get finer so does it, else it never adds up to a limit
        return dataclasses.replace(stepper, churn=4 * stepper.churn / n, noise_scale=1.0) if churned else stepper

    churned = getattr(stepper, "churn", 0) > 0
    if stepper.stochastic:
        measured = orders(law_errors(of, PROCESSES[name], data=((0.6, 0.1225),)))[-1]
    else:
        errors = path_errors(stepper, PROCESSES[name])
        measured = orders(errors)[-1]
        if stepper.order > 4:
            # from 20 times the noise the start leaves about fourth order; that the rest is of its own order is tested
            # on polynomials (test_steppers_exponential), and here that it is worth having
            fourth = path_errors(dataclasses.replace(stepper, order=4), PROCESSES[name])
            assert 2 * errors[-1] < fourth[-1]
            assert measured > 3.5
            return
    assert stepper.order - 0.2 < measured < stepper.order + 0.3


#: (mean, covariance and mean log-density) of what is drawn may be off by the discretisation, beside chance
BIAS = {1: 0.04, 2: 0.01, 3: 0.01, 4: 0.01}


PAIRS = [("vp", way) for way in WAYS]
PAIRS += [(name, stepper) for name in ("edm", "flow", "betas[cosine]") for stepper in DEFAULTS.values()]


@pytest.mark.parametrize(("name", "stepper"), PAIRS, ids=lambda part: part if isinstance(part, str) else repr(part))
def test_a_mixture_is_drawn_as_it_is(name, stepper):
    """Oracle 2: moments, weights and log-density of an asymmetric mixture, on a fine grid, in float32."""
    process, mix, n = PROCESSES[name], mixture(), 2000
    steps = 40 if (stepper.order or 1) > 1 else 80
    if isinstance(stepper, ReverseDiffusion) or getattr(stepper, "eta", 0) > 1:
        steps = 5 * steps  # a large constant, of the method or of the noise
    if getattr(stepper, "churn", 0) > 0:
        stepper = dataclasses.replace(stepper, churn=4 * stepper.churn / steps, noise_scale=1.0)
    x = sample(mix.denoiser(process), (n, 2), stepper=stepper, steps=steps, grid="logsnr", seed=5).double()
    exact = mix.sample(100000, torch.Generator().manual_seed(1)).double()
    bias = BIAS.get(stepper.order, 0.1)
    for what in (
        lambda y: y,
        lambda y: torch.stack([y[:, 0] ** 2, y[:, 1] ** 2, y[:, 0] * y[:, 1]], 1),
        lambda y: mix.log_prob(y)[:, None],
        lambda y: (y @ torch.tensor([[0.6], [0.8]], dtype=F64) > 0.5).double(),
    ):
        got, expected = what(x), what(exact)
        se = expected.std(0) * math.sqrt(1 / n + 1 / len(exact))
        assert ((got.mean(0) - expected.mean(0)).abs() < 4.5 * se + bias * expected.std(0)).all()
