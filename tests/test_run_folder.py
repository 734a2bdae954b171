"""Run folders under attack: several writers, flipped bits, files of the user's in the way, killed and full disks.

Run as a script this file is the process that forks pairs of writers: see `pairs` at the end.
"""

import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sure import Cli, there

import ornstein
from ornstein.cli import main
from ornstein.errors import InputError
from ornstein.experiment import pictures
from ornstein.experiment.config import Experiment
from ornstein.experiment.evaluate import evaluate
from ornstein.experiment.folder import accept, read_folder, read_tuned, write_tuned
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.experiment.tune import tune
from ornstein.files import read_text, replacing, replacing_all, sweep_parts, write_text
from ornstein.training import checkpoint, holding, latest, manifest
from ornstein.training.ema import snapshots
from ornstein.training.log import Log

SHORT = [
    "training.warmup=1", "training.batch_size=16", "net.width=8", "data.count=200", "sampling.preview=0",
    "sampling.steps=2", "training.validate_every=6", "training.checkpoint_every=3", "training.log_every=2",
    "training.ema=[0.05,0.1]", "sampling.ema=0.05",
]  # fmt: skip


def one_sentence(answer: Any, *words: Any) -> None:
    assert answer.code == 2, answer
    text = answer.err.strip()
    assert text.startswith("ornstein: "), text
    assert "\n" not in text, text
    for word in words:
        assert str(word) in text, f"{word!r} is not in {text!r}"


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two-dimensional points, with snapshots and a tuned grid. Not to be written to."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    for _ in train(Experiment.read("moons", [*SHORT, "training.steps=12", "training.snapshot_every=4"]), folder):
        pass
    with holding(folder, "testing"):
        write_tuned(folder, 3, {"grid": [1.0, 0.6, 0.3, 0.0]})
    return folder


@pytest.fixture
def points(kept: Path, tmp_path: Path) -> Path:
    """A copy of it, to be harmed."""
    shutil.copytree(kept, tmp_path / "run")
    return tmp_path / "run"


def opened(folder: Path) -> None:
    """Read all that is published in a folder."""
    for ema in (0, 0.05, 0.10):
        Run.load(folder, ema=ema)
    read_tuned(folder)


# One writer -----------------------------------------------------------------------------------------------------------


def test_another_writer_is_refused_by_a_sentence_that_names_the_first(cli: Cli, points: Any) -> None:
    with holding(points, "tuning"):
        for words in (["train", "--resume", points], ["tune", points, "--steps", 3], ["info", points, "--accept"]):
            one_sentence(cli(*words), points, "in use", "tuning since", os.getpid())
        with pytest.raises(InputError, match="in use"):
            next(train(Experiment.read(points / "experiment.yaml"), points, resume=True))
        with pytest.raises(InputError, match="in use"):
            tune(Run.load(points), 3)
        assert cli("info", points).code == 0  # who reads is in nobody's way
        assert cli("sample", points, "-n", 2).code == 0
    assert not (points / ".lock").exists()
    assert cli("tune", points, "--steps", 3).code == 0


def test_a_lock_ends_with_its_process_and_is_not_left_to_its_children(tmp_path: Path) -> None:
    """Killed by SIGKILL, and with a child that outlives it."""
    code = f"""
import os, sys, time
from ornstein.training import holding
with holding({str(tmp_path / "run")!r}, "testing"):
    if os.fork() == 0:
        os.write(1, b"forked ")
        time.sleep(60)
        os._exit(0)
    os.write(1, b"%d " % os.getpid())
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        heard = ""
        while heard.count(" ") < 2:  # once it has forked, and its child has let go
            heard += there(process.stdout).read(1)
        assert set(heard.split()) == {"forked", str(process.pid)}
        said = f"testing since .* by process {process.pid}"
        with pytest.raises(InputError, match=said), holding(tmp_path / "run", ""):
            pass
        process.kill()
        process.wait()
        with holding(tmp_path / "run", "testing"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_two_trainings_in_one_process_are_two_writers(points: Any) -> None:
    asked = Experiment.read(points / "experiment.yaml", ["training.steps=20"])
    first = train(asked, points, resume=True)
    next(first)
    with pytest.raises(InputError, match="in use"):
        next(train(asked, points, resume=True))
    first.close()  # type: ignore[attr-defined]  # a generator, which `train` does not promise
    for _ in train(asked, points, resume=True):
        pass
    assert there(latest(points)).step == 20


def test_a_folder_deleted_under_its_run_is_one_sentence_and_not_made_again(tmp_path: Path) -> None:
    steps = train(Experiment.read("moons", [*SHORT, "training.steps=12"]), tmp_path / "run")
    next(steps)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(InputError, match="deleted or moved"):
        list(steps)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("brief_reports")
def test_a_folder_deleted_under_an_evaluation_is_not_made_again(points: Any) -> None:
    def stage(name: str) -> None:
        if name == "memorisation":
            shutil.rmtree(points)

    with pytest.raises(InputError, match="was deleted or moved meanwhile"):
        evaluate(Run.load(points), n=20, page=False, stage=stage)
    assert not points.exists()


@pytest.mark.parametrize("name", ["run/samples/x.npz", "other/x.npz"])
def test_a_folder_deleted_under_a_drawing_is_not_made_again(
    cli: Cli, points: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What was to land elsewhere still does."""
    draw = Run.draw

    def drawn(self: Run, *n: Any, **how: Any) -> Any:
        shutil.rmtree(self.folder)
        return draw(self, *n, **how)

    monkeypatch.setattr(Run, "draw", drawn)
    out = points if name.startswith("run/") else points.parent / "other"
    answer = cli("sample", points, "-n", 2, "--steps", 2, "-o", out / name.partition("/")[2])
    if out == points:
        assert (answer.code, f"{points.name} was deleted or moved meanwhile" in answer.err) == (2, True), answer
    else:
        assert answer.code == 0, answer
        assert (out / "x.npz").is_file()
    assert not points.exists()


