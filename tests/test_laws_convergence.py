"""Measured order of convergence of every stepper against the order that it declares, and its law on a mixture.

How orders are measured is in `ornstein.laws.convergence`.
"""

import dataclasses
import math
from functools import cache
from typing import Any

import pytest
import torch
from laws import PROCESSES, WAYS, cover, mixture
from torch import Tensor

from ornstein import sample
from ornstein.laws.convergence import law_errors, order_is_as_declared, orders, path_errors, processes
from ornstein.samplers import STEPPERS, Adaptive
from ornstein.samplers.langevin import RecoveryLangevin
from ornstein.samplers.sde import ReverseDiffusion

F64 = torch.float64
DEFAULTS = {name: make() for name, make in STEPPERS.items()}
NAMES = processes()


ORDERED = [name for name, stepper in DEFAULTS.items() if stepper.order is not None]


@pytest.mark.parametrize(("stepper", "name"), cover(ORDERED, NAMES, each=3))
def test_order_is_the_declared_one(name: Any, stepper: Any) -> None:
    chosen = DEFAULTS[stepper]
    order_is_as_declared(NAMES[name], chosen, bounded_above=name == "vp" or not chosen.stochastic)


@pytest.mark.parametrize("stepper", [way for way in WAYS if way.order and way not in DEFAULTS.values()], ids=repr)
@pytest.mark.parametrize("name", ["vp", "flow"])
def test_order_does_not_depend_on_the_options(name: Any, stepper: Any) -> None:
    def of(n: Any) -> Any:
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


def told(y: Tensor) -> Tensor:
    """What is compared of points (N, 2): means, second moments, log-density, and on which side of a line they lie."""
    moments = [y, y**2, y[:, :1] * y[:, 1:], mixture().log_prob(y)[:, None]]
    return torch.cat([*moments, (y @ torch.tensor([[0.6], [0.8]], dtype=F64) > 0.5).double()], 1)


@cache
def of_the_law() -> tuple[Tensor, Tensor]:
    """Mean and deviation of that in 100,000 points of the mixture itself."""
    exact = told(mixture().sample(100_000, torch.Generator().manual_seed(1)).double())
    return exact.mean(0), exact.std(0)


#: the second tolerance only takes longer
PAIRS = [
    pytest.param("vp", way, marks=[pytest.mark.slow] if way == Adaptive(1e-5) else [])
    for way in WAYS
    if way not in DEFAULTS.values()
]
PAIRS += cover(("vp", "edm", "flow", "betas[cosine]"), DEFAULTS.values())


@pytest.mark.parametrize(("name", "stepper"), PAIRS, ids=lambda part: part if isinstance(part, str) else repr(part))
def test_a_mixture_is_drawn_as_it_is(name: Any, stepper: Any) -> None:
    """Oracle 2: moments, weights and log-density of an asymmetric mixture, on a fine grid, in float32."""
    process, mix, n = PROCESSES[name], mixture(), 2000
    steps = 40 if (stepper.order or 1) > 1 or isinstance(stepper, RecoveryLangevin) else 80
    if isinstance(stepper, ReverseDiffusion) or getattr(stepper, "eta", 0) > 1:
        steps = 5 * steps  # a large constant, of the method or of the noise
    elif isinstance(stepper, Adaptive):
        steps = steps // 4  # each of these is many
    if getattr(stepper, "churn", 0) > 0:
        stepper = dataclasses.replace(stepper, churn=4 * stepper.churn / steps, noise_scale=1.0)
    x = sample(mix.denoiser(process), (n, 2), stepper=stepper, steps=steps, grid="logsnr", seed=5).double()
    bias, (mean, spread) = BIAS.get(stepper.order, 0.1), of_the_law()
    within = 4.5 * spread * math.sqrt(1 / n + 1 / 100_000) + bias * spread
    assert ((told(x).mean(0) - mean).abs() < within).all()
