"""Series in time, read from a file, a data frame or an array and laid on a regular grid.

A table has a row for each moment; an array has an axis of time. What is absent (a row that was left out, an empty
cell) is NaN on the grid. Several rows of one series at one moment become their mean. The grid is always even: in data
of working days, the other days are gaps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from ornstein.data.calendar import DAY, component, step_of_day
from ornstein.data.frames import is_frame, words_of
from ornstein.data.kinds import Words, find_types
from ornstein.data.reading import as_tensor, read_arrays
from ornstein.data.schema import ColumnType
from ornstein.data.table import TABLES, carrier, read_table
from ornstein.data.timeline import Timeline
from ornstein.errors import InputError, lookup, shown
from ornstein.files import regular

if TYPE_CHECKING:
    import numpy as np

#: columns that say of a moment what its date says
_PARTS = ("year", "month", "day", "hour", "minute", "second", "weekday", "date")
#: cells of a grid for each that is in the file: beyond, the file is no regular series
_SPARSEST, _SMALL = 50, 100_000


@final
@dataclass(frozen=True, eq=False)
class Track:
    """One series on its grid.

    Args:
        name: of the series, "" if there is only one.
        first: the place of its first step on the grid.
        values: (T, F) float64, NaN where not seen.
        rows: (T,) the table's row of each step, -1 if it has none or several; None for an array.
        idle: whether steps without a row are no gaps, and get none: see `Timeline`.
        words: the table's columns as it spells them, for `spelled`.
    """

    name: str
    first: int
    values: Tensor
    rows: Tensor | None = None
    idle: bool = False
    words: Mapping[str, Words] = field(default_factory=dict)

    @property
    def shared(self) -> int:
        """How many moments have several rows, of which the mean is taken."""
        return 0 if self.rows is None else int(((self.rows < 0) & ~self.values.isnan().all(1)).sum())

    @property
    def listed(self) -> Tensor:
        """(T,) bool: which steps a table of the series has a row for: all, or those that it had."""
        if self.rows is None or not self.idle:
            return torch.ones(len(self.values), dtype=torch.bool)
        return (self.rows >= 0) | ~self.values.isnan().all(1)

    def spelled(self, column: str) -> list[str | None]:
        """The file's own words at each step; None for a step without exactly one row."""
        if self.rows is None or column not in self.words:
            return [None] * len(self.values)
        said = self.words[column]
        return [None if row < 0 else said.different[said.codes[row]] for row in self.rows.tolist()]


def read(line: Timeline, data: Any, noun: str = "input") -> list[Track]:
    """The series of other data of the same columns, on the grid of `line`.

    Args:
        data: a file's path, a data frame, or an array.

    Raises:
        InputError: columns that are not there, moments off the grid, series whose names were not in training.
    """
    columns, _, _ = _opened(data, noun, [line.time] if line.time else [])
    if isinstance(columns, Tensor):
        if columns.shape[-1] != len(line.features):
            raise InputError(
                f"{called(data, noun)} has {columns.shape[-1]} features; this run has {len(line.features)}."
            )
        return [Track("", 0, each) for each in columns]
    types = [kind for kind in (*line.features, line.time, line.by) if kind is not None]
    return [replace(track, words=columns) for track in laid(line, carrier(columns, types), called(data, noun))]


