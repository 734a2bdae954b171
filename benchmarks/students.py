"""Students of few calls beside their teacher: kernel and Fréchet distance to held-out images, by network calls.

    ornstein distill runs/digits --steps 1,2,4 --out runs/digits-progressive
    for k in 1 2 4; do ornstein tune runs/digits --steps $k --criterion endpoint; done
    python benchmarks/students.py runs/digits runs/digits-progressive --json students.json

All draw the same labels from the same seeds. *Distances* are on the features of the classifier that `ornstein
evaluate` fits to the training images. The kernel distance (KID) is unbiased, so it may be below zero; the floor is what
as many training images score, as the root mean square over draws. A ratio is to the teacher's distance or the floor,
whichever is larger, since below the floor no difference can be seen. The held-out images are too few to show all
differences, so the last column is the Fréchet distance to as many new samples of the teacher; the teacher's row has the
distance between two sets of these.
"""

import json
import math
from pathlib import Path
from typing import Any

import common
import torch
from torch import Tensor

from ornstein.experiment.folder import read_tuned
from ornstein.experiment.run import Run
from ornstein.metrics import Frechet, Kernel, fit_classifier

#: draws of training images for the floor
FLOORS = 10


class Judge:
    """Distances of samples of a teacher, or of others, from the teacher's held-out images."""

    def __init__(self, teacher: Run, samples: int, seed: int) -> None:
        data, dice = teacher.load_data(), torch.Generator().manual_seed(seed)
        self.run, self.seed = teacher, seed
        self.labels = teacher.examples(samples)
        self.seen = fit_classifier(data.train.float(), data.train_labels, generator=dice)  # type: ignore[arg-type]
        self.real = self.seen.features(data.test.float())
        known = self.seen.features(data.train.float())
        self.twin = self.drawn(teacher, seed + 1)
        # at most half the training images, so that draws differ
        few = min(samples, len(known) // 2)
        found = [self.distances(known[torch.randperm(len(known), generator=dice)[:few]]) for _ in range(FLOORS)]
        self.floor = {
            "kernel": math.sqrt(sum(row["kernel"] ** 2 for row in found) / FLOORS),
            "frechet": sum(row["frechet"] for row in found) / FLOORS,
        }

    def distances(self, features: Tensor) -> dict[str, float]:
        """Kernel and Fréchet distance of features (N, d) to those of the held-out images."""
        dice = torch.Generator().manual_seed(self.seed)
        kernel, error = Kernel(subsets=20).estimate(features, self.real, dice)
        return {"kernel": kernel, "error": error, "frechet": Frechet()(features, self.real, dice)}

    def drawn(self, run: Run, seed: int, **how: Any) -> Tensor:
        """The features of samples that a run draws."""
        drawn = run.draw(self.labels.rows or 0, seed=seed, condition=self.labels, **how)
        return self.seen.features(run.transform.inverse(drawn, quantise=True).float())

    def row(self, who: str, run: Run, **how: Any) -> dict[str, Any]:
        """The distances of samples that a run draws."""
        features = self.drawn(run, self.seed, **how)
        own = Frechet()(features, self.twin, torch.Generator().manual_seed(0))
        return {"who": who, "calls": how.get("steps") or run.steps, **self.distances(features), "to teacher": own}


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("students", type=Path, nargs="*")
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", default="1,2,4", help="that the teacher itself, and its fitted solvers, draw in too")
    parser.add_argument("--json", type=Path, help="where the rows go")
    options = parser.parse_args()
    teacher = Run.load(options.teacher)
    judge = Judge(teacher, 200 if options.quick else options.samples, options.seed)
    rows = [judge.row("teacher", teacher)]
    few = [int(word) for word in options.calls.split(",") if word]
    tuned = read_tuned(teacher.folder)
    for calls in few:
        rows.append(judge.row("teacher, default solver", teacher, steps=calls))
        if calls in tuned:
            rows.append(judge.row("teacher, fitted solver", teacher, steps=calls, grid="tuned"))
    for folder in options.students:
        student = Run.load(folder)
        rows += [judge.row(folder.name, student, steps=calls) for calls in sorted(student.experiment.learner["calls"])]  # type: ignore[index]
    for row in rows:
        for key in ("kernel", "frechet"):
            row[f"{key}_ratio"] = row[key] / max(rows[0][key], judge.floor[key])
    print(common.heading("", "calls", "kernel distance", "x teacher", "Fréchet", "x teacher", "Fréchet to teacher"))
    for row in rows:
        kernel, frechet = (f"{row[key]:.2f}" for key in ("kernel_ratio", "frechet_ratio"))
        told = f"{row['kernel']:.4f} ± {row['error']:.4f}"
        print(common.row(row["who"], row["calls"], told, kernel, f"{row['frechet']:.2f}", frechet,
                         f"{row['to teacher']:.2f}"))  # fmt: skip
    floor = judge.floor
    print(common.row("training images", "", f"{floor['kernel']:.4f}", "", f"{floor['frechet']:.2f}", "", ""))
    if options.json:
        options.json.write_text(json.dumps({"floor": judge.floor, "rows": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
