"""Reading with care: nothing foreign runs, nothing blocks or explodes, nothing wrong passes, and axes go back out."""

import errno
import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sure import Cli

from ornstein.data import Affine, Array, ImageFolder, Layout, Transform, WholeNumbers, open_data, split
from ornstein.data import pictures as reader
from ornstein.data.array import read_rows
from ornstein.data.before import read_for_model
from ornstein.data.folder import lie
from ornstein.data.reading import read_arrays
from ornstein.errors import InputError, shown
from ornstein.files import named, regular

FUZZ = Path(__file__).with_name("fuzz_reading.py")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pixels(*shape: int, seed: int = 0, top: int = 256, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def saved(tmp_path: Path, values: np.ndarray | None = None, **arrays: Any) -> str:
    if values is not None:
        np.save(tmp_path / "x.npy", values)
        return str(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", **arrays)
    return str(tmp_path / "x.npz")


def photos(folder: Path, count: int, *shape: int, top: int = 256, dtype: Any = np.uint8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(pixels(*(shape or (6, 6)), seed=i, top=top, dtype=dtype)).save(folder / f"{i:02}.png")
    return folder


def refused(source: Any) -> str:
    with pytest.raises(InputError) as error:
        source.load()
    assert "\n" not in str(error.value)
    return str(error.value)


# --- everything malformed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_malformed_is_read_or_refused_in_a_sentence_within_bounds(tmp_path: Path, seed: int) -> None:
    found = subprocess.run(
        [sys.executable, "-W", "ignore", str(FUZZ), str(tmp_path), str(seed)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    result = json.loads(found.stdout)
    assert result["faults"] == []
    assert result["ended"]["read"] > 100
    assert result["ended"]["refused"] > 700
    assert result["slowest"][0] < 1, result["slowest"]
    assert result["megabytes"] < 500


def test_pillow_is_never_left_to_choose_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS makes it start Ghostscript: a program in the user's path that would run what the file says."""
    photos(tmp_path / "in", 3)
    ran = tmp_path / "ran"
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "gs"
    script.write_text(f"#!/bin/sh\ntouch {ran}\n")
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "in" / "x.png").write_bytes(eps)
    with pytest.raises(Exception), Image.open(tmp_path / "in" / "x.png") as image:  # noqa: B017  whatever it is
        image.load()
    assert ran.exists()  # so that the test can fail
    ran.unlink()
    assert "x.png cannot be read" in refused(ImageFolder(str(tmp_path / "in"), broken="stop"))
    assert not ran.exists()


def test_only_the_members_of_an_archive_that_are_used_are_read(tmp_path: Path) -> None:
    file = Path(saved(tmp_path, x=normal(20, 3), other=normal(20, 3)))
    whole = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        place = archive.getinfo("other.npy").header_offset
    whole[place + 200 : place + 240] = bytes(40)
    file.write_bytes(whole)
    assert Array(str(file), key="x").load().shape == (3,)
    assert "damaged" in refused(Array(str(file), key="other"))
    whole[whole.find(b"PK\x01\x02") + 8] |= 1  # the flag of encryption, of the first member
    file.write_bytes(whole)
    assert "is encrypted" in refused(Array(str(file), key="x"))


def test_what_a_header_declares_is_held_against_the_file(tmp_path: Path) -> None:
    file = Path(saved(tmp_path, normal(20, 3)))
    content = file.read_bytes().replace(b"(20, 3)", b"(20,99)")
    file.write_bytes(content)
    assert "declares 7,920 bytes of float32 and holds 240" in refused(Array(str(file)))
    (tmp_path / "x.npz").unlink(missing_ok=True)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", content)
    assert "declares 7,920 bytes" in refused(Array(str(tmp_path / "x.npz")))
    # more bytes than declared are no fault: several arrays may be saved to one file
    file.write_bytes(content.replace(b"(20,99)", b"(20, 3)") + b"more")
    assert len(Array(str(file)).load().train) == 18


def test_a_third_of_zeros_is_data_but_a_bomb_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = np.zeros((600, 1000), np.float32)
    sparse[:, :3] = normal(600, 3)
    np.savez_compressed(tmp_path / "x.npz", x=sparse)
    assert len(open_data(tmp_path / "x.npz").load().train) == 540
    monkeypatch.setattr("ornstein.data.reading.MOST_EXPANDED", 10**6)
    monkeypatch.setattr("ornstein.data.reading.MOST_TIMES", 50)
    assert "would grow from" in refused(open_data(tmp_path / "x.npz"))


def test_a_guard_names_what_it_found(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert regular(tmp_path / "link", "mask") == tmp_path / "link"
    for name, said in (
        ("pipe", "a pipe and not a file"),
        ("", "a folder and not"),
        ("loop", "cannot be reached"),
        ("nowhere", "is not a file; give a PNG"),
        ("file/x", "is not a file"),
        ("x" * 300, "cannot be reached"),
        ("\0", "zero character"),
    ):
        with pytest.raises(InputError, match=said) as error:
            regular(tmp_path / name, "mask", "a PNG")
        assert str(error.value).startswith("mask=")
    with pytest.raises(InputError, match="device"):
        regular("/dev/null", "data.path")
    with pytest.raises(InputError, match="not known here"):
        named("~nobody-of-that-name/x", "data.path")


def test_names_are_fit_for_print() -> None:
    assert shown("plain ü.png") == "plain ü.png"
    assert shown(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
    assert shown("a\nb") == "a\\nb"


# --- folders ---------------------------------------------------------------------------------------------------


def test_one_broken_photo_does_not_stop_a_folder_unless_asked(tmp_path: Path) -> None:
    photos(tmp_path, 20)
    whole = torch.cat([(data := ImageFolder(str(tmp_path)).load()).train, data.test])
    (tmp_path / "07.png").write_bytes(b"no picture")
    (tmp_path / "08.png").unlink()
    (tmp_path / "08.png").symlink_to("/nowhere")
    data = ImageFolder(str(tmp_path)).load()
    assert len(data.train) + len(data.test) == 18
    assert "left out 2 of 20 files that cannot be read, first 07.png" in data.describe()
    rows = {tuple(x.flatten().tolist()) for x in torch.cat([data.train, data.test])}
    assert rows <= {tuple(x.flatten().tolist()) for x in whole}
    assert len(rows) == 18
    assert refused(ImageFolder(str(tmp_path), broken="stop")).startswith("07.png cannot be read")
    (tmp_path / "09.png").write_bytes(b"nor this")
    message = refused(ImageFolder(str(tmp_path)))
    assert message.startswith("09.png cannot be read")
    assert "nor can 2 others: more than one in 10" in message
    with pytest.raises(InputError, match=r"data\.broken='maybe'"):
        ImageFolder(str(tmp_path), broken="maybe")  # type: ignore[arg-type]


def test_labels_stay_with_their_pictures_when_others_are_left_out(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / "ab"[i % 2] / f"{i:02}.png")
    (tmp_path / "a" / "02.png").write_bytes(b"")
    data = ImageFolder(str(tmp_path)).load()
    for part, labels in ((data.train, data.train_labels), (data.test, data.test_labels)):
        assert labels is not None
        assert torch.equal(part[:, 0, 0, 0] % 2, labels)


def test_pictures_that_are_not_read_are_named(tmp_path: Path) -> None:
    photos(tmp_path, 6)
    for name in ("IMG_1.HEIC", "IMG_2.heic", "x.avif", "notes.txt"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    assert (
        "left out 2 .heic, 1 .avif (not read; save them as png or jpg)" in ImageFolder(str(tmp_path)).load().describe()
    )
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    assert "x.jpg cannot be read as an image (its content is HEIC; save" in refused(
        ImageFolder(str(tmp_path), broken="stop")
    )
    for parts in lie(tmp_path).places:
        tmp_path.joinpath(*parts).unlink()
    assert "holds no images (4 other files, 2 .heic, 1 .avif)" in refused(ImageFolder(str(tmp_path)))


def test_a_class_folder_that_may_not_be_read_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        photos(tmp_path / name, 3)
    scandir = os.scandir

    def denied(place: Any) -> Any:  # whoever runs the tests may be allowed everything
        if str(place).endswith("b"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(place)

    monkeypatch.setattr("ornstein.data.folder.os.scandir", denied)
    assert "b cannot be read (Permission denied)" in refused(ImageFolder(str(tmp_path)))


def test_linked_class_folders_are_read_and_loops_end(tmp_path: Path) -> None:
    photos(tmp_path / "elsewhere", 4)
    photos(tmp_path / "root" / "a", 4)
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    data = ImageFolder(str(tmp_path / "root")).load()
    assert data.classes == ("a", "b")
    assert len(data.train) + len(data.test) == 8
    (tmp_path / "root" / "c").symlink_to(tmp_path / "elsewhere")
    assert "c and b in" in refused(ImageFolder(str(tmp_path / "root")))


def test_names_that_are_not_utf8_are_read_and_written_down(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xf6tos"))
    for part in (b"caf\xe9", b"tea"):
        photos(Path(os.fsdecode(os.fsencode(root) + b"/" + part)), 4)
    data = ImageFolder(str(root)).load()
    assert data.classes == ("caf\\xe9", "tea")
    assert data.name == "f\\xf6tos"
    yaml.safe_dump(data.fingerprint(), allow_unicode=True).encode()
    data.describe().encode()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (5, (5, 5)),
        ("5", (5, 5)),
        ("5,7", (5, 7)),
        ("5x7", (5, 7)),
        ("[5, 7]", (5, 7)),
        ((5, 7), (5, 7)),
        ([5, 7], (5, 7)),
    ],
)
def test_a_size_is_a_number_a_pair_or_text(tmp_path: Path, size: Any, expected: tuple[int, int]) -> None:
    data = ImageFolder(str(photos(tmp_path, 4)), size=size).load()
    assert data.shape == (1, *expected)
    assert "cropped at the centre and resized" in data.describe()


@pytest.mark.parametrize("size", ["", "5,", "a,b", "5,7,9", "-5,7", 0, True, 2.5, (5, 0), (5.5, 7), "5e3", 10**6])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(InputError, match=r"data\.size="):
        ImageFolder("x", size=size)


def test_a_relative_path_is_kept_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "here" / "photos", 4)
    saved(tmp_path / "here", normal(9, 2))
    monkeypatch.chdir(tmp_path / "here")
    sources = [ImageFolder("photos"), Array("x.npy")]
    monkeypatch.chdir(tmp_path)
    for source in sources:
        assert os.path.isabs(source.path)  # type: ignore[attr-defined]
        source.load()


def test_pictures_too_large_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path, 12)
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(tmp_path / "large.png")
    monkeypatch.setattr(reader, "MOST_PIXELS", 3599)
    monkeypatch.setattr(
        Image.Image, "load", lambda image: pytest.fail("decoded") if image.width == 60 else original(image)
    )
    assert "large.png is of 60x60 pixels, more than the 3,599" in refused(ImageFolder(str(tmp_path), broken="stop"))


original = Image.Image.load


def test_more_pictures_than_memory_holds_are_refused_at_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path, 12)
    monkeypatch.setattr(reader, "half_of_memory", lambda: 12 * 36 - 1)
    assert "data.size=H,W to resize them" in refused(ImageFolder(str(tmp_path)))


# --- pictures for a model --------------------------------------------------------------------------------------


def test_a_picture_of_the_data_comes_in_as_the_data_did(tmp_path: Path) -> None:
    """12 bits in a 16-bit file, 16 bits, 8 bits and colour."""
    kinds: dict[str, dict[str, Any]] = {
        "twelve": {"top": 4096, "dtype": np.uint16},
        "sixteen": {"top": 65_536, "dtype": np.uint16},
        "eight": {},
    }
    for name, options in kinds.items():
        folder = photos(tmp_path / name, 30, **options)
        data = ImageFolder(str(folder)).load()
        rows, _ = read_for_model([folder / "07.png"], data.shape, data.transform, resized=False)
        given = np.asarray(Image.open(folder / "07.png")).astype(np.int64)
        assert np.array_equal(rows[0, 0].numpy(), given)
        back = data.transform.inverse(data.transform.forward(rows), quantise=True)
        assert np.array_equal(back[0, 0].numpy(), given)
    colour = photos(tmp_path / "colour", 4, 6, 5, 3)
    data = ImageFolder(str(colour)).load()
    rows, _ = read_for_model([colour / "00.png"], data.shape, data.transform, resized=False)
    assert np.array_equal(rows[0].movedim(0, -1).numpy(), pixels(6, 5, 3, seed=0))


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (WholeNumbers(17), [0, 16]),
        (WholeNumbers(4096), [0, 4095]),
        (Affine(0.5, 0.5), [0.0, 1.0]),
        (Affine(0.0, 1.0), [-1.0, 1.0]),
    ],
)
def test_black_and_white_are_the_ends_of_the_range(tmp_path: Path, transform: Transform, expected: list[Any]) -> None:
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "x.png")
    assert read_for_model([tmp_path / "x.png"], (1, 1, 2), transform, False)[0].flatten().tolist() == expected


def test_a_picture_that_has_no_meaning_for_the_data_is_refused(tmp_path: Path) -> None:
    photos(tmp_path, 1)
    Image.fromarray(np.full((6, 6), 5000, np.uint16)).save(tmp_path / "deep.png")
    for file, shape, transform, said in (
        ("00.png", (2, 6, 6), WholeNumbers(256), "picture of 2 channels"),
        ("00.png", (1, 6, 6), Affine((0.5,), (0.5,)), "no range of black and white"),
        ("deep.png", (1, 6, 6), WholeNumbers(4096), "values up to 5000; this run's pictures end at 4095"),
    ):
        with pytest.raises(InputError, match=said):
            read_for_model([tmp_path / file], shape, transform, False)
    assert read_for_model([tmp_path / "00.png"], (1, 4, 3), WholeNumbers(256), True)[0].shape == (1, 1, 4, 3)
    assert read_for_model([tmp_path / "00.png"], (1, 4, 3), WholeNumbers(256), False)[0].shape == (1, 1, 6, 6)


# --- layouts ---------------------------------------------------------------------------------------------------

LAYOUTS = {
    "N": (9,), "ND": (9, 5), "NC": (9, 5), "NL": (9, 7), "NCL": (9, 2, 7), "NLC": (9, 7, 2), "NHW": (9, 5, 4),
    "NWH": (9, 5, 4), "NCHW": (9, 2, 5, 4), "NHWC": (9, 5, 4, 2), "NWHC": (9, 5, 4, 2), "NDHW": (9, 3, 4, 5),
    "NCDHW": (9, 2, 3, 4, 5), "NDHWC": (9, 3, 4, 5, 2), "": (9, 2, 3, 4, 5, 2),
}  # fmt: skip


@pytest.mark.parametrize("axes", LAYOUTS)
def test_what_comes_in_goes_back_out_exactly(axes: str) -> None:
    layout, x = Layout(axes), torch.from_numpy(normal(*LAYOUTS[axes]))
    z = layout.take_in(x)
    assert torch.equal(layout.give_back(z), x)
    for axis in set(axes) - {"D"} if axes == "ND" else set(axes):
        assert z.shape[layout.model.index(axis)] == x.shape[axes.index(axis)]
    assert layout.own(tuple(z.shape[1:])) == tuple(x.shape[1:])
    draws = torch.stack([z, z + 1], 1)  # rows and draws before the shape
    assert torch.equal(layout.give_back(draws.movedim(1, 0))[1], layout.give_back(z + 1))
    assert torch.equal(layout.give_back(draws.unflatten(0, (3, 3)))[1, 0, 1], layout.give_back(z[3:4] + 1)[0])
    # rows, one row, and rows in the model's order
    for given, expected in ((x, z), (x[2], z[2:3]), (z, z), (z[2], z[2:3])):
        if given.ndim:
            assert torch.equal(layout.rows(given, tuple(z.shape[1:])), expected)


@pytest.mark.parametrize("axes", ["HWN", "NHH", "NXY", "NH", "NDC", "hwc", "NHWCC"])
def test_letters_that_are_no_layout_are_refused(axes: str) -> None:
    with pytest.raises(InputError, match=r"data\.layout=.* is not known; use auto"):
        Array("x.npy", layout=axes)


@pytest.mark.parametrize(
    ("shape", "dtype", "axes"),
    [
        ((30, 24, 3), "f4", "NLC"),
        ((30, 3, 24), "f4", "NCL"),
        ((30, 24, 3), "u1", "NHW"),
        ((30, 6, 6), "f4", "NHW"),
        ((30, 6, 6, 2), "f4", "NHWC"),
        ((30, 2, 6, 6), "f4", "NCHW"),
        ((30, 1, 5, 6, 7), "f4", "NCDHW"),
        ((30, 5, 6, 7, 2), "f4", "NDHWC"),
        ((30,), "f4", "N"),
        ((30, 4), "i2", "ND"),
    ],
)
def test_own_arrays_are_taken_again_and_given_back(
    tmp_path: Path, shape: tuple[Any, ...], dtype: str, axes: str
) -> None:
    x = (60 * normal(*shape)).astype(dtype)
    data = Array(saved(tmp_path, x)).load()
    layout = Layout(data.fingerprint()["layout"])
    assert layout == data.layout == Layout(axes)
    assert len(shape) < 3 or f"axes read as {axes}" in data.describe()
    every = torch.cat([data.train, data.test]).float()
    assert sorted(layout.give_back(every).flatten(1).tolist() if x.ndim > 1 else every.tolist()) == sorted(
        x.astype(np.float32).reshape(30, -1).tolist()
    )
    rows, labels = read_rows(tmp_path / "x.npy", data.shape, layout)
    assert labels is None
    back = layout.give_back(data.transform.inverse(data.transform.forward(rows), quantise=True))
    np.testing.assert_allclose(back.numpy(), x, rtol=1e-5, atol=1e-4)


def test_a_series_is_scaled_by_feature_whatever_its_axes(tmp_path: Path) -> None:
    places = np.stack([10 + 6 * normal(500, 24), 1013 + 5 * normal(500, 24, seed=1), 0.1 * normal(500, 24, seed=2)], 2)
    for layout, values in (
        ("auto", places),
        ("NLC", places),
        ("NCL", places.swapaxes(1, 2)),
        ("auto", places.swapaxes(1, 2)),
    ):
        data = Array(saved(tmp_path, values), layout=layout).load()
        assert data.shape == (3, 24)
        spread = data.transform.forward(data.train).std((0, 2))
        assert ((spread > 0.95) & (spread < 1.05)).all()
        assert "differ" not in data.describe()
    # where the axes are taken for each other, it is said
    wrong = Array(saved(tmp_path, places), layout="NCL").load().describe()
    assert "the places of a series differ" in wrong
    assert "data.layout=NLC" in wrong


def test_rows_may_miss_values_where_that_is_asked_for(tmp_path: Path) -> None:
    x = normal(4, 6, 6, 3)
    x[1, 2] = np.nan
    rows, _ = read_rows(Path(saved(tmp_path, x)), (3, 6, 6), Layout("NHWC"), missing=True)
    assert torch.equal(rows.isnan(), torch.from_numpy(np.isnan(x)).movedim(-1, 1))
    with pytest.raises(InputError, match="NaN or infinite"):
        read_rows(tmp_path / "x.npy", (3, 6, 6), Layout("NHWC"))
    x[0, 0] = np.inf
    with pytest.raises(InputError, match="infinite, first at"):
        read_rows(Path(saved(tmp_path, x)), (3, 6, 6), Layout("NHWC"), missing=True)
    with pytest.raises(InputError, match="split real and imaginary parts"):
        read_rows(Path(saved(tmp_path, x.astype("c8"))), (3, 6, 6), Layout("NHWC"), missing=True)
    with pytest.raises(InputError, match=r"input=.* has shape 4x6; one example of these data has shape 6x6x3"):
        read_rows(Path(saved(tmp_path, normal(4, 6))), (3, 6, 6), Layout("NHWC"))


def test_what_sampling_wrote_is_read(tmp_path: Path) -> None:
    file = saved(
        tmp_path,
        samples=normal(4, 2),
        seeds=np.arange(4),
        labels=np.array([1, 0, -1, 1]),
        classes=np.array(["ham", "spam"]),
    )
    rows, labels = read_rows(file, (2,), Layout("ND"))
    assert rows.shape == (4, 2)
    assert labels == ["spam", "ham", "-1", "spam"]


# --- labels ----------------------------------------------------------------------------------------------------


def test_minus_one_is_no_label(tmp_path: Path) -> None:
    x, y = normal(60, 2), np.arange(60) % 3 - 1
    x[:, 0] = y
    for labels in (y, y.astype(float), y.astype(str)):
        data = Array(saved(tmp_path, x=x, labels=labels)).load()
        assert data.classes == ("0", "1")
        for part, found in ((data.train, data.train_labels), (data.test, data.test_labels)):
            assert found is not None
            assert torch.equal(found, part[:, 0].long())
        assert "20 examples without a label (-1)" in data.describe()
    data = Array(saved(tmp_path, x=x, labels=np.full(60, -1))).load()
    assert data.train_labels is None
    assert "all -1, none" in data.describe()
    given = {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9]}
    test = Array(saved(tmp_path, **given)).load().test_labels
    assert test is not None
    assert test.tolist() == y[:9].tolist()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.where(np.arange(60) == 7, np.inf, 1.0), "NaN or infinite, first inf at 7"),
        (np.where(np.arange(60) == 9, np.nan, 1.0), "NaN or infinite, first nan at 9"),
        (np.full(60, 1e300), "not whole"),
        (np.arange(60) * 1j, "complex128"),
        (np.arange(60.0), "60 different values in 60 examples, which look like measurements"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path: Path, labels: np.ndarray, said: str) -> None:
    message = refused(Array(saved(tmp_path, x=normal(60, 2), y=labels)))
    assert said in message
    assert "data.labels_key" in message


