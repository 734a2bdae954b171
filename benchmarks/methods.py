"""Every method on the same data: how long it trains, and how good its samples are compared with real data.

    python benchmarks/methods.py moons
    python benchmarks/methods.py digits hybrid ncsnv2 energy-recovery

It trains the preset named first with each method applied to it (all of `ornstein list methods`, or those named), draws
1,000 samples as the method says, and prints one row of a table for each. Seconds are processor time, including
previews. Runs are kept in runs/methods/.
"""

import shutil
import time
from pathlib import Path

import common

from ornstein.experiment.config import Experiment, methods
from ornstein.experiment.evaluate import evaluate
from ornstein.experiment.run import Run
from ornstein.experiment.train import train


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("preset")
    parser.add_argument("method", nargs="*", default=list(methods()))
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    asked = parser.parse_args()
    few = ["training.steps=8", "training.validate_every=8", "sampling.preview=4", "sampling.steps=4"]
    print(common.heading("method", "training", "network calls", "sliced Wasserstein / floor", "class agreement"))
    for method in asked.method:
        folder = (Path("runs/quick") if asked.quick else asked.out) / f"{asked.preset}-{method}"
        shutil.rmtree(folder, ignore_errors=True)
        experiment, began = Experiment.read(asked.preset, [f"preset={method}", *few * asked.quick]), time.process_time()
        for moment in train(experiment, folder):
            steps = moment.progress.step
        trained = time.process_time() - began
        run = Run.load(folder)
        calls = [state.calls for state in run.trajectory(4, seed=0, condition=run.examples(4))][-1]
        result = evaluate(run, n=100 if asked.quick else 1000)
        assert result is not None
        rows = result.report.rows
        agreement = f"{rows['class-agreement'].value:.3f}" if "class-agreement" in rows else "-"
        sliced = f"{rows['sliced-wasserstein'].ratio:.2f}"
        print(common.row(method, f"{steps:,} steps, {trained:.0f} s", calls, sliced, agreement), flush=True)


if __name__ == "__main__":
    main()
