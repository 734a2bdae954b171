"""Laws of the numerics: the counter-based generator, its noise, and the inverse of a falling function."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from ornstein.core.numerics import Inverse, monotone_slopes, normal, philox, uniform, widening


def words(*hexadecimal: Any) -> Any:
    return tuple(torch.tensor([int(word, 16)]) for word in hexadecimal)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers that Random123 publishes for philox4x32-10
        (["0"] * 4, ["0"] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (["ffffffff"] * 4, ["ffffffff"] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            ["243f6a88", "85a308d3", "13198a2e", "03707344"],
            ["a4093822", "299f31d0"],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers(counter: Any, key: Any, expected: Any) -> None:
    result = philox(words(*counter), words(*key))
    assert " ".join(f"{int(word):08x}" for word in result) == expected


def test_draws_that_share_their_last_32_bits_differ_and_stay_what_they_were() -> None:
    """Walks of walks count their draws from below 0, and saved runs are to draw what they drew."""
    seed, draws = torch.tensor([7]), (-2, 2**32 - 2, 1, 2**33 + 1)
    found = [normal(seed, (3,), draw)[0] for draw in draws]
    torch.testing.assert_close(found[0], torch.tensor([-0.38443887, 1.71663177, 0.68411058]))
    assert len({tuple(x.tolist()) for x in found}) == len(draws)


def distance_from_normal(x: Any) -> Any:
    """Kolmogorov & Smirnov's distance times sqrt(n); above 1.95 once in a thousand times."""
    x = x.flatten().double().sort().values
    n = len(x)
    cdf = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    above = (torch.arange(1, n + 1) / n - cdf).max()
    below = (cdf - torch.arange(n) / n).max()
    return float(torch.maximum(above, below)) * math.sqrt(n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_standard_normal(dtype: Any) -> None:
    x = normal(torch.arange(500), (13, 31), 3, dtype)
    assert x.shape == (500, 13, 31)
    assert x.dtype == dtype
    n = x.numel()
    z = x.double()
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert distance_from_normal(x) < 1.95
    # the tails: how many lie beyond 4 standard deviations
    expected = n * 2 * NormalDist().cdf(-4)
    assert abs((z.abs() > 4).sum() - expected) < 5 * math.sqrt(expected)


def test_noise_is_independent_across_elements_draws_and_seeds() -> None:
    n = 10000
    columns = {
        "elements": normal(torch.arange(n), (9,), 0),  # across blocks of four and within
        "draws": torch.stack([normal(torch.arange(n), (1,), k)[:, 0] for k in range(6)], 1),
        # seeds side by side, seeds apart by a power of two, the halves of a seed exchanged
        "seeds": torch.stack(
            [normal(torch.arange(n) * step + start, (1,), 0)[:, 0] for step, start in
             [(1, 0), (1, n), (1, 1), (2**32, 5), (2**20, 2**61)]], 1
        ),
    }  # fmt: skip
    for what, x in columns.items():
        for moment in (x, x**2 - 1):
            correlation = torch.corrcoef(moment.T.double()) - torch.eye(x.shape[1])
            assert correlation.abs().max() < 5 / math.sqrt(n), what


def test_noise_is_a_pure_function_of_seed_draw_and_element() -> None:
    seeds = torch.tensor([5, 2**40 + 3, 5, 0, 2**62 - 1])
    x = normal(seeds, (2, 5), 4)
    assert torch.equal(x[0], x[2])
    assert len(x.flatten(1).unique(dim=0)) == 4
    for i, seed in enumerate(seeds):
        assert torch.equal(normal(seed[None], (2, 5), 4)[0], x[i])
    # the same elements whatever comes after them, the same numbers in either precision
    assert torch.equal(normal(seeds, (3,), 4), x.flatten(1)[:, :3])
    assert torch.equal(normal(seeds, (2, 5), 4, torch.float64).float(), x)
    assert not torch.equal(normal(seeds, (2, 5), 5), x)
    # several draws at once are those draws, in the order that they are asked in
    for one, draw in zip(normal(seeds, (2, 5), (6, 4, -3)), (6, 4, -3), strict=True):
        assert torch.equal(one, normal(seeds, (2, 5), draw))
    # no global state is read or moved
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(normal(seeds, (2, 5), 4), x)
    assert torch.equal(torch.get_rng_state(), before)


def test_golden_noise() -> None:
    """What a published seed means may never change: the first numbers of seed 0, sample 0 and 1."""
    unit = [(word + 0.5) / 2**32 for word in (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)]
    expected = []
    for radius, angle in (unit[:2], unit[2:]):
        r = math.sqrt(-2 * math.log(radius))
        expected += [r * math.cos(2 * math.pi * angle), r * math.sin(2 * math.pi * angle)]
    assert normal(torch.tensor([0]), (4,), 0, torch.float64)[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_noise_is_never_infinite() -> None:
    """The extreme words that Philox can give stay finite and far: checked where they come from, Box & Muller."""
    x = normal(torch.arange(50000), (16,), 0)
    assert x.isfinite().all()
    assert 4.4 < x.abs().max() < 6.8


def test_an_inverse_is_found_to_the_last_bits_and_stops_at_the_ends() -> None:
    targets = torch.tensor([[2.0, 0.5], [1e-3, -7.0]], dtype=torch.float64)
    inverse = Inverse(lambda t: -t.log(), 1e-6, 1e4)
    found = inverse(targets)
    torch.testing.assert_close(found, (-targets).exp(), rtol=1e-12, atol=0)
    assert [inverse.one(y) for y in targets.flatten().tolist()] == found.flatten().tolist()
    inverse, beyond = Inverse(lambda t: -t, 0.0, 0.3), [1.0, -9.0, math.inf, -math.inf]
    assert inverse(torch.tensor(beyond).double()).tolist() == [0.0, 0.3, 0.0, 0.3]
    assert [inverse.one(y) for y in beyond] == [0.0, 0.3, 0.0, 0.3]


def test_an_inverse_is_found_in_a_few_turns_or_where_secants_fail_by_halving() -> None:
    places = torch.logspace(-12, math.log10(0.99), 500, dtype=torch.float64)
    around = torch.cat([0.3 - 0.3 * places, 0.3 + 0.3 * places])  # of a cliff, where secants find nothing

    def logit(t: Tensor) -> Tensor:
        return ((1 - t) / t).log()

    def cliff(t: Tensor) -> Tensor:
        return -1e3 * torch.sign(t - 0.3) * (t - 0.3).abs() ** 0.05

    cases: list[tuple[Callable[[Tensor], Tensor], Tensor, int]] = [
        (logit, places, 7), (logit, 1 - places, 7), (cliff, around, 65)
    ]  # fmt: skip
    for falling, t, turns in cases:
        asked = Mock(side_effect=falling)
        back = Inverse(asked, 0.0, 1.0)(falling(t))
        torch.testing.assert_close(back, t, rtol=1e-12, atol=0)
        assert 3 < asked.call_count <= turns + 1  # and once for the table
        for place in t[::50]:  # and one at a time
            asked.reset_mock()
            single = Inverse(asked, 0.0, 1.0).one(float(falling(place)))
            assert single == pytest.approx(float(place), rel=1e-12, abs=0)
            assert asked.call_count <= turns + 1


def test_uniform_numbers_are_even_and_not_those_that_normal_ones_are_made_of() -> None:
    seeds = torch.arange(5000)
    u = uniform(seeds, 6, 3)
    assert u.shape == (5000, 6)
    places = (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000
    assert float((u.sort(0).values - places[:, None]).abs().max()) < 1.95 / 5000**0.5  # one in a thousand
    assert torch.equal(uniform(seeds[70:71], 3, 3), u[70:71, :3])  # a function of the seed, the draw and the place
    made = (-2 * u[:, 0].log()).sqrt() * (2 * math.pi * u[:, 1]).cos()
    assert not bool(torch.isclose(made, normal(seeds, (4,), 3, torch.float64)[:, 0]).any())


def test_the_slopes_of_the_monotone_cubic_are_their_closed_forms() -> None:
    """Harmonic means within, the parabola's at the ends, where that neither turns the curve nor lets it stand still."""
    for steps, slopes in (
        ((4.0, 3.0, 2.0), (4.5, 24 / 7, 12 / 5, 1.5)),
        ((2.0, -12.0, -2.0), (6.0, 0.0, -24 / 7, -0.5)),  # 9 and 3 by the parabola: cut to 3 d and d/4
        ((0.1, 1.0), (0.025, 0.2 / 1.1, 1.45)),
        ((5.0,), (5.0, 5.0)),
    ):
        y = torch.tensor([1.0, *steps], dtype=torch.float64).cumsum(0)
        torch.testing.assert_close(monotone_slopes(y), torch.tensor(slopes, dtype=torch.float64), rtol=1e-12, atol=0)


def test_an_error_of_few_degrees_of_freedom_is_widened_by_students_quantile() -> None:
    degrees = torch.tensor([0.5, 1.0, 4.0, 12.0, 30.0, 1e9, math.inf], dtype=torch.float64)
    exact = torch.tensor([12.7062, 12.7062, 2.7764, 2.1788, 2.0423, 1.95996, 1.95996], dtype=torch.float64) / 1.95996
    torch.testing.assert_close(widening(degrees), exact, rtol=5e-3, atol=0)
    assert widening(torch.tensor([math.nan])).isnan().all()
