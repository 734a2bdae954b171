"""Two data sets, for a bridge from one to the other: any two of one shape, or one and a blurred copy of it.

Both are brought into one space, since a bridge measures distances between a row of one and a row of the other: whole
numbers keep their grid, all else is centred and divided by *one* scale (`scale="common"`), under which the pairing with
the least sum of squared distances is that of the data's own units. Columns in unlike units, such as euros and years,
need a scale each (`scale="each"`). Labels are ignored: the bridge decides which rows belong together.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

from ornstein.core.numerics import blurring
from ornstein.data.dataset import Dataset, Source
from ornstein.data.opening import DATA, open_data
from ornstein.data.statistics import standardise
from ornstein.data.transform import Affine, Transform
from ornstein.errors import InputError, shown

#: a name or path of data, or a mapping of a name and the arguments of that source
Named = str | dict[str, Any]
Scale = Literal["common", "each"]


@final
@dataclass(frozen=True)
class Between(Source):
    """Two data sets of one kind and shape: a bridge leads from `source` to `target`, and back.

    Args:
        source: a name of data, a file or a folder; or a mapping of a name and arguments, as
            {name: images, path: horses, size: 32}.
        target: the same, for the other end.
        paired: row i of one belongs to row i of the other (files of a folder in the order of their names), as a blurred
            picture to the sharp one. Both must then be split the same way: as many rows, the same test_fraction and
            seed.
        scale: for numbers without a grid: "common" divides all features by one number, "each" each by its own.

    Raises:
        InputError: data that are absent or unfit; two of different kind, shape, columns or grid of values; pairs of
            different numbers; cells that are missing.
    """

    source: Named
    target: Named
    paired: bool = False
    scale: Scale = "common"

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise InputError(f"data.scale={self.scale!r} must be one of {', '.join(get_args(Scale))}.")
        for end in ("source", "target"):
            object.__setattr__(self, end, named_end(getattr(self, end), f"data.{end}"))

    def load(self) -> Dataset:
        far, near = (_numbers(opened(getattr(self, end)).load(), end) for end in ("source", "target"))
        _alike(far, near)
        if self.paired and (len(far.train), len(far.test)) != (len(near.train), len(near.test)):
            raise InputError(
                f"data.paired=True joins row to row, but source {far.name!r} has {len(far.train):,} + {len(far.test):,}"
                f" rows and target {near.name!r} {len(near.train):,} + {len(near.test):,} (training + held out)."
            )
        return joined(near, far, self.paired, self.scale)


@final
@dataclass(frozen=True)
class Blurred(Source):
    """Pictures, series or volumes, each paired with its Gaussian blur: a bridge leads back to the sharp one.

    Args:
        of: a name of data, a file or a folder; or a mapping of a name and arguments.
        width: standard deviation of the blur, in pixels; its edges are mirrored.

    Raises:
        InputError: data that are absent, or have no places to blur over; a width that is not positive.
    """

    of: Named
    width: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.width <= 1000:
            raise InputError(f"data.width={self.width!r} must be a number of pixels above 0, up to 1000.")
        object.__setattr__(self, "of", named_end(self.of, "data.of"))

    def load(self) -> Dataset:
        near = _numbers(opened(self.of).load(), "of")
        if len(near.shape) < 2:
            raise InputError(f"data.of={near.name!r} has {near.kind}s {_by(near.shape)}: there are no places to blur.")
        train, test = (self._blurred(part, near.transform) for part in (near.train, near.test))
        far = dataclasses.replace(near, name=f"{near.name} blurred by {self.width:g}", train=train, test=test)
        return joined(near, far, True, "common")

    def _blurred(self, x: Tensor, transform: Transform) -> Tensor:
        found = []
        for some in x.split(1024):
            values = some.to(torch.float32)
            for axis in range(2, x.ndim):
                matrix = blurring(x.shape[axis], self.width).float()
                values = torch.tensordot(values, matrix, ([axis], [1])).movedim(-1, axis)
            found.append(values.round().to(x.dtype) if transform.levels is not None else values.to(x.dtype))
        return torch.cat(found)


def named_end(given: Named, noun: str) -> dict[str, Any]:
    """A source as its name and all its arguments, paths written from the root.

    Raises:
        InputError: neither a name, nor a path, nor a mapping of a name and arguments; one made of two data sets.
    """
    if not given or (isinstance(given, Mapping) and not isinstance(given.get("name"), str)):
        raise InputError(f"{noun}={given!r} must name data: a file, a folder, or one of {', '.join(_SINGLE())}.")
    if isinstance(given, Mapping):
        name, rest = str(given["name"]), {str(key): value for key, value in given.items() if key != "name"}
    else:
        name, rest = str(given), {}
    if name in DATA and name not in _SINGLE():
        raise InputError(f"{noun}={name!r} is made of other data already; take one of {', '.join(_SINGLE())}.")
    try:
        made = open_data(name, **rest)
    except TypeError as error:
        raise InputError(f"{noun}={given!r} has an argument of the wrong type ({shown(error)}).") from None
    called = next(key for key, entry in DATA.items() if entry is type(made))
    return {"name": called, **dataclasses.asdict(made)}  # type: ignore[call-overload]


def opened(end: Named) -> Source:
    """The source that `named_end` described."""
    assert isinstance(end, Mapping)
    return open_data(end["name"], **{key: value for key, value in end.items() if key != "name"})


def joined(near: Dataset, far: Dataset, paired: bool, scale: Scale) -> Dataset:
    """The near data set with the far one beside it, both in one space and without labels.

    Args:
        near, far: of one kind and shape.
        paired: whether their rows belong together, one by one.
        scale: see `Between`.
    """
    transform, note = near.transform, near.note
    if transform.levels is None and (far.transform != transform or near.kind == "vector"):
        transform, remark = standardise(torch.cat([near.train, far.train]))
        note = "; ".join(filter(None, [note, remark]))
        if scale == "common":
            transform = _common(transform)
    plain: dict[str, Any] = {"conditions": {}, "columns": (), "dialect": None, "transform": transform}
    far = dataclasses.replace(far, **plain)
    return dataclasses.replace(near, **plain, note=note, far=far, paired=paired)


def _SINGLE() -> list[str]:
    return [name for name, entry in DATA.items() if not any(f.type == Named for f in dataclasses.fields(entry))]  # type: ignore[arg-type]


def _common(each: Affine) -> Affine:
    """The same centre, with the root mean square of the features' scales for all."""
    scales = each.scale if isinstance(each.scale, tuple) else (each.scale,)
    return Affine(each.shift, (sum(s * s for s in scales) / len(scales)) ** 0.5)


