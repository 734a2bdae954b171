"""Tables as text: .csv, .tsv and the like, read in their own format and written back in it.

The format is detected from the first 64 KiB of a file, and kept as its `Dialect`:

- The delimiter is the one of tab ; | , by which all rows have equally many cells. (Tab first: a comma may be a decimal
  mark, a tab never.) "sep=;" in the first line, as Excel writes it, decides.
- A first row of numbers alone is not a header: the columns are then column1, column2, ...
- The text is UTF-8, with or without a byte-order mark, or UTF-16 with one; anything else is read as Windows-1252.
- Quoted cells may hold line breaks. A quote that never ends, and rows of differing length, are refused.

Every different word of a column is stored once, so that a file takes a few bytes a cell. The size of an unpacked file
is bounded, and so is the memory that it takes.
"""

import csv
import gzip
import io
import math
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, final

from torch import Tensor

from ornstein.data import notation
from ornstein.data.kinds import Words
from ornstein.data.reading import MOST_EXPANDED, MOST_TIMES, half_of_memory
from ornstein.data.schema import MISSING_NUMBER, ColumnType
from ornstein.errors import InputError, must_fit, shown
from ornstein.files import opened, regular, replacing

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".tab", ".txt", ".txt.gz")
MOST_COLUMNS = 10_000
#: characters that are looked at first; rows that are read, and written, at a time
_HEAD, _ROWS = 2**16, 8192
_DELIMITERS = ("\t", ";", "|", ",")
#: in what order encodings are tried
_ENCODINGS = ("utf-8-sig", "cp1252", "latin-1")
#: bytes of memory for each cell (its code, its number twice, and in model space) and for each different word
_CELL, _WORD = 28, 160
#: with what a cell begins that spreadsheets take for a formula
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@final
@dataclass(frozen=True)
class Dialect:
    """The format of a table's file.

    Args:
        delimiter: between cells.
        newline: between rows.
        header: whether the first row has the columns' names.
        spaced: whether a space follows each delimiter.
        encoding: in which it was read; what is written is UTF-8.
    """

    delimiter: str = ","
    newline: str = "\n"
    header: bool = True
    spaced: bool = False
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if self.delimiter not in _DELIMITERS or self.newline not in ("\n", "\r\n", "\r"):
            raise InputError(f"delimiter={self.delimiter!r} must be a tab, ;, | or a comma, and newline a line break.")

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of its fields."""
        return asdict(self)

    @staticmethod
    def from_dict(description: object) -> "Dialect":
        """The dialect that `to_dict` described. Raises `InputError` if the description is not one."""
        types = {"delimiter": str, "newline": str, "header": bool, "spaced": bool, "encoding": str}
        if not isinstance(description, Mapping) or not all(
            type(value) is types.get(name) for name, value in description.items()
        ):
            raise InputError(f"a table's dialect must be a mapping of {', '.join(types)}; it is {description!r:.80}.")
        return Dialect(**description)


@final
class _Bounded(io.RawIOBase):
    """Bytes of a file, as many as it may grow to; the zeros that text never has are refused."""

    def __init__(self, stream: Any, name: str, most: float, text: bool) -> None:
        self.stream, self.name, self.most, self.text, self.taken = stream, name, most, text, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            some = self.stream.read(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{self.name} is damaged: {error}.") from None
        self.taken += len(some)
        if self.taken > self.most:
            raise InputError(
                f"{self.name} grows to more than {self.most / 1e6:,.0f} MB when it is unpacked, which is more than "
                f"{MOST_TIMES} times its size; if that is meant, unpack it first."
            )
        if self.text and b"\0" in some:
            raise InputError(f"{self.name} holds zero bytes, which no text has; give a table as .csv or .parquet.")
        buffer[: len(some)] = some
        return len(some)


@contextmanager
def _bytes(path: Path, text: bool = False) -> Iterator[_Bounded]:
    """The bytes of a file, unpacked if it is gzip; of a `text` without zeros."""
    with opened(path) as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        size = stream.seek(0, 2)
        stream.seek(0)
        source: Any = gzip.GzipFile(fileobj=stream) if packed else stream
        yield _Bounded(source, shown(path), max(MOST_EXPANDED, MOST_TIMES * size) if packed else math.inf, text)


@contextmanager
def _text(path: Path, encoding: str, zeros: bool = False) -> Iterator[TextIO]:
    """The text of a file, plain or gzip, decoded as it is read; it may have `zeros` where its encoding has."""
    with (
        _bytes(path, encoding != "utf-16" and not zeros) as raw,
        io.TextIOWrapper(io.BufferedReader(raw, 2**18), encoding, newline="") as text,
    ):
        yield text


def read_delimited(
    path: "str | Path",
    noun: str = "data.path",
    header: bool | None = None,
    rows: int | None = None,
) -> tuple[dict[str, Words], Dialect, list[str]]:
    """The columns of a file of text, and its format.

    Args:
        path: the file, plain or gzip.
        noun: what to call it in errors.
        header: whether it has one; None to see (the module).
        rows: how many to read; None for all, once a .gz has been unpacked to see that it is whole and no bomb.

    Returns:
        name -> words; the dialect; remarks on what was found.

    Raises:
        InputError: no file of text; no rows; rows of differing length; two columns of one name; damaged, or more than
            memory holds.
    """
    place = regular(path, noun, "a table, such as a .csv file")
    with _bytes(place) as raw:
        start = raw.read(4)
        # a .gz may lie about its size: unpacking it to see takes a second, reading it as cells half a minute
        while rows is None and math.isfinite(raw.most) and raw.read(2**20):
            pass
    if start in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        raise InputError(f"{shown(path)} is text in UTF-32; save it as UTF-8.")
    encodings = ("utf-16",) if start[:2] in (b"\xff\xfe", b"\xfe\xff") else _ENCODINGS
    for encoding in encodings:
        try:
            with _text(place, encoding) as text:
                dialect, names, first, skipped = _found(text.read(_HEAD), place, encoding, header)
            with _text(place, encoding) as text:
                columns = _read(text, place, dialect, names, first, skipped, rows)
            break
        except UnicodeDecodeError:
            if encoding == encodings[-1]:
                raise InputError(f"{shown(path)} is no text in {encoding}; save it as UTF-8.") from None
        except csv.Error as error:
            long = f"a cell has more than {csv.field_size_limit():,} characters; perhaps a quotation mark is not closed"
            said = long if "field limit" in str(error) else error
            raise InputError(f"{shown(path)} is no table of text: {said}.") from None
    return columns, dialect, _remarks(dialect, len(names))


def line_breaks(path: "str | Path") -> int:
    """How many line breaks a file of text has, plain or gzip. Raises `InputError` as `read_delimited` does."""
    with _text(regular(path, "data.path"), "latin-1", zeros=True) as text:
        return sum(some.count("\n") for some in iter(lambda: text.read(2**20), ""))


def _remarks(dialect: Dialect, count: int) -> list[str]:
    found = []
    if not dialect.header:
        found.append(f"no header, for the first row is numbers: columns column1 to column{count}")
    if dialect.encoding in ("cp1252", "latin-1"):
        found.append("not UTF-8: read as Windows' Latin alphabet, and written as UTF-8")
    if dialect.delimiter != ",":
        named = {"\t": "tabs", ";": "semicolons", "|": "bars"}
        found.append(f"cells separated by {named[dialect.delimiter]}")
    if dialect.spaced:
        found.append("spaces after the delimiters are not part of the cells")
    return found


def _found(head: str, path: Path, encoding: str, header: bool | None) -> tuple[Dialect, list[str], int, int]:
    """The dialect, the names, rows before the first of data, and lines before the first row, by a file's start."""
    whole = head if len(head) < _HEAD else head[: max(head.rfind("\n"), head.rfind("\r")) + 1] or head
    skipped, delimiter = 0, None
    if whole[:4].lower() == "sep=" and whole[4:5] in _DELIMITERS and whole[5:6] in ("\r", "\n"):
        skipped, delimiter = 1, whole[4]
        whole = whole[5:].lstrip("\r\n")
    newline = "\r\n" if "\r\n" in whole else "\n" if "\n" in whole else "\r" if "\r" in whole else "\n"
    delimiter = delimiter or _delimiter(whole)
    follows = whole.count(delimiter + " ") / max(whole.count(delimiter), 1) if delimiter != "\t" else 0.0
    spaced = follows > 0.8
    reader = csv.reader(io.StringIO(whole, newline=""), delimiter=delimiter, skipinitialspace=spaced)
    first = next((row for row in reader if row), None)
    if first is None:
        raise InputError(f"{shown(path)} is empty; a table has a row of names and rows of values.")
    if len(first) > MOST_COLUMNS:
        raise InputError(
            f"{shown(path)} has more than {MOST_COLUMNS:,} columns, which is as many as a table has at most."
        )
    named = not _numbers(first, delimiter) if header is None else header
    names = first if named else [f"column{place}" for place in range(1, len(first) + 1)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{shown(path)} has the column {shown(twice[0][:60])!r} {names.count(twice[0])} times; give each column a "
            "name of its own."
        )
    return Dialect(delimiter, newline, named, spaced, encoding.removesuffix("-sig")), names, int(named), skipped


