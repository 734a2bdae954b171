"""What was measured of a sample, as each kind of run is told of it.

A denoiser of the data is told as it is (`ornstein.guidance.inverse`). One of latents sees what they decode to. The
stages of a cascade see as much each as is fixed of their own picture: of a picture with a hole the coarse one is known
where all the pixels are that a coarse one is the mean of, with less noise by the root of their number. That is all that
a coarse picture is told, so at the rim of a hole it is drawn as the model finds likely, and the finer stages, which are
told every pixel, mend it.
"""

import dataclasses
import math
from collections.abc import Callable

from torch import Tensor

from ornstein.core.denoiser import Denoiser
from ornstein.core.drive import Stepper
from ornstein.data import Coded
from ornstein.errors import InputError, lookup
from ornstein.experiment.guide import with_denoiser
from ornstein.experiment.run import Run
from ornstein.guidance import GUIDANCE, Guidance, Mask, Measurement, Operator, ReadBack, RePaint
from ornstein.latent import Cascade
from ornstein.latent.cascade import halved

#: what restoring is, where a run cannot
_JOB = "filling in or restoring what was measured"
#: the ways to solve an inverse problem by guidance; and that by a stepper around a stepper
_GUIDED, REPAINT = ("pigdm", "moment-matching", "dps", "replacement"), "repaint"
METHODS: tuple[str, ...] = (*_GUIDED, REPAINT)
#: those that need a linear measurement
LINEAR = ("replacement", REPAINT)


def must_restore(run: Run) -> None:
    """Refuse a run that nothing measured can be told to.

    Raises:
        InputError: it draws nothing, or by no walk of Gaussian noise.
    """
    if not isinstance(run.model, Cascade):
        run.must_walk(_JOB)


def check(run: Run, method: str, operator: Operator) -> None:
    """Refuse a method that is not known, or that does not go with a run and what was measured.

    Raises:
        InputError: as it says.
    """
    must_restore(run)
    lookup(dict.fromkeys(METHODS), method, "method")
    if method in LINEAR and isinstance(run.transform, Coded):
        raise InputError(
            f"method={method!r} is of linear measurements, and decoding is none; take pigdm, moment-matching or dps."
        )
    if isinstance(run.model, Cascade):
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
    """The run that draws given a measurement, and by which stepper.

    Args:
        run, method, operator: as `check` lets pass.
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
    if not isinstance(model, Cascade):
        return with_denoiser(run, way(model, measurement)), stepper
    last = len(model.stages) - 1

    def guide(denoiser: Denoiser, stage: int) -> Denoiser:
        return way(denoiser, coarsened(measurement, last - stage))

    return with_denoiser(run, dataclasses.replace(model, guide=guide)), stepper


def coarsened(measurement: Measurement, times: int) -> Measurement:
    """Of a picture with a mask, what is known of it after its sides were halved so many times: the whole means."""
    mask = measurement.operator
    assert isinstance(mask, Mask)  # of `check`
    if not times:
        return measurement
    known = halved(mask.known.float(), times) == 1
    y = halved(measurement.y, times) * known.to(measurement.y)
    return Measurement(Mask(known), y, measurement.noise / math.sqrt(2 ** (times * (y.ndim - 2))))


def decoded(run: Run, drawn: Tensor) -> Tensor:
    """What a run draws in the space of its samples: latents decoded, all else as it is."""
    return run.transform.own.decode(drawn) if isinstance(run.transform, Coded) else drawn
