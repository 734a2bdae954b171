"""Evaluation: which half of the data stands where, what the seed moves, and what is measured at all."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sure import there

import ornstein
from ornstein.core.clocks import VP
from ornstein.core.exact import ExactDenoiser, GaussianMixture
from ornstein.core.learner import Problem
from ornstein.data import Dataset
from ornstein.data.transform import Affine
from ornstein.experiment import evaluate as room
from ornstein.experiment import pictures
from ornstein.experiment.evaluate import evaluate
from ornstein.experiment.learner import Denoising
from ornstein.experiment.run import Run
from ornstein.experiment.watch import judgement
from ornstein.metrics import Metric, compare, memorisation, report


def seeded(seed: Any = 0) -> Any:
    return torch.Generator().manual_seed(seed)


# --- the two halves


@dataclasses.dataclass(frozen=True)
class Tells(Metric):
    """Which sets it was given, from sets that are known by their value: 10 x + y."""

    def __call__(self, x: Any, y: Any, generator: Any) -> Any:
        return 10 * float(x.mean()) + float(y.mean())


@dataclasses.dataclass(frozen=True)
class TellsTrain(Tells):
    fixed = "train"


def test_the_floor_is_of_training_against_held_out_data_and_of_held_out_against_training_for_copies() -> None:
    samples, train, heldout = (torch.full((40, 1), value) for value in (3.0, 1.0, 2.0))
    score = compare(Tells(), samples, train, heldout, seeded())
    assert (score.value, score.floor) == (32, 12)
    score = compare(TellsTrain(), samples, train, heldout, seeded())
    assert (score.value, score.floor) == (31, 21)


def test_a_report_gives_every_measure_the_halves_in_their_places() -> None:
    # training data about 0, held-out data 4 away: which half is where decides each figure
    g = seeded()
    train, heldout = torch.randn(400, 2, generator=g), torch.randn(300, 2, generator=g) + 4
    like_train, like_heldout = torch.randn(200, 2, generator=g), torch.randn(200, 2, generator=g) + 4
    seen = ["frechet", "kernel"]  # what reads features; the others would say the same again
    every = [*seen, "sliced-wasserstein", "energy-distance", "mmd", "c2st"]
    for features, names in ((None, every), (lambda x: torch.cat([x, x**2], 1), seen)):
        far, near = (report(x, train, heldout, seeded(), features=features, metrics=names, repeats=3).rows
                     for x in (like_train, like_heldout))  # fmt: skip
        for name in names:
            assert far[name].ratio == pytest.approx(1, abs=0.2), name  # as far as the training data are
            assert near[name].value < 0.6 * near[name].floor, name  # against the held-out ones it is near
        near, far = (
            report(x, train, heldout, seeded(), features=features, metrics=["precision", "recall"], repeats=3).rows
            for x in (like_heldout, like_train)
        )
        for name in near:
            assert near[name].value > 0.8 > 2 * far[name].value
            assert near[name].floor < 0.4
    found = report(like_train, train, heldout, seeded(), metrics=["memorisation"], repeats=3)
    assert (
        found.rows["memorisation"].floor > 10 * found.rows["memorisation"].value
    )  # held-out data lie far from training
    assert report(train, train, heldout, seeded(), metrics=["memorisation"]).near_copies == 1
    assert there(report(heldout, train, heldout, seeded(), metrics=["memorisation"]).near_copies) < 0.05
    assert memorisation(train, train, heldout).share == 1


def test_the_classifier_learns_from_the_training_half_and_is_judged_on_the_other() -> None:
    g = seeded()
    train, heldout, samples = (torch.randn(n, 2, generator=g) for n in (600, 300, 300))

    def right(x: torch.Tensor) -> torch.Tensor:
        return (x[:, 0] > 0).long()

    result = report(
        samples, train, heldout, seeded(), labels=right(samples), train_labels=right(train),
        heldout_labels=1 - right(heldout), metrics=[],
    ).rows["class-agreement"]  # fmt: skip
    assert result.value > 0.9  # what the training half says
    assert result.floor < 0.1  # judged where every label says the opposite


def test_the_held_out_error_is_that_of_the_held_out_half() -> None:
    g = seeded()
    train, test = torch.randn(400, 1, generator=g).double(), 6 + 0.5 * torch.randn(300, 1, generator=g).double()
    data = Dataset("halves", train.float(), test.float(), {}, "vector", Affine())

    def error(mean: Any, std: Any) -> Any:
        law = GaussianMixture(torch.ones(1), torch.tensor([[mean]]), torch.tensor([std**2]))
        learner = Denoising(Problem(VP(), "v", lambda *_: torch.zeros(1), (1,)))
        run: Any = SimpleNamespace(learner=learner, model=ExactDenoiser(law, VP()), transform=data.transform)
        return judgement(run, data).found

    of_test, of_train = error(6.0, 0.5), error(0.0, 1.0)
    assert sum(of_test) < 0.2 * sum(of_train)
    assert max(of_test) == pytest.approx(0.25, rel=0.25)  # all that is unknown at full noise: the variance
    assert max(of_train) > 20  # the other half's model is 6 off


# --- a run


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Any:
    shutil.copytree(run, tmp_path / "digits")
    return ornstein.load(tmp_path / "digits")


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of points, whose report fits no classifier of pictures."""
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.train import train

    folder = tmp_path_factory.mktemp("points") / "moons"
    few = [
        "net={name: mlp, width: 16, depth: 1}",
        "training.steps=20",
        "training.cpu=true",
        "sampling.preview=4",
        "data.count=1000",
    ]
    for _ in train(Experiment.read("moons", few), folder, draws=False):
        pass
    return ornstein.load(folder)


