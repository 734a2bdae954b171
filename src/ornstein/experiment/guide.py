"""A run, guided: the same run with a guided denoiser in the place of its own, so that all that draws from it is."""

import dataclasses
import inspect
from typing import Any

from ornstein.core.denoiser import NetDenoiser
from ornstein.errors import InputError, lookup
from ornstein.experiment.run import Run
from ornstein.guidance import GUIDANCE, Guidance, NoisyClassifier

#: those that take nothing but numbers and other runs
BY_NAME = {name: way for name, way in GUIDANCE.items() if name in ("classifier-free", "autoguidance", "classifier")}


def guided(run: Run, name: str = "classifier-free", guide: Run | None = None, **options: Any) -> Run:
    """The run with its denoiser guided.

    Args:
        run: what to draw from.
        name: "classifier-free"; "autoguidance", away from the run `guide`; or "classifier", by the run `guide`, which
            was trained with objective=classifier.
        guide: see `name`.
        **options: scale, interval and the like: see the entry of `GUIDANCE`. None stands for its own default.

    Raises:
        InputError: an unknown name or option, a guide that is missing, not wanted, or does not fit; a run without
            labels where there is nothing else to guide to.
    """
    way = lookup(BY_NAME, name, "guidance")
    options = {key: value for key, value in options.items() if value is not None}
    known = [key for key in inspect.signature(way).parameters if key not in ("base", "weaker", "classifier")]
    for key in options:
        if key not in known:
            raise InputError(f"guidance={name!r} takes no {key!r}; it takes {', '.join(known)}.")
    if name == "classifier" and not run.classes:
        raise InputError(f"guidance={name!r} needs labels, and {run.folder} was trained without.")
    if name == "classifier-free" and not run.conditions:
        raise InputError(f"guidance={name!r} needs labels or other conditions, and {run.folder} was trained without.")
    if (guide is None) != (name == "classifier-free"):
        raise InputError(
            f"guidance={name!r} takes no other run to guide by."
            if guide is not None
            else f"guidance={name!r} needs another run to guide by, with --guide RUN."
        )
    if guide is not None:
        if guide.shape != run.shape or guide.conditions != run.conditions:
            raise InputError(
                f"{guide.folder} was trained on other data than {run.folder}: shapes or conditions differ."
            )
        options["weaker" if name == "autoguidance" else "classifier"] = (
            guide.denoiser if name == "autoguidance" else classifier_of(guide, run)
        )
    return with_denoiser(run, way(run.denoiser, **options))


def with_denoiser(run: Run, denoiser: Guidance) -> Run:
    """The run with another denoiser for the same data."""
    return dataclasses.replace(run, denoiser=denoiser)  # type: ignore[arg-type]


def classifier_of(guide: Run, run: Run) -> NoisyClassifier:
    """The classifier that a run trained with objective=classifier is, on the clock of another.

    Raises:
        InputError: the run was trained for something else.
    """
    objective = guide.experiment.objective
    if objective["name"] != "classifier" or not isinstance(guide.denoiser, NetDenoiser):
        raise InputError(f"{guide.folder} is no classifier: train one with objective=classifier.")
    return NoisyClassifier(guide.denoiser.net, run.denoiser.process, objective["shares"], guide.denoiser.sigma_data)
