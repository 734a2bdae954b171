"""Tables in and out: what columns are, to the byte; which rows are held out; and what is refused in one sentence."""

import csv
import gzip
import io
import itertools
import json
import math
import os
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ornstein.data import ColumnType, Table, open_data
from ornstein.data.delimited import Dialect, formulas, read_delimited, write_csv
from ornstein.data.kinds import Words, find_types
from ornstein.data.notation import dated, number, patterns, seconds
from ornstein.data.table import carrier, clock, glance_at
from ornstein.data.tokens import Tokens
from ornstein.errors import InputError
from ornstein.experiment.build import load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.given import taken

REAL = Path(os.environ.get("ORNSTEIN_DATA", Path(__file__).parents[2] / "shared" / "data"))


def kind_of(words: list[str], **said: Any) -> ColumnType:
    """What a column of these words is taken for."""
    return find_types({"x": Words.of(words)}, **said)[0]


def refused(call: Any, *parts: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    said = str(error.value)
    assert "\n" not in said
    assert said.endswith(".")
    for part in parts:
        assert part in said


def saved(tmp_path: Path, text: str | bytes, name: str = "t.csv") -> Path:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


def again(path: Path, out: Path) -> list[str]:
    """Read a table, and write what stands for it; the remarks of reading."""
    columns, dialect, notes = read_delimited(path)
    types = find_types(columns, comma=dialect.delimiter != ",")
    assert tuple(ColumnType.from_dict(kind.to_dict()) for kind in types) == types
    assert write_csv(out, types, carrier(columns, types), dialect) == len(next(iter(columns.values())))
    return notes


# --- there and back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adult", "california_housing", "nyc_weather_hourly"])
def test_real_tables_come_back_to_the_byte(tmp_path: Path, name: str) -> None:
    place = REAL / f"{name}.csv.gz"
    if not place.is_file():
        pytest.skip(f"{place} is not here")
    assert again(place, tmp_path / "out.csv.gz") == []
    with gzip.open(place) as one, gzip.open(tmp_path / "out.csv.gz") as other:
        assert one.read() == other.read()


LETTERS = st.characters(codec="utf-8", exclude_characters="\0\r")
WORDS = st.text(LETTERS, min_size=1, max_size=12).filter(lambda w: not w.startswith(" "))
PATTERNS = (
    *("%Y-%m-%d", "%d.%m.%Y", "%-m/%-d/%Y", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M", "%d %b %Y %-I:%M %p"),
    *("%Y-%m-%d %H:%M:%S.%3f", "%Y-%m-%dT%H:%M:%S+02:00", "%d/%m/%y", "%-m/%-d/%y %H:%M"),
)


@st.composite
def columns(draw: st.DrawFn, rows: int) -> list[str]:
    """The words of a column of any kind, some of them missing in one manner."""

    def several(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    match draw(st.integers(0, 6)):
        case 0:
            found = list(map(str, several(st.integers(-(2**60), 2**60) | st.integers(-9, 99))))
        case 1:
            places = draw(st.integers(1, 6))
            found = [f"{value:.{places}f}" for value in several(st.integers(-(10**7), 10**7).map(lambda i: i / 997))]
        case 2:
            found = list(map(repr, several(st.floats(allow_nan=False, allow_infinity=False))))
        case 3:
            found = several(st.sampled_from(draw(st.sampled_from([("True", "False"), ("yes", "no"), ("0", "1")]))))
        case 4:
            pattern = draw(st.sampled_from(PATTERNS))
            found = [dated(float(value), pattern) for value in several(st.integers(-(10**10), 10**10))]
        case 5:
            words = draw(st.lists(WORDS, min_size=1, max_size=6))
            found = several(st.sampled_from(words))
        case _:
            mark = draw(st.sampled_from([",", "."]))
            found = [f"{value:,}".replace(",", mark) for value in several(st.integers(10**6, 10**9))]
    missing = draw(st.sampled_from(["", "NA", "NaN", "?"]))
    gone = several(st.booleans()) if draw(st.booleans()) else [False] * rows
    return [missing if hole else word for hole, word in zip(gone, found, strict=True)]


def test_a_bin_has_the_cells_that_it_has() -> None:
    """Of a column with a spike, in bins of unequal numbers of cells, and with missing values."""
    values = torch.rand(3000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    values[::5], values[::7] = 0.25, torch.nan
    tokens = Tokens.fit(values, [ColumnType("x", "number", format="repr")])
    categories, bins = tokens.categories, tokens.coded[0].bins
    assert len(set(bins)) > 2
    first = torch.arange(len(bins) + 1)
    there = categories.barred(categories.one_hot(torch.stack([first, torch.full_like(first, -1)], 1))) == 0
    assert there[:, categories.block(1)].sum(1).tolist() == [*bins, 1]
    x = tokens.forward(values)
    assert not bool(((categories.barred(x) < 0) & (x > 0)).any())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_a_table_holds_comes_back_word_for_word(tmp_path: Path, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 30))
    found = [data.draw(columns(rows)) for _ in range(data.draw(st.integers(1, 4)))]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])))
    writer.writerow([f"c{i}" for i in range(len(found))])
    writer.writerows(zip(*found, strict=True))
    place = saved(tmp_path, stream.getvalue())
    before, _, _ = read_delimited(place)
    assert [words.texts() for words in before.values()] == found
    again(place, tmp_path / "out.csv")
    after, _, _ = read_delimited(tmp_path / "out.csv")
    types = find_types(before)
    for kind, words in zip(types, found, strict=True):
        back = after[kind.name].texts()
        if kind.kind == "identifier":
            assert len(set(back)) == rows
            continue
        value = before[kind.name].values(kind)
        assert np.array_equal(value, after[kind.name].values(kind), equal_nan=True)
        if len(Counter(word for word in words if kind.is_missing(word))) < 2:  # else missing is written in one way
            assert back == words


