"""The floor, the report and the classifier: read beside real data, on scikit-learn's digits."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sure import there

from ornstein.errors import InputError
from ornstein.metrics import (
    METRICS,
    EnergyDistance,
    Memorisation,
    Report,
    SlicedWasserstein,
    class_agreement,
    compare,
    fit_classifier,
    report,
)
from ornstein.metrics.floor import Score, lines


def seeded(seed: Any = 0) -> Any:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits() -> Any:
    """Images (N, 1, 8, 8) in 0..16 and labels, split 1,437 to 360."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=seeded())
    x, y = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8)[order], torch.tensor(labels)[order]
    return x[:1437], y[:1437], x[1437:], y[1437:]


@pytest.fixture(scope="module")
def classifier(digits: Any) -> Any:
    return fit_classifier(digits[0], digits[1], generator=seeded(), steps=400)


# --- the floor


@pytest.mark.parametrize("metric", [SlicedWasserstein(16), EnergyDistance(), Memorisation()])
def test_a_perfect_model_is_one_more_draw_from_the_floor(metric: Any) -> None:
    # the value's place in the floor, in spreads, is centred, about one wide, and called by the first word
    g = seeded()
    places, words = [], []
    for _ in range(30):
        train, heldout, samples = (torch.randn(n, 3, generator=g) for n in (500, 200, 120))
        score = compare(metric, samples, train, heldout, g)
        floor = math.sqrt(max(score.floor**2 - score.spread**2, 0)) if metric == EnergyDistance() else score.floor
        places.append((score.value - floor) / score.spread)
        words.append(score.verdict)
    assert words.count(metric.words[0]) >= 24
    if metric != EnergyDistance():  # the sign of its floor is lost in the root mean square
        assert abs(np.mean(places)) < 4 * np.std(places) / math.sqrt(30)
        assert 0.5 < np.std(places) < 2


def test_floor_uses_sets_of_equal_size() -> None:
    g = seeded()
    train, heldout = torch.randn(400, 2, generator=g), torch.randn(300, 2, generator=g)
    sizes = [compare(SlicedWasserstein(8), train[:n], train, heldout, g).size for n in (50, 200, 390)]
    assert sizes == [50, 200, 200]
    assert compare(SlicedWasserstein(8), train, train, heldout, g, most=30).size == 30
    # a small set of samples is not blamed for being small
    few = compare(SlicedWasserstein(64), torch.randn(20, 2, generator=g), train, heldout, g)
    many = compare(SlicedWasserstein(64), torch.randn(200, 2, generator=g), train, heldout, g)
    assert few.value > 1.5 * many.value
    assert few.ratio == pytest.approx(1, abs=0.6)


def test_verdicts_follow_the_distance() -> None:
    g = seeded()
    train, heldout, samples = (torch.randn(n, 2, generator=g) for n in (2000, 500, 500))
    metric = SlicedWasserstein(64)
    scores = [compare(metric, samples + shift, train, heldout, g) for shift in (0, 0.13, 1.0)]
    assert [score.verdict for score in scores] == ["matches", "close", "differs"]
    assert scores[1].ratio < 1.5 < scores[2].ratio
    assert scores[2].value == pytest.approx(1, rel=0.1)
    copied = [compare(Memorisation(), train[:300] + noise, train, heldout, g).verdict for noise in (0, 1e-3)]
    assert copied == ["too near", "too near"]


def test_too_little_data_for_a_floor_is_said() -> None:
    x = torch.randn(9, 2, generator=seeded())
    with pytest.raises(InputError, match="heldout has 3 points"):
        compare(EnergyDistance(), x, x, x[:3], seeded())
    with pytest.raises(InputError, match="repeats=1"):
        compare(EnergyDistance(), x, x, x, seeded(), repeats=1)
    with pytest.raises(InputError, match="did you mean 'energy-distance'"):
        report(x, x, x, seeded(), metrics=["energy-dist"])
    with pytest.raises(InputError, match="train_labels"):
        report(x, x, x, seeded(), labels=torch.zeros(9, dtype=torch.long), metrics=[])


