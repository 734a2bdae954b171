"""The unit of distances: each column in its own, taken from the training part alone.

A table has a price in thousands, an age in years and a share below one. A distance between raw rows is then the
distance between prices: the other columns hardly change it. So every column is measured from its mean in its standard
deviation, and so is every channel of a series or a volume:

    z = (x - mean_train) / std_train.

Mean and standard deviation are those of the *training* part. They must never come from the samples, or a model that
spreads a column out would stretch the ruler that it is measured with. Taken from one real set they are the same for
the samples and for the real data in their place, so that value and floor stay comparable. All results are unchanged
when a column or channel is shifted or multiplied by a positive number.

**Images** are different: a pixel's brightness is the unit of all of its channels. An image (C, H, W) whose channels
have one common range, the widest at most twice as wide as the narrowest, stays as it is; one whose channels do not
(an elevation beside a temperature) is measured channel by channel like a series. A column or channel that never moves
in the training part has no unit: it is centred and keeps scale 1.

**Atoms.** A sum of money is exactly 0 in nine rows of ten, an age is a whole number. A model of densities turns
the 0 into a small cloud of either sign, which no distance sees but every reader does. A value that makes up at least
one in a hundred of a column's training values (and five of them) is called an atom. The input of a two-sample test,
`marks`, is for every column the value in its unit; if the column has atoms, whether the value is one of them; and for
tables also its *normal score*, the standard normal quantile of its rank among the training values, which spreads out
what a heavy tail presses together (van der Waerden 1952).

Reference: van der Waerden, "Order tests for the two-sample problem and their power" (1952).
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

#: values a column or channel whose ranks and atoms are taken, at even distances where there are more
VALUES = 2**17
#: an atom makes up this share of the training values, and is met so often
ATOM_SHARE, ATOM_COUNT = 0.01, 5
#: the widest range of an image's channels over the narrowest, up to which they have one unit
COMMON = 2.0


@final
@dataclass(frozen=True, eq=False)
class Ruler:
    """Units of the columns, or channels, of points (N, F, ...), and what their values are: made by `Ruler.of`.

    Attributes:
        shift, unit: (F,), float64, in the data's units: what becomes 0 and what becomes 1.
        atoms: for each column the values that come often, ascending (may be empty), float64.
        ranks: for each column its training values, ascending, float64; () if the data are not a table.
        plain: the points are images of one range, and stay as they are.
    """

    shift: Tensor
    unit: Tensor
    atoms: tuple[Tensor, ...]
    ranks: tuple[Tensor, ...]
    plain: bool = False

    @staticmethod
    def of(train: Tensor) -> "Ruler":
        """The ruler of training data (N, F, ...) in their own units, floats; (N,) is one column."""
        columns = _columns(train).double()
        low, high = columns.amin(1), columns.amax(1)
        moving = high > low  # not std > 0, which rounding spoils
        shift = columns.mean(1)
        unit = torch.where(moving, columns.std(1, correction=0), torch.ones_like(shift))
        wide = (high - low)[moving]
        plain = train.ndim == 4 and (len(wide) == 0 or bool(wide.max() <= COMMON * wide.min()))
        if plain:
            return Ruler(torch.zeros_like(shift), torch.ones_like(unit), (), (), plain)
        known = columns[:, :: -(-columns.shape[1] // VALUES)].sort(dim=1).values.contiguous()
        atoms = []
        for values in known:
            found, counts = values.unique_consecutive(return_counts=True)
            atoms.append(found[counts >= max(ATOM_COUNT, ATOM_SHARE * len(values))])
        return Ruler(shift, unit, tuple(atoms), tuple(known) if train.ndim <= 2 else ())

    def measured(self, x: Tensor) -> Tensor:
        """x (N, F, ...) in the unit of each column or channel: same shape, at least float32."""
        if self.plain:
            return x
        shape = (1, -1) + (1,) * (x.ndim - 2) if x.ndim > 1 else (-1,)
        z = (x.double() - self.shift.to(x.device).reshape(shape)) / self.unit.to(x.device).reshape(shape)
        return z.to(torch.promote_types(x.dtype, torch.float32))

    def marks(self, x: Tensor) -> Tensor:
        """The input of a two-sample test for x (N, F, ...): (N, K), values, normal scores and marks of atoms."""
        values = self.measured(x)
        shown = [values.flatten(1) if x.ndim > 1 else values[:, None]]
        for i, column in enumerate(_columns(x).double()):
            if self.ranks:
                shown.append(_normal_score(column, self.ranks[i].to(x.device))[:, None])
            if self.atoms and len(self.atoms[i]):
                # the way back from a model's space rounds
                near = 1e-6 * float(self.unit[i]) + 4 * torch.finfo(torch.float32).eps * self.atoms[i].abs()
                shown.append(_is_among(column, self.atoms[i].to(x.device), near.to(x.device)).reshape(len(x), -1))
        return torch.cat([part.to(values.dtype) for part in shown], dim=1)

    @property
    def text(self) -> str:
        """One sentence for people: what the distances are measured in; "" if they are in the data's own units."""
        if self.plain:
            return ""
        what = "column" if self.ranks else "channel"
        return f"Distances count each {what} in its own standard deviation over the training data."


def _columns(x: Tensor) -> Tensor:
    """(N, F, ...) to (F, N x positions): all values of each column or channel, those of one point together."""
    return x[None] if x.ndim == 1 else x.transpose(0, 1).flatten(1).contiguous()


def _normal_score(values: Tensor, ranks: Tensor) -> Tensor:
    """The standard normal quantile of the middle rank of each value among `ranks`, ascending."""
    place = torch.searchsorted(ranks, values) + torch.searchsorted(ranks, values, right=True)
    quantile: Tensor = torch.special.ndtri((place.double() + 1) / (2 * len(ranks) + 2))
    return quantile


def _is_among(values: Tensor, atoms: Tensor, near: Tensor) -> Tensor:
    """1.0 where a value lies within `near` of one of the atoms, ascending, else 0.0."""
    above = torch.searchsorted(atoms, values).clamp(max=len(atoms) - 1)
    below = (above - 1).clamp(min=0)
    return (((values - atoms[above]).abs() <= near[above]) | ((values - atoms[below]).abs() <= near[below])).double()
