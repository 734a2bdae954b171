"""Reading files: what is written is what is read, and every way to be wrong is one sentence."""

import gzip
import hashlib
import io
import math
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ornstein.data import CIFAR10, MNIST, Affine, Array, FashionMNIST, ImageFolder, WholeNumbers, open_data
from ornstein.data.before import read_for_model
from ornstein.data.pictures import whole_levels
from ornstein.errors import InputError
from ornstein.experiment.pictures import image_grid
from ornstein.files import fetch

SHARED = Path(os.environ.get("ORNSTEIN_DATA") or Path(__file__).parents[2] / "shared" / "data")


def shared(*names: str) -> Path:
    for name in names:
        if not (SHARED / name).is_file():
            pytest.skip(f"{name} is not in ORNSTEIN_DATA or ../shared/data")
    return SHARED


def pixels(*shape: int, seed: int = 0, top: int = 256, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def write(path: Path, image: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def one_sentence(error: pytest.ExceptionInfo[Any]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def rows(x: torch.Tensor) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, x.flatten(1).tolist()))


# --- folders of images -----------------------------------------------------------------------------------------


def test_a_folder_of_colour_images_is_read_exactly_with_its_classes(tmp_path: Path) -> None:
    images = {f"{label}/deep/er/{i}.png": pixels(5, 7, 3, seed=i) for i, label in enumerate("abcabcabcabc")}
    for name, image in images.items():
        write(tmp_path / name, image)
    write(tmp_path / ".hidden" / "x.png", pixels(9, 9))
    write(tmp_path / "a" / ".hidden.png", pixels(9, 9))
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    data = open_data(tmp_path, test_fraction=0.25).load()
    assert (data.shape, data.kind, data.classes) == ((3, 5, 7), "image", ("a", "b", "c"))
    assert (len(data.train), len(data.test)) == (9, 3)
    assert data.test_labels is not None
    assert data.train_labels is not None
    assert sorted(data.test_labels.tolist()) == [0, 1, 2]
    expected = {tuple(v.transpose(2, 0, 1).reshape(-1).tolist()): "abc".index(k[0]) for k, v in images.items()}
    for part, labels in ((data.train, data.train_labels), (data.test, data.test_labels)):
        for image, label in zip(part, labels, strict=True):
            assert expected[tuple(image.flatten().tolist())] == label
    assert data.transform == WholeNumbers(256)
    z, _ = data.batch(0, 9, 0)
    assert rows(data.transform.inverse(z, quantise=True)) == rows(data.train)


def test_grey_stays_grey_unless_a_colour_file_is_among_them(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", pixels(4, 4, seed=i))
    assert ImageFolder(str(tmp_path)).load().shape == (1, 4, 4)
    rgb = ImageFolder(str(tmp_path), mode="RGB").load()
    assert rgb.shape == (3, 4, 4)
    assert torch.equal(rgb.train[:, 0], rgb.train[:, 2])
    colour = pixels(4, 4, 3, seed=9)
    write(tmp_path / "z.png", colour)
    mixed = ImageFolder(str(tmp_path)).load()
    everything = torch.cat([mixed.train, mixed.test])
    assert mixed.shape == (3, 4, 4)
    assert rows(torch.from_numpy(colour).movedim(-1, 0)[None])[0] in rows(everything)
    assert rows(torch.from_numpy(pixels(4, 4, seed=1)).expand(1, 3, 4, 4))[0] in rows(everything)
    assert ImageFolder(str(tmp_path), mode="L").load().shape == (1, 4, 4)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tif", ".PNG", ".ppm", ".gif"])
def test_lossless_formats_agree(tmp_path: Path, suffix: str) -> None:
    flat = [np.full((6, 5, 3), (40 * i, 200, 10), np.uint8) for i in range(4)]  # few colours, for .gif's palette
    for i, image in enumerate(flat):
        write(tmp_path / f"{i}{suffix}", image, **({"lossless": True} if suffix == ".webp" else {}))
    data = ImageFolder(str(tmp_path)).load()
    expected = torch.from_numpy(np.stack(flat)).movedim(-1, 1)
    assert rows(torch.cat([data.train, data.test]))[0] == rows(expected)[0]
    assert rows(torch.cat([data.train, data.test])) == rows(expected)


def test_transparency_is_composited_on_white(tmp_path: Path) -> None:
    image = np.zeros((2, 3, 4), np.uint8)
    image[:, 0] = (255, 0, 0, 255)  # opaque red, then half-transparent black, then nothing
    image[:, 1] = (0, 0, 0, 128)
    for i in range(3):
        write(tmp_path / f"{i}.png", image)
    data = ImageFolder(str(tmp_path)).load()
    x = data.train[0]
    assert "3 of 3 transparent, laid on white (data.background=COLOUR; data.mode=RGBA" in data.describe()
    assert x[:, 0, 0].tolist() == [255, 0, 0]
    assert x[:, 0, 1].tolist() == [127, 127, 127]
    assert x[:, 0, 2].tolist() == [255, 255, 255]
    blue = ImageFolder(str(tmp_path), background="#0000ff").load()
    assert blue.train[0, :, 0, 2].tolist() == [0, 0, 255]
    assert "laid on #0000ff" in blue.describe()
    kept = ImageFolder(str(tmp_path), mode="RGBA").load()
    assert kept.shape == (4, 2, 3)
    assert torch.equal(kept.train[0].movedim(0, -1), torch.from_numpy(image))
    assert "read as RGBA" in kept.describe()
    assert "transparent" not in kept.describe()
    again, _ = read_for_model([tmp_path / "0.png"], kept.shape, kept.transform, resized=False)
    assert torch.equal(again[0], kept.train[0])
    shown = np.asarray(image_grid(kept.transform.forward(again), side=4))
    assert [tuple(shown[1, 1 + k]) for k in range(3)] == [(255, 0, 0), (127, 127, 127), (255, 255, 255)]
    for wrong in ("whitish", 7, "#12345678", None):
        with pytest.raises(InputError, match=r"data\.background="):
            ImageFolder(str(tmp_path), background=wrong)  # type: ignore[arg-type]


def test_colour_of_sixteen_bits_is_read_at_eight_and_that_is_said(tmp_path: Path) -> None:
    for i in range(3):
        scan = b"\0" + struct.pack(">6H", 65535, 257 * i, 0, 300, 300, 300)
        parts = [
            (b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(scan)),
            (b"IEND", b""),
        ]
        chunks = (
            struct.pack(">I", len(body)) + k + body + struct.pack(">I", zlib.crc32(k + body)) for k, body in parts
        )
        (tmp_path / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    data = ImageFolder(str(tmp_path)).load()
    assert data.train.dtype == torch.uint8
    assert data.train[:, 0, 0, 0].tolist() == [255] * 2
    assert "3 of 3 of 16 bits, read at 8" in data.describe()


def test_grey_with_transparency_stays_one_channel(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").parent.mkdir(exist_ok=True)
        Image.merge("LA", [Image.new("L", (2, 2), 10), Image.new("L", (2, 2), 0)]).save(tmp_path / f"{i}.png")
    data = ImageFolder(str(tmp_path)).load()
    assert data.shape == (1, 2, 2)
    assert (data.train == 255).all()


def test_sixteen_bits_are_kept_or_reduced_when_asked(tmp_path: Path) -> None:
    deep = [pixels(3, 4, seed=i, top=65_536, dtype=np.uint16) for i in range(4)]
    for i, image in enumerate(deep):
        image[0, 0] = 65_535
        write(tmp_path / f"{i}.png", image)
    data = ImageFolder(str(tmp_path)).load()
    assert data.train.dtype == torch.int32
    assert data.transform == WholeNumbers(65_536)
    assert rows(torch.cat([data.train, data.test])) == rows(torch.from_numpy(np.stack(deep).astype(np.int32)))
    z, _ = data.batch(0, 3, 0)
    assert rows(data.transform.inverse(z, quantise=True)) == rows(data.train)
    eight = ImageFolder(str(tmp_path), mode="L").load()
    assert eight.train.dtype == torch.uint8
    assert "read as 16-bit grey" in data.describe()
    assert "read as grey; 4 of 4 of 16 bits, read at 8" in eight.describe()
    reduced = np.round(np.stack(deep) / 257).astype(np.uint8)
    assert rows(torch.cat([eight.train, eight.test])) == rows(torch.from_numpy(reduced))
    write(tmp_path / "9.png", pixels(3, 4))
    with pytest.raises(InputError, match="differ in bits") as error:
        ImageFolder(str(tmp_path)).load()
    assert "9.png" in one_sentence(error)


def test_a_camera_held_upright_is_turned(tmp_path: Path) -> None:
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, :4] = 255  # the left half is white: turned by a quarter clockwise it is the upper half
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(3):
        write(tmp_path / f"{i}.png", image, exif=exif)
    x = ImageFolder(str(tmp_path)).load().train[0]
    assert x.shape == (3, 8, 4)
    assert (x[:, :4] == 255).all()
    assert (x[:, 4:] == 0).all()


def test_resizing_crops_at_the_centre_and_does_not_alias(tmp_path: Path) -> None:
    stripes = np.zeros((32, 64), np.uint8)
    stripes[:, 16:48] = np.where(np.arange(32) % 2, 255, 0)  # one pixel wide, in the central square alone
    for i in range(3):
        write(tmp_path / f"{i}.png", stripes)
    x = ImageFolder(str(tmp_path), size=8).load().train[0, 0].float()
    assert x.shape == (8, 8)
    assert (x - 127.5).abs().max() < 30  # without a filter they would be 0 or 255
    assert abs(x.mean().item() - 127.5) < 3
    tall = ImageFolder(str(tmp_path), size=(64, 16)).load()
    assert tall.shape == (1, 64, 16)
    assert ImageFolder(str(tmp_path), size=(32, 64)).load().train[0, 0].equal(torch.from_numpy(stripes))


def test_size_makes_mixed_sizes_agree(tmp_path: Path) -> None:
    for i, shape in enumerate([(8, 8), (8, 8), (9, 12), (20, 7)]):
        write(tmp_path / f"{i}.png", pixels(*shape))
    with pytest.raises(InputError) as error:
        ImageFolder(str(tmp_path)).load()
    message = one_sentence(error)
    assert "0.png is 8x8" in message
    assert "2.png is 9x12" in message
    assert "size=H,W" in message
    assert ImageFolder(str(tmp_path), size=(6, 5)).load().shape == (1, 6, 5)


def test_folders_called_train_and_test_are_the_split(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", np.full((2, 2), i, np.uint8))
    for i in range(2):
        write(tmp_path / "val" / "ab"[i] / f"{i}.png", np.full((2, 2), 100 + i, np.uint8))
    data = ImageFolder(str(tmp_path)).load()
    assert data.train[:, 0, 0, 0].tolist() == [0, 2, 1, 3]
    assert data.test[:, 0, 0, 0].tolist() == [100, 101]
    assert data.classes == ("a", "b")
    assert data.train_labels is not None
    assert data.train_labels.tolist() == [0, 0, 1, 1]


def test_labels_follow_the_rule_and_stray_images_are_named(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / "only" / f"{i}.png", pixels(2, 2))
    assert ImageFolder(str(tmp_path)).load().classes == ()
    assert ImageFolder(str(tmp_path), label="folder").load().classes == ("only",)
    write(tmp_path / "more" / "5.png", pixels(2, 2))
    assert ImageFolder(str(tmp_path)).load().classes == ("more", "only")
    assert ImageFolder(str(tmp_path), label="none").load().train_labels is None
    write(tmp_path / "stray.png", pixels(2, 2))
    with pytest.raises(InputError) as error:
        ImageFolder(str(tmp_path)).load()
    assert "'stray.png' lies in none" in one_sentence(error)


@pytest.mark.parametrize("damage", ["text", "truncated", "empty"])
def test_a_corrupt_image_is_named(tmp_path: Path, damage: str) -> None:
    for i in range(4):
        write(tmp_path / f"{i}.jpg", pixels(64, 64, 3))
    whole = (tmp_path / "2.jpg").read_bytes()
    broken = {"text": b"this is no image", "truncated": whole[: len(whole) // 2], "empty": b""}[damage]
    (tmp_path / "2.jpg").write_bytes(broken)
    with pytest.raises(InputError) as error:
        ImageFolder(str(tmp_path)).load()
    assert one_sentence(error).startswith("2.jpg cannot be read")


def test_a_folder_without_images_says_what_it_has(tmp_path: Path) -> None:
    for name in ("a.txt", "b.csv"):
        (tmp_path / name).write_text("x")
    for path, match in ((tmp_path, "no images .2 other files"), (tmp_path / "nowhere", "not a folder")):
        with pytest.raises(InputError, match=match) as error:
            ImageFolder(str(path)).load()
        one_sentence(error)
    write(tmp_path / "one.png", pixels(2, 2))
    with pytest.raises(InputError, match="1 example; at least 3"):
        ImageFolder(str(tmp_path)).load()


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.tif", np.random.default_rng(i).random((4, 4), np.float32))
    with pytest.raises(InputError, match=r"0\.tif has floating-point pixels"):
        ImageFolder(str(tmp_path)).load()


@pytest.mark.parametrize("arguments", [{"size": 0}, {"size": (3,)}, {"mode": "CMYK"}, {"label": "name"}])
def test_arguments_of_a_folder_are_checked(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        ImageFolder("x", **arguments)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, WholeNumbers(2)),
        (0, 16, WholeNumbers(17)),
        (0, 127, WholeNumbers(128)),
        (0, 128, WholeNumbers(256)),
        (0, 255, WholeNumbers(256)),
        (0, 256, WholeNumbers(1024)),
        (3, 4000, WholeNumbers(4096)),
        (0, 65_535, WholeNumbers(65_536)),
        (-3, 4, WholeNumbers(8, -3)),
    ],
)
def test_the_grid_of_whole_numbers(low: int, high: int, expected: WholeNumbers) -> None:
    assert whole_levels(low, high) == expected


# --- arrays ----------------------------------------------------------------------------------------------------


def save(tmp_path: Path, values: np.ndarray | None = None, **arrays: Any) -> Path:
    if values is not None:
        np.save(tmp_path / "x.npy", values)
        return tmp_path / "x.npy"
    np.savez(tmp_path / "x.npz", **arrays)
    return tmp_path / "x.npz"


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "seen"),
    [
        ((12,), np.float32, "vector", (1,)),
        ((12, 5), np.float32, "vector", (5,)),
        ((12, 5), np.uint8, "vector", (5,)),
        ((12, 5, 7), np.uint8, "image", (1, 5, 7)),
        ((12, 5, 7), np.float32, "array", (5, 7)),
        ((12, 7, 7), np.float32, "image", (1, 7, 7)),
        ((12, 5, 7, 3), np.uint8, "image", (3, 5, 7)),
        ((12, 3, 5, 7), np.uint8, "image", (3, 5, 7)),
        ((12, 3, 5, 3), np.uint8, "image", (3, 5, 3)),
        ((12, 5, 7, 4), np.float32, "image", (4, 5, 7)),
        ((12, 6, 5, 7), np.float32, "image", (6, 5, 7)),
        ((12, 2, 3, 4, 5), np.float32, "array", (2, 3, 4, 5)),
    ],
)
def test_axes_are_read_by_the_rule(
    tmp_path: Path, shape: tuple[Any, ...], dtype: type, kind: str, seen: tuple[Any, ...]
) -> None:
    values: np.ndarray = np.random.default_rng(0).normal(100, 30, shape).astype(dtype)
    data = open_data(save(tmp_path, values)).load()
    assert (data.kind, data.shape) == (kind, seen)
    channels_last = shape[-1] == seen[0] and len(shape) == 4 and shape[1:] != seen
    expected = np.moveaxis(values, -1, 1) if channels_last else values
    assert rows(torch.cat([data.train, data.test])) == rows(
        torch.from_numpy(expected.astype(np.float32).reshape(12, -1))
    )
    assert ("axes read as" in data.describe()) == (len(shape) > 2)
    assert ("data.layout=NDHW for volumes" in data.describe()) == (shape == (12, 6, 5, 7))


def test_layout_overrules_the_rule(tmp_path: Path) -> None:
    file = save(tmp_path, np.random.default_rng(0).normal(size=(9, 4, 6)).astype(np.float32))
    assert Array(str(file), layout="NHW").load().shape == (1, 4, 6)
    with pytest.raises(InputError, match="layout='NHWC' names 4 axes"):
        Array(str(file), layout="NHWC").load()
    with pytest.raises(InputError, match="layout='NXH' is not known"):
        Array(str(file), layout="NXH")


@pytest.mark.parametrize(
    ("low", "high", "transform"),
    [
        (0.0, 1.0, Affine(0.5, 0.5)),
        (0.02, 0.97, Affine(0.5, 0.5)),
        (-1.0, 1.0, Affine(0.0, 1.0)),
        (-0.9, 0.8, Affine(0.0, 1.0)),
        (0.0, 0.01, None),
        (-3.0, 3.0, None),
        (0.0, 255.0, None),
    ],
)
def test_the_range_of_float_images_is_found_and_given_back(
    tmp_path: Path, low: float, high: float, transform: Any
) -> None:
    values = np.random.default_rng(0).uniform(low, high, (40, 6, 6)).astype(np.float32)
    values[0, 0, :2] = low, high
    data = Array(str(save(tmp_path, values))).load()
    z, _ = data.batch(0, 36, 0)
    if transform is not None:
        assert data.transform == transform
        assert z.abs().max() <= 1 + 1e-6
    else:
        assert z.mean().abs() < 1e-5
        assert data.sigma_data == pytest.approx(1, abs=1e-5)
    back = data.transform.inverse(z)
    torch.testing.assert_close(
        torch.tensor(rows(back)), torch.tensor(rows(data.train)), rtol=0, atol=1e-6 * (high - low)
    )


def test_whole_numbers_in_images_are_kept_as_a_grid_whatever_their_type(tmp_path: Path) -> None:
    grey = pixels(20, 6, 6)
    grey[0, 0, 0] = 255
    for dtype in (np.uint8, np.int64, np.float32, np.float64, ">i2"):
        data = Array(str(save(tmp_path, grey.astype(dtype)))).load()
        assert data.transform == WholeNumbers(256)
        assert data.train.dtype == torch.uint8
        assert rows(torch.cat([data.train, data.test])) == rows(torch.from_numpy(grey))
    mask = Array(str(save(tmp_path, grey > 100))).load()
    assert mask.transform == WholeNumbers(2)
    assert "values 0..1 (uint8) -> [-1, 1]" in mask.describe()
    sound = np.random.default_rng(0).integers(-32_768, 32_768, (9, 2, 40)).astype(np.int16)
    sound[0, 0, :2] = -32_768, 32_767
    audio = Array(str(save(tmp_path, sound)), layout="NCL").load()
    assert (audio.kind, audio.transform) == ("array", WholeNumbers(65_536, -32_768))
    z, _ = audio.batch(0, 8, 0)
    assert rows(audio.transform.inverse(z, quantise=True)) == rows(audio.train)


def test_vectors_are_standardised_by_the_training_part_alone(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal([1e5, -3.0], [2e4, 1e-3], (500, 2))
    data = Array(str(save(tmp_path, values))).load()
    assert data.train.dtype == torch.float32
    assert isinstance(data.transform, Affine)
    torch.testing.assert_close(torch.tensor(data.transform.shift), data.train.mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.tensor(data.transform.scale), data.train.std(0, correction=0), rtol=1e-3, atol=0)
    assert "standardised per feature" in data.describe()


def test_labels_of_an_npz_are_found_named_and_can_be_declined(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    y = np.arange(40) % 4 * 10
    x[:, 0] = y
    data = Array(str(save(tmp_path, x=x, y=y)), test_fraction=0.2).load()
    assert data.classes == ("0", "10", "20", "30")
    assert data.train_labels is not None
    assert data.test_labels is not None
    assert torch.equal(data.train_labels * 10, data.train[:, 0].long())
    assert torch.bincount(data.test_labels).tolist() == [2, 2, 2, 2]
    assert Array(str(save(tmp_path, x=x, y=y)), labels_key="none").load().classes == ()
    named = Array(str(save(tmp_path, a=x, b=np.array(["cat", "dog"] * 20))), labels_key="b").load()
    assert named.classes == ("cat", "dog")
    assert Array(str(save(tmp_path, x=x, y=y.astype(float)[:, None]))).load().classes == ("0", "10", "20", "30")


def test_a_given_split_is_kept(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    parts = {"x_train": x[:6], "x_test": x[6:], "y_train": np.array([5, 7] * 3), "y_test": np.array([7, 5, 7, 7])}
    data = Array(str(save(tmp_path, **parts))).load()
    assert torch.equal(data.train, torch.from_numpy(x[:6]))
    assert torch.equal(data.test, torch.from_numpy(x[6:]))
    assert data.test_labels is not None
    assert data.test_labels.tolist() == [1, 0, 1, 1]
    with pytest.raises(InputError, match="y_test has labels that y_train has not: 9"):
        Array(str(save(tmp_path, **{**parts, "y_test": np.array([7, 5, 9, 7])}))).load()
    with pytest.raises(InputError, match="differ in shape"):
        Array(str(save(tmp_path, **{**parts, "x_test": x[6:, :2]}))).load()


def test_a_blob_of_encoded_images_is_read(tmp_path: Path) -> None:
    images = [pixels(4, 5, 3, seed=i) for i in range(5)]
    encoded = []
    for image in images:
        Image.fromarray(image).save(buffer := io.BytesIO(), "png")
        encoded.append(np.frombuffer(buffer.getvalue(), np.uint8))
    offsets = np.cumsum([0, *map(len, encoded)])
    file = save(tmp_path, blob=np.concatenate(encoded), offsets=offsets, label=np.arange(5) % 2)
    data = Array(str(file)).load()
    assert data.shape == (3, 4, 5)
    assert rows(torch.cat([data.train, data.test])) == rows(torch.from_numpy(np.stack(images)).movedim(-1, 1))
    offsets[2] = offsets[1] + 20
    file = save(tmp_path, blob=np.concatenate(encoded), offsets=offsets)
    with pytest.raises(InputError, match=r"image 1 of x\.npz cannot be read"):
        Array(str(file)).load()
    with pytest.raises(InputError, match="damaged offsets"):
        Array(str(save(tmp_path, blob=np.concatenate(encoded), offsets=offsets[::-1]))).load()


def bad_arrays() -> dict[str, tuple[dict[str, Any], dict[str, Any], str]]:
    x = np.random.default_rng(0).normal(size=(10, 3))
    holed = x.copy()
    holed[4, 1], holed[7, 0] = np.nan, np.inf
    return {
        "infinite": ({"values": holed}, {}, r"has 1 values that are infinite, first at \(7, 0\)"),
        "one sample": ({"values": x[:1]}, {}, "1 example; at least 3"),
        "empty": ({"values": x[:0]}, {}, "is empty"),
        "a number": ({"values": np.float32(3)}, {}, "is a single number"),
        "complex": ({"values": x + 1j}, {}, "of type complex128"),
        "text": ({"values": np.array(["a", "b", "c"])}, {}, "of type <U1"),
        "objects": ({"values": np.array([{}, [], 3], dtype=object)}, {}, "Python objects"),
        "objects in npz": ({"x": np.array([{}, [], 3], dtype=object)}, {}, "Python objects"),
        "constant": ({"values": np.ones((9, 3))}, {}, "nothing to learn"),
        "black images": ({"values": np.zeros((9, 3, 3), np.uint8)}, {}, "nothing to learn"),
        "timestamps": ({"values": 1.7e9 + x}, {}, "float32 cannot hold or tell apart; subtract"),
        "too large": ({"values": 1e300 * x}, {}, "float32 cannot hold"),
        "identifiers": ({"values": 10**15 + np.arange(12).reshape(6, 2)}, {}, "float32 cannot hold"),
        "many keys": ({"a": x, "b": x}, {}, "a, b; say which with data.key="),
        "wrong key": ({"a": x}, {"key": "b"}, "key='b' is not in"),
        "wrong labels key": ({"a": x}, {"labels_key": "b"}, "labels_key='b' is not in"),
        "label count": ({"x": x, "y": np.arange(9)}, {}, r"labels 'y' have shape \(9,\); expected \(10,\)"),
        "label values": ({"x": x, "y": x[:, 0]}, {}, "not whole; expected .*labels_key='none'"),
        "flip": ({"values": x}, {"flip": True}, "flip=True mirrors images"),
    }


@pytest.mark.parametrize("name", bad_arrays())
def test_a_bad_array_is_one_sentence(tmp_path: Path, name: str) -> None:
    arrays, arguments, match = bad_arrays()[name]
    file = save(tmp_path, **arrays)
    with pytest.raises(InputError, match=match) as error:
        Array(str(file), **arguments).load()
    one_sentence(error)


def test_a_damaged_array_file_is_one_sentence(tmp_path: Path) -> None:
    file = save(tmp_path, x=np.random.default_rng(0).normal(size=(1000, 3)))
    whole = file.read_bytes()
    for broken in (b"", b"hello", whole[:500], whole[:5000] + b"\0" * 5000 + whole[10_000:]):
        file.write_bytes(broken)
        with pytest.raises(InputError, match="damaged or not a NumPy file") as error:
            Array(str(file)).load()
        one_sentence(error)
    with pytest.raises(InputError, match="is not a file"):
        Array(str(tmp_path / "nowhere.npy")).load()


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3000, 5), np.float32), ((3000, 6, 4, 3), np.uint8), ((2500, 2, 8), np.int16)]
)
def test_what_is_large_for_this_memory_stays_on_disk_and_is_the_same_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[Any, ...], dtype: type
) -> None:
    values: np.ndarray = np.random.default_rng(0).normal(100, 20, shape).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    source = Array(path=str(tmp_path / "x.npy"))
    monkeypatch.setattr("ornstein.data.array.half_of_memory", lambda: 0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    large = source.load()
    monkeypatch.setattr("ornstein.data.array.half_of_memory", lambda: math.inf)
    small = source.load()
    assert large.fingerprint() == small.fingerprint()
    assert torch.equal(large.test, small.test)
    assert torch.equal(large.batch(7, 64, 0)[0], small.batch(7, 64, 0)[0])
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]  # nothing is left behind


