"""Your own arrays, from .npy or .npz: what their numbers mean is inferred from their shape, type and range.

**Layout.** The first axis counts examples. These rules alone decide what the others are, and the description printed
when training starts says so; `data.layout` overrides them (see `Layout` for its letters).

| axes | read as | when |
|---|---|---|
| (N,), (N, d) | vectors, "N", "ND" | always |
| (N, H, W) | grey images, "NHW" | the type is an integer, or H = W |
| (N, C, L) | series, "NCL" | otherwise, if C <= L: the shorter axis holds the features |
| (N, L, C) | series, "NLC" | otherwise |
| (N, H, W, C) | images, "NHWC" | the last axis is 1 to 4 and the second is not |
| (N, C, H, W) | images, "NCHW" | otherwise |
| (N, D, H, W, C) | volumes, "NDHWC" | the last axis is 1 to 4 and the second is not |
| (N, C, D, H, W) | volumes, "NCDHW" | otherwise |
| six and more | arrays, channels first | always |

**Range.** Images of whole numbers (whatever their type), and arrays of an integer type, lie on a grid, which is
kept: see `whole_levels`. Other images and arrays that fill [0, 1] or [-1, 1] (without leaving it, and more than half
of it) are taken to mean that range and mapped to [-1, 1]. Everything else, and all vectors, is standardised per
channel or feature by the mean and standard deviation of the training part. Samples come back in the units found.

**Holes.** NaN means that a value was not seen: statistics leave it out, and so does the loss (`ornstein.core.gaps`).

**Labels.** Whole numbers or strings; -1 is "no label". Numbers index the names in `classes`, if the file has them.

**Size.** Data that would fill more than half of the machine's memory stay on disk: an .npy is mapped, its two parts are
written to temporary files (in TMPDIR, or else /var/tmp) that vanish with the process, and every step reads its own
examples from there. This holds for float32 and 8-bit numbers; other types must be converted, in memory.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from ornstein.data.columns import read_columns
from ornstein.data.condition import labelled
from ornstein.data.dataset import Dataset, Source
from ornstein.data.labels import as_names, lost, matched, numbered
from ornstein.data.layout import Kind, Layout, guessed
from ornstein.data.pictures import whole_levels
from ornstein.data.reading import absolute, as_tensor, half_of_memory, read_arrays
from ornstein.data.remarks import remarks
from ornstein.data.splitting import split
from ornstein.data.standard import decode_blob
from ornstein.data.statistics import CHUNK, extremes, moments, standardise, value_range
from ornstein.data.transform import Affine, Transform, WholeNumbers
from ornstein.errors import InputError, shown
from ornstein.files import regular

if TYPE_CHECKING:
    import numpy as np

VALUE_KEYS = ("x", "data", "images", "x_train", "samples")
LABEL_KEYS = ("labels", "label", "y", "y_train")
#: beside labels that are numbers, their names; what `ornstein sample` writes beside its samples
CLASS_KEY, OTHER_KEYS = "classes", ("seeds",)
MOST_LEVELS = 65_536
#: what float32 can hold, with room for draws that lie far from the mean; and the least spread that it divides by
LARGEST, SMALLEST = 1e37, 1e-36


@final
@dataclass(frozen=True)
class Array(Source):
    """Numbers from an .npy or .npz file: vectors, images or arrays, by their shape; labels if the file has them.

    A file with `x_train` and `x_test` keeps that split; otherwise a part is held out. A file with `blob` and
    `offsets` holds encoded images (PNG, JPEG) end to end.

    Args:
        path: the file.
        key: which array of an .npz; None takes the only one that is not labels, or x, data, images, x_train.
        labels_key: which array of an .npz holds the labels: whole numbers or strings (N,). None takes labels, label
            or y if there; "none" ignores them.
        condition: names of arrays of an .npz with a row for each example, to condition on: see
            `ornstein.data.columns` for what they are read as. With x_train and x_test: NAME_train and NAME_test.
        layout: what the axes are, in the letters of `ornstein.data.layout`; "auto" decides by their lengths.
        flip: mirror training images left to right at random.
        test_fraction, seed: what share is held out, and which examples; in proportion to the classes.

    Raises:
        InputError: no such file or key; Python objects inside; text or complex numbers; infinite values;
            numbers that float32 cannot tell apart; labels that do not fit; fewer than three examples; too large for
            memory, and no room on disk for the two parts.
    """

    path: str
    key: str | None = None
    labels_key: str | None = None
    condition: str | tuple[str, ...] = ()
    layout: str = "auto"
    flip: bool = False
    test_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.layout != "auto":
            Layout(self.layout)
        object.__setattr__(self, "path", absolute(self.path))
        given = (self.condition,) if isinstance(self.condition, str) else self.condition
        object.__setattr__(self, "condition", tuple(dict.fromkeys(given)))

    def load(self) -> Dataset:
        file = regular(self.path, "data.path", "an .npy or .npz file")
        return self.of(read_arrays(file), shown(file.stem), file)

    def of(self, arrays: "Mapping[str, np.ndarray]", name: str, file: Path) -> Dataset:
        """The data set of arrays that are read already.

        Args:
            arrays: as an .npz has them, or one by the name "".
            name: of the data.
            file: what to call them in errors.
        """
        raw, key = self._values(arrays, file)
        raw_test = arrays["x_test"] if key == "x_train" and "x_test" in arrays else None
        values, layout = self._arranged(raw, key or shown(file.name))
        kind = layout.kind
        notes = [f"axes read as {layout.axes or 'channels first'}"] if values.ndim > 2 and key != "blob" else []
        if self.layout == "auto" and layout.axes == "NCHW" and values.shape[1] > 4:
            notes[-1:] = [f"{notes[-1]}, {values.shape[1]} channels (data.layout=NDHW for volumes)"]
        labels, classes, remark = self._labels(arrays, key, len(values))
        notes += [remark] if remark else []
        if raw_test is None:
            chosen = split(len(values), self.test_fraction, self.seed, labels)
            train, test = (_taken(values, part) for part in chosen)
            train_labels, test_labels = (labels[part] if labels is not None else None for part in chosen)
            columns = self._columns(arrays, ())
        else:
            train, train_labels = values.contiguous(), labels
            test, test_layout = self._arranged(raw_test, "x_test")
            test = test.contiguous()
            if test.shape[1:] != train.shape[1:] or test_layout != layout:
                raise InputError(
                    f"x_test {tuple(raw_test.shape)} and x_train {tuple(raw.shape)} differ in shape or type."
                )
            test_labels = self._test_labels(arrays, classes, len(test)) if labels is not None else None
            columns = self._columns(arrays, ("_train", "_test"))
            chosen = torch.arange(len(train) + len(test)).split([len(train), len(test)])
        conditions, said = read_columns(columns, *chosen, tuple(train.shape[1:]))
        conditions = {**labelled(train_labels, test_labels, classes), **conditions}
        notes += said
        if train_labels is not None and test_labels is not None:
            notes += filter(None, [lost(train_labels, test_labels, classes)])
        transform: Transform
        if (grid := _grid(train, test, kind)) is not None:
            transform = grid
            train, test = (part.to(grid.dtype) for part in (train, test))
        else:
            train, test = (_single(part, file) for part in (train, test))
            transform, remark = _continuous(train, test, kind)
            notes += [remark] if remark else []
        return Dataset(
            name=name,
            train=train,
            test=test,
            conditions=conditions,
            kind=kind,
            transform=transform,
            flip=self.flip,
            note="; ".join([*notes, *remarks(train, transform, kind)]),
            layout=layout,
        )

    def _values(self, arrays: "Mapping[str, np.ndarray]", file: Path) -> tuple["np.ndarray", str]:
        held = ", ".join(map(shown, arrays)) or "nothing"
        if "" in arrays and self.key is not None:
            raise InputError(f"data.key={self.key!r} is not in {shown(file)}; an .npy file holds one array.")
        if self.key is not None:
            if self.key not in arrays:
                raise InputError(f"data.key={self.key!r} is not in {shown(file)}; it holds {held}.")
            return arrays[self.key], self.key
        if "blob" in arrays and "offsets" in arrays:
            return decode_blob(arrays["blob"], arrays["offsets"], shown(file.name)).numpy(), "blob"
        if "x_train" in arrays and "x_test" in arrays:
            return arrays["x_train"], "x_train"
        beside = (*LABEL_KEYS, self.labels_key, CLASS_KEY, *OTHER_KEYS, *self.condition)
        candidates = [key for key in arrays if key not in beside]
        known = [key for key in VALUE_KEYS if key in candidates]
        chosen = candidates[0] if len(candidates) == 1 else known[0] if len(known) == 1 else None
        if chosen is None:
            instead = "say which with data.key=NAME" if arrays else "give a file with an array"
            raise InputError(f"{shown(file)} holds {held}; {instead}.")
        return arrays[chosen], chosen

    def _arranged(self, raw: "np.ndarray", name: str) -> tuple[Tensor, Layout]:
        """Values (N, *shape) with channels first, and the layout that they had."""
        values = as_tensor(raw, name, missing=True)
        layout = Layout(self.layout) if self.layout != "auto" else guessed(values)
        if self.layout == "ND" and values.ndim == 1:
            layout = Layout("N")
        if layout.axes and len(layout.axes) != values.ndim:
            raise InputError(
                f"data.layout={layout.axes!r} names {len(layout.axes)} axes, but array {name!r} has {values.ndim}."
            )
        return layout.take_in(values), layout

    def _columns(self, arrays: "Mapping[str, np.ndarray]", parts: tuple[str, ...]) -> "dict[str, np.ndarray]":
        """The arrays to condition on, those of the parts of a split file after each other."""
        import numpy as np

        found = {}
        for name in self.condition:
            if name == self._label_key(arrays):
                continue  # the part "label"
            keys = [name + part for part in parts] or [name]
            absent = [key for key in keys if key not in arrays]
            if absent:
                held = ", ".join(map(shown, arrays)) if "" not in arrays else "one array without a name"
                raise InputError(f"data.condition={absent[0]!r} is not in {shown(self.path)}; it holds {held}.")
            found[name] = np.concatenate([arrays[key] for key in keys]) if parts else arrays[name]
        return found

    def _label_key(self, arrays: "Mapping[str, np.ndarray]", key: str = "") -> str | None:
        """The array with the labels, or None."""
        if self.labels_key is not None:
            return None if self.labels_key == "none" else self.labels_key
        return next((name for name in LABEL_KEYS if name in arrays and name != key), None)

    def _labels(
        self, arrays: "Mapping[str, np.ndarray]", key: str, count: int
    ) -> tuple[Tensor | None, tuple[str, ...], str]:
        """Class numbers (count,), or None; the classes' names; a remark."""
        label_key = self._label_key(arrays, key)
        if label_key is None:
            return None, (), ""
        if label_key not in arrays:
            held = ", ".join(map(shown, arrays))
            raise InputError(f"data.labels_key={label_key!r} is not in {shown(self.path)}; it holds {held}.")
        classes = arrays.get(CLASS_KEY)
        return numbered(as_names(arrays[label_key], label_key, count, classes), label_key)

    @staticmethod
    def _test_labels(arrays: "Mapping[str, np.ndarray]", classes: tuple[str, ...], count: int) -> Tensor:
        if "y_test" not in arrays:
            raise InputError("x_test has no labels but x_train has; add y_test, or use data.labels_key='none'.")
        named = arrays.get(CLASS_KEY)
        return matched(as_names(arrays["y_test"], "y_test", count, named), "y_test", classes, "y_train")


