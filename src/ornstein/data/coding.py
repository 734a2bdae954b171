"""How one column of a table is encoded: in cells of its values, each a class of one token or of two.

Columns of words, and of numbers with few values, have a cell for each value. For other numbers the cells are intervals
that hold about equally many rows, grouped into bins; but a value that very many rows share is a bin of its own, which
no other bin crosses. In a column with a fixed number of decimals an interval is the values from its first to its last;
in a continuous one it reaches half-way to its neighbours.

*A prevailing value.* Most people have no capital gains. Those of the others are few numbers, each with a meaning of its
own: in a census, who gained 5,013 dollars earns little, and who gained 5,178 earns much. Where more than half of the
rows share one value, bins hold equally many of the *other* rows, and the column has no order: a network sees its values
as it sees words. The few rows that have another value cannot be learnt by heart by it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from ornstein.data.calendar import DAY
from ornstein.data.schema import ColumnType
from ornstein.errors import InputError

#: values that a column may have to be told in one class each; bins of any other, and cells of a bin
MOST_VALUES, BINS, CELLS = 64, 48, 32
#: rows that a bin, and a cell, must have; rows of each value where values are classes; the share that makes a spike
_BIN_ROWS, _CELL_ROWS, _VALUE_ROWS, _SPIKE = 20, 10, 3, 0.01
#: the span of all values
EVERYWHERE = (-math.inf, math.inf)
#: whole numbers that float64 tells apart, with room for their halves
EXACT = 2.0**50


@final
@dataclass(frozen=True)
class Coded:
    """How one number of a row is encoded: by a cell, in one class or two.

    Args:
        column: of the table.
        part: "value", or for a date its "day" or "time".
        low, high: the ends of each cell, rising; equal for a single value.
        bins: how many cells each class of the first token has.
        decimals: of the values, 0 for whole numbers; None if they are continuous.
        missing: whether the first token has a class for missing cells.
        ordered: whether values that lie near each other say similar things, unlike words.
    """

    column: int
    part: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    bins: tuple[int, ...]
    decimals: int | None = None
    missing: bool = False
    ordered: bool = True

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == sum(self.bins) or not self.bins or min(self.bins) < 1:
            raise InputError(f"the cells of column {self.column} do not fit its bins.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of classes of its tokens: of the bins, and of the cells if a bin has several."""
        finest = max(self.bins)
        return (len(self.bins) + self.missing, *([finest] if finest > 1 else []))

    @property
    def along(self) -> list[tuple[float, ...]]:
        """Where the classes of its tokens lie along the column, as `Categories` takes it: by the bins' numbers."""
        count, finest = len(self.bins), max(self.bins)
        first = [(2 * i + 1) / count - 1 for i in range(count)] + [0.0] * self.missing
        if finest == 1:
            return [tuple(first)]
        within = [((2 * min(j, of - 1) + 1) / of - 1) / count for of in self.bins for j in range(finest)]
        return [tuple(first), tuple(within + [0.0] * finest * self.missing)]

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
        """The cell that classes (B, 1 or 2) stand for; -1 if they stand for none."""
        first = codes[:, 0]
        told = (first >= 0) & (first < len(self.bins))
        known = first.clamp(0, len(self.bins) - 1)
        if len(self.sizes) == 1:
            return torch.where(told, self._first[known], -1)
        within = torch.minimum(codes[:, 1], torch.tensor(self.bins)[known] - 1)
        return torch.where(told & (codes[:, 1] >= 0), self._first[known] + within, -1)

    def values(self, cell: Tensor, place: Tensor, spans: Sequence[tuple[float, float]] = (EVERYWHERE,)) -> Tensor:
        """The value at `place` in (0, 1) of what of each cell lies in spans that do not overlap, (B,); NaN of no cell.

        Of a cell that none of them meets, the value in the whole of it.
        """
        scale = 1.0 if self.decimals is None else 10.0**self.decimals
        low, high = (ends[cell.clamp_min(0)] * scale for ends in self.ends)
        parts = [self._common(low, high, a * scale, b * scale) for a, b in spans]
        starts, sizes = (torch.stack(each, 1) for each in zip(*parts, strict=True))
        whole = self._common(low, high, -math.inf, math.inf)
        none = sizes.sum(1) <= 0
        starts[:, 0], sizes[:, 0] = (torch.where(none, w, p[:, 0]) for w, p in zip(whole, (starts, sizes), strict=True))
        upto = sizes.cumsum(1)
        at = place * upto[:, -1]
        which = (at[:, None] >= upto).sum(1, keepdim=True).clamp_max(len(spans) - 1)
        beyond = at - (upto - sizes).gather(1, which)[:, 0]
        found = starts.gather(1, which)[:, 0] + (beyond if self.decimals is None else beyond.floor())
        # a whole number over a power of ten is the very number that its decimals are read as
        return torch.where(cell < 0, math.nan, found / scale)

    def _common(self, low: Tensor, high: Tensor, first: float, last: float) -> tuple[Tensor, Tensor]:
        """Where what cells have in common with a span begins, and its length or how many values it holds."""
        start, stop = low.clamp_min(first), high.clamp_max(last)
        if self.decimals is None:
            return start, (stop - start).clamp_min(0)
        start = (start - 1e-6).ceil()
        return start, ((stop + 1e-6).floor() - start + 1).clamp_min(0)

    def inside(self, low: float, high: float) -> Tensor:
        """Which share of each cell lies in [low, high], float64."""
        at, to = self.ends
        if self.decimals is None:
            share = self._common(at, to, low, high)[1] / self.points
            return torch.where(to > at, share, ((at >= low) & (at <= high)).double())
        scale = 10.0**self.decimals
        return self._common(at * scale, to * scale, low * scale, high * scale)[1] / self.points

    def classes(self, cells: Tensor) -> list[Tensor]:
        """Of some cells, (B, cells) bool: their share of each bin, (B, bins), and where in a bin they are, float64."""
        within = torch.arange(len(self._bin_of)) - self._first[self._bin_of]
        found = []
        for where, count, how in ((self._bin_of, len(self.bins), "mean"), (within, max(self.bins), "amax")):
            held = torch.zeros(len(cells), count, dtype=torch.float64)
            found.append(held.scatter_reduce(1, where.expand_as(cells), cells.double(), how, include_self=False))
        return found[: len(self.sizes)]

    def shares(self, of_cell: Tensor, missing: float = 0.0) -> list[Tensor]:
        """A weight of each cell, carried over to the classes of each token: (K,), and (K of the first, K).

        A bin gets 1 if any of its cells has a weight other than 0; a missing value gets `missing`.
        """
        finest = max(self.bins)
        within = torch.zeros(len(self.bins), finest, dtype=torch.float64)
        within[self._bin_of, torch.arange(len(of_cell)) - self._first[self._bin_of]] = of_cell
        if finest == 1:
            return [torch.cat([within[:, 0], torch.full((int(self.missing),), missing, dtype=torch.float64)])]
        gone = torch.full((int(self.missing), finest), missing, dtype=torch.float64)
        return [torch.cat([(within > 0).any(1).double(), gone[:, 0]]), torch.cat([within, gone])]


