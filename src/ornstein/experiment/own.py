"""`ornstein train PATH`: from your own file or folder to an experiment, with a reason for each choice.

The data (their suffix, shape, number and size) and the machine decide the preset, the size of pictures, the
network, the batch and the steps. Each choice comes with a sentence; both are written into the experiment, so that a
run's experiment.yaml says what was chosen and why. Settings that the user gives beside the path are kept.

The rules are few:

- *Pictures*: as they are, if all agree and are small; else cropped and resized to the median of their sides, of which
  the longer is at most 64 on a CPU and 128 on a GPU. A network of 64 channels, on squares of 2x2 pixels from a side of
  24 on.
- *Tables*: a network learns few rows by heart before it learns from them. So below 30,000 rows dropout is raised, and
  below 5,000 it is raised further and rows are seen less often.
- *Batch*: the preset's, but at most half of the examples, so that none is in it twice.
- *Steps*: the preset's, but at most as many as show every example 400 times (2,000 at least), or each row of a
  table 225 times, of a table with fewer than 5,000 rows 150 times (300 at least): with more, a network of this size
  learns the examples by heart. If a time is given (`training.minutes`), the steps that it allows replace the preset's,
  up to the same limit.
"""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ornstein.data.array import glance
from ornstein.data.folder import lie, stray
from ornstein.data.pictures import SUFFIXES, sides
from ornstein.data.table import TABLES, glance_at
from ornstein.data.zipped import is_zip
from ornstein.errors import InputError, shown
from ornstein.files import named, regular

#: pictures of which the size is looked at
_LOOKED_AT = 400
#: longest side of pictures on a CPU, and on a GPU
_LONGEST = {False: 64, True: 128}
#: how often each example is seen at most; steps that are always taken; the same of rows of a table, few or many
_VISITS, _LEAST, _ROW_VISITS, _FEW_ROW_VISITS, _LEAST_OF_ROWS = 400, 2000, 225, 150, 300
#: rows below which 0.6 of a network is left out in each step, and below which 0.55 of it is
_FEW_ROWS, _SOME_ROWS = 5_000, 30_000
#: steps where a time is said in their place: more than anybody takes
ENDLESS = 10_000_000
_ARRAYS = (".npy", ".npz")
#: what a file can be said to be, by data=NAME, and what the preset of that name makes of it; data in memory can be
#: said to be fewer of these: `ornstein.experiment.given.SAID`
SAID = {
    "series": "windows of time for a U-Net that draws, forecasts and fills",
    "text": "characters in their order, for a network that reads from both sides",
}
_KNOWN = "a .csv, .csv.gz, .tsv or .parquet table, an .npy or .npz array, or a folder or .zip of pictures"


@dataclass(frozen=True)
class Own:
    """What is chosen for a path.

    Args:
        preset: the experiment that it is based on.
        data: the source and its arguments.
        examples: how many there are, about; 0 if that is not known.
        changes: dotted key -> value.
        reasons: dotted key -> a sentence.
        visits: how often each example is seen at most.
        least: steps that are always taken.
    """

    preset: str
    data: dict[str, Any]
    examples: int
    changes: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    visits: int = _VISITS
    least: int = _LEAST


def is_own(source: str) -> bool:
    """Whether a word names a file or a folder of data, and no experiment's YAML file; what is there alone decides."""
    place = named(source, "experiment")
    if place.suffix.lower() in (".yaml", ".yml"):
        return False
    if os.path.isdir(place) or _named_as_data(place):
        return True
    return os.path.lexists(place) and (os.sep not in source or place.suffix != "")  # a path without one may be YAML


def stem(source: "str | Path") -> str:
    """The name of a run on this path: photos for photos/, adult for adult.csv.gz."""
    place = Path(os.path.abspath(named(source, "experiment")))
    if place.is_dir():
        return place.name or "data"
    return place.name[: -len(_suffix(place)) or None] or place.stem


def _suffix(place: Path) -> str:
    return next((end for end in (*TABLES, *_ARRAYS) if place.name.lower().endswith(end)), place.suffix)


