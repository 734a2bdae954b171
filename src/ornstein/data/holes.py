"""Rows with holes beside rows without: how samples, which are complete, are compared with data that are not.

To keep complete rows alone would throw data away, and there may be none. Instead every sample gets the holes of a real
row, taken in turn, and all holes are filled with the mean of the training part. Of cells that are missing whatever
their values (completely at random) both sides then have one law exactly where the model has the data's; and what real
data score in a sample's place, the floor of every measure, has the same holes.
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
    """The three, ready to be compared: see the module. As they are where nothing is missing.

    Args:
        samples: (n, F, ...), complete, data units.
        train, heldout: (N, F, ...) and (M, F, ...), NaN where not seen.
    """
    if not (train.isnan().any() or heldout.isnan().any()):
        return samples, train, heldout
    holes = heldout.isnan()[torch.arange(len(samples)) % len(heldout)]
    samples = torch.where(holes, torch.nan, samples)
    return filled(samples, train), filled(train, train), filled(heldout, train)
