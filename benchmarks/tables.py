"""How good drawn tables are: ornstein after some minutes on one core, beside other generators, by the same judges.

    export ORNSTEIN_DATA=...
    OMP_NUM_THREADS=1 python benchmarks/tables.py --only cart,copula
    OMP_NUM_THREADS=1 python benchmarks/tables.py --peers --seeds 1 # other generators, in environments that this makes
    OMP_NUM_THREADS=1 python benchmarks/tables.py --only ornstein --minutes 8 --seeds 3
    python benchmarks/tables.py --plot                              # the tables again, from rows already measured

`tabular.py` has the tables, splits and generators. Each generator draws as many rows as it was trained on. The judges
(`ornstein.metrics`):

- *trees*: cross-validated AUC of boosted trees that tell draws from as many held-out rows. 0.5 is perfect; the words'
  numbers come from both sets together;
- *taught*: boosted trees trained on the draws predict the target of the held-out rows from all other columns: AUC of
  adult's income, R2 of california's house value and of the weather's temperature;
- *nearer*: the share of draws that are nearer to training rows than to as many held-out rows; 0.5 if none is copied.
  The training rows are chosen at random five times, and the mean is taken;
- *copies*: the share of draws that equal a training row to the last digit, and of held-out rows that do.

The row "real" has half of the training rows in place of the draws, since there are no others; "taught" uses all of
them. Figures go to tables.json as they come, and rows already there are not measured again without `--again`.
"""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import common
import numpy as np
import tabular

RESULTS = Path(__file__).with_name("tables.json")
#: what stands in a row of figures
JUDGES = ("trees", "taught", "nearer", "copies", "seconds")


def judged(drawn: Any, rows: tabular.Rows, seed: int, most: int) -> dict[str, float]:
    """The figures of drawn rows (N, d)."""
    import torch

    from ornstein.metrics.boosted import TreeTest, predicts
    from ornstein.metrics.records import closest_records

    made, train, test = (torch.from_numpy(np.ascontiguousarray(part)) for part in (drawn, rows.train, rows.test))
    dice, words = torch.Generator().manual_seed(seed), tuple(rows.words)
    records = closest_records(made, train, test, words, dice, most=most)
    trees = TreeTest(words)(made, test, dice)
    others = [closest_records(made, train, test, words, dice, most=most) for _ in range(4)]
    return {
        "trees": trees,
        "taught": predicts(made, test, rows.target, words, seed),
        "nearer": statistics.fmean(choice.nearer for choice in (records, *others)),
        "copies": records.copies_all,
        "copies_heldout": records.heldout_copies,
    }


def one(name: str, rows: tabular.Rows, seed: int, asked: Any, work: Path) -> dict[str, float]:
    """The figures of a maker on a table."""
    n = len(rows.train)
    if name == "real":
        dice = np.random.default_rng(seed)
        order = dice.permutation(n)
        rest = dataclasses.replace(rows, train=rows.train[order[n // 2 :]])
        found = judged(rows.train[order[: n // 2]], rest, seed, asked.most)
        return {**found, "taught": judged_teaching(rows, seed), "seconds": 0.0}
    if name == "ornstein":
        run, seconds = tabular.ours(rows, asked.minutes, seed, work, asked.runs, asked.set)
        drawn = run.sample(n, seed=seed).numpy()
    else:
        drawn, seconds = tabular.made_by(name, rows, n, seed, work, asked.env)
    return {**judged(drawn, rows, seed, asked.most), "seconds": seconds}


def judged_teaching(rows: tabular.Rows, seed: int) -> float:
    """What all training rows teach."""
    import torch

    from ornstein.metrics.boosted import predicts

    return predicts(torch.from_numpy(rows.train), torch.from_numpy(rows.test), rows.target, rows.words, seed)


def said(found: dict[str, Any]) -> str:
    """The figures as one table: means over seeds, and half of their range."""
    lines = [common.heading("table", "maker", "trees (0.5)", "taught", "nearer (0.5)", "copies (of held-out)",
                            "CPU s", "seeds", words=2)]  # fmt: skip
    by_trees = sorted(found.items(), key=lambda item: statistics.fmean(row["trees"] for row in item[1].values()))
    for table in sorted(tabular.TARGETS):
        for key, by_seed in by_trees:
            name = key.partition("/")[2]
            if key.partition("/")[0] != table:
                continue
            told = {judge: [row[judge] for row in by_seed.values()] for judge in JUDGES}
            held = statistics.fmean(row["copies_heldout"] for row in by_seed.values())
            lines.append(common.row(
                table, tabular.CALLED.get(name, name), *(tabular.spread(told[judge]) for judge in JUDGES[:3]),
                f"{100 * statistics.fmean(told['copies']):.2f} % ({100 * held:.2f} %)",
                f"{statistics.fmean(told['seconds']):.0f}" if any(told["seconds"]) else "", len(by_seed),
            ))  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = tabular.arguments(__doc__, "some hundred rows, the cheapest maker and ours")
    makers = ", ".join(["real", "ornstein", *tabular.MAKERS])
    parser.add_argument("--only", default="real,cart,copula,ornstein", help=f"makers, of {makers}")
    parser.add_argument("--peers", action="store_true", help="short for --only with all makers but ours")
    parser.add_argument(
        "--env", type=Path, default=Path("runs/peers-tables"), help="of the other makers; made if absent"
    )
    parser.add_argument("--most", type=int, default=10_000, help="records of either kind that are laid out")
    asked = parser.parse_args()
    if asked.peers:
        asked.only = ",".join(tabular.MAKERS)
    if asked.quick:
        asked.only, asked.tables, asked.minutes, asked.seeds = "real,cart,ornstein", "weather", 0.02, 1
    print(said(tabular.gathered(asked, RESULTS, 400, one)))


if __name__ == "__main__":
    main()
