"""Records of a table: whether draws repeat the rows that a model was trained on.

The distance of two rows is a sum over columns: for words 0 or 1, equal or not; for numbers the difference of their
ranks among the training rows, in [0, 1], which depends on no unit and no tail; 1 if one of the two is missing.

**The closest record.** An honest model knows nothing about the training rows that does not also hold for held-out rows.
So among equally many rows of both kinds, the row nearest to a draw is of either kind with probability 1/2 (ties count
a half). Above a half, draws lie where the *training rows* happen to lie. The numbers must be equal, since with more
rows some lie nearer by chance. The spread of the share follows from the two kinds being exchangeable: with w_j the
share of the draws that lie nearest to row j of all, its variance is sum w_j^2 / 4.

**Copies.** The share of draws that are a training row to the last digit, beside the share that are one of as many
held-out rows. (The share of held-out rows that are training rows would say the same, but not if the split put copies
in the data on one side.)

**Membership.** The same question the other way round: can someone who holds a person's record, and sees the draws,
tell whether the record was trained on? They guess by the distance to the nearest draw; 0.5 is no better than a coin.

References: Meehan, Chaudhuri, Dasgupta (2020, arXiv:2004.05675); Chen et al., "GAN-Leaks" (2020, arXiv:1909.03935);
Platzer, Reutterer, "Holdout-based empirical assessment of mixed-type synthetic data" (2021, arXiv:2104.00635).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ornstein.errors import InputError
from ornstein.metrics.margins import tables
from ornstein.metrics.metric import choose
from ornstein.metrics.neighbours import row_blocks

#: rows of either kind, and draws, that are laid out at most: all pairs of them are looked at
MOST_RECORDS = 10_000


@final
@dataclass(frozen=True)
class Records:
    """What the closest records say of draws: made by `closest_records`.

    `nearer`: share of the draws that lie nearer to training rows than to as many held-out ones, ties a half, and
    `nearer_spread`, its standard deviation for an honest model, which has 0.5. `copies`, `copies_heldout`: shares of
    the draws that are one of these training rows, and one of the held-out ones. `copies_all`: share of the draws that
    are any training row. `heldout_copies`: share of the held-out rows that are. `membership`: AUC of the guess, and
    `membership_spread` that of an honest model, which has 0.5. `rows`: of either kind; `draws`.
    """

    nearer: float
    nearer_spread: float
    copies: float
    copies_heldout: float
    copies_all: float
    heldout_copies: float
    membership: float
    membership_spread: float
    rows: int
    draws: int


def closest_records(
    samples: Tensor,
    train: Tensor,
    heldout: Tensor,
    words: Sequence[bool],
    generator: torch.Generator,
    *,
    most: int = MOST_RECORDS,
) -> Records:
    """Draws beside as many training as held-out rows: see the module.

    Args:
        samples, train, heldout: (N, d) with NaN for what is missing.
        words: which columns are words.
        generator: chooses rows.
        most: how many rows of either kind, and draws, to use.
    """
    samples, train, heldout = tables(words, samples, train, heldout)
    count = min(len(train), len(heldout), most)
    if count < 2:
        raise InputError(f"there are {count} training or held-out rows; at least 2 of either are needed.")
    seen, unseen = (part[choose(len(part), count, generator, part)] for part in (train, heldout))
    draws = samples[choose(len(samples), most, generator, samples)]

    ruler = _Ruler(train, words)
    pool = ruler.told(torch.cat([seen, unseen]))
    nearest_draw = torch.full((2 * count,), math.inf)
    nearer, hits = [], torch.zeros(2 * count)
    for _, rows in row_blocks(ruler.told(draws), len(pool)):
        distance = ruler.distances(rows, pool)
        nearest_draw = torch.minimum(nearest_draw, distance.amin(0))
        to_seen, to_unseen = distance[:, :count].amin(1), distance[:, count:].amin(1)
        nearer.append(torch.where(to_seen == to_unseen, 0.5, (to_seen < to_unseen).double()))
        at_best = distance == torch.minimum(to_seen, to_unseen)[:, None]
        hits += (at_best / at_best.sum(1, keepdim=True)).sum(0)
    weights = (hits / len(draws)).double()

    return Records(
        nearer=float(torch.cat(nearer).mean()),
        nearer_spread=math.sqrt(float(weights.square().sum()) / 4),
        copies=among(draws, seen),
        copies_heldout=among(draws, unseen),
        copies_all=among(samples, train),
        heldout_copies=among(heldout, train),
        membership=auc(-nearest_draw[:count], -nearest_draw[count:]),
        membership_spread=math.sqrt((2 * count + 1) / (12 * count * count)),
        rows=count,
        draws=len(draws),
    )


def among(x: Tensor, y: Tensor) -> float:
    """The share of the rows of x (N, d) that are a row of y (M, d) to the last digit, NaN being equal to NaN."""
    both = torch.cat([x, y]) + 0.0  # -0.0 is 0.0
    bits = torch.where(both.isnan(), torch.nan, both).view(torch.int64)
    _, which = bits.unique(dim=0, return_inverse=True)
    return float(torch.isin(which[: len(x)], which[len(x) :]).double().mean())


def auc(positive: Tensor, negative: Tensor) -> float:
    """The chance that a score of `positive` (N,) is above one of `negative` (M,), equal ones a half."""
    rising = negative.sort().values
    below = torch.searchsorted(rising, positive) + torch.searchsorted(rising, positive, right=True)
    return float(below.double().mean() / (2 * len(negative)))


class _Ruler:
    """The distance of rows: see the module."""

    def __init__(self, train: Tensor, words: Sequence[bool]) -> None:
        self.words = words
        self.known = [column[~column.isnan()].sort().values for column in train.T]

    def told(self, x: Tensor) -> Tensor:
        """Numbers as ranks in [0, 1], words as they are: (N, d) float32, NaN where missing."""
        made = []
        for column, known, word in zip(x.T, self.known, self.words, strict=True):
            if word or not len(known):
                made.append(column)
                continue
            values = column.contiguous()
            rank = torch.searchsorted(known, values) + torch.searchsorted(known, values, right=True)
            made.append(torch.where(column.isnan(), torch.nan, rank.double() / (2 * len(known))))
        return torch.stack(made, 1).float()

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) of what `told` gives; in blocks of rows, see `row_blocks`."""
        total = torch.zeros(len(x), len(y))
        for i, word in enumerate(self.words):
            a, b = x[:, i, None], y[None, :, i]
            # what is missing lies at a place of its own, 1 from all others
            a, b = a.nan_to_num(nan=-1.0), b.nan_to_num(nan=-1.0)
            total += (a != b) if word else (a - b).abs_() if not _holes(a, b) else _gapped(a, b)
        return total


def _holes(a: Tensor, b: Tensor) -> bool:
    return bool((a < 0).any()) or bool((b < 0).any())


def _gapped(a: Tensor, b: Tensor) -> Tensor:
    """Differences of ranks, 1 where one of the two is missing, which is -1 here."""
    return torch.where((a < 0) != (b < 0), 1.0, (a - b).abs())
