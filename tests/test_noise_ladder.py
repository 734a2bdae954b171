"""NCSNv2's advice: the paper's own numbers, geometry by brute force, and a ladder that works on the digits."""

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from laws import refused
from torch import nn

from ornstein import VE, NetDenoiser, sample
from ornstein.core.exact import Empirical
from ornstein.data import DATA
from ornstein.samplers.noise_ladder import LARGEST_RATIO, advise_ladder, ladder_ratio, largest_distance, shell_overlap

F64 = torch.float64

#: Song & Ermon 2020 (2006.09011), table of appendix B: shape, sigma_max, levels, corrections, eps
PUBLISHED = {
    "cifar10": ((3, 32, 32), 50.0, 232, 5, 6.2e-6),
    "celeba": ((3, 64, 64), 90.0, 500, 5, 3.3e-6),
    "bedroom": ((3, 128, 128), 190.0, 1086, 3, 1.8e-6),
    "ffhq": ((3, 256, 256), 348.0, 2311, 3, 9e-7),
}


def normal_cdf(z: Any) -> Any:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_papers_numbers_follow(name: Any) -> None:
    shape, sigma_max, levels, corrections, eps = PUBLISHED[name]
    d = math.prod(shape)
    data = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    advice = advise_ladder(data, corrections=corrections, overlap=0.5664, sigma_min=0.01, sigma_max=sigma_max)
    assert len(advice.sigmas) == levels
    assert advice.sigmas[0] == 0.01
    assert advice.sigmas[-1] == sigma_max
    assert advice.eps == pytest.approx(eps, rel=0.02)
    # the formula as printed, at the published ratio: 0.567, where the text says about one half
    ratio = (sigma_max / 0.01) ** (1 / (levels - 1))
    away = math.sqrt(2 * d) * (ratio - 1)
    assert shell_overlap(ratio, d) == pytest.approx(
        normal_cdf(away + 3 * ratio) - normal_cdf(away - 3 * ratio), abs=1e-12
    )
    assert shell_overlap(ratio, d) == pytest.approx(0.567, abs=1e-3)
    # at one half itself the levels are 6 % fewer
    half = advise_ladder(data, corrections=corrections, sigma_min=0.01, sigma_max=sigma_max)
    assert 0.93 < len(half.sigmas) / levels < 0.95
    assert half.eps == pytest.approx(eps, rel=0.08)


def test_the_overlap_is_that_of_shells() -> None:
    """By drawing noise: the share of the smaller level within three deviations of the larger level's radius."""
    g = torch.Generator().manual_seed(1)
    for d, ratio in ((64, 1.2), (64, 1.36), (512, 1.1), (2048, 1.05)):
        radius = torch.randn(4000, d, generator=g, dtype=F64).square().sum(1).sqrt()
        inside = (radius - ratio * math.sqrt(d)).abs() < 3 * ratio / math.sqrt(2)
        assert shell_overlap(ratio, d) == pytest.approx(inside.double().mean().item(), abs=0.04)


def test_ratios_are_monotone_and_solve_the_criterion() -> None:
    ratios = [ladder_ratio(d) for d in (1, 2, 10, 17, 18, 32, 64, 784, 3072, 10**6)]
    assert ratios[:4] == [LARGEST_RATIO] * 4
    assert all(a > b for a, b in itertools.pairwise(ratios[4:]))
    for d in (64, 784, 3072, 10**6):
        assert shell_overlap(ladder_ratio(d), d) == pytest.approx(0.5, abs=1e-9)
        shares = [shell_overlap(1 + k * (ladder_ratio(d) - 1) / 4, d) for k in range(13)]
        assert all(a > b for a, b in itertools.pairwise(shares))
        assert ladder_ratio(d, 0.8) < ladder_ratio(d, 0.5) < ladder_ratio(d, 0.2)
    # in many dimensions, 1 + 3/sqrt(2d)
    assert ladder_ratio(10**6) - 1 == pytest.approx(3 / math.sqrt(2 * 10**6), rel=3e-3)


