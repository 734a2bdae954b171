"""The ruler: every column counts, whatever its unit, and values that come again and again are seen."""

import math
from typing import Any

import pytest
import torch

from ornstein.metrics import C2ST, METRICS, MMD, Ruler, compare, report
from ornstein.metrics.ruler import ATOM_COUNT


def seeded(seed: Any = 0) -> Any:
    return torch.Generator().manual_seed(seed)


def table(n: Any, g: Any, unit: Any = 1.0) -> Any:
    """Ten columns, related to each other, float64."""
    mixing = torch.randn(10, 10, generator=seeded(9), dtype=torch.float64)
    return (torch.randn(n, 10, generator=g, dtype=torch.float64) @ (mixing / 2 + torch.eye(10))) * unit


def verdicts(result: Any) -> Any:
    return {name: score.verdict for name, score in result.rows.items()}


# --- units


@pytest.mark.usefixtures("brief_reports")
def test_half_of_the_columns_lost_is_seen_although_others_are_larger() -> None:
    g, unit = seeded(), 10 ** torch.linspace(-2, 4, 10, dtype=torch.float64)
    train, heldout, samples = (table(n, g, unit) for n in (1200, 600, 600))
    good = verdicts(report(samples, train, heldout, seeded(), repeats=3))
    assert not {"differs", "near", "too near", "copies"} & set(good.values())
    samples[:, :5] = train[:, :5].mean(0)
    found = report(samples, train, heldout, seeded(), repeats=3)
    # a row of means may be plausible, which is all that precision and density ask, and is no copy
    seen = {name for name, word in verdicts(found).items() if word == "differs"}
    assert seen >= set(METRICS) - {"precision", "density", "memorisation"}


def test_a_table_with_labels_is_compared_by_its_columns_not_by_what_tells_its_classes() -> None:
    g = seeded()
    train, heldout, samples = (torch.randn(n, 4, generator=g) for n in (800, 400, 400))
    classes = [(x[:, 0] > 0).long() for x in (samples, train, heldout)]
    samples[:, 2:] = 0  # columns that no class depends on
    result = report(
        samples, train, heldout, seeded(), labels=classes[0], train_labels=classes[1], heldout_labels=classes[2],
        metrics=["frechet", "kernel", "recall"], repeats=4,
    )  # fmt: skip
    assert result.rows["class-agreement"].verdict == "matches"
    assert [result.rows[name].on for name in ("frechet", "kernel", "recall")] == ["data"] * 3
    assert [result.rows[name].verdict for name in ("frechet", "kernel", "recall")] == ["differs"] * 3


@pytest.mark.parametrize(
    ("shape", "unequal"), [((3,), False), ((3, 12), False), ((3, 4, 4), True), ((3, 2, 3, 3), False)]
)
@pytest.mark.usefixtures("brief_reports")
def test_no_measure_depends_on_the_unit_of_a_column_or_channel(shape: Any, unequal: Any) -> None:
    g = seeded()

    def draw(n: int) -> torch.Tensor:
        return torch.randn(n, *shape, generator=g, dtype=torch.float64).cumsum(-1)

    sets = [draw(60) + 0.3, draw(120), draw(80)]
    over = (1, -1) + (1,) * (len(shape) - 1)
    if unequal:  # otherwise images, which have one unit
        sets = [x * torch.tensor([1.0, 5.0, 30.0]).double().reshape(over) for x in sets]
    scale, shift = (torch.tensor(row).double().reshape(over) for row in ([1e-3, 40.0, 7.0], [5.0, -3.0, 100.0]))
    a, b, c = sets
    plain = report(a, b, c, seeded(), repeats=2)
    a, b, c = (x * scale + shift for x in sets)
    moved = report(a, b, c, seeded(), repeats=2)
    assert not Ruler.of(sets[1]).plain
    for name, score in plain.rows.items():
        assert moved.rows[name].value == pytest.approx(score.value, rel=1e-6, abs=1e-9), name
        assert moved.rows[name].floor == pytest.approx(score.floor, rel=1e-6, abs=1e-9), name
        assert moved.rows[name].verdict == score.verdict
    assert moved.near_copies == plain.near_copies


