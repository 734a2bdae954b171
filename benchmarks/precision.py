"""What low precision costs in quality: one preset trained in float32 and in bfloat16, and drawn in both.

Seeds, batches and noise are the same. The script prints the held-out error of both runs during training, and how far
images drawn in bfloat16 are from those drawn in float32, from the same noise with the same weights.

    python benchmarks/precision.py mnist 2000 [path=value ...] [--quick]
"""

import tempfile
import time
from pathlib import Path

import common

from ornstein.experiment.build import load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.train import train


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("preset")
    parser.add_argument("steps", type=int)
    parser.add_argument("words", nargs="*", metavar="path=value")
    given = parser.parse_args()
    preset, steps, words = given.preset, 4 if given.quick else given.steps, given.words
    every = max(steps // 4, 1)
    curves: dict[str, dict[int, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float32", "bfloat16"):
            fixed = [f"training.precision={precision}", f"training.steps={steps}", f"training.validate_every={every}"]
            experiment = Experiment.read(preset, [*words, *fixed, "sampling.preview=1"])
            data, began = load_data(experiment), time.perf_counter()
            moments = train(experiment, Path(folder) / precision, data)
            curves[precision] = {m.progress.step: m.held_out for m in moments if m.held_out is not None}
            print(f"{precision}: {time.perf_counter() - began:.0f} s", flush=True)
        print("\n" + common.heading("steps", "held-out error, float32", "bfloat16", "ratio", words=0))
        for step, wide in curves["float32"].items():
            slim = curves["bfloat16"][step]
            print(common.row(f"{step:,}", f"{wide:.4f}", f"{slim:.4f}", f"{slim / wide:.4f}"))
        run = Run.load(Path(folder) / "float32")
        n = 4 if given.quick else 64
        exact, rounded = (run.drawing(precision).draw(n, seed=0) for precision in ("float32", "bfloat16"))
    difference = (exact - rounded).square().flatten(1).mean(1).sqrt() / exact.square().mean().sqrt()
    print(
        f"\n{n} images of the float32 run drawn in bfloat16: root mean square distance {difference.mean():.2%} of the "
        f"images' own size on average, {difference.median():.2%} in the median, {difference.max():.2%} at most."
    )


if __name__ == "__main__":
    main()
