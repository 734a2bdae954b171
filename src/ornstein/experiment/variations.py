"""Variations of a picture: what its embedding holds stays, the rest is drawn anew (`ornstein.mixed.prior`)."""

import dataclasses

from ornstein.errors import InputError, shown
from ornstein.experiment.guide import with_denoiser
from ornstein.experiment.interpolate import read_samples
from ornstein.experiment.run import Run
from ornstein.mixed import PriorAndDecoder


def liked(run: Run, name: str) -> Run:
    """A run of a prior and a decoder that draws given the embedding of a picture, without the prior.

    Args:
        name: the number of a held-out example, a picture's file, or an .npy of one sample.

    Raises:
        InputError: another kind of run; whatever `read_samples` refuses.
    """
    model = run.model
    if not isinstance(model, PriorAndDecoder):
        raise InputError(
            f"--like {shown(name)!r} is of runs that draw an embedding first, trained with preset=prior; "
            f"{run.folder} is none."
        )
    (given,) = read_samples(run, name)
    assert model.embed is not None  # a run's model has it
    z = model.embed(run.transform.forward(given).float().to(model.device))
    return with_denoiser(run, dataclasses.replace(model, like=z))
