"""Malformed files by the hundred, made from a seed: `python fuzz_reading.py FOLDER SEED` reads each as data.

It runs in a process of its own (see test_data_reading.py), so that the memory it takes can be told. It prints a line of
JSON: how many files ended how, the slowest, how far memory grew, and what was neither read nor refused in a sentence.
"""

import io
import json
import os
import resource
import socket
import struct
import sys
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ornstein.data import MNIST, Layout, open_data
from ornstein.data.array import read_rows
from ornstein.errors import InputError

PICTURES = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP", "ppm": "PPM"}
GOOD = np.random.default_rng(0).integers(0, 255, (3, 6, 6), np.uint8)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz(compressed: bool = False, **arrays: Any) -> bytes:
    stream = io.BytesIO()
    write: Any = np.savez_compressed if compressed else np.savez
    write(stream, **arrays)
    return stream.getvalue()


def headed(header: str, body: bytes = bytes(400), version: tuple[int, int] = (1, 0)) -> bytes:
    """An .npy with this header, whatever it says."""
    text = header.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + body


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, content: bytes, bits: int = 8, colour: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def picture(suffix: str, seed: int) -> bytes:
    stream = io.BytesIO()
    shape = (6, 6, 3) if seed % 2 else (6, 6)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, np.uint8))
    image.save(stream, PICTURES[suffix])
    return stream.getvalue()


def mutated(content: bytes, dice: np.random.Generator) -> bytes:
    """Cut, overwritten, filled with zeros, swollen or with a few bytes changed, most often near the start."""
    data, count = bytearray(content), len(content)
    if not count:
        return dice.bytes(20)
    place = int(count * dice.random() ** 3)
    match int(dice.integers(6)):
        case 0:
            return bytes(data[:place])
        case 1:
            data[place : place + 8] = dice.bytes(8)
        case 2:
            data[place : place + 40] = bytes(40)
        case 3:
            data[place:place] = dice.bytes(int(dice.integers(1, 30)))
        case 4:
            data[place : place + 4] = b"\xff\xff\xff\x7f"
        case _:
            for _ in range(int(dice.integers(1, 6))):
                data[int(count * dice.random() ** 2)] = int(dice.integers(256))
    return bytes(data)


