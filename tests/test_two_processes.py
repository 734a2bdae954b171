"""Two processes are one program: the same losses, samples and files, one voice, and one end.

Run as a script this file is what `torchrun` starts twice. Everything that two processes do is done in that one start;
the tests then look at what it left, and do the same alone.
"""

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sure import once, there
from torch import nn

from ornstein import ranks
from ornstein.core.numerics import strata
from ornstein.errors import InputError
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import read_metrics
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.experiment.tune import tune
from ornstein.metrics import C2ST, METRICS, fit_classifier, floor
from ornstein.training import Training, fit, latest
from ornstein.training.pieces import Piece

#: a U-Net with dropout, labels and blocks in lists; 33 samples, so that the halves of a batch differ
ASKED = [
    "net.channels=16", "training.steps=6", "training.batch_size=33", "training.warmup=0", "training.decay=constant",
    "training.log_every=1", "training.validate_every=6", "training.checkpoint_every=3", "training.snapshot_every=3",
    "sampling.preview=10", "sampling.steps=4",
]  # fmt: skip
DRAWN = 37
FILES = ("model.safetensors", "ema-0.050.safetensors", "ema-0.100.safetensors", "optimizer.safetensors")


def numbers(folder: Path, column: str) -> list[float]:
    return [record[column] for record in read_metrics(folder) if column in record]


def difference(a: Path, b: Path) -> float:
    """The largest, over weights, averages and moments of the newest checkpoints."""
    first, second = there(latest(a)), there(latest(b))
    assert first.step == second.step
    assert set(first.state["files"]) == set(second.state["files"]) == set(FILES)
    pairs = [(first.tensors(file), second.tensors(file)) for file in FILES]
    assert all(x.keys() == y.keys() for x, y in pairs)
    return max(float((x[name] - y[name]).abs().max()) for x, y in pairs for name in x)


def spread_out(folder: Path, config: Training) -> list[list[float]]:
    """The evenly spread numbers that each piece of the first batch was given."""
    drawn = []

    def loss(net: Any, batch: Any, generator: Any) -> Any:
        drawn.append(strata(len(batch), generator).tolist())
        return net(batch).square().mean(1)

    for _ in fit(nn.Linear(2, 2), loss, lambda step: torch.ones(11, 2), config, folder):
        pass
    return drawn


SPREAD = Training(steps=1, accumulate=4, cpu=True, ema=(), snapshot_every=0)


def put_in_the_way(folder: Path) -> None:
    """A folder where the metrics will be, once training has begun: one that lies there before is refused at once."""
    while not (folder / "run.yaml").exists():
        time.sleep(0.001)
    (folder / "metrics.jsonl").mkdir()


# What two processes do ------------------------------------------------------------------------------------------------