@pytest.mark.parametrize(
    ("words", "kind", "rest"),
    [
        (["1", "2", "5"], "integer", {"format": "short", "decimals": 0}),
        (["41.0", "880.0", ""], "integer", {"format": "repr", "missing": ("",)}),
        (["8.30", "8.25", "1.00"], "number", {"format": ".2f", "decimals": 2}),
        (["8.3", "41.0", "NaN"], "number", {"format": "repr", "decimals": 1, "missing": ("NaN",)}),
        (["1e-05", "2.5", "0"], "number", {"decimals": 5}),
        (["0.1", "0.30000000000000004", "7"], "number", {"decimals": None}),
        (["1,234", "12,000,000", "3"], "integer", {"thousands": ","}),
        (["01234", "90210", "00501"], "category", {"levels": ("00501", "01234", "90210")}),
        (["9007199254740993", "12", "13"], "category", {}),
        (["1e+30", "-4.5e+29", "2e+29"], "number", {"decimals": 0}),  # measured: a name is not written so
        (["+4930123456", "+4989654321", "+4989654321"], "category", {}),
        (["yes", "no", "no"], "boolean", {"levels": ("no", "yes")}),
        (["0", "1", "?"], "boolean", {"levels": ("0", "1"), "missing": ("?",)}),
        (["True", "False"], "boolean", {"levels": ("False", "True")}),
        (["M", "F", "M"], "category", {"levels": ("M", "F")}),
        (["a", "None", "a"], "category", {"levels": ("a", "None")}),
        (["3", "None", "4"], "integer", {"missing": ("None",)}),
        (["NA", "DE", "FR"], "category", {"levels": ("DE", "FR", "NA"), "missing": ()}),
        (["NA", "Berlin", "Berlin"], "category", {"missing": ("NA",)}),
        (["2013", "2014", "2014"], "integer", {}),
        (["x"] * 4, "constant", {"levels": ("x",)}),
        (["", ""], "constant", {"levels": ()}),
        (["2013-01-31", "2013-02-28"], "date", {"format": "%Y-%m-%d", "step": 86_400.0}),
        (["2013-01-31T06:00:00Z", "2013-02-28T07:00:00Z"], "date", {"format": "%Y-%m-%dT%H:%M:%SZ", "step": 3600.0}),
        (["31/01/2013", "01/02/2013"], "date", {"format": "%d/%m/%Y"}),
        (["1/31/2013", "2/1/2013"], "date", {"format": "%-m/%-d/%Y"}),
        (["01/02/2013", "03/04/2013"], "category", {}),
        (["31/01/21", "05/03/19"], "date", {"format": "%d/%m/%y", "step": 86_400.0}),
        (["1/31/69", "2/1/68"], "date", {"format": "%-m/%-d/%y"}),
        (["31.01.98 06:15", "05.03.02 07:00"], "date", {"format": "%d.%m.%y %H:%M"}),
        (["05-Mar-21", "31-Jan-99"], "date", {"format": "%d-%b-%y"}),
        (["98-01-31", "02-03-05"], "date", {"format": "%y-%m-%d"}),
        (["05/03/21", "04/02/19"], "category", {}),
        (["21-03-05", "19-12-31"], "category", {}),
        (["31/02/21", "05/03/19"], "category", {}),
        (["2013-02-30", "2013-02-28"], "category", {}),
        ([str(i) for i in range(1, 31)], "identifier", {"format": "{}"}),
        ([f"ID-{i:06d}" for i in range(30)], "identifier", {"format": "ID-{:06d}"}),
        ([f"name {i % 29} of {i}" for i in range(40)], "identifier", {}),
        ([str(i * i) for i in range(30)], "integer", {}),
        (["1.5", "-inf2", "3"], "category", {}),
    ],
)
def test_columns_are_taken_for_what_they_are(words: list[str], kind: str, rest: dict[str, Any]) -> None:
    found = kind_of(words)
    assert found.kind == kind, found.reason
    assert found.reason
    for name, value in rest.items():
        assert getattr(found, name) == value
    if kind not in ("identifier",):
        assert found.render(found.parse(words)) == words


