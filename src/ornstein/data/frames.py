"""Tables of other programs: data frames of pandas, polars and pyarrow, and .parquet files.

All of them go through *narwhals*, one interface to all. A frame becomes columns of words, like those of a text file, so
that the same rules find, hold out and write columns; if a type says that a column is a category, the rules are told.
`to_frame` makes a frame of the caller's own kind again, with its types.

The packages are an extra: `pip install "ornstein[tables]"`. A caller who has a frame has what it needs.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ornstein.data import notation
from ornstein.data.kinds import MOST_LETTERS, MOST_LEVELS, Words
from ornstein.data.reading import half_of_memory
from ornstein.data.schema import ColumnType
from ornstein.errors import InputError, must_fit, shown
from ornstein.files import regular, replacing

if TYPE_CHECKING:
    import numpy as np

#: rows of a parquet file that are read, and written, at a time; bytes of memory for each of its cells
_ROWS, _CELL = 2**16, 100
_EPOCH = datetime(1970, 1, 1)


def is_frame(value: object) -> bool:
    """Whether a value is a data frame of pandas, polars or pyarrow; none of them is loaded to see."""
    home = type(value).__module__.partition(".")[0]
    return home in ("pandas", "polars", "pyarrow", "modin", "narwhals") and type(value).__name__ in (
        "DataFrame",
        "Table",
    )


def words_of(
    frame: Any, name: str = "the frame", unread: Sequence[str] = (), types: Sequence[ColumnType] = ()
) -> tuple[dict[str, Words], dict[str, str]]:
    """The columns of a frame as words, and what its types say of them.

    A missing value (None, NaN, NaT, <NA>) is the empty word. Moments are written in UTC, but as dates alone, in their
    own zone, if all of a column are at midnight there: so does pandas where it writes a .csv.

    Args:
        frame: of pandas, polars or pyarrow, or what narwhals knows besides.
        name: what to call it in errors.
        unread: columns that are left out by whoever asks, whose cells are therefore not looked at.
        types: of those columns that are known already: moments of dates without times stay in their own zone.

    Returns:
        name -> words; name -> a kind of `ornstein.data.schema`, where the type decides it.

    Raises:
        InputError: no frame, no rows; names that are no text or are there twice; cells that are lists or records.
    """
    nw = _narwhals("data frames")
    try:
        native = frame if isinstance(frame, nw.DataFrame) else nw.from_native(frame, eager_only=True)
        names = list(native.columns)
    except Exception as error:  # narwhals has kinds of errors of its own, of names that are there twice among others
        raise InputError(f"{name} is no table: {' '.join(str(error).split())[:200]}.") from None
    if not names or not len(native):
        raise InputError(f"{name} has {len(native):,} rows and {len(names):,} columns; a table has both.")
    if twice := next((column for column in names if names.count(column) > 1), None):
        raise InputError(f"{name} has the column {shown(twice)!r} twice; give each column a name of its own.")
    columns, kinds, days = {}, {}, {kind.name: _is_of_days(kind) for kind in types if kind.kind == "date"}
    for column in names:
        if not isinstance(column, str):
            raise InputError(f"{name} has a column called {column!r}; names are texts.")
        if column in unread:
            columns[column] = Words.of([""] * len(native))
            continue
        series = native[column]
        columns[column] = Words.of(_worded(nw, series, f"{name}, column {shown(column)!r}", days.get(column)))
        if (kind := _said(nw, series.dtype, columns[column])) is not None:
            kinds[column] = kind
    return columns, kinds


def _said(nw: Any, dtype: Any, words: Words) -> str | None:
    """What a type says of a column that its words do not."""
    full = {word for word in words.different if word}
    if dtype == nw.Categorical or dtype == nw.Enum:
        return "category" if 1 < len(full) <= MOST_LEVELS and sum(map(len, full)) <= MOST_LETTERS else None
    return None


def _is_of_days(kind: ColumnType) -> bool:
    """Whether dates are written without a time."""
    return not {"H", "I"} & set(kind.format)


def _worded(nw: Any, series: Any, name: str, days: bool | None) -> list[str]:
    """The cells of a column as words; `days`: whether it is known as one of dates without times, or of times."""
    try:
        values = series.to_list()
    except (OverflowError, ValueError) as error:  # moments that Python has no dates for, as of the year 10,000
        why = f"has cells that cannot be read ({' '.join(str(error).split())[:100]})"
        raise InputError(f"{name} {why}; leave the column out, by data.drop=NAME.") from None
    if series.dtype == nw.Datetime and days is not False:
        here = [None if _is_gone(value) else value.replace(tzinfo=None) for value in values]
        if all(value is None or value.time() == time() for value in here):
            return ["" if value is None else value.date().isoformat() for value in here]
        values = here if days else values
    # either all moments of a column are written with a fraction of the second or none is
    fine = any(getattr(value, "microsecond", 0) for value in values)
    return [_word(value, name, fine) for value in values]


def _is_gone(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NaTType", "NAType")


def _word(value: Any, name: str, fine: bool) -> str:
    if _is_gone(value):
        return ""
    if isinstance(value, (str, bool, int)):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # a number of NumPy's
        return _word(value.item(), name, fine)
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(tz=UTC).replace(tzinfo=None)
        return str(value.isoformat(" ", "microseconds" if fine else "seconds"))
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return repr(value.total_seconds())
    if type(value).__name__ in ("Decimal", "time", "Interval", "Period", "UUID"):
        return str(value)
    raise InputError(
        f"{name} has cells of type {type(value).__name__}; a cell is a number, a text, a date or missing: leave the "
        "column out, by data.drop=NAME."
    )


def to_frame(like: Any, types: Sequence[ColumnType], rows: "Tensor | np.ndarray") -> Any:
    """A carrier as a frame of the caller's own kind, with the types and the order that its columns had there.

    Args:
        like: a frame with these columns, such as the one that was trained on.
        types: what the columns are.
        rows: (N, d) of the carrier.

    Raises:
        InputError: `like` is no frame or lacks a column.
    """
    nw = _narwhals("data frames")
    native = like if isinstance(like, nw.DataFrame) else nw.from_native(like, eager_only=True)
    values = rows.detach().cpu().double().numpy() if isinstance(rows, Tensor) else rows
    if absent := [kind.name for kind in types if kind.name not in native.columns]:
        raise InputError(f"the frame has no column {shown(absent[0])!r}.")
    made = []
    for place, kind in enumerate(types):
        before = native[kind.name]
        cells = _cells(nw, kind, values[:, place], before.dtype)
        space = nw.get_native_namespace(native)
        made.append(_cast(nw, nw.new_series(kind.name, cells, backend=space), before.dtype, _is_of_days(kind)))
    made.sort(key=lambda series: native.columns.index(series.name))
    frame = made[0].to_frame()
    found = nw.to_native(frame.with_columns(*made[1:]) if len(made) > 1 else frame)
    return _as_before(found, nw.to_native(native.select(*(series.name for series in made))))


def fill_frame(like: Any, types: Sequence[ColumnType], rows: Tensor, holes: Tensor, wanted: Any = None) -> Any:
    """A frame with its holes filled; all else, columns that are not of these types among it, is as it was.

    Args:
        like: the frame.
        types: what its columns are; it need not have all of them.
        rows, holes: (N, d) of the carrier, and where its values are to stand.
        wanted: a frame of the types that columns without any value get; None for those that suit their kinds.
    """
    nw = _narwhals("data frames")
    native = nw.from_native(like, eager_only=True)
    usual = {} if wanted is None else dict(nw.from_native(wanted, eager_only=True).schema)
    made: list[Any] = []
    new: list[Any] = []
    for place, kind in enumerate(types):
        where = holes[:, place].nonzero().flatten().tolist()
        if not where or kind.name not in native.columns:
            continue
        before = native[kind.name]
        cells, dtype = before.to_list(), before.dtype
        if empty := len(where) == len(cells) and (dtype == nw.Unknown or dtype.is_float() or dtype == nw.String):
            dtype = usual.get(kind.name, _usual(nw, kind))
        space, found = nw.get_native_namespace(native), _cells(nw, kind, rows[where, place].double().numpy(), dtype)
        fresh = _cast(nw, nw.new_series(kind.name, found, backend=space), dtype, _is_of_days(kind))
        if empty:
            series = fresh
        elif getattr(dtype, "time_zone", None):
            series = before.scatter(where, fresh)
        else:
            for row, cell in zip(where, found, strict=True):
                cells[row] = cell
            series = _cast(nw, nw.new_series(kind.name, cells, backend=space), dtype, False)
        if hasattr(like, "index"):  # of pandas, which puts rows together by it
            series = nw.from_native(nw.to_native(series).set_axis(like.index), series_only=True)
        (new if empty else made).append(series)
    filled = _as_before(nw.to_native(native.with_columns(*made) if made else native.clone()), like)
    return nw.to_native(nw.from_native(filled, eager_only=True).with_columns(*new)) if new else filled


def _usual(nw: Any, kind: ColumnType) -> Any:
    """The type of a frame's column that suits a kind."""
    days = nw.Date if _is_of_days(kind) else nw.Datetime
    return {"integer": nw.Int64, "number": nw.Float64, "date": days}.get(kind.kind, nw.String)()


