"""Measurements of a sample, in the form that each kind of run needs.

A denoiser of the data gets the measurement as it is (`ornstein.guidance.inverse`). A denoiser of latents gets it
through the decoder. Each stage of a cascade gets as much as is fixed of its own picture: in a picture with a hole, a
coarse pixel is known where all the pixels that it averages are known, with noise smaller by the root of their number.
The coarse picture gets nothing else, so at the rim of a hole it is drawn as the model finds likely; the finer stages,
which get every pixel, correct it.
"""

import math
from collections.abc import Callable

from torch import Tensor

from ornstein.core.drive import Stepper
from ornstein.data import Coded
from ornstein.errors import InputError, lookup
from ornstein.experiment.guide import with_denoiser
from ornstein.experiment.run import Run
from ornstein.guidance import GUIDANCE, Guidance, Mask, Measurement, Operator, ReadBack, RePaint
from ornstein.latent.cascade import halved

#: the task, named in the refusal of a run that cannot do it
_JOB = "filling in or restoring what was measured"
#: the methods that solve an inverse problem by guidance; and the one that is a stepper around a stepper
_GUIDED, REPAINT = ("pigdm", "moment-matching", "dps", "replacement"), "repaint"
METHODS: tuple[str, ...] = (*_GUIDED, REPAINT)
#: the methods that need a linear measurement
LINEAR = ("replacement", REPAINT)


def must_restore(run: Run) -> None:
    """Refuse a run that cannot use measurements.

    Raises:
        InputError: it draws nothing, or not by a walk of Gaussian noise.
    """
    run.must_draw()
    if not run.learner.halvings:
        run.must_walk(_JOB)


def check(run: Run, method: str, operator: Operator) -> None:
    """Refuse a method that is unknown, or that does not fit the run or the measurement.

    Raises:
        InputError: the method is such a one.
    """
    must_restore(run)
    lookup(dict.fromkeys(METHODS), method, "method")
    if method in LINEAR and isinstance(run.transform, Coded):
        raise InputError(
            f"method={method!r} is of linear measurements, and decoding is none; take pigdm, moment-matching or dps."
        )
    if any(run.learner.halvings):
        if not isinstance(operator, Mask):
            raise InputError(
                f"{operator!r} says nothing of a coarse picture alone, and {run.folder} draws that first: a cascade "
                "fills in what is hidden, by inpaint."
            )
        if method == REPAINT:
            raise InputError(f"method={method!r} walks one picture up and down; of cascades take {', '.join(_GUIDED)}.")


def told(
    run: Run, method: str, operator: Operator, y: Tensor, noise: float, stepper: Stepper
) -> tuple[Run, "Stepper | RePaint"]:
    """The run that draws given a measurement, and the stepper to draw with.

    Args:
        run, method, operator: such that `check` accepts them.
        y: (rows, *measured), in the space of the samples.
        noise: standard deviation of the noise.
        stepper: the inner one.
    """
    model = run.denoiser
    operator = ReadBack(operator, run.transform.own) if isinstance(run.transform, Coded) else operator
    measurement = Measurement(operator, y.to(model.device), noise)
    if method == REPAINT:
        return with_denoiser(run, GUIDANCE["replacement"](model, measurement)), RePaint(stepper, measurement)
    way: Callable[..., Guidance] = GUIDANCE[method]
    knowing = run.learner.around(model, lambda one, halvings: way(one, coarsened(measurement, halvings)))
    return with_denoiser(run, knowing), stepper


def coarsened(measurement: Measurement, times: int) -> Measurement:
    """What a picture's mask leaves known after its sides have been halved so many times: the whole means."""
    if not times:
        return measurement
    mask = measurement.operator
    assert isinstance(mask, Mask)  # ensured by `check`
    known = halved(mask.known.float(), times) == 1
    y = halved(measurement.y, times) * known.to(measurement.y)
    return Measurement(Mask(known), y, measurement.noise / math.sqrt(2 ** (times * (y.ndim - 2))))


def decoded(run: Run, drawn: Tensor) -> Tensor:
    """A run's draws in the space of its samples: latents decoded, anything else unchanged."""
    return run.transform.own.decode(drawn) if isinstance(run.transform, Coded) else drawn
