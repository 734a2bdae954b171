"""Rows of a table as tokens: the space in which a model of mixed columns lives.

A column may hold words, counts, prices with a heavy tail, nothing at all in a tenth of its rows. What all of them have
in common is that a value can be told in one or two *classes*:

- words, and numbers of few values: a class each;
- other numbers: first one of some 48 bins that hold equally many rows, then one of some 32 cells within the bin, each
  a single value or a short interval in which nothing is known to differ. A value that very many rows have (the zeros of
  a column that is mostly zero) is a bin of its own. No tail is too heavy for that, no bound is crossed, and a spike
  stays a spike;
- a date: its day and its time of day, each as a number;
- a missing cell: a class of its own, where the training rows have any.

A *cell* is the finest that is told, so that a number comes back from its interval by a place within it. That place is
a function of the row's tokens, not of a generator: as good as random from row to row, and always the same for one row.

A column that another determines, as a name its code, or a date the day of the week, is not told at all: it is looked
up when rows come back, and so cannot contradict.

Probabilities of tokens become those of values by the widths of the cells: a density for continuous columns, and the
probability of a value for columns with a last decimal.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, final

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.numerics import philox
from ornstein.data.calendar import DAY, component, components
from ornstein.data.transform import TRANSFORMS, Transform
from ornstein.errors import InputError

#: values that a column may have to be told in one class each; bins of any other, and cells of a bin
MOST_VALUES, BINS, CELLS = 64, 48, 32
#: rows that a bin, and a cell, must have; rows of each value where values are classes; the share that makes a spike
_BIN_ROWS, _CELL_ROWS, _VALUE_ROWS, _SPIKE = 20, 10, 3, 0.01
#: rows that reject most pairs of columns of which none determines the other
_LOOKED_AT = 1000
#: rows for each value of a column that is to determine another
_SUPPORT = 10


class Kind(Protocol):
    """What is asked of a column's type (`ornstein.data.schema.ColumnType`)."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def levels(self) -> tuple[str, ...]: ...
    @property
    def decimals(self) -> int | None: ...


