"""Malformed tables by the hundred, made from a seed: `python fuzz_tables.py FOLDER SEED` reads and rewrites each.

As `fuzz_reading.py`, whose line of JSON it prints.
"""

import gzip
import io
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from fuzz_reading import mutated, told

from ornstein.data import open_data
from ornstein.data.delimited import read_delimited, write_csv
from ornstein.data.kinds import find_types
from ornstein.data.table import carrier, glance_at


def texts() -> dict[str, bytes]:
    """Whole tables in many manners."""
    dice = np.random.default_rng(1)
    rows = [
        f'{i},{i * 0.25},{"abc"[i % 3]},2013-01-{i % 28 + 1:02d},{["yes", "no", ""][i % 3]},"q, {i % 4}"'
        for i in range(60)
    ]
    plain = "id,x,word,day,flag,text\n" + "\n".join(rows) + "\n"
    return {
        "plain": plain.encode(),
        "windows": plain.replace("\n", "\r\n").encode("utf-8-sig"),
        "latin": plain.replace("abc", "äöü").replace("word", "wört").encode("latin-1"),
        "sixteen": plain.encode("utf-16"),
        "semicolons": b"a;b;c\n" + b"".join(b"%d,5;x;1.%03d,0\n" % (i, i % 999) for i in range(60)),
        "tabs": b"a\tb\n" + b"".join(b"%d\t%s\n" % (i % 7, b"xyz"[i % 3 :]) for i in range(60)),
        "headless": b"".join(b"%d,%d.5\n" % (i, i % 5) for i in range(60)),
        "floats": ("v,w\n" + "".join(f"{a!r},{b:.3e}\n" for a, b in dice.normal(size=(60, 2)).tolist())).encode(),
        "quotes": b'a,b\n"x\ny","1"\n"say ""hi""",2\n"x\ny",3\n' * 1 + b"p,4\n" * 9 + b"q,5\n",
        "formulas": b"a,b\n=1+1,2\n@x,3\n+y,4\n-z,5\n" + b"=1+1,6\n" * 9,
    }


def forged() -> Iterator[tuple[str, bytes]]:
    """Tables that lie, and what is none."""
    yield from {
        "empty": b"",
        "lines": b"\n" * 999,
        "commas": b"," * 9999,
        "header": b"a,b,c\n",
        "one": b"a\n1\n",
        "zeros": bytes(9999),
        "quote": b'a,b\n"' + b"x,1\n" * 9999,
        "wide": b",".join(b"c%d" % i for i in range(20_000)),
        "twice": b"a,a\n1,2\n3,4\n",
        "nameless": b",\n1,2\n3,4\n5,6\n",
        "ragged": b"a,b\n1,2\n3\n",
        "more": b"a\n1,2\n",
        "huge": b"a,b\n1," + b"x" * 200_000 + b"\n",
        "inf": b"a,b\n1,2\ninf,3\n4,5\n",
        "large": b"a,b\n1e400,2\n3,4\n5,6\n",
        "digits": b"a,b\n" + b"".join(b"%d,%d\n" % (9**i, i) for i in range(400)),
        "dates": b"a,b\n9999-99-99,1\n0000-00-00,2\n2013-02-30,3\n",
        "years": b"a,b\n0001-01-01,1\n9999-12-31,2\n5000-01-01,3\n",
        "zones": b"a,b\n0001-01-01T00:00:00+14:00,1\n9999-12-31T23:59:59-14:00,2\n2000-01-01T00:00:00Z,3\n",
        "same": b"a,b\n" + b"1,2\n" * 99,
        "gone": b"a,b\n" + b",\n" * 99,
        "braces": b"a,b\n{0.__class__},1\n{1},2\n{},3\n" * 9,
        "percent": b"a,b\n%s%n,1\n%(x)s,2\n" * 20,
        "named": b'"a\nb","\xe2\x80\xae"\n1,2\n3,4\n5,6\n',
        "surrogate": b"a,b\n\xed\xa0\x80,1\nx,2\ny,3\n",
        "bom": b"\xff\xfe",
        "odd": "a,b\n1,2\n".encode("utf-16")[:-1],
        "wider": "a,b\n1,2\n".encode("utf-32"),
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(99),
        "page": b"<html><body>" * 50,
        "yaml": b"a: 1\nb: [1, 2]\n",
        "json": b'[{"a": 1}, {"a": 2}]',
        "sep": b"sep=;\n",
        "septwice": b"sep=;\nsep=;\n",
        "carriage": b"a,b\r1,2\r3,4\r5,6\r",
        "marks": "a,b\n١,2\n٢,3\n３,4\n".encode(),
        "dots": b"a,b\n.,-\n.,--\n-,.\n",
        "signs": b"a,b\n+,-\n+-1,e\n1e,0x1\n",
        "bars": b"|" * 50 + b"\n" + b"|" * 50,
        "spaces": b" , \n , \n , \n",
        "id": b"i\n" + b"".join(b"%d\n" % i for i in range(50)),
    }.items()
    packed = gzip.compress(b"a,b\n1,2\n" * 50, mtime=0)
    yield "cut.gz", packed[:-9]
    yield "checked.gz", packed[:-8] + bytes(8)
    yield "twice.gz", packed + packed
    yield "trailed.gz", packed + b"trailing"
    yield "nested.gz", gzip.compress(packed, mtime=0)
    yield "zeros.gz", gzip.compress(b"a,b\n" + bytes(2**22), mtime=0)
    head = b"\x1f\x8b\x08\x00" + bytes(6)
    wide = zlib.compressobj(9, zlib.DEFLATED, -15)
    lines = b"1,2\n" * 2**18
    body = wide.compress(b"a,b\n") + b"".join(wide.compress(lines) for _ in range(300)) + wide.flush()
    yield "lines.gz", head + body + struct.pack("<II", 0, 0)


