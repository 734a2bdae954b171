"""How long training and drawing take on this machine: real steps of the very network, timed at two batches.

The larger batch is the whole one if a few seconds allow; the line through both gives any other. Conversely it gives
the number of steps that fit into a given time (`within`).
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ornstein import ranks
from ornstein.core.walk import end
from ornstein.data import Dataset
from ornstein.experiment.build import build
from ornstein.experiment.config import Experiment
from ornstein.experiment.critics import MOST_SEEN
from ornstein.experiment.devices import process_bytes
from ornstein.experiment.run import BATCH
from ornstein.experiment.settle import way
from ornstein.experiment.workload import network_call
from ornstein.training import fit, half
from ornstein.training.count import Line

#: seconds that a calibration may take at its larger batch; what it times, after two that warm up
_PATIENCE, TIMED = 20.0, 5
#: rows by which it is timed what a critic takes
_TAUGHT = 256, 2048


class _Enough(Exception):
    """Ends a calibration between two steps, before anything is saved."""


def calibrate(experiment: Experiment, data: Dataset) -> Line:
    """(seconds, processor seconds, most bytes in memory) of real training steps at two batches, on this machine.

    The larger is that of the run, or of a piece of it, unless a few such steps would take too long. Bytes are the
    whole process's, NaN where the system does not say.
    """
    config = experiment.training

    def at(batch: int) -> np.ndarray:
        built = build(experiment, data.fingerprint(), data.transform)
        memory = built.learner.memory(built.model, *data.batch(0, batch, config.seed))
        process_bytes("VmHWM", since_now=True)
        stamps: list[tuple[float, float]] = []

        def batches(step: int) -> Any:  # asked for once a step, so these are the times between steps
            stamps.append((time.perf_counter(), time.process_time()))
            if len(stamps) > TIMED + 2:
                raise _Enough
            return data.batch(step, batch, config.seed)

        short = dataclasses.replace(
            config, accumulate=1, steps=10**6, checkpoint_every=10**6, snapshot_every=0,
            threads=torch.get_num_threads(),  # measuring them would be timed too
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            try:
                for _ in fit(built.net, built.loss(memory), batches, short, folder, memory=memory):
                    pass
            except _Enough:
                pass
        return np.array([*np.median(np.diff(stamps, axis=0)[2:], axis=0), process_bytes("VmHWM")])

    return _line(at, config.batch_size // config.accumulate)


def calibrate_call(experiment: Experiment, data: Dataset, precision: str) -> np.ndarray:
    """(seconds, processor seconds) of a network call for one sample, in batches as drawing has them, measured here."""
    built = build(experiment, data.fingerprint(), data.transform)
    built.net.to(ranks.device(experiment.training.cpu))
    call = network_call(experiment, built, data, precision)

    def at(batch: int) -> np.ndarray:
        stamps = []
        for _ in range(TIMED + 2):
            stamps.append((time.perf_counter(), time.process_time()))
            call(batch)
        return np.median(np.diff(stamps, axis=0)[1:], axis=0)

    at_once: np.ndarray = _line(at, BATCH).at(BATCH)
    return at_once / BATCH


def calibrate_critic(experiment: Experiment, data: Dataset, rows: int) -> np.ndarray:
    """(seconds, processor seconds) of teaching a critic that sees so many draws, by drawing and teaching a few here."""
    learner, model = (built := build(experiment, data.fingerprint(), data.transform)).learner, built.model
    built.net.eval().to(ranks.device(experiment.training.cpu))
    how = way(experiment.sampling, learner)
    drawn = torch.empty(0)

    def timed(what: Callable[[], Any]) -> np.ndarray:
        began = time.perf_counter(), time.process_time()
        what()
        return np.array([time.perf_counter() - began[0], time.process_time() - began[1]])

    def draw(count: int) -> None:
        nonlocal drawn
        _, condition = data.batch(0, count, 0)
        with torch.no_grad(), half(model.device, experiment.sampling.precision):
            walk = learner.trajectory(model, count, how.stepper, how.steps, how.grid, condition=condition, seed=0)
            drawn = learner.seen_by_critic(end(walk).x.cpu())

    def teach(count: int) -> None:
        real = learner.seen_by_critic(data.transform.forward(data.train[:count]))
        learner.critic(real, drawn[:count], torch.Generator().manual_seed(0))

    few, many = _TAUGHT
    draw(few)
    drawing: np.ndarray = timed(lambda: draw(many)) / many
    low, high = (timed(lambda count=count: teach(count)) for count in _TAUGHT)  # type: ignore[misc]
    real = min(len(data.train), MOST_SEEN)
    # rows of either kind cost the same, beside what each tree costs by itself
    found: np.ndarray = rows * drawing + low + (high - low) * max((rows + real) / 2 - few, 0) / (many - few)
    return found


def within(experiment: Experiment, step: float, validation: float) -> Experiment:
    """The experiment with the steps that its minutes allow, if it has any, and no minutes.

    Args:
        step, validation: seconds of a training step, and of what is measured and drawn on the way each time.
    """
    config = experiment.training
    if config.minutes is None:
        return experiment
    fits = int(60 * config.minutes / (step + validation / config.validate_every))
    training = dataclasses.replace(config, steps=max(min(config.steps, fits), 1), minutes=None)
    return dataclasses.replace(experiment, training=training)


def _line(at: Callable[[int], np.ndarray], most: int) -> Line:
    """Through batches of an eighth of `most` and of `most`, or of what can be afforded."""
    few = max(1, most // 8)
    low = at(few)
    affordable = int(few * _PATIENCE / (TIMED * float(np.max(low[:2]))))
    many = min(most, max(2 * few, affordable))
    return Line(few, many, low, at(many) if many > few else low)
