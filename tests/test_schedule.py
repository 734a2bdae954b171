"""The dynamic programme against brute force, and the grids that it finds against even ones."""

import math
import time
from collections.abc import Callable
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from laws import mixture, refused
from torch import Tensor

from ornstein.core.chains import Tabulated
from ornstein.core.clocks import VP
from ornstein.core.denoiser import Denoiser
from ornstein.core.exact import Empirical, GaussianMixture
from ornstein.core.grids import GRIDS, logsnr, times
from ornstein.distill.grid import best_grid
from ornstein.objectives.bound import Bins
from ornstein.objectives.measured import step_costs, variational_bound, x0_errors
from ornstein.samplers import sample
from ornstein.samplers.ancestral import DDPM


def price(costs: Any, levels: Any) -> Any:
    return costs[levels[0]][levels[0]] + sum(costs[i][j] for i, j in pairwise(levels))


def brute_force(costs: Any, steps: Any, free_start: Any) -> Any:
    """The cheapest of all walks of at most so many steps."""
    costs, n = costs.tolist(), len(costs) - 1
    walks = [
        (*inner, n) for k in range(1, steps + 1) for inner in combinations(range(n), k) if free_start or inner[0] == 0
    ]
    return min(walks, key=lambda walk: price(costs, walk))


@pytest.mark.parametrize("free_start", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_programme_finds_what_brute_force_finds(seed: Any, free_start: Any) -> None:
    g = torch.Generator().manual_seed(seed)
    costs = torch.rand(9, 9, generator=g, dtype=torch.float64)
    if seed % 2:  # a long step costs more than its parts, as in a bound
        place = torch.rand(9, generator=g, dtype=torch.float64).sort().values
        costs = (place[None] - place[:, None]) ** 2 * (1 + costs) + 0.01
    if seed == 4:
        costs[torch.rand(9, 9, generator=g) < 0.4] = math.inf
        costs[0, 0], costs[0, 8] = 0.3, 9.0
    totals = []
    for steps in range(1, 9):
        levels, least = best_grid(costs, steps, free_start)
        walk = brute_force(costs, steps, free_start)
        assert tuple(levels.tolist()) == walk
        totals.append(price(costs.tolist(), walk))
        torch.testing.assert_close(least, torch.tensor(totals, dtype=torch.float64), rtol=0, atol=1e-12)


def digits_like(count: Any = 200, d: Any = 16) -> Any:
    """Points of a grid of 17 levels that lie near a curve."""
    u = torch.rand(count, 1, generator=torch.Generator().manual_seed(3))
    waves = torch.sin(2 * math.pi * (u + torch.linspace(0, 1, d)))
    return ((waves * 8).round() / 8).double()


CASES: dict[str, tuple[Callable[[Any], Denoiser], Callable[[], Tensor], Bins | None, str]] = {
    "mixture, small": (lambda p: mixture().denoiser(p), lambda: mixture().sample(300, gen()), None, "small"),
    "mixture, large": (lambda p: mixture().denoiser(p), lambda: mixture().sample(300, gen()), None, "large"),
    "points": (lambda p: Empirical(digits_like()).denoiser(p), lambda: digits_like()[:100], Bins(17), "small"),
    "held out": (
        lambda p: GaussianMixture(torch.ones(100), digits_like()[:100], torch.full((100,), 0.02)).denoiser(p),
        lambda: digits_like()[100:],
        Bins(17),
        "small",
    ),
}


@cache
def candidates(betas: str) -> list[tuple[str, int, list[int]]]:
    """Even spacings of a chain of a hundred: the grid's name, its steps, its levels."""
    process, found = Tabulated.from_betas(betas, 100), []
    for k in [*range(1, 21), *range(23, 100, 7), 99]:
        for name in sorted(GRIDS.keys() - {"chain"} - (set() if k == 8 else {"karras", "logsnr"})):
            levels = (100 - times(process, k, name).round()).long().tolist()
            if len(set(levels)) == k + 1:
                found.append((name, k, levels))
    return found


def gen(seed: Any = 0) -> Any:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("betas", ["linear", "cosine"])
@pytest.mark.parametrize("case", CASES)
def test_the_bound_beats_every_even_spacing_and_falls_with_the_number_of_steps(case: Any, betas: Any) -> None:
    make, data, bins, variance = CASES[case]
    process = Tabulated.from_betas(betas, 100)
    errors = x0_errors(make(process), data(), bins=bins, seed=0)
    costs = step_costs(process, errors, variance)
    _, totals = best_grid(costs, 100)
    _, free = best_grid(costs, 100, free_start=True)
    assert bool((totals.diff() <= 0).all())
    assert bool((free <= totals).all())
    assert totals[-1] < 0.8 * totals[0] if totals[0] > 0 else totals[-1] < totals[0] - 0.5
    compared, gain, prices = 0, [], costs.tolist()
    for name, k, levels in candidates(betas):
        even = price(prices, levels)
        least = totals if levels[0] == 0 else free
        assert float(least[k - 1]) <= even + 1e-9
        compared += 1
        if name == "trailing" and 5 <= k <= 20:
            gain.append(even - float(totals[k - 1]))
    assert compared > 200
    assert min(gain) > 0.01  # nats: not a tie


def test_the_price_of_a_walk_is_the_bound_of_its_chain() -> None:
    process = Tabulated.from_betas("cosine", 100)
    denoiser, x0 = mixture().denoiser(process), mixture().sample(2000, gen(1))
    costs = step_costs(process, x0_errors(denoiser, x0, seed=0), "large")
    levels, totals = best_grid(costs, 8)
    tuned = (100 - levels).double()
    found = variational_bound(denoiser, x0, grid=tuned, variance="large", seed=5)
    assert torch.equal(found.times, tuned)
    assert abs(found.mean - float(totals[-1])) < 4 * math.sqrt(2) * found.standard_error
    assert float(totals[-1]) < price(costs.tolist(), (100 - times(process, 8)).long().tolist()) - 0.05


def test_continuous_time_is_tuned_on_candidate_levels() -> None:
    process = VP()
    denoiser, x0 = mixture().denoiser(process), mixture().sample(300, gen(1))
    errors = x0_errors(denoiser, x0, grid=logsnr(process, 60), seed=0)
    levels, totals = best_grid(step_costs(process, errors, "large"), 10)
    tuned = errors.times[levels]
    even = variational_bound(denoiser, x0, grid="logsnr", steps=10, variance="large", seed=1)
    assert float(totals[-1]) < even.mean - 3 * even.standard_error
    drawn = sample(denoiser, (4000, 2), stepper=DDPM("large"), grid=tuned, seed=0)
    spread = drawn.double().T.cov().diagonal().sqrt()
    torch.testing.assert_close(spread, mixture().covariance().diagonal().sqrt(), rtol=0.1, atol=0)


def test_a_thousand_levels_take_seconds() -> None:
    process = Tabulated.from_betas()
    x0 = torch.randn(4, 8, generator=gen())
    point = GaussianMixture(torch.ones(1), torch.zeros(1, 8), torch.ones(1)).denoiser(process)
    costs = step_costs(process, x0_errors(point, x0, seed=0), "large")
    begun = time.perf_counter()
    _, totals = best_grid(costs, 1000)
    assert time.perf_counter() - begun < 10  # about one second alone on one core
    assert len(totals) == 1000
    assert bool((totals.diff() <= 0).all())


def test_refusals() -> None:
    costs = torch.ones(4, 4)
    refused(lambda: best_grid(torch.ones(3, 4), 1), "(3, 4)")
    refused(lambda: best_grid(costs, 0), "steps=0", "[1, 3]")
    refused(lambda: best_grid(costs, 4), "steps=4")
    refused(lambda: best_grid(costs * math.nan, 2), "NaN")
    refused(lambda: best_grid(costs * math.inf, 2), "infinite")
    process = Tabulated.from_betas("cosine", 20)
    errors = x0_errors(mixture().denoiser(process), mixture().sample(4, gen()), seed=0)
    refused(lambda: step_costs(process, errors, "learned"), "learned", "small", "large")
