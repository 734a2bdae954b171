"""What series in time are made of: which features, at which steps, and where in the calendar.

The calendar is given as cosines and sines of the phase of each *cycle* (day, week, year) at every step, not as the
date of a window's start: a convolution that slides along can read it anywhere, so that windows of any length can be
drawn. Phases are those of the times as written.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, final

import torch
from torch import Tensor

from ornstein.data import notation
from ornstein.data.calendar import DAY, component, step_of_day
from ornstein.data.schema import ColumnType
from ornstein.errors import InputError

#: cycles of the calendar by name, in seconds
CYCLES = {"day": DAY, "week": 7 * DAY, "year": 365.2425 * DAY}


@final
@dataclass(frozen=True)
class Timeline:
    """What a series is made of.

    Args:
        features: what is measured at each moment.
        time: the column with the moments; None for rows in their order.
        by: the column with the name of the series; None for one series.
        step: seconds between two moments; 0 without dates, and where months are counted.
        months: months between two moments, 0 where seconds are counted.
        origin: seconds since 1970 of place 0 of the grid.
        cycles: names of `CYCLES` whose phase a model is given.
        window: steps of one example.
        least, most: for each feature, the bound that it never passed, or None for none.
        lacking: for each feature, the share of the moments that have others but not it; () if unknown.
        correlation: of each feature with itself 0, 1, 2, ... steps later (`ornstein.core.nearest`); () if unknown.
        days: weekdays that occur, 0 for Monday; () if all do. In data of working days or opening hours a moment without
            a row is no gap that wants a row, and what comes next is the next working day.
        hours: steps of the day that occur, counted from midnight; () if all do.
    """

    features: tuple[ColumnType, ...]
    time: ColumnType | None = None
    by: ColumnType | None = None
    step: float = 0.0
    months: int = 0
    origin: float = 0.0
    cycles: tuple[str, ...] = ()
    window: int = 0
    least: tuple[float | None, ...] = field(default=(), compare=False)
    most: tuple[float | None, ...] = field(default=(), compare=False)
    lacking: tuple[float, ...] = field(default=(), compare=False)
    correlation: tuple[tuple[float, ...], ...] = field(default=(), compare=False)
    days: tuple[int, ...] = field(default=(), compare=False)
    hours: tuple[int, ...] = field(default=(), compare=False)

    @property
    def idle(self) -> bool:
        """Whether whole weekdays or hours of the day never occur."""
        return bool(self.days or self.hours)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "features": [feature.to_dict() for feature in self.features],
            "time": None if self.time is None else self.time.to_dict(),
            "by": None if self.by is None else self.by.to_dict(),
            **{name: getattr(self, name) for name in ("step", "months", "origin", "window")},
            **{name: list(getattr(self, name)) for name in ("cycles", "least", "most", "lacking")},
            "correlation": [list(one) for one in self.correlation],
            **{name: list(found) for name in ("days", "hours") if (found := getattr(self, name))},
        }

    @staticmethod
    def from_dict(found: Mapping[str, Any]) -> "Timeline":
        """Undoes `to_dict`."""
        try:
            said: dict[str, Any] = {name: found[name] for name in ("step", "months", "origin", "window")}
            said |= {name: found[name] and ColumnType.from_dict(found[name]) for name in ("time", "by")}
            said |= {name: tuple(found[name]) for name in ("cycles", "least", "most")}
            said["lacking"] = tuple(found.get("lacking", ()))  # runs of earlier versions know neither
            said["correlation"] = tuple(map(tuple, found.get("correlation", ())))
            said |= {name: tuple(found.get(name, ())) for name in ("days", "hours")}
            return Timeline(tuple(map(ColumnType.from_dict, found["features"])), **said)
        except (KeyError, TypeError, AttributeError):
            raise InputError("run.yaml describes no series; it was changed.") from None

    def must_date(self, first: int, count: int, said: str) -> None:
        """Refuse places whose moments the calendar has not.

        Args:
            first, count: the places. said: by which words they were asked for, as "steps=24".

        Raises:
            InputError: a moment before the year 1 or after 9999; 1969 or 2068 where dates have two digits for it.
        """
        if self.time is None:
            return
        ends, (low, high) = (first, first + count - 1), notation.ends(self.time.format)
        years = [1970 + round(end / (365.2425 * DAY)) for end in (low, high + 1)]
        if self.months:
            fits = all(12 * years[0] <= self.origin + self.months * place < 12 * years[1] for place in ends)
        else:
            fits = all(low <= self.origin + self.step * place <= high for place in ends)
        if not fits:
            raise InputError(f"{said} leaves the calendar, which goes from year {years[0]} to {years[1] - 1}.")

    def seconds(self, first: int, count: int) -> Tensor:
        """The moments of `count` places of the grid, (count,) float64, seconds since 1970."""
        places = torch.arange(first, first + count, dtype=torch.float64)
        if not self.months:
            return self.origin + self.step * places
        moments = (int(self.origin) + self.months * int(place) for place in places)
        return torch.tensor(
            [datetime(m // 12, m % 12 + 1, 1, tzinfo=UTC).timestamp() for m in moments], dtype=torch.float64
        )

    def said(self, first: int, count: int) -> list[str]:
        """The moments of so many steps, as the file writes them; places on the grid of series without dates."""
        if self.time is None:
            return [str(first + k) for k in range(count)]
        return list(self.time.render(self.seconds(first, count).numpy()))

    def occur(self, first: int, count: int) -> Tensor:
        """(count,) bool: which places of the grid lie on weekdays, and at steps of the day, that occur in the data."""
        seconds = self.seconds(first, count)
        on = torch.ones(count, dtype=torch.bool)
        if self.days:
            on &= torch.isin(component("weekday", seconds), torch.tensor(self.days).double())
        if self.hours:
            on &= torch.isin(step_of_day(seconds, self.step), torch.tensor(self.hours).double())
        return on

    def calendar(self, first: int, count: int) -> Tensor:
        """The phases of the cycles at `count` places, (2 cycles, count) float32: cosines and sines."""
        seconds = self.seconds(first, count)
        angles = [2 * math.pi * (seconds / CYCLES[name]) for name in self.cycles]
        return torch.stack([wave(a) for a in angles for wave in (torch.cos, torch.sin)]).float()

    def kept(self, values: Tensor) -> Tensor:
        """Draws (..., F) as values of these features: within the bounds never passed, with their decimals."""
        out = values.double().clone()
        for k, feature in enumerate(self.features):
            least, most = (ends[k] if ends else None for ends in (self.least, self.most))
            if least is not None or most is not None:
                out[..., k] = out[..., k].clamp(least, most)
            if feature.decimals is not None:
                scale = 10.0**feature.decimals
                out[..., k] = (out[..., k] * scale).round() / scale
        return out