@pytest.mark.usefixtures("brief_reports")
def test_the_seed_moves_the_samples_and_the_same_seed_says_the_same(points: Any) -> None:
    copied = points

    def figures(seed: Any) -> Any:
        found = there(evaluate(copied, n=60, seed=seed, steps=2, page=False))
        assert found.drawn["seed"] == seed
        kept = json.loads((copied.folder / "evaluation.json").read_text())
        assert kept["drawn"]["seed"] == seed
        return kept["rows"], (copied.folder / "evaluation.png").read_bytes()

    first, again, other = figures(3), figures(3), figures(4)
    assert first == again
    assert first[1] != other[1]
    for name in ("sliced-wasserstein", "energy-distance", "frechet", "memorisation"):
        assert first[0][name]["value"] != other[0][name]["value"], name  # other samples
        assert first[0][name]["floor"] != other[0][name]["floor"], name  # and other subsets of the real data


@pytest.mark.usefixtures("brief_reports")
def test_what_is_measured_has_the_values_of_the_data(copied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def spied(samples: torch.Tensor, *rest: Any, **how: Any) -> Any:
        seen.append(samples)
        return report(samples, *rest, **how)

    monkeypatch.setattr(room, "report", spied)
    evaluate(copied, n=20, steps=2, page=False)  # with the seed of other tests, whose classifier it then is
    assert torch.equal(seen[0], copied.sample(20, seed=0, steps=2, label=copied.every_class(20)).float())
    assert torch.equal(seen[0], seen[0].round().clamp(0, 16))  # digits are whole numbers from 0 to 16
    loose = copied.sample(20, seed=0, steps=2, label=copied.every_class(20), raw=True)
    assert not torch.equal(loose, loose.round())


@pytest.mark.usefixtures("brief_reports")
def test_real_points_are_taken_from_all_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # sorted data: the first rows are of one kind
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.train import train

    x = torch.linspace(-1, 1, 600)[:, None].repeat(1, 2)
    np.save(tmp_path / "sorted.npy", x.numpy())
    few = [f"data.path={tmp_path / 'sorted.npy'}", "net={name: mlp, width: 16, depth: 1}", "training.steps=2",
           "training.validate_every=2", "training.cpu=true", "sampling.preview=4"]  # fmt: skip
    shown: list[Any] = []
    draw = pictures.draw

    def spied(*given: Any, real: Any = None, **how: Any) -> None:
        shown.append(real)
        draw(*given, real=real, **how)

    monkeypatch.setattr(pictures, "draw", spied)
    for _ in train(Experiment.read("array", few), tmp_path / "run"):
        pass
    evaluate(Run.load(tmp_path / "run"), n=60, steps=2, page=False)
    for real in (shown[0], shown[-1]):
        assert real[:, 0].min() < -0.8
        assert real[:, 0].max() > 0.8
    assert len(shown[-1]) == 60
