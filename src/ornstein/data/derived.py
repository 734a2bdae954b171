"""Columns that another determines, as a code determines its word or a date the day of the week.

They are found from the other rather than learnt, and so cannot contradict it. A relation counts if it holds in every
training row, and if enough rows rule out chance. It is one of two:

- a *table*: each key has one value. A key is a value of the other column, or of a date a part such as the weekday;
- a *line*: scale * key + offset, rounded to the column's last decimal. So a copy follows, metres from kilometres,
  Fahrenheit from Celsius, a date from its time stamp. Unlike a table, it also holds of values that no row had.

The scale of a line is one at which y - scale * x varies by no more than the last decimal of y. How much it varies is
convex in the scale, so its minimum is easily found; of the numbers that this rounds to, the one with the fewest digits
that will do is taken. Lines without an offset are tried first. Halves are rounded to even numbers, as floats are: where
a column has them rounded up, no line holds in every row, and it is learnt like any other.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ornstein.data.calendar import component, components, starts
from ornstein.data.coding import EXACT
from ornstein.data.schema import ColumnType
from ornstein.errors import shown

#: rows that reject most pairs of columns of which none determines the other
_LOOKED_AT = 1000
#: rows for each value of a column that is to determine another; or values, for a line
_SUPPORT = 10


@final
@dataclass(frozen=True)
class Derived:
    """A column that another determines.

    Args:
        column: which column it is.
        source: the column that it follows from.
        by: "value", or for a date a part of the calendar, as `ornstein.data.calendar` names them.
        shift: hours that the calendar is ahead of the date.
        keys, values: the lookup table, with rising keys; NaN, if it is a key, comes last. Empty for a line.
        scale, offset: of a line.
        divided: whether by 1/scale rather than multiplied by it, which halves may be rounded otherwise by.
        decimals: to which a line is rounded; None for not at all.
        step: what all of the source are multiples of when they are written, for a date; 0 for nothing.
    """

    column: int
    source: int
    by: str
    shift: int
    keys: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    divided: bool = False
    decimals: int | None = None
    step: float = 0.0

    @property
    def line(self) -> bool:
        """Whether it is computed, not looked up: it then rises, or falls, with its source."""
        return not self.keys

    def of(self, source: Tensor) -> Tensor:
        """The column, (B,) float64, from its source; by the nearest key where a table has none."""
        # a time within a cell counts as what it will be written as
        written = (source / self.step).round() * self.step if self.step else source
        key = component(self.by, written + 3600.0 * self.shift)
        return self._computed(key) if self.line else self._looked_up(key)

    def _computed(self, key: Tensor) -> Tensor:
        value = (key / (1 / self.scale) if self.divided else self.scale * key) + self.offset
        if self.decimals is None:
            return value
        return (value * 10.0**self.decimals).round() / 10.0**self.decimals + 0.0  # no -0.0

    def _looked_up(self, asked: Tensor) -> Tensor:
        keys, values = (torch.tensor(v, dtype=torch.float64) for v in (self.keys, self.values))
        gone = bool(keys[-1:].isnan())
        plain, found = (keys[:-1], values[:-1]) if gone else (keys, values)
        if len(plain):
            at = torch.searchsorted((plain[:-1] + plain[1:]) / 2, asked.nan_to_num(), right=True)
            looked = found[at]
        else:
            looked = torch.full_like(asked, math.nan)
        return torch.where(asked.isnan(), values[-1] if gone else math.nan, looked)

    def source_of(self, low: Tensor, high: Tensor, within: tuple[float, float], unit: float) -> tuple[Tensor, Tensor]:
        """The first and the last value (B,) of the source at which a line lies from `low` (B,) to `high` (B,).

        The first is above the last where there is none.

        Args:
            within: where the source lies.
            unit: what its values are multiples of: a whole number, or one over a whole number.
        """
        sign = math.copysign(1.0, self.scale)
        low, high = (low, high) if sign > 0 else (-high, -low)

        def place(k: Tensor) -> Tensor:
            return k.double() * unit if unit >= 1 else k.double() / float(round(1 / unit))

        def least(met: Callable[[Tensor], Tensor]) -> Tensor:
            start, stop = math.floor(within[0] / unit), math.ceil(within[1] / unit) + 1
            a, b = torch.full(low.shape, start), torch.full(low.shape, stop)
            for _ in range((stop - start).bit_length() + 1):
                middle = a + (b - a) // 2
                there = met(sign * self.of(place(middle))) | (a >= b)
                a, b = torch.where(there, a, middle + 1), torch.where(there, middle, b)
            return b

        return place(least(lambda value: value >= low)), place(least(lambda value: value > high) - 1)


def computed(found: Sequence[Derived], types: Sequence[ColumnType]) -> str:
    """Which columns are not learnt but computed from which, in a phrase; "" for none."""
    said = [f"{shown(types[d.column].name)!r} from {shown(types[d.source].name)!r}" for d in found]
    more = f" and {len(said) - 8:,} more" * (len(said) > 8)
    return f"computed and not learnt: {', '.join(said[:8])}{more}" if said else ""


def determined(train: Tensor, types: Sequence[ColumnType], told: Sequence[int]) -> tuple[Derived, ...]:
    """The columns that an earlier one, or any date, determines."""
    columns = list(dict.fromkeys(told))
    found: dict[int, Derived] = {}
    few = train[:: max(1, len(train) // _LOOKED_AT)]

    def free(column: int, source: int) -> bool:  # of what follows, nothing follows
        return source != column and source not in found and all(d.source != column for d in found.values())

    dates = [i for i in columns if types[i].kind == "date"]
    for column in reversed(dates):  # of two that determine each other the first is kept
        for source in dates:
            if free(column, source) and (rule := _start(train, few, types, column, source)) is not None:
                found[column] = rule
                break
    for column in (i for i in columns if i not in dates):
        for source in (i for i in dates if i not in found):
            if (rule := _part(train, few, types, column, source)) is not None:
                found[column] = rule
                break
    sources = [i for i in columns if i not in dates]
    tabled = _may_be_tables(train[:, sources], few[:, sources])
    for place, column in reversed(list(enumerate(sources))):
        if column in found:
            continue
        near = _may_be_line(few[:, sources], few[:, column], _decimals(types[column], train[:, column])).tolist()
        for source, line, table in zip(sources, near, tabled[:, place].tolist(), strict=True):
            line = line and types[source].numeric and types[column].numeric
            if not (line or table) or not free(column, source):
                continue
            if (rule := _from_value(train, types, column, source, line)) is not None:
                found[column] = rule
                break
    return tuple(found.values())


def _start(train: Tensor, few: Tensor, types: Sequence[ColumnType], column: int, source: int) -> Derived | None:
    """A date from another, at a fixed distance from it or from the start of its day, month, ..."""
    values = train[:, column]
    known = ~values.isnan()
    different = len(values[known].unique())
    enough = different >= _SUPPORT or 1 < different <= int(known.sum()) // _SUPPORT
    if not enough or not torch.equal(known, ~train[:, source].isnan()):
        return None
    for name, shift in starts(few[:, source], few[:, column]):
        key = component(name, train[known, source] + 3600.0 * shift)
        rule = Derived(column, source, name, shift, offset=float(values[known][0] - key[0]), step=types[source].step)
        if torch.equal(rule.of(train[known, source]), values[known]):
            return rule
    return None


def _part(train: Tensor, few: Tensor, types: Sequence[ColumnType], column: int, source: int) -> Derived | None:
    """What is no date, by a part of one."""
    for name, shift in components(few[:, source], few[:, column]):
        key = component(name, train[:, source] + 3600.0 * shift)
        if (table := _table(key, train[:, column])) is not None:
            return Derived(column, source, name, shift, *table, step=types[source].step)
    return None


def _may_be_tables(train: Tensor, few: Tensor) -> Tensor:
    """Which columns have rows enough for a table of others, and say them in a few rows: (d, d) bool, [source, other].

    All others of a source are asked at once: of two thousand columns there are four million pairs.
    """
    found = torch.zeros(train.shape[1], train.shape[1], dtype=torch.bool)
    values = whole(few)
    for source in range(train.shape[1]):
        if not 2 <= len(whole(train[:, source]).unique()) <= len(train) // _SUPPORT:
            continue
        key, order = values[:, source].sort()
        same, sorted_values = key[1:] == key[:-1], values[order]
        found[source] = ((sorted_values[1:] == sorted_values[:-1]) | ~same[:, None]).all(0)
    return found


def _from_value(train: Tensor, types: Sequence[ColumnType], column: int, source: int, near: bool) -> Derived | None:
    """What is no date from another such column: by a line if both are numbers, and `near` one; else by a table."""
    if near and (line := _line(train, types, column, source)) is not None:
        # at several values of the source the column may be the same: if it determines the source as well, it is kept
        units = [10.0 ** (_decimals(types[i], train[:, i]) or 0) for i in (source, column)]
        several = abs(line.scale) * units[1] < (1 - 1e-9) * units[0]
        return None if several and _line(train, types, source, column) is not None else line
    x, y = train[:, source], train[:, column]
    table = _table(x, y)
    return None if table is None else Derived(column, source, "value", 0, *table)


def _decimals(about: ColumnType, values: Tensor) -> int | None:
    """To how many decimals floats hold these values exactly; None if to none."""
    decimals = 0 if about.kind == "integer" else about.decimals
    exact = decimals is not None and float(values.nan_to_num().abs().max()) * 10.0 ** min(decimals, 300) <= EXACT
    return decimals if exact else None


def unit_of(about: ColumnType, low: float, high: float) -> float:
    """What a number's or a date's values from `low` to `high` are multiples of, as far as float64 tells."""
    if about.kind == "date":
        return about.step or 1e-6
    decimals = 0 if about.kind == "integer" else 15 if about.decimals is None else about.decimals
    return 10.0 ** -min(decimals, math.floor(math.log10(EXACT / max(abs(low), abs(high), 1e-9))))


def _half(y: Tensor, decimals: int | None) -> float:
    """How far a line may lie from its column before it is rounded."""
    noise = 4 * 2.0**-52 * float(y.abs().max())  # of float64
    return noise + (0.5 * 10.0**-decimals if decimals is not None else 0.0)


def _may_be_line(x: Tensor, y: Tensor, decimals: int | None) -> Tensor:
    """Whether rows lie near the line through the outermost two, of several columns x (N, S) each: (S,) bool."""
    same = (x.isnan() == y.isnan()[:, None]).all(0)
    x, y = x[~y.isnan()], y[~y.isnan()]
    if not len(y):
        return torch.zeros_like(same)
    low, high = (x.nan_to_num().argmin(0), x.nan_to_num().argmax(0))
    start, wide = x.gather(0, low[None])[0], x.gather(0, high[None])[0] - x.gather(0, low[None])[0]
    off = y[low] + (y[high] - y[low]) / wide * (x - start) - y[:, None]
    return same & (y[low] != y[high]) & (off.abs() <= 2.01 * _half(y, decimals)).all(0)


def _line(train: Tensor, types: Sequence[ColumnType], column: int, source: int) -> Derived | None:
    """The line on which a number lies in all rows, to its last decimal."""
    x, y, decimals = train[:, source], train[:, column], _decimals(types[column], train[:, column])
    if not bool(_may_be_line(x[:, None], y, decimals)):
        return None
    x, y = x[~x.isnan()], y[~y.isnan()]
    if min(len(x.unique()), len(y.unique())) < _SUPPORT:
        return None
    half = _half(y, decimals)
    for apart in (_from_origin, _spread):
        if (scale := _scale(x, y, half, apart)) is None or (offset := _offset(y - scale * x, half)) is None:
            continue
        for divided in (False, True):
            rule = Derived(column, source, "value", 0, (), (), scale, offset, divided, decimals)
            if torch.equal(rule.of(x), y):
                return rule
    return None


def _from_origin(rest: Tensor) -> float:
    return 2 * float(rest.abs().max())


def _spread(rest: Tensor) -> float:
    return float(rest.max() - rest.min())


def _scale(x: Tensor, y: Tensor, half: float, apart: Callable[[Tensor], float]) -> float | None:
    """A scale at which what is left of y is no further apart than its last decimal."""
    i, j = int(x.argmin()), int(x.argmax())
    wide, rise = float(x[j] - x[i]), float(y[j] - y[i])
    low, high = (rise - 2 * half) / wide, (rise + 2 * half) / wide
    for _ in range(40):  # in thirds: a convex function of the scale
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if apart(y - a * x) <= apart(y - b * x) else (a, high)
    return _shortest((low + high) / 2, lambda scale: scale != 0 and apart(y - scale * x) <= 2 * half)


def _offset(rest: Tensor, half: float) -> float | None:
    low, high = float(rest.max()) - half, float(rest.min()) + half
    return _shortest((low + high) / 2, lambda offset: low <= offset <= high)


def _shortest(near: float, fits: Callable[[float], bool]) -> float | None:
    """The first that fits of 0 and what `near`, or one over it, is to one digit, two, ...; None if there is none."""
    rounded = [0.0]
    for digits in range(1, 18) if near else ():
        rounded += [float(f"{near:.{digits}g}"), 1 / float(f"{1 / near:.{digits}g}")]
    return next((number for number in rounded if fits(number)), None)


def _table(key: Tensor, values: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """What is found where, if a value has but one for each key and keys have rows enough; else None."""
    marked, back = whole(key).unique(return_inverse=True)
    if len(marked) < 2 or len(marked) * _SUPPORT > len(key):
        return None
    ends = [
        torch.full((len(marked),), start, dtype=torch.float64).scatter_reduce(0, back, whole(values), how)
        for start, how in ((math.inf, "amin"), (-math.inf, "amax"))
    ]
    if not torch.equal(*ends):
        return None
    return tuple(_back(marked).tolist()), tuple(_back(ends[0]).tolist())


def whole(values: Tensor) -> Tensor:
    """NaN as the largest number."""
    return values.double().nan_to_num(nan=torch.finfo(torch.float64).max)


def _back(values: Tensor) -> Tensor:
    return torch.where(values == torch.finfo(torch.float64).max, math.nan, values)
