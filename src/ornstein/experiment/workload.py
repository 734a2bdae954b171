"""What an experiment asks of a device: its training step and its network calls, counted on the CPU at any batch."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ornstein.core.drive import trajectory
from ornstein.core.grids import times
from ornstein.data import Dataset
from ornstein.experiment.build import (
    Parts,
    build_for,
    build_stepper,
    loss_of,
    measured_precision,
    needs_float32,
    remembered,
    with_net,
)
from ornstein.experiment.config import CLASSIFIER, ENERGY, Experiment
from ornstein.experiment.devices import GPU, own_device
from ornstein.experiment.run import Run
from ornstein.nets import MLP
from ornstein.training import AUTO, PRECISIONS, half
from ornstein.training.count import Counted, counted


@dataclass(frozen=True)
class Workload:
    """What a run computes, moves and keeps.

    Attributes:
        training: the loss, forward and backward.
        trial: the same in float32, where that is tried before it is left; None where not.
        drawing: a network call in the precision of pictures and held-out errors; None of what draws nothing.
        calls: network calls that a sample takes.
        shows: that precision, which is training's.
    """

    training: Counted
    trial: Counted | None
    drawing: Counted | None
    calls: int
    shows: str


def count_work(experiment: Experiment, parts: Parts, data: Dataset, tries: bool) -> Workload:
    """Count a run whose precisions are decided; `tries` says that training's was left to be measured."""
    config = experiment.training
    training, trial = count_training(experiment, parts, data), None
    if tries and config.precision != "float32":
        wide = dataclasses.replace(config, precision="float32")
        trial = count_training(dataclasses.replace(experiment, training=wide), parts, data)
    draws = experiment.objective["name"] != CLASSIFIER
    calls = network_calls(experiment, parts) if draws else 0
    shows = "float32" if experiment.predicts == ENERGY else config.precision
    drawing = count_call(experiment, parts, data, shows) if draws else None
    return Workload(training, trial, drawing, calls, shows)


def decide_precisions(experiment: Experiment, parts: Parts, data: Dataset, gpu: GPU | None = None) -> Experiment:
    """The experiment with its precisions, where they are "auto", decided.

    For this machine they are measured, as training and drawing will; for a GPU that is not at hand they are bfloat16
    where it has that, and float32 where not.
    """
    config, how = experiment.training, experiment.sampling
    training, sampling = config.precision, how.precision
    has = "bfloat16" if gpu and gpu.bfloat16 else "float32"
    energy = experiment.predicts == ENERGY
    if training == AUTO:
        piece = data.batch(0, -(-config.batch_size // config.accumulate), config.seed)
        if gpu:
            training = "float32" if needs_float32(experiment, parts, piece[0]) else has
        else:
            training, _ = measured_precision(experiment, parts, *piece, own_device(config))
    if energy:
        sampling = "float32"
    elif sampling == AUTO and gpu:
        sampling = has
    elif sampling == AUTO:
        apart = build_for(experiment, data)
        apart.net.eval().to(own_device(config))
        found = Run(Path(), experiment, {"data": data.fingerprint()}, apart.denoiser, data.transform).drawing().denoiser
        sampling = next(name for name, dtype in PRECISIONS.items() if dtype == getattr(found, "precision", None))
    return dataclasses.replace(
        experiment,
        training=dataclasses.replace(config, precision=training),
        sampling=dataclasses.replace(how, precision=sampling),
    )


def count_training(experiment: Experiment, parts: Parts, data: Dataset) -> Counted:
    """The experiment's loss, forward and backward, counted on the CPU."""
    net, config = parts.net.train(), experiment.training

    def work(batch: int) -> None:
        x0, labels = data.batch(0, batch, config.seed)
        loss = loss_of(parts, remembered(parts, x0))
        net.zero_grad()
        with torch.random.fork_rng([]), half(torch.device("cpu"), config.precision):
            dice = torch.Generator().manual_seed(config.seed)
            losses = loss(net, (x0, labels), dice)
        losses.float().sum().backward()

    found = counted(work, net)
    net.zero_grad()
    return found


def count_call(experiment: Experiment, parts: Parts, data: Dataset, precision: str) -> Counted:
    """One network call as samplers make it, counted on the CPU."""
    return counted(network_call(experiment, parts, data, precision), parts.net)


def network_calls(experiment: Experiment, parts: Parts) -> int:
    """Network calls that one sample takes: counted by drawing one with a tiny network in the other's place."""
    wide = 2 if getattr(parts.objective, "learns_variance", False) else 1
    tiny = MLP(width=4, depth=1).build((2,), classes=0, out_multiple=wide, seed=0).eval()
    denoiser = with_net(parts.denoiser, tiny)
    how = experiment.sampling
    steps = how.steps or parts.process.chain or 30
    for state in trajectory(denoiser, (1, 2), build_stepper(how.stepper), steps=steps, grid=how.grid, seed=0):
        calls = state.calls
    return calls


def network_call(experiment: Experiment, parts: Parts, data: Dataset, precision: str) -> Callable[[int], None]:
    """A network call for so many samples, as samplers make it."""
    parts.net.eval()
    steps = experiment.sampling.steps or parts.process.chain or 30
    level = parts.process.levels(times(parts.process, steps, experiment.sampling.grid, parts.denoiser.sigma_data))[0]

    def call(batch: int) -> None:
        x, labels = data.batch(0, batch, 0)
        there = parts.denoiser.device
        with torch.no_grad(), half(there, precision):
            found = parts.denoiser.predict(x.to(there), level, None if labels is None else labels.to(there))
            found.x0.cpu()  # waits for the device

    return call
