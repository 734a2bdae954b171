"""How well odd rows of tables are found: ornstein beside common methods.

    export ORNSTEIN_DATA=...
    OMP_NUM_THREADS=1 python benchmarks/odd.py --minutes 8
    python benchmarks/odd.py --plot                 # the table again, from rows already measured

In every second of 2,000 held-out rows one cell, of a column drawn at random, is replaced by that of another row (a
cell that differs): each value is common, and only the combination is odd. Each method learns from the training rows
alone and scores all of the held-out rows; the figure is the AUROC, 0.5 by chance.

- *ornstein, bound*: minus the bound on a row's log-probability, by which `ornstein loglik` ranks;
- *ornstein, cells*: the largest of a row's excess surprises, which `--explain` names;
- *forest*: scikit-learn's isolation forest of 300 trees; *mahalanobis*: the distance under the training rows'
  covariance. Both get words as one-hot vectors, numbers in standard deviations, and medians for missing values.

*Named*: how often the replaced column is the first that `--explain` names, among the rows that have one.
"""

import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import tabular
from tabular import Array

RESULTS = Path(__file__).with_name("odd.json")


def swapped(rows: tabular.Rows, most: int, seed: int) -> tuple[Array, Array]:
    """(rows, column that was swapped in each, -1 for none)."""
    dice = np.random.default_rng(seed)
    order = dice.permutation(len(rows.test))
    made, others = rows.test[order[:most]].copy(), rows.test[order[most:]]
    columns = [j for j in range(made.shape[1]) if len(np.unique(rows.train[:, j])) > 1]
    which = np.full(len(made), -1)
    for i in range(0, len(made), 2):
        while which[i] < 0:
            j, other = dice.choice(columns), dice.integers(len(others))
            if others[other, j] == others[other, j] and others[other, j] != made[i, j] == made[i, j]:
                made[i, j], which[i] = others[other, j], j
    return made, which


def laid_out(x: Array, rows: tabular.Rows) -> Array:
    """Words as one-hot vectors, numbers in standard deviations, medians for what is missing."""
    parts = []
    for j, word in enumerate(rows.words):
        if word:
            levels = np.unique(rows.train[:, j])
            parts += [(x[:, j] == level).astype(float)[:, None] for level in levels[~np.isnan(levels)]]
        elif np.nanstd(rows.train[:, j]) > 0:
            middle = np.nanmedian(rows.train[:, j])
            parts.append(((np.nan_to_num(x[:, j], nan=middle) - middle) / np.nanstd(rows.train[:, j]))[:, None])
    return np.concatenate(parts, 1)


def auroc(odd: Array, score: Array) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(odd, score))


def figures(name: str, asked: Any, seed: int, work: Path) -> dict[str, float]:
    """Everybody's figures on a table."""
    import torch
    from sklearn.covariance import EmpiricalCovariance
    from sklearn.ensemble import IsolationForest

    from ornstein.experiment.cells import explain, score

    rows = tabular.rows_of(name, work, 400 if asked.quick else None)
    made, which = swapped(rows, asked.rows, seed)
    odd, train, seen = which >= 0, laid_out(rows.train, rows), laid_out(made, rows)
    forest = IsolationForest(n_estimators=300, random_state=seed).fit(train)
    spread = EmpiricalCovariance().fit(train)
    run, seconds = tabular.ours(rows, asked.minutes, seed, work, asked.runs, asked.set)
    values = torch.from_numpy(np.ascontiguousarray(made))
    found, _ = score(run, values, seed=seed)
    told = explain(run, values).nan_to_num(-1e9).numpy()
    return {
        "ornstein, bound": auroc(odd, -found.numpy()),
        "ornstein, cells": auroc(odd, told.max(1)),
        "forest": auroc(odd, -forest.score_samples(seen)),
        "mahalanobis": auroc(odd, spread.mahalanobis(seen)),
        "named": float((told.argmax(1) == which)[odd].mean()),
        "seconds": seconds,
    }


def said(found: dict[str, Any]) -> str:
    """The figures as a table: means over seeds, and half of their range."""
    columns = {
        "ornstein, cells": "oddest cell (`--explain`)",
        "ornstein, bound": "log-probability",
        "forest": "isolation forest",
        "mahalanobis": "Mahalanobis",
        "named": "named",
    }
    lines = [common.heading("table", *columns.values(), "seeds")]
    for name, by_seed in sorted(found.items()):
        told = [tabular.spread((row[c] for row in by_seed.values()), ".0%" if c == "named" else ".3f") for c in columns]
        lines.append(common.row(name, *told, len(by_seed)))
    return "\n".join(lines)


def main() -> None:
    parser = tabular.arguments(__doc__, "some hundred rows of one table")
    parser.add_argument("--rows", type=int, default=2000)
    asked = parser.parse_args()
    results = common.place(RESULTS, asked.quick)
    if asked.quick:
        asked.tables, asked.minutes, asked.rows, asked.seeds = "weather", 0.02, 100, 1
    found = {} if asked.quick else common.kept(results, {})
    for name in [] if asked.plot else asked.tables.split(","):
        key = ", ".join([name, *asked.set])
        for seed in range(asked.seeds):
            if str(seed) in found.get(key, {}) and not asked.again:
                continue
            with tempfile.TemporaryDirectory() as work:
                row = figures(name, asked, seed, Path(work))
            # read again: another process may have added rows meanwhile
            found = found if asked.quick else common.kept(results, {})
            found.setdefault(key, {})[str(seed)] = row
            common.keep(results, found)
    print(said(found))


if __name__ == "__main__":
    main()
