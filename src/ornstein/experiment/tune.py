"""Fitting a grid, or a whole solver, to a trained model: `ornstein tune RUN --steps K`, then `sample --grid tuned`.

*By the variational bound.* The bound of a chain is a sum over its steps, and the cost of a step depends on the network
only through its error at one level. One pass over N levels therefore gives the cost of every sub-chain, and a dynamic
programme finds the cheapest of K steps (Watson et al. 2021, 2106.03802; `ornstein.distill.grid`). The grid is chosen
on training data and reported on held-out data.

*By the endpoint.* The levels and weights of a multistep solver are fitted to where the model's own trajectories end
(`ornstein.distill.solver`), and judged on fresh noise by their distance, after K calls, from the end of a 1,000-step
solve, beside the run's default and the other steppers. A solver that does not beat the default is not kept.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.drive import Stepper
from ornstein.core.grids import times
from ornstein.core.numerics import Estimate
from ornstein.distill.grid import best_grid
from ornstein.distill.solver import endpoint_error, endpoints, fit_endpoint, starting_noise, trajectories
from ornstein.errors import InputError
from ornstein.experiment.build import build_stepper, load_data
from ornstein.experiment.folder import holding, write_tuned
from ornstein.experiment.packaged import must_be_ones_own
from ornstein.experiment.run import Run
from ornstein.objectives.bound import Bins
from ornstein.objectives.measured import Errors, step_costs, x0_errors
from ornstein.samplers import STEPPERS

P = ParamSpec("P")
T = TypeVar("T")


def _holding(work: Callable[Concatenate[Run, P], T]) -> Callable[Concatenate[Run, P], T]:
    """The work, done while nobody else writes in the run's folder."""

    @wraps(work)
    def held(run: Run, /, *arguments: P.args, **options: P.kwargs) -> T:
        must_be_ones_own(run.folder, "what is tuned")
        with holding(run.folder, "tuning"):
            return work(run, *arguments, **options)

    return held


@dataclass(frozen=True)
class TunedGrid:
    """What tuning found: the grid, and the bound on held-out data in bits per dimension, of it and of even grids."""

    grid: tuple[float, ...]
    bits: float
    even: dict[str, float]


@_holding
def tune(
    run: Run,
    steps: int,
    *,
    levels: int = 200,
    count: int = 512,
    variance: str = "small",
    seed: int = 0,
    stage: Callable[[str], None] = lambda what: None,
) -> TunedGrid:
    """Choose the `steps` best of `levels` levels for this run by the variational bound, and keep the grid in the run.

    Args:
        steps: of the grid, from 1 to the number of levels.
        levels: how many to choose from, evenly in flow time; on a chain its own levels, evenly.
        count: training examples to measure the network's errors on, and held-out ones to report on.
        variance: of the reverse steps, "small" or "large".
        stage: called with what is being done.

    Raises:
        InputError: steps out of range, or data that are no longer there.
    """
    run.must_walk("tuning")
    process = run.denoiser.process
    levels = levels if process.chain is None else min(levels, process.chain)
    if not (isinstance(steps, int) and 1 <= steps <= levels):
        raise InputError(f"steps={steps!r} must be a whole number from 1 to {levels}, the levels to choose from.")
    data = load_data(run.experiment, run.about, run.folder)
    if data.missing:
        raise InputError("the bound that a grid is tuned by needs complete data; take criterion=endpoint.")
    found = run.transform.levels
    bins = None if found is None else Bins(found.count)

    def measured(part: Tensor, condition: Condition) -> Errors:
        x0 = run.transform.forward(part[:count])
        return x0_errors(
            run.denoiser, x0.to(run.denoiser.device), condition=condition[:count], steps=levels, bins=bins, seed=seed
        )

    stage(f"measuring the network at {levels} levels, on training examples")
    errors = measured(data.train, data.train_condition)
    chosen, _ = best_grid(step_costs(process, errors, variance), steps)
    stage("and on held-out ones")
    unseen = measured(data.test, data.test_condition)
    costs = step_costs(process, unseen, variance)

    def bits(index: Tensor) -> float:
        nats = costs[index[0], index[0]] + costs[index[:-1], index[1:]].sum()
        return float(nats) / (unseen.dims * math.log(2))

    even = {}
    for name in ("trailing",) if process.chain else ("flow", "uniform", "quadratic", "logsnr", "karras"):
        wanted = times(process, steps, name, run.denoiser.unit)
        nearest = (unseen.times[None] - wanted[:, None]).abs().argmin(1)
        even[name] = bits(nearest.unique())
    result = TunedGrid(tuple(unseen.times[chosen].tolist()), bits(chosen), even)
    write_tuned(Path(run.folder), steps, {"grid": list(result.grid)})
    return result


@dataclass(frozen=True)
class Arrival:
    """The distance of a fitted solver from the exact endpoints, on fresh noise, beside others with as many calls.

    Attributes:
        tuned, default: mean distances in model space, of the fitted solver and of the run's own.
        others: of each deterministic stepper with its defaults on the run's grid.
        scale: the mean distance of the endpoints themselves from their mean.
    """

    tuned: Estimate
    default: Estimate
    others: dict[str, Estimate]
    scale: float


@_holding
def tune_endpoint(
    run: Run,
    steps: int,
    *,
    count: int | None = None,
    fresh: int = 256,
    rounds: int = 240,
    reference: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Arrival:
    """Fit a solver of `steps` calls to this run's trajectories, judge it on fresh noise, and keep it if it is better.

    Args:
        steps: network calls, in [1, 64].
        count: trajectories to fit to; None: chosen by their dimension.
        fresh: trajectories to judge by, from other noise, against the end of a fine solve.
        rounds: of fitting.
        reference: steps of that solve; the trajectories fitted to are solved with a fifth as many.
        seed: of the trajectories fitted to; those that judge have another.
        progress: called with (rounds made, rounds).

    Raises:
        InputError: numbers out of range; a solver that does not beat the run's default, and is not kept.
    """
    run.must_walk("tuning")
    denoiser, mine = run.denoiser, run.experiment.sampling
    count = trajectories(run.shape) if count is None else count
    run.must_hold(count, "count")
    fitted = fit_endpoint(
        denoiser, run.shape, steps, count=count, condition=run.examples(count), rounds=rounds,
        teacher_steps=max(reference // 5, 1), seed=2 * seed + 1, progress=progress,
    )  # fmt: skip
    condition = run.examples(fresh).to(denoiser.device)
    x = starting_noise(denoiser, (fresh, *run.shape), 2 * seed)
    ends = endpoints(denoiser, x, steps=reference, condition=condition)

    def error(stepper: Stepper, grid: str | None) -> Estimate:
        return endpoint_error(denoiser, x, ends, stepper, grid, calls=steps, condition=condition)

    own = build_stepper(mine.stepper)
    tuned, default = error(fitted, None), error(own, mine.grid)
    if not tuned.value < default.value:
        raise InputError(
            f"steps={steps}: the fitted solver lands {tuned.value:.4g} from the endpoint on fresh noise, the run's "
            f"default {default.value:.4g}; it was not kept."
        )
    others = {}
    for name, entry in STEPPERS.items():
        stepper = entry()
        if not stepper.stochastic and stepper.calls is not None:
            others[name] = error(stepper, mine.grid)
    write_tuned(Path(run.folder), steps, {"endpoint": fitted})
    scale = (ends - ends.mean(0)).flatten(1).norm(dim=1).mean()
    return Arrival(tuned, default, others, float(scale))
