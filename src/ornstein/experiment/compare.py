"""Two ways to draw, side by side from the same noise; and how far each is from the result of a thousand steps.

The samples of a seed start from the same noise whatever the stepper, so two deterministic ways differ only by their
errors, and the error of each is its distance from where the probability-flow ODE leads. A stepper that draws noise
gives another sample of the same distribution: its distance says nothing about its quality, and is not given.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ornstein.errors import InputError
from ornstein.experiment.run import Run
from ornstein.experiment.stream import Drawing, Seen, stream

#: steps of the reference, and who walks it: of order two, two calls a step
REFERENCE, BY = 1000, "heun"


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two.

    Attributes:
        samples: (N, *shape), model space.
        calls: of the network, for each sample.
        seconds: that it took.
        stochastic: whether its stepper draws noise of its own.
    """

    samples: Tensor
    calls: int
    seconds: float
    stochastic: bool


def draw(run: Run, asked: Drawing, tick: Callable[[], None], watch: Callable[[Seen], None]) -> Side:
    """Draw one side; `watch` sees each state.

    Raises:
        InputError: anything that does not fit; a run that is not drawn from by a walk of Gaussian noise.
    """
    run.must_walk("comparing steppers")
    began, last = time.perf_counter(), None
    for last in stream(run, asked, tick):
        watch(last)
    assert last is not None
    stepper = run.way(asked.stepper, asked.steps, asked.grid).stepper
    return Side(last.noisy, last.calls, time.perf_counter() - began, stepper.stochastic)


def reference(run: Run, asked: Drawing, tick: Callable[[], None], watch: Callable[[Seen], None]) -> Tensor:
    """Where the same noise leads along the ODE in `REFERENCE` steps, with the same condition and guidance."""
    steps = min(REFERENCE, run.denoiser.process.chain or REFERENCE)
    fine = dataclasses.replace(asked, stepper=BY, options=None, steps=steps, grid=None)
    return draw(run, fine, tick, watch).samples


def apart(run: Run, one: Tensor, other: Tensor) -> float:
    """Root mean square difference of samples, in units of the deviation of the data.

    Raises:
        InputError: another number of samples.
    """
    if one.shape != other.shape:
        raise InputError(f"samples of shapes {tuple(one.shape)} and {tuple(other.shape)} cannot be compared.")
    return float((one - other).square().mean().sqrt()) / float(run.denoiser.sigma_data)
