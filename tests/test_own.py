"""`ornstein train PATH`: a file or a folder is all that it needs."""

import shlex
import zipfile
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from sure import Cli

from ornstein.cli import training
from ornstein.data import ColumnType
from ornstein.errors import InputError
from ornstein.experiment import loglik, own
from ornstein.experiment.build import load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run


def photos(place: Path, *sizes: tuple[int, int], mode: str = "RGB") -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for i, (height, width) in enumerate(sizes):
        values = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(values).convert(mode).save(place / f"{i:03}.png")
    return place


def table(place: Path, rows: int = 60) -> Path:
    place.write_text("age,word,=pay\n" + "".join(f"{i % 23},{'abc'[i % 3]},{i / 4}\n" for i in range(rows)))
    return place


def refused(source: Any, *parts: str) -> None:
    with pytest.raises(InputError) as error:
        Experiment.read(source)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the sizes are those for a CPU")
def test_photos_of_any_size_get_one_that_fits_their_median(tmp_path: Path) -> None:
    place = photos(tmp_path / "photos", *[(90 + i, 200 + i) for i in range(9)], (30, 20))
    found = Experiment.read(place)
    assert found.data["name"] == "images"
    assert found.data["size"] == (32, 64)  # half as high as wide, to multiples of 8
    assert "94x204" in found.reasons["data.size"]
    assert found.net["patch"] == 2
    assert found.training.batch_size == 8
    assert found.training.steps >= 2000
    assert set(found.reasons) >= {"preset", "data.size", "net.patch", "training.batch_size", "training.steps"}
    small = Experiment.read(photos(tmp_path / "small", *[(9, 7)] * 4))
    assert small.data["size"] is None
    assert "9,7" in small.reasons["data.size"]


def test_what_is_said_beside_a_path_is_taken_as_said(tmp_path: Path) -> None:
    place = photos(tmp_path / "photos", *[(90, 200)] * 6)
    words = ["data.size=16,16", "training.steps=7", "training.batch_size=4", "net.channels=8"]
    found = Experiment.read(place, words)
    assert found.data["size"] == (16, 16)
    assert (found.training.steps, found.training.batch_size, found.net["channels"]) == (7, 4, 8)
    assert found.net["patch"] == 1
    assert not {"data.size", "training.steps", "training.batch_size", "net.patch"} & set(found.reasons)


def test_an_experiment_keeps_its_reasons(tmp_path: Path) -> None:
    found = Experiment.read(table(tmp_path / "t.csv"))
    (tmp_path / "again.yaml").write_text(found.to_yaml())
    assert Experiment.read(tmp_path / "again.yaml") == found
    assert "table" in found.reasons["preset"]
    assert "reasons" not in yaml.safe_load(Experiment.read("digits").to_yaml())


@pytest.mark.parametrize(
    ("shape", "kind", "net", "said"),
    [
        ((40, 5), float, "mlp", "vectors"),
        ((40, 3, 32), float, "unet", "series"),
        ((40, 12, 10), np.uint8, "unet", "images"),
        ((40, 1, 6, 6, 6), float, "unet", "volumes"),
    ],
)
def test_arrays_get_a_network_for_their_axes(tmp_path: Path, shape: Any, kind: Any, net: str, said: str) -> None:
    values = np.random.default_rng(0).integers(0, 200, shape).astype(kind)
    np.save(tmp_path / "x.npy", values)
    found = Experiment.read(tmp_path / "x.npy")
    assert found.data["name"] == "array"
    assert found.net["name"] == net
    assert said in found.reasons["preset"]