def test_many_classes_are_remarked(tmp_path: Path) -> None:
    data = Array(saved(tmp_path, x=normal(90, 2), y=np.arange(90))).load()
    assert "90 classes for 90 examples: if 'y' are no classes, use data.labels_key=none" in data.describe()


def test_numbers_count_the_names_that_the_file_has(tmp_path: Path) -> None:
    x, y = normal(30, 2), np.arange(30) % 3
    x[:, 0] = y
    data = Array(saved(tmp_path, x=x, labels=y, classes=np.array(["zebra", "ant", "cow"]))).load()
    assert data.classes == ("ant", "cow", "zebra")
    assert data.train_labels is not None
    assert [["zebra", "ant", "cow"].index(data.classes[i]) for i in data.train_labels] == data.train[:, 0].tolist()
    for classes in (np.array(["a", "b"]), np.array([["a", "b", "c"]]), np.array([0.5, 1, 2])):
        assert "does not fit the file's" in refused(Array(saved(tmp_path, x=x, labels=y, classes=classes)))


@pytest.mark.parametrize("seed", range(8))
def test_no_class_is_lost_to_the_held_out_part(seed: int) -> None:
    labels = torch.tensor([0] * 40 + [1] + [2] * 20 + [3] + [-1] * 3)
    train, test = split(len(labels), 0.3, seed, labels)
    assert set(labels[train].tolist()) == {-1, 0, 1, 2, 3}
    assert len(test) == 20
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(labels)))


