"""How good draws of a table are: every question that a user would ask, each beside what real rows score.

| row | asks | ideal |
|---|---|---|
| trees, network | can a judge that learns tell draws from held-out rows? (AUC; `boosted`) | 0.5 |
| columns | are words as frequent, and numbers spread, as in real rows? (distance; `margins`) | the floor |
| pairs | are the relations of two columns right? (distance of their association; `margins`) | the floor |
| predict COLUMN | do draws teach what real rows do, tried on held-out rows? (AUC or R2; `boosted`) | the floor |
| closest record | do draws lie nearer to training than to held-out rows? (share; `records`) | 0.5 |
| membership | do draws betray who was trained on? (AUC; `records`) | 0.5 |
| copies | are draws training rows to the last digit? (share; `records`) | the floor |

Floors are what real rows score in place of the draws, in sets of the same size (`floor`). For the closest record and
membership they are 0.5 by symmetry, with the spread of an honest model; for copies, the share of draws that are a
row of as many *held-out* ones. The first four rows say how good the draws are, the last three whether they merely
repeat your rows: a model that hands out its training rows scores perfectly on the first four.

A mean score over columns of many kinds would mean little. Read the rows, then the columns and pairs that differ. Since
there are many of these, and of predicted columns, they count as different only beyond three spreads.

**What it costs.** Nearly all of the time goes to the judges that learn, some sixty fits, each of a few thousand rows:
work for one thread. Several threads would meet ten thousand times, and on a busy machine those that wait keep the
processor from those they wait for: on adult, with 1,000 draws, two threads had not finished the report after 150
processor seconds, and one makes it in a quarter of a minute. So one thread makes it. It uses half as many trees as
`boosted` does by default: for 1,000 and 5,000 draws of a sequential CART they gave AUCs of .532 and .523, against .534
and .526 with all of them, and equally many spreads above the floor.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, final

import torch
from torch import Tensor

from ornstein.errors import InputError, shown
from ornstein.metrics.boosted import NetworkTest, TreeTest, commonest, predicts
from ornstein.metrics.floor import Score, compare, judge, lines, plain
from ornstein.metrics.margins import Bins, columns_apart, tables
from ornstein.metrics.metric import Metric, choose
from ornstein.metrics.neighbours import Memorisation, ratio
from ornstein.metrics.records import Records, closest_records

#: columns that are predicted where none is named: the last one, and those most related to another
TARGETS = 4
#: share of rows whose value of a column another row has, from which on it can be seen to determine others
_REPEATED = 0.1
#: rows that are looked at for it
_LOOKED_AT = 10_000
#: subsets of real rows that a judge which learns is tried on, for its floor
JUDGED, TAUGHT = 5, 5
#: trees of a judge
_TREES = 50
#: how much wider than of one score the spread is taken of one among many, of which some are far off by chance
_MANY = 1.5
#: the same, for readers
AMONG_MANY = (
    "Of many columns, pairs and predictions some lie off by chance: they count as different only beyond three standard "
    "deviations."
)
#: a share of copies, or of nearer rows, up to which the verdict is the second word
_CLOSE = 1.1


@final
@dataclass(frozen=True)
class TableReport:
    """Scores of a table by name; `table()` is for people, `to_dict()` for files.

    Attributes:
        rows: the scores that the module names.
        columns: for each column, by its name, the distance.
        pairs: for each pair of columns, by their names, the distance of their association.
        association: for each pair Cramér's V among the draws, and among the training rows.
        records: what the closest records say.
        samples, train, heldout: sizes of the sets.
    """

    rows: Mapping[str, Score]
    columns: Mapping[str, Score]
    pairs: Mapping[tuple[str, str], Score]
    association: Mapping[tuple[str, str], tuple[float, float]]
    records: Records
    samples: int
    train: int
    heldout: int

    @property
    def near_copies(self) -> None:
        """Nothing: for tables the closest records say it."""
        return None

    @property
    def units(self) -> str:
        """The unit of distances, in a sentence."""
        return f"Distances of columns and pairs are shares, of 0 to 1. {AMONG_MANY}"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, fit for JSON; a list for the pairs."""
        told = plain({str(k): score for k, score in enumerate(self.pairs.values())})
        return {
            "rows": plain(self.rows),
            "columns": plain(self.columns),
            "pairs": [
                {"of": list(of), "association": list(self.association[of]), **told[str(k)]}
                for k, of in enumerate(self.pairs)
            ],
            "records": vars(self.records),
            "counts": {"samples": self.samples, "train": self.train, "heldout": self.heldout},
        }

    def sentences(self) -> list[str]:
        """What the scores mean, in sentences for any reader."""
        rows, said = self.rows, []
        if "trees" in rows:
            coin = "50 %: they cannot tell them apart" if rows["trees"].verdict == "matches" else "50 % would be a coin"
            said.append(
                f"Boosted trees rank a draw above a held-out row in {rows['trees'].value:.0%} of pairs ({coin})."
            )
        said += self.copied()
        for noun, scores in (("column", self.columns), ("pair of columns", self.pairs)):
            off = sorted((s for s in scores.items() if s[1].verdict == "differs"), key=lambda s: -s[1].value)
            names = [shown(of) if isinstance(of, str) else " with ".join(map(shown, of)) for of, _ in off[:3]]
            if names:
                more = f", and {len(off) - 3} more" if len(off) > 3 else ""
                said.append(f"Furthest from real, by {noun}: {', '.join(names)}{more}.")
        return said

    def copied(self) -> list[str]:
        """What the closest records say of copies, in sentences for any reader."""
        records = self.records
        return [
            f"{records.nearer:.1%} of the draws lie nearer to training rows than to as many held-out ones (honest: "
            f"50 ± {2 * records.nearer_spread:.1%}).",
            f"{records.copies_all:.2%} of the draws are a training row to the last digit; "
            f"{records.heldout_copies:.2%} of the held-out rows are. Of {records.rows:,} rows of either kind, "
            f"{records.copies:.2%} of the draws are a training one and {records.copies_heldout:.2%} a held-out one.",
        ]

    def table(self) -> str:
        """The report as plain text, one row per score, with the notes needed to read it."""
        return "\n".join(
            [
                *lines(self.rows),
                "",
                f"{self.samples:,} draws; real rows: {self.train:,} for training, {self.heldout:,} held out.",
                'The column "real data" is what real rows score in place of the draws.',
                *self.sentences(),
            ]
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Whatever the block computes, by one thread: see the module."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    before = torch.get_num_threads()
    with threadpool_limits(1):
        torch.set_num_threads(1)  # of MKL inside torch, which the other does not reach
        try:
            yield
        finally:
            torch.set_num_threads(before)


@_one_thread()
def table_report(
    samples: Tensor,
    train: Tensor,
    heldout: Tensor,
    words: Sequence[bool],
    generator: torch.Generator,
    *,
    names: Sequence[str] | None = None,
    targets: Sequence[int] | None = None,
    repeats: int = 20,
    most: int = 5000,
    progress: Callable[[str], None] | None = None,
) -> TableReport:
    """Every measure of a table, each beside its floor; see the module.

    Args:
        samples, train, heldout: (N, d), NaN for what is missing, numbers for words.
        words: which columns are words.
        generator: of all that is random.
        names: of the columns; by default numbers.
        targets: columns that are predicted; None for the last one and those that are most related to another.
        repeats: subsets of real rows for the floors of columns and pairs.
        most: rows of a set; for the closest records `MOST_RECORDS`.
        progress: called with the name of what is computed next.

    Raises:
        InputError: no tables; a set that is too small; no column with two values.
    """
    samples, train, heldout = tables(words, samples, train, heldout)
    names = [f"column {i}" for i in range(len(words))] if names is None else list(names)
    tell = progress or (lambda name: None)
    kept = [i for i in range(len(words)) if _varies(train[:, i])]
    if not kept:
        raise InputError("no column of the table has two values; there is nothing to measure.")
    if targets is not None and not set(targets) <= set(kept):
        raise InputError(f"targets={list(targets)!r} must be places of columns that have two values or more.")
    told = tuple(bool(words[i]) for i in kept)
    sets = made, seen, unseen = samples[:, kept], train[:, kept], heldout[:, kept]
    called = [names[i] for i in kept]

    rows: dict[str, Score] = {}
    judges: dict[str, Metric] = {"trees": TreeTest(told, rounds=_TREES), "network": NetworkTest(told, sets[1])}
    for name, metric in judges.items():
        if min(map(len, sets)) >= 40:  # fewer teach nothing
            tell(name)
            rows[name] = compare(metric, made, seen, unseen, generator, repeats=JUDGED, most=most)
    tell("columns")
    columns = _each(lambda x, y: columns_apart(x, y, told), sets, generator, repeats, most)
    rows["columns"] = columns[-1]
    pairs, of_pairs, association = {}, [], {}
    bins = Bins.of(sets[1], told)
    if len(kept) > 1:
        tell("pairs")
        i, j = torch.triu_indices(len(kept), len(kept), 1)
        of_pairs = _each(lambda x, y: bins.pairs_apart(x, y)[i, j], sets, generator, repeats, most)
        rows["pairs"] = of_pairs[-1]
        keys = [(called[a], called[b]) for a, b in zip(i.tolist(), j.tolist(), strict=True)]
        pairs = dict(zip(keys, of_pairs, strict=False))
        both = [bins.association(part)[i, j].tolist() for part in sets[:2]]
        association = dict(zip(keys, zip(*both, strict=True), strict=True))
        chosen = _targets(bins.association(sets[1]), sets[1]) if targets is None else [kept.index(t) for t in targets]
        for target in chosen:
            tell(f"predict {called[target]}")
            rows[f"predict {called[target]}"] = _taught(sets, target, told, generator, most)
    tell("closest records")
    records = closest_records(made, seen, unseen, told, generator)
    rows |= _of_records(records)
    return TableReport(rows, dict(zip(called, columns, strict=False)), pairs, association, records, *map(len, sets))


def _varies(column: Tensor) -> bool:
    known = column[~column.isnan()]
    return len(known) > 0 and (len(known) < len(column) or bool(known.min() < known.max()))


def _each(
    measure: Callable[[Tensor, Tensor], Tensor],
    sets: tuple[Tensor, ...],
    generator: torch.Generator,
    repeats: int,
    most: int,
) -> list[Score]:
    """The scores of a measure of many numbers, each beside its floor as in `compare`; the last one is of their mean."""
    samples, train, heldout = sets
    fixed = heldout[choose(len(heldout), most, generator, heldout)]
    size = min(len(samples), most, len(train) // 2)

    def found(rows: Tensor, times: int) -> Tensor:
        each = torch.stack([measure(rows[choose(len(rows), size, generator, rows)], fixed) for _ in range(times)])
        return torch.cat([each, each.mean(1, keepdim=True)], 1)

    values = found(samples, repeats if size < len(samples) else 1).mean(0)
    floors = found(train, repeats)
    spreads = floors.std(0) / math.sqrt(1 - size / len(train))
    scores: list[Score] = []
    for value, of_floor, spread in zip(values.tolist(), floors.T, spreads.tolist(), strict=True):
        floor = float(of_floor.square().mean().sqrt())
        over, wide = ratio(value, floor), (_MANY * spread if len(scores) < len(values) - 1 else spread)
        verdict = judge(value, float(of_floor.mean()), wide, over, False, Metric.close, Metric.words)
        scores.append(Score(value, floor, spread, over, verdict, size))
    return scores


def _targets(association: Tensor, train: Tensor) -> list[int]:
    """The last column, and those that another column tells most of, short of all: there is nothing to learn of those.

    Args:
        association: (d, d) of the columns of `train`, (N, d).
    """
    last, rows = len(association) - 1, train[:_LOOKED_AT].nan_to_num(nan=math.inf)
    codes = [column.unique(return_inverse=True)[1] for column in rows.T]
    order = association.clone().fill_diagonal_(0).amax(1).argsort(descending=True, stable=True).tolist()
    free = (i for i in [last, *(i for i in order if i != last)] if not _is_determined(i, codes))
    return list(islice(free, TARGETS)) or [last]


def _is_determined(column: int, codes: Sequence[Tensor]) -> bool:
    """Whether another column, of which many values repeat, has the same value of this one wherever it repeats.

    Args:
        codes: (N,) of each column, its values numbered from 0.
    """
    mine, classes = codes[column], int(codes[column].max()) + 1
    for i, other in enumerate(codes):
        different = int(other.max()) + 1
        if i == column or len(other) - different < _REPEATED * len(other):
            continue
        if len((other * classes + mine).unique()) == different:
            return True
    return False


def _taught(
    sets: tuple[Tensor, ...], target: int, words: Sequence[bool], generator: torch.Generator, most: int
) -> Score:
    """What draws teach of a column, beside what as many real rows do."""
    samples, train, heldout = sets
    size, common = min(len(samples), most, len(train) // 2), commonest(train[:, target])
    held = heldout[choose(len(heldout), most, generator, heldout)]

    def taught(rows: Tensor) -> float:
        some = rows[choose(len(rows), size, generator, rows)]
        seed = int(torch.randint(2**31, (1,), generator=generator))
        return predicts(some, held, target, words, seed, common, _TREES)

    value = taught(samples)
    floors = torch.tensor([taught(train) for _ in range(TAUGHT)], dtype=torch.float64)
    spread = float(floors.std()) / math.sqrt(1 - size / len(train))
    floor = float(floors.mean())
    over, wide = ratio(value, floor), _MANY * spread
    return Score(value, floor, spread, over, judge(value, floor, wide, over, True, 0.95, Metric.words), size,
                 "AUC" if words[target] else "R2")  # fmt: skip


def _of_records(found: Records) -> dict[str, Score]:
    """The rows of the closest records."""
    noise = math.sqrt((found.copies + found.copies_heldout) / found.draws)  # of two rates, by Poisson's law
    told = {
        "closest record": (found.nearer, 0.5, found.nearer_spread),
        "membership": (found.membership, 0.5, found.membership_spread),
        "copies": (found.copies, found.copies_heldout, noise),
    }
    return {
        name: Score(
            value, floor, spread, ratio(value, floor),
            judge(value, floor, spread, ratio(value, floor), False, _CLOSE, Memorisation.words),
            found.draws,
        )
        for name, (value, floor, spread) in told.items()
    }  # fmt: skip
