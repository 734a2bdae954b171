"""Parts of the calendar, from seconds since 1970-01-01: what a column beside a date may say of it.

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
#: hours between a time zone and Greenwich
_SHIFTS = (0, *(sign * hours for hours in range(1, 15) for sign in (-1, 1)))


def component(name: str, seconds: Tensor) -> Tensor:
    """A part of the calendar, by its name: hour, minute, weekday (0 is Monday), month, year, day, date."""
    return _COMPONENTS[name](seconds)


def components(seconds: Tensor, values: Tensor) -> Iterator[tuple[str, int]]:
    """(name, shift in hours) of the parts that may determine `values`, by a few rows: both (B,) float64."""
    few = len(values.unique())
    for name in _COMPONENTS:
        for shift in _SHIFTS:
            key = component(name, seconds + 3600.0 * shift)
            keys = key.unique()
            # a value that each key has once only, in these rows, would say nothing
            if len(keys) < 2 or few > len(keys) or len(keys) > len(values) // 2:
                continue
            pairs = torch.stack([key, values], 1).nan_to_num(nan=-1.0)
            if len(pairs.unique(dim=0)) == len(keys):
                yield name, shift