def test_a_file_in_a_folders_place_is_said_before_any_work(cli: Cli, points: Any, tmp_path: Path) -> None:
    (tmp_path / "o").write_text("mine")
    answer = cli("sample", points, "-n", 2, "-o", tmp_path / "o" / "x.npz")
    assert (answer.code, "o is a file, not a folder" in answer.err) == (2, True), answer
    with pytest.raises(InputError, match="o is a file, not a folder"):
        write_text(tmp_path / "o" / "deep" / "x.txt", "")


def test_a_start_that_fails_leaves_nothing_in_the_way_of_the_next(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is saved: the folder says so, and the same command works."""
    words = ["train", "moons", *SHORT, "training.steps=12", "--out", tmp_path / "run"]
    full = [*words, "training.precision=float32"]

    def broken(run: Path) -> None:
        raise KeyboardInterrupt  # a second Ctrl-C within the first step

    monkeypatch.setattr("ornstein.training.loop._Run.advance", broken)
    answer = cli(*full)
    assert answer.code == 130, answer
    assert "before anything was saved" in answer.out
    one_sentence(cli("sample", tmp_path / "run"), "has not saved yet", "--resume")
    monkeypatch.undo()
    assert cli(*full).code == 0
    opened(tmp_path / "run")
    one_sentence(cli(*full), "holds a run already", "--resume")
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # to save space: the weights are still a run
    one_sentence(cli(*full), "holds a run already")


def script(mode: str, *more: object) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, mode, folder, *map(str, more)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def check_pairs(count: int) -> None:
    result = script("pairs", count)
    assert result["faults"] == []
    assert result["pairs"] == count
    assert result["won"] >= count  # one of each, at least
    assert result["refused"] > 0  # they did meet


@pytest.mark.timeout(600)
def test_four_pairs_of_writers_on_one_folder_lose_nothing() -> None:
    check_pairs(4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_forty_pairs_of_writers_on_one_folder_lose_nothing() -> None:
    check_pairs(40)


# Nothing wrong is accepted --------------------------------------------------------------------------------------------

PUBLISHED = [
    "experiment.yaml", "run.yaml", "tuned.yaml", "model.safetensors", "ema-0.050.safetensors", "ema-0.100.safetensors",
    "manifest.json",
]  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_flipped_bit_is_found(points: Any, name: Any) -> None:
    rng, path = random.Random(name), points / name
    content = path.read_bytes()
    for _ in range(12):
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
        with pytest.raises(InputError) as error:
            opened(points)
        assert name in str(error.value)
    path.write_bytes(content)
    opened(points)


@pytest.mark.parametrize("name", ["experiment.yaml", "run.yaml", "tuned.yaml"])
def test_a_file_cut_after_any_line_is_found(points: Any, name: Any) -> None:
    lines = (points / name).read_bytes().splitlines(keepends=True)
    for count in range(len(lines)):
        (points / name).write_bytes(b"".join(lines[:count]))
        with pytest.raises(InputError, match=name):
            opened(points)


def test_a_flipped_bit_in_a_snapshot_is_found_when_an_average_is_made_of_it(points: Any) -> None:
    Run.load(points, ema=0.08)
    path = snapshots(points)[0].path
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=path.name):
        Run.load(points, ema=0.08)


def test_a_deleted_average_is_missed_and_not_made_again(cli: Cli, points: Any) -> None:
    (points / "ema-0.050.safetensors").unlink()
    one_sentence(cli("sample", points), "ema-0.050.safetensors is missing", "--resume")
    assert cli("train", "--resume", points).code == 0  # as the sentence says
    opened(points)


def test_an_edit_on_purpose_is_accepted_when_said_so(cli: Cli, points: Any) -> None:
    text = (points / "experiment.yaml").read_text()
    (points / "experiment.yaml").write_text(text.replace("preview: 0", "preview: 9"))
    one_sentence(cli("sample", points), "experiment.yaml", "was changed", "--accept")
    answer = cli("info", points, "--accept")
    assert answer.code == 0
    assert "experiment.yaml" in answer.out.splitlines()[0]
    assert Run.load(points).experiment.sampling.preview == 9
    opened(points)
    (points / "experiment.yaml").write_text(text.replace("steps: 12", "steps: true"))
    one_sentence(cli("info", points, "--accept"), "training.steps=True")
    (points / "experiment.yaml").write_text(text)
    assert accept(points) == ["experiment.yaml"]


def test_a_folder_of_an_older_version_opens_and_goes_on(cli: Cli, points: Any) -> None:
    assert "unchecked" not in cli("info", points).out
    (points / "manifest.json").unlink()
    opened(points)
    assert "unchecked" in cli("info", points).out
    one_sentence(cli("train", "moons", "--out", points), "holds a run already")
    assert cli("train", "--resume", points, "training.steps=15").code == 0
    assert manifest.knows(points, "model.safetensors")
    opened(points)


def test_checking_is_cheap(tmp_path: Path) -> None:
    """Twenty megabytes of weights, in a fraction of what drawing one sample takes."""
    with manifest.publishing(tmp_path, "model.safetensors") as (part,):
        part.write_bytes(os.urandom(20_000_000))
    took = []
    for _ in range(5):
        began = time.process_time()
        manifest.check(tmp_path, "model.safetensors")
        took.append(time.process_time() - began)
    assert min(took) < 0.25


def test_a_reader_beside_a_writer_never_sees_damage(tmp_path: Path) -> None:
    """Who opens while weights are replaced meets old ones or new ones, both known."""
    stop = threading.Event()
    seen: list[Any] = []

    def write() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            with manifest.publishing(tmp_path, "a", "b") as parts:
                for part in parts:
                    part.write_text(f"{count} " * 1000)

    with manifest.publishing(tmp_path, "a", "b") as parts:
        for part in parts:
            part.write_text("0")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        began = time.monotonic()
        while len(set(seen)) < 8 and time.monotonic() - began < 60:
            for name in "ab":
                manifest.check(tmp_path, name)
            seen.append(read_text(tmp_path / "a").partition(" ")[0])
    finally:
        stop.set()
        writer.join()
    assert len(set(seen)) == 8


YAMLS = [
    ("a: &x [1]\nb: *x", "alias"),
    ("net: {name: mlp}\nnet: {name: unet}", "a second time"),
    ("net: {name: mlp, name: unet}", "a second time"),
    ("a: !!python/object/apply:os.system [ls]", "tag"),
    ("[" * 3000, "deep"),
    ("a: \x01", "YAML"),
    (b"a: caf\xe9", "UTF-8"),
    (b"x" * 70_000, "65,536"),
    ("- 1", "mapping"),
    ("", "mapping"),
    ("proces: vp", "'process'"),
    ("1: 2", "1 is not a field"),
]


@pytest.mark.parametrize(("text", "word"), YAMLS, ids=range(len(YAMLS)))
def test_yaml_that_is_refused(cli: Cli, tmp_path: Path, text: Any, word: Any) -> None:
    (tmp_path / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    one_sentence(cli("train", tmp_path / "x.yaml", "--show"), word)


def test_aliases_that_would_make_gigabytes_take_no_time(tmp_path: Path) -> None:
    """412 bytes, which took 10.8 GB and 92 seconds."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    began = time.process_time()
    with pytest.raises(InputError, match="alias"):
        Experiment.read(tmp_path / "x.yaml")
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("net.width=true", "net.width=True"),
        ("training.steps='12'", "training.steps='12'"),
        ("training.compile=1", "training.compile=1 true or false"),
        ("training.betas=[true,0.9]", "training.betas"),
        ("process.beta_max=.nan", "process.beta_max=nan"),
        ("sampling.preview=2147483648", "sampling.preview=2147483648 4,096"),
        ("sampling.steps=2147483648", "sampling.steps=2147483648"),
        ("training. steps=3", "' steps' 'steps'"),
        ("data.count=2001-99-99", "data.count='2001-99-99'"),
        ("net.width=1:30", "net.width='1:30'"),
        ("net.width=010", "net.width='010'"),
        ("preset=[1]", "preset=[1]"),
        ("process={name: [1]}", "process=[1]"),
        ("training=5", "training=5"),
    ],
)
def test_a_value_of_another_kind_is_refused(cli: Cli, change: Any, words: Any) -> None:
    one_sentence(cli("train", "moons", change, "--show"), *words.split(" "))


