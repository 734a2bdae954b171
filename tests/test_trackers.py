"""What is logged reaches the trackers that were asked for; one that fails harms no run."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sure import Cli

import ornstein
from ornstein.training import Log, Training, trackers
from ornstein.training.trackers import Tracker

TINY = ["training.steps=4", "training.validate_every=4", "training.log_every=2", "net.width=16", "sampling.preview=0"]
TINY += ["sampling.steps=2", "training.cpu=true", "data.count=200"]


class Heard:
    """A tracker as accelerate's are, that fails when it is told of a step for the second time."""

    def __init__(self) -> None:
        self.told = list[Any]()

    def log(self, values: dict[str, float], step: int) -> None:
        self.told.append((step, values))
        if len(self.told) == 2:
            raise ConnectionError("the host is gone")

    def finish(self) -> None:
        self.told.append("finish")


def test_a_tracker_that_fails_is_left_and_the_log_goes_on(tmp_path: Path) -> None:
    sound, failing = Heard(), Heard()
    sound.told.append("begin")  # so that its second is its first
    both = [Tracker("sound", sound), Tracker("failing", failing)]
    log = Log(tmp_path, tensorboard=False, trackers=both)
    with pytest.warns(RuntimeWarning, match=r"sound is told nothing more: the host is gone"):
        log.write(1, {"loss": 2.0})
    with pytest.warns(RuntimeWarning, match=r"failing is told nothing more"):
        log.write(2, {"loss": 1.0})
    log.write(3, {"loss": 0.5})
    log.close()
    for tracker in both:
        tracker.finish()
    assert sound.told == ["begin", (1, {"loss": 2.0})]
    assert failing.told == [(1, {"loss": 2.0}), (2, {"loss": 1.0})]
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_what_cannot_be_is_said_before_anything_is_made(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    answer = cli("train", "moons", *TINY, "training.trackers=[wandb,nobody]", "--out", run)
    assert answer.code == 2
    assert "training.trackers='nobody' is not known" in answer.err
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    answer = cli("train", "moons", *TINY, "training.trackers=mlflow", "--out", run)
    assert answer.code == 2
    wanted = (
        "training.trackers='mlflow' needs accelerate and mlflow, not installed here: pip install accelerate mlflow."
    )
    assert wanted in answer.err
    assert not run.exists()
    assert Training(trackers="trackio").trackers == Training(trackers=["trackio"]).trackers == ("trackio",)  # type: ignore[arg-type]


def test_a_run_is_told_to_trackio(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "kept"))  # read as it is imported
    for name in ("accelerate", "trackio"):
        pytest.importorskip(name)
    assert cli("train", "moons", *TINY, "training.trackers=trackio", "--out", tmp_path / "mine").code == 0
    with sqlite3.connect(next((tmp_path / "kept").glob("*.db"))) as opened:
        told = {step: json.loads(values) for step, values in opened.execute("select step, metrics from metrics")}
        (settings,) = opened.execute("select config from configs").fetchone()
    lines = [json.loads(line) for line in (tmp_path / "mine" / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"]: line["loss"] for line in lines} == {step: values["loss"] for step, values in told.items()}
    assert json.loads(settings)["training.steps"] == 4
    assert ornstein.load(tmp_path / "mine").experiment.training.trackers == ("trackio",)
