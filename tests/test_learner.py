"""The one door for every kind of model: a new kind is one class and one line, and all else follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sure import Cli

import ornstein
from ornstein.core.clocks import VP
from ornstein.core.denoiser import FunctionDenoiser, NetDenoiser
from ornstein.core.grids import ends
from ornstein.core.learner import Learner, Problem
from ornstein.errors import InputError
from ornstein.experiment import train as training
from ornstein.experiment.build import load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.learner import LEARNERS
from ornstein.experiment.run import Run
from ornstein.experiment.settle import settle
from ornstein.experiment.watch import judgement


@dataclass(frozen=True)
class SignEntropy:
    """The cross-entropy of each sign of x_0 given x_t, at times drawn evenly."""

    def __call__(self, model: Any, x0: Any, condition: Any, generator: Any) -> Any:
        low, high = ends(model.process)
        t = low + (high - low) * torch.rand(len(x0), generator=generator, dtype=torch.float64)
        level = model.process.at(t, like=x0)
        noisy = level.noised(x0, torch.randn(x0.shape, generator=generator))
        share = 0.5 + 0.5 * model(noisy, level, condition).x0 / model.sigma_data
        wanted = (x0 > 0).to(share)
        return F.binary_cross_entropy(share.clamp(1e-6, 1 - 1e-6), wanted, reduction="none").flatten(1).mean(1)


class SignDenoiser(NetDenoiser):
    """x0 = s tanh(F): the posterior mean of signs, whatever the reading of the network beneath."""

    def predict(self, x: Any, level: Any, condition: Any) -> Any:
        read = super().predict(x, level, condition)
        return type(read)(self.sigma_data * torch.tanh(read.x0), x, level)


@dataclass(frozen=True, eq=False)
class Signs(Learner):
    """Data of two values, -s and s, by the probability of each sign."""

    readings: ClassVar[Mapping[str, str]] = {"sign": "Half the log odds of the positive sign."}
    objectives: ClassVar[Mapping[str, type]] = {"sign-entropy": SignEntropy}

    def model(self, net: Any) -> Any:
        return SignDenoiser(net, self.problem.process, "x0", self.problem.sigma_data)


def test_what_is_watched_while_training_is_read_and_not_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    def kept(*of: Any) -> Any:
        opened.append(Run(*of))
        return opened[-1]

    monkeypatch.setattr(training, "Run", kept)
    few = ["data.count=100", "training.steps=1", "training.cpu=true", "net.width=4", "sampling.steps=2"]
    for _ in training.train(
        Experiment.read("moons", [*few, "training.precision=float32"]), tmp_path / "run", draws=False
    ):
        pass
    assert not any(weight.requires_grad for weight in opened[0].model.net.parameters())


def test_what_a_new_kind_does_not_say_of_itself_is_no() -> None:
    plain = Signs(Problem(VP(), "sign", SignEntropy(), (2,), 1.0))
    assert (plain.gaps, plain.twice) == (False, False)


@pytest.mark.usefixtures("brief_reports")
def test_a_new_kind_is_one_class_and_one_line(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two signs that agree nine times in ten: listed, trained, resumed, drawn, measured."""
    monkeypatch.setitem(LEARNERS, "signs", Signs)  # the line
    g = np.random.default_rng(0)
    first = np.where(g.random(4000) < 0.5, 1.0, -1.0)
    rows = np.stack([first, np.where(g.random(4000) < 0.9, first, -first)], 1)
    np.save(tmp_path / "signs.npy", (rows * [2.0, 0.5]).astype("float32"))
    run = tmp_path / "run"

    assert "signs" in cli("list", "learners").out
    assert "sign " in cli("list", "readings").out
    assert "sign-entropy" in cli("list", "objectives").out
    words = ["predicts=sign", "objective=sign-entropy", f"data.path={tmp_path / 'signs.npy'}"]
    words += ["net={name: mlp, width: 32, depth: 2}", "training.steps=150", "training.batch_size=128",
              "sampling.preview=0"]  # fmt: skip
    answer = cli("train", "array", *words, "training.lr=0.003", "training.ema=[0.1]", "sampling.ema=0.1", "--out", run)
    assert answer.code == 0, answer
    assert "learner:\n  name: signs" in (run / "experiment.yaml").read_text()
    answer = cli("train", "--resume", run, "training.steps=300", "sampling.preview=64")
    assert answer.code == 0, answer
    assert "300 of 300 steps" in cli("info", run).out
    answer = cli("evaluate", run, "-n", 200, "--likelihood", 0)  # along a path this steep it takes as long as all else
    assert answer.code == 0, answer

    opened = ornstein.load(run)
    assert opened.experiment.learner == {"name": "signs"}
    drawn = opened.sample(1000, seed=0)
    found = judgement(opened, load_data(opened.experiment))
    middle = min(range(len(found.ratios)), key=lambda i: abs(found.ratios[i] - 0.7))
    assert found.found[middle] < 0.75 * found.known[middle]  # signs are known sooner than a Gaussian's values
    agree = ((drawn[:, 0] > 0) == (drawn[:, 1] > 0)).double().mean()
    assert agree > 0.75  # of independent signs it would be 0.5
    assert 0.25 < (drawn[:, 0] > 0).double().mean() < 0.75
    off = drawn.abs().sub(torch.tensor([2.0, 0.5])).abs()
    assert (off < 0.2).double().mean() > 0.97  # hardly anything between the two values


