"""Pictures in a zip: read where they lie, and nothing in it can harm."""

import io
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from ornstein.data import open_data
from ornstein.data.folder import ImageFolder
from ornstein.errors import InputError


def png(value: int, side: int = 8, mode: str = "L") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (side, side), value if mode == "L" else (value,) * len(mode)).save(stream, "PNG")
    return stream.getvalue()


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_zip_is_the_folder_that_was_zipped(tmp_path: Path) -> None:
    files = {f"{kind}/{i}.png": png(10 * i + k) for k, kind in enumerate(("cats", "dogs")) for i in range(6)}
    for name, content in files.items():
        place = tmp_path / "photos" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    folder = ImageFolder(str(tmp_path / "photos")).load()
    for prefix in ("", "photos/"):  # with or without the folder itself
        extra = {"__MACOSX/._1.png": b"x", f"{prefix}.hidden.png": b"x"}
        zipped = open_data(packed(tmp_path / "photos.zip", {prefix + n: c for n, c in files.items()} | extra)).load()
        assert zipped.classes == folder.classes == ("cats", "dogs")
        assert torch.equal(zipped.train, folder.train)
        assert torch.equal(zipped.test, folder.test)
        assert zipped.train_labels is not None
        assert folder.train_labels is not None
        assert torch.equal(zipped.train_labels, folder.train_labels)


def test_a_zip_writes_and_reads_nothing_outside_itself(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(200))
    files = {f"in/{i}.png": png(i) for i in range(12)}
    link = zipfile.ZipInfo("in/link.png")
    link.external_attr = 0o120777 << 16
    inside = tmp_path / "deep"
    inside.mkdir()
    archive = packed(inside / "photos.zip", {**files, "../../out.png": png(7), "/abs.png": png(8)})
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr(link, str(secret))
    before = sorted(p for p in tmp_path.rglob("*"))
    data = ImageFolder(str(archive), label="none").load()
    assert len(data.train) + len(data.test) == 14  # the link is none of them
    assert max(int(data.train.max()), int(data.test.max())) == 11
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_what_a_zip_may_not_hold_is_a_sentence(tmp_path: Path) -> None:
    good = {f"{i}.png": png(i) for i in range(4)}
    bomb = packed(tmp_path / "bomb.zip", {**good, "big.png": bytes(2**26)})
    with pytest.raises(InputError, match="would grow from"):
        ImageFolder(str(bomb)).load()
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match="damaged or no zip"):
        ImageFolder(str(tmp_path / "no.zip")).load()
    with pytest.raises(InputError, match="holds no images"):
        ImageFolder(str(packed(tmp_path / "none.zip", {"a.txt": b"text"}))).load()
    locked = packed(tmp_path / "locked.zip", good).read_bytes()
    at = locked.rindex(b"PK\x01\x02") + 8  # the flags of the last member in the directory
    flags = struct.unpack_from("<H", locked, at)[0] | 1
    (tmp_path / "locked.zip").write_bytes(locked[:at] + struct.pack("<H", flags) + locked[at + 2 :])
    with pytest.raises(InputError, match="encrypted"):
        ImageFolder(str(tmp_path / "locked.zip")).load()
    with pytest.raises(InputError, match="absent"):
        ImageFolder(str(tmp_path / "absent.zip")).load()


def test_a_member_that_lies_about_its_size_is_cut_off(tmp_path: Path) -> None:
    files = {f"{i:02}.png": png(i, 16) for i in range(20)}
    raw = bytearray(packed(tmp_path / "lies.zip", files).read_bytes())
    at = raw.index(b"PK\x01\x02")
    struct.pack_into("<I", raw, at + 24, 10)  # says that it unpacks to ten bytes
    (tmp_path / "lies.zip").write_bytes(bytes(raw))
    data = ImageFolder(str(tmp_path / "lies.zip")).load()
    assert "left out 1 of 20 files" in data.describe()
