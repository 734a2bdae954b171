"""Rows of a table as tokens: the space in which a model of mixed columns lives.

A column may hold words, counts, prices with a heavy tail, nothing at all in a tenth of its rows. In all of them a value
can be encoded in one or two *classes*:

- words, and numbers with few values: a class each;
- other numbers: first one of some 48 bins that hold equally many rows, then one of some 32 cells within the bin, each
  a single value or a short interval. A value that very many rows share (the zeros of a column that is mostly zero) is a
  bin of its own. So no tail is too heavy, no bound is crossed, and a spike stays a spike;
- a date: its day and its time of day, each as a number;
- a missing cell: a class of its own, if the training rows have any.

A *cell* is the finest unit encoded, so a number comes back as some place within its interval. That place is a function
of the row's tokens, not of a generator: as good as random from row to row, and always the same for one row.

A column that another determines, as a code determines its name, a date the day of the week, or kilometres metres, is
not encoded: it is looked up or computed when rows come back, and so cannot contradict the other.

Probabilities of tokens become those of values by the widths of the cells: a density for continuous columns, and the
probability of a value for columns with a last decimal.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.numerics import keyed, uniform
from ornstein.data.calendar import DAY
from ornstein.data.coding import EVERYWHERE, Coded, coded, part_of
from ornstein.data.derived import Derived, determined
from ornstein.data.schema import ColumnType
from ornstein.data.transform import TRANSFORMS, Transform
from ornstein.errors import InputError


@final
@dataclass(frozen=True)
class Tokens(Transform):
    """Rows of a table (B, d), float64 with NaN for missing cells, as one-hot vectors (B, width) and back.

    Args:
        coded: the columns that are encoded, in order.
        derived: those that follow from one that is encoded.
        columns: d.
        constant: columns of one value, with that value.
    """

    coded: tuple[Coded, ...]
    derived: tuple[Derived, ...] = ()
    columns: int = 0
    constant: tuple[tuple[int, float], ...] = ()

    @staticmethod
    def fit(train: Tensor, types: Sequence[ColumnType]) -> "Tokens":
        """The tokens of these rows.

        Args:
            train: (N, d) float64: numbers, numbers of levels, seconds since 1970 for dates; NaN for missing cells.
            types: what each column is: number, integer, category, boolean, date, constant or identifier.

        Raises:
            InputError: nothing in any column to learn.
        """
        told: list[Coded] = []
        constant = []
        for i, about in enumerate(types):
            values = train[:, i]
            if about.kind == "identifier":
                continue
            if about.kind == "constant" or not bool(
                (values.isnan() ^ values[0].isnan()).any() or values.max() > values.min()
            ):
                constant.append((i, float(values[0])))
                continue
            told += coded(i, about, values)
        from_others = determined(train, types, [c.column for c in told])
        gone = {d.column for d in from_others}
        kept = tuple(c for c in told if c.column not in gone)
        if not kept:
            raise InputError("the table has no column with two values or more; there is nothing to learn.")
        return Tokens(kept, from_others, len(types), tuple(constant))

    @cached_property
    def categories(self) -> Categories:
        """The tokens of a row."""
        sizes: list[int] = []
        after: list[int] = []
        along: list[tuple[float, ...]] = []
        within: list[tuple[int, ...]] = []
        for one in self.coded:
            after += [-1, len(sizes)][: len(one.sizes)]
            sizes += one.sizes
            along += one.along if one.ordered else [()] * len(one.sizes)
            within += [(), (*one.bins, *[1] * one.missing)][: len(one.sizes)]
        return Categories(tuple(sizes), tuple(after), tuple(along), within=tuple(within))

    def shape(self, own: tuple[int, ...]) -> tuple[int, ...]:
        return (self.categories.width,)

    @cached_property
    def places(self) -> tuple[slice, ...]:
        """The tokens of each of `coded`."""
        ends = [0]
        for one in self.coded:
            ends.append(ends[-1] + len(one.sizes))
        return tuple(slice(a, b) for a, b in pairwise(ends))

    def tokens_of(self, column: int) -> list[int]:
        """The tokens that encode a column, or the one that it follows from; [] if there are none."""
        source = next((d.source for d in self.derived if d.column == column), column)
        return [t for one, place in zip(self.coded, self.places, strict=True) if one.column == source
                for t in range(place.start, place.stop)]  # fmt: skip

    def range_of(self, column: int) -> tuple[float, float]:
        """The least and the largest value that a column can be drawn with; of dates, their whole days."""
        one = next(one for one in self.coded if one.column == column)
        return (one.low[0], one.high[-1]) if one.part == "value" else (one.low[0] * DAY, (one.high[-1] + 1) * DAY - 1)

    def codes(self, x: Tensor) -> Tensor:
        """Rows (B, d) as classes (B, T), -1 for what is not known."""
        x = x.double()
        return torch.cat([one.tokens(part_of(x[:, one.column], one.part)) for one in self.coded], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.categories.one_hot(self.codes(x))

    def inverse(self, z: Tensor, quantise: bool = False) -> Tensor:
        return self.rows(self.categories.codes(z))

    def rows(self, codes: Tensor, spans: Mapping[int, Sequence[tuple[float, float]]] | None = None) -> Tensor:
        """Classes (B, T) as rows (B, d), float64; NaN where a cell is missing or not known.

        Args:
            spans: for entries of `coded`, by place: bounds on their values, applied in cells that they reach.
        """
        codes = codes.cpu()
        rows = torch.full((len(codes), self.columns), math.nan, dtype=torch.float64)
        for column, value in self.constant:
            rows[:, column] = value
        places = _places(codes, len(self.coded))
        for i, (one, where) in enumerate(zip(self.coded, self.places, strict=True)):
            found = one.values(one.cell_of(codes[:, where]), places[:, i], (spans or {}).get(i, (EVERYWHERE,)))
            unit = DAY if one.part == "day" else 1.0
            # the time of a day follows the day
            rows[:, one.column] = found * unit + (rows[:, one.column] if one.part == "time" else 0.0)
        return self.followed(rows)

    def followed(self, rows: Tensor) -> Tensor:
        """Rows (B, d) with the columns that follow from others as these say."""
        rows = rows.clone()
        for other in self.derived:
            rows[:, other.column] = other.of(rows[:, other.source])
        return rows

    def log_abs_det(self, x: Tensor) -> Tensor:
        x = x.double()
        total = torch.zeros(len(x), dtype=torch.float64)
        for one in self.coded:
            cell = one.cells(part_of(x[:, one.column], one.part))
            total -= torch.where(cell < 0, 0.0, one.points[cell.clamp_min(0)].log())
        return total.float()

    def widths(self, x: Tensor) -> Tensor:
        """Log of how many values, or how wide an interval, each token's cell stands for, (B, d) -> (B, T) float64.

        That of a number of two tokens stands beside the second.
        """
        x, found = x.double(), []
        for one in self.coded:
            cell = one.cells(part_of(x[:, one.column], one.part))
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
                {**asdict(one), "low": _written(one.low), "high": _written(one.high), "bins": _written(one.bins)}
                for one in self.coded
            ],
            "derived": [
                {**asdict(one), "keys": _written(one.keys), "values": _written(one.values)} for one in self.derived
            ],
        }

    @classmethod
    def described(cls, description: Mapping[str, Any]) -> "Tokens":
        return Tokens(
            tuple(
                Coded(**{**one, **{name: _read(one[name]) for name in ("low", "high")},
                         "bins": tuple(map(int, _read(one["bins"])))})
                for one in description["coded"]
            ),
            tuple(
                Derived(**{**one, **{name: _read(one[name]) for name in ("keys", "values")}})
                for one in description["derived"]
            ),
            int(description["columns"]),
            tuple((int(i), float(value)) for i, value in description["constant"]),
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.categories.tokens} tokens"


TRANSFORMS["tokens"] = Tokens


def _written(numbers: Iterable[float]) -> str:
    return " ".join(repr(int(n)) if float(n).is_integer() and abs(n) < 2**53 else repr(float(n)) for n in numbers)


def _read(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


def _places(codes: Tensor, count: int) -> Tensor:
    """Places in (0, 1), (B, count) float64, that are a function of the row's classes (B, T)."""
    return uniform(keyed(codes), count, 0)