def found(
    data: Any,
    time: str | None,
    by: str | None,
    wanted: Sequence[str],
    types: Mapping[str, str],
) -> tuple[Timeline, list[Track], list[str]]:
    """The series in data: what they are made of, they themselves, and remarks.

    Args:
        data: the path of a table, an .npy or .npz; a data frame, or an array.
        time: the column with dates; None for the one that has any; "none" for the order of the rows.
        by: the column that names the series; None for the only category; "none" for one series.
        wanted: the features; () for every column of numbers that is not part of the date.
        types: see `ornstein.data.table.Table`.

    Raises:
        InputError: as `Timeline.read`; no feature; several columns of dates.
    """
    columns, comma, typed = _opened(data, "data.path")
    if isinstance(columns, Tensor):
        names = wanted or [str(k) for k in range(columns.shape[-1])]
        if len(names) != columns.shape[-1]:
            raise InputError(f"data.columns={list(wanted)} must name {columns.shape[-1]} features.")
        line = Timeline(tuple(ColumnType(name, "number", format="repr") for name in names))
        return line, [Track("", 0, each) for each in columns], []
    kinds = find_types(columns, types, (), comma, typed)
    known = {kind.name: kind for kind in kinds}
    dates = [kind.name for kind in kinds if kind.kind == "date"]
    when = _chosen(time, dates, "time", known)
    words = [kind.name for kind in kinds if kind.kind in ("category", "boolean") and kind.name not in wanted]
    which = _chosen(by, words, "by", known)
    features = [lookup(known, name, "data.columns") for name in wanted] or [
        kind
        for kind in kinds
        if kind.numeric and kind.name not in (when, which) and not (when and kind.name.lower() in _PARTS)
    ]
    if bad := next((kind for kind in features if not kind.numeric), None):
        raise InputError(f"data.columns: {shown(bad.name)!r} is a {bad.kind}; the features of a series are numbers.")
    if not features:
        raise InputError(
            f"{called(data, 'data.path')} has no column of numbers besides its dates; a series is made of such."
        )
    line = Timeline(
        tuple(features),
        known[when] if when else None,
        known[which] if which else None,
    )
    rows = carrier(columns, [kind for kind in (*line.features, line.time, line.by) if kind is not None])
    if line.time is not None:
        step, months, origin = _grid(rows, len(features), line.by is not None)
        days, hours = _occurring(rows[:, len(features)], step)
        line = Timeline(line.features, line.time, line.by, step, months, origin, days=days, hours=hours)
    left = [kind.name for kind in kinds if kind not in features and kind.name not in (when, which)]
    note = [f"left out: {', '.join(map(shown, left[:8]))}{', ...' * (len(left) > 8)}"] if left else []
    return line, laid(line, rows, called(data, "data.path")), note


def laid(line: Timeline, rows: Tensor, noun: str) -> list[Track]:
    """Rows (N, features, then time, then name) on the grid of `line`, series by series.

    Raises:
        InputError: a moment or a name that is missing, moments off the grid, series that are mostly gaps.
    """
    count = len(line.features)
    values, rest = rows[:, :count], rows[:, count:]
    names = rest[:, -1] if line.by is not None else torch.zeros(len(rows))
    if names.isnan().any():
        raise InputError(f"{noun}: row {int(names.isnan().nonzero()[0]) + 1:,} has no {shown(line.by.name)}.")  # type: ignore[union-attr]
    place, idle = torch.arange(len(rows), dtype=torch.float64), line.idle
    if line.time is not None:
        place = _places(line, rest[:, 0], noun)
        idle = idle or any(_occurring(rest[:, 0], line.step))
    found = []
    for code in names.unique().tolist():
        mine = names == code
        at = place[mine].long()
        if line.time is None:
            at = torch.arange(len(at))
        first, last = int(at.min()), int(at.max())
        length = last - first + 1
        if length > _SPARSEST * len(at) + _SMALL:
            raise InputError(
                f"{noun}: the series has {len(at):,} rows for {length:,} steps of its grid; it is mostly gaps. Are the "
                "dates of one row far off, or is there no regular step?"
            )
        seen, mean = torch.zeros(2, length, count, dtype=torch.float64)
        here = values[mine]
        seen.index_add_(0, at - first, (~here.isnan()).double())
        mean.index_add_(0, at - first, here.nan_to_num(0.0))
        name = line.by.levels[int(code)] if line.by is not None else ""
        single = torch.full((length,), -1).scatter(0, at - first, mine.nonzero().flatten())
        single[at.sub(first).bincount(minlength=length) > 1] = -1
        found.append(Track(name, first, torch.where(seen > 0, mean / seen, torch.nan), single, idle))
    return found


