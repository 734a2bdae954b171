"""The forecasts of `ornstein plan` for short runs, beside what they took: processor time and peak memory.

Each case is planned in one process and trained in another, including pictures, held-out errors and checkpoints. Time is
processor time from the first report of training to the last (so use one thread: `OMP_NUM_THREADS=1`), since other work
on the machine lengthens wall-clock time but not this. Memory is the process's own high-water mark. The script prints a
sentence and a table in Markdown.

    OMP_NUM_THREADS=1 python benchmarks/plan.py [CASE ...] [--out plan.json] [--quick]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

#: presets and changes to them; a few dozen steps each, and a validation or two
CASES = {
    "moons": ["moons", "training.steps=1000", "training.validate_every=500"],
    "digits": ["digits", "training.steps=150", "training.validate_every=75"],
    "digits, bfloat16": ["digits", "training.steps=150", "training.validate_every=75", "training.precision=bfloat16"],
    "digits, sliced score matching": ["digits", "preset=sliced", "training.steps=60", "training.validate_every=30"],
    "digits, recovery likelihood": ["digits", "preset=energy-recovery", "training.steps=100"],
    "mnist, precision as measured": ["mnist", "training.steps=60", "training.validate_every=60"],
    "mnist, float32": ["mnist", "training.steps=60", "training.validate_every=60", "training.precision=float32"],
    "mnist, 64 channels, attention": [
        "mnist", "training.steps=8", "training.validate_every=8", "net.channels=64", "net.attention=[14]",
        "sampling.preview=16", "training.precision=float32",
    ],
    "mnist, in 4 pieces": [
        "mnist", "training.steps=40", "training.validate_every=40", "training.accumulate=4",
        "training.precision=float32",
    ],
}  # fmt: skip


def planned(words: list[str]) -> dict[str, Any]:
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.plan import plan

    asked = Experiment.read(words[0], words[1:])
    # the first step is over when the clock starts
    found = plan(Experiment.read(words[0], [*words[1:], f"training.steps={asked.training.steps - 1}"]))
    return {
        "seconds": found.processor,
        "bytes": found.needed,
        "flops": found.step_flops,
        "precision": found.experiment.training.precision,
    }


def trained(words: list[str]) -> dict[str, Any]:
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.train import train

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        moments = train(Experiment.read(words[0], words[1:]), run)
        next(moments)
        start = time.process_time()
        for _ in moments:
            pass
        seconds = time.process_time() - start
        precision = Experiment.read(run / "experiment.yaml").training.precision
    unit = 1 if sys.platform == "darwin" else 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"seconds": seconds, "bytes": most, "precision": precision}


def table(rows: list[dict[str, Any]]) -> str:
    """How accurate the forecasts are: a sentence, and a line for each case."""
    off: dict[str, list[float]] = {
        key: [row["planned"][key] / row["taken"][key] - 1 for row in rows] for key in ("seconds", "bytes")
    }
    said = [
        f"{word} is off by {statistics.median(map(abs, off[key])):.0%} in the median, "
        f"{max(map(abs, off[key])):.0%} at most"
        for word, key in (("time", "seconds"), ("memory", "bytes"))
    ]
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    lines = [
        f"On {threads} thread{'s' * (threads != '1')}, {said[0]}; {said[1]}.",
        "",
        common.heading("case", "GFLOP a step", "seconds planned", "taken", "off", "MB planned", "taken", "off"),
    ]
    for row, *both in zip(rows, off["seconds"], off["bytes"], strict=True):
        plan, took = row["planned"], row["taken"]
        precision = plan["precision"] if plan["precision"] == took["precision"] else "planned in another precision!"
        name = row["case"].replace("as measured", f"as measured: {precision}")
        lines.append(
            common.row(
                name,
                f"{plan['flops'] / 1e9:.2f}",
                f"{plan['seconds']:.1f}",
                f"{took['seconds']:.1f}",
                f"{both[0]:+.0%}",
                f"{plan['bytes'] / 1e6:.0f}",
                f"{took['bytes'] / 1e6:.0f}",
                f"{both[1]:+.0%}",
            )
        )
    return "\n".join(lines)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all if none is named")
    parser.add_argument("--out", type=Path, help="also write every figure to this file")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        what, *words = given.worker
        print(json.dumps((planned if what == "planned" else trained)(words)))
        return
    few = ["training.steps=20", "training.validate_every=10"] if given.quick else []
    rows = []
    for name in given.cases or (list(CASES)[:1] if given.quick else CASES):
        words = [*CASES[name], *few]
        print(name, file=sys.stderr, flush=True)
        said, took = (
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--worker", what, *words], check=True, stdout=subprocess.PIPE, text=True
                ).stdout
            )
            for what in ("planned", "trained")
        )
        rows.append({"case": name, "words": words, "planned": said, "taken": took})
    print(table(rows))
    if given.out:
        common.keep(given.out, rows)


if __name__ == "__main__":
    main()
