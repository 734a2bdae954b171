"""Series as tables: dates, names and features, one series below the other, in the words of the file they came from."""

import csv
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.data.condition import LABEL
from ornstein.data.timeline import Timeline
from ornstein.data.tracks import Track
from ornstein.experiment.run import Run
from ornstein.experiment.series import Completed, starts, timeline
from ornstein.files import replacing, replacing_all

#: what heads the places of series without dates
_STEP = "step"


def save(run: Run, found: Sequence[Completed], path: Path) -> None:
    """Write series as a table: date, name, and of each feature the centre with NAME_low and NAME_high beside it.

    Known values are written as the file spells them, with equal bounds. Columns of the file that are no features are
    carried along, empty at steps that the file does not have. Every draw goes into an .npz beside it: draws
    (draws, rows, features), in the order of the table's rows.

    Raises:
        InputError: the files cannot be written.
    """
    line = timeline(run)
    heads, columns = _table(line, found, 3)
    with replacing_all(path, path.with_suffix(".npz")) as (table, arrays):
        _write(table, heads, columns)
        with arrays.open("wb") as file:
            draws = torch.cat([one.draws[:, one.track.listed] for one in found], 1).numpy()
            names = np.array([feature.name for feature in line.features])
            np.savez_compressed(file, allow_pickle=False, draws=draws, features=names)


def save_windows(run: Run, drawn: Tensor, condition: Condition, path: Path) -> None:
    """Write drawn windows as a table, one below the other, with the columns of the file that the run was trained on.

    They begin at moments spread evenly over a year (`ornstein.experiment.series.starts`).

    Args:
        run: trained on series.
        drawn: (N, F, T) in model space.
        condition: what they were drawn given, with the names of the series where the run knows several.

    Raises:
        InputError: the file cannot be written.
    """
    line = timeline(run)
    values = line.kept(run.transform.inverse(drawn.double().cpu()).transpose(1, 2))
    with replacing(path) as part:
        _write(part, *_table(line, windows(line, named(run, condition, len(values)), values), 1))


def windows(line: Timeline, names: Sequence[str], values: Tensor) -> list[Completed]:
    """Drawn windows (N, T, F), in data units, with the names of their series, at moments spread evenly over a year."""
    return [
        Completed(
            Track(name, first, torch.full_like(one, math.nan), _rows(line, first, len(one)), line.idle), one[None]
        )
        for name, first, one in zip(names, starts(line, len(values)), values, strict=True)
    ]


def _rows(line: Timeline, first: int, count: int) -> Tensor | None:
    """Which of the steps a table has, as the rows of a `Track`; None for all."""
    return torch.where(line.occur(first, count), 0, -1) if line.idle else None


def named(run: Run, condition: Condition, n: int) -> list[str]:
    """The series that each of n windows was asked to be of; "" where the run knows one alone."""
    labels = condition.parts.get(LABEL)
    return [""] * n if labels is None else [run.classes[i] for i in labels.tolist()]


def _write(path: Path, heads: Sequence[str], columns: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heads)
        writer.writerows(zip(*columns, strict=True))


def as_words(line: Timeline, found: Sequence[Completed]) -> dict[str, list[str]]:
    """Series as their file has them, column -> words: what `save` writes without the bounds."""
    first = 0 if line.time else 1  # places are no column of the file
    return dict(zip(*(part[first:] for part in _table(line, found, 1)), strict=True))


def _table(line: Timeline, found: Sequence[Completed], each: int) -> tuple[list[str], list[list[str]]]:
    """Series as a table, one below the other: its header and its columns; see `_columns`."""
    names = [feature.name for feature in line.features]
    heads = [line.time.name if line.time else _STEP, *([line.by.name] if line.by else [])]
    heads += [f"{name}{end}" for name in names for end in ("", "_low", "_high")[:each]]
    beside = [name for name in found[0].track.words if name not in heads]
    parts = [_columns(line, one, beside, each) for one in found]
    return [*heads, *beside], [list(itertools.chain(*cells)) for cells in zip(*parts, strict=True)]


def _columns(line: Timeline, one: Completed, beside: Sequence[str], each: int) -> list[list[str]]:
    """The cells of a series as a table, column by column: what the file said is said as it was.

    Args:
        beside: columns of the file that are carried along.
        each: columns of a feature: its centre, and the bounds if there are to be three.
    """
    track, count = one.track, len(one.centre)
    when = line.said(track.first, count)
    columns = [_as_said(when, track.spelled(line.time.name) if line.time else [None] * count)]
    if line.by:
        columns.append(_as_said([track.name] * count, track.spelled(line.by.name)))
    parts = (one.centre, *one.interval)[:each]
    for k, feature in enumerate(line.features):
        known = (~track.values[:, k].isnan()).tolist()
        said = [word if there else None for word, there in zip(track.spelled(feature.name), known, strict=True)]
        columns += [_as_said(feature.render(part[:, k].numpy()), said) for part in parts]
    columns += [[word or "" for word in track.spelled(name)] for name in beside]
    listed = track.listed.tolist()
    return [list(itertools.compress(cells, listed)) for cells in columns]


def _as_said(rendered: Sequence[str], said: Sequence[str | None]) -> list[str]:
    return [word if word is not None else own for own, word in zip(rendered, said, strict=True)]
