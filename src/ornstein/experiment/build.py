"""From names to objects: the only room that does it, and the only file of the room."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import nn

from ornstein.core import PROCESSES
from ornstein.core.denoiser import NetDenoiser
from ornstein.core.drive import Stepper
from ornstein.core.process import Process
from ornstein.data import DATA, Dataset, Levels
from ornstein.experiment.config import Experiment, construct
from ornstein.nets import NETS
from ornstein.objectives import OBJECTIVES, Objective
from ornstein.samplers import STEPPERS


@dataclass(frozen=True, eq=False)
class Parts:
    """The objects that an experiment names, short of its data."""

    process: Process
    net: nn.Module
    denoiser: NetDenoiser
    objective: Objective


def load_data(experiment: Experiment) -> Dataset:
    """The experiment's data, read or made.

    Raises:
        InputError: data that are absent or unfit.
    """
    return construct(DATA, experiment.data).load()


def build(
    experiment: Experiment, shape: tuple[int, ...], classes: int, sigma_data: float, levels: Levels | None = None
) -> Parts:
    """The objects for data of this shape, number of classes, standard deviation and quantisation in model space.

    The network's weights are a function of `training.seed`. An objective
    that learns the variance of the reverse step gets a network with twice the channels; one with a `levels` of 0 gets
    those of the data.

    Raises:
        InputError: parts that do not fit each other.
    """
    process = construct(PROCESSES, experiment.process)
    objective = construct(OBJECTIVES, experiment.objective)
    if levels is not None and getattr(objective, "levels", None) == 0:
        objective = dataclasses.replace(objective, levels=levels.count)
    learns_variance = getattr(objective, "learns_variance", False)
    net = construct(NETS, experiment.net).build(
        shape, classes=classes, out_multiple=2 if learns_variance else 1, seed=experiment.training.seed
    )
    denoiser = NetDenoiser(net, process, experiment.predicts, sigma_data, learns_variance)
    return Parts(process, net, denoiser, objective)


def build_stepper(chosen: dict[str, Any]) -> Stepper:
    """The stepper that a complete choice describes."""
    return construct(STEPPERS, chosen)