@final
@dataclass(frozen=True)
class Coded:
    """How one number of a row is told: by a cell, in one class or two.

    Args:
        column: of the table.
        part: "value", or of a date its "day" or "time".
        low, high: the ends of each cell, rising; a single value where they are equal.
        bins: how many cells each class of the first token has.
        decimals: of the values, 0 for whole numbers; None where they are continuous.
        missing: whether the first token has a class for that.
    """

    column: int
    part: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    bins: tuple[int, ...]
    decimals: int | None = None
    missing: bool = False

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == sum(self.bins) or not self.bins or min(self.bins) < 1:
            raise InputError(f"the cells of column {self.column} do not fit its bins.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Classes of its tokens: of the bins, and of the cells where a bin has several."""
        finest = max(self.bins)
        return (len(self.bins) + self.missing, *([finest] if finest > 1 else []))

    @cached_property
    def _starts(self) -> Tensor:
        # from where on a value belongs to a cell: half-way from the one before
        low, high = (torch.tensor(ends, dtype=torch.float64) for ends in (self.low, self.high))
        half = (high[:-1] + low[1:]) / 2
        return torch.where(half <= high[:-1], low[1:], half)

    @cached_property
    def _bin_of(self) -> Tensor:
        return torch.arange(len(self.bins)).repeat_interleave(torch.tensor(self.bins))

    @cached_property
    def _first(self) -> Tensor:
        counts = torch.tensor(self.bins)
        return counts.cumsum(0) - counts

    @cached_property
    def ends(self) -> tuple[Tensor, Tensor]:
        """(low, high) of the cells, float64."""
        return torch.tensor(self.low, dtype=torch.float64), torch.tensor(self.high, dtype=torch.float64)

    @cached_property
    def points(self) -> Tensor:
        """How many values a cell holds; the width of its interval where they are continuous."""
        low, high = self.ends
        if self.decimals is None:
            return torch.where(high > low, high - low, 1.0)
        return ((high - low) * 10.0**self.decimals).round() + 1

    def cells(self, values: Tensor) -> Tensor:
        """The cell of each value, (B,) float64 -> (B,) int64; -1 for NaN."""
        found = torch.searchsorted(self._starts, values.nan_to_num(), right=True)
        return torch.where(values.isnan(), -1, found)

    def tokens(self, values: Tensor) -> Tensor:
        """Values (B,) as classes (B, 1 or 2); -1 for a missing one that has no class."""
        cell = self.cells(values)
        first = self._bin_of[cell.clamp_min(0)]
        gone = len(self.bins) if self.missing else -1
        codes = [torch.where(cell < 0, gone, first)]
        if len(self.sizes) > 1:
            # of a missing value, too, the place in the bin is known: there is but one
            codes.append(torch.where(cell < 0, 0 if self.missing else -1, cell - self._first[first]))
        return torch.stack(codes, 1)

    def cell_of(self, codes: Tensor) -> Tensor:
        """The cell that classes (B, 1 or 2) tell; -1 where they tell none."""
        first = codes[:, 0]
        told = (first >= 0) & (first < len(self.bins))
        known = first.clamp(0, len(self.bins) - 1)
        if len(self.sizes) == 1:
            return torch.where(told, self._first[known], -1)
        within = torch.minimum(codes[:, 1], torch.tensor(self.bins)[known] - 1)
        return torch.where(told & (codes[:, 1] >= 0), self._first[known] + within, -1)

    def values(self, cell: Tensor, place: Tensor) -> Tensor:
        """The value at `place` in (0, 1) of each cell, (B,) float64; NaN where there is none."""
        low, high = (ends[cell.clamp_min(0)] for ends in self.ends)
        if self.decimals is None:
            found = low + place * (high - low)
        else:
            scale = 10.0**self.decimals
            # a whole number over a power of ten is the very number that its decimals are read as
            found = (low * scale + (place * self.points[cell.clamp_min(0)]).floor()).round() / scale
        return torch.where(cell < 0, math.nan, torch.where(low == high, low, found))

    def allowed(self, low: float, high: float, missing: bool = False) -> tuple[Tensor, Tensor]:
        """Which share of each class lies in [low, high]: (first token,) and (bins, cells of a bin), float64.

        Of the first token: 1 where any of the bin does. Of a missing value: `missing`.
        """
        at, to = self.ends
        if self.decimals is None:
            inside = (torch.clamp(to, max=high) - torch.clamp(at, min=low)).clamp_min(0)
            share = torch.where(to > at, inside / self.points, ((at >= low) & (at <= high)).double())
        else:
            scale = 10.0**self.decimals
            first = torch.clamp(at * scale, min=math.ceil(low * scale - 1e-6) if math.isfinite(low) else None)
            last = torch.clamp(to * scale, max=math.floor(high * scale + 1e-6) if math.isfinite(high) else None)
            share = ((last - first).round() + 1).clamp_min(0) / self.points
        finest = max(self.bins)
        within = torch.zeros(len(self.bins), finest, dtype=torch.float64)
        within[self._bin_of, torch.arange(len(share)) - self._first[self._bin_of]] = share
        first_token = (within > 0).any(1).double() if finest > 1 else within[:, 0]
        return torch.cat([first_token, torch.full((int(self.missing),), float(missing))]), within


@final
@dataclass(frozen=True)
class Derived:
    """A column that another determines.

    Args:
        column: which.
        source: the column that it is looked up by.
        by: "value", or of a date a part of the calendar, as `ornstein.data.calendar` names them.
        shift: hours that the calendar is ahead of the date.
        keys, values: what is found where, the keys rising; NaN is the last key, where there is one.
    """

    column: int
    source: int
    by: str
    shift: int
    keys: tuple[float, ...]
    values: tuple[float, ...]

    def of(self, source: Tensor) -> Tensor:
        """The column, (B,) float64, from its source; by the nearest key where there is none."""
        asked = source if self.by == "value" else component(self.by, source + 3600.0 * self.shift)
        keys, values = (torch.tensor(v, dtype=torch.float64) for v in (self.keys, self.values))
        gone = bool(keys[-1:].isnan())
        plain, found = (keys[:-1], values[:-1]) if gone else (keys, values)
        if len(plain):
            at = torch.searchsorted((plain[:-1] + plain[1:]) / 2, asked.nan_to_num(), right=True)
            looked = found[at]
        else:
            looked = torch.full_like(asked, math.nan)
        return torch.where(asked.isnan(), values[-1] if gone else math.nan, looked)


@final
@dataclass(frozen=True)
class Tokens(Transform):
    """Rows of a table (B, d), float64 with NaN for missing cells, as one-hot vectors (B, width) and back.

    Args:
        coded: what is told, in order.
        derived: what is looked up.
        columns: d.
        constant: columns of one value, with it.
    """

    coded: tuple[Coded, ...]
    derived: tuple[Derived, ...] = ()
    columns: int = 0
    constant: tuple[tuple[int, float], ...] = ()

    @staticmethod
    def fit(train: Tensor, types: Sequence[Kind]) -> "Tokens":
        """The tokens of these rows.

        Args:
            train: (N, d) float64: numbers, numbers of levels, seconds since 1970 for dates; NaN for missing cells.
            types: what each column is: number, integer, category, boolean, date, constant or identifier.

        Raises:
            InputError: nothing in any column to learn.
        """
        coded: list[Coded] = []
        constant = []
        for i, about in enumerate(types):
            values = train[:, i]
            if about.kind == "identifier":
                continue
            if about.kind == "constant" or not bool((values.isnan() ^ values[0].isnan()).any() or values.max() > values.min()):
                constant.append((i, 0.0 if about.kind == "constant" else float(values[0])))
                continue
            coded += _coded(i, about, values)
        from_others = _derived(train, types, [c.column for c in coded])
        gone = {d.column for d in from_others}
        kept = tuple(c for c in coded if c.column not in gone)
        if not kept:
            raise InputError("the table has no column with two values or more; there is nothing to learn.")
        return Tokens(kept, from_others, len(types), tuple(constant))

    @cached_property
    def categories(self) -> Categories:
        """The tokens of a row."""
        sizes: list[int] = []
        after: list[int] = []
        for one in self.coded:
            after += [-1, len(sizes)][: len(one.sizes)]
            sizes += one.sizes
        return Categories(tuple(sizes), tuple(after))

    def shape(self, own: tuple[int, ...]) -> tuple[int, ...]:
        return (self.categories.width,)

    @cached_property
    def places(self) -> tuple[slice, ...]:
        """The tokens of each of `coded`."""
        ends = [0]
        for one in self.coded:
            ends.append(ends[-1] + len(one.sizes))
        return tuple(slice(a, b) for a, b in zip(ends, ends[1:], strict=False))

    def tokens_of(self, column: int) -> list[int]:
        """The tokens that tell a column, or that it is looked up by; [] for one that is not told."""
        source = next((d.source for d in self.derived if d.column == column), column)
        return [t for one, place in zip(self.coded, self.places, strict=True) if one.column == source
                for t in range(place.start, place.stop)]  # fmt: skip

    def codes(self, x: Tensor) -> Tensor:
        """Rows (B, d) as classes (B, T), -1 for what is not known."""
        x = x.double()
        return torch.cat([one.tokens(_part(x[:, one.column], one.part)) for one in self.coded], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.categories.one_hot(self.codes(x))

    def inverse(self, z: Tensor, quantise: bool = False) -> Tensor:
        return self.rows(self.categories.codes(z))

    def rows(self, codes: Tensor) -> Tensor:
        """Classes (B, T) as rows (B, d), float64; NaN where a cell is missing or not known."""
        codes = codes.cpu()
        rows = torch.full((len(codes), self.columns), math.nan, dtype=torch.float64)
        for column, value in self.constant:
            rows[:, column] = value
        places = _places(codes, len(self.coded))
        for i, (one, where) in enumerate(zip(self.coded, self.places, strict=True)):
            found = one.values(one.cell_of(codes[:, where]), places[:, i])
            unit = DAY if one.part == "day" else 1.0
            # the time of a day follows the day
            rows[:, one.column] = found * unit + (rows[:, one.column] if one.part == "time" else 0.0)
        for one in self.derived:
            rows[:, one.column] = one.of(rows[:, one.source])
        return rows

    def log_abs_det(self, x: Tensor) -> Tensor:
        x = x.double()
        total = torch.zeros(len(x), dtype=torch.float64)
        for one in self.coded:
            cell = one.cells(_part(x[:, one.column], one.part))
            total -= torch.where(cell < 0, 0.0, one.points[cell.clamp_min(0)].log())
        return total.float()

    def widths(self, x: Tensor) -> Tensor:
        """Log of how many values, or how wide an interval, each token's cell stands for, (B, d) -> (B, T) float64.

        That of a number of two tokens stands beside the second.
        """
        x, found = x.double(), []
        for one in self.coded:
            cell = one.cells(_part(x[:, one.column], one.part))
            width = torch.where(cell < 0, 0.0, one.points[cell.clamp_min(0)].log())
            found += [torch.zeros_like(width)] * (len(one.sizes) - 1) + [width]
        return torch.stack(found, 1)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": "tokens",
            "columns": self.columns,
            "constant": [list(pair) for pair in self.constant],
            # numbers in one string each: there are thousands, and YAML is slow
            "coded": [
                {**vars_of(one), "low": _written(one.low), "high": _written(one.high), "bins": _written(one.bins)}
                for one in self.coded
            ],
            "derived": [
                {**vars_of(one), "keys": _written(one.keys), "values": _written(one.values)} for one in self.derived
            ],
        }

    @classmethod
    def described(cls, description: Mapping[str, Any]) -> "Tokens":
        return Tokens(
            tuple(
                Coded(**{**c, "low": _read(c["low"]), "high": _read(c["high"]), "bins": tuple(map(int, _read(c["bins"])))})
                for c in description["coded"]
            ),
            tuple(Derived(**{**d, "keys": _read(d["keys"]), "values": _read(d["values"])}) for d in description["derived"]),
            int(description["columns"]),
            tuple((int(i), float(value)) for i, value in description["constant"]),
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.categories.tokens} tokens"


TRANSFORMS["tokens"] = Tokens


def vars_of(one: Coded | Derived) -> dict[str, Any]:
    """The fields of a coded or derived column."""
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def _written(numbers: Iterable[float]) -> str:
    return " ".join(repr(int(n)) if float(n).is_integer() and abs(n) < 2**53 else repr(float(n)) for n in numbers)


def _read(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


def _part(values: Tensor, part: str) -> Tensor:
    if part == "value":
        return values
    days = (values / DAY).floor()
    return days if part == "day" else values - days * DAY


def _places(codes: Tensor, count: int) -> Tensor:
    """Places in (0, 1), (B, count) float64, that are a function of the row's classes (B, T)."""
    key = torch.zeros(len(codes), dtype=torch.int64)
    for token in codes.unbind(1):
        key = (key ^ (token + 2)) * 0x2545F4914F6CDD1D  # wraps
        key = key ^ (key >> 29)
    words = torch.arange((count + 3) // 4)[None].expand(len(codes), -1)
    zero = torch.zeros_like(words)
    drawn = philox((words, zero, zero, zero), (key[:, None] & 0xFFFFFFFF, (key[:, None] >> 32) & 0xFFFFFFFF))
    return (torch.stack(drawn, -1).flatten(1)[:, :count].double() + 0.5) / 2**32


def _coded(column: int, about: Kind, values: Tensor) -> list[Coded]:
    """How a column is told."""
    missing = bool(values.isnan().any())
    if about.kind in ("category", "boolean"):
        each = tuple(float(i) for i in range(len(about.levels)))
        return [Coded(column, "value", each, each, (1,) * len(each), 0, missing)]
    if about.kind == "date":
        parts = {part: _part(values, part) for part in ("day", "time")}
        timed = bool((parts["time"].nan_to_num() != 0).any())
        day = _numbers(column, "day", parts["day"], 0, missing)
        return [day, _numbers(column, "time", parts["time"], 0, missing)] if timed else [day]
    return [_numbers(column, "value", values, about.decimals if about.kind == "number" else 0, missing)]


def _numbers(column: int, part: str, values: Tensor, decimals: int | None, missing: bool) -> Coded:
    distinct, counts = values[~values.isnan()].unique(return_counts=True)
    total = int(counts.sum())
    if len(distinct) <= MOST_VALUES and total >= _VALUE_ROWS * len(distinct):
        each = tuple(distinct.tolist())
        return Coded(column, part, each, each, (1,) * len(each), decimals, missing)
    spikes = counts > max(_SPIKE * total, _BIN_ROWS)
    low: list[float] = []
    high: list[float] = []
    bins: list[int] = []
    # bins of equally many of the rows that have no spike's value, and none across a spike
    rest = torch.where(spikes, 0, counts)
    share = max(total / BINS, _BIN_ROWS)
    place = ((rest.cumsum(0) - rest / 2) / share).floor().long()
    run = torch.cumsum(spikes.long(), 0)  # how many spikes came before
    group = torch.stack([place, run * 2 + (~spikes).long()], 1)
    _, which = torch.unique_consecutive(group, dim=0, return_inverse=True)
    for number in range(int(which[-1]) + 1):
        at = (which == number).nonzero().flatten()
        cells = _cells(distinct[at], counts[at])
        low += [a for a, _ in cells]
        high += [b for _, b in cells]
        bins.append(len(cells))
    if decimals is None:
        low, high = _joined(low, high, [spike in distinct[spikes] for spike in low])
    return Coded(column, part, tuple(low), tuple(high), tuple(bins), decimals, missing)


def _cells(distinct: Tensor, counts: Tensor) -> list[tuple[float, float]]:
    """The cells of a bin: its values, or intervals of equally many rows."""
    total = int(counts.sum())
    if len(distinct) <= CELLS and total >= _VALUE_ROWS * len(distinct):
        return [(value, value) for value in distinct.tolist()]
    parts = max(1, min(CELLS, total // _CELL_ROWS))
    which = ((counts.cumsum(0) - counts / 2) * parts / total).floor().long()
    found = []
    for part in which.unique().tolist():
        inside = distinct[which == part]
        found.append((float(inside[0]), float(inside[-1])))
    return found


def _joined(low: list[float], high: list[float], spikes: list[bool]) -> tuple[list[float], list[float]]:
    """Intervals of a continuous column without gaps: each reaches half-way to its neighbour, and up to a spike."""
    for i in range(len(low) - 1):
        single = (low[i] == high[i] and spikes[i], low[i + 1] == high[i + 1] and spikes[i + 1])
        if single == (False, False):
            high[i] = low[i + 1] = (high[i] + low[i + 1]) / 2
        elif single == (True, False):
            low[i + 1] = math.nextafter(high[i], math.inf)
        elif single == (False, True):
            high[i] = math.nextafter(low[i + 1], -math.inf)
    return low, high


def _derived(train: Tensor, types: Sequence[Kind], told: Sequence[int]) -> tuple[Derived, ...]:
    """The columns that an earlier one, or any date, determines."""
    columns = list(dict.fromkeys(told))
    found: dict[int, Derived] = {}
    dates = [i for i in columns if types[i].kind == "date"]
    sources = [i for i in columns if types[i].kind != "date"]
    few = train[:: max(1, len(train) // _LOOKED_AT)]
    for column in columns:
        if types[column].kind == "date":
            continue
        for source in dates:
            for name, shift in components(few[:, source], few[:, column]):
                key = component(name, train[:, source] + 3600.0 * shift)
                if (table := _table(key, train[:, column])) is not None:
                    found[column] = Derived(column, source, name, shift, *table)
                    break
            if column in found:
                break
    for column in reversed(columns):  # of two that determine each other the first is kept
        if column in found or types[column].kind == "date":
            continue
        for source in sources:
            if source == column or source in found or any(d.source == column for d in found.values()):
                continue
            if _table(few[:, source], few[:, column], support=1) is None:
                continue
            if (table := _table(train[:, source], train[:, column])) is not None:
                found[column] = Derived(column, source, "value", 0, *table)
                break
    return tuple(found.values())


def _table(key: Tensor, values: Tensor, support: int = _SUPPORT) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """What is found where, if a value has but one for each key and keys have rows enough; else None."""
    marked, back = _whole(key).unique(return_inverse=True)
    if len(marked) < 2 or len(marked) * support > len(key):
        return None
    ends = [
        torch.full((len(marked),), start, dtype=torch.float64).scatter_reduce(0, back, _whole(values), how)
        for start, how in ((math.inf, "amin"), (-math.inf, "amax"))
    ]
    if not torch.equal(*ends):
        return None
    return tuple(_back(marked).tolist()), tuple(_back(ends[0]).tolist())


def _whole(values: Tensor) -> Tensor:
    """NaN as the largest number."""
    return values.double().nan_to_num(nan=torch.finfo(torch.float64).max)


def _back(values: Tensor) -> Tensor:
    return torch.where(values == torch.finfo(torch.float64).max, math.nan, values)