def test_images_of_one_range_stay_as_they_are_and_others_do_not() -> None:
    g = seeded()
    train, heldout, samples = (torch.rand(n, 3, 4, 4, generator=g) * 255 for n in (60, 40, 30))
    assert Ruler.of(train).measured(train) is train
    assert Ruler.of(train).marks(train).shape == (60, 48)
    one = report(samples, train, heldout, seeded(), metrics=["energy-distance"], repeats=3)
    assert one.rows["energy-distance"].floor == pytest.approx(
        compare(METRICS["energy-distance"](), samples, train, heldout, seeded(), repeats=3).floor
    )
    assert one.units == ""
    assert "channel" in report(samples, train * torch.tensor([1.0, 1, 9])[:, None, None], heldout, seeded(),
                               metrics=["energy-distance"], repeats=3).units  # fmt: skip
    grey = torch.cat([train[:, :2], torch.zeros(60, 1, 4, 4)], 1)  # a channel that never moves has no range
    assert Ruler.of(grey).plain


def test_the_unit_comes_from_the_training_part_alone() -> None:
    g = seeded()
    train, heldout, samples = (torch.randn(n, 2, generator=g) for n in (400, 200, 200))
    ruler = Ruler.of(7 * train + 3)
    assert ruler.measured(7 * train + 3).mean(0).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert ruler.measured(7 * train + 3).std(0, correction=0).tolist() == pytest.approx([1, 1], rel=1e-6)
    names = ["sliced-wasserstein", "energy-distance"]
    once = report(samples, train, heldout, seeded(), metrics=names, repeats=3)
    wide = report(50 * samples, train, heldout, seeded(), metrics=names, repeats=3)
    for name in names:  # what is measured moves neither the floor nor the unit
        assert wide.rows[name].floor == once.rows[name].floor
        assert wide.rows[name].value > 20
    constant = Ruler.of(torch.full((9, 1), 0.1))
    assert constant.measured(torch.full((2, 1), 2.1)).flatten().tolist() == pytest.approx([2, 2])


# --- atoms


def gains(n: Any, g: Any) -> Any:
    """A normal column, and one of sums of money, nothing in 92 rows of 100."""
    money = (9 + 0.8 * torch.randn(n, 1, generator=g)).exp()
    return torch.cat([torch.randn(n, 1, generator=g), torch.where(torch.rand(n, 1, generator=g) < 0.92, 0.0, money)], 1)


@pytest.mark.usefixtures("brief_reports")
def test_zeros_that_became_noise_of_either_sign_are_seen() -> None:
    g = seeded()
    train, heldout, samples = (gains(n, g) for n in (2000, 1000, 1000))
    honest = report(samples, train, heldout, seeded(), metrics=["c2st"], repeats=4).rows["c2st"]
    assert honest.verdict == "matches"
    samples[:, 1] += 0.03 * samples[:, 1].std() * torch.randn(1000, generator=g)
    noisy = report(samples, train, heldout, seeded(), metrics=["c2st"], repeats=4).rows["c2st"]
    assert noisy.verdict == "differs"
    assert noisy.value > 0.9  # 92 rows in 100 give themselves away


def test_whole_numbers_that_became_fractions_are_seen() -> None:
    g = seeded()

    def ages(n: int) -> torch.Tensor:
        return (40 + 12 * torch.randn(n, 1, generator=g)).round()

    train, heldout, samples = ages(2000), ages(1000), ages(1000)
    assert report(samples, train, heldout, seeded(), metrics=["c2st"], repeats=4).rows["c2st"].verdict == "matches"
    smeared = samples + 0.5 * torch.rand(1000, 1, generator=g) - 0.25
    assert report(smeared, train, heldout, seeded(), metrics=["c2st"], repeats=4).rows["c2st"].verdict == "differs"


@pytest.mark.usefixtures("brief_reports")
def test_dry_days_of_a_series_that_became_drizzle_are_seen() -> None:
    g = seeded()

    def rain(n: int) -> torch.Tensor:
        return torch.randn(n, 1, 20, generator=g).relu()

    train, heldout, samples = rain(600), rain(400), rain(400)
    assert report(samples, train, heldout, seeded(), metrics=["c2st"], repeats=4).rows["c2st"].verdict == "matches"
    samples += 1e-3 * torch.randn(samples.shape, generator=g)
    assert report(samples, train, heldout, seeded(), metrics=["c2st"], repeats=4).rows["c2st"].verdict == "differs"


