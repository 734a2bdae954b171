"""What it costs to start: importing the library against importing torch, and `ornstein --help`.

    python benchmarks/startup.py --runs 15

Each run starts every command once, in turn, so that the machine's other work affects all of them alike. The table has
the median time of each, and of its ratio to `import torch` within a run. The first round, which fills the disk's cache,
is left out. Processor time stands beside wall-clock time, since on a busy machine the latter says little.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common

FACE = "import ornstein\nfor name in ornstein.__all__: getattr(ornstein, name)"
COMMANDS = {
    "python": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import ornstein": ["-c", "import ornstein"],
    "import ornstein, every name": ["-c", FACE],
    "ornstein --help": ["-m", "ornstein", "--help"],
    "ornstein train --help": ["-m", "ornstein", "train", "--help"],
    "ornstein --version": ["-m", "ornstein", "--version"],
}
SAMPLE = "ornstein sample -n 1 --steps 1"
#: the largest cost allowed for each
TARGETS = {"import ornstein": "1.15 torch", "ornstein --help": "0.3 s", SAMPLE: "2 s"}


def once(command: list[str]) -> tuple[float, float]:
    """Seconds by the wall clock, and of processor time."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - began, used


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--run", help="a run folder, to time `ornstein sample` of one image in one step as well")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    given = parser.parse_args()
    if given.quick:
        given.runs = 1

    commands = dict(COMMANDS)
    if given.run:
        commands[SAMPLE] = ["-m", "ornstein", "sample", given.run, "-n", "1", "--steps", "1"]
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for round_ in range(given.runs + 1):
        for name, command in commands.items():
            seconds = once(command)
            if round_:
                figures[name].append(seconds)

    head = ("wall, s", "quickest", "/ torch", "processor", "/ torch", "at most")
    print(f"{'':31}" + "".join(f"{word:>11}" for word in head))
    torch = figures["import torch"]
    for name, runs in figures.items():
        wall, used = (statistics.median(column) for column in zip(*runs, strict=True))
        ratios = [statistics.median(m[i] / t[i] for m, t in zip(runs, torch, strict=True)) for i in (0, 1)]
        quickest = min(run[0] for run in runs)
        columns = (wall, quickest, ratios[0], used, ratios[1])
        print(f"{name:31}" + "".join(f"{value:11.3f}" for value in columns) + f"{TARGETS.get(name, ''):>11}")
    if given.json:
        common.keep(given.json, figures)


if __name__ == "__main__":
    main()
