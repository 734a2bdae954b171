"""The default solver on the sixteen problems of `problems.py`, beside those of other libraries and published methods.

    python benchmarks/default.py --json default.json      # an hour or less on a busy core
    python benchmarks/default.py --from-json default.json # the tables alone

Error: the mean distance to the exact ends, root mean square over a sample's numbers, in units of sigma_data. Measured
are the default; the former default; the published methods as implemented here (DPM-Solver++, UniPC, DEIS, PLMS and
Heun, each on four grids); and, if installed, diffusers, k-diffusion and azula, with the settings that were among the
four best on one of the four problems of `frontier.py` at that number of calls, about a dozen. *The best other* is
picked afterwards, for each problem and number of calls, by the error that is reported; the default is one setting for
all.
"""

import argparse
import dataclasses
import functools
import importlib.util
import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import frontier
import torch
from problems import PROBLEMS, Problem, Trajectories
from torch import Tensor

import ornstein
from ornstein.samplers import DEFAULT_STEPPER
from ornstein.samplers.exponential import DEIS, DPMpp2M, Multistep
from ornstein.samplers.flow import Heun
from ornstein.samplers.plms import PLMS
from ornstein.samplers.unipc import UniPC

CALLS = (5, 8, 10, 15, 20, 50)
#: the methods as in their papers
PUBLISHED: dict[str, ornstein.Stepper] = {
    "DPM-Solver++(2M)": DPMpp2M(),
    "DPM-Solver++(3M)": Multistep(order=3),
    "UniPC-2": UniPC(order=3, clock="log-snr", last=1, rule="b2"),
    "UniPC-3": UniPC(order=4, clock="log-snr", last=1, rule="b2"),
    "DEIS": DEIS(order=3, clock="ratio"),
    "PLMS": PLMS(),
    "Heun": Heun(variables="edm"),
}
GRIDS = ("logsnr", "karras", "quadratic", "flow")


class Posed(frontier.Problem):
    """A problem in the form that other libraries take: in its units, from the exact state at their own first level."""

    def __init__(self, known: Trajectories) -> None:
        self.known, self.ends, self.x = known, known.ends.flatten(1), known.x.flatten(1)
        self.top = float(known.top.noise_ratio)
        self.start = (known.x / known.top.alpha).flatten(1)
        self._states: dict[float, Tensor] = {}

    def answer(self, y: Tensor, ratio: float) -> Tensor:
        return self.known.answer(y.reshape(self.known.x.shape), ratio).flatten(1)

    def at(self, ratio: float) -> Tensor:
        if ratio not in self._states:
            span = abs(math.log(ratio / self.top))
            y = self.start.reshape(self.known.x.shape)
            steps = max(4, math.ceil(20 * span))
            found = y if span < 1e-9 else self.known.follow(y, self.top, ratio, steps)
            self._states[ratio] = found.flatten(1)
        return self._states[ratio]

    def error(self, found: Tensor) -> float:
        return self.known.error(found.reshape(self.known.x.shape))


@functools.cache
def installed() -> list[frontier.Way]:
    """Every setting of the other libraries that are installed."""
    there = [(module, peer) for module, peer in frontier.PEERS.values() if importlib.util.find_spec(module)]
    return [way for _, peer in there for way in peer()]


def others(calls: int, places: int = 4) -> list[frontier.Way]:
    """The settings of installed libraries that were among the best on some problem of `frontier.py`."""
    known = json.loads(Path(frontier.__file__).with_name("frontier.json").read_text("utf-8"))["problems"]
    best: set[tuple[str, ...]] = set()
    for found in known.values():
        rows = [row for row in found["rows"] if row["calls"] == calls and row["library"] in frontier.PEERS]
        rows.sort(key=lambda row: row["error"])
        best |= {(row["library"], row["family"], row["setting"]) for row in rows[:places]}
    return [way for way in installed() if (way.library, way.family, way.setting) in best]


def measure(problem: Problem) -> dict[str, Any]:
    """The errors of everything on one problem."""
    known = Trajectories(problem, seed=1)
    posed = Posed(known)
    rows = []
    for calls in CALLS:
        errors = {
            "default": known.of(DEFAULT_STEPPER, None, calls),
            "before": known.of(UniPC(), "tapered", calls),
        }
        for name, stepper in PUBLISHED.items():
            for grid in GRIDS:
                errors[f"{name} {grid}"] = known.of(stepper, grid, calls)
        theirs = {}
        for way in others(calls):
            found = way.run(posed, calls)
            if found is not None and found[1] <= calls:
                theirs[f"{way.library} {way.family}: {way.setting}"] = posed.error(found[0])
        finite = {name: error for name, error in (errors | theirs).items() if math.isfinite(error)}
        best = sorted((name for name in finite if name not in ("default", "before")), key=finite.__getitem__)
        rows.append(
            {"calls": calls, "default": errors["default"], "before": errors["before"], "others": len(best),
             "best": finite[best[0]], "which": best[0]}
        )  # fmt: skip
    process = type(known.process).__name__
    return {"kept_out": problem.kept_out, "process": process, "sigma_data": known.unit, "rows": rows}


def show(results: dict[str, Any]) -> None:
    """The table of docs/frontier.md, and the two defaults over all problems."""
    print("| problem | process, sigma_data | " + " | ".join(f"{calls}" for calls in CALLS) + " |")
    print("|---|---|" + "---|" * len(CALLS))
    for name, found in results.items():
        marked = f"*{name}*" if found["kept_out"] else name
        cells = [f"{row['default']:.2g} ({row['default'] / row['best']:.2f})" for row in found["rows"]]
        print(f"| {marked} | {found['process']}, {found['sigma_data']:.2f} | " + " | ".join(cells) + " |")
    for title, kept in (("chosen on", False), ("kept out", True)):
        for which in ("default", "before"):
            cells = []
            for i in range(len(CALLS)):
                rows = [found["rows"][i] for found in results.values() if found["kept_out"] == kept]
                logs = [math.log(row[which] / row["best"]) for row in rows]
                if logs:
                    cells.append(f"{math.exp(sum(logs) / len(logs)):.2f}, {math.exp(max(logs)):.2f}")
            print(f"| {title}: {which}, mean and worst | | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description="The default solver beside others, on problems kept out and not.")
    parser.add_argument("--only", default="", help="names of problems that contain this")
    parser.add_argument("--quick", action="store_true", help="one small problem on few trajectories")
    parser.add_argument("--json", type=Path, help="where the figures are kept, problem by problem")
    parser.add_argument("--from-json", type=Path, help="measure nothing: the tables of what is there")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    if asked.from_json:
        show(json.loads(asked.from_json.read_text("utf-8")))
        return
    results: dict[str, Any] = {}
    if asked.json and asked.json.is_file():
        results = json.loads(asked.json.read_text("utf-8"))
    if asked.quick:
        asked.only = "correlated, d = 2"
    for problem in sorted(PROBLEMS, key=lambda problem: not problem.kept_out):
        if asked.quick:
            problem = dataclasses.replace(problem, count=8)
        if asked.only in problem.name and problem.name not in results:
            results[problem.name] = measure(problem)
            print(problem.name, flush=True)
            if asked.json:
                asked.json.write_text(json.dumps(results, indent=1), "utf-8")
    show({problem.name: results[problem.name] for problem in PROBLEMS if problem.name in results})


if __name__ == "__main__":
    main()