def test_numbers_are_what_they_look_like() -> None:
    asked = Experiment.read("moons", ["training.lr=1e-3", "training.weight_decay=1E+0", "data.count=1_000"])
    assert (asked.training.lr, asked.training.weight_decay, asked.data["count"]) == (1e-3, 1.0, 1000)
    named = Experiment.read("images", ["data.path=photos #2", "net=unet"])
    assert Path(named.data["path"]).name == "photos #2"  # no remark: it came by itself


# Nothing of the user's is overwritten unasked -------------------------------------------------------------------------


def test_a_file_that_is_there_wants_force_and_samples_of_the_run_do_not(cli: Cli, points: Any, tmp_path: Path) -> None:
    for name, more, beside in (
        ("x.npz", [], []),
        ("x.png", ["--film"], ["x.gif"]),
    ):
        for place in [name, *beside]:
            (tmp_path / place).write_text("mine")
            answer = cli("sample", points, "-n", 2, *more, "--out", tmp_path / name)
            one_sentence(answer, place, "--force")
            assert (tmp_path / place).read_text() == "mine"
            (tmp_path / place).unlink()
        (tmp_path / name).write_text("mine")
        assert cli("sample", points, "-n", 2, *more, "--force", "--out", tmp_path / name).code == 0
        assert (tmp_path / name).read_bytes() != b"mine"
    for _ in range(2):
        assert cli("sample", points, "-n", 2).code == 0
        assert cli("sample", points, "-n", 2, "--out", points / "samples" / "a.png").code == 0