LARGE = """
import sys, torch
from ornstein.data import Array, array

def own():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))

for half in map(float, sys.argv[2:]):
    array.half_of_memory = lambda: half
    before = own()
    data = Array(path=sys.argv[1]).load()
    print(data.describe())
    most = 0
    for step in range(20):
        data.batch(step, 256, 0)
        most = max(most, own() - before)
    print(most)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system does not say what memory is of files")
def test_data_on_disk_take_no_memory_of_the_process(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((80_000, 400), np.float32))  # 128 MB
    found = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / "x.npy"), "0", "inf"],
        env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    on_disk, in_memory = (float(line) for line in found.stdout.splitlines() if line.replace(".", "").isdigit())
    assert on_disk < 30
    assert in_memory > 110


def test_a_disk_without_room_for_large_data_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", pixels(50, 4))
    monkeypatch.setattr("ornstein.data.array.half_of_memory", lambda: 0)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(InputError) as error:
        Array(path=str(tmp_path / "x.npy")).load()
    assert "TMPDIR" in one_sentence(error)


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_stays_in_its_file_until_its_parts_are_taken_out(tmp_path: Path, order: Any) -> None:
    """Before, it was in memory whole beside them; and nothing is left that a later change of the file could reach."""
    values = np.asarray(np.random.default_rng(0).normal(size=(200_000, 5)).astype(np.float32), order=order)
    file = save(tmp_path, values)
    tracemalloc.start()  # sees NumPy's memory, not torch's, and no maps
    data = Array(str(file)).load()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < (0.1 if order == "C" else 1.1) * values.nbytes  # turned round, it must be copied
    before = data.fingerprint()["sha256"]
    train = data.train.clone()
    with file.open("r+b") as opened:
        opened.seek(128)
        opened.write(bytes(values.nbytes))
    assert torch.equal(data.train, train)
    file.write_bytes(b"")
    save(tmp_path, values)
    assert Array(str(file)).load().fingerprint()["sha256"] == before


# --- the data sets that everybody knows ------------------------------------------------------------------------


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()


def write_idx(folder: Path, compressed: bool) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    x, y = pixels(30, 28, 28), pixels(30, top=10)
    for part, rows_of in (("train", slice(20)), ("t10k", slice(20, None))):
        for kind, values in (("images-idx3", x[rows_of]), ("labels-idx1", y[rows_of])):
            content, name = idx(values), f"{part}-{kind}-ubyte"
            (folder / (name + ".gz" * compressed)).write_bytes(gzip.compress(content) if compressed else content)
    return x, y


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(("kind", "place"), [(MNIST, "MNIST/raw"), (FashionMNIST, "fashion-mnist"), (MNIST, ".")])
def test_idx_files_are_read(tmp_path: Path, compressed: bool, kind: type, place: str) -> None:
    x, y = write_idx(tmp_path / place, compressed)
    data = kind(root=str(tmp_path)).load()
    assert torch.equal(data.train, torch.from_numpy(x[:20, None]))
    assert torch.equal(data.test_labels, torch.from_numpy(y[20:]).long())
    assert data.transform == WholeNumbers(256)


def test_the_files_of_one_family_member_are_not_taken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(tmp_path / "fashion-mnist", True)
    monkeypatch.setenv("ORNSTEIN_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(FashionMNIST().load().train) == 20
    with pytest.raises(InputError, match=r"mnist\.npz"):
        MNIST(download=False).load()


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    write_idx(tmp_path, False)
    file = tmp_path / "t10k-images-idx3-ubyte"
    whole = file.read_bytes()
    for broken in (whole[:-1], whole[:3], b"", b"\0\0\x0d" + whole[3:], idx(pixels(10, 28, 27))):
        file.write_bytes(broken)
        with pytest.raises(InputError, match="t10k-images") as error:
            MNIST(root=str(tmp_path)).load()
        one_sentence(error)
    file.unlink()
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(whole)[:500])
    with pytest.raises(InputError, match="cannot be unpacked"):
        MNIST(root=str(tmp_path)).load()


@pytest.mark.parametrize("packed", [True, False])
def test_the_binary_edition_of_cifar_is_read(tmp_path: Path, packed: bool) -> None:
    x, y = pixels(12, 3, 32, 32), pixels(12, 1, top=10)
    records = np.concatenate([y, x.reshape(12, -1)], 1)
    names = [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]
    contents = [records[2 * k : 2 * k + 2].tobytes() for k in range(6)]
    if packed:
        with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
            for name, content in zip(names, contents, strict=True):
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    else:
        for name, content in zip(names, contents, strict=True):
            (tmp_path / name).write_bytes(content)
    data = CIFAR10(root=str(tmp_path), flip=True).load()
    assert torch.equal(data.train, torch.from_numpy(x[:10]))
    assert torch.equal(data.test, torch.from_numpy(x[10:]))
    assert data.train_labels is not None
    assert data.train_labels.tolist() == y[:10, 0].tolist()
    broken = tmp_path / ("cifar-10-binary.tar.gz" if packed else "data_batch_3.bin")
    broken.write_bytes(broken.read_bytes()[:-700])
    with pytest.raises(InputError) as error:
        CIFAR10(root=str(tmp_path)).load()
    one_sentence(error)


def test_a_download_is_kept_only_if_its_hash_is_the_published_one(tmp_path: Path) -> None:
    source, target = tmp_path / "published", tmp_path / "cache" / "file"
    source.write_bytes(b"exactly this")
    good, absent = hashlib.md5(b"exactly this").hexdigest(), (tmp_path / "absent").as_uri()
    with pytest.raises(InputError, match="has md5"):
        fetch([source.as_uri()], target, "0" * 32)
    assert list(target.parent.iterdir()) == []
    fetch([absent, source.as_uri()], target, good)  # the first place does not answer, the second does
    assert target.read_bytes() == b"exactly this"
    source.write_bytes(b"something else")
    fetch([source.as_uri()], target, good)  # what is there and right is not fetched again
    assert target.read_bytes() == b"exactly this"
    assert [file.name for file in target.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST, CIFAR10])
def test_without_files_or_network_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    for variable in ("NO_PROXY", "no_proxy", "ORNSTEIN_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match="set ORNSTEIN_DATA to a folder with") as error:
        kind().load()
    message = one_sentence(error)
    assert "refused" in message
    assert str(tmp_path) in message
    assert kind.name.replace("-", "_") in message  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"download=False.*give as data.root a folder with"):
        kind(root=str(tmp_path), download=False).load()
    monkeypatch.setenv("ORNSTEIN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"ORNSTEIN_DATA=.*is not a folder"):
        kind().load()


def test_mnist_is_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORNSTEIN_DATA", str(shared("mnist.npz")))
    data = MNIST().load()
    assert (data.train.shape, data.test.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert data.train_labels is not None
    assert torch.bincount(data.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    # the well-known mean and deviation, 0.1307 and 0.3081 on [0, 1], are twice that on [-1, 1]
    assert data.fingerprint()["mean"] == pytest.approx(2 * 0.1307 - 1, abs=2e-4)
    assert data.sigma_data == pytest.approx(2 * 0.3081, abs=2e-4)
    x, _ = data.batch(0, 1000, 0)
    assert x.min() == -1
    assert x.max() == 1


def test_fashion_mnist_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORNSTEIN_DATA", str(shared("fashion_mnist_20k.npz")))
    data = FashionMNIST().load()
    assert data.train_labels is not None
    assert torch.bincount(data.train_labels).tolist() == [2000] * 10
    assert "from fashion_mnist_20k.npz" in data.describe()
    trousers, boots = (data.train[data.train_labels == k].float().mean(0)[0] for k in (1, 9))
    assert trousers[:, :4].mean() < 1  # trousers are narrow; an ankle boot fills its lower part
    assert boots[18:24, 4:24].mean() > 100


@pytest.mark.parametrize("share", [0.1, pytest.param(1.0, marks=pytest.mark.slow)])
def test_cifar_is_read_from_jpegs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, share: float) -> None:
    place, counts, labels = shared("cifar10_jpeg_train.npz", "cifar10_jpeg_test.npz"), [], None
    for name in ("cifar10_jpeg_train.npz", "cifar10_jpeg_test.npz"):
        with np.load(place / name) as whole:
            counts.append(round(share * len(whole["label"])))
            ends, labels = whole["offsets"][: counts[-1] + 1], whole["label"][: counts[-1]]
            np.savez(tmp_path / name, allow_pickle=False, blob=whole["blob"][: ends[-1]], offsets=ends, label=labels)
    monkeypatch.setenv("ORNSTEIN_DATA", str(tmp_path))
    data = CIFAR10().load()
    assert counts == [50_000 * share, 10_000 * share]
    assert (data.train.shape, data.test.shape) == ((counts[0], 3, 32, 32), (counts[1], 3, 32, 32))
    mean = data.train[:: round(10 * share)].float().mean((0, 2, 3)) / 255
    assert torch.allclose(mean, torch.tensor([0.491, 0.482, 0.447]), atol=0.005)
    assert data.describe().endswith("from JPEGs, not the lossless originals")
    assert labels is not None
    assert data.test_labels is not None
    assert data.test_labels.tolist() == labels.tolist()
    assert share < 1 or torch.bincount(data.test_labels).tolist() == [1000] * 10
