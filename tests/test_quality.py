"""What the presets promise, trained in full. Slow: `make test-slow`."""

from pathlib import Path
from typing import Any

import pytest
from sure import there

from ornstein.experiment.config import Experiment
from ornstein.experiment.evaluate import evaluate
from ornstein.experiment.run import Run
from ornstein.experiment.train import train


def trained(preset: Any, folder: Any) -> Any:
    for _ in train(Experiment.read(preset), folder):
        pass
    return Run.load(folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_digits_are_drawn_as_asked_are_as_good_as_real_and_are_not_copies(tmp_path: Path) -> None:
    rows = there(evaluate(trained("digits", tmp_path / "digits"), n=1000)).report.rows
    assert rows["class-agreement"].value >= 0.97
    assert rows["sliced-wasserstein"].ratio <= 1.5
    assert rows["memorisation"].ratio >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["moons", "swiss-roll", "eight-gaussians", "checkerboard", "pinwheel", "spirals"])
def test_points_are_as_good_as_real(name: Any, tmp_path: Path) -> None:
    rows = there(evaluate(trained(name, tmp_path / name), n=2000)).report.rows
    assert rows["sliced-wasserstein"].ratio <= 1.5
    assert rows["c2st"].value <= 0.55