def with_rows(like: Any, other: Any, rows: Sequence[int], after: Sequence[int]) -> Any:
    """A frame with some rows of another, which may have fewer columns; a frame of pandas is numbered afresh.

    Args:
        like: the frame.
        other: the other, of the same library.
        rows: which of its rows.
        after: the row of `like` that each is put behind.
    """
    nw = _narwhals("data frames")
    before, more = (nw.from_native(frame, eager_only=True) for frame in (like, other))
    joined = nw.concat([before, more[list(rows)]], how="diagonal")
    places = [*range(len(before)), *after]
    order = sorted(range(len(places)), key=places.__getitem__)  # stable: the rows of `like` go first
    return _as_before(nw.to_native(nw.maybe_reset_index(joined[order])), like)


def _cells(nw: Any, kind: ColumnType, values: "np.ndarray", dtype: Any) -> list[Any]:
    """The cells of a column as Python has them, None where missing."""
    if ((dtype.is_temporal() or dtype == nw.Object) and kind.kind == "date") or (dtype in (nw.Date, nw.Datetime)):
        words = kind.render(values)
        moments: Iterable[float] = values if kind.kind == "date" else [_moment(word) for word in words]
        found: list[Any] = [
            None if math.isnan(v) else _EPOCH + timedelta(microseconds=round(kind.rounded(float(v)) * 1e6))
            for v in moments
        ]
        days = dtype == nw.Date or (dtype == nw.Object and kind.format == "%Y-%m-%d")
        return [cell.date() if cell is not None and days else cell for cell in found]
    words = kind.render(values)
    missing = [kind.is_missing(word) for word in words]
    if dtype == nw.Duration:
        return [None if gone else timedelta(seconds=float(w)) for w, gone in zip(words, missing, strict=True)]
    if dtype == nw.Boolean or (dtype == nw.Object and {*kind.levels} <= {"False", "True"} and kind.levels):
        return [None if gone else word == "True" for word, gone in zip(words, missing, strict=True)]
    if dtype.is_integer():
        return [None if gone else int(float(word)) for word, gone in zip(words, missing, strict=True)]
    if dtype.is_float():
        return [math.nan if gone else float(word) for word, gone in zip(words, missing, strict=True)]
    return [None if gone else word for word, gone in zip(words, missing, strict=True)]