def test_what_an_atom_is() -> None:
    values = torch.arange(1000.0)
    values[:10] = 500.0  # eleven of a thousand
    values[20:24] = 700.0  # five, too few of a thousand
    ruler = Ruler.of(values[:, None])
    assert ruler.atoms[0].tolist() == [500.0]
    shown = ruler.marks(torch.tensor([[500.0], [500.0001], [501.0], [700.0]]))
    assert shown[:, -1].tolist() == [1, 1, 0, 0]  # within what the way back from a model's space rounds
    few = torch.tensor([0.0] * (ATOM_COUNT - 1) + [1.0, 2.0, 3.0])
    assert Ruler.of(few[:, None]).atoms[0].tolist() == []  # not every value of a small set is one


def test_normal_scores_are_normal_whatever_the_tail() -> None:
    g = seeded()
    x = torch.randn(4000, 1, generator=g, dtype=torch.float64)
    z, scores = Ruler.of((5 * x).exp()).marks((5 * x).exp()).T
    assert z.median().abs() < 0.1 < z.max() / 20  # nearly all lie in one place
    torch.testing.assert_close(scores, Ruler.of(x).marks(x)[:, 1])  # any rising function leaves them
    assert scores.var() == pytest.approx(1, abs=0.01)
    beyond = Ruler.of(x).marks(torch.tensor([[-1e9], [1e9]]))[:, 1]
    assert beyond.isfinite().all()
    assert beyond[0] <= scores.min()
    assert beyond[1] >= scores.max()


def test_one_outlier_does_not_blind_the_two_sample_test() -> None:
    g = seeded()
    x, y = torch.randn(400, 1, generator=g) + 2, torch.randn(400, 1, generator=g)
    assert C2ST()(x, y, seeded()) > 0.8
    x[0] = 1e9
    assert C2ST()(x, y, seeded()) > 0.8


def test_mmd_of_a_column_that_is_mostly_nought() -> None:
    g = seeded()

    def draw(n: int, share: float) -> torch.Tensor:
        return torch.where(torch.rand(n, 1, generator=g) < share, 0.0, torch.randn(n, 1, generator=g))

    metric = MMD()
    assert math.isfinite(metric(draw(300, 0.9), draw(300, 0.9), seeded()))
    assert metric(draw(300, 0.5), draw(300, 0.9), seeded()) > 5 * abs(metric(draw(300, 0.9), draw(300, 0.9), seeded()))


# --- devices, and saying what goes on


def test_a_report_says_what_it_computes_in_its_order() -> None:
    g = seeded()
    said: list[str] = []
    x = torch.randn(90, 2, generator=g)
    labels = torch.arange(90) % 2
    report(
        x[:30], x[30:60], x[60:], g, labels=labels[:30], train_labels=labels[30:60], heldout_labels=labels[60:],
        metrics=["mmd", "memorisation"], repeats=2, progress=said.append,
    )  # fmt: skip
    assert said == ["a classifier of the real data", "mmd", "memorisation", "near copies"]


#: the kind of accelerator of this machine; where there is none, one that is asked for nothing
FAR = str(torch.accelerator.current_accelerator() or "cuda")


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("shape", [(3,), (2, 6), (1, 8, 8)])
@pytest.mark.parametrize("places", [(FAR, "cpu", "cpu"), ("cpu", FAR, FAR), (FAR, FAR, FAR)])
@pytest.mark.parametrize("stream", ["cpu", FAR])
def test_a_report_takes_its_inputs_from_any_device(shape: Any, places: Any, stream: Any) -> None:
    g = seeded()
    sets = [torch.randn(n, *shape, generator=g) for n in (80, 200, 120)]
    labels = [(x.flatten(1)[:, 0] > 0).long() for x in sets]
    a, b, c = (x.to(place) for x, place in zip(sets, places, strict=True))
    found = report(
        a, b, c, torch.Generator(stream).manual_seed(0), labels=labels[0], train_labels=labels[1],
        heldout_labels=labels[2], repeats=3,
    )  # fmt: skip
    assert all(math.isfinite(score.value) for score in found.rows.values())
    if stream == "cpu":  # the same draws: the same distances
        a, b, c = sets
        expected = report(
            a, b, c, seeded(), labels=labels[0], train_labels=labels[1], heldout_labels=labels[2], repeats=3
        )
        for name in ("sliced-wasserstein", "energy-distance", "memorisation"):
            assert found.rows[name].value == pytest.approx(expected.rows[name].value, rel=1e-3, abs=1e-4)
