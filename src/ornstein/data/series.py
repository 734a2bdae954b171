"""Series in time, cut into windows: one long series or many, dated or not, with gaps.

**Windows.** An example is `window` steps of one series, (features, window). By default a window covers four days if the
step is below twelve hours, and 32 steps otherwise, at most 256 and at most a twentieth of the longest series, in
multiples of eight, so that a U-Net halves it evenly. Windows begin every `stride` steps, by default a sixteenth of a
window. Gaps stay NaN (`ornstein.core.gaps`), and windows that are all gap are left out.

**Held out** is the last part *in time*: windows that begin after one moment, the same for all series, while training
windows end before it. So no value is in both, and a held-out figure says how the model does on days that it has not
seen, as in a forecast.

**Given.** The phases of the calendar's cycles at every step ("calendar"), for cycles that the step resolves and of
which the training part holds at least two; and the series' name, if a column gives one ("label").
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ornstein.core.nearest import correlation
from ornstein.data.condition import LABEL, Column, Known
from ornstein.data.dataset import Dataset, Source
from ornstein.data.layout import Layout
from ornstein.data.reading import absolute
from ornstein.data.remarks import remarks
from ornstein.data.schema import ColumnType
from ornstein.data.statistics import extremes, standardise
from ornstein.data.timeline import CYCLES, Timeline
from ornstein.data.tracks import Track, found, read
from ornstein.errors import InputError, lookup, shown

#: the part of a condition that tells the phases of the calendar
CALENDAR = "calendar"
_DAY = CYCLES["day"]
#: share of values that lie on an end for it to be one, and how many that are not enough, however few there are
_SPIKE, _FEW = 0.001, 4


@final
@dataclass(frozen=True)
class Series(Source):
    """Windows of series in time, from a table or an array (time,), (time, features) or (series, time, features).

    Args:
        path: .csv, .csv.gz, .tsv, .parquet, .npy or .npz.
        time: the column with dates; None for the only one of dates; "none": rows are in their order.
        by: the column that names the series; None for the only category, "none" for one series.
        columns: the features; () for every column of numbers that is not part of the date.
        types: types of columns, as for a table.
        window: steps of an example; None: four days, or 32 steps if a step is twelve hours or longer, at most 256 steps
            and a twentieth of the longest series.
        stride: steps from one window to the next; None: a sixteenth of a window.
        calendar: the cycles whose phase the model is given: "auto", "none", or some of day, week, year, as in
            "day,year".
        test_fraction: share of the time that is held out, at its end.

    Raises:
        InputError: as `ornstein.data.tracks` has it; series too short for windows.
    """

    path: str
    time: str | None = None
    by: str | None = None
    columns: str | tuple[str, ...] = ()
    types: dict[str, str] = field(default_factory=dict)
    window: int | None = None
    stride: int | None = None
    calendar: str = "auto"
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", absolute(self.path))
        given = self.columns
        object.__setattr__(self, "columns", tuple(given.split(",")) if isinstance(given, str) else tuple(given))
        for name in ("window", "stride"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not 1 <= value < 2**31):
                raise InputError(f"data.{name}={value!r} must be a whole number of steps from 1 to 2^31 - 1.")
        if not 0 < self.test_fraction < 1:
            raise InputError(f"data.test_fraction={self.test_fraction!r} must lie between 0 and 1, such as 0.1.")
        for name in self.calendar.split(",") if self.calendar not in ("auto", "none") else ():
            lookup(CYCLES, name, "data.calendar")

    def load(self) -> Dataset:
        return self.of(self.path)

    def of(self, data: Any) -> Dataset:
        """The windows of a file, a data frame or an array (time,), (time, features) or (series, time, features)."""
        line, tracks, notes = found(data, self.time, self.by, self.columns, self.types)
        longest = max(len(track.values) for track in tracks)
        line = dataclasses.replace(line, window=self.window or _window(line, longest))
        cut, steps = self._cut(line, tracks)
        line = dataclasses.replace(line, cycles=self._cycles(line, steps))
        return self._of(line, tracks, cut, len(tracks) > 1, notes)

    def load_on(self, line: Timeline, data: Any = None) -> Dataset:
        """The windows for a model of other series: with its features, its steps, its window and its conditions.

        Args:
            data: as of `of`; None for those of the path.

        Raises:
            InputError: columns that are not there, moments between its steps, series whose names it does not know;
                series too short for its windows.
        """
        tracks = read(line, self.path if data is None else data, "data.path")
        return self._of(line, tracks, self._cut(line, tracks)[0], True, [])

    def _cut(self, line: Timeline, tracks: list[Track]) -> tuple[int, int]:
        """The place on the grid where the held-out part begins, and how many steps are before it."""
        begin, end = min(t.first for t in tracks), max(t.first + len(t.values) for t in tracks)
        cut = min(begin + math.ceil((1 - self.test_fraction) * (end - begin)), end - line.window)
        return cut, cut - begin

    def _of(self, line: Timeline, tracks: list[Track], cut: int, named: bool, notes: list[str]) -> Dataset:
        """The windows, held out from the place `cut` on; `named`: which series it is, is told where they have names."""
        longest, window, name = max(len(track.values) for track in tracks), line.window, shown(Path(self.path).name)
        stride = self.stride or max(window // 16, 1)
        train, train_at = windows(tracks, window, stride, lambda first: first + window <= cut)
        test, test_at = windows(tracks, window, stride, lambda first: first >= cut, late=True)
        if len(train) < 2 or not len(test):
            raise InputError(
                f"data={name!r}: series of up to {longest:,} steps give {len(train)} training "
                f"and {len(test)} held-out windows of {window}; shorten data.window, or give longer series."
            )
        for part in (train, test):
            if bool((part.nan_to_num(0.0).abs() > 1e37).any()):
                raise InputError(f"data={name!r} has values that float32 cannot hold; rescale them.")
        transform, remark = standardise(train)
        if not line.least:  # not those of other series
            # each moment once: windows overlap, so that one value at an end would be in many of them
            moments = torch.cat([track.values[: max(cut - track.first, 0)] for track in tracks])
            line = dataclasses.replace(
                line, **_ends(moments), lacking=_lacking(moments), correlation=_correlation(transform.forward(train))
            )
            if tracks[0].rows is not None:  # of a table, where people write numbers
                line = dataclasses.replace(line, features=_with_decimals(line.features, moments))
        kept = (f"{len(tracks)} series of up to {longest:,} steps", f"windows of {window} every {stride}")
        shared = sum(track.shared for track in tracks)
        meant = f"{shared:,} moment{'s' * (shared != 1)} of several rows: their mean is taken" * bool(shared)
        told = f"told the phase of {' and '.join(line.cycles)}" if line.cycles else ""
        names = [feature.name for feature in line.features]
        names = names if names != [str(number) for number in range(len(names))] else []  # as of an array
        notes = [*kept, *filter(None, (meant, told, remark)), *notes, *remarks(train, transform, "array", names)]
        return Dataset(
            name=name,
            train=train.float(),
            test=test.float(),
            conditions=_conditions(line, tracks if named else [], train_at, test_at),
            kind="array",
            transform=transform,
            note="; ".join(notes),
            layout=Layout("NLC"),
            timeline=line,
        )

    def _cycles(self, line: Timeline, steps: int) -> tuple[str, ...]:
        if self.calendar == "none":
            return ()
        if line.time is None:
            if self.calendar != "auto":
                raise InputError(f"data.calendar={self.calendar!r} needs dates, and the series have none.")
            return ()
        if self.calendar != "auto":
            return tuple(dict.fromkeys(self.calendar.split(",")))
        step = line.step or line.months * 30 * _DAY
        return tuple(name for name, period in CYCLES.items() if 4 * step <= period <= step * steps / 2)


def _window(line: Timeline, longest: int) -> int:
    step = line.step or math.inf
    wanted = min(4 * _DAY / step, 256) if line.time is not None and step < _DAY / 2 else 32
    fits = longest // 20 // 8 * 8
    return max(min(-(-int(wanted) // 8) * 8, fits), 8)


def windows(
    tracks: list[Track], window: int, stride: int, inside: Callable[[int], bool], late: bool = False
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Windows (N, F, window) float64 of series, and where each begins: (series, place on the grid).

    Args:
        stride: steps from one to the next.
        inside: whether a window that begins at this place of the grid is wanted.
        late: windows are laid from the end of each series, not from its beginning.
    """
    values, at = [], []
    for k, track in enumerate(tracks):
        count = len(track.values)
        starts = range(count - window, -1, -stride) if late else range(0, count - window + 1, stride)
        for start in sorted(starts):
            if inside(track.first + start):
                some = track.values[start : start + window]
                if not bool(some.isnan().all()):
                    values.append(some.T)
                    at.append((k, track.first + start))
    return (torch.stack(values) if values else torch.empty(0, tracks[0].values.shape[1], window)), at