def test_what_is_implied_is_written_down_and_implied_anew_when_it_changes(tmp_path: Path) -> None:
    meant = {
        "denoiser": [],
        "variance": ["objective=hybrid", "process=betas"],
        "energy": ["predicts=energy"],
        "classifier": ["objective=classifier"],
    }
    for name, words in meant.items():
        written = tmp_path / f"{name}.yaml"
        written.write_text(Experiment.read("digits", words).to_yaml())
        assert f"learner:\n  name: {name}\n" in written.read_text()
        assert Experiment.read(written).learner == {"name": name}
        for other, changes in meant.items():
            if other != name and changes:
                back = ["predicts=v"] if "predicts=energy" not in changes else []
                assert Experiment.read(written, [*back, "objective=v", *changes]).learner == {"name": other}


def test_a_learner_takes_its_own_objectives_and_readings() -> None:
    for words, said in (
        (["learner=energy"], "predicts='v' does not go with learner='energy'"),
        (["learner=classifier"], "objective='v' does not teach learner='classifier'"),
        (["objective=recovery"], "it teaches 'energy', with predicts=energy"),
        (["learner=nothing"], "learner='nothing' is not known"),
    ):
        with pytest.raises(InputError, match=said):
            Experiment.read("digits", words)


def test_settling_leaves_nothing_open(tmp_path: Path) -> None:
    words = ["preset=ncsnv2", "training.precision=auto", "training.batch_size=8", "net.channels=8"]
    experiment = Experiment.read("digits", words)
    settled = settle(experiment, load_data(experiment))
    assert settled.experiment.process["name"] == "ladder"
    assert settled.experiment.training.precision != "auto"
    assert settled.experiment.sampling.stepper["step_size"] is not None
    assert {"sigma_max", "step_size", "training.precision"} <= set(settled.reasons)
    again = settle(settled.experiment, load_data(experiment))
    assert again.experiment == settled.experiment  # what is settled stays so
    assert again.reasons == {}


def test_the_judgement_of_a_denoiser_is_its_error_in_units_of_the_best_linear_one() -> None:
    """Of the best linear denoiser of white data it is 1, of a perfect one 0."""

    class Plain(Learner):
        """A learner of nothing."""

        def model(self, net: Any) -> Any:
            return net

    x0 = torch.randn(256, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = Problem(VP(), "v", lambda *_: torch.zeros(1), (3,))
    linear = FunctionDenoiser(lambda x, level, _: level.alpha * x / (level.alpha**2 + level.sigma**2), VP())
    perfect = FunctionDenoiser(lambda x, level, _: x0, VP())
    assert Plain(problem).judge(linear, x0, None).value == pytest.approx(1, abs=0.05)
    assert Plain(problem).judge(perfect, x0, None).value == 0


@pytest.mark.parametrize("name", LEARNERS)
def test_shares_are_drawn_on_an_even_scale_and_nothing_else_is(name: str) -> None:
    judges = LEARNERS[name].judges
    assert judges.share == judges.found.startswith("share")