def test_a_class_that_is_not_held_out_or_not_trained_is_said(tmp_path: Path) -> None:
    labels = np.array(["many"] * 40 + ["one"])
    data = Array(saved(tmp_path, x=normal(41, 2), y=labels)).load()
    assert "no held-out example of 1 class (one)" in data.describe()
    for part, names in (("train", "ab"), ("test", "bc")):
        for name in names:
            photos(tmp_path / "f" / part / name, 3)
    said = ImageFolder(str(tmp_path / "f")).load().describe()
    assert "no training example of 1 class (c); no held-out example of 1 class (a)" in said


# --- what one scale cannot serve -------------------------------------------------------------------------------


def test_data_that_one_scale_cannot_serve_are_remarked(tmp_path: Path) -> None:
    x = normal(3000, 4)
    assert "outliers" not in Array(saved(tmp_path, x)).load().describe()
    x[5, 2] = 1e4
    said = Array(saved(tmp_path, x), test_fraction=0.001).load().describe()
    assert "outliers: feature 2 reaches 55 deviations" in said
    assert "clip such values, or take logarithms" in said
    mixed = normal(300, 3)
    mixed[:, 1] = np.arange(300) % 2
    assert "feature 1 takes 2 whole values among measurements" in Array(saved(tmp_path, mixed)).load().describe()
    dim = pixels(40, 6, 6, top=900, dtype=np.uint16)
    dim[0, 0, 0] = 65_535
    assert "channel 0 has deviation 0.0" in Array(saved(tmp_path, dim)).load().describe()
    assert "deviation" not in Array(saved(tmp_path, pixels(40, 6, 6))).load().describe().replace("sigma", "")


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30, 1e36])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_extreme_numbers_are_served_where_float32_holds_them(tmp_path: Path, scale: float, kind: str) -> None:
    x = (scale * normal(60, 3)).astype(kind)
    data = Array(saved(tmp_path, x)).load()
    z, _ = data.batch(0, 54, 0)
    assert z.std().item() == pytest.approx(1, abs=0.02)
    far = data.transform.inverse(8 * torch.ones(1, 3))
    assert far.isfinite().all()
    assert (far > 5 * scale).all()
    json.dumps(data.fingerprint(), allow_nan=False)