@pytest.mark.usefixtures("brief_reports")
def test_report_on_digits(digits: Any, classifier: Any) -> None:
    train, train_labels, heldout, heldout_labels = digits
    made, seen = train[:400], train[400:]  # real digits that the report is not told to be real
    labels = train_labels[:400].clone()
    labels[:40] = (labels[:40] + 1) % 10  # a tenth drawn as the wrong class
    state = torch.get_rng_state()
    result = report(
        made, seen, heldout, seeded(), labels=labels, heldout_labels=heldout_labels, classifier=classifier, repeats=5
    )
    assert torch.equal(state, torch.get_rng_state())
    assert isinstance(result, Report)
    assert list(result.rows) == ["class-agreement", *METRICS]
    assert result.rows["class-agreement"].value == pytest.approx(0.9, abs=0.01)
    assert result.rows["class-agreement"].verdict == "differs"
    assert result.rows["memorisation"].verdict == "fresh"
    assert result.rows["memorisation"].ratio == pytest.approx(1, abs=0.1)
    assert result.rows["sliced-wasserstein"].ratio < 1.5
    assert {name for name, score in result.rows.items() if score.verdict == "differs"} == {"class-agreement"}
    of_features = {"frechet", "kernel", "precision", "recall", "density", "coverage"}
    assert {n for n, s in result.rows.items() if s.on == "features"} == of_features

    again = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert again["rows"]["frechet"]["value"] == result.rows["frechet"].value
    assert again["counts"] == {"samples": 400, "train": 1037, "heldout": 360}
    lines = result.table().splitlines()
    assert lines[1].split()[0] == "class-agreement"
    assert all(name in result.table() for name in METRICS)
    assert max(map(len, lines)) <= 115


@pytest.mark.usefixtures("brief_reports")
def test_report_catches_a_model_that_copies_and_one_that_blurs(digits: Any, classifier: Any) -> None:
    train, _, heldout, _ = digits
    names = ["sliced-wasserstein", "c2st", "frechet", "precision", "memorisation"]
    copies = report(train[:400], train, heldout, seeded(), classifier=classifier, metrics=names, repeats=4)
    assert copies.rows["sliced-wasserstein"].verdict == "matches"  # no distance sees copies
    assert copies.rows["memorisation"].ratio == 0
    assert copies.rows["memorisation"].verdict == "copies"
    assert copies.near_copies == 1
    assert copies.to_dict()["copies"] == 1
    blurred = torch.nn.functional.avg_pool2d(train[:400], 3, 1, 1)
    blurs = report(blurred, train[400:], heldout, seeded(), classifier=classifier, metrics=names, repeats=4)
    assert {blurs.rows[name].verdict for name in names[:4]} == {"differs"}


def test_near_is_not_copied() -> None:
    """Samples that keep to the middle, as blurred ones do, lie near all training examples, and copies near one."""
    g = seeded()
    train, heldout, fresh = (torch.randn(n, 1, 5, 5, generator=g) for n in (1000, 500, 400))
    sets = {
        "fresh": fresh,
        "copies": train[:400] + 1e-3 * torch.randn(400, 1, 5, 5, generator=g),
        "some": torch.cat([train[:30], fresh[30:]]),
        "blurred": torch.nn.functional.avg_pool2d(torch.nn.functional.pad(fresh, [1] * 4, "reflect"), 3, 1),
        "shrunk": 0.5 * fresh,
    }
    found = {name: report(x, train, heldout, seeded(), metrics=["memorisation"]) for name, x in sets.items()}
    verdicts = {name: each.rows["memorisation"].verdict for name, each in found.items()}
    copied = {"copies": "copies", "some": "copies"}
    assert verdicts == {"fresh": "fresh", **copied, "blurred": "too near", "shrunk": "too near"}
    assert there(found["blurred"].copying).ratio < 0.9
    assert there(found["blurred"].near_copies) > 0.5  # nearer than 99 % of honest draws, and yet no copy
    assert there(found["blurred"].copying).copies == 0
    assert "7.5% by one alone, three times closer than to the next, as copies do (held-out data: 0.0%)." in (
        found["some"].table()
    )


@pytest.mark.parametrize("scale", [1e30, 1.0, 1e-30])
@pytest.mark.parametrize("far", [1.0, 1e7, 1e20, 1e30])
@pytest.mark.usefixtures("brief_reports")
def test_a_report_is_json_whatever_the_numbers_are(scale: float, far: float) -> None:
    g = seeded()
    x, y, z = (scale * torch.randn(60, 3, generator=g).clamp(-4, 4) for _ in range(3))
    result = report((far * x).clamp(-3e38, 3e38), y, z, seeded(), repeats=2)
    again = json.loads(json.dumps(result.to_dict(), allow_nan=False))["rows"]
    for name, score in result.rows.items():
        for key in ("value", "floor", "spread", "ratio"):
            number = getattr(score, key)
            assert again[name][key] == (number if math.isfinite(number) else None)
    if scale == 1 and far == 1e30:
        assert any(row["value"] is None for row in again.values())  # the case is met
    if far > 1:
        assert {again[name]["verdict"] for name in ("energy-distance", "sliced-wasserstein", "c2st")} == {"differs"}


def test_report_fits_its_own_classifier_when_given_labels() -> None:
    g = seeded()
    labels = torch.randint(0, 2, (600,), generator=g)
    x = (torch.randn(600, 2, generator=g) + 6 * labels[:, None])[:, None]  # a series: of a table no features are made
    result = report(
        x[:100],
        x[100:400],
        x[400:],
        g,
        labels=labels[:100],
        train_labels=labels[100:400],
        heldout_labels=labels[400:],
        metrics=["precision"],
    )
    assert result.rows["class-agreement"].value > 0.98
    assert result.rows["class-agreement"].verdict == "matches"
    assert result.rows["precision"].on == "features"
    assert result.near_copies is None  # not asked for, so not searched for
    assert there(result.classifier).accuracy(x[400:], labels[400:]) == result.rows["class-agreement"].floor


