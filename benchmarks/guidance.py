"""What classifier-free guidance gains and costs: class agreement, precision and recall by scale, and a picture.

    python benchmarks/guidance.py runs/mnist --scales 1 2 4 --out guided.png

It draws samples from the same noise at each scale and prints a row for each; in the picture each scale has two rows,
with a column for each class.
"""

from pathlib import Path

import common
import torch

from ornstein.experiment import pictures
from ornstein.experiment.build import load_data
from ornstein.experiment.guide import guided
from ornstein.experiment.run import Run
from ornstein.metrics import report

SHOWN = ("class-agreement", "sliced-wasserstein", "precision", "recall")


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("guided.png"))
    asked = parser.parse_args()
    if asked.quick:
        asked.n, asked.scales = 100, asked.scales[:2]
    out = common.place(asked.out, asked.quick)
    run = Run.load(asked.run)
    data = load_data(run.experiment)
    labels = run.examples(asked.n).parts["label"]
    rows = []
    columns = ("drawn as the class asked for", "sliced Wasserstein / floor", "precision", "recall")
    print(common.heading("scale", *columns))
    for scale in asked.scales:
        drawn = guided(run, scale=scale).draw(asked.n, seed=0, label=labels)
        rows.append(drawn[: 2 * len(run.classes)])
        found = report(
            run.transform.inverse(drawn, quantise=True).float(), data.train.float(), data.test.float(),
            torch.Generator().manual_seed(0), labels=labels, train_labels=data.train_labels,
            heldout_labels=data.test_labels, metrics=SHOWN[1:],
        ).rows  # fmt: skip
        figures = [
            f"{found[name].ratio:.2f}" if name == "sliced-wasserstein" else f"{found[name].value:.3f}" for name in SHOWN
        ]
        print(common.row(f"{scale:g}", *figures), flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures.draw(torch.cat(rows), run.kind, out, columns=len(run.classes))


if __name__ == "__main__":
    main()
