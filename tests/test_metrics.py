"""Metrics against closed forms: what two laws must score, to k standard errors, and exactly where it is exact."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from scipy.stats import wasserstein_distance

from ornstein.errors import InputError
from ornstein.laws.others import METRIC_LAWS
from ornstein.metrics import (
    C2ST,
    METRICS,
    MMD,
    Coverage,
    Density,
    EnergyDistance,
    Frechet,
    Kernel,
    Memorisation,
    Precision,
    Recall,
    SlicedWasserstein,
    gaussian_frechet,
    memorisation,
    nearest,
)
from ornstein.metrics.neighbours import distances
from ornstein.metrics.transport import quantile_coupling


def seeded(seed: Any = 0) -> Any:
    return torch.Generator().manual_seed(seed)


def normal(*shape: Any, g: Any, mean: Any = 0.0, std: Any = 1.0) -> Any:
    return mean + std * torch.randn(*shape, generator=g)


def assert_mean(values: Any, expected: Any, k: Any = 4.0) -> None:
    """The mean of independent `values` is `expected` to k standard errors, and the test has the power to say so."""
    values = torch.as_tensor(values, dtype=torch.float64)
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - expected) < k * error, f"{values.mean():.5g} ± {error:.2g}, expected {expected:.5g}"


# --- every metric of the table


@pytest.mark.parametrize("law", METRIC_LAWS)
@pytest.mark.parametrize("name", METRICS)
def test_every_metric_keeps_the_laws(name: Any, law: Any) -> None:
    METRIC_LAWS[law](METRICS[name]())


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_a_frozen_dataclass_that_says_what_it_is(name: Any) -> None:
    metric = METRICS[name]
    assert dataclasses.is_dataclass(metric)
    assert metric.__dataclass_params__.frozen
    first = metric.__doc__.splitlines()[0]
    assert first.endswith(".")
    assert 40 < len(first) < 120


@pytest.mark.parametrize("name", METRICS)
def test_double_precision_agrees(name: Any) -> None:
    g = seeded()
    x, y = normal(60, 2, 3, 4, g=g), normal(50, 2, 3, 4, g=g)
    metric = METRICS[name]()
    value = metric(x, y, seeded(1))
    assert value == pytest.approx(metric(x.double(), y, seeded(1)), rel=1e-3, abs=0.02 if name == "c2st" else 1e-5)


def test_a_shifted_set_lies_farther_from_the_training_set_which_is_not_the_concern_of_memorisation() -> None:
    g = seeded()
    y = normal(300, 3, g=g)
    good, bad = Memorisation()(normal(200, 3, g=g), y, g), Memorisation()(normal(200, 3, g=g, mean=1.5), y, g)
    assert bad > good


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (torch.zeros(9, 2, dtype=torch.uint8), torch.zeros(9, 2), "x has dtype torch.uint8"),
        (torch.zeros(9, 2), torch.full((9, 2), math.nan), "y has NaN or infinity in 9 of its 9 points"),
        (torch.zeros(9, 2), torch.zeros(9, 3), "they must agree"),
        (torch.zeros(1, 2), torch.zeros(9, 2), "at least two points"),
    ],
)
def test_bad_input_is_one_sentence(name: Any, x: Any, y: Any, said: Any) -> None:
    with pytest.raises(InputError, match=said):
        METRICS[name]()(x, y, seeded())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SlicedWasserstein(projections=0), "projections=0"),
        (lambda: SlicedWasserstein(p=0.5), "p=0.5"),
        (lambda: MMD(scales=()), "scales=()"),
        (lambda: MMD(bandwidth=-1.0), "bandwidth=-1.0"),
        (lambda: MMD()(torch.zeros(9, 2), torch.zeros(9, 2), seeded()), "give a bandwidth"),
        (lambda: Kernel(size=1), "size=1"),
        (lambda: C2ST(folds=1), "folds=1"),
        (lambda: C2ST()(torch.zeros(9, 2), torch.zeros(40, 2), seeded()), "at least 10 points"),
        (lambda: Precision(k=0), "k=0"),
        (lambda: Recall(k=9)(torch.zeros(9, 2), torch.zeros(40, 2), seeded()), "more than 9 points"),
        (lambda: memorisation(*torch.zeros(3, 9, 2), quantile=1.0), "quantile=1.0"),
    ],
)
def test_bad_arguments_are_named(make: Any, said: Any) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert said in str(caught.value)


# --- sliced Wasserstein


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (4, 6), (7, 100), (1, 9)])
def test_quantile_coupling_has_uniform_marginals(n: Any, m: Any) -> None:
    i, j, width = quantile_coupling(n, m, torch.device("cpu"))
    assert (width > 0).all()
    for index, count in ((i, n), (j, m)):
        mass = torch.zeros(count, dtype=torch.float64).index_add_(0, index, width)
        torch.testing.assert_close(mass, torch.full((count,), 1 / count, dtype=torch.float64))


def test_sliced_wasserstein_in_one_dimension_is_the_wasserstein_distance() -> None:
    g = seeded()
    x, y = normal(37, 1, g=g).double(), normal(101, 1, g=g, mean=0.5, std=2.0).double()
    value = SlicedWasserstein(projections=3, p=1)(x, y, g)
    assert value == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-12)


def test_sliced_wasserstein_depends_on_the_empirical_laws_alone() -> None:
    g = seeded()
    x, y = normal(30, 5, g=g).double(), normal(50, 5, g=g).double()
    once = SlicedWasserstein(64)(x, y, seeded(1))
    assert once == pytest.approx(SlicedWasserstein(64)(x.repeat(3, 1), y.repeat(2, 1), seeded(1)), rel=1e-12)
    assert SlicedWasserstein(64)(x, x[torch.randperm(30, generator=g)].repeat(2, 1), g) < 1e-12


def test_sliced_wasserstein_of_a_shift_is_its_length_over_root_d() -> None:
    # W_2 along theta is exactly |theta·m|, whose square has mean |m|²/d over the sphere
    g, d = seeded(), 7
    x, shift = normal(40, d, g=g).double(), normal(d, g=g).double()
    squares = [SlicedWasserstein(projections=50)(x, x + shift, g) ** 2 for _ in range(50)]
    assert_mean(squares, float(shift.square().sum()) / d)


def test_sliced_wasserstein_of_two_gaussians() -> None:
    # the sampling noise of two finite sets adds its own expected square, measured between sets of one law
    g, d, n = seeded(), 5, 200
    m = torch.tensor([1.0, 0, 0, 0, -0.5])
    metric, runs = SlicedWasserstein(projections=64), range(50)
    apart = torch.tensor([metric(normal(n, d, g=g), normal(n, d, g=g) + m, g) ** 2 for _ in runs])
    noise = torch.tensor([metric(normal(n, d, g=g), normal(n, d, g=g), g) ** 2 for _ in runs])
    assert_mean(apart - noise, float(m.square().sum()) / d)


# --- energy distance, MMD, kernel distance


def folded_mean(mean: Any, std: Any) -> Any:
    """E|Z| for Z ~ N(mean, std²)."""
    return std * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * std**2)) + mean * math.erf(mean / std / 2**0.5)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 1.0), (0.3, 2.0)])
def test_energy_distance_of_gaussians_is_unbiased(mean: Any, std: Any) -> None:
    g = seeded()
    expected = 2 * folded_mean(mean, math.sqrt(1 + std**2)) - (1 + std) * 2 / math.sqrt(math.pi)
    runs = [EnergyDistance()(normal(40, 1, g=g), normal(25, 1, g=g, mean=mean, std=std), g) for _ in range(250)]
    assert_mean(runs, expected)


@pytest.mark.parametrize(("shift", "std"), [(0.0, 1.0), (0.8, 1.0), (0.4, 1.6)])
def test_mmd_of_gaussians_is_unbiased(shift: Any, std: Any) -> None:
    g, d, h = seeded(), 3, 1.3

    def likeness(variance: Any, shift: Any) -> Any:  # E exp(-|Z|²/2w²) for Z ~ N(shift, variance·I)
        widths = [(s * h) ** 2 for s in (0.5, 2.0)]
        return sum((w / (w + variance)) ** (d / 2) * math.exp(-d * shift**2 / (2 * (w + variance))) / 2 for w in widths)

    expected = likeness(2, 0) + likeness(2 * std**2, 0) - 2 * likeness(1 + std**2, shift)
    metric = MMD(scales=(0.5, 2.0), bandwidth=h)
    runs = [metric(normal(40, d, g=g), normal(25, d, g=g, mean=shift, std=std), g) for _ in range(250)]
    assert_mean(runs, expected)


def test_mmd_with_the_median_heuristic_has_no_unit() -> None:
    g = seeded()
    x, y = normal(200, 3, g=g), normal(300, 3, g=g, mean=0.5)
    assert MMD()(1000 * x, 1000 * y, seeded(1)) == pytest.approx(MMD()(x, y, seeded(1)), rel=1e-4)
    spread = torch.pdist(y).median().item()
    assert MMD()(x, y, seeded(1)) == pytest.approx(MMD(bandwidth=spread)(x, y, g), rel=1e-4)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.6, 1.0), (0.5, 1.5)])
def test_kernel_distance_of_gaussians_is_unbiased(mean: Any, std: Any) -> None:
    # E (xy + 1)³ between independent x and y is a sum over their moments
    def moments(m: Any, s: Any) -> Any:
        return 1, m, m**2 + s**2, m**3 + 3 * m * s**2

    def likeness(a: Any, b: Any) -> Any:
        return sum(math.comb(3, k) * a[k] * b[k] for k in range(4))

    p, q = moments(0.2, 1.0), moments(mean, std)
    expected = likeness(p, p) + likeness(q, q) - 2 * likeness(p, q)
    g = seeded()
    metric = Kernel(subsets=4, size=20)
    runs = [metric(normal(60, 1, g=g, mean=0.2), normal(50, 1, g=g, mean=mean, std=std), g) for _ in range(250)]
    assert_mean(runs, expected)


def test_kernel_distance_tells_its_standard_error() -> None:
    # 10 subsets of 20 out of 5,000 points are nearly independent, so the error told is the error made
    g = seeded()
    runs = torch.tensor(
        [Kernel(10, 20).estimate(normal(5000, 2, g=g), normal(5000, 2, g=g, mean=0.5), g) for _ in range(200)]
    )
    assert runs[:, 1].square().mean().sqrt() == pytest.approx(runs[:, 0].std().item(), rel=0.2)
    whole = Kernel(10, 1000).estimate(normal(50, 2, g=g), normal(50, 2, g=g), g)
    assert math.isnan(whole[1])


@pytest.mark.parametrize("metric", [EnergyDistance(), MMD(bandwidth=1.0), Memorisation(), Precision(), Recall()])
@pytest.mark.parametrize("d", [3, 40])
def test_blocks_change_nothing(metric: Any, d: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    g = seeded()
    x, y = normal(83, d, g=g), normal(61, d, g=g)
    whole = metric(x, y, g)
    monkeypatch.setattr("ornstein.metrics.neighbours.ENTRIES", 200)  # three rows at a time
    assert metric(x, y, g) == pytest.approx(whole, rel=1e-5)


def test_sliced_wasserstein_in_blocks_of_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    g = seeded()
    x, y = normal(83, 4, g=g), normal(61, 4, g=g)
    whole = SlicedWasserstein(50)(x, y, seeded(1))
    monkeypatch.setattr("ornstein.metrics.transport.ENTRIES", 1000)
    assert SlicedWasserstein(50)(x, y, seeded(1)) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("d", [3, 50])
def test_a_far_away_origin_costs_no_digits(d: Any) -> None:
    g = seeded()
    x, y = normal(40, d, g=g) + 1000, normal(30, d, g=g) + 1000
    exact = (x.double()[:, None] - y.double()[None]).norm(dim=2)
    torch.testing.assert_close(distances(x, y).double(), exact, rtol=1e-5, atol=1e-5)


# --- Fréchet


def test_frechet_closed_forms() -> None:
    variances, others = torch.tensor([1.0, 4.0, 0.0, 2.0]), torch.tensor([9.0, 1.0, 1.0, 2.0])
    mean = torch.tensor([1.0, -2.0, 0.0, 0.5])
    expected = (variances.sqrt() - others.sqrt()).square().sum() + mean.square().sum()
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=seeded(), dtype=torch.float64)).Q
    turn = [rotation @ c.double().diag() @ rotation.T for c in (variances, others)]
    value = gaussian_frechet(torch.zeros(4), turn[0], rotation @ mean.double(), turn[1])
    assert float(value) == pytest.approx(float(expected), rel=1e-7)  # a zero eigenvalue has a root of 1e-8

    # covariances that do not commute: in the plane tr (AB)^{1/2} = sqrt(tr AB + 2 sqrt(det AB))
    a, b = torch.tensor([[2.0, 0.9], [0.9, 1.0]]).double(), torch.tensor([[1.0, -0.5], [-0.5, 3.0]]).double()
    assert not torch.allclose(a @ b, b @ a)
    root = (torch.trace(a @ b) + 2 * torch.linalg.det(a @ b).sqrt()).sqrt()
    expected = a.trace() + b.trace() - 2 * root
    assert float(gaussian_frechet(torch.zeros(2), a, torch.zeros(2), b)) == pytest.approx(float(expected), rel=1e-12)


def test_frechet_bias_is_c_over_n() -> None:
    # one dimension: (m̂_x - m̂_y)² + (ŝ_x - ŝ_y)² between samples of N(0, 1) is 3/n on average, to first order
    g, n = seeded(), 200
    assert_mean([Frechet()(normal(n, 1, g=g), normal(n, 1, g=g), g) for _ in range(800)], 3 / n)


def test_frechet_halves_of_one_set_are_close_and_a_set_is_at_itself() -> None:
    g = seeded()
    data = normal(4000, 8, g=g) @ normal(8, 8, g=g)
    scale = data.var(dim=0).sum().item()
    assert abs(Frechet()(data, data, g)) < 1e-6 * scale
    assert 0 < Frechet()(data[:2000], data[2000:], g) < 0.01 * scale
    assert Frechet()(data[:2000], 1.2 * data[2000:], g) == pytest.approx(0.04 * scale, rel=0.3)


def test_frechet_with_fewer_points_than_dimensions_warns_and_agrees_with_the_root() -> None:
    g = seeded()
    x, y = normal(12, 30, g=g).double(), normal(50, 30, g=g, mean=0.5).double()
    with pytest.warns(UserWarning, match="12 points in 30 dimensions"):
        value = Frechet()(x, y, g)
    assert value == pytest.approx(float(gaussian_frechet(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())), rel=1e-6)
    with pytest.warns(UserWarning, match="12 points"):
        assert abs(Frechet()(x, x, g)) < 1e-9


# --- classifier two-sample test


def test_c2st_reaches_the_best_accuracy_there_is() -> None:
    # N(0, I) against N(m, I): the best classifier is right with probability Phi(|m|/2)
    g, n = seeded(), 2000
    best = 0.5 * (1 + math.erf(1.5 / 2 / 2**0.5))
    value = C2ST()(normal(n, 3, g=g), normal(n, 3, g=g) + torch.tensor([1.5, 0, 0]), g)
    error = math.sqrt(best * (1 - best) / (2 * n))
    assert best - 0.02 < value < best + 4 * error


def test_c2st_sees_what_no_linear_classifier_sees_and_ignores_units() -> None:
    # equal means, unequal spreads, in one dimension: right with probability 1/2 + TV/2
    g, n, s = seeded(), 1000, 2.5
    edge = math.sqrt(2 * math.log(s) / (1 - 1 / s**2))  # where the densities cross
    best = 0.5 + 0.5 * (math.erf(edge / 2**0.5) - math.erf(edge / s / 2**0.5))
    x, y = normal(n, 1, g=g), normal(n, 1, g=g, std=s)
    error = math.sqrt(best * (1 - best) / (2 * n))
    for unit in (1.0, 1e4):
        assert best - 0.03 < C2ST()(unit * x + 3 * unit, unit * y + 3 * unit, g) < best + 4 * error


def test_c2st_is_at_chance_for_one_law_whatever_the_sizes() -> None:
    g = seeded()
    value = C2ST()(normal(200, 4, g=g), normal(2000, 4, g=g), g)
    assert abs(value - 0.5) < 4 * math.sqrt(0.25 / 4 * (1 / 200 + 1 / 2000))


def test_sets_whose_classifiers_train_together_are_each_told_apart_by_their_own() -> None:
    g = seeded()
    y, near = normal(400, 2, g=g), normal(200, 2, g=g)
    metric = C2ST(steps=60)
    of_sets, of_y = metric._scores([near, near + 6, near], y, g)
    assert (of_sets.shape, of_y.shape) == ((3, 200), (3, 400))
    found = metric._right(of_sets, of_y)
    assert found[1] > 0.9
    assert found[[0, 2]].tolist() == pytest.approx([0.5, 0.5], abs=0.1)
    assert len(metric.on_subsets(near, y, 100, 3, g).unique()) == 3  # subsets differ


def test_c2st_falls_below_chance_for_copies() -> None:
    g = seeded()
    x = normal(200, 20, g=g)
    assert C2ST()(x, x, g) < 0.5 - 3 * math.sqrt(0.25 / 400)


# --- nearest neighbours


def test_nearest_is_exact_far_from_the_origin() -> None:
    g = seeded()
    y = normal(500, 1, 28, 28, g=g) + 50
    x = torch.cat([y[[7, 3]], y[[11]] + 0.01])
    reach, index = nearest(x, y)
    assert index.tolist() == [7, 3, 11]
    assert reach[:2].tolist() == [0, 0]
    assert reach[2].item() == pytest.approx(0.01 * 28, rel=1e-2)
    brute = (y[:40, None].flatten(2) - y[None, 40:].flatten(2)).norm(dim=2).min(dim=1)
    reach, index = nearest(y[:40], y[40:])
    torch.testing.assert_close(reach, brute.values)
    assert torch.equal(index, brute.indices)


def test_memorisation_tells_copies_from_fresh_draws() -> None:
    g = seeded()
    train, heldout = normal(1000, 6, g=g), normal(800, 6, g=g)
    fresh = memorisation(normal(800, 6, g=g), train, heldout)
    assert fresh.ratio == pytest.approx(1, abs=0.06)
    assert fresh.share == pytest.approx(0.01, abs=4 * math.sqrt(0.01 * 2 / 800))
    copies = memorisation(train[:300] + 1e-3 * normal(300, 6, g=g), train, heldout)
    assert copies.ratio < 0.01
    assert (copies.share, copies.copies, copies.copied) == (1, 1, True)
    some = memorisation(torch.cat([train[:80], normal(720, 6, g=g)]), train, heldout)
    assert some.ratio > 0.85  # the median does not see one copy in ten
    assert 0.1 <= some.share < 0.14  # the share does
    stray = memorisation(normal(300, 6, g=g, std=3.0), train, heldout)
    assert stray.ratio > 1.5
    assert some.copies == pytest.approx(0.1, abs=0.01)
    assert (fresh.copied, some.copied, stray.copied) == (False, True, False)
    # an example that is there three times is one place
    copies = memorisation(train[:300], torch.cat([train] * 3), heldout)
    assert (copies.copies, copies.copied) == (1, True)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_an_honest_draw_lies_by_one_example_alone_as_often_as_evenly_scattered_points_have_it(d: int) -> None:
    """3^-d: the nearest of evenly scattered points is three times closer than the next."""
    g = seeded()
    train, heldout = torch.rand(4000, d, generator=g), 0.2 + 0.6 * torch.rand(6000, d, generator=g)
    found = memorisation(heldout, train, heldout)
    assert found.honest == pytest.approx(3**-d, abs=4 * math.sqrt(3**-d / 4000))
    few, half = heldout[:1000], train[:2000]
    again = [memorisation(0.2 + 0.6 * torch.rand(300, d, generator=g), half, few).copied for _ in range(20)]
    assert not any(again)


def test_precision_and_recall_tell_noise_from_dropped_modes() -> None:
    g = seeded()
    side = torch.tensor([[6.0, 0.0]])
    real = torch.cat([normal(300, 2, g=g) - side, normal(300, 2, g=g) + side])
    one_mode, noisy = normal(600, 2, g=g) - side, torch.cat([real[::2], normal(300, 2, g=g, std=200.0)])
    assert Precision()(one_mode, real, g) > 0.9
    assert 0.4 < Recall()(one_mode, real, g) < 0.5
    assert 0.45 < Precision()(noisy, real, g) < 0.55
    assert Recall()(noisy, real, g) > 0.9
    # by the definition, point by point
    x, y = normal(40, 3, g=g), normal(50, 3, g=g)
    radius = torch.cdist(y, y).sort(dim=1).values[:, 3]
    expected = (torch.cdist(x, y) <= radius).any(dim=1).double().mean().item()
    assert Precision(k=3)(x, y, g) == expected == Recall(k=3)(y, x, g)


@pytest.mark.parametrize(("n", "m", "k"), [(30, 30, 5), (40, 12, 3), (12, 50, 2)])
def test_honest_sets_have_the_density_and_coverage_that_follow_from_exchange_alone(n: int, m: int, k: int) -> None:
    """Whatever the distribution: here one with a tail so heavy that it has no mean."""
    g, found = seeded(), []
    for _ in range(300):
        x, y = (torch.tan(1.5 * (torch.rand(size, 2, generator=g) * 2 - 1)) for size in (m, n))
        found.append([Density(k)(x, y, g), Coverage(k)(x, y, g)])
    density, coverage = torch.tensor(found).T
    assert_mean(density, 1.0)
    empty = math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
    assert_mean(coverage, 1 - empty)
    assert density.std() / math.sqrt(300) < 0.05
    assert coverage.std() / math.sqrt(300) < 0.01


def test_density_and_coverage_by_their_definition_and_beside_an_outlier() -> None:
    g = seeded()
    x, y = normal(40, 3, g=g), normal(50, 3, g=g)
    inside = torch.cdist(x, y) <= torch.cdist(y, y).sort(dim=1).values[:, 4]
    assert Density(k=4)(x, y, g) == inside.sum().item() / (4 * 40)
    assert Coverage(k=4)(x, y, g) == inside.any(0).double().mean().item()
    # a single real point far away, whose ball reaches all samples between it and the data
    real = torch.cat([normal(499, 2, g=g), torch.tensor([[300.0, 0.0]])])
    between = torch.tensor([[100.0, 0.0]]) + normal(300, 2, g=g)
    assert Precision()(between, real, g) == 1
    assert Density()(between, real, g) == pytest.approx(1 / 5)
    assert Coverage()(between, real, g) == pytest.approx(1 / 500)


@pytest.mark.parametrize("name", ["precision", "density", "coverage"])
def test_balls_that_are_found_once_serve_every_subset(name: str) -> None:
    g = seeded()
    x, y, metric = normal(60, 3, g=g), normal(50, 3, g=g), METRICS[name]()
    whole = metric.on_subsets(x, y, 60, 2, g)
    assert whole.tolist() == [metric(x, y, g)] * 2
    few, chosen = metric.on_subsets(x, y, 20, 2, seeded(4)), seeded(4)
    assert few.tolist() == [metric(x[torch.randperm(60, generator=chosen)[:20]], y, g) for _ in range(2)]