def test_what_else_data_may_be_is_said_with_a_command_that_can_be_copied(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is trained, and in one line that a shell takes as it stands."""
    monkeypatch.chdir(tmp_path)
    days = [f"2021-01-{1 + i // 24:02} {i % 24:02}:00,{i % 24}" for i in range(300)]
    Path("it's my days.csv").write_text("\n".join(["when,warmth", *days]))
    np.save("line.npy", np.arange(400.0))
    np.save("vol.npy", np.random.default_rng(0).normal(size=(40, 8, 8, 8)))
    for name, else_ in (("it's my days.csv", "series"), ("line.npy", "series"), ("vol.npy", "volumes")):
        said = [line for line in cli("train", name, "--show").out.splitlines() if line.startswith("  data: ")]
        again = cli(*shlex.split(said[0].partition(" use ornstein ")[2]), "--show")
        assert again.code == 0, again.err
        assert else_ in yaml.safe_load(again.out)["reasons"]["preset"]
        assert "data" not in yaml.safe_load(again.out)["reasons"]
    np.save("x.npy", np.ones((40, 2)))
    assert "data" not in Experiment.read(tmp_path / "x.npy").reasons


def test_a_file_can_be_said_to_be_a_series(tmp_path: Path) -> None:
    """The preset of series is taken, whatever is said before and after it, and nothing is guessed from rows."""
    np.save(tmp_path / "x.npy", np.ones(400))
    preset = Experiment.read("series", [f"data.path={tmp_path / 'x.npy'}", "data.window=16"])
    for words in (["data=series", "data.window=16"], ["data.window=16", "data=series"]):
        found = Experiment.read(tmp_path / "x.npy", words)
        assert replace(found, reasons={}) == preset
        assert list(found.reasons) == ["preset"]
    assert Experiment.read(tmp_path / "x.npy", ["data=series", "training.minutes=1"]).training.steps == own.ENDLESS


def test_a_file_can_be_said_to_be_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its name; as the preset has it. Where prose is taken for a table, the command for a text is said."""
    monkeypatch.chdir(tmp_path)
    prose = "One word, and another; then some more.\nA line\n, and, a, last, one.\n"
    for name in ("prose.txt", "prose.md", "prose", "it's prose.txt"):
        Path(name).write_text(prose)
        found = Experiment.read(name, ["data=text"])
        assert replace(found, reasons={}) == Experiment.read("text", [f"data.path={tmp_path / name}"])
        assert list(found.reasons) == ["preset"]
        with pytest.raises(InputError, match="text to learn from, use ornstein") as error:
            Experiment.read(name)
        words = shlex.split(str(error.value).partition(" use ornstein train ")[2].removesuffix("."))
        assert Experiment.read(words[0], words[1:]) == found
    assert Experiment.read(str(tmp_path / "prose.md"), ["data=text"]).data["name"] == "text"
    (tmp_path / "texts").mkdir()
    with pytest.raises(InputError, match="'texts' is a folder, and data=text takes one file"):
        Experiment.read("texts", ["data=text"])
    Path("words.txt").write_text("\n".join(f"word {i} of many" for i in range(99)))  # a table of names
    with pytest.raises(InputError, match=r"nothing to learn.*data\.types\.NAME=category, or data=text if it is a text"):
        load_data(Experiment.read("words.txt"))


def test_a_look_says_that_it_reads(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a file, if columns are named, which takes long of a large one; on a terminal."""
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "pay.csv")
    seen = StringIO()
    monkeypatch.setattr(training, "err", Console(file=seen, force_terminal=True))
    assert cli("train", "pay.csv", "--show").code == 0
    assert "reading the data" not in seen.getvalue()
    assert cli("train", "pay.csv", "data.types.age=category", "--show").code == 0
    assert "reading the data" in seen.getvalue()


def test_what_is_said_of_columns_is_refused_by_a_look_as_by_training(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "pay.csv")
    for change in ("data.types.aeg=category", "data.types.word=number", "data.types={age: colour}", "data.drop=wrod"):
        look, trained = cli("train", "pay.csv", change, "--show"), cli("train", "pay.csv", change, "--out", "no")
        assert (look.code, look.err) == (trained.code, trained.err), change
        assert (look.code, look.out) == (2, ""), change
    assert cli("train", "pay.csv", "data.types.age=category", "--show").code == 0


def test_broken_and_mixed_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    place = photos(tmp_path / "all", *[(20, 20)] * 12)
    photos(place / "one", (20, 30), (40, 20))
    photos(place / "two", (20, 30))
    found = Experiment.read(place)
    assert found.data["label"] == "none"
    assert "sub-folders" in found.reasons["data.label"]
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(place / "deep.png")
    (place / "odd.png").write_bytes(b"no picture")
    assert Experiment.read(place).data["mode"] == "RGB"


def test_what_cannot_be_trained_on_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "without pictures")
    table(tmp_path / "empty" / "t.csv")
    refused(tmp_path / "empty", "'t.csv'")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "empty" / "t.csv", "t.csv")
    refused(tmp_path / "x.zip", "zip without pictures", "'t.csv'", "unpack")
    (tmp_path / "no.zip").write_bytes(b"PK")
    refused(tmp_path / "no.zip", "damaged or no zip")
    refused(tmp_path / "nowhere.csv", "nowhere.csv", "not a file")
    Image.new("L", (8, 8)).save(tmp_path / "one.png")
    refused(tmp_path / "one.png", "is one picture", "a folder or a .zip of many")
    refused(tmp_path / "nowhere.jpg", "nowhere.jpg", "not a file", "folder or .zip of pictures")
    (tmp_path / "run").mkdir()
    for name in ("experiment.yaml", "run.yaml"):
        (tmp_path / "run" / name).write_text("{}")
    refused(tmp_path / "run", "--resume")
    np.save(tmp_path / "x.npy", np.zeros((4, 2, 2, 2, 2, 2)))
    refused(tmp_path / "x.npy", "2x2x2x2x2")


def test_a_word_that_is_a_preset_is_one_whatever_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "digits", *[(8, 8)] * 5)
    assert Experiment.read("digits").data["name"] == "digits"
    assert Experiment.read("./digits").data["name"] == "images"
    (tmp_path / "notes.docx").write_text("x")
    refused("notes.docx", "'notes.docx'", ".docx", ".csv")
    assert own.stem("photos/") == "photos"
    assert own.stem("a/adult.csv.gz") == "adult"
    assert own.stem("digits") == "digits"
    assert own.stem("my.v2.yaml") == "my.v2"
    assert own.stem(".") == tmp_path.name


@pytest.mark.parametrize(
    ("rows", "dropout", "steps"),
    [(600, 0.6, 300), (4_999, 0.6, 1_400), (5_000, 0.55, 2_100), (29_999, 0.55, None), (30_000, None, None)],
)
def test_few_rows_of_a_table_are_seen_less_often_by_less_of_the_network(
    rows: int, dropout: float | None, steps: int | None
) -> None:
    changes = own.sized(own.of_table({"name": "table"}, rows, 9), 512 if rows > 600 else 256, 8000).changes
    assert (changes.get("net.dropout"), changes.get("training.steps")) == (dropout, steps)


def test_a_table_is_trained_by_its_name_alone(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "pay.csv")
    short = ("training.steps=4", "training.validate_every=4", "sampling.preview=0", "net.width=16")
    answer = cli("train", "pay.csv", "data.types.age=category", *short)
    assert answer.code == 0, answer.err
    assert "category of 23" in answer.out
    assert "as data.types says" in answer.out
    assert "chosen" in answer.out
    about = yaml.safe_load((tmp_path / "runs/pay/run.yaml").read_text())
    types = [ColumnType.from_dict(column) for column in about["data"]["table"]]
    assert [kind.kind for kind in types] == ["category", "category", "number"]
    assert about["reasons"]["preset"].startswith("table")
    assert about["data"]["dialect"]["delimiter"] == ","
    assert cli("train", "pay.csv", "--out", "no", "data.types.aeg=category").code == 2
    assert cli("train", "pay.csv", "--out", "no", "data.types.word=number").code == 2
    assert not (tmp_path / "no" / "run.yaml").exists()


def test_a_folder_of_photos_is_trained_without_a_refusal(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a zip of it alike: what was done to the pictures is said of both."""
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos" / "far", *[(40 + 7 * i, 90 - 5 * i) for i in range(5)])
    photos(tmp_path / "photos" / "near", *[(75 + 7 * i, 65 - 5 * i) for i in range(5)], mode="L")
    Image.new("RGBA", (66, 40), (9, 9, 9, 0)).save(tmp_path / "photos" / "far" / "clear.png")
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        for file in sorted((tmp_path / "photos").rglob("*.png")):
            archive.write(file, file.relative_to(tmp_path))
    few = ("training.steps=2", "training.validate_every=2", "net.channels=8", "sampling.preview=2", "sampling.steps=2")
    said = []
    for place, run in (("photos/", "photos"), ("zipped.zip", "zipped")):
        answer = cli("train", place, *few)
        assert answer.code == 0, answer.err
        about = yaml.safe_load((tmp_path / f"runs/{run}/run.yaml").read_text())
        assert about["data"]["classes"] == ["far", "near"]
        assert "read as RGB; 5 of 11 grey in themselves; 1 of 11 transparent, laid on white" in answer.out
        assert "11 of 11 cropped at the centre and resized to" in answer.out
        said.append((about["reasons"]["data.size"], about["data"]["sha256"]))
    assert said[0] == said[1]
    given = [loglik.read(Run.load("runs/zipped"), place) for place in ("zipped.zip", "photos")]
    assert torch.equal(given[0].x, given[1].x)
    assert given[0].labels == given[1].labels == 5 * ["far"] + ["far"] + 5 * ["near"]