def test_what_goes_beside_is_asked_about_too_and_the_input_is_never_written_over(
    cli: Cli, points: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "rows.npy", np.array([[np.nan, 0.5]], np.float32))
    (tmp_path / "rows.npz").write_text("mine")
    words = ["inpaint", points, "--input", tmp_path / "rows.npy", "-n", 2, "--steps", 2, "--out"]
    one_sentence(cli(*words, tmp_path / "rows.png"), "rows.npz", "--force")
    assert (tmp_path / "rows.npz").read_text() == "mine"
    assert not (tmp_path / "rows.png").exists()
    (tmp_path / "link.png").symlink_to(tmp_path / "rows.npy")
    one_sentence(cli(*words, tmp_path / "link.png", "--force"), "is the input")
    words = ["loglik", points, "test", "-n", 2, "--out", tmp_path / "s.csv"]
    (tmp_path / "s.png").write_text("mine")
    one_sentence(cli(*words), "s.png", "--force")
    assert cli(*words, "--force").code == 0


def test_a_pair_appears_together_or_not_at_all(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("old")
    b.mkdir()

    def write(*places: Any) -> None:
        with replacing_all(*places) as parts:
            for part in parts:
                part.write_text("new")

    with pytest.raises(InputError, match="cannot be written"):
        write(a, b)
    assert a.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "c", b)
    assert not (tmp_path / "c").exists()
    b.rmdir()
    write(a, b)
    assert (a.read_text(), b.read_text()) == ("new", "new")


def test_a_writer_within_another_leaves_the_naming_to_it(tmp_path: Path) -> None:
    """What a person named cannot be written, not the file that stands for it meanwhile."""

    def write() -> None:
        with replacing(tmp_path / "mine") as part, replacing(part):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"mine cannot be written: No space") as found:
        write()
    assert ".ornstein-" not in str(found.value)


