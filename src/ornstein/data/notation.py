"""How people write numbers and dates, read without loss and written back as they were.

*Numbers.* 8.30, 8.3, 41.0, 1,234.5 and 1.234,5 are notations, not values. Three words describe that of a column:
the decimal mark, the mark between thousands, and a format: "short" (41, 8.3: no more than is needed), "repr" (41.0,
8.3: as Python and pandas write floats) or a fixed number of places such as ".2f" (41.00, 8.30). The whole column
settles what can be read in more than one way (1,234): a notation must read every cell. A unit that all cells share, as
in $8.30, 12 % and 72.1 kg, stands around the number.

*Dates* are seconds since 1970, exact to the second and beyond in float64 for all years that a calendar has. A pattern
is that of strptime, with "%-d" for a day without a leading zero and "%3f" for milliseconds. Words are matched strictly:
only what the pattern would write back exactly. Day and month are told apart by a day above 12; without one, a column of
dates like 01/02/2003 is *ambiguous* and not guessed. Years of two digits are 1969 to 2068, as strptime has them, and
stand last; between hyphens they may also stand first, which is ambiguous where each could be a day. A zone that all
cells share, such as Z, is part of the pattern; if zones differ the time is kept, and written in UTC.
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import product

#: whole numbers of larger size are not all floats: they name something, as card numbers do
LARGEST_WHOLE = 2**53
#: (decimal mark, mark between thousands), in the order in which they are tried
WAYS = ((".", ""), (",", ""), (".", ","), (",", "."), (".", " "), (",", " "), (".", "'"))

#: a number with a unit: money before it, or money, a percentage or a word behind it, such as kg, km/h or °C
_MONEY, _WORD = "[$€£¥₹]", "[^\\W\\d_]{1,12}[²³]?"
_UNIT = re.compile(rf"[+-]?({_MONEY} ?)?[+-]?[\d.,' ]*\d( ?(?:[%‰]|{_MONEY}|°?{_WORD}(?:/{_WORD})?))?")
_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?")
_INFINITE = re.compile(r"[+-]?(?:inf|infinity)", re.IGNORECASE)
_FIXED = re.compile(r"\.(\d{1,2})f")
_EPOCH = datetime(1970, 1, 1)
#: the ends of the calendar, years 1 to 9999, in seconds since 1970
FIRST, LAST = -62_135_596_800.0, 253_402_300_799.0
#: and of the years that two digits stand for, 1969 to 2068; the first of them
_SHORT, _PIVOT = (-31_536_000.0, 3_124_223_999.0), 69
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: what stands for a part of a date: what it looks like, and how it is written
_PARTS: dict[str, tuple[str, Callable[[datetime], str]]] = {
    "%Y": (r"(?P<Y>\d{4})", lambda d: f"{d.year:04d}"),
    "%y": (r"(?P<y>\d\d)", lambda d: f"{d.year % 100:02d}"),
    "%m": (r"(?P<m>\d\d)", lambda d: f"{d.month:02d}"),
    "%-m": (r"(?P<m>[1-9]\d?)", lambda d: str(d.month)),
    "%b": (rf"(?P<b>{'|'.join(_MONTHS)})", lambda d: _MONTHS[d.month - 1]),
    "%d": (r"(?P<d>\d\d)", lambda d: f"{d.day:02d}"),
    "%-d": (r"(?P<d>[1-9]\d?)", lambda d: str(d.day)),
    "%H": (r"(?P<H>\d\d)", lambda d: f"{d.hour:02d}"),
    "%-H": (r"(?P<H>0|[1-9]\d?)", lambda d: str(d.hour)),
    "%I": (r"(?P<I>0[1-9]|1[0-2])", lambda d: f"{(d.hour - 1) % 12 + 1:02d}"),
    "%-I": (r"(?P<I>[1-9]|1[0-2])", lambda d: str((d.hour - 1) % 12 + 1)),
    "%p": (r"(?P<p>AM|PM)", lambda d: "AM" if d.hour < 12 else "PM"),
    "%M": (r"(?P<M>\d\d)", lambda d: f"{d.minute:02d}"),
    "%S": (r"(?P<S>\d\d)", lambda d: f"{d.second:02d}"),
    "%3f": (r"(?P<f>\d{3})", lambda d: f"{d.microsecond // 1000:03d}"),
    "%f": (r"(?P<f>\d{6})", lambda d: f"{d.microsecond:06d}"),
    "%z": (r"(?P<z>Z|[+-]\d\d:?\d\d)", lambda d: "+00:00"),
}
_PART = re.compile("|".join(map(re.escape, sorted(_PARTS, key=len, reverse=True))))
_DAYS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%-d.%-m.%Y", "%-d/%-m/%Y", "%-m/%-d/%Y", "%-d-%-m-%Y", "%-m-%-d-%Y", "%Y/%-m/%-d", "%Y-%-m-%-d"),
    *("%d-%b-%Y", "%d %b %Y", "%-d %b %Y", "%-d-%b-%Y", "%b %d, %Y", "%b %-d, %Y"),
    *("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d"),
    *("%-d.%-m.%y", "%-d/%-m/%y", "%-m/%-d/%y", "%-d-%-m-%y", "%-m-%-d-%y"),
    *("%d-%b-%y", "%d %b %y", "%-d %b %y", "%-d-%b-%y"),
)
_TIMES = (
    *("%H:%M:%S", "%H:%M", "%H:%M:%S.%3f", "%H:%M:%S.%f", "%-H:%M:%S", "%-H:%M"),
    *("%I:%M:%S %p", "%I:%M %p", "%-I:%M:%S %p", "%-I:%M %p"),
)
#: as ISO 8601 and data frames write them; a zone of hours, in a pattern
_CLOCKS = ("", *map("".join, product(" T", ("%H:%M:%S", "%H:%M:%S.%f"), ("", "Z"))))
_STANDARD = tuple("%Y-%m-%d" + clock for clock in _CLOCKS)
_ABROAD = re.compile(r"[+-]\d\d:?\d\d\Z")
_ZONE = re.compile(r"(?<=[\dM])(?:Z| UTC| ?[+-]\d\d:?\d\d)\Z")
#: seconds of which all dates of a column are multiples, from the coarsest
_STEPS = (86_400.0, 3600.0, 60.0, 1.0, 0.001)


# Numbers --------------------------------------------------------------------------------------------------------------


def number(word: str, mark: str = ".", thousands: str = "") -> float:
    """The number that a word writes in this way; NaN if it writes none. Infinite if it is, or is too large."""
    word = word.strip()
    if thousands and thousands in word:
        groups = rf"[+-]?\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+(?:{re.escape(mark)}\d*)?"
        if not re.fullmatch(groups, word):
            return math.nan
        word = word.replace(thousands, "")
    if mark != ".":
        if "." in word:
            return math.nan
        word = word.replace(mark, ".", 1)
    if _PLAIN.fullmatch(word) and word.isascii():
        return float(word)
    return math.copysign(math.inf, -1 if word[0] == "-" else 1) if _INFINITE.fullmatch(word) else math.nan


def unit_of(words: Sequence[str]) -> tuple[str, str]:
    """What stands before and behind the number in all of the words; "" for nothing."""
    found = _UNIT.fullmatch(words[0].strip()) if words else None
    unit = ("", "") if found is None else (found[1] or "", found[2] or "")
    return unit if all(without(word, unit) != word.strip() for word in words) else ("", "")


def without(word: str, unit: tuple[str, str]) -> str:
    """A number's word without its unit; a word that has it not, as it is."""
    word, (before, after) = word.strip(), unit
    sign = word[:1] if word[:1] in ("+", "-") else ""
    bare = word.removeprefix(sign)
    if not (bare.startswith(before) and bare.endswith(after)) or len(bare) <= len(before) + len(after):
        return word
    return sign + bare[len(before) : len(bare) - len(after)]


