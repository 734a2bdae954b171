"""What a model of masked columns is good for besides drawing rows: any cells of a row, given any others.

Three questions, one answer each:

- *Rows such that ...*: `where` puts columns to one value, a few, or a range. The model's law given that is drawn from
  exactly (`ornstein.discrete.constrained`).
- *What would stand in the holes?* `impute` draws all missing cells of a row together, given the cells that it has.
- *How odd is this row?* `score` bounds its log-probability; `explain` says how surprising each cell is given the rest.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.drive import sample_seeds
from ornstein.core.walk import end
from ornstein.data.calendar import DAY
from ornstein.data.coding import Coded
from ornstein.data.schema import ColumnType
from ornstein.data.tokens import Tokens
from ornstein.discrete import MaskedDenoiser, bound, constrained
from ornstein.errors import InputError, lookup, shown
from ornstein.experiment.run import Run

#: orders that a row's probability is the mean of
ORDERS = 4


def draws_rows(run: Run) -> bool:
    """Whether a run was trained on a table."""
    return isinstance(run.transform, Tokens)


def must_be_table(run: Run) -> tuple[Tokens, tuple[ColumnType, ...]]:
    """The tokens and types of a run on a table.

    Raises:
        InputError: it was trained on something else.
    """
    tokens = run.transform
    if not isinstance(tokens, Tokens):
        raise InputError(f"run={shown(run.folder)!r} was trained on {run.kind}s, and this is of tables.")
    return tokens, run.types


@dataclass(frozen=True, eq=False)
class Where:
    """What columns are asked to be.

    Args:
        sets: of tokens, as `ornstein.discrete.constrained` takes them.
        ranges: of `Tokens.coded`, by place: between which values.
    """

    sets: Mapping[int, Tensor]
    ranges: Mapping[int, tuple[float, float]]

    @staticmethod
    def of(text: str, tokens: Tokens, types: Sequence[ColumnType]) -> "Where":
        """From words: "income=>50K, age=30..40, sex=Female|Male, score>=7".

        A column is put to a value, to one of several (|), to a range with both its ends (..), to at least or at most
        (>=, <=) or, with nothing after the sign, to a missing value. Parts are divided by commas; a value that has a
        comma, a bar or two points of its own is put in double quotes.

        Raises:
            InputError: a column, or a value of it, that is not known; a part that is none of these.
        """
        sets: dict[int, Tensor] = {}
        ranges: dict[int, tuple[float, float]] = {}
        named = {kind.name: place for place, kind in enumerate(types)}
        for part in _parts(text, ","):
            name, sign, value = _asked(part, named)
            column = named[name]
            kind = types[column]
            wanted = [_span(kind, piece, sign) for piece in _parts(value, "|")] if value.strip() else [None]
            for token, share in _sets(tokens, kind, column, wanted).items():
                sets[token] = share * sets[token] if token in sets else share
            if len(wanted) == 1 and wanted[0] is not None:
                for place, one in enumerate(tokens.coded):
                    if one.column == column and one.part == "value":
                        ranges[place] = wanted[0]
        return Where(sets, ranges)


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
    name = text.partition("=")[0].strip(' "<>')
    if name not in named:
        lookup(named, name, "column")
    raise InputError(f"--where {shown(text)!r} must look like {shown(name)}=VALUE, =LOW..HIGH, =A|B, >=LOW or <=HIGH.")


def _span(kind: ColumnType, text: str, sign: str) -> tuple[float, float]:
    """The first and the last value that a piece asks for."""
    quoted = text.strip().startswith('"')
    word = text.strip().strip('"') if quoted else text.strip()

    def value(of: str) -> float:
        found = float(kind.parse([of.strip()])[0])
        if math.isnan(found):
            raise InputError(f"column {shown(kind.name)!r}: {shown(of)!r} is missing; ask for that by nothing at all.")
        return found

    ordered = kind.numeric or kind.kind == "date"
    if not ordered and (sign != "=" or (".." in word and not quoted and word not in kind.levels)):
        raise InputError(
            f"column {shown(kind.name)!r} has words, which have no order: ask for some of them, as in "
            f"{shown(kind.name)}={'|'.join(map(shown, kind.levels[:2]))}."
        )
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


def _sets(
    tokens: Tokens, kind: ColumnType, column: int, wanted: Sequence[tuple[float, float] | None]
) -> dict[int, Tensor]:
    """What each token may be; None among what is wanted is a missing value."""
    missing = float(None in wanted)
    spans = [span for span in wanted if span is not None]
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
            share, gone = share.clamp_max(1.0), missing
        found.update(zip(range(place.start, place.stop), one.shares(share, gone), strict=True))
    told = any(bool((share > 0).any()) for share in found.values())
    if (
        not found
        or not told
        or (missing and not spans and not any(o.column == source and o.missing for o in tokens.coded))
    ):
        asked = "a missing value" if missing else "that"
        raise InputError(f"column {shown(kind.name)!r} has never been {asked} in training, and so is not drawn so.")
    return found


def _days(span: tuple[float, float], kind: ColumnType) -> tuple[float, float]:
    for end_ in span:
        if math.isfinite(end_) and end_ % DAY:
            raise InputError(f"column {shown(kind.name)!r} is asked for by whole days; give dates without a time.")
    return tuple(end_ / DAY for end_ in span)  # type: ignore[return-value]


def _by_source(
    one: Coded, of: Callable[[Tensor], Tensor], spans: Sequence[tuple[float, float]], missing: float, kind: ColumnType
) -> Tensor:
    """The cells at which a column that another determines is as wanted."""
    if one.part != "value" or one.low != one.high:
        raise InputError(
            f"column {shown(kind.name)!r} follows from another, which it cannot be asked by; ask for that."
        )
    return _meets(of(torch.tensor(one.low, dtype=torch.float64)), spans, missing)


def _meets(values: Tensor, spans: Sequence[tuple[float, float]], missing: float) -> Tensor:
    met = torch.zeros(len(values), dtype=torch.bool)
    for low, high in spans:
        met |= (values >= low) & (values <= high)
    return torch.where(values.isnan(), missing, met.double())


def draw_rows(
    run: Run,
    n: int,
    where: Where | None = None,
    *,
    seed: int = 0,
    steps: int | None = None,
    condition: Condition | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Tensor]:
    """Draw n rows in pieces, each (B, d) float64 of the table's carrier: a million take no more memory than a few.

    Args:
        where: what columns are to be.
        seed: row i of a seed is the same however many are drawn.
        steps: fewer than there are tokens draw several at once, quicker and less well.
        condition: of a run with columns that are given (`data.condition`), n rows; None: they are not known.
        progress: called with (rows done, n).

    Raises:
        InputError: a run on no table; what was asked for is too rare.
    """
    tokens, _ = must_be_table(run)
    run.must_draw()
    size, keys = run.learner.at_once, sample_seeds(n, seed, None, None)
    for start in range(0, n, size):
        part = keys[start : start + size]
        given = run.condition(len(part)) if condition is None else condition[start : start + size]
        x = torch.zeros(len(part), tokens.categories.width)
        if where is not None:
            x = constrained(run.denoiser, x, where.sets, part, given)
        drawn = _completed(run, x, part, given, steps)
        yield tokens.rows(tokens.categories.codes(drawn), None if where is None else where.ranges)
        if progress is not None:
            progress(start + len(part), n)


def impute(
    run: Run,
    rows: Tensor,
    draws: int = 19,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Fill the holes of rows from the model's law given the cells that they have; those come back as they are.

    A hole is filled with a value: that a cell could well be missing, as in training rows, is no answer. Draw k of a row
    does not depend on the rows beside it.

    Args:
        rows: (N, d) float64 of the table's carrier, NaN for holes.
        draws: how many of each row, all different. The range of 19 draws holds the truth nine times of ten.

    Returns:
        (draws, N, d) float64.
    """
    tokens, _ = must_be_table(run)
    run.must_draw()
    if rows.ndim != 2 or rows.shape[1] != tokens.columns:
        raise InputError(f"rows have shape {tuple(rows.shape)}; this run's table has {tokens.columns} columns.")
    codes, allowed = known_of(tokens, rows), filled(tokens)
    size, total = run.learner.at_once, draws * len(rows)
    keys = sample_seeds(total, seed, None, None)
    found = []
    for start in range(0, total, size):
        which = torch.arange(start, min(start + size, total))
        row = which % len(rows)
        x = tokens.categories.one_hot(codes[row])
        given = run.condition(len(row))
        drawn = _completed(run, x, keys[which], given, None, allowed * _consistent(tokens, rows[row]))
        found.append(torch.where(rows[row].isnan(), tokens.inverse(drawn), rows[row]))
        if progress is not None:
            progress(int(which[-1]) + 1, total)
    return torch.cat(found).reshape(draws, *rows.shape)