def test_what_a_machine_refuses_to_read_is_not_called_damaged(points: Any) -> None:
    """Deleting it, or taking it as it is, would be the wrong advice: no more files may be opened stands for it."""
    newest, snapshot = max((points / "checkpoints").iterdir()), snapshots(points)[0].path
    places: list[Any] = [
        lambda: manifest.read(points),
        lambda: checkpoint._read(newest),
        lambda: checkpoint.read_about(snapshot),
    ]
    old, first = resource.getrlimit(resource.RLIMIT_NOFILE), os.dup(0)
    os.close(first)
    said = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (first, old[1]))
    try:
        for read in places:
            with pytest.raises(InputError) as found:
                read()
            said.append(str(found.value))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
    assert all(re.fullmatch(r"\S+ cannot be read: Too many open files\.", text) for text in said), said


def test_names_of_unfinished_files_cannot_be_guessed_and_follow_no_link(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        with replacing(tmp_path / "x") as part:
            names.append(part.name)
    assert len(set(names)) == 3
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "x").unlink()
    (tmp_path / "x").symlink_to(tmp_path / "mine")
    with replacing(tmp_path / "x") as part:
        part.write_text("new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "x").is_symlink()


def test_links_inside_a_run_folder_are_not_followed(cli: Cli, points: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for name in ("metrics.jsonl", "loss.png"):
        (points / name).unlink(missing_ok=True)
        (points / name).symlink_to(mine)
    assert cli("train", "--resume", points, "training.steps=15", "sampling.preview=4").code == 0
    assert mine.read_text() == "mine"
    shutil.rmtree(points / "samples")
    (tmp_path / "elsewhere").mkdir()
    (points / "samples").symlink_to(tmp_path / "elsewhere")
    one_sentence(cli("train", "--resume", points, "training.steps=18"), "samples is a link")
    one_sentence(cli("sample", points, "-n", 2, "--steps", 2), "samples is a link")
    (tmp_path / "elsewhere" / "x.npz").write_text("mine")  # not one of the run's own, to be replaced unasked
    one_sentence(cli("sample", points, "-n", 2, "--out", tmp_path / "elsewhere" / "x.npz"), "--force")
    (tmp_path / "elsewhere" / "x.npz").unlink()
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name", ["experiment.yaml", "model.safetensors", "loss.png", "samples/a.png", "metrics.jsonl"])
def test_training_does_not_write_over_what_it_did_not_write(cli: Cli, tmp_path: Path, name: Any) -> None:
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).write_text("mine")
    one_sentence(cli("train", "moons", *SHORT, "--out", tmp_path / "out"), name.split("/")[0], "did not write")
    assert (tmp_path / "out" / name).read_text() == "mine"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name.split("/")[0]]


# Bounded --------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [*PUBLISHED, "metrics.jsonl", "checkpoints/state", "snapshots"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(cli: Cli, points: Any, name: Any) -> None:
    path = {
        "checkpoints/state": there(latest(points)).path / "state.json",
        "snapshots": snapshots(points)[0].path,
    }.get(name, points / name)
    path.unlink()
    os.mkfifo(path)
    began = time.process_time()
    for words in (["info", points], ["sample", points, "-n", 2], ["sample", points, "-n", 2, "--ema", "0.08"]):
        assert cli(*words).code in (0, 2)
    assert cli("train", "--resume", points).code in (0, 2)
    assert time.process_time() - began < 20


def test_a_device_is_no_experiment(cli: Cli, tmp_path: Path) -> None:
    for place in ("/dev/zero", "/dev/null"):
        (tmp_path / "x.yaml").unlink(missing_ok=True)
        (tmp_path / "x.yaml").symlink_to(place)
        one_sentence(cli("train", tmp_path / "x.yaml"), "is a device and not a file")


# True words -----------------------------------------------------------------------------------------------------------


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, *numbers: signal.Signals) -> None:
    """Send this process signals as the batch of a step is made."""
    from ornstein.data import Dataset

    whole = Dataset.batch
    sent: list[int] = []

    def batch(data: Any, number: Any, *rest: Any) -> Any:
        if number == step and not sent:
            sent.append(number)
            for signal_ in numbers:
                os.kill(os.getpid(), signal_)
        return whole(data, number, *rest)

    monkeypatch.setattr(Dataset, "batch", batch)


INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.mark.parametrize(("numbers", "saved"), [((INT,), 5), ((TERM,), 5), ((INT, INT), 3), ((TERM, INT), 3)])
def test_what_is_said_of_saving_is_true(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: Any, saved: Any
) -> None:
    """Asked once it saves after the step; asked twice it does not wait, and says what there is."""
    at_step(monkeypatch, 4, *numbers)
    answer = cli("train", "moons", *SHORT, "training.steps=12", "training.validate_every=12", "--out", tmp_path / "run")
    assert answer.code == 130, answer
    assert f"saved up to step {saved}." in answer.out
    assert there(latest(tmp_path / "run")).step == saved
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert cli("train", "--resume", tmp_path / "run").code == 0


