"""Data in memory: read as a data set, and given back in their own type.

A data frame, an array or a tensor, a list of pictures: each is read by the rules that hold for the file that it could
be saved as (`ornstein.data.table`, `.array`, `.folder`; or `.series`, if it is said to be one).
"""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.data import Array, Dataset, ImageFolder, Series, Table, Transform
from ornstein.data.before import as_before
from ornstein.data.frames import fill_frame, is_frame, to_frame, with_rows, words_of
from ornstein.data.pictures import MODES, WHITE, read_whole_pictures, remarks_on
from ornstein.data.schema import ColumnType
from ornstein.data.table import carrier, clock
from ornstein.data.timeline import Timeline
from ornstein.errors import InputError, lookup, shown
from ornstein.experiment import own
from ornstein.experiment.arguments import validated
from ornstein.experiment.series import Completed
from ornstein.experiment.series_files import as_words

#: what to call them in errors
_GIVEN = Path("the data")


def taken(
    X: Any, y: Any, arguments: Mapping[str, Any], before: Mapping[str, Any] | None, said: Any = None
) -> tuple[Dataset, Any, dict[str, str]]:
    """Data in memory as a data set, something like them, and reasons.

    Args:
        arguments: of the source that would read them from a file.
        before: run.yaml of the run that they go on from.
        said: what they are, one of `SAID`; None for what their type says, or what those of that run were.
    """
    if said is None and before is not None and before["data"].get("series"):
        said = "series"
    if said in own.SAID and said not in SAID:
        raise InputError(f"data={said!r} is of a file; give its path as X.")
    if said is not None:
        return lookup(SAID, said, "data")(X, y, arguments, before)
    if is_frame(X):
        if y is not None:
            raise InputError("y goes with arrays and pictures; in a frame it is a column like others.")
        source = _source(Table, arguments, ("header",))
        words, typed = words_of(X, unread=source.drop)
        told = None
        if before is not None:
            columns = tuple(ColumnType.from_dict(about) for about in before["data"].get("table", ()))
            told = (columns, Transform.from_dict(before["transform"])) if columns else None
        data = source.of(words, "frame", typed=typed, told=told)
        by = clock(words)
        said = [own.if_ordered("table, of rows", by, own.in_python)] if by else []
        if index := _named_by(X):
            said.append(f"its index{index} is left out; X.reset_index() makes it a column")
            warnings.warn(f"X is learnt without its index{index}; X.reset_index() makes it a column.", stacklevel=5)
        return _as(data, before), _few(X), {"data": "; ".join(said)} if said else {}
    reasons: dict[str, str] = {}
    if are_pictures(X):
        like: Any = Pictures(not isinstance(X[0], (np.ndarray, Tensor)), arguments.get("background", WHITE))
        values, arguments, reasons = picture_values(X, arguments, before)
    else:
        values, like = array_of(X)
        if before is not None and before["data"].get("layout"):
            arguments = {"layout": before["data"]["layout"], **arguments}
    arrays = {"x": values}
    if y is not None:
        labels = np.asarray(y)
        arrays["y"] = labels.astype(str) if labels.dtype == object else labels
    found = _source(Array, arguments, ("key", "labels_key", "condition")).of(arrays, "array", _GIVEN)
    if why := own.otherwise(found.shape, found.kind, "layout" in arguments, own.in_python):
        reasons["data"] = why
    return _as(found, before), like, reasons


def _series(
    X: Any, y: Any, arguments: Mapping[str, Any], before: Mapping[str, Any] | None
) -> tuple[Dataset, Any, dict[str, str]]:
    if y is not None:
        raise InputError("y goes with examples; several series are told apart by a column of a frame, data.by.")
    source = _source(Series, arguments, ())
    if source.time is None and _named_by(X, False):
        raise InputError("X has its moments or names in its index; make them columns, with X.reset_index().")
    given, like = (X, _few(X)) if is_frame(X) else array_of(X)
    if before is None:
        return source.of(given), like, {}
    line = before["data"].get("series")  # None: `_as` says that nothing else goes on with series
    return _as(source.load_on(Timeline.from_dict(line), given) if line else source.of(given), before), like, {}


#: what data in memory can be said to be, by data=NAME, and what reads them so
SAID = {"series": _series}