def as_two(place: Path) -> None:
    def said(*words: object) -> None:
        app([str(word) for word in words], standalone_mode=False)

    # a grid is chosen by fewer examples and levels as it is by more, and lessons are as brief as in the process of the
    # tests
    inner: Any = inspect.unwrap(tune)
    inner.__kwdefaults__ |= {"count": 32, "levels": 40}
    METRICS["c2st"] = partial(C2ST, steps=50)
    floor.fit_classifier = partial(fit_classifier, steps=100)  # type: ignore[attr-defined]
    said("train", "digits", *ASKED, "--out", place / "two")
    said("sample", place / "two", "-n", DRAWN, "--out", place / "two.npz")
    said("evaluate", place / "points", "-n", 24, "--steps", 2, "--no-page")
    said("info", place / "two")
    said("tune", place / "points", "--steps", 2)  # the first process does this alone, and waits for no one
    said("train", "digits", *ASKED, "training.shard=fsdp", "--out", place / "fsdp")
    said("train", "--resume", place / "one-then-fsdp", "training.steps=6", "training.shard=fsdp", "sampling.preview=0")
    (place / f"spread-{ranks.rank()}.json").write_text(json.dumps(spread_out(place / "spread", SPREAD)))

    stopped = 0
    try:
        for moment in train(Experiment.read("digits", ASKED), place / "cut", draws=False):
            stopped = moment.progress.step
            if stopped == 3 and ranks.rank() == 1:  # while it reads, with the first somewhere else
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        (place / f"stopped-{ranks.rank()}").write_text(str(there(latest(place / "cut")).step))

    idle = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    try:
        for _ in fit(idle, lambda net, x, g: net[0](x).square().mean(1), lambda step: torch.ones(4, 2), SPREAD, place):
            pass
    except InputError as error:
        (place / f"idle-{ranks.rank()}").write_text(str(error))

    if not ranks.rank():
        threading.Thread(target=put_in_the_way, args=(place / "unwritable",), daemon=True).start()
    sys.argv = ["ornstein", "train", "digits", *ASKED, "--out", str(place / "unwritable")]
    main()  # what only the first process meets ends both


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes worked in; out.txt and err.txt are what was heard of them."""
    return once(tmp_path_factory, "two-processes", two_at_work)


def two_at_work(place: Path) -> None:
    place.mkdir()
    alone(place / "one-then-fsdp", 3, draws=False)
    points = ["data.count=500", "net.width=16", "training.steps=1", "sampling.preview=1"]
    for _ in train(Experiment.read("moons", points), place / "points", draws=False):
        pass
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        __file__,
        str(place),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)
    (place / "out.txt").write_text(done.stdout)
    (place / "err.txt").write_text(done.stderr)
    assert done.returncode == 1, done.stderr  # torchrun's own, whatever the code of a process
    assert (place / "two.npz").exists(), done.stderr


def alone(folder: Path, steps: int = 6, draws: bool = True) -> Path:
    """The same run by this process: as many pieces as two processes cut."""
    asked = Experiment.read("digits", [*ASKED, "training.accumulate=2", f"training.steps={steps}"])
    for _ in train(asked, folder, draws=draws):
        pass
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "one-process", alone)


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["two", "fsdp"])
def test_the_same_losses_and_weights_as_one_process(kind: Any, one: Any, place: Any) -> None:
    """Each step's loss to the rounding of a sum, dropout and noise included."""
    for column in ("loss", "grad_norm", "held_out"):
        assert len(numbers(one, column)) == (1 if column == "held_out" else 6)
        assert numbers(place / kind, column) == pytest.approx(numbers(one, column), rel=1e-5)
    assert difference(place / kind, one) < 2e-5


def test_the_run_says_into_how_many_pieces_it_was_cut(one: Any, place: Any) -> None:
    """So that what it leaves says how one process does the same; nothing else differs."""
    assert yaml.safe_load((place / "two" / "experiment.yaml").read_text())["training"]["accumulate"] == 2
    assert (place / "two" / "experiment.yaml").read_text() == (one / "experiment.yaml").read_text()


def test_one_set_of_files_as_one_process_leaves_them(one: Any, place: Any) -> None:
    def listed(folder: Path) -> list[str]:
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if "tfevents" not in path.name)

    for kind in ("two", "fsdp"):
        assert listed(place / kind) == listed(one)
        assert len(list((place / kind / "tensorboard").iterdir())) == 1
        assert numbers(place / kind, "step") == [1, 2, 3, 4, 5, 6]


def test_one_voice(place: Any) -> None:
    """Each line once, though two processes said it."""
    out = (place / "out.txt").read_text().splitlines()
    for line in ("done", f"{DRAWN} samples", "memorisation", "trained", "kept in"):
        assert sum(said.startswith(line) for said in out if "fsdp" not in said) == 1, (line, out)
    assert out.count(next(said for said in out if said.startswith("data "))) == 4  # one for each training


def test_ctrl_c_of_one_process_stops_both_at_one_step(place: Any) -> None:
    stopped = [(place / f"stopped-{rank}").read_text() for rank in (0, 1)]
    assert stopped[0] == stopped[1]
    assert 3 < int(stopped[0]) < 6


def test_what_two_processes_began_one_process_ends(one: Any, place: Any, tmp_path: Path) -> None:
    """Stopped between two checkpoints, with the pieces that the run says: the same weights."""
    shutil.copytree(place / "cut", tmp_path / "cut")
    asked = Experiment.read(tmp_path / "cut" / "experiment.yaml")
    for _ in train(asked, tmp_path / "cut", resume=True, draws=False):
        pass
    assert difference(tmp_path / "cut", one) < 2e-5


def test_what_one_process_began_two_end_sharded(one: Any, place: Any) -> None:
    assert difference(place / "one-then-fsdp", one) < 2e-5


def test_evenly_spread_numbers_are_spread_over_the_whole_batch(place: Any, tmp_path: Path) -> None:
    """One in each 11th of (0, 1), whoever draws it; each piece has every fourth of them."""
    first, second = (json.loads((place / f"spread-{rank}.json").read_text()) for rank in (0, 1))
    pieces = spread_out(tmp_path, SPREAD)
    assert first + second == pieces
    assert [len(piece) for piece in pieces] == [3, 3, 3, 2]
    for i, piece in enumerate(pieces):
        assert [int(u * 11) for u in piece] == list(range(i, 11, 4))
    whole = spread_out(tmp_path / "whole", replace(SPREAD, accumulate=1))
    assert [int(u * 11) for u in whole[0]] == list(range(11))


