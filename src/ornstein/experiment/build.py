"""From names to objects: the only room that does it, and the only file of the room."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ornstein.core import PROCESSES
from ornstein.core.denoiser import NetDenoiser
from ornstein.core.drive import Stepper
from ornstein.core.process import Process
from ornstein.data import DATA, Dataset
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


def build(experiment: Experiment, shape: tuple[int, ...], classes: int, sigma_data: float) -> Parts:
    """The objects for data of this shape, number of classes and standard deviation in model space.

    The network's weights are a function of `training.seed`; the global random state is left as it was.

    Raises:
        InputError: parts that do not fit each other.
    """
    process = construct(PROCESSES, experiment.process)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.training.seed)
        net = construct(NETS, experiment.net).build(shape, classes=classes)
    denoiser = NetDenoiser(net, process, experiment.predicts, sigma_data)
    return Parts(process, net, denoiser, construct(OBJECTIVES, experiment.objective))


def build_stepper(chosen: dict[str, Any]) -> Stepper:
    """The stepper that a complete choice describes."""
    return construct(STEPPERS, chosen)
