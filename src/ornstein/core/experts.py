"""Experts: one denoiser made of several, each for an interval of noise levels (Balaji et al. 2022, 2211.01324).

At high noise a network decides what there will be, at low noise how its edges lie, and it has one set of weights for
both. Several networks, each called at its own levels, have more weights at the same time per call:

    E[x_0 given x_t] = D_k(x, t)  where  c_k <= log q < c_{k+1},        q = sigma/(alpha unit).

The answer at a level is one network's, so nothing is mixed at the seams; what is lost there is that neighbouring
networks do not learn from each other's levels. They start as copies of one that was trained on all levels.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.errors import InputError


@dataclass(frozen=True, eq=False)
class Experts(Denoiser):
    """Several denoisers of the same data on one clock, by noise interval.

    Args:
        each: from the least noise to the most; one more than there are cuts.
        cuts: rising, in log(sigma/(alpha unit)): an expert's interval begins at its cut and ends before the next.

    Raises:
        InputError: cuts that do not rise, or do not match the number of experts.
    """

    each: tuple[Denoiser, ...]
    cuts: tuple[float, ...]

    def __post_init__(self) -> None:
        check_cuts(self.cuts)
        if len(self.each) != len(self.cuts) + 1:
            raise InputError(f"cuts={list(self.cuts)} make {len(self.cuts) + 1} intervals, not {len(self.each)}.")

    @property
    def process(self) -> Process:  # type: ignore[override]
        return self.each[0].process

    @property
    def sigma_data(self) -> float:  # type: ignore[override]
        return self.each[0].sigma_data

    @property
    def noise_unit(self) -> float | None:  # type: ignore[override]
        return self.each[0].noise_unit

    @property
    def gaps(self) -> bool:  # type: ignore[override]
        return self.each[0].gaps

    @property
    def device(self) -> torch.device:
        return self.each[0].device

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        place = -0.5 * level.log_snr - math.log(self.unit)
        if not isinstance(place, Tensor):
            return self.each[sum(cut <= place for cut in self.cuts)].predict(x, level, condition)
        # rows go to the expert of their level, and back to their places; those that are one denoiser are asked as one
        first = [self.each.index(denoiser) for denoiser in self.each]
        which = torch.bucketize(place.flatten(), place.new_tensor(self.cuts), right=True)
        which = torch.tensor(first, device=which.device)[which]
        t = torch.as_tensor(level.t).flatten().expand(len(x))
        found: Tensor | None = None
        for expert in sorted(set(first)):
            rows, denoiser = (which == expert).nonzero().flatten(), self.each[expert]
            if len(rows) == len(x):
                return denoiser.predict(x, level, condition)
            if not len(rows):
                continue
            some = x[rows]
            x0 = denoiser.predict(some, self.process.at(t[rows], like=some), condition[rows]).x0
            found = x0.new_empty(x.shape) if found is None else found
            found = found.index_copy(0, rows, x0)
        assert found is not None  # there is a row
        return Prediction(found, x, level)


def check_cuts(cuts: tuple[float, ...]) -> None:
    """Refuse cuts that are not finite and rising."""
    if not cuts or not all(map(math.isfinite, cuts)) or any(b <= a for a, b in pairwise(cuts)):
        raise InputError(f"cuts={list(cuts)} must be one or more numbers that rise, in log(sigma/(alpha sigma_data)).")