def read_rows(
    file: "str | Path",
    shape: tuple[int, ...],
    layout: Layout,
    *,
    noun: str = "input",
    key: str | None = None,
    missing: bool = False,
) -> tuple[Tensor, list[str] | None]:
    """Examples from an .npy or .npz, for a model of examples of this shape: what the commands read.

    Args:
        file: the file. Of an .npz the array is found as `Array` finds it; what `ornstein sample` wrote is read.
        shape: of one example in the model, (C, ...).
        layout: of the data that the model was trained on. Rows in the model's own order are taken too.
        noun: what the file is, for errors.
        key: which array of an .npz.
        missing: NaN is allowed, and stays.

    Returns:
        values (N, *model), in data units and, but for half precision and the like, in their own type; the labels' names
        if the file has any, "-1" for none.

    Raises:
        InputError: as `Array`; another number of axes.
    """
    place = regular(file, noun, "an .npy or .npz file")
    source = Array(str(place), key=key)
    arrays = read_arrays(place)
    raw, key = source._values(arrays, place)
    values = layout.rows(as_tensor(raw, key or shown(place.name), missing), shape, f"{noun}={str(file)!r}")
    index, classes, _ = source._labels(arrays, key, len(values))
    return values, None if index is None else [classes[i] if i >= 0 else "-1" for i in index.tolist()]