def _conditions(
    line: Timeline, tracks: list[Track], train: list[tuple[int, int]], test: list[tuple[int, int]]
) -> dict[str, Column]:
    columns = {}
    if line.by is not None and tracks:
        names = tuple(track.name for track in tracks)
        labels = [torch.tensor([k for k, _ in at]) for at in (train, test)]
        columns[LABEL] = Column(Known("label", classes=names), *labels)
    if line.cycles:
        places = 2 * len(line.cycles)
        about = Known("picture", (places, line.window), shift=(0.0,) * places, scale=(1.0,) * places)
        phases = [torch.stack([line.calendar(first, line.window) for _, first in at]) for at in (train, test)]
        columns[CALENDAR] = Column(about, *phases)
    return columns


def _lacking(moments: Tensor) -> tuple[float, ...]:
    """Of each feature the share of the moments (T, F) with any value that lack its own."""
    there = ~moments.isnan()
    return tuple((1 - there.sum(0) / there.any(1).sum().clamp_min(1)).tolist())


def _correlation(z: Tensor) -> tuple[tuple[float, ...], ...]:
    """Of windows in model space, to four digits."""
    return tuple(tuple(round(rho, 4) for rho in one) for one in correlation(z).tolist())


def _with_decimals(features: Sequence[ColumnType], moments: Tensor) -> tuple[ColumnType, ...]:
    """The features with the fewest decimals, up to 9, that tell the moments (T, F) but for errors of arithmetic.

    In a file with 12.658579999999999 beside 8.05546, five are meant, and draws get as many.
    """
    found = []
    for feature, values in zip(features, moments.T, strict=True):
        if feature.kind == "number" and feature.decimals is None:
            seen = values[~values.isnan()]
            off = ((seen * 10.0**places).round() / 10.0**places - seen for places in range(10))
            enough = (k for k, by in enumerate(off) if bool((by.abs() <= 1e-12 * seen.abs()).all()))
            feature = dataclasses.replace(feature, decimals=next(enough, None))
        found.append(feature)
    return tuple(found)


def _ends(moments: Tensor) -> dict[str, Any]:
    """The ends that no feature of the moments (T, F) passed: 0 of what is never below, and those that many lie on."""
    low, high = (end.tolist() for end in extremes(moments))
    most = (_SPIKE * (~moments.isnan()).sum(0)).clamp_min(_FEW).tolist()

    def spikes(ends: list[float]) -> list[bool]:
        return [int((moments[:, k] == end).sum()) > most[k] for k, end in enumerate(ends)]

    on_low, on_high = spikes(low), spikes(high)
    return {
        "least": tuple(a if on else 0.0 if a >= 0 else None for a, on in zip(low, on_low, strict=True)),
        "most": tuple(b if on else None for b, on in zip(high, on_high, strict=True)),
    }
