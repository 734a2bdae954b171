"""Your own arrays, from .npy or .npz: what their numbers mean is read off their shape, type and range.

**Layout.** The first axis counts examples. What the others are is decided by these rules alone, and said in the
description that is printed when training starts; `layout` overrules them.

| axes | read as | when |
|---|---|---|
| (N,), (N, d) | vectors | always |
| (N, H, W) | grey images, "NHW" | the type is an integer, or H = W |
| (N, C, L) | arrays, "NCL" | otherwise |
| (N, H, W, C) | images, "NHWC" | the last axis is 1, 3 or 4 and the second is not |
| (N, C, H, W) | images, "NCHW" | otherwise |
| five and more | arrays, channels first | always |

**Range.** Images of whole numbers (whatever their type), and arrays of an integer type, lie on a grid, which is
kept: see `whole_levels`. Other images and arrays that fill [0, 1] or [-1, 1] (without leaving it, and more than half
of it) are taken to mean that range and mapped to [-1, 1]. Everything else, and all vectors, is standardised per
channel or feature by the mean and standard deviation of the training part. Samples come back in the units found.

**Size.** What would fill more than half of the machine's memory stays on disk: an .npy is read where it lies, its two
parts are written to temporary files (in TMPDIR, or else /var/tmp) that vanish with the process, and every step reads
its own examples from there. That is for float32 and 8-bit numbers as they lie; what must be converted is, in memory.
"""

import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final, get_args

import torch
from torch import Tensor

from ornstein.data.dataset import CHUNK, Dataset, Kind, Source, moments, split, standardise, value_range
from ornstein.data.pictures import whole_levels
from ornstein.data.standard import decode_blob, read_arrays
from ornstein.data.transform import Affine, Levels, Transform
from ornstein.errors import InputError

if TYPE_CHECKING:
    import numpy as np

Layout = Literal["auto", "ND", "NHW", "NCL", "NHWC", "NCHW"]

