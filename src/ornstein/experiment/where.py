"""Conditions on rows: what columns must be, in words, as sets of tokens."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.data.calendar import DAY
from ornstein.data.coding import EVERYWHERE, Coded
from ornstein.data.derived import Derived, unit_of
from ornstein.data.schema import ColumnType
from ornstein.data.tokens import Tokens
from ornstein.errors import InputError, lookup, shown

_LIKE = '"income=>50K, age=30..40, sex=A|B, debt>=7"'
#: the first and the last value
Span = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Where:
    """What columns must be.

    Args:
        sets: of tokens, as `ornstein.discrete.constrained` takes them.
        spans: for entries of `Tokens.coded`, by place: bounds on their values.
    """

    sets: Mapping[int, Tensor]
    spans: Mapping[int, Sequence[Span]]

    @staticmethod
    def of(text: str, tokens: Tokens, types: Sequence[ColumnType]) -> "Where":
        """From words: "income=>50K, age=30..40, sex=Female|Male, score>=7".

        A column must have a value, one of several (|), a value in a range with both its ends (..), at least or at most
        a value (>=, <=) or, with nothing after the sign, a missing value. Conditions are separated by commas; put a
        value that contains a comma, a bar or two dots in double quotes.

        Raises:
            InputError: a column, or a value of it, that is not known; a part that is none of these.
        """
        named = {kind.name: place for place, kind in enumerate(types)}
        if not _parts(text, ","):
            raise InputError(f"--where {shown(text)!r} asks for nothing; leave it out, or write as in {_LIKE}.")
        wanted: dict[int, list[Span | None]] = {}
        for part in _parts(text, ","):
            name, sign, value = _asked(part, named)
            kind = types[named[name]]
            said: list[Span | None] = [_span(kind, piece, sign) for piece in _parts(value, "|")] or [None]
            # of a column that is named again, what both ask for
            wanted[named[name]] = _both(wanted[named[name]], said) if named[name] in wanted else said
        kinds = dict(enumerate(types))  # by which a column is named: as it is asked for
        for line in (d for d in tokens.derived if d.line and d.column in wanted):
            said = [span and _of_source(line, span, tokens, types) for span in wanted.pop(line.column)]
            kinds[line.source] = types[line.source if line.source in wanted else line.column]
            wanted[line.source] = _both(wanted.get(line.source, [EVERYWHERE, None]), said)
        sets: dict[int, Tensor] = {}
        for column, spans in wanted.items():
            for token, share in _sets(tokens, kinds[column], column, spans, text).items():
                sets[token] = share * sets[token] if token in sets else share
        within = {
            place: _apart(
                _days(span, kinds[one.column]) if one.part == "day" else span
                for span in wanted[one.column]
                if span is not None
            )
            for place, one in enumerate(tokens.coded)
            if one.part != "time" and None not in wanted.get(one.column, [None])
        }
        return Where(sets, within)


def _of_source(line: Derived, span: Span, tokens: Tokens, types: Sequence[ColumnType]) -> Span:
    """Where the source of a line lies, if what follows from it lies in a span."""
    low, high = (torch.tensor([end_], dtype=torch.float64) for end_ in span)
    within = tokens.range_of(line.source)
    unit = unit_of(types[line.source], *within)
    if types[line.source].kind == "date":  # whole days of the one must be whole days of the other
        _days(span, types[line.column])
        if line.shift or line.offset % DAY:
            raise _not_by(types[line.column])
        unit = DAY
    first, last = line.source_of(low, high, within, unit)
    return float(first), float(last)


def _both(one: Sequence[Span | None], other: Sequence[Span | None]) -> list[Span | None]:
    """The spans, or missing values (None), that are in both."""
    met = [(max(a[0], b[0]), min(a[1], b[1])) for a in one for b in other if a is not None and b is not None]
    gone: list[None] = [None] * (None in one and None in other)
    return [*(span for span in met if span[0] <= span[1]), *gone]


def _apart(spans: Iterable[Span]) -> list[Span]:
    """Spans that overlap as one, in their order."""
    found: list[Span] = []
    for low, high in sorted(spans):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def _parts(text: str, mark: str) -> list[str]:
    """Text cut at a mark that stands outside of quotes."""
    found, quoted = [""], False
    for letter in text:
        quoted ^= letter == '"'
        if letter == mark and not quoted:
            found.append("")
        else:
            found[-1] += letter
    return [part for part in found if part.strip()]


def _asked(part: str, named: Mapping[str, int]) -> tuple[str, str, str]:
    """(column, sign, value) of one part: the longest name that it begins with."""
    text = part.strip()
    for name in sorted(named, key=len, reverse=True):
        for spelled in (name, f'"{name}"'):
            rest = text[len(spelled) :].lstrip()
            if text.startswith(spelled):
                for sign in (">=", "<=", "="):
                    if rest.startswith(sign):
                        return name, sign, rest[len(sign) :].strip()
    name = re.split("[<>=]", text, maxsplit=1)[0].strip(' "')
    if name not in named:
        lookup(named, name, "column")
    raise InputError(f"--where {shown(text)!r} must look like {shown(name)}=VALUE, =LOW..HIGH, =A|B, >=LOW or <=HIGH.")


def _span(kind: ColumnType, text: str, sign: str) -> Span:
    """The first and the last value that a piece asks for."""
    quoted = text.strip().startswith('"')
    word = text.strip().strip('"') if quoted else text.strip()

    def value(of: str) -> float:
        found = float(kind.parse([of.strip()], noun="--where")[0])
        if math.isnan(found):
            name = shown(kind.name)
            raise InputError(f"column {name!r}: {shown(of)!r} says that it is missing; ask for that by '{name}='.")
        return found

    ordered = kind.numeric or kind.kind == "date"
    if not ordered and (sign != "=" or (".." in word and not quoted and word not in kind.levels)):
        raise InputError(
            f"column {shown(kind.name)!r} has words, which have no order: ask for some of them, as in "
            f"{shown(kind.name)}={'|'.join(map(shown, kind.levels[:2]))}."
        )
    if ordered and word[:1] in ("<", ">"):
        name = shown(kind.name)
        raise InputError(f"--where {name}={shown(word)!r} must look like {name}>=LOW or {name}<=HIGH.")
    if sign == ">=":
        return value(word), math.inf
    if sign == "<=":
        return -math.inf, value(word)
    low, between, high = word.partition("..")
    if not ordered or not between or quoted:
        return value(word), value(word)
    span = (value(low) if low.strip() else -math.inf, value(high) if high.strip() else math.inf)
    if span[0] > span[1]:
        raise InputError(f"column {shown(kind.name)!r}: the range {shown(word)!r} ends below its start.")
    return span


def _sets(tokens: Tokens, kind: ColumnType, column: int, wanted: Sequence[Span | None], text: str) -> dict[int, Tensor]:
    """What each token may be; None among what is wanted is a missing value."""
    missing = float(None in wanted)
    spans = _apart(span for span in wanted if span is not None)
    derived = next((d for d in tokens.derived if d.column == column), None)
    found: dict[int, Tensor] = {}
    source = column if derived is None else derived.source
    for one, place in zip(tokens.coded, tokens.places, strict=True):
        if one.column != source:
            continue
        if derived is not None:
            share = _by_source(one, derived.of, spans, missing, kind)
            gone = float(_meets(derived.of(torch.tensor([math.nan], dtype=torch.float64)), spans, missing)[0])
        else:
            ends = [_days(span, kind) if one.part == "day" else span for span in spans]
            if one.part == "time":
                continue  # ranges of dates are of whole days
            share = sum((one.inside(*span) for span in ends), torch.zeros(len(one.low), dtype=torch.float64))
            gone = missing
        found.update(zip(range(place.start, place.stop), one.shares(share, gone), strict=True))
    told = any(bool((share > 0).any()) for share in found.values())
    if not told:
        asked = "a missing value" if missing and not spans else "what is asked for"
        raise InputError(
            f"--where {shown(text)!r}: column {shown(kind.name)!r} has never been {asked} in training, and so is not "
            "drawn so."
        )
    return found


def _days(span: Span, kind: ColumnType) -> Span:
    for end_ in span:
        if math.isfinite(end_) and end_ % DAY:
            raise InputError(f"column {shown(kind.name)!r} is asked for by whole days; give dates without a time.")
    return tuple(end_ / DAY for end_ in span)  # type: ignore[return-value]


def _by_source(
    one: Coded, of: Callable[[Tensor], Tensor], spans: Sequence[Span], missing: float, kind: ColumnType
) -> Tensor:
    """The cells at which a column that another determines is as wanted."""
    if one.part != "value" or one.low != one.high:
        raise _not_by(kind)
    return _meets(of(torch.tensor(one.low, dtype=torch.float64)), spans, missing)


def _not_by(kind: ColumnType) -> InputError:
    return InputError(f"column {shown(kind.name)!r} follows from another, which it cannot be asked by; ask for that.")


def _meets(values: Tensor, spans: Sequence[Span], missing: float) -> Tensor:
    met = torch.zeros(len(values), dtype=torch.bool)
    for low, high in spans:
        met |= (values >= low) & (values <= high)
    return torch.where(values.isnan(), missing, met.double())
