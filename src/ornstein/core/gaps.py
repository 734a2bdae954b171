"""Cells that were never seen: NaN in the data, and in what is made of them.

A row with holes is a draw of its seen cells alone. Noised, it is a draw of *their* noisy distribution, and the best
answer for them is E[x_0 given the seen cells of x_t]: a posterior mean too, of a smaller problem. So a network can
learn from every row, if it is told which cells it sees (NaN in x_t tells it, see `NetDenoiser.gaps`) and its loss
counts no others (`mean_square`). If cells are missing completely at random, the distribution of full rows is the one
that agrees with all of these; samples have no holes. (Ouyang et al. 2023, 2307.00467, count seen cells without
telling the network which: it then learns the answer averaged over patterns of holes, as does a network that takes a
hole for the value 0.)

Two denoisers are made of one such network:

- `OnSeen`: the marginal distribution of some cells. White noise of known density stands in for the others, so that
  whatever works on whole rows (the likelihood's flow) works on it.
- `Filled`: the conditional distribution of the other cells, by a network that was also given clean values (`Filling` in
  `ornstein.experiment.learner`). Given cells are returned exactly.
"""

import math
from abc import ABC
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.denoiser import SEEN, Around
from ornstein.core.nearest import nearest
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Number, Process

#: the part of a condition that tells clean values: see `told`
GIVEN = "given"


def mean_square(error: Tensor, x0: Tensor, weight: Number = 1.0, gaps: bool = False) -> Tensor:
    """The mean of weight * error^2 over the cells of x0 that were seen, for each row, (B,); 0 for a row without any.

    Args:
        error: (B, ...), anything where x0 is NaN.
        x0: (B, ...), NaN where not seen.
        weight: a number, or (B, 1, ..., 1).
        gaps: whether x0 may have NaN; without, NaN comes out.
    """
    if not gaps:
        return (weight * error**2).flatten(1).mean(1)
    seen = ~x0.isnan()
    # before the square, whose gradient at NaN would be NaN however little it counts
    kept = torch.where(seen, error, 0.0)
    return (weight * kept**2).flatten(1).sum(1) / seen.flatten(1).sum(1).clamp(min=1)


def told(values: Tensor, known: Tensor, rho: Tensor | None = None) -> Tensor:
    """Clean values of some cells as a picture to lay beside x: (B, C, *space) -> (B, 2C, *space).

    The expected value of each cell; then how sure it is: 1 where the cell is known, 0 where nothing is known about it.

    Args:
        values: (B, C, *space), anything where not known.
        known: of the same shape, bool.
        rho: (C, K), for series: correlations by which known values say something about others
            (`ornstein.core.nearest`). None: an unknown cell is expected to be 0, with sureness 0.
    """
    if rho is None:
        return torch.cat([torch.where(known, values, 0.0), known.to(values.dtype)], 1)
    mean, spread = nearest(values, known, rho)
    return torch.cat([mean, 1 - spread], 1)


def apart(values: Tensor, given: Tensor) -> Tensor:
    """How far values (B, C, *space) lie from what `told` expects of them, in units of its spread; NaN where known."""
    mean, sure = given.chunk(2, 1)
    return torch.where(sure < 1, (values - mean) / (1 - sure), torch.nan)


def together(rest: Tensor, given: Tensor) -> Tensor:
    """Undoes `apart`: the values again, known ones exactly."""
    mean, sure = given.chunk(2, 1)
    return torch.where(sure < 1, mean + (1 - sure) * rest, mean)


def some_known(n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Which cells to give in training, (n, *shape) bool, in patterns for every use.

    A quarter of the rows are given no cells. In the others a block is hidden, somewhere, over all channels or over half
    of them (a gap, a forecast, what came before); and in every second row up to half of the other cells too. For
    vectors each row hides its own share of the cells.

    Args:
        n: rows.
        shape: of one, (C, *space).
        generator: draws as many numbers at every call.
    """

    def uniform(*sides: int) -> Tensor:
        return torch.rand(n, *sides, generator=generator, device=generator.device)

    ones = [1] * len(shape)
    row = uniform(4).unflatten(0, (n, *ones)) if n else uniform(4).reshape(0, *ones, 4)
    told_nothing, alike, share, beside = (row[..., k] for k in range(4))
    cells, channels = uniform(*shape), uniform(shape[0]).reshape(n, shape[0], *ones[1:])
    ends = uniform(max(len(shape) - 1, 1), 2)
    if len(shape) == 1:
        hidden = (cells < share) | (cells == cells.amin(1, keepdim=True))
    else:
        picked = (alike < 0.5) | (channels < 0.5)
        hidden = (picked | ~picked.any(1, keepdim=True)).expand(n, *shape)
        for axis, side in enumerate(shape[1:]):
            # short ones more often than long ones, and at least one cell
            half = (side * ends[:, axis, 0] ** 2 / 2).clamp(min=0.5).reshape(n, *ones)
            middle = (side * ends[:, axis, 1]).reshape(n, *ones)
            place = torch.arange(side, device=cells.device).reshape(-1, *[1] * (len(shape) - 2 - axis)) + 0.5
            hidden = hidden & ((place - middle).abs() <= half)
        hidden = hidden | ((beside < 0.5) & (cells < share / 2))
    return ~(hidden | (told_nothing < 0.25))


@dataclass(frozen=True, eq=False)
class _OfCells(Around, ABC):
    """Around a denoiser that may be asked of rows with holes."""

    @property
    def process(self) -> Process:  # type: ignore[override]
        return self.base.process


@dataclass(frozen=True, eq=False)
class OnSeen(_OfCells):
    """The seen cells by themselves, completed by white noise: p(x) = p(x_seen) prod N(x_i; 0, sigma_data^2).

    The part `SEEN` of the condition says which cells are seen: (B, *shape), 1 where seen and 0 elsewhere.
    """

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        seen = condition.parts[SEEN] > 0
        found = self.base.predict(torch.where(seen, x, torch.nan), level, condition.without(SEEN)).x0
        signal = level.alpha * self.sigma_data**2
        white = signal / (level.alpha * signal + level.sigma * level.sigma) * x
        return Prediction(torch.where(seen, found.to(white), white), x, level)

    def surplus(self, seen: Tensor) -> Tensor:
        """Log-density of the white noise at 0, (B,): what log p(x) has beyond log p(x_seen) where unseen cells are 0.

        Args:
            seen: (B, *shape), bool.
        """
        each = -0.5 * math.log(2 * math.pi * self.sigma_data**2)
        return (~seen).flatten(1).sum(1).double() * each


@dataclass(frozen=True, eq=False)
class Filled(_OfCells):
    """The denoiser given clean values of some cells, by a network that was trained with such values.

    They are the part `GIVEN` of the condition (see `told`); where it is absent, nothing is given.
    x is what `apart` makes of the values, which differs from them only for series, which are predicted from neighbours.
    """

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        if GIVEN not in condition.parts:
            return self.base.predict(x, level, condition)
        values, sure = condition.parts[GIVEN].chunk(2, 1)
        here = sure == 1  # not where the part is absent, NaN
        found = self.base.predict(torch.where(here, torch.nan, x), level, condition)
        return Prediction(torch.where(here, values.to(found.x0.dtype), found.x0), x, level, found.log_var)