@pytest.mark.parametrize("scale", [1e38, 1e-40, 1e-45])
def test_extreme_numbers_beyond_float32_are_refused(tmp_path: Path, scale: float) -> None:
    for kind in ("f4", "f8"):
        x = (scale * np.random.default_rng(0).uniform(-3, 3, (60, 3))).astype(kind)
        message = refused(Array(saved(tmp_path, x)))
        assert "float32" in message
        assert "rescale" in message


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.usefixtures("brief_reports")
def test_extreme_numbers_go_from_training_to_a_report(cli: Cli, tmp_path: Path, scale: float) -> None:
    """Samples are finite and of the data's size, and every file of figures is JSON as the standard has it."""
    path, run = saved(tmp_path, (scale * normal(120, 3)).astype("f4")), tmp_path / "run"
    few = ["net={name: mlp, width: 16, depth: 1}", "training.steps=3", "training.cpu=true", "sampling.preview=0"]
    answer = cli("train", "array", f"data.path={path}", *few, "--out", run)
    assert answer.code == 0, answer
    answer = cli("sample", run, "-n", 20, "--steps", 3, "--out", tmp_path / "drawn.npz")
    assert answer.code == 0, answer
    drawn = np.load(tmp_path / "drawn.npz")["samples"] / scale
    assert np.isfinite(drawn).all()
    assert 0.1 < drawn.std() < 10
    answer = cli("evaluate", run, "-n", 20, "--steps", 3)
    assert answer.code == 0, answer
    for line in [(run / "evaluation.json").read_text(), *(run / "metrics.jsonl").read_text().splitlines()]:
        json.loads(line, parse_constant=pytest.fail)


