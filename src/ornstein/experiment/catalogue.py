"""What there is, in one line each: the tables that `ornstein list`, the docs and menus read."""

import inspect
from collections.abc import Callable
from typing import Any

from ornstein.core.grids import GRIDS
from ornstein.data import DATA
from ornstein.distill import DISTILLATIONS
from ornstein.distill.renderers import RENDERERS
from ornstein.distill.score import SCORE_DISTILLATIONS
from ornstein.experiment.config import PROCESSES, methods, nets, objectives, presets, readings, steppers
from ornstein.experiment.learner import LEARNERS
from ornstein.experiment.students import METHODS
from ornstein.guidance import GUIDANCE
from ornstein.metrics import METRICS


def tables() -> dict[str, dict[str, str]]:
    """Every table by the plural of its noun: name -> one sentence."""
    entries: dict[str, dict[str, Callable[..., Any]]] = {
        "processes": dict(PROCESSES),
        "steppers": steppers(),
        "grids": dict(GRIDS),
        "objectives": objectives(),
        "learners": dict(LEARNERS),
        "guidance": dict(GUIDANCE),
        "distillations": {name: DISTILLATIONS[objective] for name, objective in METHODS.items()},
        "score-distillations": dict(SCORE_DISTILLATIONS),
        "renderers": dict(RENDERERS),
        "nets": nets(),
        "data": dict(DATA),
        "metrics": dict(METRICS),
    }
    lines = {noun: {name: summary(entry) for name, entry in table.items()} for noun, table in entries.items()}
    return {**lines, "readings": readings(), "presets": presets(), "methods": methods()}


def summary(entry: Callable[..., Any]) -> str:
    """The first line of an entry's docstring."""
    return (inspect.getdoc(entry) or "").partition("\n")[0]
