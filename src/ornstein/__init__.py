"""ornstein: diffusion and score-based generative models on one table.

Five nouns: a `Process` is a clock; a `Denoiser` answers E[x_0 given x_t]; an `Objective` teaches one; a `Stepper`
draws with one; an experiment names one of each.

Names are resolved when they are first used, so that `ornstein --help` answers before torch is loaded; using any of
the names below loads torch and nothing heavier.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ornstein._version import __version__
from ornstein.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from ornstein.core.chains import Tabulated
    from ornstein.core.clocks import EDM, OU, VE, VP, Cosine, Flow, SubVP
    from ornstein.core.condition import Condition
    from ornstein.core.denoiser import Denoiser, FunctionDenoiser, NetDenoiser
    from ornstein.core.drive import Stepper
    from ornstein.core.prediction import Prediction
    from ornstein.core.process import Process
    from ornstein.core.walk import State
    from ornstein.experiment.estimator import DiffusionModel
    from ornstein.experiment.fitting import fit
    from ornstein.experiment.run import Run
    from ornstein.guidance import (
        DPS,
        Autoguidance,
        ClassifierFree,
        ClassifierGuidance,
        LikelihoodGuidance,
        Measurement,
        MomentMatching,
        PiGDM,
        Replacement,
    )
    from ornstein.likelihood import log_likelihood
    from ornstein.plugins import register
    from ornstein.samplers import encode, sample, trajectory

_HOMES = {
    "core.process": ("Process",),
    "core.clocks": ("EDM", "OU", "VE", "VP", "Cosine", "Flow", "SubVP"),
    "core.chains": ("Tabulated",),
    "core.prediction": ("Prediction",),
    "core.condition": ("Condition",),
    "core.denoiser": ("Denoiser", "FunctionDenoiser", "NetDenoiser"),
    "core.drive": ("Stepper",),
    "core.walk": ("State",),
    "guidance": (
        "DPS",
        "Autoguidance",
        "ClassifierFree",
        "ClassifierGuidance",
        "LikelihoodGuidance",
        "Measurement",
        "MomentMatching",
        "PiGDM",
        "Replacement",
    ),
    "samplers": ("encode", "sample", "trajectory"),
    "likelihood": ("log_likelihood",),
    "plugins": ("register",),
    "experiment.fitting": ("fit",),
    "experiment.estimator": ("DiffusionModel",),
}

__all__ = [
    "DPS",
    "EDM",
    "OU",
    "VE",
    "VP",
    "Autoguidance",
    "ClassifierFree",
    "ClassifierGuidance",
    "Condition",
    "Cosine",
    "Denoiser",
    "DiffusionModel",
    "Flow",
    "FunctionDenoiser",
    "InputError",
    "LikelihoodGuidance",
    "Measurement",
    "MomentMatching",
    "NetDenoiser",
    "PiGDM",
    "Prediction",
    "Process",
    "Replacement",
    "State",
    "Stepper",
    "SubVP",
    "Tabulated",
    "__version__",
    "encode",
    "fit",
    "load",
    "log_likelihood",
    "register",
    "sample",
    "trajectory",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"ornstein.{home}"), name)
            return value
    raise AttributeError(f"module 'ornstein' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def load(folder: "str | Path", ema: "float | None" = None) -> "Run":
    """Open a run folder: `ornstein.load("runs/digits").sample(64, label=3, seed=0)`.

    Args:
        folder: what `ornstein train` wrote.
        ema: which average of the weights to use, by its length; None for the run's own choice, 0 for the raw weights.

    Raises:
        InputError: no such folder, a damaged file, or one from a newer version.
    """
    from ornstein.experiment.run import Run

    return Run.load(folder, ema=ema)
