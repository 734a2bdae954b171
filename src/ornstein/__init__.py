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
    from collections.abc import Callable
    from pathlib import Path

    from ornstein.core.chains import Tabulated
    from ornstein.core.clocks import EDM, OU, VE, VP, Cosine, Flow, SubVP
    from ornstein.core.condition import Condition
    from ornstein.core.denoiser import Denoiser, FunctionDenoiser, NetDenoiser
    from ornstein.core.drive import Stepper
    from ornstein.core.prediction import Prediction
    from ornstein.core.process import Process
    from ornstein.core.walk import State
    from ornstein.experiment.doctor import Diagnosis
    from ornstein.experiment.estimator import DiffusionModel as DiffusionModel
    from ornstein.experiment.model import Model
    from ornstein.experiment.run import Run
    from ornstein.experiment.watch import Moment
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
    "doctor",
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
    # which is not in `__all__`: it is a class of scikit-learn's, which a star would load
    return sorted([*__all__, "DiffusionModel"])


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


def fit(
    X: Any,
    y: Any = None,
    *,
    folder: "str | Path | None" = None,
    start: "Model | Run | str | Path | None" = None,
    progress: "Callable[[Moment], None] | None" = None,
    **changes: Any,
) -> "Model":
    """Train a model of data in memory, or of a file or folder: `ornstein.fit(frame).sample(1000)`.

    Args:
        X: a data frame, an array or a tensor, a list of pictures, or a path.
        y: the class of each example, of arrays and pictures.
        folder: where the run is kept; None: in a temporary folder that is deleted with the model.
        start: a run to start from, whose types and scales are kept.
        progress: called with each `Moment` of training.
        **changes: by the keys of an experiment: `steps=500`, `**{"net.width": 128}`.

    Returns:
        a model whose `sample`, `impute` and `score_samples` give and take what X is: see
        `ornstein.experiment.model.Model`.

    Raises:
        InputError: data or changes that cannot be; a folder that holds a run already.
    """
    from ornstein.experiment.fitting import fit

    return fit(X, y, folder=folder, start=start, progress=progress, **changes)


def doctor(run: "str | Path | Run", *, n: int = 500, seed: int = 0) -> "Diagnosis":
    """What is wrong with a run and what to change: `print(ornstein.doctor("runs/digits").text())`.

    Args:
        run: what `ornstein train` wrote, or a run opened by `load`. Nothing of it is changed.
        n: how many samples to draw, for the checks of samples.
        seed: random seed.

    Raises:
        InputError: no run; its data are no longer there, or differ from those that it was trained on.
    """
    from ornstein.experiment.doctor import doctor

    return doctor(run, n=n, seed=seed)