def test_what_cannot_be_told_apart_is_said() -> None:
    assert "data.types.x=date:%d/%m/%Y or date:%m/%d/%Y" in kind_of(["01/02/2013", "03/04/2013"]).reason
    many = kind_of([f"{i % 12 + 1:02d}/{i // 12 + 1:02d}/21" for i in range(144)])  # no day above 12
    assert (many.kind, "data.types.x=date:%d/%m/%y or date:%m/%d/%y" in many.reason) == ("identifier", True)
    assert "date:%d-%m-%y or date:%m-%d-%y or date:%y-%m-%d" in kind_of(["05-03-11", "06-04-12"]).reason
    assert "data.missing" in kind_of(["12", "13", "14", "15", "16", "17", "18", "19", "20", "11", "12", "n.a."]).reason
    assert kind_of(["12", "n.a."], missing=("n.a.",)).kind in ("integer", "category")
    assert kind_of(["12", "13", "n.a."], missing=("n.a.",)).missing == ("n.a.",)


def test_a_thousand_words_are_a_category_and_more_than_half_as_many_as_rows_are_none() -> None:
    words = [f"w{i % 1000}" for i in range(5000)]
    assert len(kind_of(words).levels) == 1000
    assert kind_of([f"w{i % 600}" for i in range(1000)]).kind == "identifier"


def test_a_person_overrules(tmp_path: Path) -> None:
    words = ["1", "2", "2", "10"]
    assert kind_of(words, kinds={"x": "category"}).levels == ("1", "2", "10")
    assert kind_of(words, kinds={"x": "number"}).kind == "number"
    assert kind_of(words, kinds={"x": "identifier"}).kind == "identifier"
    ambiguous = ["01/02/2013", "03/04/2013"]
    first = kind_of(ambiguous, kinds={"x": "date:%d/%m/%Y"}).parse(ambiguous)
    assert first[0] == seconds("2013-02-01", "%Y-%m-%d")
    for kinds, *parts in (
        ({"y": "category"}, "'y'", "x"),
        ({"x": "categry"}, "categry", "'category'"),
        ({"x": "date"}, "date:%d/%m/%Y"),
        ({"x": "date:%d"}, "%Y"),
        ({"x": "boolean"}, "3", "boolean"),
    ):
        refused(lambda kinds=kinds: kind_of(words, kinds=kinds), *parts)
    refused(lambda: kind_of(["1", "b"], kinds={"x": "number"}), "row 2", "'b'")
    refused(lambda: kind_of(["1", "1.5"], kinds={"x": "integer"}), "'1.5'", "number")
    refused(lambda: kind_of(ambiguous, kinds={"x": "date"}), "date:%d/%m/%Y or date:%m/%d/%Y")


def test_cells_that_cannot_be_are_named() -> None:
    refused(lambda: kind_of(["1.5", "2.5", "inf", "3"]), "'x'", "row 3", "inf")
    refused(lambda: kind_of(["1", "2", "1e999"]), "row 3", "infinite")
    pets = kind_of(["cat", "dog", "cat", "horse"])
    refused(lambda: pets.parse(["dog", "cot"]), "'x'", "row 2", "'cot'", "'cat'")
    assert np.isnan(pets.parse(["", "NA", "?"])).all()
    refused(lambda: kind_of(["1", "2"]).parse(["1", "two"]), "row 2", "'two'")
    refused(lambda: kind_of(["1", "2", "5"]).parse(["1.5"]), "'1.5'", "whole")
    refused(lambda: kind_of(["2013-01-31", "2013-02-01"]).parse(["yesterday"]), "'yesterday'", "%Y-%m-%d")
    refused(lambda: pets.render([7.0]), "level", "7")
    refused(lambda: pets.render([0.5]), "level")
    refused(lambda: kind_of(["1.5", "2"]).render([np.inf]), "infinite")


def test_draws_are_rounded_as_their_column_is() -> None:
    assert kind_of(["8.30", "8.25"]).render([8.2549, -0.001, np.nan]) == ["8.25", "0.00", ""]
    assert kind_of(["41.0", "880.0"]).render([41.4, -0.2]) == ["41.0", "0.0"]
    assert kind_of(["2013-01-31T06:00", "2013-02-28T07:00"]).render([3599.0]) == ["1970-01-01T01:00"]
    assert kind_of(["1.234,5", "0,5"], comma=True).render([9876.54]) == ["9.876,5"]
    ids = kind_of([f"ID-{i:03d}" for i in range(30)])
    assert ids.render([np.nan] * 2, first=41) == ["ID-042", "ID-043"]