def _as(data: Dataset, before: Mapping[str, Any] | None) -> Dataset:
    return data if before is None else as_before(data, before["data"], Transform.from_dict(before["transform"]))


def _source(kind: Any, arguments: Mapping[str, Any], of_files: Sequence[str]) -> Any:
    """The source that reads such data from a file, for what it decides of those that are read."""
    known = {entry.name for entry in dataclasses.fields(kind)} - {"path", *of_files}
    for name in arguments:
        if name not in known:
            raise InputError(f"data.{shown(name)} is not known of data in memory; known: {', '.join(sorted(known))}.")
    return kind(**validated(kind, {"path": str(_GIVEN), **arguments}, "data."))


def _named_by(X: Any, whole: bool = True) -> str:
    """What the index of a frame of pandas is, in brackets, if it says more than the rows' numbers; else "".

    Args:
        whole: whether whole numbers that have a name say more.
    """
    index: Any = getattr(X, "index", None)
    kind = getattr(getattr(index, "dtype", None), "kind", "i")
    names = [str(name) for name in getattr(index, "names", ()) if name is not None]
    if kind in "iu" and not (whole and names):
        return ""
    return f" ({', '.join(map(shown, names)) or shown(str(index[0]))[:40] + ', ...'})"


def _few(frame: Any) -> Any:
    """The first row of a frame: its types, for others like it."""
    import narwhals as nw

    return nw.to_native(nw.from_native(frame, eager_only=True).head(1))


def array_of(X: Any) -> tuple[np.ndarray, Any]:
    """Numbers, and an array or tensor of their type without rows."""
    if isinstance(X, Tensor):
        found = X.detach().cpu()
        return (found.float() if found.dtype == torch.bfloat16 else found).numpy(), X.detach()[:0]
    try:
        values = np.asarray(X)
    except Exception:  # rows of different lengths, and whatever an object's own way to an array raises
        values = np.asarray(None)
    if values.dtype.kind not in "buif" or values.ndim == 0:
        raise InputError(
            f"X is of type {type(X).__name__} and no array of numbers; give an array, a tensor, a data frame, a list "
            "of pictures, or, to `fit`, a path."
        )
    # torch warns of memory that may not be written to
    return values if values.flags.writeable else values.copy(), np.empty((0, *values.shape[1:]), values.dtype)


@dataclass(frozen=True)
class Pictures:
    """What a list of pictures was: of PIL, or arrays; and the colour that their transparency was laid on."""

    pil: bool
    background: str = WHITE


def are_pictures(X: Any) -> bool:
    if not isinstance(X, (list, tuple)) or not X:
        return False
    if type(X[0]).__module__.partition(".")[0] == "PIL":
        return True
    return isinstance(X[0], np.ndarray) and X[0].dtype == np.uint8 and X[0].ndim in (2, 3)


def picture_values(
    X: Sequence[Any], arguments: Mapping[str, Any], before: Mapping[str, Any] | None
) -> tuple[np.ndarray, dict[str, Any], dict[str, str]]:
    """Pictures (N, C, H, W), the arguments that are left, and what was decided of their size."""
    from PIL import Image

    pictures = []
    for i, given in enumerate(X):
        try:
            pictures.append(Image.fromarray(given) if isinstance(given, np.ndarray) else given)
        except (TypeError, ValueError):
            raise InputError(f"X[{i}] is no picture: arrays of bytes are (H, W), (H, W, 3) or (H, W, 4).") from None
        if not isinstance(pictures[-1], Image.Image):
            raise InputError(f"X[{i}] is of type {type(given).__name__} and no picture, as X[0] is.")
    of_pictures = ("size", "mode", "background")
    rest = {key: value for key, value in arguments.items() if key not in of_pictures}
    said = {f"data.{key}": value for key, value in arguments.items()}
    found = [(picture.height, picture.width, picture.mode.startswith("I")) for picture in pictures]
    changes, reasons = own.read_as(found, len(found), said, own.on_gpu(said))
    if before is not None:
        channels, *sides = before["data"]["shape"]
        changes = {"data.size": sides, "data.mode": MODES[channels]}
        reasons = {}
    read = {key[5:]: value for key, value in {**changes, **said}.items() if key[5:] in of_pictures}
    files = ImageFolder(".", **read)
    assert files.size is None or isinstance(files.size, tuple)
    values, _, done = read_whole_pictures(pictures, files.size, files.mode, lambda i: f"X[{i}]", 0, files.background)
    reasons["data"] = "; ".join(remarks_on(done, len(values), values, files.background))
    return values.numpy(), {**rest, "layout": "NCHW"}, reasons


