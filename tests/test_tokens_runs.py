"""Runs of tokens: a text file and pictures of few levels, from the terminal."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ornstein.data import Classes, Quantised, Text, Transform
from ornstein.data.before import load_as_before
from ornstein.data.standard import Digits
from ornstein.discrete import TOKEN_OBJECTIVES
from ornstein.discrete.counts import Counts
from ornstein.errors import InputError
from ornstein.experiment.build import load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.start import going_on
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
    told = [f"data.path={folder / 'book.txt'}", "data.length=16", "training.steps=200", "training.validate_every=200"]
    ways = ["sampling.steps=8", "sampling.preview=0", "training.lr=3e-3"]
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


def test_what_lies_beyond_the_end_of_a_text_costs_nothing(run: Path) -> None:
    """A call for each blank, of a model that was trained on 16 characters; without a mask all of them are drawn."""
    opened, calls = Run.load(run), []
    opened.denoiser.net.register_forward_hook(lambda *_: calls.append(1))
    for stepper, wanted in (("left-to-right", 3), ("first-hitting", 3), ("token-ancestral", 8)):
        calls.clear()
        drawn = fill(opened, blanks(opened, "a__d_f"), 2, seed=3, stepper=stepper)
        assert len(calls) == wanted
        for text in opened.transform.texts(drawn):
            assert text[6:] == "_" * 10
            assert "_" not in text[:6]
    plain = fill(opened, blanks(opened, "a__d_f" + "_" * 10), 2, seed=3)  # in order, so what follows changes nothing
    short = fill(opened, blanks(opened, "a__d_f"), 2, seed=3)
    assert torch.equal(plain[:, : 6 * 8], short[:, : 6 * 8])


def test_a_run_from_another_counts_its_own_text(run: Path, tmp_path: Path) -> None:
    """From the first step on, whatever the weights that it begins with; and it keeps these counts."""
    (tmp_path / "other.txt").write_text("hgfedcba" * 400)
    asked = going_on(run, str(tmp_path / "other.txt"), ["training.steps=3", "training.checkpoint_every=2"])
    for moment in train(asked, tmp_path / "run", draws=False):
        if moment.progress.step >= 2:
            break
    for _ in train(asked, tmp_path / "run", resume=True, draws=False):
        pass
    opened, before = Run.load(tmp_path / "run"), Run.load(run)
    assert opened.transform == before.transform
    assert opened.experiment.learner is not None
    data, expected = opened.load_data(), Counts(8, opened.experiment.learner["order"])
    expected.count(data.train[:: data.overlap])
    found = opened.denoiser.net.before
    assert torch.equal(found.table, expected.table)
    assert torch.equal(found.keys, expected.keys)
    assert not torch.equal(found.table, before.denoiser.net.before.table)


def test_other_data_are_read_in_the_classes_of_the_run_that_goes_on(run: Path, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("hgfe" * 800)
    data = load_data(going_on(run, str(tmp_path / "few.txt")))
    assert isinstance(data.transform, Classes)
    assert data.transform.spelled(data.train[:1]) == ["hgfe" * 4]
    (tmp_path / "new.txt").write_text("hgfx" * 800)
    old = Quantised("digits", 2).load()
    with pytest.raises(InputError, match="'x', which the run"):
        load_data(going_on(run, None, [f"data.path={tmp_path / 'new.txt'}"]))
    with pytest.raises(InputError, match=r"up to 2.*0\.\.1"):
        load_as_before(Quantised("digits", 3), old.fingerprint(), old.transform)
    with pytest.raises(InputError, match="goes on with a text"):
        load_as_before(Quantised("digits", 3), {}, data.transform)


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


#: objectives of the mask alone, and the preset that they go with
MASKED = {"masked-bound": ("quantised-digits", []), "left-to-right": ("text", ["data.path=book.txt", "data.length=16"])}


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        *(
            pytest.param(preset, [*changes, f"objective={name}", *TINY], id=name)
            for name in TOKEN_OBJECTIVES
            for preset, changes in [MASKED.get(name, ("quantised-digits", ["process=uniform"]))]
        ),
        pytest.param("quantised-digits", ["objective=token-classifier", *TINY], id="token-classifier"),
        pytest.param("labelled-moons", ["net.width=16"], id="joint"),
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


def test_classes_that_are_drawn_have_the_grey_as_their_mean() -> None:
    """Each is one of the two that the grey lies between; the mean over a data set is the grey's to a standard error."""
    grey = Digits().load()
    for classes in (2, 4, 17):
        drawn = Quantised("digits", classes, stochastic=True).load()
        for some, known in ((drawn.train, grey.train), (drawn.test, grey.test)):
            place = known.double() * (classes - 1) / 16
            assert bool((some >= place.floor()).all() & (some <= place.ceil()).all())
            part = place - place.floor()
            error = float((part * (1 - part)).sum().sqrt())
            assert abs(float(some.double().sum() - place.sum())) <= 4 * error
        again = Quantised("digits", classes, stochastic=True, labels=False).load()
        assert torch.equal(again.train, drawn.train)
        assert (set(drawn.conditions), set(again.conditions)) == ({"label"}, set())