def _as_before(made: Any, like: Any) -> Any:
    """With the finer types that narwhals does not tell apart, such as pandas' Int64 beside int64, where they can be."""
    if hasattr(like, "astype"):
        for name in like.columns:
            with suppress(Exception):  # a type that the values do not allow
                column = made[name].astype(like[name].dtype)
                # to pandas two categorical types are equal whose categories stand in another order
                made[name] = column.cat.set_categories(like[name].cat.categories) if hasattr(column, "cat") else column
    elif hasattr(made, "cast"):
        with suppress(Exception):
            return made.cast(like.schema)
    return made


def _moment(word: str) -> float:
    found = notation.patterns([word]) if word else []
    return notation.seconds(word, found[0]) if found else math.nan


def _cast(nw: Any, series: Any, dtype: Any, days: bool) -> Any:
    """With the type that the column had, where what was drawn allows it: whole numbers with holes may become floats.

    `days`: moments are midnights in the zone of the type, not in UTC.
    """
    try:
        if dtype == nw.Datetime and getattr(dtype, "time_zone", None):
            plain = series.cast(nw.Datetime(dtype.time_unit))
            if days:
                return plain.dt.replace_time_zone(dtype.time_zone)
            return plain.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
        return series.cast(dtype)
    except Exception:  # each library has errors of its own for a cast that it does not make
        return series


