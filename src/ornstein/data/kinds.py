"""What the columns of a table are, recognised by their words.

| kind | when |
|---|---|
| constant | one word throughout |
| boolean | two opposite words: true and false, yes and no, 0 and 1, ... |
| date | every word fits one pattern of `ornstein.data.notation` |
| identifier | row numbers; a different word in (nearly) every row; long texts |
| integer | whole numbers (41 or 41.0), none beyond 2^53 and none with a leading zero, which only codes have |
| number | other finite numbers; like integers also with a unit that all have, as in $8.30 or 72.1 kg |
| category | all else, such as postal codes and words |

The user can override this by name: `types: {age: category}`, and for dates with a pattern: `date:%d/%m/%Y`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, final

from ornstein.data import notation
from ornstein.data.schema import KINDS, MISSING, MISSING_NUMBER, ColumnType
from ornstein.errors import InputError, lookup, shown

if TYPE_CHECKING:
    import numpy as np

#: of a category; more than a model can learn of, or a run folder should tell of
MOST_LEVELS, MOST_LETTERS = 10_000, 200_000
#: rows from which words that differ throughout name them
NAMED_ROWS = 20
_OPPOSITES = (("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"), ("0", "1"), ("0.0", "1.0"), ("off", "on"))
_CODE = re.compile(r"[+-]?0\d+|\+\d{7,}|-?\d{17,}")
_WHOLE = re.compile(r"-?\d+")
_COUNTRY = re.compile(r"[A-Z]{2}")


@final
@dataclass(frozen=True, eq=False)
class Words:
    """A column of text, each different word kept once.

    Args:
        different: the words, in the order of their first row.
        codes: (N,) int32: which of them each row has.
    """

    different: Sequence[str]
    codes: "np.ndarray"

    @staticmethod
    def of(texts: Sequence[str]) -> "Words":
        """The words of a column, row by row."""
        import numpy as np

        places: dict[str, int] = {}
        codes = [places.setdefault(word, len(places)) for word in texts]
        return Words(list(places), np.array(codes, np.int32))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> "Words":
        return Words(self.different, self.codes[rows])

    def texts(self) -> list[str]:
        """The words, row by row."""
        return [self.different[code] for code in self.codes.tolist()]

    @cached_property
    def counts(self) -> list[int]:
        """How many rows each different word has."""
        import numpy as np

        found: list[int] = np.bincount(self.codes, minlength=len(self.different)).tolist()
        return found

    @cached_property
    def rows(self) -> list[int]:
        """The first row of each different word, from 1; 0 for one that no row has."""
        import numpy as np

        found = np.zeros(len(self.different), np.int64)
        found[self.codes[::-1]] = np.arange(len(self.codes), 0, -1)
        return list(map(int, found))

    def values(self, kind: ColumnType) -> "np.ndarray":
        """The carrier of this column, (N,) float64. Raises `InputError` as `ColumnType.parse` does."""
        import numpy as np

        used = [place for place, count in enumerate(self.counts) if count]
        known = np.full(len(self.different), np.nan)
        known[used] = kind.parse([self.different[i] for i in used], [self.rows[i] for i in used])
        found: np.ndarray = known[self.codes]
        return found


def find_types(
    columns: Mapping[str, Words],
    kinds: Mapping[str, str] | None = None,
    missing: Sequence[str] = (),
    comma: bool = False,
    typed: Mapping[str, str] | None = None,
) -> tuple[ColumnType, ...]:
    """What each column is, with the reason in words.

    Args:
        columns: name -> its words.
        kinds: name -> what it is instead: see the module.
        missing: more words that say "missing".
        comma: whether a comma between digits is rather a decimal mark than one of thousands: where cells are not
            separated by commas.
        typed: name -> what it is by its type in a frame, where `kinds` says nothing.

    Raises:
        InputError: a kind for a column that is not there, that is not known, or that does not fit; infinite numbers.
    """
    kinds = kinds or {}
    for name, kind in kinds.items():
        lookup(columns, name, "data.types: column")
        lookup(dict.fromkeys(KINDS), kind.partition(":")[0], f"data.types.{shown(name)}")
    found = {name: _Column(name, words, tuple(missing), comma) for name, words in columns.items()}
    if any(column.mark == "," for column in found.values()):  # 1.234 beside 0,5 is more than a thousand
        found = {name: _Column(name, words, tuple(missing), comma, european=True) for name, words in columns.items()}
    typed = {name: kind for name, kind in (typed or {}).items() if name not in kinds}
    return tuple(
        column.asked(kinds[name])
        if name in kinds
        else column.asked(typed[name], "by its type in the frame")
        if name in typed
        else column.found()
        for name, column in found.items()
    )


@final
class _Column:
    """A column while it is looked at."""

    def __init__(self, name: str, words: Words, missing: tuple[str, ...], comma: bool, european: bool = False) -> None:
        counts = [(word, count) for word, count in zip(words.different, words.counts, strict=True) if count]
        self.name, self.words, self.rows = name, words, len(words)
        usual = MISSING_NUMBER | set(missing)
        self.full = [(w, c) for w, c in counts if w.strip() not in usual]
        self.holes = [(w, c) for w, c in counts if w.strip() in usual]
        self.unit, self.bare = ("", ""), [w for w, _ in self.full]
        self.way = self._way(self.bare, comma, european)
        if self.way is None and any(unit := notation.unit_of(self.bare)):
            bare = [notation.without(w, unit) for w in self.bare]
            if (way := self._way(bare, comma, european)) is not None:
                self.way, self.unit, self.bare = way, unit, bare
        self.numbers = [] if self.way is None else [notation.number(w, *self.way) for w in self.bare]
        self.patterns = notation.patterns([w for w, _ in self.full]) if self.full and self.way is None else []
        if self.way is None and not self.patterns:  # among words fewer say "missing"
            usual = MISSING | set(missing)
            if self.full and all(_COUNTRY.fullmatch(w.strip()) for w, _ in self.full):
                usual = usual - {"NA"}  # Namibia
            self.full = [(w, c) for w, c in counts if w.strip() not in usual]
            self.holes = [(w, c) for w, c in counts if w.strip() in usual]
        self.missing = tuple(w for w, _ in sorted(self.holes, key=lambda pair: (-pair[1], pair[0])))

    @property
    def mark(self) -> str:
        return "." if self.way is None else self.way[0]

    @staticmethod
    def _way(words: list[str], comma: bool, european: bool) -> tuple[str, str] | None:
        """How all of the words are numbers; None if they are not."""
        ways = list(notation.WAYS)
        if european:
            ways = [(",", "."), (",", " "), (",", ""), *ways]
        elif not comma:
            ways = [(".", ""), (".", ","), *ways]
        for way in ways:
            if way[1] and not any(way[1] in w for w in words):
                continue  # a mark that no cell has would be put into what is written
            if words and not any(math.isnan(notation.number(w, *way)) for w in words):
                return way
        return None

    def found(self) -> ColumnType:
        """What it is taken for."""
        full = self.full
        if len(full) == 1 and not self.holes:
            return self._made("constant", f"always {shown(full[0][0][:40])!r}", levels=(full[0][0],))
        if not full:
            return self._made("constant", "no value in any row")
        if (pair := _opposites([w for w, _ in full])) is not None:
            return self._made("boolean", "two words that are opposites", levels=pair)
        if self.patterns:
            if len(self.patterns) == 1:
                return self._date(self.patterns[0])
            ways = " or ".join(f"date:{pattern}" for pattern in self.patterns)
            return self._worded(f"if these are dates, say which: data.types.{shown(self.name)}={ways}")
        if self.way is not None and len(full) > 1 and not any(_CODE.fullmatch(w.strip()) for w in self.bare):
            self._finite()
            whole = all(value.is_integer() for value in self.numbers)
            if whole and self._counts():
                return self._identifier("whole numbers that count the rows")
            small = max(map(abs, self.numbers)) < notation.LARGEST_WHOLE  # above, neighbours are one float
            if not whole or small or any("e" in w.lower() for w in self.bare):  # 1e30 was measured, and names nothing
                return self._numeric("integer" if whole and small else "number")
        return self._worded()

    def asked(self, wanted: str, reason: str = "as data.types says") -> ColumnType:
        """It as somebody says that it is."""
        kind, _, pattern = wanted.partition(":")
        said = f"data.types.{shown(self.name)}={wanted!r}"
        match kind:
            case "number" | "integer":
                if self.way is None:
                    bad = next((w for w, _ in self.full if math.isnan(notation.number(w))), "")
                    row = self.words.rows[list(self.words.different).index(bad)] if self.full else 0
                    raise InputError(f"{said}: row {row:,} of it has {shown(bad[:60])!r}, which is no number.")
                self._finite()
                if kind == "integer" and not all(value.is_integer() for value in self.numbers):
                    bad = next(w for (w, _), v in zip(self.full, self.numbers, strict=True) if not v.is_integer())
                    raise InputError(f"{said}: it has {shown(bad)!r}, which is no whole number; use number.")
                return self._numeric(kind, reason)
            case "date":
                if pattern and not notation.is_pattern(pattern):
                    raise InputError(f"{said} must look like date:%d/%m/%Y, with %Y or %y, a month, each part once.")
                fit = [pattern] if pattern else self.patterns
                if len(fit) != 1:
                    doubt = "can be read in several ways" if fit else "are no dates of a known pattern"
                    ways = " or ".join(f"date:{way}" for way in fit) or "as in date:%d/%m/%Y"
                    raise InputError(f"{said}: its words {doubt}; say which, {ways}.")
                return self._date(fit[0], reason)
            case "boolean" | "constant":
                most = 2 if kind == "boolean" else 1
                if len(self.full) > most or (kind == "constant" and self.full and self.holes):
                    raise InputError(f"{said}: it has {len(self.full):,} different words, more than a {kind} has.")
                if not self.full and kind == "boolean":
                    raise InputError(f"{said}: it has no values.")
                pair = _opposites([w for w, _ in self.full]) or tuple(sorted(w for w, _ in self.full))
                return self._made(kind, reason, levels=pair)
            case "identifier":
                return self._identifier(reason)
        if not self.full:
            raise InputError(f"{said}: it has no values.")
        if len(self.full) > MOST_LEVELS or sum(len(w) for w, _ in self.full) > MOST_LETTERS:
            raise InputError(
                f"{said}: it has {len(self.full):,} different words; a category has {MOST_LEVELS:,} at most, "
                f"and {MOST_LETTERS:,} letters in all."
            )
        return self._made("category", reason, levels=self._ordered())

    def _made(self, kind: str, reason: str, **rest: Any) -> ColumnType:
        if self.holes and self.full:
            share = sum(c for _, c in self.holes) / self.rows
            words = ", ".join(shown(repr(w)) for w in self.missing[:4]) if any(self.missing) else "empty"
            reason += f"; {_percent(share)} missing ({words})"
        return ColumnType(self.name, kind, missing=self.missing, reason=reason, **rest)  # type: ignore[arg-type]

    def _numeric(self, kind: str, reason: str = "") -> ColumnType:
        assert self.way is not None
        words = self.bare
        places: int | None = max((notation.decimals(w, *self.way) for w in words), default=0)
        if any(sum(map(str.isdigit, w)) > 15 for w in words):
            places = None  # computed, not written by a person
        low, high = (min(self.numbers), max(self.numbers)) if self.numbers else (0.0, 0.0)
        form = notation.way_of(words, self.numbers, *self.way)
        if not reason:
            noun = "whole numbers" if kind == "integer" else "numbers"
            reason = f"{len(set(self.numbers)):,} {noun} from {low:.10g} to {high:.10g}"
            reason += f", in {' and '.join(part.strip() for part in self.unit if part)}" * any(self.unit)
        return self._made(
            kind, reason, decimals=0 if kind == "integer" else places, format=form, mark=self.way[0],
            thousands=self.way[1], before=self.unit[0], after=self.unit[1],
        )  # fmt: skip

    def _date(self, pattern: str, reason: str = "") -> ColumnType:
        values = [notation.seconds(w, pattern) for w, _ in self.full]
        for (word, _), value in zip(self.full, values, strict=True):
            if math.isnan(value):
                raise InputError(f"column {shown(self.name)!r}: {shown(word[:60])!r} is no date like {pattern}.")
        ends = (notation.dated(end, pattern) for end in (min(values), max(values)))
        step = notation.step_of(values)
        two = "%y" in pattern
        reason = reason or f"dates from {' to '.join(ends)}{', years from 1969 to 2068' * two}"
        return self._made("date", reason, format=pattern, step=step)

    def _worded(self, doubt: str = "") -> ColumnType:
        """A category, or names of the rows."""
        count, full = len(self.full), sum(c for _, c in self.full)
        letters = sum(len(w) for w, _ in self.full)
        if count == full and full >= NAMED_ROWS:
            return self._identifier("a word of its own in each row", doubt)
        if count > max(full / 2, 50) or count > MOST_LEVELS or letters > MOST_LETTERS:
            return self._identifier(f"{count:,} different words in {full:,} rows, too many to learn", doubt)
        word, most = max(self.full, key=lambda pair: pair[1])
        said = f"{count:,} word{'s' * (count > 1)}, most often {shown(word[:40])!r} ({_percent(most / full)})"
        near = sum(c for w, c in self.full if math.isnan(notation.number(w))) / full
        if not doubt and self.way is None and near < 0.1:
            odd = next(w for w, _ in self.full if math.isnan(notation.number(w)))
            doubt = f"numbers but for {shown(odd[:40])!r}; if that means missing, say data.missing"
        return self._made("category", f"{said}; {doubt}" if doubt else said, levels=self._ordered())

    def _ordered(self) -> tuple[str, ...]:
        """Levels: numbers by size, words by frequency."""
        if self.way is not None:
            pairs = sorted(zip(self.numbers, (w for w, _ in self.full), strict=True))
            return tuple(w for _, w in pairs)
        return tuple(w for w, _ in sorted(self.full, key=lambda pair: (-pair[1], pair[0])))

    def _identifier(self, reason: str, doubt: str = "") -> ColumnType:
        found = [re.fullmatch(r"([^{}]*?)(\d+)([^{}]*)", w) for w, _ in self.full]
        around = {(m[1], m[3]) if m else None for m in found}
        form = ""
        if len(around) == 1 and (only := next(iter(around))) is not None:
            widths = {len(m[2]) for m in found if m}
            width = f":0{min(widths)}d" if any(m and m[2][0] == "0" for m in found) and min(widths) < 100 else ""
            form = f"{only[0]}{{{width}}}{only[1]}"
        reason += ": not learnt, and numbered in what is drawn" + f"; {doubt}" * bool(doubt)
        return self._made("identifier", reason, format=form)

    def _finite(self) -> None:
        for (word, _), value in zip(self.full, self.numbers, strict=True):
            if abs(value) == float("inf"):
                row = self.words.rows[list(self.words.different).index(word)]
                raise InputError(
                    f"column {shown(self.name)!r}, row {row:,}: {shown(word[:60])!r} is infinite; leave it empty if it "
                    "is missing, or give a finite number."
                )

    def _counts(self) -> bool:
        """Whether whole numbers are those of the rows: each once, without a gap, and ascending."""
        values = self.numbers
        return (
            len(values) == self.rows >= NAMED_ROWS
            and values[0] in (0, 1)
            and all(b - a == 1 for a, b in pairwise(values))
        )


def _opposites(words: Sequence[str]) -> tuple[str, str] | None:
    """(no, yes) if two words are that."""
    if len(words) != 2:
        return None
    first, second = words
    for pair in _OPPOSITES:
        for no, yes in ((first, second), (second, first)):
            alike = (no.islower(), no.isupper(), no.istitle()) == (yes.islower(), yes.isupper(), yes.istitle())
            if (no.lower(), yes.lower()) == pair and alike:
                return no, yes
    return None


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.3g} %"