def typed(values: Tensor, like: Any) -> Any:
    """Numbers in another type: rounded to whole ones, within their range, where it has no others."""
    if isinstance(like, Tensor):
        if like.dtype == torch.bool:
            return (values > 0.5).to(like)
        if not like.dtype.is_floating_point and values.is_floating_point():
            ends = torch.iinfo(like.dtype)
            values = values.double().round().clamp(ends.min, ends.max)
        return values.to(like)
    found = values.numpy()
    if like.dtype.kind == "b":
        return found > 0.5
    if like.dtype.kind in "iu" and found.dtype.kind == "f":
        low, high = np.iinfo(like.dtype).min, np.iinfo(like.dtype).max
        # the largest float below 2^63 is not 2^63 - 1
        found = np.clip(np.rint(found.astype(np.float64)), low, math.nextafter(high + 1.0, 0))
    return found.astype(like.dtype)


def steps_given(
    line: Timeline, like: Any, parts: Sequence[tuple[str, int, Tensor]], listed: Sequence[Tensor] = ()
) -> Any:
    """Steps of series in a type of data.

    Args:
        like: a frame, which has the dates and the names too, one part below the other; an array or a tensor, (N, T, F),
            without the last axis if `like` has one axis alone.
        parts: the name of a series, the place on the grid of the first step, and the values (T, F).
        listed: of each part the steps, (T,) bool, that a frame has rows for; () for all.
    """
    if not is_frame(like):
        values = typed(torch.stack([values for _, _, values in parts]), like)
        return values[..., 0] if like.ndim == 1 else values
    types, rows = list(line.features), []
    for name, first, values in parts:
        beside = [line.seconds(first, len(values))] if line.time else []
        if line.by:
            known = name in line.by.levels
            beside.append(torch.full((len(values),), float(line.by.levels.index(name)) if known else math.nan))
        rows.append(torch.cat([values.double(), *(one.double()[:, None] for one in beside)], 1))
    every = torch.cat(rows)[torch.cat(list(listed)) if listed else slice(None)]
    return to_frame(like, [*types, *filter(None, (line.time, line.by))], every)


def holes_given(line: Timeline, X: Any, found: Sequence[Completed]) -> Any:
    """The caller's series with their holes filled by the centres of draws, as the file that `save` writes has them.

    Args:
        X: a frame, which gets a row for each moment that it skips, after that of the moment before; an array or a
            tensor; the path of a table, of which the columns of words are returned.

    Raises:
        InputError: holes in one of several rows of a moment in a frame.
    """
    if isinstance(X, Path):
        return as_words(line, found)
    if not is_frame(X):
        plain, like = array_of(X)
        values = typed(torch.stack([one.centre for one in found]).reshape(plain.shape), like)
        return torch.where(X.isnan(), values, X) if isinstance(X, Tensor) else np.where(np.isnan(plain), values, plain)
    cells = carrier(found[0].track.words, line.features)
    holes = cells.isnan()
    steps, after, before = [], [], 0
    for one in found:
        rows, places = one.track.rows, torch.arange(len(one.centre))
        assert rows is not None  # as it is of arrays
        cells[rows[rows >= 0]] = one.centre[rows >= 0]
        skipped = ((rows < 0) & one.track.values.isnan().all(1) & one.track.listed).nonzero().flatten()
        last = rows[torch.where(rows >= 0, places, 0).cummax(0).values[skipped]]
        steps.append(skipped + before)
        after.append(torch.where(last >= 0, last, len(cells) - 1))  # of a moment of several rows none is known
        before += len(places)
    if bool((holes & cells.isnan()).any()):
        row = int((holes & cells.isnan()).any(1).nonzero()[0])
        raise InputError(
            f"X has holes in row {row}, one of several of its moment; give each moment of a series one row."
        )
    filled = fill_frame(X, line.features, cells, holes)
    if not any(map(len, steps)):
        return filled
    every = steps_given(line, X, [(one.track.name, one.track.first, one.centre) for one in found])
    return with_rows(filled, every, torch.cat(steps).tolist(), torch.cat(after).tolist())