def _numbers(data: Dataset, noun: str) -> Dataset:
    """Data as numbers: a table all of whose columns are such becomes vectors.

    Raises:
        InputError: a table with other columns; missing cells; windows of a series.
    """
    if data.kind == "table":
        other = next((column for column in data.columns if column.kind not in ("number", "integer")), None)
        if other is not None:
            raise InputError(
                f"data.{noun}={data.name!r} has the column {shown(other.name)!r}, which is {other.describe()}; a "
                "bridge takes columns of numbers."
            )
        transform, _ = standardise(data.train)
        data = dataclasses.replace(data, kind="vector", transform=transform)
    if data.missing or data.train.isnan().any() or data.test.isnan().any():
        raise InputError(f"data.{noun}={data.name!r} has cells missing; a bridge takes complete rows.")
    if data.timeline is not None:
        raise InputError(
            f"data.{noun}={data.name!r} is windows of a series, which a bridge does not take; give arrays."
        )
    return data


def _alike(far: Dataset, near: Dataset) -> None:
    """Refuse two data sets that nothing can lead between."""
    if (far.kind, far.shape) != (near.kind, near.shape):
        raise InputError(
            f"source {far.name!r} has {far.kind}s {_by(far.shape)} and target {near.name!r} {near.kind}s "
            f"{_by(near.shape)}: a bridge joins two of one shape{_hint(far, near)}."
        )
    names = [[column.name for column in data.columns] for data in (far, near)]
    if names[0] != names[1] and all(names):
        odd = next(a for a, b in zip(*names, strict=True) if a != b)
        raise InputError(
            f"source {far.name!r} has the column {shown(odd)!r} where target {near.name!r} has "
            f"{shown(names[1][names[0].index(odd)])!r}: a bridge joins tables of the same columns in the same order."
        )
    if (far.transform.levels is None) != (near.transform.levels is None) or (
        far.transform.levels is not None and far.transform.levels != near.transform.levels
    ):
        raise InputError(
            f"source {far.name!r} has {_values(far)} and target {near.name!r} {_values(near)}: bring both to one grid."
        )


def _hint(far: Dataset, near: Dataset) -> str:
    if far.kind != near.kind or near.kind != "image":
        return ""
    if far.shape[0] != near.shape[0]:
        return "; read both alike with data.source.mode=RGB and data.target.mode=RGB (or L)"
    return "; read both alike with data.source.size=32,32 and data.target.size=32,32"


def _values(data: Dataset) -> str:
    levels = data.transform.levels
    return "numbers" if levels is None else f"whole numbers {levels.low}..{levels.low + levels.count - 1}"


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
