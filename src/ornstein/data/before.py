"""New data for a model that was trained on others: its units, scales, classes and columns are kept.

A network knows its data in model space. To train it further on new data, these must be brought there by the *old* map,
their classes numbered as the old ones were, and the spread that noise is measured against kept; otherwise the network
would see something else under the same names.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.data.classes import Classes, Text
from ornstein.data.condition import Column, Known
from ornstein.data.dataset import Dataset, Source
from ornstein.data.kept import Kept
from ornstein.data.pictures import MODES, WHITE, is_picture, read_whole_pictures
from ornstein.data.schema import ColumnType
from ornstein.data.series import Series
from ornstein.data.statistics import value_range
from ornstein.data.timeline import Timeline
from ornstein.data.tokens import Tokens
from ornstein.data.transform import Transform, WholeNumbers
from ornstein.errors import InputError, shown


def load_as_before(source: Source, facts: Mapping[str, Any], transform: Transform) -> Dataset:
    """The data of a source, for a model of others.

    Args:
        source: of the new data.
        facts: `Dataset.fingerprint()` of the data that the model was trained on.
        transform: theirs.

    Raises:
        InputError: as `source.load()`; examples of another kind or shape; a level, a class or values that the model
            has no place for.
    """
    if "series" in facts and not isinstance(source, Kept):  # which are windows already
        if not isinstance(source, Series):
            raise InputError("a run on windows of series goes on with series: leave data.name as it is.")
        return as_before(source.load_on(Timeline.from_dict(facts["series"])), facts, transform)
    if isinstance(transform, Classes) and transform.letters:
        if not isinstance(source, Text):
            raise InputError("a run on a text goes on with a text: leave data.name as it is.")
        return as_before(source.load_in(transform.letters), facts, transform)
    columns = tuple(ColumnType.from_dict(about) for about in facts.get("table", ()))
    return as_before(source.load_as(columns, transform) if columns else source.load(), facts, transform)


def as_before(data: Dataset, facts: Mapping[str, Any], transform: Transform) -> Dataset:
    """A data set that is loaded already, for a model of others: see `load_as_before`."""
    if data.kind != facts["kind"] or data.shape != tuple(facts["shape"]):
        raise InputError(
            f"data={data.name!r} has {data.kind}s of {_by(data.shape)}, but the run that is to go on was trained on "
            f"{facts['kind']}s of {_by(facts['shape'])}."
        )
    if (data.timeline is None) == ("series" in facts):
        raise InputError(f"data={data.name!r}: windows of series go on from a run on series, and nothing else does.")
    # of series the network is told which cells it sees, whether any is missing or none
    if data.timeline is None and bool(data.missing) != bool(facts.get("missing")):
        has, had = ("some" if share else "no" for share in (data.missing, facts.get("missing")))
        raise InputError(
            f"data={data.name!r} has {has} missing cells, but the run that is to go on was trained on data with {had} "
            "missing cells, which is another network: begin a new run."
        )
    known, conditions = Known.of_facts(facts), {}
    for name, about in known.items():
        if name not in data.conditions:
            raise InputError(f"data={data.name!r} has no {name}, which the run that is to go on is given.")
        conditions[name] = _column(data.conditions[name], about, name)
    note = data.note
    if isinstance(transform, Tokens):
        rows = torch.cat([data.train, data.test])
        remark = _fitting(rows, data.columns, transform)
        note = note if remark in note else "; ".join(filter(None, [note, remark]))  # kept examples have it already
    train, test = (_valued(part, transform, data.name) for part in (data.train, data.test))
    return dataclasses.replace(
        data, train=train, test=test, conditions=conditions, transform=transform, spread=facts["sigma_data"], note=note
    )


def read_for_model(
    files: "Sequence[Path | bytes]",
    shape: tuple[int, ...],
    transform: Transform,
    resized: bool,
    name: Callable[[int], str] | None = None,
    background: str = WHITE,
    most_broken: int = 0,
) -> tuple[Tensor, dict[int, InputError]]:
    """Pictures as examples for a model of images: (N, C, H, W), in the units of the data that it was trained on.

    Those skipped because they cannot be read are returned too, by number, with what is wrong with each.

    Bits are kept: a picture of more than 8 bits gives its values as they are. So does one of 8 bits for data of 256
    levels; for others (12-bit scans, digits of 0..16, floats in [0, 1]) black and white are the ends of their range.

    Args:
        files: at least one.
        shape: (C, H, W) of the model.
        transform: of the model.
        resized: the model's data were cropped and resized to that size when they were read, so these are too;
            otherwise they keep their size, which the caller checks.
        name: what to call the i-th; None for its path.
        background: that the model's data were read with.
        most_broken: at most so many that cannot be read are skipped.

    Raises:
        InputError: more files that cannot be read; a model of neither 1, 3 nor 4 channels; values beyond the model's
            range; data whose range is not that of a picture.
    """
    name = name or (lambda place: shown(source) if isinstance(source := files[place], Path) else str(place))
    if shape[0] not in MODES:
        raise InputError(f"{name(0)} cannot be a picture of {shape[0]} channels; give an .npy array.")
    levels = transform.levels
    deep = shape[0] == 1 and levels is not None and levels.count > 256
    size = (shape[1], shape[2]) if resized else None
    values, broken, _ = read_whole_pictures(
        files, size, "auto" if deep else MODES[shape[0]], name, most_broken, background
    )
    if values.shape[1] > shape[0]:  # colour, read by a model of deep greys
        values, broken, _ = read_whole_pictures(files, size, "L", name, most_broken, background)
    if levels is not None and (values.dtype != torch.uint8 or (levels.count, levels.low) == (256, 0)):
        top = levels.low + levels.count - 1
        if int(values.max()) > top:
            raise InputError(f"{name(0)} has values up to {int(values.max())}; this run's pictures end at {top}.")
        return values, broken
    if not is_picture(shape, transform):
        raise InputError(
            f"{name(0)} is a picture, but this run's data have no range of black and white; give an .npy array in "
            "their units."
        )
    # in doubles, so that the values that a picture shares with the data come out as they are
    own = transform.inverse(values.double() * (2 / 255) - 1, quantise=True)
    return own.float() if own.is_floating_point() else own, broken


def _by(shape: Any) -> str:
    return "x".join(map(str, shape))


def _column(column: Column, about: Known, name: str) -> Column:
    """A part of the condition in the old classes, or in the old units; texts without words that are new."""
    if column.about.is_tokens and about.kind == column.about.kind:
        return Column(about, *(about.tokens(column.about.texts(part))[0] for part in (column.train, column.test)))
    if column.about.kind != about.kind or column.about.shape != about.shape:
        raise InputError(f"{name} is {column.about.describe()}; the run that is to go on is given {about.describe()}.")
    if about.kind != "label":
        return Column(about, *(about.standardised(column.about.units(part)) for part in (column.train, column.test)))
    if new := [word for word in column.about.classes if word not in about.classes]:
        raise InputError(
            f"{name}={shown(new[0])!r} is no class of the run that is to go on, which has {', '.join(about.classes)}."
        )
    # the last entry is for -1, no label
    places = torch.tensor([*(about.classes.index(word) for word in column.about.classes), -1])
    return Column(about, places[column.train], places[column.test])


def _valued(x: Tensor, transform: Transform, name: str) -> Tensor:
    """Values in the type that the old data had: on their grid, or in float32."""
    levels = transform.levels
    if isinstance(transform, Classes):
        if int(x.max()) >= transform.count:
            raise InputError(
                f"data={name!r} has classes up to {int(x.max())}, but the run that is to go on knows "
                f"0..{transform.count - 1} alone."
            )
        return x
    if levels is None:
        return x if x.dtype == torch.float64 else x.float()
    seen = x[~x.isnan()] if x.is_floating_point() else x
    low, high = value_range(seen)
    if low < levels.low or high > levels.low + levels.count - 1 or bool((seen != seen.round()).any()):
        raise InputError(
            f"data={name!r} has values {low:g}..{high:g}, but the run that is to go on knows whole numbers "
            f"{levels.low}..{levels.low + levels.count - 1} alone."
        )
    assert isinstance(levels, WholeNumbers)
    return x.to(levels.dtype) if seen.numel() == x.numel() else x.float()


def _fitting(rows: Tensor, columns: tuple[ColumnType, ...], tokens: Tokens) -> str:
    """A remark on rows that lie beyond what tokens reach. Refuses what they have no place for."""

    def refuse(column: int, row: int, why: str) -> InputError:
        word = columns[column].render([float(rows[row, column])])[0]
        what = f"is {shown(word)!r}" if word else "is empty"
        return InputError(f"column {shown(columns[column].name)!r} {what} in a row, {why}.")

    for column, value in tokens.constant:
        same = (rows[:, column] == value) | (rows[:, column].isnan() & (value != value))
        if not bool(same.all()):
            kept = columns[column].render([value])[0]
            where = int((~same).nonzero()[0])
            raise refuse(column, where, f"but was {shown(kept)!r} throughout in the run that is to go on")
    beyond = 0
    for one in tokens.coded:
        values = rows[:, one.column]
        if not one.missing and bool(values.isnan().any()):
            where = int(values.isnan().nonzero()[0])
            raise refuse(one.column, where, "but the run that is to go on has never seen it missing")
        if one.part == "value":  # of words, none lies beyond
            beyond += int(((values < one.low[0]) | (values > one.high[-1])).sum())
    for other in tokens.derived:
        found = other.of(rows[:, other.source])
        agrees = (found == rows[:, other.column]) | (found.isnan() & rows[:, other.column].isnan())
        if not bool(agrees.all()):
            source = shown(columns[other.source].name)
            where = int((~agrees).nonzero()[0])
            raise refuse(
                other.column, where, f"which contradicts {source!r}, from which it follows in the run that is to go on"
            )
    many = f"{beyond:,} value{'s' * (beyond != 1)}"
    return f"{many} beyond those that the run to go on knows, taken for its outermost" if beyond else ""