@pytest.mark.parametrize(
    ("word", "way", "value"),
    [
        ("1,5", (",", ""), 1.5), ("1.234,5", (",", "."), 1234.5), ("1 234.5", (".", " "), 1234.5),
        (" 7 ", (".", ""), 7), (".5", (".", ""), 0.5), ("5.", (".", ""), 5), ("1E3", (".", ""), 1000),
        ("-3", (".", ""), -3),
    ],
)  # fmt: skip
def test_numbers_are_read_in_their_way(word: str, way: tuple[str, str], value: float) -> None:
    assert number(word, *way) == value


@pytest.mark.parametrize("word", ["", "1,5", "0x10", "1_000", "١٢", "1.2.3", "e5", "--1", "1e99999", "12 3"])
def test_what_python_alone_takes_for_a_number_is_none(word: str) -> None:
    assert not np.isfinite(number(word)) or word == "1e99999"


def test_years_of_two_digits_are_those_of_one_hundred() -> None:
    words = ["31/12/68", "01/01/69", "31/12/99", "01/01/00"]
    kind = kind_of(words)
    years = ["2068-12-31", "1969-01-01", "1999-12-31", "2000-01-01"]
    assert kind.parse(words).tolist() == [seconds(year, "%Y-%m-%d") for year in years]
    assert "1969 to 2068" in kind.reason
    assert kind.render([seconds("1890-05-06", "%Y-%m-%d"), seconds("2100-05-06", "%Y-%m-%d")]) == [words[1], words[0]]


@settings(max_examples=40, deadline=None)
@given(st.integers(-62_135_596_800, 253_402_300_799), st.sampled_from(PATTERNS[3:5]))
def test_moments_come_back_by_the_second(value: int, pattern: str) -> None:
    value = value if "%S" in pattern else value - value % 60
    assert seconds(dated(float(value), pattern), pattern) == value
    assert pattern in patterns([dated(float(value), pattern)])


def test_zones_that_differ_are_brought_to_one() -> None:
    words = ["2013-03-31T01:59:00+01:00", "2013-03-31T03:00:00+02:00"]
    found = kind_of(words).parse(words)
    assert found[1] - found[0] == 60


# --- types as they are kept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        3, {}, {"name": "x"}, {"name": "x", "kind": "word"}, {"name": 3, "kind": "number"},
        {"name": "x", "kind": "number", "format": "short", "levls": []}, {"name": "x", "kind": "category"},
        {"name": "x", "kind": "category", "levels": ["a", "a"]}, {"name": "x", "kind": "category", "levels": [1, 2]},
        {"name": "x", "kind": "boolean", "levels": ["a", "b", "c"]}, {"name": "x", "kind": "category", "levels": "ab"},
        {"name": "x", "kind": "number", "format": "{0.__class__}"},
        {"name": "x", "kind": "number", "format": ".999999999f"},
        {"name": "x", "kind": "number", "format": "short", "decimals": -1},
        {"name": "x", "kind": "number", "format": "short", "decimals": True},
        {"name": "x", "kind": "number", "format": "short", "mark": ";"}, {"name": "x", "kind": "date", "format": "%Q"},
        {"name": "x", "kind": "date", "format": "%Y"}, {"name": "x", "kind": "date", "format": "%Y-%m-%d", "step": "1"},
        {"name": "x", "kind": "identifier", "format": "{:999999999d}"},
        {"name": "x", "kind": "identifier", "format": "{0.__class__}"},
        {"name": "x", "kind": "constant", "levels": ["a", "b"]},
        {"name": "x", "kind": "date", "format": "%Y-%m-%d", "step": float("nan")},
    ],
)  # fmt: skip
def test_a_type_that_is_none_is_refused(wrong: Any) -> None:
    refused(lambda: ColumnType.from_dict(wrong))


# --- files of text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kinds", "note"),
    [
        ("a;b;c\n1,5;x;3\n2,25;y;4\n", ["number", "category", "integer"], "semicolons"),
        ("a\tb\n1,5\tx\n2,5\ty\n", ["number", "category"], "tabs"),
        ("a|b\n1|x, y\n2|z\n", ["integer", "category"], "bars"),
        ("1.5,2\n3.5,4\n7.5,9\n", ["number", "integer"], "no header"),
        ("a,b\r\n1,x\r\n2,y\r\n", ["integer", "category"], ""),
        ('a,b\n1,"x\ny"\n2,"say ""hi"", you"\n', ["integer", "category"], ""),
        ("a;b\n1.234,5;1.234\n1.000,25;2.345\n", ["number", "integer"], "semicolons"),
        ("a\nx;y\nz;y\nx;y\n", ["category"], ""),
        ("a,b\n=1+1,2\n@x,3\n=1+1,5\n", ["category", "integer"], ""),
    ],
)
def test_a_table_is_read_and_written_in_its_own_manner(tmp_path: Path, text: str, kinds: list[str], note: str) -> None:
    place = saved(tmp_path, text)
    notes = again(place, tmp_path / "out.csv")
    assert note in "; ".join(notes)
    assert bool(notes) == bool(note)
    assert (tmp_path / "out.csv").read_bytes() == text.encode()
    found, dialect, _ = read_delimited(place)
    assert [kind.kind for kind in find_types(found, comma=dialect.delimiter != ",")] == kinds
    assert Dialect.from_dict(dialect.to_dict()) == dialect