# --- the classifier


def test_classifier_reads_held_out_digits(digits: Any, classifier: Any) -> None:
    train, train_labels, heldout, heldout_labels = digits
    assert classifier.accuracy(heldout, heldout_labels) >= 0.98
    assert class_agreement(classifier, heldout, (heldout_labels + 1) % 10) < 0.02
    features = classifier.features(heldout)
    assert features.shape == (360, 64)
    # the features carry the classes: a nearest neighbour among them is as good as the network
    neighbour = torch.cdist(features, classifier.features(train)).argmin(dim=1)
    assert (train_labels[neighbour] == heldout_labels).double().mean() >= 0.98
    # a point's features do not depend on what else is in the batch
    torch.testing.assert_close(classifier.features(heldout[:3]), features[:3], rtol=1e-4, atol=1e-4)


def test_classifier_is_its_seed_and_knows_no_units(digits: Any) -> None:
    train, labels, heldout, _ = digits
    fits = [
        fit_classifier(scale * train[:300] + offset, labels[:300], generator=seeded(seed), steps=30)
        for scale, offset, seed in ((1, 0, 0), (1, 0, 0), (1, 0, 1), (0.25, -2, 0))
    ]
    first, same, other, rescaled = (
        fit.logits(scale * heldout + offset)
        for fit, scale, offset in zip(fits, (1, 1, 1, 0.25), (0, 0, 0, -2), strict=True)
    )
    assert torch.equal(first, same)
    assert not torch.allclose(first, other, atol=0.1)
    torch.testing.assert_close(first, rescaled, rtol=1e-2, atol=1e-2)


def test_classifier_of_vectors_is_near_the_best_there_is() -> None:
    # three Gaussians at the corners of a triangle: the best rule is the nearest corner
    g = seeded()
    corners = torch.tensor([[0.0, 0.0], [2.5, 0.0], [0.0, 2.5]])
    labels = torch.randint(0, 3, (5000,), generator=g)
    x = (corners[labels] + torch.randn(5000, 2, generator=g)) * torch.tensor([1.0, 1000.0])  # unequal units
    best = (torch.cdist(x / torch.tensor([1.0, 1000.0]), corners).argmin(dim=1) == labels)[1000:].double().mean()
    fitted = fit_classifier(x[:1000], labels[:1000], generator=g, steps=300)
    assert fitted.accuracy(x[1000:], labels[1000:]) > best - 0.02


@pytest.mark.parametrize("shape", [(3, 17, 40), (1, 5, 3), (2, 66, 33)])
def test_classifier_takes_images_of_any_size(shape: Any) -> None:
    g = seeded()
    labels = torch.arange(120) % 2
    x = torch.randn(120, *shape, generator=g)
    x[:, 0, : shape[1] // 2] += 2.5 * labels[:, None, None]
    fitted = fit_classifier(x[:80], labels[:80], generator=g, steps=40, batch=32)
    assert fitted.accuracy(x[80:], labels[80:]) > 0.9


def test_classifier_says_what_is_wrong() -> None:
    x = torch.randn(9, 2, generator=seeded())
    for labels, said in (
        (torch.zeros(8, dtype=torch.long), "shape \\(8,\\)"),
        (torch.zeros(9), "integers from 0"),
        (torch.zeros(9, dtype=torch.long) - 1, "minimum -1"),
        (torch.zeros(9, dtype=torch.long), "one class only"),
    ):
        with pytest.raises(InputError, match=said):
            fit_classifier(x, labels, generator=seeded())
    fitted = fit_classifier(x, torch.arange(9) % 2, generator=seeded(), steps=1)
    with pytest.raises(InputError, match="trained on \\(2,\\)"):
        fitted.predict(torch.zeros(4, 3))


def test_figures_for_people_have_no_exponent_below_ten_million() -> None:
    _, line, far = lines({"x": Score(5430.4, 3086.0, 16.2, 1.76, "fresh", 10), "y": Score(3e8, 0.01, 9.7, 1, "", 10)})
    assert line.split() == ["x", "5,430", "3,086", "±", "16", "1.76", "fresh", "data"]
    assert far.split()[1:5] == ["3e+08", "0.01", "±", "10"]


@pytest.mark.slow
def test_classifier_reads_mnist(real_data: Path) -> None:
    with np.load(real_data / "mnist.npz") as data:
        x, y, x_test, y_test = (torch.tensor(data[k]) for k in ("x_train", "y_train", "x_test", "y_test"))
    fitted = fit_classifier(x[:, None].float(), y, generator=seeded())
    assert fitted.accuracy(x_test[:, None].float(), y_test) >= 0.985