def test_the_arrays_of_a_file_are_a_mapping(tmp_path: Path) -> None:
    arrays = read_arrays(Path(saved(tmp_path, a=normal(3), b=np.arange(4))))
    assert (list(arrays), len(arrays), "a" in arrays, "c" in arrays) == (["a", "b"], 2, True, False)
    assert arrays.get("c") is None
    assert arrays["b"].tolist() == [0, 1, 2, 3]
    with pytest.raises(KeyError):
        arrays["c"]


# --- through the command line ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("brief_reports")
def test_a_run_finds_its_data_from_another_folder_and_gives_back_their_axes(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without a label too: `train`, `evaluate` from elsewhere, and what `sample` wrote into `loglik`."""
    names = np.array(["ham", "spam", "-1"])[np.arange(120) % 3]
    saved(tmp_path, x=normal(120, 6, 2), labels=names)
    few = ["training.steps=1", "training.validate_every=1", "training.batch_size=8", "sampling.preview=0"]
    monkeypatch.chdir(tmp_path)
    net = "net={name: mlp, width: 16, depth: 1}"
    answer = cli("train", "array", "data.path=x.npz", net, *few, "training.cpu=true", "--out", "run")
    assert answer.code == 0, answer
    assert "axes read as NLC" in answer.out + answer.err
    monkeypatch.chdir("/")
    run = tmp_path / "run"
    assert cli("evaluate", run, "-n", "8", "--steps", "2").code == 0
    assert cli("sample", run, "-n", "4", "--steps", "2", "--out", tmp_path / "own.npz").code == 0
    with np.load(tmp_path / "own.npz") as made:
        assert made["samples"].shape == (4, 6, 2)
        assert made["classes"].tolist() == ["ham", "spam"]
    words = ["--conditional", "--reference", "0", "--out", tmp_path / "own.csv"]
    answer = cli("loglik", run, tmp_path / "own.npz", *words)
    assert answer.code == 0, answer
    answer = cli(
        "train", "array", f"data.path={tmp_path / 'x.npz'}", "objective=classifier", *few, "--out", tmp_path / "c"
    )
    assert answer.code == 2
    assert "a label for every example" in answer.err


def test_a_twelve_bit_scan_comes_back_from_inpainting_as_it_was(cli: Cli, tmp_path: Path) -> None:
    photos(tmp_path / "scans", 30, 8, 8, top=4096, dtype=np.uint16)
    Image.fromarray(np.where(np.arange(8) < 3, 255, 0).astype(np.uint8)[:, None].repeat(8, 1)).save(
        tmp_path / "mask.png"
    )
    few = ["training.steps=1", "training.validate_every=1", "training.batch_size=8", "sampling.preview=0"]
    net = "net={name: mlp, width: 16, depth: 1}"
    where = [f"data.path={tmp_path / 'scans'}", "data.size=8,8", "--out", tmp_path / "run"]
    answer = cli("train", "images", net, *few, "training.cpu=true", *where)
    assert answer.code == 0, answer
    words = ["--input", tmp_path / "scans" / "07.png", "--mask", tmp_path / "mask.png", "-n", "2", "--steps", "2"]
    answer = cli("inpaint", tmp_path / "run", *words, "--out", tmp_path / "f.png")
    assert answer.code == 0, answer
    given = np.asarray(Image.open(tmp_path / "scans" / "07.png"))
    with np.load(tmp_path / "f.npz") as made:
        for draw in made["samples"][0, :, 0]:
            assert np.array_equal(draw[3:], given[3:])
