"""Plane waves across two columns, by which a network learns what two numbers say together.

What a place on a map says is no sum of what its latitude and its longitude say. A few layers learn such a function of
two numbers slowly from functions of one of them, but quickly from waves that run across both,

    sin(w_i p_i + w_j p_j + b),

p_i the place along column i, with w normal and b uniform: the random features of a Gaussian kernel (Rahimi & Recht
2007; Tancik et al. 2020, 2006.10739). Training goes on from there and adapts w and b (as Gorishniy et al. 2022,
2203.05556, do for single numbers), so that waves find the columns that matter, also more than two of them.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ornstein.core.numerics import normal, uniform

#: standard deviation of the first frequencies, in radians for half of a column's length
_FREQUENCY = 6.0


class Waved(nn.Module):
    """A network that also sees waves across columns.

    Args:
        net: `net(x, noise_level, condition)`, which takes `waves` inputs more than this.
        places: the inputs that are places along columns, two or more.
        waves: how many waves.
    """

    def __init__(self, net: nn.Module, places: slice, waves: int) -> None:
        super().__init__()
        self.net, self.places = net, places
        frequencies, phases = across(places.stop - places.start, waves)
        self.frequencies, self.phases = nn.Parameter(frequencies), nn.Parameter(phases)

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # a narrow type would blur the short waves
            waves = torch.addmm(self.phases, x[:, self.places], self.frequencies).sin()
        found: Tensor = self.net(torch.cat([x, waves], 1), noise_level, condition)
        return found


def across(columns: int, waves: int) -> tuple[Tensor, Tensor]:
    """Frequencies (columns, waves), of which each wave has two that are not zero, and phases (waves,), to begin with.

    All pairs of columns have equally many waves; if there are more pairs than waves, which have one is random.
    """
    seeds, pairs = torch.arange(waves), torch.combinations(torch.arange(columns))
    pairs = pairs[uniform(torch.zeros(1, dtype=torch.int64), len(pairs), 0)[0].argsort()][seeds % len(pairs)]
    frequencies = torch.zeros(waves, columns).scatter_(1, pairs, _FREQUENCY * normal(seeds, (2,), 1))
    return frequencies.T.contiguous(), 2 * math.pi * uniform(seeds, 1, 2)[:, 0].float()
