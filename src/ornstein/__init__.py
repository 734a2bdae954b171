"""ornstein: diffusion and score-based generative models on one table.

Five nouns: a `Process` is a clock; a `Denoiser` answers E[x_0 given x_t]; an `Objective` teaches one; a `Stepper`
draws with one; an experiment names one of each. Importing this module loads torch and nothing heavier.
"""

from typing import Any

from ornstein._version import __version__
from ornstein.core.denoiser import Denoiser, FunctionDenoiser, NetDenoiser
from ornstein.core.prediction import Prediction
from ornstein.core.process import EDM, OU, VE, VP, Cosine, Flow, Process, SubVP, Tabulated
from ornstein.errors import InputError
from ornstein.samplers import sample, trajectory

__all__ = [
    "EDM",
    "OU",
    "VE",
    "VP",
    "Cosine",
    "Denoiser",
    "Flow",
    "FunctionDenoiser",
    "InputError",
    "NetDenoiser",
    "Prediction",
    "Process",
    "SubVP",
    "Tabulated",
    "__version__",
    "load",
    "sample",
    "trajectory",
]


def load(folder: str, **options: Any):  # type: ignore[no-untyped-def]
    """Open a run folder, as in `ornstein.load("runs/digits").sample(64, label=3, seed=0)`; see `experiment.run.Run`."""
    from ornstein.experiment.run import Run

    return Run.load(folder, **options)