def _occurring(seconds: Tensor, step: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The weekdays that occur in several weeks, and the steps of the day in several days; () if all do or might."""
    seconds = seconds[~seconds.isnan()]
    if not 0 < step <= DAY or not len(seconds):
        return (), ()
    days, steps = component("weekday", seconds).unique(), round(DAY / step)
    span = float(seconds.max() - seconds.min())
    hours = step_of_day(seconds, step).unique()
    some_days = span > 20 * DAY and len(days) < 7
    some_hours = span > 6 * DAY and steps * step == DAY and len(hours) < steps
    return tuple(map(int, days.tolist())) * some_days, tuple(map(int, hours.tolist())) * some_hours


def _places(line: Timeline, seconds: Tensor, noun: str) -> Tensor:
    """The places of moments on the grid, (N,) float64 whole numbers."""
    if seconds.isnan().any():
        raise InputError(f"{noun}: row {int(seconds.isnan().nonzero()[0]) + 1:,} has no {shown(line.time.name)}.")  # type: ignore[union-attr]
    if line.months:
        counted = component("year", seconds) * 12 + component("month", seconds) - 1
        place = (counted - line.origin) / line.months
    else:
        place = (seconds - line.origin) / line.step
    off = (place - place.round()).abs() > 0.01
    if off.any():
        unit = f"{line.months} months" if line.months else f"{line.step:g} s"
        raise InputError(
            f"{noun}: row {int(off.nonzero()[0]) + 1:,} lies between the steps of {unit} that most rows keep; give "
            "rows at regular times (a row may be missing)."
        )
    return place.round()


def _grid(rows: Tensor, count: int, named: bool) -> tuple[float, int, float]:
    """(step in seconds, step in months, origin): the commonest distance of two moments that follow each other."""
    seconds = rows[:, count]
    names = rows[:, -1] if named else torch.zeros(len(rows))
    steps = torch.cat([seconds[(names == code) & ~seconds.isnan()].unique().diff() for code in names.unique()])
    if not len(steps):
        raise InputError("the series have one moment each; a series has several.")
    values, counts = steps.unique(return_counts=True)
    step = float(values[counts.argmax()])
    known = seconds[~seconds.isnan()]
    if 28 * DAY <= step <= 366 * DAY and len(component("day", known).unique()) == 1:
        counted = (component("year", known) * 12 + component("month", known) - 1).unique()
        months = int(counted.diff().min())
        return 0.0, months, float(counted[0])
    return step, 0, float(known.min())


def _chosen(asked: str | None, fits: Sequence[str], field_name: str, known: Mapping[str, ColumnType]) -> str | None:
    """The column that is meant: the one that is named, or the only one that fits."""
    if asked == "none":
        return None
    if asked is not None:
        lookup(known, asked, f"data.{field_name}")
        if asked not in fits:
            kind = "dates" if field_name == "time" else "categories"
            raise InputError(f"data.{field_name}={asked!r} is a column of kind {known[asked].kind}; it must be {kind}.")
        return asked
    if len(fits) > 1:
        raise InputError(
            f"several columns may be data.{field_name}: {', '.join(map(shown, fits[:6]))}; say "
            f"which, or data.{field_name}=none."
        )
    return fits[0] if fits else None


def is_table(path: "str | Path") -> bool:
    """Whether a file is a table by its name."""
    return str(path).lower().endswith(TABLES)


def _opened(
    data: Any, noun: str, types: Sequence[ColumnType] = ()
) -> tuple[Tensor | dict[str, Words], bool, dict[str, str]]:
    """Series (N, T, F) or the columns of a table; whether its decimal mark may be a comma; kinds by a frame's types."""
    if is_frame(data):
        columns, typed = words_of(data, types=types)
        return columns, False, typed
    if not isinstance(data, (str, Path)):
        return _series(data, "X", called(data, noun)), False, {}
    if is_table(data):
        columns, dialect = read_table(data, noun)
        return columns, dialect is not None and dialect.delimiter != ",", {}
    return _series(array_in(data, noun), shown(Path(data).name), called(data, noun)), False, {}


def called(data: Any, noun: str) -> str:
    """What to call data in errors."""
    if is_frame(data):
        return "the frame"
    return f"{noun}={shown(data)!r}" if isinstance(data, (str, Path)) else "the array"


def array_in(path: "str | Path", noun: str) -> "np.ndarray":
    """The one array in an .npy or .npz file.

    Raises:
        InputError: no such file, or one with several arrays or none.
    """
    place = regular(path, noun, "a table, or an .npy or .npz array")
    if place.suffix.lower() not in (".npy", ".npz"):
        raise InputError(f"{noun}={str(path)!r} is a {place.suffix or 'nameless'} file; give a table or .npy, .npz.")
    arrays = read_arrays(place)
    if len(arrays) != 1:
        raise InputError(
            f"{noun}={str(path)!r} holds {', '.join(map(shown, arrays)) or 'nothing'}; give a file with one array."
        )
    return next(iter(arrays.values()))


def _series(array: "np.ndarray", name: str, said: str) -> Tensor:
    """Series (N, T, F) float64 of an array (T,), (T, F) or (N, T, F)."""
    values = as_tensor(array, name, missing=True).double()
    if not 1 <= values.ndim <= 3:
        raise InputError(
            f"{said} has {values.ndim} axes; series are (time,), (time, features) or (series, time, features)."
        )
    if values.ndim == 1:
        values = values[:, None]
    return values if values.ndim == 3 else values[None]
