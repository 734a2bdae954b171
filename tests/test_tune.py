"""What is tuned is judged on what it was not fitted to, against the end of a fine solve, and kept only if better."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ornstein.core.grids import times
from ornstein.distill.grid import best_grid
from ornstein.distill.solver import endpoint_error, endpoints, fit_endpoint, starting_noise
from ornstein.errors import InputError
from ornstein.experiment import tune as room
from ornstein.experiment.build import build_stepper, load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import read_tuned
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.experiment.tune import tune, tune_endpoint
from ornstein.objectives.measured import step_costs, x0_errors
from ornstein.samplers.exponential import DPMpp2M
from ornstein.samplers.tuned import as_tuned

STEPS = 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of points; each test keeps what it fits in `tuned.yaml` of it."""
    folder: Path = tmp_path_factory.mktemp("tune") / "moons"
    few = ["net={name: mlp, width: 16, depth: 1}", "training.steps=40", "training.cpu=true", "sampling.preview=0"]
    for _ in train(Experiment.read("moons", [*few, "data.count=1000"]), folder, draws=False):
        pass
    return folder


@pytest.fixture
def run(trained: Path) -> Run:
    (trained / "tuned.yaml").unlink(missing_ok=True)
    return Run.load(trained)


def test_a_grid_is_chosen_on_training_data_and_its_bits_are_of_held_out_data(run: Run) -> None:
    found = tune(run, STEPS, levels=20, count=100)
    data, process = load_data(run.experiment), run.denoiser.process

    def costs(part: Any, given: Any) -> Any:
        x0 = run.transform.forward(part[:100])
        errors = x0_errors(run.denoiser, x0, condition=given[:100], steps=20, seed=0)
        return errors.times, step_costs(process, errors, "small")

    taught, unseen = (data.train, data.train_condition), (data.test, data.test_condition)
    levels, on_training = costs(*taught)
    chosen, _ = best_grid(on_training, STEPS)
    assert found.grid == tuple(levels[chosen].tolist())

    def bits(half: Any, grid: Any) -> float:
        at, prices = costs(*half)
        index = (at[None] - torch.tensor(grid)[:, None]).abs().argmin(1).unique()
        total = prices[index[0], index[0]] + prices[index[:-1], index[1:]].sum()
        return float(total) / (2 * torch.tensor(2.0).log().item())

    others: dict[str, Any] = {"tuned": found.grid}
    others |= {name: times(process, STEPS, name, run.denoiser.unit).tolist() for name in found.even}
    for name, grid in others.items():
        said = found.bits if name == "tuned" else found.even[name]
        assert said == pytest.approx(bits(unseen, grid), rel=1e-6)
        assert said != pytest.approx(bits(taught, grid), rel=1e-4)


def test_a_solver_is_judged_on_noise_that_it_was_not_fitted_to_at_the_ends_of_a_thousand_steps(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, judged = [], []

    def fitting(denoiser: Any, shape: Any, steps: Any, **options: Any) -> Any:
        fitted.append(starting_noise(denoiser, (options["count"], *shape), options["seed"]))
        return fit_endpoint(denoiser, shape, steps, **options)

    def judging(denoiser: Any, x: Any, ends: Any, *rest: Any, **options: Any) -> Any:
        judged.append((x, ends))
        return endpoint_error(denoiser, x, ends, *rest, **options)

    monkeypatch.setattr(room, "fit_endpoint", fitting)
    monkeypatch.setattr(room, "endpoint_error", judging)
    for seed in (0, 1):
        tune_endpoint(run, STEPS, count=32, fresh=16, rounds=10, seed=seed)
    for x, ends in judged:
        assert not any(bool((x[:, None] == noise).flatten(2).all(2).any()) for noise in fitted)
        assert torch.equal(ends, judged[0][1]) == torch.equal(x, judged[0][0])
    x, ends = judged[0]
    given = run.examples(len(x))
    assert torch.equal(ends, endpoints(run.denoiser, x, steps=1000, condition=given))
    assert not torch.equal(ends, endpoints(run.denoiser, x, steps=200, condition=given))


def test_a_solver_that_is_a_little_worse_than_the_runs_own_is_not_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser, own, given = run.denoiser, run.experiment.sampling, run.examples(64)
    x = starting_noise(denoiser, (64, 2), 0)
    ends = endpoints(denoiser, x, steps=200, condition=given)
    grid = times(denoiser.process, STEPS, "flow", denoiser.unit)
    worse = as_tuned(DPMpp2M(), denoiser.process, grid, denoiser.sigma_data)

    def error(stepper: Any, grid: Any) -> float:
        return endpoint_error(denoiser, x, ends, stepper, grid, calls=STEPS, condition=given).value

    mine = error(build_stepper(own.stepper), own.grid)
    assert mine < error(worse, None) < 50 * mine
    asked: dict[str, Any] = {}
    monkeypatch.setattr(room, "fit_endpoint", lambda *_, **options: asked.update(options) or worse)
    with pytest.raises(InputError, match="not kept"):
        tune_endpoint(run, STEPS, count=32, fresh=64, rounds=3, reference=200, seed=5, progress=print)
    # fitted as asked, to trajectories a fifth as fine, of other noise than judges
    assert {key: asked[key] for key in ("count", "rounds", "teacher_steps", "seed", "progress")} == {
        "count": 32, "rounds": 3, "teacher_steps": 40, "seed": 11, "progress": print}  # fmt: skip
    assert not read_tuned(run.folder)
