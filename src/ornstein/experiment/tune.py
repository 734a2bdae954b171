"""Fitting a time grid to a trained model: `ornstein tune RUN --steps K`, then `sample RUN --grid tuned --steps K`.

The variational bound of a chain is a sum over its steps, and the price of a step depends on the network through its
error at one level alone. One pass over N levels therefore prices every sub-chain, and a dynamic programme finds the
cheapest of K steps (Watson et al. 2021, 2106.03802; `ornstein.samplers.schedule`). The grid is chosen on training data
and reported on held-out data.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from ornstein.core.grids import times
from ornstein.errors import InputError
from ornstein.experiment.build import load_data
from ornstein.experiment.run import TUNED, Run, read_tuned, write_text
from ornstein.objectives.bound import Bins, Errors, step_costs, x0_errors
from ornstein.samplers.schedule import best_grid


@dataclass(frozen=True)
class Tuned:
    """What tuning found: the grid, and the bound on held-out data in bits per dimension, of it and of even grids."""

    grid: tuple[float, ...]
    bits: float
    even: dict[str, float]


def tune(run: Run, steps: int, *, levels: int = 200, count: int = 512, variance: str = "small", seed: int = 0) -> Tuned:
    """Choose the `steps` best of `levels` levels for this run by the variational bound, and keep the grid in the run.

    Args:
        steps: of the grid, from 1 to the number of levels.
        levels: to choose from, evenly in flow time; on a chain its own levels, evenly.
        count: training examples to measure the network's errors on, and held-out ones to report on.
        variance: of the reverse steps that are priced, "small" or "large".

    Raises:
        InputError: steps out of range, or data that are no longer to be had.
    """
    process = run.denoiser.process
    levels = levels if process.chain is None else min(levels, process.chain)
    if not (isinstance(steps, int) and 1 <= steps <= levels):
        raise InputError(f"steps={steps!r} must be a whole number from 1 to {levels}, the levels to choose from.")
    data = load_data(run.experiment)
    found = run.transform.levels
    bins = None if found is None else Bins(found.count)

    def measured(part: Tensor, labels: Tensor | None) -> Errors:
        x0 = run.transform.forward(part[:count])
        cond = None if labels is None else labels[:count]
        return x0_errors(run.denoiser, x0.to(run.denoiser.device), cond=cond, steps=levels, bins=bins, seed=seed)

    errors = measured(data.train, data.train_labels)
    chosen, _ = best_grid(step_costs(process, errors, variance), steps)
    unseen = measured(data.test, data.test_labels)
    costs = step_costs(process, unseen, variance)

    def bits(index: Tensor) -> float:
        nats = costs[index[0], index[0]] + costs[index[:-1], index[1:]].sum()
        return float(nats) / (unseen.dims * math.log(2))

    even = {}
    for name in ("trailing",) if process.chain else ("flow", "uniform", "quadratic", "logsnr", "karras"):
        wanted = times(process, steps, name)
        nearest = (unseen.times[None] - wanted[:, None]).abs().argmin(1)
        even[name] = bits(nearest.unique())
    result = Tuned(tuple(unseen.times[chosen].tolist()), bits(chosen), even)
    kept: dict[int, Any] = {**read_tuned(run.folder), steps: {"criterion": "bound", "grid": list(result.grid)}}
    write_text(Path(run.folder) / TUNED, yaml.safe_dump(kept, sort_keys=True))
    return result
