"""A guided run: the same run with a guided denoiser in place of its own, so that all drawing is guided."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from ornstein.discrete import TokenClassifier
from ornstein.errors import InputError, lookup
from ornstein.experiment.run import Run
from ornstein.guidance import GUIDANCE, Guidance, NoisyClassifier
from ornstein.latent import Cascading


def classifier_of(guide: Run, run: Run) -> Any:
    """The classifier that a run trained with objective=classifier is, on the clock of another; or that of tokens.

    Raises:
        InputError: the run was trained for something else.
    """
    if isinstance(guide.model, TokenClassifier):
        return guide.model  # whose kernel must be the same: there is no other clock to put it on
    if not isinstance(guide.model, NoisyClassifier):
        raise InputError(f"{guide.folder} is no classifier: train one with objective=classifier.")
    return dataclasses.replace(guide.model, process=run.denoiser.process)


#: what a guidance may want of another run, by the name of its argument: made of that run and the one that is guided
_OF_A_GUIDE: dict[str, Callable[[Run, Run], Any]] = {
    "weaker": lambda guide, run: guide.denoiser,
    "classifier": classifier_of,
}


def _arguments(way: Callable[..., Guidance]) -> dict[str, bool]:
    """What a guidance takes besides the denoiser that it guides, and whether it must be given."""
    taken = inspect.signature(way).parameters
    return {name: one.default is inspect.Parameter.empty for name, one in taken.items() if name != "base"}


#: those that take nothing but numbers and other runs
BY_NAME = {
    name: way
    for name, way in GUIDANCE.items()
    if all(key in _OF_A_GUIDE for key, needed in _arguments(way).items() if needed)
}


def guided(run: Run, name: str = "classifier-free", guide: Run | None = None, **options: Any) -> Run:
    """The run with its denoiser guided.

    Args:
        run: what to draw from.
        name: "classifier-free"; "autoguidance", away from the run `guide`; or "classifier", by the run `guide`, which
            was trained with objective=classifier.
        guide: see `name`.
        **options: scale, interval and others: see the entry of `GUIDANCE`. None stands for its default.

    Raises:
        InputError: an unknown name or option; a guide that is missing, not needed, or does not fit; a run without
            labels if there is nothing else to guide to.
    """
    if not run.learner.guidance:
        run.must_walk("guidance")
    way = lookup(run.learner.guidance or BY_NAME, name, "guidance")
    options = {key: value for key, value in options.items() if value is not None}
    wanted = [key for key in _arguments(way) if key in _OF_A_GUIDE]
    known = [key for key in _arguments(way) if key not in wanted]
    for key in options:
        if key not in known:
            raise InputError(f"guidance={name!r} takes no {key!r}; it takes {', '.join(known)}.")
    if "weaker" not in wanted:  # away from a worse model is a way without labels
        if wanted and not run.classes:
            raise InputError(f"guidance={name!r} needs labels, and {run.folder} was trained without.")
        if not run.conditions:
            raise InputError(
                f"guidance={name!r} needs labels or other conditions, and {run.folder} was trained without."
            )
    if (guide is None) == bool(wanted):
        raise InputError(
            f"guidance={name!r} needs another run to guide by, with --guide RUN."
            if wanted
            else f"guidance={name!r} takes no other run to guide by."
        )
    if guide is not None:
        if guide.shape != run.shape or guide.conditions != run.conditions:
            raise InputError(
                f"{guide.folder} was trained on other data than {run.folder}: shapes or conditions differ."
            )
        options |= {key: _OF_A_GUIDE[key](guide, run) for key in wanted}
    return with_denoiser(run, way(run.denoiser, **options))


def augmented(run: Run, level: float) -> Run:
    """A run of a cascade with that noise on the coarse picture that its finer stages are given.

    Raises:
        InputError: a run of something else, or a level that was not trained.
    """
    if not isinstance(run.learner, Cascading):
        raise InputError(f"augmentation={level:g} is of cascades, and {run.folder} is no cascade.")
    return dataclasses.replace(run, learner=dataclasses.replace(run.learner, level=level))


def with_denoiser(run: Run, denoiser: Any) -> Run:
    """The run with another denoiser for the same data, or another cascade of them."""
    return dataclasses.replace(run, model=denoiser)