def arrays() -> dict[str, bytes]:
    """Whole files of every type and many shapes, for reading as they are and for breaking."""
    dice = np.random.default_rng(1)
    found = {}
    types = [
        "f2",
        "f4",
        ">f8",
        "g",
        "u1",
        "i1",
        ">i2",
        "u4",
        "u8",
        "i8",
        "?",
        "c8",
        "c16",
        "M8[s]",
        "m8[D]",
        "U3",
        "S4",
    ]
    for kind in types:
        found[f"type-{kind.strip('>?') or 'bool'}.npy"] = npy((100 * dice.normal(size=(12, 5))).astype(kind))
    for shape in ((), (0,), (3, 0), (1,), (2, 2), (9,), (9, 1, 1), (9, 3, 4, 5), (5, 2, 3, 4, 2), (5, 1, 1, 1, 1, 2)):
        found[f"shape-{'x'.join(map(str, shape))}.npy"] = npy(dice.normal(size=shape))
    for scale in (1e-45, 1e-38, 1e-30, 1e30, 3e38, 1e300, 1e308):
        found[f"scale-{scale}.npy"] = npy(scale * dice.uniform(-1, 1, (12, 4)))
    x = dice.normal(size=(30, 4)).astype("f4")
    for i, bad in enumerate((np.nan, np.inf, -np.inf)):
        found[f"hole-{i}.npy"] = npy(np.where(dice.random(x.shape) < 0.1, bad, x))
    found["record.npy"] = npy(np.zeros(9, [("a", "f4"), ("b", "i4", 2)]))
    found["object.npy"] = npy(np.array([{}, [1], None], dtype=object))
    found["none.npz"], found["empty.npz"], found["empty.npy"] = zipped(), b"", b""
    labels = (
        np.arange(30) % 3,
        np.arange(30),
        np.full(30, -1),
        np.arange(30) % 3 - 1,
        np.arange(30.0),
        np.full(30, np.inf),
        np.full(30, np.nan),
        np.full(30, 1e300),
        np.arange(30) * 1j,
        np.array(["a", "-1", ""] * 10),
        np.array([b"a"] * 30),
        np.zeros((30, 2)),
        np.array(3),
        np.arange(29),
        np.arange(30).astype("u8") + 2**63,
        np.zeros(30, "M8[s]"),
    )
    for i, y in enumerate(labels):
        found[f"labels-{i}.npz"] = npz(x=x, labels=y)
        found[f"named-{i}.npz"] = npz(x=x, labels=y, classes=np.array(["p", "q", "r"]))
        found[f"split-{i}.npz"] = npz(x_train=x, x_test=x[:9], y_train=y, y_test=y[:9] if y.ndim else y)
    blob = np.frombuffer(picture("png", 1) * 4, np.uint8)
    ends = np.arange(5) * (len(blob) // 4)
    for i, offsets in enumerate((ends, ends[::-1], ends + 7, ends.astype(float), ends.astype("u8")[::-1], ends[:1], x)):
        found[f"blob-{i}.npz"] = npz(blob=blob, offsets=offsets)
    found["blob-type.npz"] = npz(blob=blob.astype(float), offsets=ends)
    found["deep.npz"] = npz(compressed=True, x=dice.integers(0, 4096, (12, 6, 6)).astype("u2"))
    return found


def forged() -> Iterator[tuple[str, bytes]]:
    """Headers and archives that lie."""
    shapes = (
        "(10**12,)",
        "(1000000000000,)",
        "(0, 1000000000000)",
        "(-1, 4)",
        "(3.5,)",
        "3",
        "(True, 4)",
        "('a',)",
        "(9" + "0" * 400 + ",)",
        "(2147483647, 2147483647, 2147483647)",
        "(5, 4)",
        "()",
        "[5, 4]",
        "(" * 3000 + ")" * 3000,
        "None",
        "(5,) * 9",
    )
    types = (
        "'<f4'",
        "'<U0'",
        "'<U1000000000'",
        "'V0'",
        "'O'",
        "'<f3'",
        "[]",
        "[('a', '<f4')]",
        "'f4,f4'",
        "None",
        "'<c16'",
        "__import__('os')",
        "('<f4', (10000, 10000))",
        "'|S0'",
        "'<M8[7as]'",
        "'x' * 9",
    )
    for i, shape in enumerate(shapes):
        yield f"shape{i}", headed(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}")
    for i, kind in enumerate(types):
        for j, shape in enumerate(("(5, 4)", "(1000000000000, 4)")):
            yield f"type{i}-{j}", headed(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}")
    for i, header in enumerate(
        (
            "",
            "{}",
            "{'descr': '<f4'}",
            "[" * 9000,
            "-" * 9000 + "1",
            "{'shape': (5L, 4L)}",
            "\0" * 50,
            "{" + " " * 60_000,
        )
    ):
        yield f"header{i}", headed(header)
    for version in ((2, 0), (3, 0), (9, 9), (0, 0)):
        yield (
            f"version{version[0]}",
            headed("{'descr': '<f4', 'fortran_order': False, 'shape': (5, 4)}", version=version),
        )
    yield "length", b"\x93NUMPY\x02\x00" + b"\xff\xff\xff\xff" + bytes(100)


def bombs(folder: Path) -> Iterator[Path]:
    """Small files that declare, or truly hold, far more."""
    zeros = bytes(2**20)
    for name, count in (("used", 600), ("unused", 600)):
        place = folder / f"bomb-{name}.npz"
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            if name == "unused":
                archive.writestr("x.npy", npy(GOOD))
            with archive.open("labels2.npy" if name == "unused" else "x.npy", "w") as member:
                member.write(headed(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, 1024, 1024)}}", b""))
                for _ in range(count):
                    member.write(zeros)
        yield place
    holes = folder / "holes.npy"
    holes.write_bytes(headed("{'descr': '<f4', 'fortran_order': False, 'shape': (1000, 1000, 1000, 100)}", b""))
    os.truncate(holes, 4 * 10**11 + 4096)
    yield holes
    whole = bytearray(npz(x=GOOD))
    for field, size in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):  # declared size in the directory, and in the member
        at = whole.rfind(field) + size
        whole[at : at + 4] = struct.pack("<I", 4_000_000_000)
    (folder / "declared.npz").write_bytes(whole)
    yield folder / "declared.npz"
    locked = bytearray(npz(x=GOOD))
    locked[locked.rfind(b"PK\x01\x02") + 8] |= 1
    (folder / "locked.npz").write_bytes(locked)
    yield folder / "locked.npz"