def _named_as_data(place: Path) -> bool:
    return is_zip(place) or place.name.lower().endswith((*TABLES, *_ARRAYS, *SUFFIXES))


def chosen(source: str, said: Mapping[str, Any]) -> Own:
    """The choices for a path.

    Args:
        source: the path.
        said: dotted key -> value, the settings that the user gives beside it.

    Raises:
        InputError: nothing there; a file of no known kind, or that cannot be read; a run folder; a folder or a zip
            without pictures.
    """
    place = named(source, "experiment")
    name = said.get("data")
    told = isinstance(name, str) and name in SAID
    if os.path.isdir(place) and told:
        raise InputError(
            f"experiment={shown(source)!r} is a folder, and data={name} takes one file; name a file in it."
        )
    if os.path.isdir(place):
        return _pictures(place, said, on_gpu(said))
    regular(source, "experiment", f"{_KNOWN}; or a preset's name")
    if told:
        return as_said(str(name), {"path": str(place)})
    if is_zip(place):
        return _pictures(place, said, on_gpu(said))
    if place.name.lower().endswith(TABLES):
        return _table(place, said)
    if place.suffix.lower() in _ARRAYS:
        return _array(place, said)
    if place.suffix.lower() in SUFFIXES:
        raise InputError(f"experiment={shown(source)!r} is one picture; give a folder or a .zip of many.")
    raise InputError(
        f"experiment={shown(source)!r} is a file of a kind that is not known ({place.suffix or 'no suffix'}); give "
        f"{_KNOWN}; if it is a text to learn from, {in_shell(place, 'data', 'text')}."
    )


def by_time(said: Mapping[str, Any]) -> bool:
    """Whether what is said, dotted key -> value, has a time in place of steps."""
    return said.get("training.minutes") is not None and "training.steps" not in said


def on_gpu(said: Mapping[str, Any]) -> bool:
    """Whether what is said, dotted key -> value, is trained on a GPU."""
    return torch.accelerator.is_available() and said.get("training.cpu") is not True


