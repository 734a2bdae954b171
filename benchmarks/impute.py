"""How well holes in tables are filled: ornstein beside common methods, by the distribution each gives for a hole.

    export ORNSTEIN_DATA=...
    OMP_NUM_THREADS=1 python benchmarks/impute.py --only mean,marginal,neighbours,iterative,forest
    OMP_NUM_THREADS=1 python benchmarks/impute.py --only ornstein,itself --minutes 8
    python benchmarks/impute.py --plot

A fifth of the cells of `--rows` held-out rows are taken out independently at random. Each method learns from the
training rows alone and gives 19 draws of every hole:

- *mean*: the mean, or the most frequent word, 19 times;
- *marginal*: values of training rows at random;
- *neighbours*: the values of the 19 training rows that are nearest by the known cells (words equal or not,
  numbers in standard deviations), among rows with a value in that column;
- *iterative*: scikit-learn's `IterativeImputer` with Bayesian ridge regression and draws from its posterior, words as
  numbers, rounded to a word;
- *forest*: missForest's loop (Stekhoven, Buehlmann 2012) over forests of 20 trees a column, but with draws: a leaf's
  real values at random; two rounds for each draw's rows;
- *ornstein*: as `ornstein impute` does;
- *itself*: ornstein again, but of rows that the same run drew: what a model that is right about its rows reaches.

*CRPS* from draws X_k of a truth y is E|X - y| - E|X - X'|/2, unbiased for 19 draws. For numbers |.| is the distance in
standard deviations of the training column; for words it is 0 or 1, which makes it half the Brier score. It is averaged
over all holes, and given for numbers and words apart. A single value is scored by its distance. *Coverage* is how often
the true number lies within the range of the 19 draws: 90 % for draws from the true distribution. (Quantiles of 20
draws would cover 81 %.) That is true of numbers that are never equal; of others, such as zeros and whole numbers, the
range covers more, since a truth that equals the range's end counts as covered. *Ranked* is 90 % for both: a truth equal
to some draws may take any place among them, each equally likely, and is covered unless that place is the first or last
of the 20. Rows of figures go to impute.json.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import tabular
from tabular import Array

RESULTS = Path(__file__).with_name("impute.json")
DRAWS, TAKEN = 19, 0.2


def holed(rows: tabular.Rows, most: int, seed: int) -> tuple[Array, Array]:
    """(held-out rows, the same with holes): what was missing before is no hole."""
    dice = np.random.default_rng(seed)
    whole = rows.test[dice.permutation(len(rows.test))[:most]]
    out = (dice.random(whole.shape) < TAKEN) & ~np.isnan(whole)
    return whole, np.where(out, np.nan, whole)


def scores(drawn: Array, whole: Array, given: Array, rows: tabular.Rows) -> dict[str, float]:
    """CRPS and coverage of draws (19, N, d)."""
    out = np.isnan(given) & ~np.isnan(whole)
    words, unit = np.array(rows.words), np.nanstd(rows.train, 0)
    parts: dict[str, list[Array]] = {"words": [], "numbers": [], "covered": [], "ranked": []}
    for j in range(whole.shape[1]):
        x, y = drawn[:, out[:, j], j], whole[out[:, j], j]
        if np.isnan(x).any():
            raise ValueError(f"column {rows.names[j]}: a hole was left open")
        if not len(y) or (not words[j] and unit[j] == 0):
            continue
        if words[j]:
            off, apart = (x != y).mean(0), (x[:, None] != x[None]).sum((0, 1))
        else:
            off, apart = np.abs(x - y).mean(0) / unit[j], np.abs(x[:, None] - x[None]).sum((0, 1)) / unit[j]
            slack = 1e-9 * unit[j]
            parts["covered"].append((x.min(0) - slack <= y) & (y <= x.max(0) + slack))
            below, above = (x < y - slack).sum(0), (x > y + slack).sum(0)
            parts["ranked"].append(1 - ((below == 0) * 1.0 + (above == 0)) / (1 + DRAWS - below - above))
        parts["words" if words[j] else "numbers"].append(off - apart / (2 * DRAWS * (DRAWS - 1)))
    each = {name: np.concatenate(found) for name, found in parts.items() if found}
    return {
        "crps": float(np.concatenate([each[name] for name in ("words", "numbers") if name in each]).mean()),
        **{name: float(found.mean()) for name, found in each.items()},
    }


def _mean(rows: tabular.Rows, given: Array, seed: int) -> Array:
    found = given.copy()
    for j, word in enumerate(rows.words):
        known = rows.train[~np.isnan(rows.train[:, j]), j]
        value = np.bincount(known.astype(int)).argmax() if word else known.mean()
        found[np.isnan(given[:, j]), j] = value
    return np.repeat(found[None], DRAWS, 0)


def _marginal(rows: tabular.Rows, given: Array, seed: int) -> Array:
    dice = np.random.default_rng(seed)
    found = np.repeat(given[None], DRAWS, 0)
    for j in range(given.shape[1]):
        known = rows.train[~np.isnan(rows.train[:, j]), j]
        gone = np.isnan(found[:, :, j])
        found[gone, j] = dice.choice(known, gone.sum())
    return found


def _neighbours(rows: tabular.Rows, given: Array, seed: int) -> Array:
    found, unit = np.repeat(given[None], DRAWS, 0), np.nanstd(rows.train, 0)
    for i, row in enumerate(given):
        distance = np.zeros(len(rows.train))
        for j in np.flatnonzero(~np.isnan(row)):
            off = rows.train[:, j] != row[j] if rows.words[j] else np.abs(rows.train[:, j] - row[j]) / (unit[j] or 1.0)
            distance += np.where(np.isnan(off), 1.0, off)
        order = np.argsort(distance)
        for j in np.flatnonzero(np.isnan(row)):
            known = rows.train[order, j]
            found[:, i, j] = known[~np.isnan(known)][:DRAWS]
    return found


def _iterative(rows: tabular.Rows, given: Array, seed: int) -> Array:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    centre, unit = np.nanmean(rows.train, 0), np.where(np.nanstd(rows.train, 0) > 0, np.nanstd(rows.train, 0), 1)
    low, high = np.nanmin(rows.train, 0), np.nanmax(rows.train, 0)
    found = []
    made = IterativeImputer(sample_posterior=True, random_state=seed, max_iter=5).fit((rows.train - centre) / unit)
    for _ in range(DRAWS):  # each goes on with the same generator
        drawn = (made.transform((given - centre) / unit) * unit + centre).clip(low, high)
        drawn[:, rows.words] = drawn[:, rows.words].round()
        found.append(np.where(np.isnan(given), rows.rounded(drawn), given))
    return np.stack(found)


def _forest(rows: tabular.Rows, given: Array, seed: int) -> Array:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    dice = np.random.default_rng(seed)
    drawn, gone = _marginal(rows, given, seed), np.isnan(given)
    train = rows.train[:10_000]
    forests = []
    for j, word in enumerate(rows.words):
        known = ~np.isnan(train[:, j])
        make = RandomForestClassifier if word else RandomForestRegressor
        others = np.delete(train, j, 1)[known]
        forest = make(20, min_samples_leaf=3, max_features=0.5, random_state=seed).fit(others, train[known, j])
        forests.append((forest, forest.apply(others), train[known, j]))
    for _ in range(2):
        for j, (forest, leaves, values) in enumerate(forests):
            holes = np.flatnonzero(gone[:, j])
            if not len(holes):
                continue
            for k in range(DRAWS):
                t = k % leaves.shape[1]
                order = np.argsort(leaves[:, t], kind="stable")
                asked = forest.estimators_[t].apply(np.delete(drawn[k, holes], j, 1).astype(np.float32))
                ends = (np.searchsorted(leaves[order, t], asked, side) for side in ("left", "right"))
                first, last = ends
                drawn[k, holes, j] = values[order[first + (dice.random(len(holes)) * (last - first)).astype(int)]]
    return drawn


#: name -> (rows, held-out rows with holes, seed) -> draws (19, N, d)
WAYS: dict[str, Callable[[tabular.Rows, Array, int], Array]] = {
    "mean": _mean,
    "marginal": _marginal,
    "neighbours": _neighbours,
    "iterative": _iterative,
    "forest": _forest,
}


def one(name: str, rows: tabular.Rows, seed: int, asked: Any, work: Path) -> dict[str, float]:
    """The figures of a way on a table."""
    if name in ("ornstein", "itself"):
        import torch

        from ornstein.experiment.cells import impute

        run, seconds = tabular.ours(rows, asked.minutes, seed, work, asked.runs, asked.set)
        if name == "itself":
            rows = dataclasses.replace(rows, test=run.sample(asked.rows, seed=seed).numpy())
        whole, given = holed(rows, asked.rows, seed)
        began = time.process_time()
        drawn = impute(run, torch.from_numpy(given), draws=DRAWS, seed=seed).numpy()
    else:
        whole, given = holed(rows, asked.rows, seed)
        seconds, began = 0.0, time.process_time()
        drawn = WAYS[name](rows, given, seed)
    seconds += time.process_time() - began
    return {**scores(drawn, whole, given, rows), "seconds": seconds}


def said(found: dict[str, Any]) -> str:
    """The figures as one table: means over seeds, and half of their range."""
    lines = [common.heading("table", "way", "CRPS", "numbers", "words", "covered (90 %)", "ranked (90 %)",
                            "CPU s", "seeds", words=2)]  # fmt: skip
    by_crps = sorted(found.items(), key=lambda item: np.mean([row["crps"] for row in item[1].values()]))
    for table in sorted(tabular.TARGETS):
        for key, by_seed in by_crps:
            name = key.partition("/")[2]
            if key.partition("/")[0] != table:
                continue
            seen = list(by_seed.values())
            told = [tabular.spread(row.get(key, np.nan) for row in seen) for key in ("crps", "numbers", "words")]
            for judge in ("covered", "ranked"):
                covers = all(judge in row for row in seen) and name != "mean"  # one value has no range
                told.append(tabular.spread((row[judge] for row in seen), ".1%") if covers else "")
            seconds = f"{np.mean([row['seconds'] for row in seen]):.0f}"
            lines.append(common.row(table, tabular.CALLED.get(name, name), *told, seconds, len(seen)))
    return "\n".join(lines)


def main() -> None:
    parser = tabular.arguments(__doc__, "a hundred rows of one table")
    parser.add_argument("--only", default=",".join([*WAYS, "ornstein", "itself"]), help="ways, of those above")
    parser.add_argument("--rows", type=int, default=1000, help="held-out rows with holes")
    asked = parser.parse_args()
    if asked.quick:
        asked.tables, asked.minutes, asked.seeds, asked.rows = "weather", 0.02, 1, 60
    print(said(tabular.gathered(asked, RESULTS, 300, one)))


if __name__ == "__main__":
    main()