def _numbers(row: Sequence[str], delimiter: str) -> bool:
    """Whether a row is of numbers alone, and so of data and not of names."""
    marks = "." if delimiter == "," else ".,"
    full = [cell for cell in row if cell.strip() not in MISSING_NUMBER]
    return bool(full) and all(any(notation.number(cell, m) == notation.number(cell, m) for m in marks) for cell in full)


def _delimiter(head: str) -> str:
    """The delimiter by which the rows have equally many cells."""
    best, score = ",", 0.0
    for delimiter in reversed(_DELIMITERS):
        try:
            rows = list(islice(csv.reader(io.StringIO(head, newline=""), delimiter=delimiter), 200))
        except csv.Error:
            continue
        counts = Counter(len(row) for row in rows if row)
        if not counts:
            continue
        (wide, often), header = counts.most_common(1)[0], next(len(row) for row in rows if row)
        # what splits the header as the rows is likelier than what does not, and what leaves it whole is in the cells
        share = often / counts.total() - 0.5 * (header != wide)
        if min(wide, header) > 1 and (share == 1 or share > score):
            best, score = delimiter, share
    return best


def _read(
    text: TextIO, path: Path, dialect: Dialect, names: list[str], first: int, skipped: int, most: int | None
) -> dict[str, Words]:
    import numpy as np

    for _ in range(skipped):
        text.readline()
    reader = csv.reader(text, delimiter=dialect.delimiter, skipinitialspace=dialect.spaced, strict=True)
    for _ in range(first):
        next((row for row in reader if row), None)
    places: list[defaultdict[str, int]] = [defaultdict() for _ in names]
    for index in places:
        index.default_factory = index.__len__
    codes = [array("i") for _ in names]
    done, free = 0, half_of_memory()
    while rows := list(islice(reader, _ROWS if most is None else min(_ROWS, most - done))):
        rows = [row for row in rows if row]  # an empty line is no row
        if rows and set(map(len, rows)) != {len(names)}:
            place, row = next((i, row) for i, row in enumerate(rows) if len(row) != len(names))
            raise InputError(
                f"{shown(path)}: row {done + place + 1:,} has {len(row):,} cell{'s' * (len(row) != 1)} where "
                f"{'the header' if dialect.header else 'the first row'} has {len(names):,} (near line "
                f"{reader.line_num - len(rows) + place + 1:,}); a delimiter inside of a cell wants quotes around it"
                f"{'; lines above the header, such as a title, must go' * (not done and len(row) > len(names))}."
            )
        done += len(rows)
        for index, found, column in zip(places, codes, zip(*rows, strict=True), strict=bool(rows)):
            found.extend(map(index.__getitem__, column))
        words = sum(map(len, places))
        must_fit(
            f"{shown(path)} takes from row {done:,} on more than", _CELL * done * len(names) + _WORD * words, free,
            "take a part of its rows or columns",
        )  # fmt: skip
    if not done:
        raise InputError(f"{shown(path)} has {'a header and ' * dialect.header}no rows of values.")
    return {
        name: Words(list(index), np.frombuffer(found, np.int32))
        for name, index, found in zip(names, places, codes, strict=True)
    }


