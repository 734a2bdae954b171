"""Remarks on data that a single scale does not suit, made before training, with what to do.

A transform gives each feature one shift and one scale. That does not help a feature whose values lie orders of
magnitude apart, a channel that uses a hundredth of its range, or an axis of unlike things that is taken for places. The
network then spends its capacity on the wrong scale, which no number in the loss shows; a sentence before training does.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ornstein.data.layout import Kind
from ornstein.data.statistics import extremes, moments
from ornstein.data.transform import Transform
from ornstein.errors import shown

#: rows, and values in all, that deviations are taken of; extremes are those of all rows
LOOKED_AT, VALUES = 20_000, 2_000_000
#: deviations from the mean that a Gaussian never reaches: 12 has probability 1e-33
FAR = 12.0
#: deviation in model space below which noise levels that suit unit data miss the data
FLAT = 0.1
#: how many times the deviations of places may differ
UNLIKE = 10.0
#: different whole numbers, up to which a feature among measurements is a code
FEW = 10


def remarks(train: Tensor, transform: Transform, kind: Kind, names: Sequence[str] = ()) -> list[str]:
    """Sentences, without a full stop, on values (N, F, ...) that suit this transform badly.

    Args:
        train: training part, data units.
        transform: to model space.
        kind: of the data.
        names: of the F features; () where they have only their numbers.
    """
    wanted = min(LOOKED_AT, max(VALUES // train[0].numel(), 100))
    few = train[:: max(len(train) // wanted, 1)][:wanted]
    z = transform.forward(few).double()
    mean, spread = moments(few, transform)
    found = []
    noun = "feature" if kind == "vector" else "channel"
    called = [shown(repr(name)) for name in names] or [f"{noun} {number}" for number in range(train.shape[1])]
    if kind == "array" and z.ndim == 3 and z.shape[2] <= 512:
        # of places, whose deviations should be alike; entries that never vary count for nothing
        sides = moments(z.movedim(2, 1))[1]
        sides = sides[sides > 0]
        if len(sides) > 1 and sides.max() > UNLIKE * sides.min():
            found.append(
                f"the places of a series differ {sides.max() / sides.min():.3g} times in deviation: if they are "
                "features, say so by data.layout=NLC or NCL"
            )
    ends = torch.stack(extremes(train)).reshape(2, -1, *(1,) * (z.ndim - 2))
    centre = mean.reshape(1, -1, *(1,) * (z.ndim - 2))
    reach = (transform.forward(ends).double() - centre).abs().amax(0).flatten()
    far = (reach / spread).masked_fill(spread == 0, 0)
    if transform.levels is None and (far > FAR).any():
        at = int(far.argmax())
        found.append(
            f"outliers: {called[at]}{_more(far > FAR)} reaches {far[at]:.0f} deviations from its mean, so one scale "
            "serves the rest badly; clip such values, or take logarithms or ranks"
        )
    flat = (spread < FLAT) & (spread > 0)
    if flat.any():
        at = int(spread.masked_fill(~flat, float("inf")).argmin())
        found.append(
            f"{called[at]}{_more(flat)} has deviation {spread[at]:.2g} in model space, little of its range; rescale "
            "it, or cut off the few values that stretch the range"
        )
    if kind == "vector" and train.shape[1] > 1:
        found += _codes(few)
    return found


def _codes(rows: Tensor) -> list[str]:
    """On features of a few whole numbers among measurements: categories, for which no scale is right."""
    whole = ((rows == rows.round()) | rows.isnan()).all(0)
    counts = torch.tensor([len(column[~column.isnan()].unique()) for column in rows.T[:200]])
    whole = whole[:200] & (counts > 1) & (counts <= FEW) & (counts * 5 <= len(rows))
    if not whole.any() or whole.all():
        return []
    at = int(whole.nonzero()[0])
    return [
        f"feature {at}{_more(whole)} takes {int(counts[at])} whole values among measurements: it is learnt and drawn "
        "as a continuous number; round what is drawn, or make it labels"
    ]


def _more(which: Tensor) -> str:
    others = int(which.sum()) - 1
    return f" (and {others} more)" if others else ""