# Parquet --------------------------------------------------------------------------------------------------------------


def read_parquet(path: "str | Path", noun: str = "data.path", rows: int | None = None) -> tuple[Any, int]:
    """A .parquet file as a table of pyarrow, and how many rows it has in all.

    Args:
        path: the file.
        noun: what to call it in errors.
        rows: how many to read at least, where there are so many; None for all.

    Raises:
        InputError: no such file; not parquet, or damaged; more than memory holds; pyarrow is not installed.
    """
    place = regular(path, noun, "a .parquet file")
    arrow, parquet = _arrow(shown(path))
    try:
        with parquet.ParquetFile(place) as file:
            facts = file.metadata
            count, wide = facts.num_rows, facts.num_columns
            declared = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
            if count < 0 or declared < 0:
                raise InputError(f"{shown(path)} is damaged or no parquet file.")
            if rows is None:
                must_fit(f"{shown(path)} takes", _CELL * count * wide + 2.0 * declared, half_of_memory(),
                         "take a part of its rows or columns")  # fmt: skip
                return file.read(use_threads=False), count
            few = next(file.iter_batches(min(rows, _ROWS), use_threads=False), None)
            return arrow.Table.from_batches([few] if few is not None else [], file.schema_arrow), count
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{shown(path)} does not fit into memory.") from None
    except Exception as error:  # arrow's errors are of many kinds, and OSError among them
        why = " ".join(str(error).split())[:150]
        raise InputError(f"{shown(path)} is damaged or no parquet file ({why}).") from None


def write_parquet(
    path: Path, types: Sequence[ColumnType], pieces: "Iterable[Tensor | np.ndarray]", like: Any = None
) -> int:
    """Write a carrier as a .parquet file, whole or not at all; how many rows were written.

    Args:
        path: the file.
        types: what the columns are.
        pieces: (N, d) each, in order.
        like: a frame whose types the columns are to have; None for those that suit their kinds.

    Raises:
        InputError: it cannot be written; pyarrow is not installed.
    """
    (_, parquet), nw = _arrow(shown(path)), _narwhals(shown(path))
    like = like if like is not None else _empty(types)
    done, writer = 0, None
    with replacing(path) as part:
        try:
            for piece in pieces:
                table = nw.from_native(to_frame(like, types, piece), eager_only=True).to_arrow()
                writer = writer or parquet.ParquetWriter(part, table.schema)
                writer.write_table(table)
                done += len(piece)
        finally:
            if writer is not None:
                writer.close()
    return done


def _empty(types: Sequence[ColumnType]) -> Any:
    """A table of pyarrow without rows, with types that suit the columns."""
    arrow, _ = _arrow("a .parquet file")
    kinds = {"integer": arrow.int64(), "number": arrow.float64(), "date": arrow.timestamp("us"), "day": arrow.date32()}
    columns = {}
    for kind in types:
        noun = "day" if kind.kind == "date" and _is_of_days(kind) else kind.kind
        truth = kind.levels == ("False", "True")
        columns[kind.name] = arrow.array([], arrow.bool_() if truth else kinds.get(noun, arrow.string()))
    return arrow.table(columns)


def _narwhals(what: str) -> Any:
    with _needed(what):
        import narwhals

        return narwhals


def _arrow(what: str) -> tuple[Any, Any]:
    """pyarrow, and what reads and writes parquet."""
    with _needed(what):
        import pyarrow
        import pyarrow.parquet

        return pyarrow, pyarrow.parquet


@contextmanager
def _needed(what: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"{what}: {error.name or 'a package'} is not installed, which reads such tables; "
            'pip install "ornstein[tables]", or save the table as .csv.'
        ) from None