def parquets() -> dict[str, bytes]:
    """Whole .parquet files, where pyarrow is at hand."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        return {}
    tables = {
        "plain": arrow.table({"a": list(range(60)), "b": ["x", None, "y"] * 20, "c": [i / 4 for i in range(60)]}),
        "nested": arrow.table({"a": [[1], [2, 3], []], "b": [{"x": 1}] * 3}),
        "binary": arrow.table({"a": [b"\0\xff", b"x", None], "b": [1, 2, 3]}),
        "none": arrow.table({"a": arrow.array([], arrow.int64())}),
        "holes": arrow.table({"a": arrow.nulls(9), "b": list(range(9))}),
        "years": arrow.table({"a": arrow.array([2**62, 0, -(2**62)], arrow.timestamp("us")), "b": [1, 2, 3]}),
        "infinite": arrow.table({"a": [1.0, float("inf"), 2.0, 3.0], "b": [1, 2, 3, 4]}),
    }
    found = {}
    for name, table in tables.items():
        stream = io.BytesIO()
        parquet.write_table(table, stream, row_group_size=20)
        found[name] = stream.getvalue()
    return found


def read(place: Path) -> str:
    """As a data set, and, where it is text, written anew and read again."""
    said = str(glance_at(place)) + open_data(place).load().describe()
    if place.suffix == ".parquet":
        return said
    columns, dialect, _ = read_delimited(place)
    types = find_types(columns, comma=dialect.delimiter != ",")
    write_csv(place.with_suffix(".out"), types, carrier(columns, types), dialect)
    again, _, _ = read_delimited(place.with_suffix(".out"), header=dialect.header)
    if list(again) != list(columns):
        raise AssertionError(f"columns {list(columns)} came back as {list(again)}")
    for kind in types:
        if not np.array_equal(columns[kind.name].values(kind), again[kind.name].values(kind), equal_nan=True):
            raise AssertionError(f"column {kind.name} came back changed")
    return said


def cases(folder: Path, seed: int) -> Iterator[tuple[str, Callable[[], str]]]:
    dice = np.random.default_rng(seed)
    files: dict[str, bytes] = {}
    for name, content in texts().items():
        files[f"{name}.csv"] = content
        for i in range(20):
            files[f"{name}{i}.csv"] = mutated(content, dice)
        for i in range(4):
            files[f"{name}{i}.csv.gz"] = mutated(gzip.compress(content, mtime=0), dice)
    for name, content in forged():
        files[f"{name}.csv"] = content
    for name, content in parquets().items():
        files[f"{name}.parquet"] = content
        for i in range(10):
            files[f"{name}{i}.parquet"] = mutated(content, dice)
    files["no.parquet"], files["magic.parquet"] = b"", b"PAR1PAR1"
    for name, content in files.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.csv")
    os.mkfifo(folder / "pipe.parquet")
    (folder / "zero.csv").symlink_to("/dev/zero")
    (folder / "loop.csv").symlink_to(folder / "loop.csv")
    (folder / "folder.csv").mkdir()
    names = (*files, "pipe.csv", "pipe.parquet", "zero.csv", "loop.csv", "folder.csv", "nowhere.csv", "nowhere.parquet")
    for name in names:
        yield name, lambda name=name: read(folder / name)  # type: ignore[misc]


if __name__ == "__main__":
    parquets()  # what a first call loads is not what a file takes
    told(cases(Path(sys.argv[1]), int(sys.argv[2])))
