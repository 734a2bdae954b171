"""What several test files share: a way to call the command line, and a small trained run."""

import gc
import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sure import TRAINED, Answer, Cli, once

# A suite that is run in the background inherits an ignored Ctrl-C; what is tested here is what a person's Ctrl-C does.
signal.signal(signal.SIGINT, signal.default_int_handler)


#: what takes longest goes first, so that no worker is left with it when the others have ended
LONGEST = ("test_two_processes", "test_laws_device", "test_docs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("dist", "no") != "no":
        return  # this process hands out the tests, and need not wait for torch before it starts those that run them
    import torch

    # Small tensors: a second thread costs more than it gives, and on busy cores far more.
    torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What is there by now stays to the end, some thousand tests and torch, and nothing of it is garbage.

    The collector, which walks all that is not frozen again and again, took a fifth of the time of tests that draw.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Call the command line in this process: `cli("train", "digits") -> Answer`."""
    from ornstein.cli import main

    def call(*words: Any) -> Answer:
        monkeypatch.setattr(sys, "argv", ["ornstein", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return call


@pytest.fixture(autouse=True, scope="session")
def one_classifier_of_the_same_data() -> Any:
    """Reports of the same data by the same seed share what they would each train to the same bits.

    It is trained for 100 steps instead of 1,000: how well it reads is tested beside `fit_classifier`.
    """
    import torch

    from ornstein.metrics import fit_classifier

    kept = dict[Any, Any]()

    def fitted(x: torch.Tensor, labels: torch.Tensor, *, generator: torch.Generator) -> Any:
        parts = (x, labels, generator.get_state())
        of = tuple(hashlib.sha256(part.cpu().contiguous().numpy().tobytes()).digest() for part in parts)
        key = (of, x.shape, x.dtype, x.device.type)
        if key not in kept:
            kept[key] = fit_classifier(x, labels, generator=generator, steps=100), generator.get_state()
        generator.set_state(kept[key][1])
        return kept[key][0]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ornstein.metrics.floor.fit_classifier", fitted)
        yield


@pytest.fixture(autouse=True, scope="session")
def panels_as_they_come() -> Iterator[Any]:
    """Where the panels of a chart go is half of the work of drawing it: only tests of charts ask (`laid_out`)."""
    from ornstein.experiment import charts

    with pytest.MonkeyPatch.context() as patched:
        before = charts.LAYOUT
        patched.setattr(charts, "LAYOUT", None)
        yield before


@pytest.fixture
def laid_out(panels_as_they_come: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ornstein.experiment.charts.LAYOUT", panels_as_they_come)


@pytest.fixture
def brief_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports for what holds of any of them, which take a third of the time.

    The classifier two-sample test learns for 50 steps instead of 200, and the doctor judges by 64 examples of 512.
    """
    from ornstein.experiment import evidence
    from ornstein.metrics import C2ST, METRICS

    monkeypatch.setitem(METRICS, "c2st", partial(C2ST, steps=50))
    monkeypatch.setattr(evidence, "_JUDGED_BY", 64)


@pytest.fixture
def own_tables() -> Any:
    """What a test registers is gone after it."""
    from ornstein import plugins

    tables: list[dict[Any, Any]] = [*(table.read() for table in plugins.TABLES.values()), plugins._OWNERS]
    kept = [(table, dict(table)) for table in tables]
    yield
    for table, before in kept:
        table.clear()
        table.update(before)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A digits run of a few steps, with a checkpoint, snapshots and pictures."""
    if TRAINED in os.environ:
        return Path(os.environ[TRAINED])
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.train import train

    tiny = ["net.channels=16", "training.steps=30", "training.batch_size=32", "training.validate_every=15"]
    tiny += ["training.checkpoint_every=10", "training.snapshot_every=10", "training.log_every=5", "sampling.preview=4"]

    def make(folder: Path) -> None:
        for _ in train(Experiment.read("digits", [*tiny, "sampling.steps=4"]), folder):
            pass

    return once(tmp_path_factory, "digits", make)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, or a plain skip."""
    place = Path(os.environ.get("ORNSTEIN_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data")
    if not (place / "mnist.npz").is_file():
        pytest.skip(f"real data are not at hand: set ORNSTEIN_DATA ({place} has no mnist.npz)")
    return place.resolve()
