"""What there is, in one line each: the tables that `ornstein list`, the docs and menus read."""

import inspect
from collections.abc import Callable

from ornstein.core.grids import GRIDS
from ornstein.core.prediction import READINGS
from ornstein.data import DATA
from ornstein.experiment.config import ENERGY, OBJECTIVES, PROCESSES, methods, presets
from ornstein.guidance import GUIDANCE
from ornstein.metrics import METRICS
from ornstein.nets import NETS
from ornstein.samplers import STEPPERS

_READINGS = {
    "x0": "The clean data.",
    "eps": "The noise (Ho et al. 2020).",
    "score": "The score, grad log q(x_t) (Song & Ermon 2019).",
    "v": "The turning vector alpha eps - sigma x0 (Salimans & Ho 2022).",
    "velocity": "The drift of the probability-flow ODE, which is the field of flow matching (Lipman et al. 2023).",
    ENERGY: "An energy, minus the log density up to a constant, whose gradient is the score (LeCun et al. 2006).",
    "edm": "EDM's preconditioned output, of unit variance at every level (Karras et al. 2022).",
}


def tables() -> dict[str, dict[str, str]]:
    """Every table by the plural of its noun: name -> one sentence."""
    entries: dict[str, dict[str, Callable]] = {
        "processes": dict(PROCESSES),
        "steppers": dict(STEPPERS),
        "grids": dict(GRIDS),
        "objectives": dict(OBJECTIVES),
        "guidance": dict(GUIDANCE),
        "nets": dict(NETS),
        "data": dict(DATA),
        "metrics": dict(METRICS),
    }
    lines = {noun: {name: summary(entry) for name, entry in table.items()} for noun, table in entries.items()}
    readings = {name: _READINGS[name] for name in (*READINGS, ENERGY)}
    return {**lines, "readings": readings, "presets": presets(), "methods": methods()}


def summary(entry: Callable) -> str:
    """The first line of an entry's docstring."""
    return (inspect.getdoc(entry) or "").partition("\n")[0]
