"""Statistics of numbers: means, spreads and extremes, over the cells that were seen.

A float copy of a data set may not fit into memory, and its values may lie far from zero; so everything is computed in
chunks, and spreads in two passes. NaN is a cell that was not seen, and is ignored.
"""

import math

import torch
from torch import Tensor

from ornstein.data.transform import Affine, Transform
from ornstein.errors import InputError

CHUNK = 1024  # examples converted to float at a time


def moments(x: Tensor, transform: Transform | None = None) -> tuple[Tensor, Tensor]:
    """Mean and (population) standard deviation along axis 1 of (N, F, ...): two float64 tensors (F,).

    Of transform.forward(x) if a transform is given, and of what was seen: NaN is left out. Two passes in chunks: exact
    enough for values far from zero, and without a float copy of the data.
    """
    forward = transform.forward if transform else lambda chunk: chunk.to(torch.float64)
    shape = forward(x[:1]).shape  # which need not be that of x: categories become vectors
    others = [axis for axis in range(len(shape)) if axis != 1]
    per_feature: Tensor | float = len(x) * math.prod(shape[2:])
    mean = sum(forward(part).sum(others, dtype=torch.float64) for part in x.split(CHUNK)) / per_feature
    assert isinstance(mean, Tensor)
    if mean.isnan().any():
        seen = sum((~part.isnan()).sum(others, dtype=torch.float64) for part in x.split(CHUNK))
        assert isinstance(seen, Tensor)
        per_feature = seen
        mean = sum(forward(part).nansum(others, dtype=torch.float64) for part in x.split(CHUNK)) / per_feature
        assert isinstance(mean, Tensor)
    centre = mean.reshape(-1, *(1,) * (len(shape) - 2))
    square = sum((forward(part) - centre).square_().nansum(others) for part in x.split(CHUNK)) / per_feature
    assert isinstance(square, Tensor)
    return mean, square.sqrt()


def extremes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value along axis 1 of (N, F, ...), of what was seen: (F,) each; inf and -inf of nothing."""
    others = [axis for axis in range(x.ndim) if axis != 1]
    if not x.is_floating_point():
        return x.amin(others), x.amax(others)
    ends = [
        (part.nan_to_num(math.inf, math.inf, -math.inf).amin(others), part.nan_to_num(-math.inf).amax(others))
        for part in x.split(CHUNK)
    ]
    low, high = zip(*ends, strict=True)
    return torch.stack(low).amin(0), torch.stack(high).amax(0)


def value_range(*parts: Tensor) -> tuple[float, float]:
    """Smallest and largest value over all tensors, NaN left out: ints for integer tensors, floats otherwise.

    Raises:
        InputError: there is no other value.
    """
    ends = [torch.aminmax(part) for part in parts]
    low, high = min(low.item() for low, _ in ends), max(high.item() for _, high in ends)
    if any(low.isnan() for low, _ in ends):
        ends = [
            torch.aminmax(part[~part.isnan()])
            for whole in parts
            for part in whole.split(CHUNK)
            if not part.isnan().all()
        ]
        if not ends:
            raise InputError(
                "the training or the held-out part has no value at all, only NaN; leave such examples out."
            )
        low, high = min(low.item() for low, _ in ends), max(high.item() for _, high in ends)
    return low, high


def must_be_seen(name: str, train: Tensor, test: Tensor) -> None:
    """Refuse examples and features of which nothing was seen."""
    for part, what in ((train, "training"), (test, "held-out")):
        empty = torch.cat([some.isnan().flatten(1).all(1) for some in part.split(CHUNK)])
        if empty.any():
            raise InputError(
                f"data={name!r} has {int(empty.sum()):,} {what} examples without any value, such as the "
                f"{what} example {int(empty.nonzero()[0])}; leave these out."
            )
    low, high = extremes(train)
    if (low > high).any():
        where = int((low > high).nonzero()[0])
        raise InputError(f"data={name!r}: feature {where} has no value in the training part; leave it out.")


def standardise(train: Tensor) -> tuple[Affine, str]:
    """The map that gives every feature (axis 1) of `train` mean 0 and standard deviation 1, and a remark.

    A feature that is constant in the training part has no scale of its own: it is centred, keeps scale 1, and
    the remark says so.

    Raises:
        InputError: all features are constant.
    """
    mean, sigma = moments(train)
    low, high = extremes(train)
    if (low > high).any():
        empty = int((low > high).nonzero()[0])
        raise InputError(f"feature {empty} has no value in the training part; leave it out.")
    constant = low == high  # not sigma == 0, which rounding spoils
    if constant.all():
        raise InputError("all training examples are the same; there is nothing to learn.")
    remark = ""
    if constant.any():
        where = constant.nonzero().flatten().tolist()
        shown = ", ".join(map(str, where[:5])) + (", ..." if len(where) > 5 else "")
        remark = f"{len(where)} constant feature{'s' * (len(where) > 1)} kept at scale 1 ({shown})"
    return Affine(tuple(mean.tolist()), tuple(torch.where(constant, 1.0, sigma).tolist())), remark
