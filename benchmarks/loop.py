"""What a training loop costs beside its steps: batches, averages, log, pictures and held-out errors, checkpoints.

    export ORNSTEIN_DATA=...
    python benchmarks/loop.py mnist cifar10          # presets; a minute or two each on two cores

A preset is trained for --steps steps exactly as by `ornstein train`, with a clock around each part. Periodic work (a
validation, a checkpoint, a snapshot of the averages) happens here once or twice, at its full cost, which is then spread
over the preset's interval. A *step* is the rest: forward, backward, clipping and optimiser. The first step, which waits
for everything, is left out.
"""

import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import torch

from ornstein.experiment.config import Experiment
from ornstein.experiment.train import train
from ornstein.training import loop
from ornstein.training.ema import PowerEMA
from ornstein.training.pieces import Pieces


class Clock:
    """Seconds spent and times called, by part; time that a part spends in another counts for the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.open: list[str] = []
        self.since = time.perf_counter()

    def lap(self) -> None:
        now = time.perf_counter()
        if self.open:
            self.seconds[self.open[-1]] += now - self.since
        self.since = now

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.lap()
        self.open.append(name)
        self.calls[name] += 1
        try:
            yield
        finally:
            self.lap()
            self.open.pop()

    def around(self, owner: Any, method: str, name: str) -> Callable[[], None]:
        """Count a method's time as a part, until the returned function is called."""
        plain = getattr(owner, method)

        def timed(*args: Any, **options: Any) -> Any:
            with self.part(name):
                return plain(*args, **options)

        setattr(owner, method, timed)
        return lambda: setattr(owner, method, plain)


def measured(preset: str, overrides: list[str], steps: int) -> None:
    asked = Experiment.read(preset, overrides)
    kept = asked.training
    # each kind of periodic work once or twice, at the last steps
    rare = [f"training.{name}={steps // 2}" for name in ("validate_every", "checkpoint_every", "snapshot_every")]
    experiment = Experiment.read(preset, [*overrides, *rare, f"training.steps={steps}"])
    clock = Clock()
    parts = ((loop._Run, "advance", "step"), (Pieces, "of", "batches"), (PowerEMA, "update", "averages"),
             (loop._Run, "save", "checkpoint"), (loop._Run, "snapshot", "snapshot"))  # fmt: skip
    undo = [clock.around(*part) for part in parts]
    precision = ""
    with tempfile.TemporaryDirectory() as folder:
        moments = train(experiment, Path(folder) / "run")
        next(moments)
        clock.seconds.clear()
        clock.calls.clear()
        clock.since, before = time.perf_counter(), 1
        while True:
            # time outside all parts is work between steps: the log, or a validation with its pictures
            last = before + kept.log_every - before % kept.log_every
            name = "validation" if min(last, steps) % (steps // 2) == 0 else "log"
            with clock.part(name):
                moment = next(moments, None)
            if moment is None:
                break
            before = moment.progress.step
        precision = str(Experiment.read(Path(folder) / "run" / "experiment.yaml").training.precision)
    for restore in undo:
        restore()
    each = {
        "batches": 1.0,
        "averages": 1.0,
        "log": 1 / kept.log_every,
        "validation": 1 / kept.validate_every,
        "checkpoint": 1 / kept.checkpoint_every,
        "snapshot": 1 / kept.snapshot_every if kept.snapshot_every else 0.0,
    }
    count = clock.calls["step"]
    step = clock.seconds["step"] / count
    how = f"{count} steps of {kept.batch_size} in {precision}, {torch.get_num_threads()} threads"
    print(f"\n{' '.join([preset, *overrides])}: {how}")
    print(common.heading("part", "ms each", "every so many steps", "share of a step"))
    print(common.row("step", f"{1e3 * step:.1f}", 1, ""))
    total = 0.0
    for name, share in each.items():
        calls = count if share == 1.0 else clock.calls[name]
        cost = clock.seconds[name] / max(1, calls)
        total += cost * share / step
        often = f"{1 / share:,.0f}" if share else "never"
        print(common.row(name, f"{1e3 * cost:.2f}", often, f"{cost * share / step:.2%}"))
    print(common.row("all beside the step", "", "", f"{total:.2%}"), flush=True)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("presets", nargs="+", help="presets, each with overrides after a comma: mnist,net.channels=96")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    if options.quick:
        options.steps = 8
    for words in options.presets:
        preset, *overrides = words.split(",")
        measured(preset, overrides, options.steps)


if __name__ == "__main__":
    main()