@pytest.mark.parametrize(
    ("content", "names", "note"),
    [
        ("\ufeffgröße,b\n1,ä\n2,ö\n".encode(), ["größe", "b"], ""),
        ("größe,b\n1,ä\n2,€\n".encode("cp1252"), ["größe", "b"], "not UTF-8"),
        ("größe,b\n1,ä\n2,ö\n".encode("utf-16"), ["größe", "b"], ""),
        (b"sep=;\r\na;b\r\n1;2,5\r\n3;4\r\n", ["a", "b"], "semicolons"),
        (b"a, b\n1, x\n2, y\n", ["a", "b"], "spaces"),
        (gzip.compress(b"a,b\n1,x\n", mtime=0), ["a", "b"], ""),
        (b"a,b\n1,x\n\n2,y\n\n", ["a", "b"], ""),
    ],
)
def test_texts_of_other_programs_are_read(tmp_path: Path, content: bytes, names: list[str], note: str) -> None:
    found, _, notes = read_delimited(saved(tmp_path, content))
    assert list(found) == names
    assert note in "; ".join(notes)
    assert bool(notes) == bool(note)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["empty"]),
        (b"\n\n", ["empty"]),
        (b"a,b\n", ["header", "no rows"]),
        (b"a,b\n1,2\n3,4,5\n", ["row 2", "3 cells", "2"]),
        (b"a,b\n1,2\n3\n", ["row 2", "1 cell "]),
        (b"a,a\n1,2\n", ["'a'", "2 times"]),
        (b'a,b\n1,"2\n3,4\n', ["no table", "end of data"]),
        (b'a,b\n1,"' + b"2\n3,4\n" * 40_000, ["no table", "a cell has more than 131,072 characters", "not closed"]),
        (b"a,b\n1,\x002\n", ["zero bytes"]),
        (b"\x89PNG\r\n\x1a\n\0\0", ["zero bytes"]),
        (gzip.compress(b"a,b\n" + b"1,2\n" * 9999, mtime=0)[:-40], ["damaged"]),
        (b"\x1f\x8b\x08\x00 not gzip", ["damaged"]),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-4] + (3 * 2**30).to_bytes(4, "little"), ["damaged"]),
        (b",".join(b"c%d" % i for i in range(10_001)) + b"\n", ["more than 10,000 columns"]),
    ],
)
def test_what_is_no_table_is_refused_in_one_sentence(tmp_path: Path, content: bytes, parts: list[str]) -> None:
    refused(lambda: read_delimited(saved(tmp_path, content)), "t.csv", *parts)


def forged(megabytes: int) -> bytes:
    """A .gz of an empty line, over and over, that says that it holds one: a kilobyte for each megabyte."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = pack.compress(b"\n" * 10**6) + pack.flush(zlib.Z_FULL_FLUSH)  # which refers to nothing before it
    head = gzip.compress(b"", mtime=0)[:10] + zlib.compressobj(9, zlib.DEFLATED, -15).flush(zlib.Z_FULL_FLUSH)
    return head + piece * megabytes + pack.flush() + bytes(4) + (1).to_bytes(4, "little")


def test_a_small_file_cannot_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor be taken for what it says that it is; all before a cell of it is read. What is merely repetitive is read."""
    same = b"a,b\n" + b"1,2\n" * 300_000
    place = saved(tmp_path, gzip.compress(same, mtime=0), "same.csv.gz")
    assert place.stat().st_size * 100 < len(same)
    assert len(read_delimited(place)[0]["a"]) == 300_000
    with monkeypatch.context() as changed:
        changed.setattr("ornstein.data.delimited._found", None)
        place = saved(tmp_path, forged(280), "t.csv.gz")
        refused(lambda: glance_at(place), "more than 268 MB")
        place = saved(tmp_path, forged(9), "t.csv.gz")
        refused(lambda: read_delimited(place), "is damaged")
    monkeypatch.setattr("ornstein.data.delimited.half_of_memory", lambda: 1e6)
    refused(lambda: read_delimited(saved(tmp_path, "a,b\n" + "1,2\n" * 50_000)), "memory", "row")
    os.mkfifo(tmp_path / "pipe.csv")
    refused(lambda: read_delimited(tmp_path / "pipe.csv"), "pipe")
    refused(lambda: read_delimited(tmp_path), "folder")


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_malformed_is_read_or_refused_in_a_sentence_within_bounds(tmp_path: Path, seed: int) -> None:
    script = Path(__file__).with_name("fuzz_tables.py")
    found = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(tmp_path), str(seed)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    result = json.loads(found.stdout)
    assert result["faults"] == []
    assert result["ended"]["read"] > 60
    assert result["ended"]["refused"] > 180
    assert result["slowest"][0] < 4, result["slowest"]
    assert result["megabytes"] < 600