def pictures() -> Iterator[tuple[str, bytes]]:
    row = zlib.compressobj(1)
    large = b"".join(row.compress(bytes(13_301)) for _ in range(13_300)) + row.flush()
    yield "thirteen.png", png(13_300, 13_300, large)
    yield "wide.png", png(2_000_000_000, 2, zlib.compress(bytes(100)))
    yield "nothing.png", png(0, 0, zlib.compress(b""))
    yield "short.png", png(6, 6, zlib.compress(bytes(9)))
    yield "odd.png", png(6, 6, zlib.compress(bytes(99)), bits=3, colour=7)
    yield "large.ppm", b"P6 99999 99999 255\n" + bytes(100)
    yield "deep.ppm", b"P6 6 6 65535\n" + bytes(216)
    yield "letters.ppm", b"P3 6 6 255\n" + b"1 x " * 60
    yield "large.gif", b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(50)
    yield (
        "large.bmp",
        b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, 10**5, 10**5, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(99),
    )
    yield "large.webp", b"RIFF\x64\0\0\0WEBPVP8L\x50\0\0\0\x2f" + struct.pack("<I", 0x0FFFFFFF) + bytes(80)
    tags = b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in (
            (256, 90_000),
            (257, 90_000),
            (258, 8),
            (259, 1),
            (262, 1),
            (273, 8),
            (278, 90_000),
            (279, 100),
        )
    )
    yield "large.tif", b"II*\0\x08\0\0\0" + struct.pack("<H", 8) + tags + bytes(99)
    yield "eps.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n%%EndComments\nshowpage\n"
    yield "pdf.jpg", b"%PDF-1.4\n" + bytes(99)
    yield "heic.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
    yield "svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "text.jpg", b"not a picture"
    yield "empty.jpg", b""


def specials(folder: Path) -> Iterator[Path]:
    os.mkfifo(folder / "pipe.npy")
    os.mkfifo(folder / "pipe")
    (folder / "device.npy").symlink_to("/dev/zero")
    (folder / "loop.npy").symlink_to(folder / "loop.npy")
    (folder / "gone.npy").symlink_to(folder / "nowhere")
    (folder / "folder.npy").mkdir()
    (folder / "folder.npz").mkdir()
    (folder / "empty").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        os.chdir(folder)
        bound.bind("socket.npy")
    names = (
        "pipe.npy",
        "pipe",
        "device.npy",
        "loop.npy",
        "gone.npy",
        "folder.npy",
        "folder.npz",
        "empty",
        "socket.npy",
        "nowhere.npy",
        "x" * 5000,
        "x" * 300 + ".npy",
        "a\0b.npy",
    )
    yield from (folder / name for name in names)
    yield Path("~nobody-of-that-name/x.npy")
    yield Path("/proc/self/mem")
    yield Path("/dev/stdin")


def folders(folder: Path) -> Iterator[Path]:
    """Folders of three good pictures and something odd."""

    def good(name: str) -> Path:
        for i, image in enumerate(GOOD):
            for part in "ab":
                (folder / name / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / name / part / f"{i}.png")
        return folder / name

    place = good("looped")
    (place / "a" / "again").symlink_to(place)
    (place / "a" / "me.png").symlink_to(place / "a" / "me.png")
    yield place
    place = good("twice")
    (place / "c").symlink_to(place / "a")
    yield place
    place = good("piped")
    os.mkfifo(place / "a" / "pipe.png")
    (place / "a" / "zero.jpg").symlink_to("/dev/zero")
    (place / "a" / "gone.jpg").symlink_to("/nowhere")
    yield place
    place = good("named")
    os.rename(os.fsencode(place / "b"), os.fsencode(place) + b"/caf\xe9")
    Image.fromarray(GOOD[0]).save(os.fsencode(place) + b"/a/\xff.png")
    (place / "a" / "dir.png").mkdir()
    yield place


