"""Drawn pictures as files, one each: `ornstein sample RUN --out FOLDER`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sure import Cli

from ornstein.data import open_data
from ornstein.data.transform import WholeNumbers
from ornstein.experiment.pictures import numbered, save_each


def held(folder: Path) -> dict[str, np.ndarray]:
    return {str(f.relative_to(folder)): np.asarray(Image.open(f)) for f in sorted(folder.rglob("*.png"))}


@pytest.mark.parametrize(
    ("channels", "grid"),
    [(1, WholeNumbers(256)), (3, WholeNumbers(256)), (4, WholeNumbers(256)), (1, WholeNumbers(65536)),
     (1, WholeNumbers(4096))],
)  # fmt: skip
def test_a_picture_comes_back_with_its_bits_and_channels(tmp_path: Path, channels: int, grid: WholeNumbers) -> None:
    dice = torch.Generator().manual_seed(0)
    x = torch.randint(0, grid.count, (3, channels, 5, 7), generator=dice).to(grid.dtype)
    save_each(grid.forward(x), grid, tmp_path, ["a", "b/c", "b/d"])
    found = held(tmp_path)
    assert list(found) == ["a.png", "b/c.png", "b/d.png"]
    for values, picture in zip(x, found.values(), strict=True):
        assert np.array_equal(picture.reshape(5, 7, channels), values.movedim(0, -1).numpy())
        assert picture.dtype == (np.uint8 if grid.count == 256 else np.uint16)


def test_few_levels_span_black_to_white(tmp_path: Path) -> None:
    grid = WholeNumbers(17)
    save_each(grid.forward(torch.tensor([0, 8, 16]).reshape(1, 1, 1, 3)), grid, tmp_path, ["a"])
    assert held(tmp_path)["a.png"].tolist() == [[0, 128, 255]]


def test_classes_are_folders_where_they_can_be() -> None:
    labels = torch.tensor([1, 0, -1])
    assert numbered(3, labels, ("cats", "my dogs")) == ["my dogs/00000", "cats/00001", "00002"]
    for word in ("..", "a/b", ".hidden", ""):
        assert numbered(3, labels, ("cats", word)) == ["00000", "00001", "00002"]
    assert numbered(2, None, ("cats",)) == ["00000", "00001"]


def test_a_folder_of_pictures_is_drawn_and_can_be_trained_on(cli: Cli, run: Path, tmp_path: Path) -> None:
    words: tuple[Any, ...] = ("sample", run, "--steps", "2", "--out")
    assert cli(*words, tmp_path / "new", "-n", "30").code == 0
    assert cli(*words, tmp_path / "new.npz", "-n", "30").code == 0
    found, arrays = held(tmp_path / "new"), np.load(tmp_path / "new.npz")
    for i, (label, values) in enumerate(zip(arrays["labels"], arrays["samples"], strict=True)):
        drawn = found.pop(f"{label}/{i:05d}.png")
        assert np.abs(drawn * (16 / 255) - values).max() < 0.5 + 16 / 500  # 0..16 are black to white, in bytes
    assert not found
    data = open_data(tmp_path / "new").load()
    assert (data.shape, data.classes) == ((1, 8, 8), tuple(map(str, range(10))))
    refused = cli(*words, tmp_path / "new", "-n", "3")
    assert refused.code == 2
    assert "is there already" in refused.err
    (tmp_path / "file").write_text("mine")
    assert "is a file: name a folder" in cli(*words, tmp_path / "file", "-n", "1", "--force").err
    assert (tmp_path / "file").read_text() == "mine"
    assert cli(*words, tmp_path / "new", "-n", "1", "--force").code == 0


def test_what_is_no_picture_has_no_folder_of_them(cli: Cli, tmp_path: Path) -> None:
    refused = cli("sample", "moons", "-n", "2", "--out", tmp_path / "new")
    assert refused.code == 2
    assert refused.err.rstrip().endswith("must end in .png (a picture) or .npz (arrays).")
    assert not (tmp_path / "new").exists()