# --- writing ---------------------------------------------------------------------------------------------------------


def test_rows_are_written_in_pieces_whole_or_not_at_all(tmp_path: Path) -> None:
    types = (*find_types({"n": Words.of([str(i) for i in range(1, 31)]), "x": Words.of(["1.5", "2.0"] * 15)}),)
    rows = torch.tensor([[torch.nan, 2.0]] * 3, dtype=torch.float64)
    assert write_csv(tmp_path / "a.csv", types, (rows for _ in range(2))) == 6
    assert (tmp_path / "a.csv").read_text().splitlines() == ["n,x", *(f"{i},2.0" for i in range(1, 7))]

    def broken() -> Any:
        yield rows
        raise InputError("the model stopped.")

    refused(lambda: write_csv(tmp_path / "b.csv", types, broken()), "stopped")
    refused(lambda: write_csv(tmp_path / "b.csv", types, rows[:, :1]), "2 columns")
    assert [f.name for f in tmp_path.iterdir()] == ["a.csv"]


def test_cells_may_hold_any_line_break(tmp_path: Path) -> None:
    words = {"a\rb": Words.of(["x\ry", "z\nz", "z\r\nz", "x"] * 2)}
    types = find_types(words)
    for newline in ("\n", "\r\n", "\r"):
        write_csv(tmp_path / "a.csv", types, carrier(words, types), Dialect(newline=newline))
        found, _, _ = read_delimited(tmp_path / "a.csv")
        assert {name: column.texts() for name, column in found.items()} == {
            name: column.texts() for name, column in words.items()
        }


def test_known_cells_are_written_as_they_were(tmp_path: Path) -> None:
    words = {"a": Words.of(["1.50", "", "007.0"]), "b": Words.of(["x", "y", "NA"])}
    types = find_types({"a": Words.of(["1.5", "2.5"]), "b": Words.of(["x", "y", "x"])})
    filled = torch.tensor([[9.0, 1], [2.5, 1], [9, 0]], dtype=torch.float64)
    write_csv(tmp_path / "a.csv", types, filled, known=words)
    assert (tmp_path / "a.csv").read_text() == "a,b\n1.50,x\n2.5,y\n007.0,x\n"