# Writing --------------------------------------------------------------------------------------------------------------


def write_csv(
    path: Path,
    types: Sequence[ColumnType],
    rows: "Tensor | np.ndarray | Iterable[Tensor | np.ndarray]",
    dialect: Dialect | None = None,
    known: Mapping[str, Words] | None = None,
) -> int:
    """Write a carrier as a table, whole or not at all; as gzip if the name ends in .gz.

    Cells are exactly what the types make of them: none is changed for the sake of spreadsheets, which take some for
    formulas. `formulas` says which, for a message to the user.

    Args:
        path: the file.
        types: what the columns are.
        rows: (N, d), or pieces of that in their order, each written before the next is asked for.
        dialect: how to lay it out; None for commas, or semicolons where a column has a decimal comma, or by .tsv tabs.
        known: name -> words that are written as they are wherever they are not missing: what was not drawn.

    Returns:
        How many rows were written.

    Raises:
        InputError: pieces of another number of columns; the file cannot be written.
    """
    if dialect is None:
        mark = ";" if any(kind.mark == "," for kind in types) else ","
        dialect = Dialect("\t" if ".tsv" in path.suffixes else mark)
    pieces: Iterable[Any] = [rows] if hasattr(rows, "ndim") else rows
    done = 0
    with replacing(path) as part, part.open("wb") as file:
        packed = path.suffix.lower() == ".gz"
        raw: Any = gzip.GzipFile("", "wb", 6, file, mtime=0) if packed else file
        with io.TextIOWrapper(raw, "utf-8", newline="") as text:
            # told \r\n, the writer puts quotes around cells with either; told \n, it would leave a lone \r to end a row
            ends: Any = text if dialect.newline == "\r\n" else _Ends(text, dialect.newline)
            writer = csv.writer(ends, delimiter=dialect.delimiter, lineterminator="\r\n")
            if dialect.header:
                writer.writerow([kind.name for kind in types])
            for piece in pieces:
                if piece.ndim != 2 or piece.shape[1] != len(types):
                    raise InputError(f"rows of shape {tuple(piece.shape)} do not fit {len(types)} columns.")
                for some in (piece[i : i + _ROWS] for i in range(0, len(piece), _ROWS)):
                    writer.writerows(zip(*rendered(some, types, done, known), strict=True))
                    done += len(some)
    return done