def part_of(values: Tensor, part: str) -> Tensor:
    if part == "value":
        return values
    days = (values / DAY).floor()
    return days if part == "day" else values - days * DAY


def coded(column: int, about: ColumnType, values: Tensor) -> list[Coded]:
    """The encoding of a column."""
    missing = bool(values.isnan().any())
    if about.kind in ("category", "boolean"):
        each = tuple(float(i) for i in range(len(about.levels)))
        return [Coded(column, "value", each, each, (1,) * len(each), 0, missing, ordered=False)]
    if about.kind == "date":
        parts = {part: part_of(values, part) for part in ("day", "time")}
        timed = bool((parts["time"].nan_to_num() != 0).any())
        day = _numbers(column, "day", parts["day"], 0, missing)
        return [day, _numbers(column, "time", parts["time"], 0, missing)] if timed else [day]
    return [_numbers(column, "value", values, about.decimals if about.kind == "number" else 0, missing)]


def _numbers(column: int, part: str, values: Tensor, decimals: int | None, missing: bool) -> Coded:
    distinct, counts = values[~values.isnan()].unique(return_counts=True)
    total = int(counts.sum())
    if decimals is not None and float(distinct.abs().max()) * 10.0 ** min(decimals, 300) > EXACT:
        decimals = None  # more places than floats tell apart
    ordered = 2 * int(counts.max()) <= total  # else one value prevails
    if len(distinct) <= MOST_VALUES and total >= _VALUE_ROWS * len(distinct):
        each = tuple(distinct.tolist())
        return Coded(column, part, each, each, (1,) * len(each), decimals, missing, ordered)
    spikes = counts > max(_SPIKE * total, _BIN_ROWS)
    low: list[float] = []
    high: list[float] = []
    bins: list[int] = []
    # bins of equally many of the rows that have no spike's value, and none across a spike
    rest = torch.where(spikes, 0, counts)
    share = max((total if ordered else int(rest.sum())) / BINS, _BIN_ROWS)
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
    return Coded(column, part, tuple(low), tuple(high), tuple(bins), decimals, missing, ordered)


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
