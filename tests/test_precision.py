"""Laws of precision: what "auto" takes is what was measured, it is written down, and drawing agrees with float32."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ornstein.core.clocks import VP
from ornstein.core.denoiser import NetDenoiser
from ornstein.errors import InputError
from ornstein.experiment.build import load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import read_folder
from ornstein.experiment.run import Run
from ornstein.experiment.settle import settle
from ornstein.experiment.train import train
from ornstein.training import Training, fit, quickest, quickest_training

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"), [(0.08, 0.01, "bfloat16"), (0.01, 0.08, "float32"), (0.05, 0.049, "float32")]
)
def test_the_quickest_is_taken_where_it_pays(wide: Any, narrow: Any, expected: Any) -> None:
    chosen, why = quickest(lambda precision: time.sleep(wide if precision == "float32" else narrow), CPU)
    assert chosen == expected
    assert "ms in float32" in why


def test_a_measurement_of_training_changes_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    seen = set()

    def loss(net: Any, batch: Any, generator: Any) -> Any:
        out = net(batch)
        seen.add(net[0](batch).dtype)
        return out.float().square().flatten(1).mean(1) + torch.rand(len(batch), generator=generator)

    quickest_training(net, loss, torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), CPU, seed=0)
    assert seen == {torch.float32, torch.bfloat16}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_the_fastest_is_taken_and_the_loop_takes_nothing_unsettled(tmp_path: Path) -> None:
    """The loss sleeps in one type and hardly in the other, so that the choice can be foretold."""

    def loss(net: Any, batch: Any, generator: Any) -> Any:
        out = net(batch[0])
        time.sleep(0.1 if out.dtype == torch.float32 else 0.001)
        return out.float().square().mean(1)

    batch = (torch.randn(8, 2, generator=torch.Generator().manual_seed(0)),)
    assert quickest_training(nn.Linear(2, 2), loss, batch, CPU, seed=0)[0] == "bfloat16"
    auto = Training(steps=3, batch_size=8, precision="auto")
    with pytest.raises(InputError, match=r"training\.precision='auto' is settled before"):
        list(fit(nn.Linear(2, 2), loss, lambda step: batch, auto, tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_run_writes_down_what_it_chose_and_draws_like_float32(tmp_path: Path) -> None:
    words = ["training.steps=30", "training.precision=auto", "training.batch_size=16", "sampling.preview=0"]
    words += ["net.channels=16", "sampling.precision=bfloat16", "training.warmup=5"]
    list(train(Experiment.read("digits", words), tmp_path / "run"))
    experiment, about = read_folder(tmp_path / "run")
    assert experiment.training.precision in ("float32", "bfloat16")
    assert about["reasons"]["training.precision"].startswith(experiment.training.precision)
    run = Run.load(tmp_path / "run")
    assert run.denoiser.precision is None
    assert run.drawing().denoiser.precision == torch.bfloat16
    assert run.drawing("float32").denoiser.precision is None
    assert run.drawing("auto").denoiser.precision in (None, torch.bfloat16)
    exact, rounded = (run.drawing(precision).draw(8, seed=1, steps=10) for precision in ("float32", "bfloat16"))
    error = (exact - rounded).square().mean().sqrt()
    assert 0 < error < 0.02 * exact.square().mean().sqrt()
    with pytest.raises(InputError, match="precision='int8'"):
        run.drawing("int8")


def test_products_are_narrow_and_answers_are_not() -> None:
    seen = []

    class Net(nn.Linear):
        def forward(self, x: Any, *told: Any) -> Any:
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    denoiser = NetDenoiser(Net(3, 3), VP(), precision=torch.bfloat16)
    assert denoiser(torch.randn(2, 3), 0.5).x0.dtype == torch.float32
    assert seen == [torch.bfloat16]


def test_a_classifier_and_chains_stay_in_float32(tmp_path: Path) -> None:
    """A classifier's network answers classes, not images: there is nothing to time; a trial would move the chains."""
    words = ["objective=classifier", "training.steps=2", "net.channels=8", "training.batch_size=8"]
    list(train(Experiment.read("digits", [*words, "sampling.precision=auto"]), tmp_path / "run"))
    run = Run.load(tmp_path / "run")
    assert run.drawing() is run

    words = ["preset=energy-likelihood", "objective.corrections=1", "training.batch_size=16", "training.precision=auto"]
    experiment = Experiment.read("moons", [*words, "objective.start=chains"])
    settled = settle(experiment, load_data(experiment))
    assert settled.experiment.training.precision == "float32"
    assert "chains" in settled.reasons["training.precision"]
    built = settled.built
    fresh = built.learner.memory(built.model, *load_data(experiment).batch(0, 16, 0))
    assert settled.memory
    assert all(torch.equal(value, fresh[name]) for name, value in settled.memory.items())