def test_interrupted_during_set_up_nothing_is_said_to_be_saved(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 0, signal.SIGTERM)
    answer = cli("train", "moons", *SHORT, "--out", tmp_path / "run")
    assert answer.code == 130
    assert "before anything was saved" in answer.out
    assert not (tmp_path / "run").exists()


def test_a_damaged_or_stray_snapshot_does_not_stop_a_run_from_going_on(cli: Cli, points: Any) -> None:
    snapshots(points)[-1].path.write_bytes(b"not tensors")
    (points / "snapshots" / "step-mine.safetensors").write_bytes(b"stray")
    (points / "checkpoints" / "step-mine").mkdir()
    answer = cli("train", "--resume", points, "training.steps=15")
    assert answer.code == 0, answer
    assert (points / "snapshots" / "step-mine.safetensors").exists()
    one_sentence(cli("sample", points, "--ema", "0.08"), "snapshots/step-", "damaged")


def test_a_torn_metrics_line_is_passed_over(cli: Cli, points: Any) -> None:
    with (points / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 99\n[1]\n{"step": "x"}\n\xff\n{"step": 13, "lo')
    answer = cli("info", points)
    assert answer.code == 0, answer
    assert "12 of 12" in answer.out


def test_what_killed_writes_leave_is_swept_and_what_others_write_is_not(cli: Cli, points: Any, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (points / "samples").mkdir()
    places = (points, points / "samples", points / "checkpoints")
    dead = [place / f".ornstein-{gone.pid}-{'0' * 16}" for place in places]
    mine = [points / f".ornstein-{os.getppid()}-{'1' * 16}", points / ".ornstein-notes"]
    for path in [*dead, *mine]:
        path.write_text("half")
    shutil.copytree(there(latest(points)).path, points / "checkpoints" / "step-00000001")
    assert cli("train", "--resume", points).code == 0  # a finished run: nothing is trained
    assert not any(path.exists() for path in dead)
    assert all(path.exists() for path in mine)
    assert len(list((points / "checkpoints").iterdir())) == 2  # as many as training.keep
    sweep_parts(tmp_path / "nowhere")


def test_a_disk_full_of_events_is_one_sentence(tmp_path: Path) -> None:
    """A limit on the size of a file stands for it: what TensorBoard gets is longer than a line of metrics.jsonl."""
    log = Log(tmp_path)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = next((tmp_path / "tensorboard").iterdir()).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        with pytest.raises(InputError, match=r"metrics.jsonl could not be written \(.*\)"):
            log.write(1, {"a": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "a": 1.0}\n'


def test_a_refusing_disk_is_one_sentence(cli: Cli, points: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    one_sentence(cli("train", "moons", "--out", tmp_path / "file" / "run"), "file/run", "cannot be written")
    (points / "samples").write_text("in the way")
    one_sentence(cli("train", "--resume", points, "training.steps=18", "sampling.preview=4"), "samples")


def test_the_facts_are_on_the_disk_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, real = [], os.fsync

    def fsync(handle: Any) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    run = train(Experiment.read("moons", [*SHORT, "training.steps=12"]), tmp_path / "run")
    next(run)
    assert sum(".ornstein-" in name for name in synced) >= 4  # both files, and the manifest before and after
    assert str(tmp_path / "run") in synced
    run.close()  # type: ignore[attr-defined]  # a generator, which `train` does not promise


def test_charts_are_drawn_at_the_end_and_where_it_stops_and_between_not_at_each_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charts = tmp_path / "run" / "loss.png", tmp_path / "run" / "loss-by-noise.png"
    asked = Experiment.read("moons", [*SHORT, "training.steps=18", "sampling.preview=2"])
    run = train(asked, tmp_path / "run")
    assert [next(run).progress.step for _ in range(4)] == [1, 2, 4, 6]  # judged
    assert not any(chart.exists() for chart in charts)  # nobody has had the time to open them
    run.close()  # type: ignore[attr-defined]  # a generator, which `train` does not promise
    first = [chart.read_bytes() for chart in charts]
    counted = Mock(side_effect=pictures.loss_curve)
    monkeypatch.setattr(pictures, "loss_curve", counted)
    for _ in train(asked, tmp_path / "run", resume=True):  # at 6 again, 12 and 18
        pass
    assert counted.call_count == 1
    assert all(chart.read_bytes() != before for chart, before in zip(charts, first, strict=True))
    monkeypatch.setattr("ornstein.experiment.train._ANEW", 0.0)
    for _ in train(asked, tmp_path / "again"):
        pass
    assert counted.call_count == 1 + 3


def test_names_of_files_may_be_any(cli: Cli, points: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a[/red]b.npz", "[bold].npz", os.fsdecode(b"caf\xe9.npz"), "a\nb.npz"):
        answer = cli("sample", points, "-n", 2, "--out", name)
        assert answer.code == 0, answer
        assert Path(name).exists()
    odd = os.fsdecode(b"r\xe9[u]n")
    shutil.copytree(points, odd)
    one_sentence(cli("info", odd), "r\\xe9[u]n", "UTF-8")  # which safetensors asks of its files' names
    one_sentence(cli("train", "moons", "--out", odd + "2"), "r\\xe9[u]n2", "UTF-8")
    (tmp_path / "r[u]n").symlink_to(odd)
    assert cli("train", "--resume", "r[u]n", "training.steps=13").code == 0


def test_a_network_is_no_denoiser_and_guidance_wants_a_condition() -> None:
    net = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"denoiser=Linear .*NetDenoiser\(net, process\)"):
        ornstein.sample(net, (2, 2))  # type: ignore[arg-type]
    from ornstein.core.exact import Gaussian
    from ornstein.guidance import ClassifierFree

    denoiser = Gaussian(torch.zeros(2), 1.0).denoiser(ornstein.VP())
    with pytest.raises(InputError, match="needs condition="):
        ornstein.sample(ClassifierFree(denoiser, scale=3.0), (2, 2), steps=2)
    ornstein.sample(ClassifierFree(denoiser, scale=1.0), (2, 2), steps=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "moons", "--steps", "5"], ["training.steps=5"]),
        (["plan", "moons", "--batch-size=5"], ["training.batch_size=5"]),
        (["train", "--resume", "RUN", "digits"], ["'digits'", "--resume"]),
        (["train", "--resume", "RUN", "training.steps=1"], ["training.steps=1", "less than"]),
        (["train", "moons", f"data.count=1{'0' * 400}", "--show"], ["data.count=1000", "2^63"]),
        (["sample", "RUN", "-n", f"1{'0' * 400}"], ["n=1000"]),
        (["sample", "RUN", "--stepper", "ddim", "--with", "eta=nan"], ["eta='nan'"]),
        (["sample", "RUN", "--stepper", "ddim", "--with", "name=heun"], ["name"]),
        (["sample", "RUN", "--stepper", ""], ["stepper=''"]),
        (["sample", "RUN", "--label", "²"], ["label='²'"]),
        (["sample", "RUN", "--label", "9" * 25], ["label="]),
        (["sample", "RUN", "--seed", str(2**63)], ["seed="]),
        (["sample", "RUN", "--steps", "1000000000"], ["steps=1000000000"]),
        (["sample", "RUN", "-n", "2147483648"], ["n=2147483648"]),
        (["evaluate", "RUN", "-n", "2147483648"], ["n=2147483648"]),
        (["interpolate", "RUN", "--from", "²", "--to", "1"], ["'²'"]),
        (["interpolate", "RUN", "--from", "0", "--to", "1", "-n", "2147483648"], ["n=2147483648"]),
        (["inpaint", "RUN", "--input", "EMPTY"], ["empty.npy", "numbers"]),
        (["inpaint", "RUN", "--input", "WIDE"], ["wide.npy", "(1, 3)", "(2,)"]),
        (["inpaint", "RUN", "--input", "/dev/zero"], ["device"]),
        (["restore", "RUN", "--operator", "blur", "--with", "width=nan", "--input", "WIDE"], ["width='nan'"]),
        (["restore", "RUN", "--operator", "blur", "--with", "width=1e9", "--input", "WIDE"], ["width=1000000000"]),
    ],
)
def test_ordinary_mistakes_are_one_sentence(
    cli: Cli, points: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Any, said: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "wide.npy", np.full((1, 3), np.nan, np.float32))
    names = {"RUN": points, "EMPTY": "empty.npy", "WIDE": "wide.npy"}
    one_sentence(cli(*[names.get(word, word) for word in words]), *said)


def test_list_without_a_name_lists_everything(cli: Cli) -> None:
    answer = cli("list")
    assert answer.code == 0
    assert {"processes", "steppers", "vp", "ddim", "presets"} <= set(answer.out.split())


# Writers in pairs, for `script` ---------------------------------------------------------------------------------------

KINDS = [("train", "train"), ("train", "resume"), ("tune", "resume"), ("resume", "resume"), ("tune", "tune")]


def called(words: list[str]) -> int:
    sys.argv = ["ornstein", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def forked(words: list[str], said: Path, after: float) -> int:
    pid = os.fork()
    if pid:
        return pid
    time.sleep(after)
    handle = os.open(said, os.O_CREAT | os.O_WRONLY)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    code = 1
    try:
        code = called(words)
    except BaseException as error:
        os.write(2, repr(error).encode())
    os._exit(code)


def faults_of(
    folder: Path, kinds: tuple[str, str], commands: list[list[str]], codes: list[int], texts: list[str]
) -> Any:
    """What a pair of writers did wrong, in words."""
    for kind, code, text in zip(kinds, codes, texts, strict=True):
        if code not in (0, 2) or "Traceback" in text:
            yield f"{kind} ended with {code}: {text[-300:]}"
        elif code == 2 and not any(word in text for word in ("in use", "holds a run", "is not a folder", "has no ")):
            yield f"{kind} was refused by: {text}"
    if 0 not in codes:
        yield "neither came through"
        return
    experiment, _ = read_folder(folder)
    opened(folder)
    newest = there(latest(folder))
    won = [command for command, code in zip(commands, codes, strict=True) if code == 0]
    asked = {word.partition("=")[0]: word.partition("=")[2] for command in won for word in command if "=" in word}
    seeds = {word for command in won for word in command if word.startswith("training.seed")}
    if len(seeds) > 1 or (seeds and experiment.training.seed != int(asked["training.seed"])):
        yield f"experiment.yaml has seed {experiment.training.seed}, trained was {seeds}"
    if newest.state["training"]["seed"] != experiment.training.seed:
        yield "the checkpoint is of another experiment"
    wanted = {word.partition("=")[2] for command in won for word in command if word.startswith("training.steps")}
    if wanted and str(newest.step) not in wanted:
        yield f"trained to step {newest.step}, asked for {wanted}"
    for name in ("model.safetensors", "ema-0.050.safetensors", "ema-0.100.safetensors"):
        for key, tensor in load_file(folder / name).items():
            if not torch.equal(tensor, newest.tensors(name)[key]):
                yield f"{name} is not that of the newest checkpoint"
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    if steps != sorted(set(steps)) or steps[-1] != newest.step or steps[0] != 1:
        yield f"metrics.jsonl has the steps {steps}"
    tuned = {command[command.index("--steps") + 1] for command in won if command[0] == "tune"}
    if not tuned <= set(map(str, read_tuned(folder))):
        yield f"tuned for {tuned}, kept {sorted(read_tuned(folder))}"
    left = [str(path) for path in folder.rglob(".*")]
    if left:
        yield f"left: {left}"


def pairs(place: Path, count: int) -> dict[str, Any]:
    rng = random.Random(0)
    base = place / "base"
    begin = ["train", "moons", *SHORT, "training.steps=8"]
    # no child has to load anything
    for words in ([*begin, "--out", str(base)], ["tune", str(base), "--steps", "2"]):
        assert called(words) == 0
    result: dict[str, Any] = {"pairs": 0, "won": 0, "refused": 0, "faults": []}
    for i in range(count):
        folder, kinds = place / f"run-{i}", KINDS[i % len(KINDS)]
        if "train" not in kinds:
            shutil.copytree(base, folder)
        commands = []
        for j, kind in enumerate(kinds):
            if kind == "train":
                commands.append([*begin, f"training.seed={j}", "--out", str(folder)])
            elif kind == "resume":
                more = [] if "train" in kinds else [f"training.steps={12 + 4 * j}"]
                commands.append(["train", "--resume", str(folder), *more])
            else:
                commands.append(["tune", str(folder), "--steps", str(3 + j)])
        said = [place / f"said-{i}-{j}" for j in (0, 1)]
        late = [0.0, rng.choice([0.0, 0.05, 0.3, 1.0, 3.0])]
        children = [forked(*each) for each in zip(commands, said, late, strict=True)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        texts = [path.read_text() for path in said]
        try:
            found = list(faults_of(folder, kinds, commands, codes, texts))
        except Exception as error:
            found = [f"cannot be read: {error!r}"]
        result["faults"] += [f"{kinds}, late by {late[1]}: {fault}" for fault in found]
        result["pairs"] += 1
        result["won"] += codes.count(0)
        result["refused"] += codes.count(2)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"pairs": pairs}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