def glance(arguments: "Mapping[str, object]") -> tuple[int, tuple[int, ...], Kind]:
    """How many examples an .npy or .npz file holds, of which shape in the model, and what they are.

    Args:
        arguments: of `Array`; its "name" is passed over.

    Raises:
        InputError: as `Array.load` raises of the values.
    """
    source = Array(**{key: value for key, value in arguments.items() if key != "name"})  # type: ignore[arg-type]
    file = regular(source.path, "data.path", "an .npy or .npz file")
    raw, key = source._values(read_arrays(file), file)
    values, layout = source._arranged(raw, key or shown(file.name))
    return len(values), tuple(values.shape[1:]), layout.kind


def _taken(values: Tensor, rows: Tensor) -> Tensor:
    """values[rows] for ascending rows, in memory, or in a file of its own if `values` fill more than half of that."""
    if values.nbytes <= half_of_memory():
        return values[rows].contiguous()
    import numpy as np

    folder = tempfile.gettempdir() if "TMPDIR" in os.environ or not os.path.isdir("/var/tmp") else "/var/tmp"
    shape = (len(rows), *values.shape[1:])
    needed, free = math.prod(shape) * values.itemsize, shutil.disk_usage(folder).free
    if free < needed:  # written through a map, a full disk would be a crash
        raise InputError(
            f"{folder} has {free / 1e9:.3g} GB free, and data larger than half of this machine's memory need "
            f"{needed / 1e9:.3g} GB there; point TMPDIR at a folder with more."
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        found = torch.from_numpy(np.memmap(file, values[:0].numpy().dtype, "w+", shape=shape))
    for first in range(0, len(rows), CHUNK):
        some = rows[first : first + CHUNK]
        # a run of rows is read as a run: row by row, a file is read several times over
        run = values[int(some[0]) : int(some[-1]) + 1]
        found[first : first + len(some)] = run[some - some[0]]
    return found


def _grid(train: Tensor, test: Tensor, kind: Kind) -> WholeNumbers | None:
    """The levels of images of whole numbers and of integer arrays; None for all else."""
    whole = kind != "vector" and not train.is_floating_point() and not test.is_floating_point()
    if kind == "image" and not whole:
        whole = all(bool((some == some.round()).all()) for part in (train, test) for some in part.split(CHUNK))
    if not whole:
        return None
    low, high = value_range(train, test)
    if max(high, 0) - min(low, 0) >= MOST_LEVELS:
        return None
    if low == high:
        raise InputError(f"all values are {low:g}; there is nothing to learn.")
    return whole_levels(int(low), int(high))


def _continuous(train: Tensor, test: Tensor, kind: Kind) -> tuple[Affine, str]:
    """The map for values that lie on no grid, and a remark."""
    low, high = value_range(train, test)
    slack = 1e-6  # a range that was computed, not typed
    if kind != "vector" and low >= -slack and high <= 1 + slack and high - low > 0.5:
        return Affine(0.5, 0.5), ""
    if kind != "vector" and low >= -1 - slack and high <= 1 + slack and high - low > 1:
        return Affine(0.0, 1.0), ""
    return standardise(train)


def _single(values: Tensor, file: Path) -> Tensor:
    """The values in float32, or an error if it cannot tell them apart (timestamps, identifiers)."""
    low, high = value_range(values)
    if max(abs(low), abs(high)) > LARGEST:
        raise InputError(
            f"{shown(file)} runs from {low:.3g} to {high:.3g}, which float32 cannot hold with room for draws "
            f"beyond it; rescale it to below {LARGEST:g}."
        )
    single = values.float()
    if values.dtype == torch.uint8:
        return single
    if 0 < high - low < SMALLEST:
        raise InputError(
            f"{shown(file)} runs from {low:.3g} to {high:.3g}, a range too small for float32; rescale it to above "
            f"{SMALLEST:g}."
        )
    if values.dtype == torch.float32:
        return single
    error = extremes((values.double() - single).abs())[1]
    least, most = extremes(values)
    varies = least < most
    lost = (error == math.inf) | ((error > 0.01 * moments(values)[1]) & varies)
    if lost.any():
        where = int(lost.nonzero()[0])
        low, high = value_range(values[:, where])
        raise InputError(
            f"feature {where} of {shown(file)} runs from {low:.12g} to {high:.12g}, which float32 cannot hold or tell "
            "apart; subtract an offset or rescale it first."
        )
    return single