def brute_force(x: Any) -> Any:
    x = x.reshape(len(x), -1).double()
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").max().item()


def clouds() -> Any:
    g = torch.Generator().manual_seed(2)
    yield "ball", torch.randn(1500, 3, generator=g)
    yield "sphere", nn.functional.normalize(torch.randn(1500, 6, generator=g))
    yield "pictures", torch.rand(400, 1, 8, 8, generator=g)
    yield "far away", 1e4 + torch.randn(300, 5, generator=g, dtype=F64)
    yield "outlier", torch.cat([torch.randn(500, 4, generator=g), torch.full((1, 4), 30.0)])
    yield "line", torch.linspace(0, 1, 777)[:, None] ** 2
    yield "two points", torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    yield "blocks", torch.randn(2500, 2, generator=g)
    yield "bytes", torch.randint(0, 17, (200, 1, 4, 4), generator=g, dtype=torch.uint8)


@pytest.mark.parametrize(("name", "cloud"), list(clouds()), ids=[name for name, _ in clouds()])
def test_the_largest_distance_is_that_of_all_pairs(name: Any, cloud: Any) -> None:
    found = largest_distance(cloud)
    assert found.distance == pytest.approx(brute_force(cloud), rel=1e-5)
    assert found.bound == found.distance
    assert 2 <= found.compared <= len(cloud)
    # compared or not, the answer lies between what is claimed
    few = largest_distance(cloud, most=5)
    assert few.distance <= brute_force(cloud) * (1 + 1e-6)
    assert few.bound >= brute_force(cloud) * (1 - 1e-6)
    assert few.compared <= 5


def test_points_that_cannot_be_ends_are_not_compared() -> None:
    g = torch.Generator().manual_seed(3)
    x = torch.cat([torch.randn(4000, 8, generator=g), 40 * nn.functional.normalize(torch.randn(40, 8, generator=g))])
    assert largest_distance(x).compared <= 60


def test_advice_scales_with_the_data_and_says_why() -> None:
    g = torch.Generator().manual_seed(4)
    x = torch.randn(300, 1, 6, 6, generator=g)
    one, ten = advise_ladder(x), advise_ladder(10 * x)
    assert len(one.sigmas) == len(ten.sigmas)
    torch.testing.assert_close(torch.tensor(ten.sigmas), 10 * torch.tensor(one.sigmas), rtol=1e-5, atol=0)
    assert ten.step_size == pytest.approx(one.step_size, rel=2e-3)
    assert ten.eps == pytest.approx(100 * one.eps, rel=3e-3)
    assert one.sigmas[-1] == pytest.approx(brute_force(x), rel=1e-6)
    assert one.sigmas[0] == pytest.approx(0.04 * x.std().item(), rel=1e-5)
    ratios = torch.tensor(one.sigmas[1:], dtype=F64) / torch.tensor(one.sigmas[:-1], dtype=F64)
    torch.testing.assert_close(ratios, torch.full_like(ratios, one.ratio), rtol=1e-9, atol=0)
    assert one.ratio <= ladder_ratio(36) * (1 + 1e-9)
    assert shell_overlap(one.ratio, 36) >= 0.5
    assert set(one.reasons) == {"sigma_max", "sigma_min", "ratio", "step_size", "conditioning", "average"}
    assert all(reason.endswith(".") for reason in one.reasons.values())
    assert "300 examples" in one.reasons["sigma_max"]
    assert f"{len(one.sigmas)} levels" in one.reasons["ratio"]
    # more corrections, smaller steps; fewer overlaps, fewer levels
    steps = [advise_ladder(x, corrections=k).step_size for k in (1, 2, 5, 20, 100)]
    assert len(advise_ladder(x, overlap=0.2).sigmas) < len(one.sigmas) < len(advise_ladder(x, overlap=0.8).sigmas)
    assert steps[1] > steps[2] > steps[3] > steps[4]
    given = advise_ladder(x, sigma_min=0.1, sigma_max=3.0)
    assert (given.sigmas[0], given.sigmas[-1]) == (0.1, 3.0)
    assert "as given" in given.reasons["sigma_max"]


