"""Trainings that go on by themselves: begun, watched, paused and stopped by whoever finds their folder."""

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sure import Cli, there

from ornstein.core.learner import LEVELS
from ornstein.errors import InputError
from ornstein.experiment import background
from ornstein.experiment.config import Experiment
from ornstein.experiment.course import DONE, FAILED, LOG, PREPARING, STOPPED, TRAINING, course, thinned
from ornstein.experiment.folder import held_by, holding, newest_step, read_metrics

SMALL = ["data.count=400", "net.width=16", "training.batch_size=32", "training.log_every=5", "sampling.preview=20"]


def until(true: Callable[[], object], seconds: float = 120) -> None:
    """Wait for a state, for as long as a machine with much to do may need."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_folder_tells_how_its_training_goes(cli: Cli, tmp_path: Path) -> None:
    """From its beginning on, and who trains there is what the lock says and no file."""
    run = tmp_path / "run"
    with holding(run, "training"):
        assert course("run", run).state == PREPARING
    assert held_by(run) is None
    run.mkdir()
    (run / LOG).write_text("data  400 vectors\nornstein: experiment='x' is not known.\n")
    assert (course("run", run).state, course("run", run).said) == (FAILED, "experiment='x' is not known.")
    words = [*SMALL, "training.steps=20", "training.validate_every=20"]
    assert cli("train", "moons", *words, "--out", run).code == 0
    one = course("run", run)
    assert (one.state, one.step, one.steps, one.pictures) == (DONE, 20, 20, [20])
    assert [step for step, _ in one.loss] == [1, 5, 10, 15, 20]
    assert there(one.picture(20)).is_file()
    assert one.picture(15) is None
    for step, held_out in one.held_out:  # the error by noise level is what the held-out error is the mean of
        levels = one.by_noise[int(step)]
        assert len(levels) == LEVELS
        assert levels == sorted(levels)
        assert np.mean([value for _, value in levels]) == pytest.approx(held_out, rel=1e-6)
    with holding(run, "training") as lock:
        assert there(held_by(run))["process"] == os.getpid()
        one = course("run", run)
        assert (one.state, one.left) == (TRAINING, None)
        assert one.said == "All 20 steps are done; what comes after them is under way."
        lock.tell("teaching a critic: 4,096 of 11,700 rows drawn")
        assert course("run", run).said == "All 20 steps are done; teaching a critic: 4,096 of 11,700 rows drawn."
        assert there(held_by(run))["process"] == os.getpid()
        with pytest.raises(InputError, match="is in use"):
            background.resume(run)
        lock.check()  # whoever asked has not disturbed it
    with holding(run, "tuning"):
        assert course("run", run).state == DONE
        with pytest.raises(InputError, match="is not being trained"):
            background.pause(run)
    with pytest.raises(InputError, match="is not being trained"):
        background.stop(run)
    (run / "metrics.jsonl").open("a").write('{"step": 35, "loss": null, "held')  # cut short by a kill
    assert course("run", run).step == 20


def test_a_lock_that_a_killed_one_left_holds_nothing_and_asking_disturbs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".lock").write_text(json.dumps({"doing": "training", "process": os.getpid()}))
    assert held_by(tmp_path) is None
    (tmp_path / ".lock").write_text("no JSON")
    assert held_by(tmp_path) is None
    asking = os.open(tmp_path / ".lock", os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)  # as who asks does, for an instant: until whoever wants to hold it has waited
    monkeypatch.setattr("ornstein.training.lock.time.sleep", lambda seconds: fcntl.flock(asking, fcntl.LOCK_UN))
    with holding(tmp_path, "training"):
        assert there(held_by(tmp_path))["doing"] == "training"
    os.close(asking)


def test_a_training_goes_on_by_itself_and_pausing_saves(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "moons"
    words = background.begin("moons", [*SMALL, "training.steps=1000000", "training.validate_every=1000000"], run)
    assert words[:2] == ["train", "moons"]
    assert words[-2:] == ["--out", str(run)]
    until(lambda: held_by(run) is not None)
    with pytest.raises(InputError, match=r"holds a run|is in use"):
        background.begin("moons", [], run)
    until(lambda: course("run", run).step >= 10)
    process = there(held_by(run))["process"]
    assert os.getsid(process) != os.getsid(0)  # it outlives who began it
    background.pause(run)
    until(lambda: held_by(run) is None)
    one = course("run", run)
    assert one.state == STOPPED
    assert there(newest_step(run)) >= 10
    assert f"saved up to step {newest_step(run):,} of 1,000,000" in one.said
    assert f"--resume {run}" in (run / LOG).read_text()
    assert read_metrics(run)


def test_what_is_given_goes_into_the_folder_by_a_plain_name(tmp_path: Path) -> None:
    odd = tmp_path / "..weird name;$(x).CSV.gz"
    odd.write_bytes(b"x")
    place = background.give(tmp_path / "run", odd)
    assert place == tmp_path / "run" / background.GIVEN / "weird-name-x.csv.gz"
    assert place.read_bytes() == b"x"
    for name in ("", ".", "..", "a/b", "../a", "-rf", "a" * 65, "a\nb", "é"):
        with pytest.raises(InputError, match="must be of up to 64 letters"):
            background.must_be_name(name)
    known = background.at_hand()
    assert {"digits", "moons", "deblur", "quantised-digits"} <= set(known)
    assert not {"mnist", "cifar10", "emoji", "binarised-mnist", "bridge-mnist", "text", "table"} & set(known)
    np.save(tmp_path / "wide.npy", np.zeros((40, 1, 4, 5000), np.uint8))
    assert background.longest_side(Experiment.read(str(tmp_path / "wide.npy"))) == 5000
    assert background.longest_side(Experiment.read("digits")) == 0


def test_a_curve_is_thinned_to_the_same_curve() -> None:
    points = [(float(k), 2.0 * k) for k in range(5001)]
    few = thinned(points, 100)
    assert len(few) <= 100
    assert few[-1] == points[-1]
    assert max(abs(y - 2 * x) for x, y in few) <= 2 * 51  # each is the mean of those before it
    assert thinned(points[:100], 100) == points[:100]
