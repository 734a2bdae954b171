"""What an experiment asks of a device: its training step and its network calls, counted on the CPU at any batch."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ornstein.data import Dataset
from ornstein.experiment.build import Built
from ornstein.experiment.config import Experiment
from ornstein.experiment.settle import way
from ornstein.nets import MLP
from ornstein.training import half
from ornstein.training.count import Counted, counted


@dataclass(frozen=True)
class Workload:
    """What a run computes, moves and keeps.

    Attributes:
        training: the loss, forward and backward.
        trial: the same in float32, if that is timed before another type is chosen; otherwise None.
        drawing: a network call in the precision of pictures and held-out errors; None if it does not draw.
        calls: network calls that a sample takes.
        shows: that precision, which is training's.
    """

    training: Counted
    trial: Counted | None
    drawing: Counted | None
    calls: int
    shows: str


def count_work(experiment: Experiment, built: Built, data: Dataset, tries: bool) -> Workload:
    """Count a run whose precisions are decided; `tries` says that training's was left to be measured."""
    config = experiment.training
    training, trial = count_training(experiment, built, data), None
    if tries and config.precision != "float32":
        wide = dataclasses.replace(config, precision="float32")
        trial = count_training(dataclasses.replace(experiment, training=wide), built, data)
    draws = built.learner.draws
    calls = network_calls(experiment, built, data) if draws else 0
    shows = config.precision if built.learner.narrow else "float32"
    drawing = count_call(experiment, built, data, shows) if draws else None
    return Workload(training, trial, drawing, calls, shows)


def count_training(experiment: Experiment, built: Built, data: Dataset) -> Counted:
    """The experiment's loss, forward and backward, counted on the CPU."""
    net, config = built.net.train(), experiment.training

    def work(batch: int) -> None:
        x0, condition = data.batch(0, batch, config.seed)
        loss = built.loss(built.learner.memory(built.model, x0, condition))
        net.zero_grad()
        with torch.random.fork_rng([]), half(torch.device("cpu"), config.precision):
            dice = torch.Generator().manual_seed(config.seed)
            losses = loss(net, (x0, condition), dice)
        losses.float().sum().backward()

    found = counted(work, net)
    net.zero_grad()
    return found


def count_call(experiment: Experiment, built: Built, data: Dataset, precision: str) -> Counted:
    """One network call as samplers make it, counted on the CPU."""
    return counted(network_call(experiment, built, data, precision), built.net)


def network_calls(experiment: Experiment, built: Built, data: Dataset) -> int:
    """Network calls that one sample takes: counted by drawing one with a tiny network in place of the real one."""
    learner = built.learner
    tiny = learner.network(MLP(width=4, depth=1).build).eval()
    how = way(experiment.sampling, learner)
    _, condition = data.batch(0, 1, 0)
    walk = learner.trajectory(learner.model(tiny), 1, how.stepper, how.steps, how.grid, seed=0, condition=condition)
    for state in walk:
        calls = state.calls
    return calls // learner.asks


def network_call(experiment: Experiment, built: Built, data: Dataset, precision: str) -> Callable[[int], None]:
    """A network call for so many samples, as samplers make it."""
    built.net.eval()
    model, level = built.model, built.process.at(built.process.t_max / 2)

    def call(batch: int) -> None:
        x, condition = data.batch(0, batch, 0)
        there = model.device
        with torch.no_grad(), half(there, precision):
            found = model.predict(x.to(there), level, condition.to(there))
            found.x0.cpu()  # waits for the device

    return call