def test_a_ladder_for_few_dimensions() -> None:
    """Two dimensions: the criterion has no solution, and the noise is halved from level to level."""
    advice = advise_ladder(DATA["moons"]().load().batch(0, 1000, 0)[0])
    assert 1.5 < advice.ratio <= 2.0
    assert "never more than 2" in advice.reasons["ratio"]
    assert 5 <= len(advice.sigmas) <= 12


def test_the_score_over_sigma_is_the_reading_of_noise() -> None:
    """Technique 3: a network that is not told the noise, over sigma, is `predicts="eps"` with the sign of the noise."""

    class Blind(nn.Module):
        def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
            # NCSNv2's network sees x as it is: take the house's scaling to unit variance away
            return torch.tanh(x * (0.5**2 + (2 * noise_level).exp()).sqrt()[:, None])

    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=F64)
    denoiser = NetDenoiser(Blind(), VE(), "eps", sigma_data=0.5)
    for t in (0.1, 0.5, 1.0):
        torch.testing.assert_close(denoiser(x, t).score, -torch.tanh(x) / VE().at(t).sigma, rtol=1e-7, atol=1e-9)


def test_digits_are_drawn_by_the_ladder_advised_for_them() -> None:
    """The ideal denoiser of the digits, walked down the advised ladder: samples are digits, of every class."""
    data = DATA["digits"]().load()
    x0, condition = data.batch(0, 600, 0)
    labels = condition.parts["label"]
    advice = advise_ladder(x0)
    assert advice.sigmas[-1] == pytest.approx(brute_force(x0), rel=1e-5)
    # 64 dimensions: a ratio of 1.36 at most; measured 20 levels, from 0.030 to 9.3
    assert 15 <= len(advice.sigmas) <= 25
    assert 1.2 < advice.ratio < 1.37
    denoiser = Empirical(x0).denoiser(advice.process())
    n = 60
    x = sample(denoiser, (n, 1, 8, 8), stepper=advice.stepper(), steps=len(advice.sigmas), grid="chain", seed=0)
    distance, nearest = torch.cdist(x.flatten(1).double(), x0.flatten(1).double()).min(1)
    assert (distance < 0.5).double().mean() > 0.95  # two different digits are 2.7 apart and more
    assert len(labels[nearest].unique()) >= 9
    assert len(nearest.unique()) > 0.7 * n
    # without corrections enough for the ladder, noise of the levels above is left
    hasty = dataclasses.replace(advice.stepper(), corrections=1, step_size=0.02)
    rough = sample(denoiser, (n, 1, 8, 8), stepper=hasty, steps=len(advice.sigmas), grid="chain", seed=0)
    spread = [torch.cdist(y.flatten(1), x0.flatten(1)).argmin(1).unique().numel() for y in (x, rough)]
    assert spread[1] < spread[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: advise_ladder(x[:1]), ["1 examples", "two"]),
        (lambda x: advise_ladder(torch.zeros(5, 2)), ["sigma_max=0", "alike"]),
        (lambda x: advise_ladder(torch.where(x > 1, math.nan, x)), ["not finite"]),
        (lambda x: advise_ladder(x, overlap=1.0), ["overlap=1.0"]),
        (lambda x: advise_ladder(x, corrections=0), ["corrections=0"]),
        (lambda x: advise_ladder(x, sigma_max=1e-9), ["sigma_max=1e-09", "rising"]),
        (lambda x: largest_distance(x[:1]), ["1 examples"]),
    ],
)
def test_nonsense_is_refused(make: Any, words: Any) -> None:
    refused(lambda: make(torch.randn(50, 2, generator=torch.Generator().manual_seed(6))), *words)
