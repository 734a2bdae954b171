"""What it costs to begin: importing the library against importing torch, and `ornstein --help`.

    python benchmarks/startup.py --runs 15

Each run starts every command once, in turn, so that whatever else the machine does falls on all of them alike; the
median of each is told, and of the ratio within a run. The first round, which fills the disk's cache, is left out.
Processor time is given beside the wall clock, because the wall clock of a busy machine says little.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

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


def once(command: list[str]) -> tuple[float, float]:
    """Seconds on the wall and on the processor."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - began, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", help="also write every figure to this file")
    given = parser.parse_args()

    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for round_ in range(given.runs + 1):
        for name, command in COMMANDS.items():
            seconds = once(command)
            if round_:
                figures[name].append(seconds)

    print(f"{'':30}{'wall, s':>10}{'quickest':>10}{'processor':>11}{'/ torch':>9}")
    torch = figures["import torch"]
    for name, runs in figures.items():
        wall, used = (statistics.median(column) for column in zip(*runs, strict=True))
        ratio = statistics.median(mine[1] / theirs[1] for mine, theirs in zip(runs, torch, strict=True))
        print(f"{name:30}{wall:10.3f}{min(run[0] for run in runs):10.3f}{used:11.3f}{ratio:9.3f}")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
