"""Columns of a file as the condition of its examples: what a column is follows from its type and shape.

| a column | is read as |
|---|---|
| (N,) text or whole numbers | labels |
| (N,) whole numbers with more values than 50 and than a tenth of the examples | numbers: they measure something |
| (N,) text of more values than 50 and than a tenth of the examples | captions, in words |
| (N,) floats | numbers; NaN means unknown |
| (N, F) | vectors |
| (N, ...) with the data's number of places | pictures, at most as large as the data's |
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ornstein.data.captions import captioned, differ
from ornstein.data.condition import Column, Known, PartKind
from ornstein.data.labels import MOST_FLOAT_CLASSES, as_names, lost, numbered
from ornstein.data.layout import guessed
from ornstein.data.reading import as_tensor
from ornstein.data.statistics import extremes, moments
from ornstein.errors import InputError

if TYPE_CHECKING:
    import numpy as np


def read_columns(
    found: "Mapping[str, np.ndarray]", train: Tensor, test: Tensor, shape: tuple[int, ...]
) -> tuple[dict[str, Column], list[str]]:
    """The columns of a file, and remarks.

    Args:
        found: name -> (N, ...), for all examples.
        train, test: the rows of the two parts.
        shape: of one example, (C, ...) or (d,).

    Raises:
        InputError: a column of another length or of no known kind, or without any value.
    """
    columns, remarks = {}, []
    for name, raw in found.items():
        field = f"data.condition={name!r}"
        if raw.ndim == 0 or len(raw) != len(train) + len(test):
            raise InputError(
                f"{field} has shape {raw.shape}; it must have one row for each of {len(train) + len(test)} examples."
            )
        if raw.ndim == 2 and raw.shape[1] == 1:
            raw = raw[:, 0]
        read = _captions if _tells(raw) else _labels if _names(raw) else _numbers
        columns[name], remark = read(raw, train, test, shape, name)
        remarks += [remark] if remark else []
    return columns, remarks


def _tells(raw: "np.ndarray") -> bool:
    """Whether a column is of texts, which say more than a class."""
    return raw.ndim == 1 and raw.dtype.kind == "U" and differ(raw.tolist())


def _names(raw: "np.ndarray") -> bool:
    """Whether a column names classes."""
    import numpy as np

    if raw.ndim != 1 or raw.dtype.kind == "f":
        return False
    return raw.dtype.kind not in "ui" or len(np.unique(raw)) <= max(MOST_FLOAT_CLASSES, len(raw) // 10)


def _labels(raw: "np.ndarray", train: Tensor, test: Tensor, shape: tuple[int, ...], name: str) -> tuple[Column, str]:
    index, classes, remark = numbered(as_names(raw, name, len(raw)), name)
    if index is None:
        raise InputError(f"data.condition={name!r} is -1 throughout: no example has a label.")
    said = filter(None, [remark, lost(index[train], index[test], classes)])
    return Column(Known("label", classes=classes), index[train], index[test]), "; ".join(said)


def _captions(raw: "np.ndarray", train: Tensor, test: Tensor, shape: tuple[int, ...], name: str) -> tuple[Column, str]:
    texts = raw.tolist()
    column, remark = captioned([texts[i] for i in train.tolist()], [texts[i] for i in test.tolist()], "words", name)
    return column, "; ".join(filter(None, [f"{name!r} read as texts", remark]))


def _numbers(raw: "np.ndarray", train: Tensor, test: Tensor, shape: tuple[int, ...], name: str) -> tuple[Column, str]:
    values, remark = as_tensor(raw, name, missing=True), ""
    kind: PartKind = "number" if values.ndim == 1 else "vector"
    if values.ndim == 1 and not values.is_floating_point():
        remark = f"{name!r} read as a number"
    if values.ndim > 2:
        kind, values = "picture", guessed(values).take_in(values)
        if values.ndim != len(shape) + 1 or any(a > b for a, b in zip(values.shape[2:], shape[1:], strict=True)):
            size, most = ("x".join(map(str, s)) for s in (values.shape[1:], shape))
            raise InputError(f"data.condition={name!r} holds pictures {size}; they must lie over data of shape {most}.")
    known = values[train]
    known = known[~known.double().flatten(1).isnan().any(1)] if known.ndim > 1 else known[~known.double().isnan()]
    if len(known) == 0:
        raise InputError(f"data.condition={name!r} is NaN in all training examples; there is nothing to learn from it.")
    mean, sigma = moments(known if known.ndim > 1 else known[:, None])
    rows = known if known.ndim > 1 else known[:, None]
    low, high = extremes(rows)
    constant = low == high  # not sigma == 0, which rounding spoils
    if constant.all():
        remark = f"{name!r} is the same in all training examples"
    about = Known(
        kind,
        tuple(values.shape[1:]),
        shift=tuple(mean.tolist()),
        scale=tuple(torch.where(constant, 1.0, sigma).tolist()),
    )
    if not all(map(math.isfinite, about.shift + about.scale)):
        raise InputError(f"data.condition={name!r} has numbers too large for their spread to be told.")
    return Column(about, about.standardised(values[train]), about.standardised(values[test])), remark
