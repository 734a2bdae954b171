"""Uses of a model of masked columns besides drawing rows: any cells of a row, given any others.

Three questions, and what answers each:

- *Rows that meet conditions*: `where` restricts columns to one value, a few, or a range. Rows are drawn exactly from
  the model's distribution given that (`ornstein.discrete.constrained`).
- *What could fill the holes?* `impute` draws all missing cells of a row together, given the cells that it has.
- *How odd is this row?* `score` bounds its log-probability; `explain` says how surprising each cell is given the rest.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.drive import another_seed, sample_seeds
from ornstein.core.walk import end
from ornstein.data.calendar import DAY
from ornstein.data.coding import Coded, part_of
from ornstein.data.derived import Derived, unit_of
from ornstein.data.schema import ColumnType
from ornstein.data.tokens import Tokens
from ornstein.discrete import MaskedDenoiser, bound, constrained
from ornstein.errors import InputError, shown
from ornstein.experiment.run import Run
from ornstein.experiment.where import Where

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


def draw_rows(
    run: Run,
    n: int,
    where: Where | None = None,
    *,
    seed: int | None = 0,
    steps: int | None = None,
    condition: Condition | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Tensor]:
    """Draw n rows in pieces, each (B, d) float64 of the table's carrier: a million take no more memory than a few.

    Args:
        where: conditions on columns.
        seed: row i of a seed is the same however many are drawn; None: a fresh one.
        steps: with fewer steps than tokens, several are drawn at once, which is faster but less accurate.
        condition: for a run with given columns (`data.condition`), n rows; None: they are not known.
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
        x = None if where is None else _meeting(run, where, given)
        drawn = _completed(run, x, part, given, steps)
        yield tokens.rows(tokens.categories.codes(drawn), None if where is None else where.spans)
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
    """Fill the holes of rows by drawing from the model given the cells that they have; those come back unchanged.

    A hole is always filled with a value, even if training rows have missing values there. Draw k of row i of a seed is
    the same whatever other rows there are, and however many draws. Rows without holes cost nothing.

    Args:
        rows: (N, d) float64 of the table's carrier, NaN for holes.
        draws: how many for each row, all different. The range of 19 draws contains the true value nine times in ten.

    Returns:
        (draws, N, d) float64.
    """
    tokens, types = must_be_table(run)
    run.must_draw()
    if rows.ndim != 2 or rows.shape[1] != tokens.columns:
        raise InputError(f"rows have shape {tuple(rows.shape)}; this run's table has {tokens.columns} columns.")
    run.must_hold(draws, "draws", max(len(rows), 1))
    open_ = rows.isnan().any(1).nonzero().flatten()
    every = rows.expand(draws, *rows.shape).clone()
    codes, allowed = known_of(tokens, rows), filled(tokens)
    size, total = run.learner.at_once, draws * len(open_)
    # draw k has a seed of its own, of which row i has the i-th sample's
    keys = torch.stack([sample_seeds(len(rows), another_seed(seed, k), None, None) for k in range(draws)])
    for start in range(0, total, size):
        which = torch.arange(start, min(start + size, total))
        draw, row = which // len(open_), open_[which % len(open_)]
        x = tokens.categories.one_hot(codes[row])
        given = run.condition(len(row))
        drawn = _completed(run, x, keys[draw, row], given, None, allowed * _consistent(tokens, rows[row], types))
        every[draw, row] = _agreeing(tokens, tokens.inverse(drawn), rows[row], types)
        if progress is not None:
            progress(int(which[-1]) + 1, total)
    return every


def _meeting(run: Run, where: Where, condition: Condition) -> Callable[..., Tensor]:
    """What draws, for rows of a walk and their seeds, the tokens that are to meet conditions: (B, width)."""

    def met(which: "slice | Tensor", seeds: Tensor) -> Tensor:
        x = torch.zeros(len(seeds), run.denoiser.categories.width)
        return constrained(run.denoiser, x, where.sets, seeds, condition[which])

    return met


def _completed(
    run: Run,
    x: "Tensor | Callable[..., Tensor] | None",
    seeds: Tensor,
    condition: Condition,
    steps: int | None,
    allowed: Tensor | None = None,
) -> Tensor:
    """Rows (B, width) with the tokens that they lack drawn; steps None: one a token."""
    with torch.no_grad():
        options = {"seeds": seeds, "x": x, "allowed": allowed, "condition": condition}
        return end(run.learner.trajectory(run.denoiser, len(seeds), run.way().stepper, steps, None, **options)).x


def known_of(tokens: Tokens, rows: Tensor) -> Tensor:
    """Classes (N, T) of the cells that rows have; -1 for holes, which do not count as missing values."""
    codes = tokens.codes(rows)
    for one, place in zip(tokens.coded, tokens.places, strict=True):
        codes[:, place] = torch.where(rows[:, one.column, None].isnan(), -1, codes[:, place])
    return codes