def test_cells_that_spreadsheets_run_are_named_and_left_alone(tmp_path: Path) -> None:
    types = find_types({"a": Words.of(["=HYPERLINK(1)", "b", "b"]), "n": Words.of(["-1", "2", "2"])})
    said = formulas(types)
    assert "'a'" in said
    assert "'n'" not in said
    assert "\n" not in said
    assert formulas(types[1:]) == ""
    write_csv(tmp_path / "a.csv", types, torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    assert "=HYPERLINK(1)" in (tmp_path / "a.csv").read_text()


# --- as a data set -----------------------------------------------------------------------------------------------


def rows_of(data: Any, part: str) -> set[tuple[float, ...]]:
    return set(map(tuple, getattr(data, part).nan_to_num(nan=-99).tolist()))


def table_text(order: Any, copies: int = 1) -> str:
    lines = [f"{i % 37},{['x', 'y', ''][i % 3]},{i * 0.5}" for i in range(120)] * copies
    return "a,b,c\n" + "\n".join(lines[i] for i in order(range(len(lines)))) + "\n"


def test_copies_of_a_row_lie_on_one_side_and_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    data = open_data(saved(tmp_path, table_text(list, copies=3))).load()
    assert not rows_of(data, "train") & rows_of(data, "test")
    assert len(data.train) + len(data.test) == 360
    assert len(data.test) == 36
    assert "240 rows are copies" in data.describe()
    back = open_data(saved(tmp_path, table_text(reversed, copies=3), "back.csv")).load()
    assert rows_of(back, "test") == rows_of(data, "test")
    other = Table(str(tmp_path / "t.csv"), seed=1).load()
    assert rows_of(other, "test") != rows_of(data, "test")


@pytest.mark.parametrize(
    ("words", "kind", "values"),
    [
        (["$5.00", "-$3.20", "$1,200.00"], "number", [5, -3.2, 1200]),
        (["1.234,50 €", "3,00 €", "-7,25 €"], "number", [1234.5, 3, -7.25]),
        (["12.5%", "3.0%", ""], "number", [12.5, 3, math.nan]),
        (["72.1 kg", "80.0 kg", "8.9 kg"], "number", [72.1, 80, 8.9]),
        (["5 km/h", "17 km/h", "-3 km/h"], "integer", [5, 17, -3]),
        (["5 °C", "-3 °C", "21 °C"], "integer", [5, -3, 21]),
        (["5 kg", "7 lb", "9 kg"], "category", None),  # not the same
        (["A1", "A2", "A3"], "category", None),  # names, no money
        (["007 kg", "008 kg", "009 kg"], "category", None),  # codes
        (["2021Q1", "2021Q2", "2021Q3"], "category", None),
        (["$", "$5", "$7"], "category", None),
    ],
)
def test_numbers_with_a_unit_are_numbers_and_come_back_with_it(words: list[str], kind: str, values: Any) -> None:
    found = kind_of(words, comma=True)
    assert found.kind == kind
    assert found.render(found.parse(words)) == words
    assert ColumnType.from_dict(found.to_dict()) == found
    if values is not None:
        assert np.array_equal(found.parse(words), values, equal_nan=True)
        assert found.parse(["17"]).tolist() == [17]  # as one asks for it without the unit
        refused(lambda: found.parse(["17 miles"]), "'17 miles' is no number")


def test_rows_that_repeat_by_chance_are_held_out_each_by_itself(tmp_path: Path) -> None:
    """Else all rows of some answer would be, and the model never learn it. Wide rows given twice stay together."""
    dice = np.random.default_rng(0)
    asked = [
        f"{'abc'[int(k)]},{int(s)}" for k, s in zip(dice.integers(0, 3, 300), dice.integers(1, 6, 300), strict=True)
    ]
    found = []
    for name, rows in (("one", asked), ("two", [*reversed(asked)])):
        (tmp_path / f"{name}.csv").write_text("answer,stars\n" + "\n".join(rows) + "\n")
        found.append(Table(str(tmp_path / f"{name}.csv")).load())
    data = found[0]
    assert (len(data.train), len(data.test)) == (270, 30)
    assert len(data.train.unique(dim=0)) == len(set(asked)) == 15
    assert "285 rows are copies of others, 30 of them held out" in data.note
    # each answer in its share, whatever the order of the file
    for part, other in ((data.train, found[1].train), (data.test, found[1].test)):
        assert Counter(map(tuple, part.tolist())) == Counter(map(tuple, other.tolist()))
    wide = [",".join(f"{x:.3f}" for x in row) for row in dice.normal(size=(100, 4))] * 2
    (tmp_path / "wide.csv").write_text("a,b,c,d\n" + "\n".join(wide) + "\n")
    assert "100 rows are copies of others, on the same side" in Table(str(tmp_path / "wide.csv")).load().note


def test_a_column_says_which_rows_are_held_out(tmp_path: Path) -> None:
    text = "a,b,part\n" + "".join(f"{i % 9},{i % 5},{'test' if i % 4 == 0 else 'train'}\n" for i in range(80))
    data = Table(str(saved(tmp_path, text)), split="part").load()
    assert (len(data.train), len(data.test)) == (60, 20)
    assert [column.name for column in data.columns] == ["a", "b"]
    assert "held out" in data.describe()
    refused(Table(str(tmp_path / "t.csv"), split="b").load, "data.split='b'", "train")
    refused(Table(str(tmp_path / "t.csv"), split="prt").load, "'part'")
    refused(Table(str(tmp_path / "t.csv"), drop=("a", "b", "part")).load, "no column")


def test_what_a_table_is_is_part_of_its_fingerprint(tmp_path: Path) -> None:
    place = saved(tmp_path, table_text(list))
    data = Table(str(place)).load()
    facts = data.fingerprint()
    assert facts["kind"] == "table"
    assert facts["columns"] == ["a", "b", "c"]
    assert tuple(map(ColumnType.from_dict, facts["table"])) == data.columns
    assert facts["range"] == [0.0, 59.5]
    other = Table(str(place), types={"a": "category"}).load()
    assert other.columns[0].kind == "category"
    assert other.fingerprint()["sha256"] != facts["sha256"]
    assert Table(str(place)).load().fingerprint() == facts
    refused(Table(str(saved(tmp_path, "a,b\n" + "1,2\n3,4\n" * 25, "few.csv"))).load, "at least 3")
    refused(Table(str(saved(tmp_path, "a,b\n" + "1,2\n" * 50, "few.csv"))).load, "nothing to learn")


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    found, _, _ = read_delimited(saved(tmp_path, "a,b\n1,x\n2,y\n"))
    types = find_types(found)
    refused(lambda: carrier({"a": found["a"]}, types), "'b'")
    assert carrier({"a": found["a"]}, types, exact=False)[:, 1].isnan().all()


# --- frames -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames_come_back_with_their_types(tmp_path: Path, library: str) -> None:
    pytest.importorskip("narwhals", reason="narwhals is not installed")
    space = pytest.importorskip(library, reason=f"{library} is not installed")
    import datetime as dt

    from ornstein.data.frames import is_frame, to_frame, words_of

    n, start = 40, dt.datetime(2020, 1, 31, 5)
    cells: dict[str, list[Any]] = {
        "i": [k * k for k in range(n)], "f": [k / 8 if k % 7 else None for k in range(n)],
        "s": [["a", "=b", "c"][k % 3] for k in range(n)], "b": [k % 2 == 0 for k in range(n)],
        "t": [start + dt.timedelta(hours=k) for k in range(n)], "o": [f"w{k % 4}" if k % 5 else None for k in range(n)],
        "c": ["x"] * n, "d": [start.date() + dt.timedelta(days=k) for k in range(n)],
    }  # fmt: skip
    frame = space.table(cells) if library == "pyarrow" else space.DataFrame(cells)
    assert is_frame(frame)
    assert not is_frame([1, 2])
    words, typed = words_of(frame)
    types = find_types(words, typed=typed)
    kinds = ["integer", "number", "category", "boolean", "date", "category", "constant", "date"]
    assert [kind.kind for kind in types] == kinds
    back = to_frame(frame, types, carrier(words, types))
    assert type(back) is type(frame)
    schema = [str(one) for one in (frame.schema.types if library == "pyarrow" else frame.dtypes)]
    assert [str(one) for one in (back.schema.types if library == "pyarrow" else back.dtypes)] == schema
    assert words_of(back)[0].keys() == words.keys()
    for name, found in words_of(back)[0].items():
        assert found.texts() == words[name].texts(), name


def test_a_column_that_cannot_be_read_can_be_left_out(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = pyarrow.table({"tags": [["a"]] * 40, "x": np.random.default_rng(0).normal(size=40)})
    parquet.write_table(table, tmp_path / "t.parquet")
    refused(lambda: Experiment.read(tmp_path / "t.parquet"), "column 'tags'", "type list", "data.drop=NAME")
    for change in ("data.drop=tags", "data.drop=[tags]"):
        data = load_data(Experiment.read(tmp_path / "t.parquet", [change]))
        assert [kind.name for kind in data.columns] == ["x"]
        assert set(data.train[:, 0].tolist()) < set(table["x"].to_pylist())
    assert [kind.name for kind in taken(table, None, {"drop": "tags"}, None)[0].columns] == ["x"]
    far = pyarrow.table({"t": pyarrow.array([2**62, 0] * 20, pyarrow.timestamp("us")), "x": range(40)})
    parquet.write_table(far, tmp_path / "far.parquet")
    refused(lambda: Experiment.read(tmp_path / "far.parquet"), "column 't'", "cannot be read", "data.drop=NAME")


def test_text_in_utf_32_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("a,b\n1,2\n".encode("utf-32"))
    refused(lambda: read_delimited(tmp_path / "a.csv"), "UTF-32", "save it as UTF-8")


@pytest.mark.parametrize(
    ("dates", "regular"),
    [
        (np.arange("1955-01", "1975-01", dtype="datetime64[M]"), True),
        (np.busday_offset(np.datetime64("2019-01-01"), np.arange(200)), True),
        (np.arange("2019-01-01", "2019-03-01", dtype="datetime64[D]")[::-1], False),
        (np.datetime64("2019-01-01") + np.sort(np.random.default_rng(0).integers(0, 900, 200)), False),
    ],
)  # fmt: skip
def test_months_and_working_days_follow_each_other_too(dates: Any, regular: bool) -> None:
    assert clock({"x": Words.of(["a"] * len(dates)), "day": Words.of(list(map(str, dates)))}) == "day" * regular


def test_parquet_is_read_and_written(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    from ornstein.data.frames import write_parquet
    from ornstein.data.table import read_table

    table = arrow.table({"a": list(range(0, 200, 2)), "b": ["x", "y", None, "x"] * 25, "c": [0.5, 1.25] * 50})
    parquet.write_table(table, tmp_path / "t.parquet")
    data = open_data(tmp_path / "t.parquet").load()
    assert [column.kind for column in data.columns] == ["integer", "category", "number"]
    assert glance_at(tmp_path / "t.parquet")[:2] == (100, 3)
    words, _ = read_table(tmp_path / "t.parquet")
    rows = carrier(words, data.columns)
    assert write_parquet(tmp_path / "u.parquet", data.columns, (rows[:60], rows[60:]), table) == 100
    assert parquet.read_table(tmp_path / "u.parquet").equals(table)
    refused(lambda: read_table(saved(tmp_path, b"PAR1 not", "v.parquet")), "v.parquet", "parquet")


def test_without_the_extra_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    refused(open_data(saved(tmp_path, b"PAR1", "t.parquet")).load, "pyarrow", "ornstein[tables]", ".csv")


def test_words_know_their_rows() -> None:
    words = Words.of(["b", "a", "b", "c"])
    assert words.rows == [1, 2, 4]
    assert words.counts == [2, 1, 1]
    assert words[torch.tensor([3, 1]).numpy()].texts() == ["c", "a"]
    assert list(itertools.chain(words.different)) == ["b", "a", "c"]
