"""What a column of a table is, and the conversion between its words and the numbers that stand for them.

The *carrier* of a table is a float64 tensor (N, d), one column for each of the table's:

| kind | in the carrier |
|---|---|
| number, integer | the value |
| category, boolean | the place of its word in `levels`: 0, 1, ... |
| date | seconds since 1970 |
| constant | 0: its one word is kept in `levels` |
| identifier | NaN: it names a row and says nothing of it; on output rows are numbered |

NaN is a missing value, in every column. Float64 holds all of these exactly: whole numbers up to 2^53 (a column with
larger ones counts as words), dates to the microsecond. `parse` and `render` are each other's inverse on the words that
the type was found on, with two exceptions: if a column writes missing values in several ways (NA here, nothing there),
all come back in the most frequent one; and numbers written unlike the rest of their column come back like the rest.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, final, get_args

from ornstein.data import notation
from ornstein.errors import InputError, shown

if TYPE_CHECKING:
    import numpy as np

ColumnKind = Literal["number", "integer", "category", "boolean", "date", "constant", "identifier"]
KINDS: tuple[str, ...] = get_args(ColumnKind)
#: what says that a value is missing, wherever it is no level of its column
MISSING = frozenset(
    ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "NaT", "NULL", "null", "Null", "?")
)
#: and what says so among numbers and dates, where it cannot be a level
MISSING_NUMBER = MISSING | {"None", "none", "NONE", "-", "--", ".", "...", "na", "missing"}
#: the words of identifiers: text around a number of so many places
_NUMBERED = re.compile(r"[^{}]*\{(?::0\d{1,2}d)?\}[^{}]*")


@final
@dataclass(frozen=True)
class ColumnType:
    """What a column is, and how it is written.

    Args:
        name: the column's.
        kind: see the module.
        levels: the words of categories and booleans, and the one of a constant; their places are the carrier's numbers.
        decimals: most decimals that values have, to which draws are rounded; None for as many as floats have.
        format: for numbers and dates: see `ornstein.data.notation`. For identifiers the text around the number, as in
            "ID-{:06d}".
        mark: decimal mark.
        thousands: the mark between thousands.
        before, after: the unit around every number, as "$" and " kg".
        step: for dates: all are multiples of so many seconds, to which draws are rounded; 0 for none.
        missing: the words of missing values, the most frequent first.
        reason: why it was taken for this kind, in words.

    Raises:
        InputError: fields that do not go together.
    """

    name: str
    kind: ColumnKind
    levels: tuple[str, ...] = ()
    decimals: int | None = None
    format: str = ""
    mark: str = "."
    thousands: str = ""
    before: str = ""
    after: str = ""
    step: float = 0.0
    missing: tuple[str, ...] = ()
    reason: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        def refuse(name: str, expected: str) -> InputError:
            value = shown(repr(getattr(self, name))[:80])
            return InputError(f"column {shown(self.name)!r}: {name}={value} must be {expected}.")

        for name in ("levels", "missing"):
            words = getattr(self, name)
            if not isinstance(words, (tuple, list)) or not all(isinstance(word, str) for word in words):
                raise refuse(name, "words")
            object.__setattr__(self, name, tuple(words))
        for name in ("name", "format", "mark", "thousands", "before", "after", "reason"):
            if not isinstance(getattr(self, name), str):
                raise refuse(name, "text")
        if self.kind not in KINDS:
            raise refuse("kind", f"one of {', '.join(KINDS)}")
        if len(set(self.levels)) != len(self.levels):
            raise refuse("levels", "different words")
        worded = self.kind in ("category", "boolean", "constant")
        most = {"boolean": 2, "constant": 1}.get(self.kind, math.inf)
        if bool(self.levels) > worded or (self.kind in ("category", "boolean") and not self.levels):
            raise refuse("levels", "given for categories and booleans")
        if len(self.levels) > most:
            raise refuse("levels", f"{most} at most for a {self.kind}")
        if self.decimals is not None and (type(self.decimals) is not int or not 0 <= self.decimals <= 400):
            raise refuse("decimals", "a whole number from 0 on, or None")
        if type(self.step) not in (int, float) or not 0 <= self.step < math.inf:
            raise refuse("step", "a number of seconds")
        if self.numeric and not notation.is_way(self.format):
            raise refuse("format", "short, repr, or places such as .2f")
        if (self.mark, self.thousands) not in notation.WAYS:
            raise refuse("mark", "a decimal mark that goes with the mark of thousands")
        if self.kind == "date" and not notation.is_pattern(self.format):
            raise refuse("format", "a pattern with a year (%Y or %y), a month, and each part once, such as %Y-%m-%d")
        if self.kind == "identifier" and self.format and not _NUMBERED.fullmatch(self.format):
            raise refuse("format", "text around one number, such as ID-{:06d}")

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, not words or dates."""
        return self.kind in ("number", "integer")

    @property
    def worded(self) -> bool:
        """Whether its values are words, with more than one of them."""
        return self.kind in ("category", "boolean")

    @cached_property
    def _places(self) -> dict[str, int]:
        return {level: place for place, level in enumerate(self.levels)}

    def is_missing(self, word: str) -> bool:
        """Whether a word says that the value is missing."""
        if word in self._places:
            return False
        usual = MISSING_NUMBER if self.numeric or self.kind == "date" else MISSING
        return word in self.missing or word.strip() in usual

    def parse(self, texts: Sequence[str], rows: Sequence[int] | None = None, noun: str = "") -> "np.ndarray":
        """Words as the numbers that stand for them in the carrier.

        Args:
            texts: the words.
            rows: the row of each, from 1, for errors; None for their order.
            noun: what to call them in errors instead, if they are not in rows.

        Returns:
            (len(texts),) float64.

        Raises:
            InputError: a word that is not a number, a date or a level of this column.
        """
        import numpy as np

        found: dict[str, float] = {}
        for place, word in enumerate(texts):
            if word not in found:
                found[word] = self._value(word, noun or f"row {place + 1 if rows is None else int(rows[place]):,}")
        return np.fromiter(map(found.__getitem__, texts), np.float64, len(texts))

    def _value(self, word: str, place: str) -> float:
        if self.kind == "identifier" or self.is_missing(word):
            return math.nan

        def where() -> str:
            return f"column {shown(self.name)!r}, {place}: {shown(word[:60])!r}"

        if self.numeric:
            value = notation.number(notation.without(word, (self.before, self.after)), self.mark, self.thousands)
            if math.isnan(value):
                raise InputError(
                    f"{where()} is no number; leave it empty if it is missing, or call the column a category."
                )
            if math.isinf(value):
                raise InputError(f"{where()} is infinite; leave it empty if it is missing, or give a finite number.")
            if self.kind == "integer" and not value.is_integer():
                raise InputError(f"{where()} is no whole number, which the column holds; call it a number instead.")
            return value
        if self.kind == "date":
            value = notation.seconds(word, self.format)
            value = notation.standard(word, self.format) if math.isnan(value) else value
            if math.isnan(value):
                raise InputError(f"{where()} is no date like {notation.dated(0, self.format)!r} ({self.format}).")
            return value
        if word in self._places:
            return float(self._places[word])
        near = get_close_matches(word, self.levels, n=3, cutoff=0.5) or list(self.levels[:3])
        many = f" {len(self.levels):,} words" if len(self.levels) > 1 else " one word"
        raise InputError(
            f"{where()} is not among the column's{many}; nearest {', '.join(repr(shown(level)) for level in near)}."
        )

    def render(self, values: "np.ndarray | Sequence[float]", first: int = 0) -> list[str]:
        """Numbers of the carrier as words.

        Numbers are rounded to `decimals`, dates to `step`.

        Args:
            values: (N,) of the carrier.
            first: how many rows came before, by which identifiers count on.

        Raises:
            InputError: infinite values, and places at which no level is.
        """
        import numpy as np

        values = np.asarray(values, np.float64)
        if self.kind == "identifier":
            form = self.format or "{}"
            return [form.format(place) for place in range(first + 1, first + len(values) + 1)]
        if np.isinf(values).any():
            raise InputError(f"column {shown(self.name)!r} has infinite values, which cannot be written.")
        different, where = np.unique(values.view(np.int64), return_inverse=True)  # -0.0 is not 0.0 here
        words = [self._word(value) for value in different.view(np.float64).tolist()]
        return [words[place] for place in where.tolist()]

    def _word(self, value: float) -> str:
        if math.isnan(value):
            return self.missing[0] if self.missing else ""
        if self.numeric:
            places = 0 if self.kind == "integer" else self.decimals
            word = notation.written(value, self.format, self.mark, self.thousands, places)
            return f"{'-' * word.startswith('-')}{self.before}{word.removeprefix('-')}{self.after}"
        if self.kind == "date":
            return notation.dated(self.rounded(value), self.format)
        if self.kind == "constant" and not self.levels:
            return self.missing[0] if self.missing else ""
        place = round(value)
        if place != value or not 0 <= place < len(self.levels):
            raise InputError(f"column {shown(self.name)!r} has {len(self.levels):,} levels and no level {value:g}.")
        return self.levels[place]

    def rounded(self, value: float) -> float:
        """A value as it will be read again after it is written: to the decimals, the step or the level."""
        if math.isnan(value) or self.kind == "identifier":
            return value
        if self.kind == "date":
            return round(value / self.step) * self.step if self.step else value
        if self.kind == "number":
            return value if self.decimals is None else round(value, self.decimals)
        return float(round(value))

    def describe(self) -> str:
        """What it is in a few words: "category of 16", "number, 2 decimals", "date %Y-%m-%d"."""
        if self.kind == "category":
            return f"category of {len(self.levels):,}"
        if self.kind == "number" and self.decimals is not None:
            return f"number, {self.decimals} decimal{'s' * (self.decimals != 1)}"
        return f"date {self.format}" if self.kind == "date" else self.kind

    def to_dict(self) -> dict[str, Any]:
        """A plain dict, without what is as by default, from which `from_dict` makes the same type."""
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        usual = {entry.name: entry.default for entry in fields(self)}
        return {k: v for k, v in plain.items() if k in ("name", "kind") or (v != [] and v != usual[k])}

    @staticmethod
    def from_dict(description: object) -> "ColumnType":
        """The type that `to_dict` described.

        Raises:
            InputError: the description is not one.
        """
        if not isinstance(description, Mapping):
            raise InputError(f"a column's type must be a mapping with a name and a kind; it is {description!r:.80}.")
        known = [entry.name for entry in fields(ColumnType)]
        for key in description:
            if key not in known:
                raise InputError(f"a column's type has no field {shown(key)!r:.80}; known: {', '.join(known)}.")
        for key in ("name", "kind"):
            if not isinstance(description.get(key), str):
                raise InputError(f"a column's type needs a {key}, as text.")
        return ColumnType(**description)


def summary(types: Sequence[ColumnType]) -> str:
    """How many columns are of which kind: "15 columns (6 integers, 7 categories, 2 booleans)"."""
    plural = {"category": "categories"}
    counts = {kind: sum(column.kind == kind for column in types) for kind in KINDS}
    each = ", ".join(
        f"{count} {kind if count == 1 else plural.get(kind, kind + 's')}" for kind, count in counts.items() if count
    )
    return f"{len(types):,} column{'s' * (len(types) != 1)} ({each})"
