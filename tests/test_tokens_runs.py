"""Runs of tokens: a text file and pictures of few levels, from the terminal."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ornstein.data import Classes, Quantised, Text, Transform
from ornstein.errors import InputError
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.texts import bits, blanks, fill
from ornstein.experiment.train import train

#: what each character is follows from the one before
BOOK = "abcdefgh" * 400
TINY = ["net.width=32", "net.depth=1", "net.heads_width=16", "training.precision=float32"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a text that is quickly learned."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "book.txt").write_text(BOOK)
    told = [f"data.path={folder / 'book.txt'}", "data.length=16", "training.steps=300", "training.validate_every=300"]
    ways = ["sampling.steps=8", "sampling.preview=2", "training.lr=3e-3"]
    for _ in train(Experiment.read("text", [*told, *TINY, *ways]), folder / "run"):
        pass
    return folder / "run"


def test_a_text_is_learned_printed_and_filled_in(run: Path, cli: Any, tmp_path: Path) -> None:
    opened = Run.load(run)
    found = bits(opened, opened.load_data().test, draws=8)
    assert found.bits.value < 1.5  # 3 without what stands beside; 3/16 is what a piece begins with
    result = cli("sample", str(run), "-n", "2", "--fill", "cd__gh", "--out", str(tmp_path / "a.txt"))
    assert result.code == 0, result.err
    first, _, second = (tmp_path / "a.txt").read_text().split("\n")[:3]
    assert first in result.out
    for line in (first, second):
        assert len(line) == 6
        assert (line[:2], line[4:]) == ("cd", "gh")
    drawn = fill(opened, blanks(opened, "cd__gh"), 60, seed=1)
    right = [text[:6] == "cdefgh" for text in opened.transform.texts(drawn)]
    assert sum(right) > 30
    result = cli("loglik", str(run), "test", "--out", str(tmp_path / "bits.csv"))
    assert "bits per character" in result.out, result.err
    rows = list(csv.DictReader((tmp_path / "bits.csv").open()))
    assert float(rows[0]["bits"]) == pytest.approx(float(rows[0]["nats"]) / (16 * math.log(2)), abs=1e-3)


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (["sample", "RUN", "--fill", "xyz"], "not seen in training"),
        (["sample", "RUN", "--fill", "a" * 17], "17 characters"),
        (["evaluate", "RUN"], "loglik"),
        (["sample", "RUN", "--stepper", "heun"], "heun"),
    ],
)
def test_what_a_text_cannot_be_asked_is_refused(run: Path, cli: Any, verb: list[str], words: str) -> None:
    result = cli(*(str(run) if word == "RUN" else word for word in verb))
    assert result.code == 2
    assert words in " ".join(result.err.split())


@pytest.mark.parametrize(("text", "words"), [("", "0 characters"), ("ab" * 20, "characters"), ("a" * 400, "different")])
def test_a_text_with_nothing_to_learn_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "book.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        Text(str(tmp_path / "book.txt"), length=16).load()


def test_levels_are_guided_by_their_label_and_by_a_classifier(tmp_path: Path, cli: Any) -> None:
    few = ["training.steps=30", "training.validate_every=30", "training.lr=4e-3", "training.batch_size=16", *TINY]
    for name, also in (("run", ["sampling.steps=6"]), ("classes", ["objective=token-classifier"])):
        for _ in train(Experiment.read("quantised-digits", [*few, *also]), tmp_path / name, draws=False):
            pass
    run, classes = (str(tmp_path / name) for name in ("run", "classes"))

    def drawn(*words: str) -> Any:
        told = ["sample", run, "-n", "2", "--label", "3", "--steps", "2", "--force", "--out", str(tmp_path / "x.npz")]
        answer = cli(*told, *words)
        assert answer.code == 0, answer
        return np.load(tmp_path / "x.npz")["samples"]

    opened, plain = Run.load(Path(run)), drawn()
    assert np.array_equal(drawn("--scale", "1"), plain)
    assert not np.array_equal(drawn("--scale", "50"), plain)
    free = drawn("--guidance", "classifier", "--guide", classes, "--scale", "0")
    assert not np.array_equal(drawn("--guidance", "classifier", "--guide", classes, "--scale", "3000"), free)
    picture = opened.load_data().test[0].float()
    picture[:, 4:] = torch.nan
    np.save(tmp_path / "half.npy", picture.numpy())
    np.save(tmp_path / "seven.npy", np.full((1, 8, 8), 7.0))
    halves = drawn("--fill", str(tmp_path / "half.npy"))
    assert np.array_equal(halves[:, :, :4], picture[None, :, :4].expand(2, -1, -1, -1).int().numpy())
    assert not np.array_equal(halves[0], halves[1])
    for words, said in (
        (["sample", run, "--fill", str(tmp_path / "seven.npy")], "from 0 to 3"),
        (["sample", run, "--fill", str(tmp_path / "none.npy")], "none.npy"),
        (["sample", run, "--scale", "2", "--interval", "1,2"], "takes no 'interval'"),
        (["sample", run, "--guidance", "classifier"], "--guide RUN"),
        (["sample", run, "--guidance", "classifier", "--guide", run], "no classifier"),
        (["sample", classes], "draws nothing"),
    ):
        answer = cli(*words)
        assert (answer.code, said in " ".join(answer.err.split())) == (2, True), answer


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("quantised-digits", ["process=uniform", "objective=score-entropy", *TINY]),
        ("quantised-digits", ["objective=token-classifier", *TINY]),
        ("text", ["data.path=book.txt", "data.length=16", *TINY]),
        ("labelled-moons", ["net.width=16"]),
    ],
)
def test_a_killed_run_goes_on_bit_for_bit(
    preset: str, changes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(BOOK)
    few = ["training.checkpoint_every=2", "training.log_every=1", "training.validate_every=100", "training.steps=5"]
    asked = Experiment.read(preset, [*changes, *few, "training.warmup=1", "training.batch_size=8"])
    for _ in train(asked, tmp_path / "whole", draws=False):
        pass
    for moment in train(asked, tmp_path / "killed", draws=False):
        if moment.progress.step >= 3:  # one step beyond what was saved
            break
    steps = [moment.progress.step for moment in train(asked, tmp_path / "killed", resume=True, draws=False)]
    assert steps[0] <= 3
    one, two = (Run.load(tmp_path / name).model.net.state_dict() for name in ("whole", "killed"))
    for name, weight in one.items():
        assert torch.equal(weight, two[name]), name


def test_quantised_digits_come_back_as_their_levels() -> None:
    data = Quantised("digits", 4).load()
    assert int(data.train.max()) == 3
    z = data.transform.forward(data.train[:5])
    assert torch.equal(data.transform.inverse(z), data.train[:5].int())
    shown = data.transform.pictures(z)
    assert (float(shown.min()), float(shown.max())) == (-1.0, 1.0)
    again = Transform.from_dict(data.transform.to_dict())
    assert isinstance(again, Classes)
    assert torch.equal(again.forward(data.train[:5]), z)
    with pytest.raises(InputError, match="17 levels"):
        Quantised("digits", 18).load()
