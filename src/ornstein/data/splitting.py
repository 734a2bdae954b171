"""Which examples are held out, and random numbers that depend on nothing but what they are for."""

import hashlib
import math

import torch
from torch import Tensor

from ornstein.errors import InputError


def split(count: int, fraction: float, seed: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the held-out examples, both ascending; a function of its arguments.

    ceil(fraction * count) examples are held out, but at least one and at most all but two. They are taken at even
    distances from a shuffled list; with `labels` (count,) that list is sorted by class, so that each class is
    held out in proportion (stratified) while the total stays exact. A class that would be held out whole gives one
    example back to the training part.

    Raises:
        InputError: fraction outside (0, 1), or fewer than three examples.
    """
    if not 0 < fraction < 1:
        raise InputError(f"data.test_fraction={fraction!r} must lie between 0 and 1, such as 0.1.")
    if count < 3:
        raise InputError(f"the data have {count} example{'s' * (count != 1)}; at least 3 are needed (one is held out).")
    held_out = min(max(math.ceil(fraction * count - 1e-9), 1), count - 2)
    order = torch.randperm(count, generator=stream(seed, "split"))
    if labels is not None:
        order = order[labels[order].argsort(stable=True)]
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[order[(torch.arange(held_out, dtype=torch.float64).add(0.5) * count / held_out).long()]] = True
    if labels is not None:
        _keep_every_class(chosen, labels, order)
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def _keep_every_class(chosen: Tensor, labels: Tensor, order: Tensor) -> None:
    """Give one example of each class that is `chosen` whole back, for one of the class with the most left."""
    found, index = labels.unique(return_inverse=True)
    left = torch.bincount(index[~chosen], minlength=len(found))
    for lost in (left == 0).nonzero().flatten().tolist():
        if (rich := int(left.argmax())) == lost or left[rich] < 2:
            return
        back, instead = (
            order[(index[order] == group) & (chosen[order] == held)][0] for group, held in ((lost, True), (rich, False))
        )
        chosen[back], chosen[instead] = False, True
        left[lost], left[rich] = left[lost] + 1, left[rich] - 1


def stream(*place: int | str) -> torch.Generator:
    """An independent random stream for each place; hashing keeps neighbouring seeds and epochs apart."""
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