def decimals(word: str, mark: str = ".", thousands: str = "") -> int:
    """How many decimals the value of a number's word has: 1 of 8.30, 0 of 41.0."""
    word = word.strip().replace(thousands, "").replace(mark, ".") if thousands else word.strip().replace(mark, ".")
    if "e" in word or "E" in word:
        exponent = Decimal(word).normalize().as_tuple().exponent
        return max(-exponent, 0) if isinstance(exponent, int) else 0
    return len(word.partition(".")[2].rstrip("0"))


def written(value: float, way: str, mark: str = ".", thousands: str = "", places: int | None = None) -> str:
    """A finite number in words.

    Args:
        value: the number.
        way: "short", "repr", or fixed places such as ".2f".
        mark, thousands: see the module.
        places: decimals to round to first; None for none.
    """
    if places is not None and (rounded := round(value, places)) != value:
        value = rounded or 0.0  # no -0.00 of -0.001
    if way not in ("short", "repr"):
        text = format(value, way)
        text = text[1:] if value and text[0] == "-" and not float(text) else text
    elif way == "short" and value == int(value) and abs(value) <= LARGEST_WHOLE:
        text = str(int(value)) if value or math.copysign(1, value) > 0 else "-0"
    else:
        text = repr(float(value))
    sign, whole, point, rest = "-" * text.startswith("-"), *text.lstrip("-").partition(".")
    if thousands and whole.isdigit():
        whole = f"{int(whole):,}".replace(",", thousands)
    return f"{sign}{whole}{mark if point else ''}{rest}"


def way_of(words: Sequence[str], values: Sequence[float], mark: str, thousands: str) -> str:
    """The format that writes most of the words as they are."""
    places = max((len(word.strip().partition(mark)[2]) for word in words if "e" not in word.lower()), default=0)
    ways = ("short", "repr", *([f".{places}f"] if 0 < places < 100 else []))
    hits = {
        way: sum(
            written(value, way, mark, thousands) == word.strip() for word, value in zip(words, values, strict=True)
        )
        for way in ways
    }
    return max(ways, key=hits.__getitem__)