def sized(own: Own, batch: int, steps: int) -> Own:
    """The choices with a batch and a number of steps that suit so many examples, if the preset's do not.

    Args:
        own: the choices so far.
        batch, steps: the preset's, or as said.
    """
    changes, reasons, count = dict(own.changes), dict(own.reasons), own.examples
    if not count:
        return replace(own, changes={**changes, "training.steps": steps})
    if batch > (half := max(count // 2, 8)):
        batch = changes["training.batch_size"] = 2 ** (half.bit_length() - 1)
        reasons["training.batch_size"] = f"{batch}, at most half of {count:,} examples"
    most = max(own.visits * count // batch, own.least)
    if steps > most:
        changes["training.steps"] = most // 100 * 100
        reasons["training.steps"] = (
            f"{changes['training.steps']:,}: {count:,} examples are seen {own.visits} times, or {own.least:,} steps "
            "are taken"
        )
    return replace(own, changes=changes, reasons=reasons)


def as_said(name: str, source: Mapping[str, Any]) -> Own:
    """The choices for what is said to be one of `SAID`, with the arguments of its source."""
    return Own(name, {"name": name, **source}, 0, reasons={"preset": f"{name}, as data={name} says: {SAID[name]}"})


def in_shell(place: Path, key: str, value: str) -> str:
    """The command that takes a file for something else, as one types it; YAML puts no quotes around it."""
    return f"use ornstein train {shlex.quote(shown(place))} {key}={value}"


def in_python(key: str, value: str) -> str:
    """The call that takes data in memory for something else, as one types it."""
    said = f"{key}={value!r}" if key.isidentifier() else f"**{ {key: value} }"
    return f"use ornstein.fit(X, {said})"


def if_ordered(rows: str, by: str, instead: Callable[[str, str], str]) -> str:
    """A hint that rows may be a series; `by`: the column that says so, or ""."""
    said = f"by {shown(by)!r} " if by else ""
    return f"{rows} that need not follow each other; if {said}they do, {instead('data', 'series')}"


def _table(place: Path, said: Mapping[str, Any]) -> Own:
    drop = said.get("data.drop", ())
    try:
        count, wide, by = glance_at(place, [drop] if isinstance(drop, str) else drop if isinstance(drop, list) else ())
    except InputError as error:
        if place.suffix.lower() != ".txt":
            raise
        why = str(error).removesuffix(".")
        raise InputError(f"{why}; if it is a text to learn from, {in_shell(place, 'data', 'text')}.") from None
    found = of_table({"name": "table", "path": str(place)}, count, wide, "about ")
    if by:
        found.reasons["data"] = if_ordered("table, of rows", by, partial(in_shell, place))
    return found


def of_table(data: Mapping[str, Any], count: int, wide: int, about: str = "") -> Own:
    """The choices for a table of so many rows (or about as many) and columns."""
    columns = f"{wide:,} column{'s' * (wide != 1)}"
    why = f"a table of {about}{count:,} rows and {columns}: masked columns, which take any kind of column"
    reasons = {"preset": f"table, {why}"}
    changes: dict[str, Any] = {}
    if count < _SOME_ROWS:
        changes["net.dropout"] = 0.6 if count < _FEW_ROWS else 0.55
        reasons["net.dropout"] = f"{changes['net.dropout']}, for {count:,} rows are soon learnt by heart"
    visits = _FEW_ROW_VISITS if count < _FEW_ROWS else _ROW_VISITS
    return Own("table", dict(data), count, changes, reasons, visits, _LEAST_OF_ROWS)


def _array(place: Path, said: Mapping[str, Any]) -> Own:
    data = {"name": "array", "path": str(place)}
    keys = {k.removeprefix("data."): v for k, v in said.items() if k in ("data.key", "data.layout")}
    count, shape, kind = glance({**data, **keys})
    found = of_shape(data, count, shape, kind, f"experiment={shown(place)!r}")
    if why := otherwise(shape, kind, "data.layout" in said, partial(in_shell, place)):
        found.reasons["data"] = why
    return found


def otherwise(shape: tuple[int, ...], kind: str, laid: bool, instead: Callable[[str, str], str]) -> str:
    """A hint at what else an array of such examples may be; "" for none.

    Args:
        shape, kind: of an example.
        laid: whether its axes are said.
        instead: how it is taken for something else, by key and value: `in_shell` or `in_python`.
    """
    if shape == (1,):
        return if_ordered("array, of numbers", "", instead)
    if kind == "image" and shape[0] > 4 and not laid:
        volumes = instead("data.layout", "NDHW")
        return f"array, of pictures with {shape[0]} channels; if they are volumes, {volumes}"
    return ""


def of_shape(data: Mapping[str, Any], count: int, shape: tuple[int, ...], kind: str, noun: str) -> Own:
    """The choices for examples of this shape in the model.

    Args:
        data: the source and its arguments.
        count: how many there are.
        kind: as of a `Dataset`.
        noun: what to call them in errors.

    Raises:
        InputError: more axes than a network takes.
    """
    by, data = "x".join(map(str, shape)), dict(data)
    if kind == "vector":
        why = f"array, for {count:,} vectors of {by} numbers: a residual network"
        return Own("array", data, count, reasons={"preset": why})
    spaces = len(shape) - 1
    called = {1: "series", 2: "images", 3: "volumes"}.get(spaces)
    if called is None:
        raise InputError(
            f"{noun} holds examples of shape {by}; a U-Net takes up to three axes: join some, or give each example as "
            "a row of numbers (N, features), to be learnt as a vector."
        )
    changes, reasons = _network(shape, count)
    reasons = {
        "preset": f"images, for {count:,} {called} {by}: a U-Net in {spaces} dimension{'s' * (spaces > 1)}",
        **reasons,
    }
    return Own("images", data, count, changes, reasons)


def _network(shape: tuple[int, ...], count: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Changes to the preset of images for examples of this shape, and why."""
    longest, spaces = max(shape[1:]), len(shape) - 1
    changes: dict[str, Any] = {}
    reasons = {}
    levels = [1, 2, 2][: max(longest, 4).bit_length() - 2]
    if len(levels) < 3:
        changes["net.multipliers"] = levels
        reasons["net.multipliers"] = f"{len(levels)} level{'s' * (len(levels) > 1)}, for a longest side of {longest}"
    if spaces > 1 and longest >= 24:
        changes["net.patch"] = 2
        reasons["net.patch"] = "2: from a side of 24 on, squares of 2 cost a quarter"
    if count < 5000:
        changes["net.dropout"] = 0.1
        reasons["net.dropout"] = f"0.1, for {count:,} examples are few"
    return changes, reasons


def _pictures(place: Path, said: Mapping[str, Any], quick: bool) -> Own:
    if all((place / name).exists() for name in ("experiment.yaml", "run.yaml")):
        raise InputError(
            f"experiment={shown(place)!r} is a run; go on with it by ornstein train --resume {shown(place)}."
        )
    lying = lie(place, "experiment")
    called, places = "zip" if is_zip(place) else "folder", lying.places
    if not places:
        tables = sorted(f.name for f in lying.files if _named_as_data(Path(f)))
        instead = "name that file instead" if called == "folder" else "unpack that file, and name it"
        raise InputError(
            f"experiment={shown(place)!r} is a {called} without pictures"
            + (f"; it has {shown(tables[0])!r}: {instead}." if tables else f"; give {_KNOWN}.")
        )
    reasons = {"preset": f"images, for a {called} of {len(places):,} pictures: a U-Net"}
    found = sides(lying.read(range(len(places))[:: max(len(places) // _LOOKED_AT, 1)][:_LOOKED_AT]))
    changes, why = read_as(found, len(places), said, quick)
    reasons |= why
    size = said.get("data.size") or changes.get("data.size") or (found and f"{found[0][0]},{found[0][1]}")
    if "data.label" not in said and (outside := stray(places)):
        changes["data.label"] = "none"
        reasons["data.label"] = f"none: {shown(outside)!r} lies outside of the sub-folders, so these are no classes"
    try:
        across = [int(side) for side in str(size).strip("()[] ").lower().replace("x", ",").split(",")]
    except ValueError:  # refused later, in words of its own
        across = [64]
    net, why = _network((3, *across), len(places))
    return Own("images", {"name": "images", "path": str(place)}, len(places), {**changes, **net}, {**reasons, **why})


def read_as(
    found: Sequence[tuple[int, int, bool]], count: int, said: Mapping[str, Any], quick: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """The size and mode to read pictures in, and why.

    Args:
        found: height, width and whether of more than 8 bits, of those that were looked at.
        count: how many there are in all.
        said: dotted key -> value.
        quick: whether they are for a GPU.
    """
    changes: dict[str, Any] = {}
    reasons = {}
    if found and said.get("data.size") is None:
        heights, widths = (sorted(side) for side in list(zip(*found, strict=True))[:2])
        height, width, most = heights[len(heights) // 2], widths[len(widths) // 2], _LONGEST[quick]
        alike = len(set(found)) == 1 and count <= max(_LOOKED_AT, len(found))
        if alike and max(height, width) <= most:
            reasons["data.size"] = f"{height},{width}, as all pictures are"
        else:
            scale = min(most / max(height, width), 1.0)
            sizes = [min(max(8, round(side * scale / 8) * 8), most) for side in (height, width)]
            changes["data.size"] = ",".join(map(str, sizes))
            reasons["data.size"] = (
                f"{sizes[0]},{sizes[1]}: the median of the pictures is {height}x{width}, the longer side at most "
                f"{most} on a {'GPU' if quick else 'CPU'}; larger by data.size=H,W"
            )
    if len({deep for *_, deep in found}) > 1 and "data.mode" not in said:
        changes["data.mode"] = "RGB"
        reasons["data.mode"] = "RGB, for some pictures have 16 bits and others 8: all are read at 8"
    return changes, reasons