VALUE_KEYS = ("x", "data", "images", "x_train")
LABEL_KEYS = ("labels", "label", "y", "y_train")
MOST_LEVELS = 65_536


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
        layout: what the axes are, if the rules above are not to decide.
        flip: mirror training images left to right at random.
        test_fraction, seed: how many are held out, and which; in proportion to the classes.

    Raises:
        InputError: no such file or key; Python objects inside; text or complex numbers; NaN or infinite values;
            numbers that float32 cannot tell apart; labels that do not fit; fewer than three examples; too large for
            memory, and no room on disk for the two parts.
    """

    path: str
    key: str | None = None
    labels_key: str | None = None
    layout: Layout = "auto"
    flip: bool = False
    test_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise InputError(f"layout={self.layout!r} is not known; use one of {', '.join(get_args(Layout))}.")

    def load(self) -> Dataset:
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise InputError(f"path={self.path!r} is not a file; give an .npy or .npz file.")
        arrays = _opened(file)
        notes = []
        raw, key = self._values(arrays, file)
        raw_test = arrays.get("x_test") if key == "x_train" else None
        values, kind, layout = self._arranged(raw, f"{key or file.name}")
        if layout and key != "blob":
            notes.append(f"axes read as {layout}")
        labels, classes = self._labels(arrays, key, len(values))
        if raw_test is None:
            chosen = split(len(values), self.test_fraction, self.seed, labels)
            train, test = (_taken(values, part) for part in chosen)
            train_labels, test_labels = (labels[part] if labels is not None else None for part in chosen)
        else:
            train, train_labels = values.contiguous(), labels
            test, test_kind, _ = self._arranged(raw_test, "x_test")
            test = test.contiguous()
            if test.shape[1:] != train.shape[1:] or test_kind != kind:
                raise InputError(
                    f"x_test {tuple(raw_test.shape)} and x_train {tuple(raw.shape)} differ in shape or type."
                )
            test_labels = self._test_labels(arrays, classes, len(test)) if labels is not None else None
        transform: Transform
        if (grid := _grid(train, test, kind)) is not None:
            transform = grid
            train, test = (part.to(grid.dtype) for part in (train, test))
        else:
            train, test = (_single(part, file) for part in (train, test))
            transform, remark = _continuous(train, test, kind)
            notes.extend([remark] if remark else [])
        return Dataset(
            name=file.stem,
            train=train,
            test=test,
            train_labels=train_labels,
            test_labels=test_labels,
            classes=classes,
            kind=kind,
            transform=transform,
            flip=self.flip,
            note="; ".join(notes),
        )

    def _values(self, arrays: dict[str, "np.ndarray"], file: Path) -> tuple["np.ndarray", str]:
        if self.key is not None:
            if self.key not in arrays:
                raise InputError(f"key={self.key!r} is not in {file}; it holds {', '.join(arrays) or 'one array'}.")
            return arrays[self.key], self.key
        if {"blob", "offsets"} <= set(arrays):
            return decode_blob(arrays["blob"], arrays["offsets"], file.name).numpy(), "blob"
        if {"x_train", "x_test"} <= set(arrays):
            return arrays["x_train"], "x_train"
        candidates = [key for key in arrays if key not in (*LABEL_KEYS, self.labels_key)]
        known = [key for key in VALUE_KEYS if key in candidates]
        chosen = candidates[0] if len(candidates) == 1 else known[0] if len(known) == 1 else None
        if chosen is None:
            raise InputError(f"{file} holds {', '.join(arrays) or 'nothing'}; say which with key=NAME.")
        return arrays[chosen], chosen

    def _arranged(self, raw: "np.ndarray", name: str) -> tuple[Tensor, Kind, str]:
        """Values (N, *shape) with channels first, their kind, and the layout if there was a choice."""
        import numpy as np

        if raw.dtype.kind not in "buif":
            raise InputError(f"array {name!r} is of type {raw.dtype}; expected whole or floating-point numbers.")
        if raw.ndim == 0 or raw.size == 0:
            raise InputError(f"array {name!r} is empty (shape {raw.shape}).")
        # the two ends are finite only if all is, and are found without an array of as many truth values
        if raw.dtype.kind == "f" and not (np.isfinite(raw.min()) and np.isfinite(raw.max())):
            bad = ~np.isfinite(raw)
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"array {name!r} has {int(bad.sum()):,} values that are NaN or infinite, first at {first}."
            )
        kind, bytes_each = raw.dtype.kind, raw.dtype.itemsize
        if kind == "b":
            raw = raw.astype(np.uint8)
        elif kind == "u" and bytes_each > 1:  # torch knows few operations on these
            raw = raw.astype(np.int64 if bytes_each < 8 else np.float64)
        elif kind == "f":
            raw = raw.astype(np.float32 if bytes_each <= 4 else np.float64, copy=False)
        else:
            raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
        values = torch.from_numpy(np.ascontiguousarray(raw))
        layout = self._layout(values)
        if self.layout != "auto" and len(layout) != max(values.ndim, 2):
            raise InputError(f"layout={layout!r} names {len(layout)} axes, but array {name!r} has {values.ndim}.")
        if layout == "ND":
            return values.reshape(len(values), -1), "vector", ""
        if layout == "NHW":
            return values.unsqueeze(1), "image", layout
        if layout == "NHWC":
            return values.movedim(-1, 1), "image", layout
        return values, "image" if layout == "NCHW" else "array", layout

    def _layout(self, values: Tensor) -> str:
        if self.layout != "auto":
            return self.layout
        shape = values.shape
        if len(shape) <= 2:
            return "ND"
        if len(shape) == 3:
            return "NHW" if not values.is_floating_point() or shape[1] == shape[2] else "NCL"
        if len(shape) == 4:
            return "NHWC" if shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4) else "NCHW"
        return "channels first"

    def _labels(self, arrays: dict[str, "np.ndarray"], key: str, count: int) -> tuple[Tensor | None, tuple[str, ...]]:
        import numpy as np

        label_key = self.labels_key
        if label_key is None:
            label_key = next((name for name in LABEL_KEYS if name in arrays and name != key), "none")
        if label_key == "none":
            return None, ()
        if label_key not in arrays:
            raise InputError(f"labels_key={label_key!r} is not in {self.path}; it holds {', '.join(arrays)}.")
        named, index = np.unique(_labels_of(arrays[label_key], label_key, count), return_inverse=True)
        return torch.from_numpy(index.astype(np.int64)), tuple(map(str, named.tolist()))

    @staticmethod
    def _test_labels(arrays: dict[str, "np.ndarray"], classes: tuple[str, ...], count: int) -> Tensor:
        if "y_test" not in arrays:
            raise InputError("x_test has no labels but x_train has; add y_test, or use labels_key='none'.")
        names = [str(value) for value in _labels_of(arrays["y_test"], "y_test", count).tolist()]
        unknown = sorted(set(names) - set(classes))
        if unknown:
            raise InputError(f"y_test has labels that y_train has not: {', '.join(unknown[:5])}.")
        return torch.tensor([classes.index(name) for name in names])


def _opened(file: Path) -> "dict[str, np.ndarray]":
    """As `read_arrays`, but with an .npy left in its file: taking its two parts out is then all the reading there is.

    The map is private, so that nothing done to the array gets back into the file.
    """
    import numpy as np

    try:
        return {"": np.lib.format.open_memmap(file, mode="c")}
    except (OSError, ValueError):  # an .npz, or nothing that can be mapped: empty, cut short, Python objects
        return read_arrays(file)


def _taken(values: Tensor, rows: Tensor) -> Tensor:
    """values[rows] for ascending rows, in memory, or in a file of its own if `values` fill more than half of that."""
    if values.nbytes <= _half_of_memory():
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


def _half_of_memory() -> float:
    """Bytes; no end where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    except (AttributeError, OSError, ValueError):
        return math.inf


def _labels_of(raw: "np.ndarray", name: str, count: int) -> "np.ndarray":
    """Labels (count,) as whole numbers or strings, or an error."""
    import numpy as np

    raw = raw.reshape(-1) if raw.shape == (count, 1) else raw
    if raw.shape != (count,):
        raise InputError(f"labels {name!r} have shape {raw.shape}; expected ({count},), one per example.")
    if raw.dtype.kind == "f" and np.array_equal(raw, np.round(raw)):
        return raw.astype(np.int64)
    if raw.dtype.kind not in "buiU":
        raise InputError(
            f"labels {name!r} are of type {raw.dtype} and not whole; expected whole numbers or strings, "
            "or labels_key='none' to ignore them."
        )
    return raw


def _grid(train: Tensor, test: Tensor, kind: Kind) -> Levels | None:
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
    single = values.float()
    if values.dtype in (torch.float32, torch.uint8):
        return single
    others = [axis for axis in range(values.ndim) if axis != 1]
    error = (values.double() - single).abs().amax(others)
    varies = values.amin(others) < values.amax(others)
    lost = error.isinf() | ((error > 0.01 * moments(values)[1]) & varies)
    if lost.any():
        where = int(lost.nonzero()[0])
        low, high = value_range(values[:, where])
        raise InputError(
            f"feature {where} of {file} runs from {low:.12g} to {high:.12g}, which float32 cannot hold or tell apart; "
            "subtract an offset or rescale it first."
        )
    return single