@final
@dataclass(frozen=True)
class _Ends:
    """A text to which rows that end in \\r\\n are written with another end."""

    text: TextIO
    newline: str

    def write(self, row: str) -> int:
        return self.text.write(row[:-2] + self.newline)


def rendered(
    some: "Tensor | np.ndarray", types: Sequence[ColumnType], done: int, known: Mapping[str, Words] | None
) -> Iterator[list[str]]:
    """The words of a carrier's rows, column by column, after `done` others; those of `known` stay: see `write_csv`."""
    values = some.detach().cpu().double().numpy() if isinstance(some, Tensor) else some
    for place, kind in enumerate(types):
        words = kind.render(values[:, place], done)
        if known is not None and kind.name in known:
            before = known[kind.name][done : done + len(words)].texts()
            words = [new if kind.is_missing(old) else old for new, old in zip(words, before, strict=True)]
        yield words


def formulas(types: Sequence[ColumnType]) -> str:
    """A sentence on the columns of which spreadsheets would take cells for formulas; "" if there is none."""
    found = [
        kind.name
        for kind in types
        if any(w.startswith(_FORMULA) and notation.number(w) != notation.number(w) for w in (kind.name, *kind.levels))
    ]
    if not found:
        return ""
    names = ", ".join(repr(shown(name)) for name in found[:5]) + (", ..." if len(found) > 5 else "")
    return (
        f"column{'s' * (len(found) > 1)} {names}: words begin with =, +, - or @ as in your own data; a spreadsheet "
        "runs such cells as formulas, so import the file as text."
    )