def is_way(way: str) -> bool:
    """Whether a text is the format of numbers."""
    return way in ("short", "repr") or _FIXED.fullmatch(way) is not None


# Dates ----------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _pattern(pattern: str) -> "re.Pattern[str]":
    pieces, at = [], 0
    for found in _PART.finditer(pattern):
        pieces += [re.escape(pattern[at : found.start()]), _PARTS[found[0]][0]]
        at = found.end()
    return re.compile("".join([*pieces, re.escape(pattern[at:])]), re.ASCII)


def is_pattern(pattern: str) -> bool:
    """Whether a text is the pattern of dates: with a year, %Y or %y, a month, and each part once."""
    parts = [found[0].replace("-", "").replace("%3", "%") for found in _PART.finditer(pattern)]
    once = all(len(some & set(parts)) == 1 for some in ({"%Y", "%y"}, {"%m", "%b"}))
    return once and len(set(parts)) == len(parts) and "%" not in _PART.sub("", pattern)


def ends(pattern: str) -> tuple[float, float]:
    """The first and the last second since 1970 that dates in this pattern have."""
    return _SHORT if "%y" in pattern else (FIRST, LAST)


def seconds(word: str, pattern: str) -> float:
    """Seconds since 1970 of a date that is written in this pattern; NaN if it is not."""
    found = _pattern(pattern).fullmatch(word.strip())
    if found is None:
        return math.nan
    part = found.groupdict()
    hour = int(part.get("H") or 0)
    if "I" in part:
        hour = int(part["I"]) % 12 + (12 if part.get("p") == "PM" else 0)
    fraction = part.get("f") or "0"
    try:
        year = int(part["Y"]) if "Y" in part else int(part["y"]) + (1900 if int(part["y"]) >= _PIVOT else 2000)
        moment = datetime(
            year,
            int(part["m"]) if "m" in part else _MONTHS.index(part["b"]) + 1,
            int(part.get("d") or 1),
            hour,
            int(part.get("M") or 0),
            int(part.get("S") or 0),
            int(fraction.ljust(6, "0")),
        )
    except ValueError:  # the 30th of February
        return math.nan
    shift = part.get("z") or "Z"
    if shift != "Z":
        minutes = int(shift[1:3]) * 60 + int(shift[-2:])
        try:
            moment -= timedelta(minutes=minutes if shift[0] == "+" else -minutes)
        except OverflowError:
            return math.nan
    return (moment - _EPOCH).total_seconds()


def standard(word: str, pattern: str) -> float:
    """Seconds since 1970 of a date as ISO 8601 and data frames write it, for a column of dates in another pattern.

    NaN if it is none, and if the other pattern has the zone of another place, where it might mean another time.
    """
    known = () if _ABROAD.search(pattern) else (seconds(word, way) for way in _STANDARD)
    return next((value for value in known if not math.isnan(value)), math.nan)


def dated(value: float, pattern: str) -> str:
    """The date of so many seconds since 1970 in words; the ends of what the pattern can say for what lies beyond."""
    first, last = ends(pattern)
    value = min(max(value, first), last)
    moment = _EPOCH + timedelta(seconds=math.floor(value), microseconds=round((value - math.floor(value)) * 1e6))
    return _PART.sub(lambda found: _PARTS[found[0]][1](moment), pattern)


def patterns(words: Sequence[str]) -> list[str]:
    """The patterns that read every one of the words and write it back: none, one, or several that are ambiguous.

    Several differ in which number is the day. At least one word.
    """
    first = words[0].strip()
    zone = found[0] if (found := _ZONE.search(first)) and ":" in first else ""
    if zone and not all(word.strip().endswith(zone) for word in words):
        zone = "%z"
    days = [(day, "") for day in (*_DAYS, "%Y-%m")]
    timed = [(day, sep + time + zone) for day, sep, time in product(_DAYS, ("T", " "), _TIMES)]
    few = words[:: max(len(words) // 20, 1)]
    kept: dict[str, str] = {}
    for day, time in timed if ":" in first else days:
        pattern = day + time
        if all(_reads(word, pattern) for word in few) and all(_reads(word, pattern) for word in words):
            kept.setdefault(re.sub(r"[^a-zA-Z]", "", day), pattern)
    return list(kept.values())


def _reads(word: str, pattern: str) -> bool:
    value = seconds(word, pattern)
    return value == value and (pattern.endswith("%z") or dated(value, pattern) == word.strip())


def step_of(values: Sequence[float]) -> float:
    """The seconds of which all dates are multiples: 86,400 for days, 3,600 for hours, ...; 0 for none."""
    return next((step for step in _STEPS if all(abs(math.remainder(v, step)) < 1e-6 for v in values)), 0.0)