def cases(folder: Path, seed: int) -> Iterator[tuple[str, Callable[[], str]]]:
    dice = np.random.default_rng(seed)
    (folder / "arrays").mkdir()
    whole = arrays()
    files = dict(whole)
    for i in range(260):
        name = list(whole)[int(dice.integers(len(whole)))]
        files[f"broken{i}-{name}"] = mutated(whole[name], dice)
    for name, content in forged():
        files[f"forged-{name}.npy"] = content
        files[f"forged-{name}.npz"] = zipped(("x.npy", content))
    files["twice.npz"] = zipped(("x.npy", npy(GOOD)), ("x.npy", npy(GOOD[:, :2])))
    files["odd.npz"] = zipped(
        ("../../x.npy", npy(GOOD)),
        ("readme.txt", b"x"),
        ("a/b\n\udce9.npy".encode("utf-8", "surrogateescape").decode("latin1"), npy(GOOD)),
    )
    files["lzma.npz"] = zipped(("x.npy", npy(GOOD)), method=zipfile.ZIP_LZMA)
    for name, content in files.items():
        (folder / "arrays" / name).write_bytes(content)
    places = [folder / "arrays" / name for name in files]
    for place in (*places, *bombs(folder), *specials(folder), *folders(folder)):
        yield str(place), lambda place=place: open_data(place).load().describe()  # type: ignore[misc]
        if place.suffix in (".npy", ".npz"):
            yield f"rows of {place}", lambda place=place: str(read_rows(place, (4,), Layout("ND"), missing=True)[1])  # type: ignore[misc]
    images = dict(pictures())
    for suffix in PICTURES:
        for i in range(24):
            images[f"broken{i}.{suffix}"] = mutated(picture(suffix, i), dice)
    for i, (name, content) in enumerate(images.items()):
        place = folder / "pictures" / name.replace(".", "-")
        place.mkdir(parents=True)
        for k, image in enumerate(GOOD):
            Image.fromarray(image).save(place / f"{k}.png")
        (place / name).write_bytes(content)
        yield (
            str(place / name),
            lambda place=place, broken=("skip", "stop")[i % 2]: (  # type: ignore[misc]
                open_data(place, mode="RGB", size=6, broken=broken).load().describe()
            ),
        )
    for i in range(30):
        place = folder / f"idx{i}"
        place.mkdir()
        parts: dict[str, Any] = {f"x_{p}": dice.integers(0, 255, (9, 28, 28)).astype("u1") for p in ("train", "test")}
        kind: Any = [int, float, "U2"][i % 3]
        labels: dict[str, Any] = {f"y_{p}": (np.arange(9) % 10).astype(kind) for p in ("train", "test")}
        content = npz(**parts, **labels)
        (place / "mnist.npz").write_bytes(mutated(content, dice) if i > 2 else content)
        yield str(place), lambda place=place: MNIST(root=str(place), download=False).load().describe()  # type: ignore[misc]


def told(found: Iterator[tuple[str, Callable[[], str]]]) -> None:
    """Read each, and print how that went."""
    ended: Counter[str] = Counter()
    faults, slowest, before = [], (0.0, ""), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, source in found:
        started = time.process_time()
        try:
            source().encode()
            ended["read"] += 1
        except InputError as error:
            ended["refused"] += 1
            said = str(error)
            said.encode()
            if "\n" in said or not said.endswith("."):
                faults.append(f"{name}: no sentence: {said!r}")
        except BaseException as error:
            faults.append(f"{name}: {type(error).__name__}: {error}")
        slowest = max(slowest, (time.process_time() - started, name))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"ended": ended, "slowest": slowest, "megabytes": grown, "faults": faults}))


if __name__ == "__main__":
    open_data("moons", count=50).load().describe()
    Image.init()  # what a first refusal loads is not what a file takes
    told(cases(Path(sys.argv[1]), int(sys.argv[2])))
