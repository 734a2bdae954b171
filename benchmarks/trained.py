"""How near K network calls come to the ends of a trained run's own trajectories: tuned solvers and other libraries'.

    ornstein tune RUN --steps 5 --criterion endpoint        # and 8, 10
    python benchmarks/trained.py RUN --calls 5,8,10

Like `frontier.py`, but with the run's network in place of the exact answers: the error is the mean L2 distance, in
model space, to the end of a 1,000-step solve from the same noise, on noise to which nothing was fitted. Of the other
libraries' configurations, those are tried that were among the three best of their family at that number of calls on one
of the exact problems (`frontier.json`); the best is picked afterwards, by the error that is reported.
"""

import importlib.util
import json
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import common
import frontier
import torch
from torch import Tensor

import ornstein
from ornstein.distill.solver import endpoint_error, endpoints, starting_noise
from ornstein.experiment.folder import read_tuned
from ornstein.experiment.run import Run
from ornstein.samplers import DEFAULT_STEPPER, stepper_named

F64 = torch.float64


class Trained(frontier.Problem):
    """Trajectories of a run's network, with labels in rotation."""

    def __init__(self, run: Run, count: int, seed: int, steps: int = 1000) -> None:
        self.denoiser, self.process = run.denoiser, run.denoiser.process
        self.condition = run.examples(count)
        self.shape = (count, *run.shape)
        self.x = starting_noise(self.denoiser, self.shape, seed, F64)
        self.ends = endpoints(self.denoiser, self.x, steps=steps, condition=self.condition).flatten(1)
        # the noisiest level, from which states at the other libraries' first levels, which differ, are computed
        top = self.process.at(float(ornstein.core.grids.times(self.process, 1, "flow", self.denoiser.sigma_data)[0]))
        self.top = float(top.noise_ratio)
        self.start = (self.x / float(top.alpha)).flatten(1)
        self._states: dict[float, Tensor] = {}

    def answer(self, y: Tensor, ratio: float) -> Tensor:
        level = self.process.at(self.process.time(-2 * math.log(min(ratio, self.top))))
        with torch.no_grad():
            x = (float(level.alpha) * y).reshape(self.shape)
            return self.denoiser.predict(x, level, self.condition).x0.to(y).flatten(1)

    def at(self, ratio: float) -> Tensor:
        if ratio not in self._states:
            span = abs(math.log(ratio / self.top))
            steps = max(4, math.ceil(10 * span))
            self._states[ratio] = self.start if span < 1e-3 else self._follow(self.start, self.top, ratio, steps)
        return self._states[ratio]


def installed() -> Iterator[frontier.Way]:
    """The configurations of the other libraries that are installed."""
    for module, peer in frontier.PEERS.values():
        if importlib.util.find_spec(module) is None:
            print(f"{module} is absent: left out")
        else:
            yield from peer()


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--calls", default="5,8,10", help="numbers of network calls, separated by commas")
    parser.add_argument("--count", type=int, default=64, help="trajectories to measure on")
    parser.add_argument("--seed", type=int, default=1000, help="of their noise; tuning used 0 and 1")
    asked = parser.parse_args()
    if asked.quick:
        asked.count, asked.calls = 2, "5"
    warnings.filterwarnings("ignore")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    run = Run.load(asked.run)
    problem, kept = Trained(run, asked.count, asked.seed, 50 if asked.quick else 1000), read_tuned(asked.run)
    known = json.loads(Path(frontier.__file__).with_name("frontier.json").read_text("utf-8"))["problems"]
    ways = {(way.library, way.family, way.setting): way for way in installed()}
    for calls in map(int, asked.calls.split(",")):
        tried = {
            (row["library"], row["family"], row["setting"])
            for found in known.values()
            for row in found["rows"]
            if row["calls"] == calls and row["library"] in frontier.PEERS
        }
        errors: dict[tuple[str, ...], float] = {}
        for key in sorted(tried & ways.keys()):
            result = ways[key].run(problem, calls)
            if result is not None and result[1] <= calls:
                errors[key] = problem.error(result[0])
        best = min(errors.values(), default=math.nan)
        print(f"{calls} calls, {len(problem.x)} trajectories, {len(errors)} configurations of others", flush=True)
        if errors:
            nearest = min(errors, key=errors.__getitem__)
            name = " ".join(nearest)
            print(f"  {best:8.4f}  best of them: {name}", flush=True)
        for library in frontier.PEERS:
            mine = min((key for key in errors if key[0] == library), key=lambda key: errors[key], default=None)
            if mine is not None:
                print(f"  {errors[mine]:8.4f}  {' '.join(mine)}", flush=True)
        ends = problem.ends.reshape(problem.shape)
        solvers = {"default": stepper_named(DEFAULT_STEPPER)}
        if "endpoint" in kept.get(calls, {}):
            solvers["tuned"] = kept[calls]["endpoint"]
        for name, stepper in solvers.items():
            found = endpoint_error(problem.denoiser, problem.x, ends, stepper, calls=calls, condition=problem.condition)
            print(
                f"  {found.value:8.4f}  ornstein {name}, {found.value / best:.2f} of the best other's",
                flush=True,
            )


if __name__ == "__main__":
    main()
