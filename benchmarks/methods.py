"""Every method on the same data: how long it trains, and how good its samples are beside real data.

    python benchmarks/methods.py moons
    python benchmarks/methods.py digits hybrid ncsnv2 energy-recovery

Trains the preset named first with each method laid over it (all of `ornstein list methods`, or those named), draws
1,000 samples as the method says, and prints one row of a table for each. Seconds are of processor time, previews
included. Runs are kept in runs/methods/.
"""

import argparse
import shutil
import time
from pathlib import Path

from ornstein.experiment.config import Experiment, methods
from ornstein.experiment.evaluate import evaluate
from ornstein.experiment.run import Run
from ornstein.experiment.train import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("method", nargs="*", default=list(methods()))
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    asked = parser.parse_args()
    print("| method | training | network calls | sliced Wasserstein / floor | class agreement |")
    print("|---|---|---|---|---|")
    for method in asked.method:
        folder = asked.out / f"{asked.preset}-{method}"
        shutil.rmtree(folder, ignore_errors=True)
        began = time.process_time()
        for moment in train(Experiment.read(asked.preset, [f"preset={method}"]), folder):
            steps = moment.progress.step
        trained = time.process_time() - began
        run = Run.load(folder)
        calls = [state.calls for state in run.trajectory(4, seed=0, condition=run.examples(4))][-1]
        result = evaluate(run, n=1000)
        rows = result.report.rows
        agreement = f"{rows['class-agreement'].value:.3f}" if "class-agreement" in rows else "-"
        print(
            f"| {method} | {steps:,} steps, {trained:.0f} s | {calls} "
            f"| {rows['sliced-wasserstein'].ratio:.2f} | {agreement} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