def filled(tokens: Tokens) -> Tensor:
    """(width,) float64: 1 for every class but those of missing values."""
    allowed = torch.ones(tokens.categories.width, dtype=torch.float64)
    for one, place in zip(tokens.coded, tokens.places, strict=True):
        if one.missing:
            allowed[tokens.categories.block(place.start)][-1] = 0.0  # its last class
    return allowed


def _consistent(tokens: Tokens, rows: Tensor, types: Sequence[ColumnType]) -> Tensor:
    """(N, width) float64: 0 for the classes of holes that contradict a column which follows from them."""
    allowed = torch.ones(len(rows), tokens.categories.width, dtype=torch.float64)
    for d in tokens.derived:
        known = rows[:, d.column]
        for one, place in zip(tokens.coded, tokens.places, strict=True):
            if one.column != d.source or not (d.line or (one.part == "value" and one.low == one.high)):
                continue
            if d.line:
                agrees = _reached(one, *_source_of(tokens, d, known, types))
            elif len(one.sizes) == 1:
                agrees = d.of(torch.tensor(one.low, dtype=torch.float64))[None] == known[:, None]
            else:
                continue
            agrees |= known.isnan()[:, None] | ~agrees.any(1, keepdim=True)  # a value never seen forbids nothing
            for token, may in zip(range(place.start, place.stop), one.classes(agrees), strict=True):
                block = allowed[:, tokens.categories.block(token)][:, : may.shape[1]]
                # nor do two that contradict each other
                block *= torch.where(((block * may).sum(1, keepdim=True) > 0), may, 1.0)
    return allowed


def _source_of(tokens: Tokens, d: Derived, known: Tensor, types: Sequence[ColumnType]) -> tuple[Tensor, Tensor]:
    """The first and the last value (N,) that the source of a line can have had where the column is `known`."""
    within = tokens.range_of(d.source)
    return d.source_of(known, known, within, unit_of(types[d.source], *within))


def _reached(one: Coded, first: Tensor, last: Tensor) -> Tensor:
    """Which cells (N, cells) hold some of what lies from `first` to `last`, (N,) each."""
    if one.part == "time":  # that of a day says something if it is known which
        same = part_of(first, "day") == part_of(last, "day")
        first, last = (torch.where(same, part_of(end_, "time"), far) for end_, far in ((first, 0.0), (last, DAY)))
    low, high = one.ends
    first, last = (part_of(end_, one.part) if one.part == "day" else end_ for end_ in (first, last))
    return (high >= first[:, None]) & (low <= last[:, None]) & (first <= last)[:, None]


def _agreeing(tokens: Tokens, drawn: Tensor, rows: Tensor, types: Sequence[ColumnType]) -> Tensor:
    """Rows with their holes as drawn, and each column that follows from another in agreement with it."""
    found = torch.where(rows.isnan(), drawn, rows)
    for d in tokens.derived:
        if d.line:
            first, last = _source_of(tokens, d, rows[:, d.column], types)
            inside = _moved(found[:, d.source], first, last, unit_of(types[d.source], *tokens.range_of(d.source)))
            held = rows[:, d.source].isnan() & (first <= last)
            found[:, d.source] = torch.where(held, inside, found[:, d.source])
    return torch.where(rows.isnan(), tokens.followed(found), rows)


def _moved(values: Tensor, first: Tensor, last: Tensor, unit: float) -> Tensor:
    """Values from `first` to `last`: those beyond are as far within, so that they do not crowd at the ends.

    Cells of a bin can lie beyond, since they are drawn without regard to the bin. Moments keep their time of the day.
    """
    step = torch.where(last - first >= DAY, max(DAY, unit), unit) if unit >= 1 else torch.full_like(first, unit)
    for end_, sign in ((first, 1.0), (last, -1.0)):
        beyond = (sign * (end_ - values) / step).ceil()
        values = torch.where(beyond > 0, values + sign * (2 * beyond - 1) * step, values)
    return values.clamp(first, last)


@torch.no_grad()
def score(
    run: Run, rows: Tensor, *, orders: int = ORDERS, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> tuple[Tensor, Tensor]:
    """A bound on the log-probability of each row's known cells, in nats, and its standard error: (N,) float64 each.

    The mean over `orders` random orders of the log-probability in that order. For columns with a fixed number of
    decimals (whole numbers, prices in cents) it is a probability, for continuous ones a density. Holes are integrated
    out.
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

    -log p(cell given the rest), less its mean over what could be there instead. A cell is not odd because it is one of
    many possible values, but because it is an unlikely one. NaN for holes, and for columns that are not encoded.
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
