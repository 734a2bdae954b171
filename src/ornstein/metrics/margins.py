"""Columns and pairs of columns of tables: how far two tables' shares and relations lie apart, whatever the columns are.

A table is (N, d) float64 with NaN for what is missing; in a column of words the numbers are only names.

**A column.** Between words, the total variation of their shares, half of sum |p_k - q_k|: the share of rows that would
have to change. Between numbers, the Kolmogorov-Smirnov distance, the largest difference of the distribution functions
(no unit, no bin, and no tail decides it). A missing cell is a word like others, and above all numbers.

**A pair.** Let p_ij be the shares of a contingency table and p_i, p_j those of its margins. What relates the columns is
what the margins do not explain,

    r_ij = (p_ij - p_i p_j) / sqrt(p_i p_j),        V^2 = sum r_ij^2 / (min(K, L) - 1),

V being *Cramér's*: 0 for independent columns, 1 if one determines the other, and the same for words and for numbers
in bins of equally many rows. It detects any relation, not only a rising one. Two tables are compared by the V of
the difference of their r (with the margins' mean below the root), which is V itself if one of the two has no relation,
and which, unlike a difference of the V, sees a relation that is reversed.

With few rows V comes out too large, by an amount that is subtracted here (Bergsma 2013). The distances are not
corrected: like those of columns they are read beside their floor.

References: Cramér, "Mathematical methods of statistics" (1946); Bergsma, "A bias-correction for Cramér's V and
Tschuprow's T" (2013).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ornstein.errors import InputError

#: bins of numbers, and words that are told apart, in the tables of pairs
BINS, WORDS = 8, 12


def tables(words: Sequence[bool], *sets: Tensor) -> tuple[Tensor, ...]:
    """The sets as float64 on the CPU, each (N, d) with d columns, of which `words` says which are words.

    Raises:
        InputError: another shape, infinite values, or words that are no whole numbers from 0 on.
    """
    made = []
    for x in sets:
        if x.ndim != 2 or x.shape[1] != len(words) or len(x) < 1:
            raise InputError(f"a table of {len(words)} columns has shape (N, {len(words)}); given {tuple(x.shape)}.")
        x = x.detach().double().cpu()
        if x.isinf().any():
            raise InputError("a table has infinite values; it takes finite ones, and NaN for what is missing.")
        named = x[:, list(words)].nan_to_num()
        if bool((named < 0).any()) or bool((named != named.round()).any()):
            raise InputError("the numbers of words must be whole and not negative.")
        made.append(x)
    return tuple(made)


def shares_apart(x: Tensor, y: Tensor) -> float:
    """Total variation between the shares of the words in x (N,) and y (M,), NaN being a word: in [0, 1]."""
    both = torch.cat([x, y])
    found, which = torch.where(both.isnan(), -1.0, both).unique(return_inverse=True)
    p, q = (part.bincount(minlength=len(found)).double() / len(part) for part in (which[: len(x)], which[len(x) :]))
    return float((p - q).abs().sum() / 2)


def numbers_apart(x: Tensor, y: Tensor) -> float:
    """Kolmogorov-Smirnov distance between the numbers x (N,) and y (M,), NaN being above all: in [0, 1]."""
    told = [part[~part.isnan()].sort().values for part in (x, y)]
    places = torch.cat(told)
    if not len(places):
        return 0.0
    p, q = (torch.searchsorted(part, places, right=True).double() / len(whole)
            for part, whole in zip(told, (x, y), strict=True))  # fmt: skip
    return float((p - q).abs().max())


def columns_apart(x: Tensor, y: Tensor, words: Sequence[bool]) -> Tensor:
    """The distance of each column of the tables x (N, d) and y (M, d): (d,) float64, in [0, 1]."""
    each = [(shares_apart if word else numbers_apart)(x[:, i], y[:, i]) for i, word in enumerate(words)]
    return torch.tensor(each, dtype=torch.float64)


@final
@dataclass(frozen=True, eq=False)
class Bins:
    """The bins that cells lie in: made by `Bins.of` from training data.

    Attributes:
        words: which columns are words.
        ends: for each column of numbers the upper ends of its bins but the last; for one of words those that are
            distinguished; both rising. float64.
    """

    words: tuple[bool, ...]
    ends: tuple[Tensor, ...]

    @staticmethod
    def of(train: Tensor, words: Sequence[bool], bins: int = BINS, most: int = WORDS) -> "Bins":
        """Bins of equally many rows of a table (N, d), and its `most` commonest words."""
        ends = []
        for column, word in zip(train.T, words, strict=True):
            known = column[~column.isnan()].sort().values
            if word:
                found, counts = known.unique(return_counts=True)
                ends.append(found[counts.argsort(descending=True, stable=True)[:most]].sort().values)
            else:
                inner = (torch.arange(1, bins) * len(known)) // bins
                ends.append(known[inner].unique() if len(known) else known)
        return Bins(tuple(words), tuple(ends))

    @property
    def sizes(self) -> list[int]:
        """How many bins each column has, the one of missing cells and that of all other words among them."""
        return [len(ends) + 2 for ends in self.ends]

    def codes(self, x: Tensor) -> Tensor:
        """The bins of the cells of a table (N, d): (N, d) int64; the last of a column is that of missing cells."""
        made = []
        for column, ends, word, size in zip(x.T, self.ends, self.words, self.sizes, strict=True):
            code = torch.searchsorted(ends, column.nan_to_num().contiguous())
            if word and len(ends):
                code = torch.where(ends[code.clamp(max=len(ends) - 1)] == column, code, len(ends))
            made.append(torch.where(column.isnan(), size - 1, code))
        return torch.stack(made, 1)

    def _joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(shares of pairs of bins less those of their margins, shares of bins), for all bins of all columns."""
        starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(0)
        one_hot = torch.zeros(len(x), sum(self.sizes), dtype=torch.float64).scatter_(1, self.codes(x) + starts, 1.0)
        shares = one_hot.mean(0)
        return one_hot.T @ one_hot / len(x) - shares[:, None] * shares, shares

    def _summed(self, of_bins: Tensor) -> Tensor:
        """What is told of pairs of bins, summed over those of each pair of columns: (d, d)."""
        owner = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        rows = torch.zeros(len(self.sizes), of_bins.shape[1], dtype=torch.float64).index_add_(0, owner, of_bins)
        return torch.zeros(len(self.sizes), len(self.sizes), dtype=torch.float64).index_add_(1, owner, rows)

    def association(self, x: Tensor) -> Tensor:
        """Cramér's V of each pair of columns of a table (N, d), corrected for few rows: (d, d) in [0, 1]."""
        excess, shares = self._joint(x)
        met = shares > 0
        phi = self._summed(torch.where(met[:, None] & met, excess.square() / (shares[:, None] * shares), 0.0))
        filled = self._levels(met)
        spare = (filled - 1) / max(len(x) - 1, 1)
        levels = filled - spare * (filled - 1)
        phi = (phi - spare[:, None] * (filled - 1)).clamp(min=0)
        room = torch.minimum(levels[:, None], levels) - 1
        return torch.where(room > 0, phi / room.clamp(min=1e-12), 0.0).sqrt().clamp(max=1)

    def pairs_apart(self, x: Tensor, y: Tensor) -> Tensor:
        """How far the relations of the tables x (N, d) and y (M, d) lie apart, pair by pair: (d, d), see the module."""
        (excess, shares), (other, of_other) = self._joint(x), self._joint(y)
        middle = (shares + of_other) / 2
        met = middle > 0
        phi = self._summed(torch.where(met[:, None] & met, (excess - other).square() / (middle[:, None] * middle), 0.0))
        filled = self._levels(met)
        return (phi / (torch.minimum(filled[:, None], filled) - 1).clamp(min=1)).sqrt()

    def _levels(self, met: Tensor) -> Tensor:
        """How many bins of each column have rows: (d,) float64."""
        return torch.stack([part.sum() for part in met.split(self.sizes)]).double()


def related(x: Tensor, words: Sequence[bool], most: int = 3) -> list[tuple[int, int, float]]:
    """The pairs of columns of a table (N, d) that are most related: (i, j, Cramér's V), strongest first."""
    (x,) = tables(words, x)
    found = Bins.of(x, words).association(x)
    i, j = torch.triu_indices(len(words), len(words), 1)
    chosen = found[i, j].argsort(descending=True, stable=True)[:most]
    return [(int(i[k]), int(j[k]), float(found[i[k], j[k]])) for k in chosen]
