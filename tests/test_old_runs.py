"""Run folders of an older version open, draw, resume and are judged as they were by the code that made them.

What lies in `tests/old`, and what is expected of it, that code made and recorded: see `tests/old_runs.py`. On the
machine where it was recorded all is the same to the bit; another processor adds up in another order, so here it is the
same up to rounding.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import old_runs
import pytest
import yaml
from sure import Cli

from ornstein.experiment.build import load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run

#: of the largest number of an array: what rounding may do in five steps of training, or in thirty of a solver
ROUNDING = 2e-6


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of the folders, and the folder that commands are called from."""
    for run in old_runs.TRAINED:
        shutil.copytree(old_runs.HERE / run, tmp_path / run)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def differences(found: Any, expected: Any) -> dict[str, float]:
    """The largest difference of each array, in units of its largest number."""
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name].shape == expected[name].shape, name
    return {name: float(np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max()) for name in found}


def expected(run: str, kind: str) -> dict[str, Any]:
    """What the old code drew from a run, or made of it."""
    with np.load(old_runs.HERE / f"{run}.npz") as file:
        return {name.removeprefix(f"{kind}/"): file[name] for name in file.files if name.startswith(kind)}


def computed_otherwise(run: Path) -> bool:
    """Whether the data are those of the run up to rounding alone, so that it cannot go on here."""
    then, now = (
        yaml.safe_load((run / "run.yaml").read_text())["data"],
        load_data(Experiment.read(run / "experiment.yaml")),
    )
    assert now.sigma_data == pytest.approx(then["sigma_data"], rel=1e-6)
    return bool(now.fingerprint()["sha256"] != then["sha256"])


@pytest.mark.parametrize("run", [run for run, drawings in old_runs.DRAWN.items() if drawings])
def test_an_old_run_draws_what_it_drew(cli: Cli, runs: Path, run: str) -> None:
    found: dict[str, Any] = {}
    for name in old_runs.DRAWN[run]:
        answer = cli(*old_runs.drawing(run, name, runs / f"{name}.npz"))
        assert answer.code == 0, answer.err
        found[name] = old_runs.drawn(runs / f"{name}.npz")
    off = differences(found, expected(run, "drawn"))
    assert max(off.values()) < ROUNDING, off


@pytest.mark.parametrize("run", old_runs.TRAINED)
def test_an_old_run_goes_on_as_it_went_on(cli: Cli, runs: Path, run: str) -> None:
    """Weights and their average after five more steps, and how the run is judged on held-out data."""
    if computed_otherwise(runs / run):
        pytest.skip(f"the points that {run} learned from are computed, and this processor rounds them otherwise")
    answer = cli(*old_runs.resuming(run), "training.threads=1")
    assert answer.code == 0, answer.err
    off = differences(old_runs.weights(runs / run), expected(run, "resumed"))
    assert max(off.values()) < ROUNDING, off
    assert old_runs.held_out(runs / run) == pytest.approx(float(expected(run, "held_out")["held_out"]), rel=ROUNDING)


def test_what_is_written_anew_keeps_the_unit(runs: Path) -> None:
    """Read, written in today's words and read again, an old experiment is the same; a new one has the data's unit."""
    old = Experiment.read(runs / "digits" / "experiment.yaml")
    assert yaml.safe_load((old_runs.HERE / "digits" / "experiment.yaml").read_text())["version"] == 1
    assert Experiment.read(yaml.safe_load(old.to_yaml())) == old
    assert Run.load(runs / "digits").denoiser.unit == 1.0
    assert Experiment.read("digits").noise_unit is None