def _completed(
    run: Run, x: Tensor, seeds: Tensor, condition: Condition, steps: int | None, allowed: Tensor | None = None
) -> Tensor:
    """Rows (B, width) with the tokens that they lack drawn; steps None: one a token."""
    with torch.no_grad():
        options = {"seeds": seeds, "x": x, "allowed": allowed, "condition": condition}
        return end(run.learner.trajectory(run.denoiser, len(x), run.way().stepper, steps, None, **options)).x


def known_of(tokens: Tokens, rows: Tensor) -> Tensor:
    """Classes (N, T) of the cells that rows have; -1 of those of holes, which are not taken for missing values."""
    codes = tokens.codes(rows)
    for one, place in zip(tokens.coded, tokens.places, strict=True):
        codes[:, place] = torch.where(rows[:, one.column, None].isnan(), -1, codes[:, place])
    return codes


def filled(tokens: Tokens) -> Tensor:
    """(width,) float64: 1 for every class but those of missing values."""
    allowed = torch.ones(tokens.categories.width, dtype=torch.float64)
    for one, place in zip(tokens.coded, tokens.places, strict=True):
        if one.missing:
            allowed[int(tokens.categories.starts[place.start]) + len(one.bins)] = 0.0
    return allowed


def _consistent(tokens: Tokens, rows: Tensor) -> Tensor:
    """(N, width) float64: 0 for the classes of holes that contradict a column which follows from them."""
    allowed = torch.ones(len(rows), tokens.categories.width, dtype=torch.float64)
    for d in tokens.derived:
        known = rows[:, d.column]
        for one, place in zip(tokens.coded, tokens.places, strict=True):
            if one.column != d.source or one.part != "value" or one.low != one.high or len(one.sizes) > 1:
                continue
            implied = d.of(torch.tensor(one.low, dtype=torch.float64))
            agrees = (implied[None] == known[:, None]) | known[:, None].isnan()
            agrees = agrees | ~agrees.any(1, keepdim=True)  # a value never seen forbids nothing
            start = int(tokens.categories.starts[place.start])
            allowed[:, start : start + len(one.bins)] *= agrees
    return allowed


