"""Columns that another determines, as a code determines its word or a date the day of the week.

They are looked up rather than learnt, and so cannot contradict the other. A relation counts if it holds in every
training row, and if its keys have enough rows to rule out chance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ornstein.data.calendar import component, components
from ornstein.data.schema import ColumnType

#: rows that reject most pairs of columns of which none determines the other
_LOOKED_AT = 1000
#: rows for each value of a column that is to determine another
_SUPPORT = 10


@final
@dataclass(frozen=True)
class Derived:
    """A column that another determines.

    Args:
        column: which column it is.
        source: the column that it is looked up by.
        by: "value", or for a date a part of the calendar, as `ornstein.data.calendar` names them.
        shift: hours that the calendar is ahead of the date.
        keys, values: the lookup table, with rising keys; NaN, if it is a key, comes last.
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


def determined(train: Tensor, types: Sequence[ColumnType], told: Sequence[int]) -> tuple[Derived, ...]:
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
    marked, back = whole(key).unique(return_inverse=True)
    if len(marked) < 2 or len(marked) * support > len(key):
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
