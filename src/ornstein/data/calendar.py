"""Parts of the calendar, from seconds since 1970-01-01: what a column beside a date may say of it; and the starts of
its hour, day, month, ..., which a second date may be.

Days count from a Thursday. Year, month and day follow from their number by the arithmetic of the Gregorian calendar,
which repeats after 146,097 days (Hinnant, "chrono-compatible low-level date algorithms", 2013).
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

#: seconds of a day
DAY = 86_400.0


def _civil(seconds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(year, month, day of the month), with years that begin in March until the last line."""
    shifted = (seconds / DAY).floor() + 719_468
    era = (shifted / 146_097).floor()
    of_era = shifted - era * 146_097
    year = ((of_era - (of_era / 1460).floor() + (of_era / 36_524).floor() - (of_era / 146_096).floor()) / 365).floor()
    of_year = of_era - (365 * year + (year / 4).floor() - (year / 100).floor())
    month = ((5 * of_year + 2) / 153).floor()
    day = of_year - ((153 * month + 2) / 5).floor() + 1
    return year + era * 400 + (month >= 10), torch.where(month < 10, month + 3, month - 9), day


def _start(months: int) -> Callable[[Tensor], Tensor]:
    """The first second of the month, the quarter or the year: of so many months, counted from January."""

    def first(seconds: Tensor) -> Tensor:
        year, month, _ = _civil(seconds)
        month = month - (month - 1) % months
        # days from March 1st of the year 0, in years that begin in March
        year, since_march = year - (month <= 2).double(), (month + 9) % 12
        leaps = (year / 4).floor() - (year / 100).floor() + (year / 400).floor()
        return (365 * year + leaps + ((153 * since_march + 2) / 5).floor() - 719_468) * DAY

    return first


#: parts by name: seconds (B,) float64 -> (B,) float64
_COMPONENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "hour": lambda s: ((s / 3600).floor()) % 24,
    "minute": lambda s: (s / 60).floor() % 60,
    "weekday": lambda s: ((s / DAY).floor() + 3) % 7,
    "month": lambda s: _civil(s)[1],
    "year": lambda s: _civil(s)[0],
    "day": lambda s: _civil(s)[2],
    "date": lambda s: (s / DAY).floor(),
}
#: the value itself, and what begins with it or before it: seconds (B,) float64 -> seconds (B,) float64
_STARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "value": lambda s: s,
    "start of second": lambda s: s.floor(),
    "start of minute": lambda s: (s / 60).floor() * 60,
    "start of hour": lambda s: (s / 3600).floor() * 3600,
    "start of day": lambda s: (s / DAY).floor() * DAY,
    "start of week": lambda s: (((s / DAY).floor() + 3) / 7).floor() * (7 * DAY) - 3 * DAY,
    "start of month": _start(1),
    "start of quarter": _start(3),
    "start of year": _start(12),
}
#: hours between a time zone and Greenwich
_SHIFTS = (0, *(sign * hours for hours in range(1, 15) for sign in (-1, 1)))
#: what stands for a missing value, of which NaN would be as many as there are
_GONE = -1e300


def step_of_day(seconds: Tensor, step: float) -> Tensor:
    """Which step of its day each moment lies in, from midnight on."""
    return ((seconds % DAY) / step).floor()


def component(name: str, seconds: Tensor) -> Tensor:
    """A part of the calendar, by its name: hour, minute, weekday (0 is Monday), month, year, day, date; or a start of
    one, in seconds; or "value", the seconds themselves."""
    return (_STARTS.get(name) or _COMPONENTS[name])(seconds)


def starts(seconds: Tensor, values: Tensor) -> Iterator[tuple[str, int]]:
    """(name, shift in hours) of the starts that lie equally far from `values` in a few rows: both (B,) float64."""
    for name in _STARTS:
        for shift in _SHIFTS if name != "value" else (0,):
            apart = values - component(name, seconds + 3600.0 * shift)
            if bool((apart[~apart.isnan()] == apart[~apart.isnan()][:1]).all()):
                yield name, shift


def components(seconds: Tensor, values: Tensor) -> Iterator[tuple[str, int]]:
    """(name, shift in hours) of the parts that may determine `values`, by a few rows: both (B,) float64."""
    values = values.nan_to_num(nan=_GONE)
    few = len(values.unique())
    for name in _COMPONENTS:
        for shift in _SHIFTS:
            key = component(name, seconds + 3600.0 * shift).nan_to_num(nan=_GONE)
            keys = key.unique()
            # a value that each key has once only, in these rows, would say nothing
            if len(keys) < 2 or few > len(keys) or len(keys) > len(values) // 2:
                continue
            if len(torch.stack([key, values], 1).unique(dim=0)) == len(keys):
                yield name, shift