@torch.no_grad()
def score(
    run: Run, rows: Tensor, *, orders: int = ORDERS, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> tuple[Tensor, Tensor]:
    """A bound on the log-probability of each row's known cells, in nats, and its standard error: (N,) float64 each.

    The mean over `orders` random orders of the log-probability in that order. Of columns with a last decimal (whole
    numbers, prices in cents) it is a probability, of continuous ones a density. Holes are integrated out.
    """
    tokens, _ = must_be_table(run)
    codes, done = known_of(tokens, rows), []
    keys = sample_seeds(len(rows), seed, None, None)
    size = run.learner.at_once
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        found, error = bound(run.denoiser, tokens.categories.one_hot(codes[part]), keys[part], orders=orders)
        width = torch.where(codes[part] < 0, 0.0, tokens.widths(rows[part])).sum(1)
        done.append((found - width, error))
        if progress is not None:
            progress(min(start + size, len(rows)), len(rows))
    value, error = (torch.cat(parts) for parts in zip(*done, strict=True))
    return value, error


@torch.no_grad()
def explain(run: Run, rows: Tensor) -> Tensor:
    """How much more surprising each cell is, given the row's others, than the model expects: (N, d) float64, in nats.

    -log p(cell given the rest), less the mean of that over what might stand there instead. A cell is not odd for being
    one of many values, but for being an unlikely one. NaN for holes, and for columns of which nothing is told.
    """
    tokens, _ = must_be_table(run)
    model: MaskedDenoiser = run.denoiser
    categories, codes = tokens.categories, known_of(tokens, rows)
    found = torch.full((len(rows), tokens.columns), math.nan, dtype=torch.float64)
    size = run.learner.at_once
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        x0 = categories.one_hot(codes[part]).to(model.device)
        for column in dict.fromkeys(one.column for one in tokens.coded):
            nats = torch.zeros(len(x0), dtype=torch.float64)
            hidden = torch.zeros(categories.tokens, dtype=torch.bool)
            hidden[tokens.tokens_of(column)] = True
            for token in tokens.tokens_of(column):  # in order: what refines another is asked for once that is known
                seen = categories.spread((~hidden)[None].expand(len(x0), -1).float().to(model.device))
                told = model.log_probs(x0 * seen, run.condition(len(x0)))
                weight = told.exp() - x0
                excess = categories.sums(torch.where(weight == 0, 0.0, weight * told))
                nats += excess[:, token].double().cpu()
                hidden[token] = False
            found[part, column] = torch.where(rows[part, column].isnan(), math.nan, nats)
    return found
