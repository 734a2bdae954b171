"""Rows with holes beside rows without: how complete samples are compared with data that have holes.

Keeping only complete rows would throw data away, and there may be none. Instead every sample gets the holes of a real
row, in turn, and all holes are filled with the mean of the training part. If cells are missing completely at random,
both sides then have the same distribution exactly if the model has that of the data; and the real data that set the
floor of every measure have the same holes.
"""

import torch
from torch import Tensor

from ornstein.data.statistics import moments


def filled(x: Tensor, train: Tensor) -> Tensor:
    """x (n, F, ...) with each NaN replaced by the mean of its feature in the training part, data units."""
    if not (x.is_floating_point() and x.isnan().any()):
        return x
    mean = moments(train)[0].to(x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))
    return torch.where(x.isnan(), mean, x)


def alike(samples: Tensor, train: Tensor, heldout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three, ready to be compared: see the module. Unchanged if nothing is missing.

    Args:
        samples: (n, F, ...), complete, data units.
        train, heldout: (N, F, ...) and (M, F, ...), NaN where not seen.
    """
    if not (train.isnan().any() or heldout.isnan().any()):
        return samples, train, heldout
    holes = heldout.isnan()[torch.arange(len(samples)) % len(heldout)]
    samples = torch.where(holes, torch.nan, samples)
    return filled(samples, train), filled(train, train), filled(heldout, train)