def test_spread_over_the_batch_times_average_better_than_spread_over_its_pieces() -> None:
    """The error of the mean of a smooth function falls with the strata of the batch, not with those of a piece."""
    plain, together, apart = torch.Generator().manual_seed(0), [], []
    pieces = [Piece("cpu") for _ in range(4)]
    for i, piece in enumerate(pieces):
        piece.manual_seed(i)
        piece.piece = (i, 4, 32)
    for _ in range(400):
        together.append(torch.cat([strata(8, piece) for piece in pieces]).square().mean() - 1 / 3)
        apart.append(torch.cat([strata(8, plain) for _ in range(4)]).square().mean() - 1 / 3)
    # variance / n^3 against k^2 as much, for k pieces: four times the deviation
    ratio = float(torch.stack(apart).square().mean().sqrt() / torch.stack(together).square().mean().sqrt())
    assert ratio == pytest.approx(4, rel=0.25)


def test_a_parameter_that_the_loss_does_not_reach_is_named_by_each(place: Any) -> None:
    said = [(place / f"idle-{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert "1.weight, 1.bias" in said[0]


# Drawing --------------------------------------------------------------------------------------------------------------


def test_samples_are_those_of_one_process(place: Any) -> None:
    drawn = np.load(place / "two.npz")
    run = Run.load(place / "two")
    labels = run.examples(DRAWN).parts["label"]
    assert drawn["labels"].tolist() == labels.tolist()
    alone = run.transform.inverse(run.draw(DRAWN, seed=0, label=labels), quantise=True).numpy()
    off = np.abs(drawn["samples"].astype(int) - alone.astype(int))
    assert off.max() <= 1  # where a value lies between two, rounding of a sum may decide
    assert (off > 0).mean() < 1e-3


@pytest.mark.usefixtures("brief_reports")
def test_evaluation_is_that_of_one_process(place: Any, tmp_path: Path) -> None:
    from ornstein.experiment.evaluate import evaluate

    two = json.loads((place / "points" / "evaluation.json").read_text())
    shutil.copytree(place / "points", tmp_path / "points")
    result = there(evaluate(Run.load(tmp_path / "points"), n=24, steps=2, page=False)).report.to_dict()
    assert result["rows"].keys() == two["rows"].keys()
    for name, row in result["rows"].items():
        assert row["value"] == pytest.approx(two["rows"][name]["value"], rel=1e-3), name


# Ending ---------------------------------------------------------------------------------------------------------------


def test_what_the_first_process_alone_met_is_said_once_and_ends_both(place: Any) -> None:
    said = (place / "err.txt").read_text()
    assert said.count("ornstein: ") == 1, said
    assert "metrics.jsonl cannot be written" in said
    assert "process 1 of 2" not in said
    assert "Connection closed" not in said
    assert "exitcode  : 2 " in said


@contextmanager
def started(rank: int, patience: float) -> Any:
    """A command that a person got wrong, as a launcher starts it; torch is not needed to say so."""
    code = "import sys; sys.argv = ['ornstein', 'sample', 'x', '-n', '0']; import ornstein.ranks as ranks\n"
    code += f"ranks.PATIENCE = {patience}\nfrom ornstein.cli import main\nprint('ready', flush=True)\nmain()"
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "COLUMNS": "200"}
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_mistake_that_both_made_is_said_once_and_both_end_with_code_2() -> None:
    with started(0, 60) as first, started(1, 60) as second:
        said = first.communicate(timeout=60)[1]
        assert first.returncode == 2
        assert said.count("n=0 must be at least 1") == 1
        assert second.stdout.readline() == "ready\n"
        time.sleep(0.3)
        second.terminate()  # as torchrun does
        out, err = second.communicate(timeout=60)
        assert (second.returncode, out, err) == (2, "", "")


def test_a_mistake_that_only_another_process_met_is_said_by_it() -> None:
    with started(1, 0.2) as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert err.startswith("process 1 of 2: ornstein: n=0 must be")


if __name__ == "__main__":
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from ornstein.cli import app, main

    with ranks.one_voice():
        as_two(Path(sys.argv[1]))
