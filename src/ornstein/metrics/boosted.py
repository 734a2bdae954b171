"""Judges of tables that learn: can they tell draws from real rows, and do draws teach them what real rows do?

**Two samples.** Label the rows of x with 1 and those of y with 0, train boosted trees on some, and let them rank the
others: the area under the ROC curve (AUC) is the chance that a row of x is ranked above one of y. 0.5 means that the
judge found nothing, 1 that it is never wrong. Trees take columns as they are, with words, numbers and holes, and find
what no distance of a column or a pair shows: a room count that does not fit its price. The theory is in
`ornstein.metrics.classifier_test`; below 0.5 beyond the noise points to copies.

The codes of words are made from *both* sets together. If they came from one set, a word of the other alone would become
a hole or an error, which would give the answer away, or hide it.

**Train on draws, test on real rows.** A model of one column given all others is trained on draws, another on as many
real rows, and both are tested on the held-out rows: this is what the draws are worth for prediction. The score for
words is the AUC, each word against all others, averaged over the held-out rows' words; for numbers it is R2.

References: Lopez-Paz, Oquab (2017, arXiv:1610.06545); Esteban, Hyland, Rätsch (2017, arXiv:1706.02633).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from ornstein.errors import InputError
from ornstein.metrics.classifier_test import C2ST
from ornstein.metrics.margins import tables
from ornstein.metrics.metric import Metric, choose
from ornstein.metrics.records import auc
from ornstein.metrics.ruler import Ruler

#: words of a column that trees tell apart, and that a network is shown; words of a target that are predicted
TREE_WORDS, NETWORK_WORDS, TARGET_WORDS = 250, 40, 5
#: of boosting, where nothing else is said
ROUNDS = 100


@final
@dataclass(frozen=True)
class TreeTest(Metric):
    """Cross-validated AUC of boosted trees that tell draws from real rows of a table (0.5 = cannot, 1 = always).

    Args:
        categories: which columns are words.
        folds: of the cross-validation, at least 2.
        rounds: of boosting, a tree each.

    The larger set is cut, at random, to the size of the smaller one.
    """

    categories: tuple[bool, ...]
    folds: int = 5
    rounds: int = ROUNDS
    close: ClassVar[float] = 1.1

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        x, y = tables(self.categories, x, y)
        count = min(len(x), len(y))
        if count < 2 * self.folds:
            raise InputError(f"folds={self.folds} needs at least {2 * self.folds} rows a set; given {count}.")
        x, y = (part[choose(len(part), count, generator, part)] for part in (x, y))
        rows = _coded(torch.cat([x, y]), self.categories, TREE_WORDS).numpy()
        label = np.repeat([1, 0], count)
        fold = np.tile(np.arange(count) % self.folds, 2)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        found = []
        for out in (fold == f for f in range(self.folds)):
            judge = _trees(self.categories, seed, True, self.rounds).fit(rows[~out], label[~out])
            score = torch.from_numpy(judge.decision_function(rows[out]))
            found.append(auc(score[label[out] == 1], score[label[out] == 0]))
        return float(np.mean(found))


@final
@dataclass(frozen=True, eq=False)
class NetworkTest(Metric):
    """Cross-validated AUC of a small network that tells draws from real rows of a table (0.5 = cannot, 1 = always).

    Args:
        categories: which columns are words.
        known: training rows (N, d), by which values become marks; see `Ruler.marks`.

    It sees a mark for each common word, what is missing, and the value, rank and atoms of numbers.
    """

    categories: tuple[bool, ...]
    known: Tensor
    close: ClassVar[float] = 1.1

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        x, y = tables(self.categories, x, y)
        shown = self.marks(torch.cat([x, y]))
        positive, negative = C2ST().scores(shown[: len(x)], shown[len(x) :], generator)
        return auc(positive.double(), negative.double())

    def marks(self, rows: Tensor) -> Tensor:
        """What the network sees of rows (N, d): (N, K) float32."""
        shown = []
        for column, known, word in zip(rows.T, self.known.double().cpu().T, self.categories, strict=True):
            missing = column.isnan()
            told = known[~known.isnan()]
            if bool(missing.any()):
                shown.append(missing.double()[:, None])
            if word:
                found, counts = told.unique(return_counts=True)
                most = found[counts.argsort(descending=True, stable=True)[:NETWORK_WORDS]]
                shown += [(column[:, None] == most).double(), ~torch.isin(column, most)[:, None] & ~missing[:, None]]
            elif len(told) > 1:
                filled = torch.where(missing, told.median(), column)[:, None]
                shown.append(Ruler.of(told[:, None]).marks(filled))
        if not shown:
            raise InputError("no column of the table has two values; there is nothing to tell it by.")
        return torch.cat([part.float() for part in shown], 1)


def predicts(
    rows: Tensor,
    heldout: Tensor,
    target: int,
    words: Sequence[bool],
    seed: int,
    common: Tensor | None = None,
    rounds: int = ROUNDS,
) -> float:
    """How well one column of `heldout` (M, d) is predicted from all others by trees trained on `rows` (N, d).

    Args:
        target: which column.
        words: which columns are words.
        seed: of the trees.
        common: the target's words that are distinguished, up to `TARGET_WORDS`; None for the commonest of `heldout`.
        rounds: of boosting.

    Returns:
        AUC for words, in [0, 1], where 0.5 is no better than a guess; R2 for numbers, at most 1, where 0 is no better
        than their mean. Rows whose target is missing are left out.
    """
    rows, heldout = tables(words, rows, heldout)
    rows, heldout = (part[~part[:, target].isnan()] for part in (rows, heldout))
    is_word = words[target]
    none = 0.5 if is_word else 0.0
    if len(rows) < 10 or len(heldout) < 2:
        return none
    others = [i for i in range(len(words)) if i != target]
    kinds = [words[i] for i in others]
    both = _coded(torch.cat([rows[:, others], heldout[:, others]]), kinds, TREE_WORDS).numpy()
    x, x_held = both[: len(rows)], both[len(rows) :]
    y, y_held = rows[:, target], heldout[:, target]
    if not is_word:
        if y.min() == y.max() or y_held.min() == y_held.max():
            return none
        guessed = torch.from_numpy(_trees(kinds, seed, False, rounds).fit(x, y.numpy()).predict(x_held))
        return 1 - float((y_held - guessed).square().sum() / (y_held - y_held.mean()).square().sum())
    common = commonest(heldout[:, target]) if common is None else common
    y, y_held = (_place(part, common) for part in (y, y_held))
    told = [int(c) for c in y.unique()]
    if len(told) < 2:
        return none
    judge = _trees(kinds, seed, True, rounds).fit(x, y.numpy())
    chances = torch.from_numpy(judge.predict_proba(x_held))
    total, found = 0.0, 0.0
    for c in y_held.unique().tolist():
        mine = y_held == c
        if mine.all():
            continue
        # a word that is in no draw is not learnt
        each = auc(chances[mine, told.index(c)], chances[~mine, told.index(c)]) if c in told else 0.5
        total, found = total + int(mine.sum()), found + int(mine.sum()) * each
    return found / total if total else none


def commonest(column: Tensor, most: int = TARGET_WORDS) -> Tensor:
    """The commonest words of a column (N,), NaN aside: (K,), the commonest first."""
    found, counts = column[~column.isnan()].unique(return_counts=True)
    first: Tensor = found[counts.argsort(descending=True, stable=True)[:most]]
    return first


def _place(column: Tensor, common: Tensor) -> Tensor:
    """The place of each word among `common` (K,), K for all others: (N,) int64."""
    same = column[:, None] == common
    place: Tensor = torch.where(same.any(1), same.long().argmax(1), len(common))
    return place


def _coded(rows: Tensor, words: Sequence[bool], most: int) -> Tensor:
    """Rows (N, d) with words numbered 0, 1, ... from the commonest on, those beyond `most` as one."""
    coded = rows.clone()
    for i in (i for i, word in enumerate(words) if word):
        _, which, counts = rows[:, i].nan_to_num(nan=-1.0).unique(return_inverse=True, return_counts=True)
        place = counts.argsort(descending=True, stable=True).argsort().clamp(max=most)
        coded[:, i] = torch.where(rows[:, i].isnan(), torch.nan, place[which].double())
    return coded


def _trees(words: Sequence[bool], seed: int, classes: bool, rounds: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    of: Any = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    marked = np.array(list(words), bool)
    return of(max_iter=rounds, random_state=seed, categorical_features=marked if marked.any() else None)
