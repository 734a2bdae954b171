"""Tables read and written by a run on a table: rows as its columns, drawn rows, filled holes and scores as files.

Known words come back unchanged. Columns of a file that the run does not know are copied.
"""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.data.delimited import Dialect, read_delimited, rendered, write_csv
from ornstein.data.delimited import formulas as formulas
from ornstein.data.derived import Derived, computed
from ornstein.data.frames import is_frame, read_parquet, words_of, write_parquet
from ornstein.data.kinds import Words
from ornstein.data.schema import ColumnType
from ornstein.data.table import TABLES as TABLES
from ornstein.data.table import carrier
from ornstein.data.tracks import is_table as is_table
from ornstein.errors import InputError, shown
from ornstein.experiment import cells
from ornstein.experiment.cells import must_be_table
from ornstein.experiment.loglik import own
from ornstein.experiment.run import Run
from ornstein.files import replacing, replacing_all


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a file or a frame, as a run's table has them.

    Attributes:
        name: where they come from.
        words: column -> words, in the file's order, those that the run does not know among them.
        values: (N, d) float64 of the run's carrier; NaN for holes, and for columns that the file lacks.
        types: of the run's columns.
        dialect: the format of the file; None if it is not a file of text.
        like: the frame, if the rows came from one.
    """

    name: str
    words: Mapping[str, Words]
    values: Tensor
    types: tuple[ColumnType, ...]
    dialect: Dialect | None = None
    like: Any = None

    @property
    def note(self) -> str:
        """Which of the run's columns these rows have not, in a sentence; "" if they have all that say something."""
        lacking = [k.name for k in self.types if k.name not in self.words and k.kind not in ("identifier", "constant")]
        if not lacking:
            return ""
        named, more = ", ".join(shown(repr(name)) for name in lacking[:10]), len(lacking) - 10
        return f"{shown(self.name)} has no column {named}{f' and {more:,} more' * (more > 0)}: taken as not known"


def read_rows(run: Run, data: Any, noun: str = "data") -> Rows:
    """A .csv, .tsv or .parquet file, or a data frame, as rows of the run's table; `noun`: what to call it in errors.

    Raises:
        InputError: no table; none of the run's columns; a cell that its column cannot have.
    """
    _, types = must_be_table(run)
    name, like, dialect = "the frame", None, None
    if is_frame(data):
        words, like = words_of(data, types=types)[0], data
    elif not isinstance(data, (str, Path)):
        raise InputError(f"{noun} is of type {type(data).__name__}; give a data frame, or the path of a table.")
    else:
        path = Path(data)
        name = path.name
        if not is_table(path):
            raise InputError(f"{noun}={shown(data)!r} must be a table, a file that ends in {', '.join(TABLES)}.")
        if path.suffix.lower() == ".parquet":
            like = read_parquet(path, noun)[0]
            words = words_of(like, name, types=types)[0]
        else:
            header = run.about["data"].get("dialect", {}).get("header", True)
            words, dialect, _ = read_delimited(path, noun, header=None if header else False)
    if not set(words) & {kind.name for kind in types}:
        raise InputError(
            f"{noun}={shown(name)!r} has none of the run's columns, {', '.join(shown(k.name) for k in types[:10])}."
        )
    return Rows(name, words, carrier(words, types, exact=False), types, dialect, like)


def write_rows(run: Run, path: Path, pieces: Iterator[Tensor]) -> int:
    """Write drawn rows as the run's own table was written, if it is still there with its types; how many there were."""
    _, types = must_be_table(run)
    if path.suffix.lower() == ".parquet":
        like, source = None, Path(str(run.experiment.data.get("path", "")))
        if source.suffix.lower() == ".parquet" and source.is_file():
            found = read_parquet(source, rows=1)[0]
            like = found if {kind.name for kind in types} <= set(found.column_names) else None
        return write_parquet(path, types, pieces, like)
    told = run.about["data"].get("dialect")
    return write_csv(path, types, pieces, Dialect.from_dict(told) if told and ".tsv" not in path.suffixes else None)


@dataclass(frozen=True, eq=False)
class Filled:
    """Rows with their holes filled.

    Attributes:
        rows: as they came.
        draws: (draws, N, d), known cells as they were.
        derived: the columns that the run computes from others.
    """

    rows: Rows
    draws: Tensor
    derived: tuple[Derived, ...] = ()

    @property
    def holes(self) -> Tensor:
        """(N, d) bool: what was missing, in the columns that there are, and has been filled."""
        there = torch.tensor([kind.name in self.rows.words for kind in self.rows.types])
        return self.rows.values.isnan() & ~self.draws[0].isnan() & there

    @property
    def notes(self) -> list[str]:
        """What the rows lack, and which of their holes were computed, in a sentence each."""
        open_ = self.holes.any(0).tolist()
        mine = [d for d in self.derived if self.rows.types[d.column].name in self.rows.words]
        told = computed([d for d in mine if open_[d.column]], self.rows.types)
        return list(filter(None, [self.rows.note, told]))

    @property
    def centre(self) -> Tensor:
        """(N, d): of numbers and dates the median of the draws, of words the most frequent."""
        middle = self.draws.nanquantile(0.5, 0, interpolation="lower")
        for place, kind in enumerate(self.rows.types):
            if not (kind.numeric or kind.kind == "date"):
                middle[:, place] = self.draws[:, :, place].mode(0).values
        return middle

    @property
    def words(self) -> dict[str, list[str]]:
        """The table with its holes filled, column -> words; what was known is as it was."""
        types, centre, known = self._columns()
        return {kind.name: cells for kind, cells in zip(types, rendered(centre, types, 0, known), strict=True)}

    def save(self, path: Path) -> Path:
        """Write the table with its holes filled by their centres, and beside it each hole with all its draws.

        Returns:
            The second file's place: NAME.holes.csv.
        """
        beside = holes_of(path)
        types, centre, known = self._columns()
        with replacing_all(path, beside) as (filled, listed):
            if path.suffix.lower() == ".parquet":
                write_parquet(filled, types, [centre], self.rows.like)
            else:
                write_csv(filled, types, centre, self.rows.dialect, known)
            with listed.open("w", newline="", encoding="utf-8") as file:
                self._list(csv.writer(file))
        return beside

    def _columns(self) -> tuple[list[ColumnType], Tensor, dict[str, Words]]:
        """The file's columns in its own order: types, centres, and the words that stay."""
        own = {kind.name: place for place, kind in enumerate(self.rows.types)}
        middle, types, columns, known = self.centre, [], [], {}
        for name, words in self.rows.words.items():
            kind = self.rows.types[own[name]] if name in own else None
            if kind is None or kind.kind == "identifier":  # carried along to the letter, empty cells too
                kind = ColumnType(name, "category", levels=tuple(dict.fromkeys(words.texts())))
                columns.append(torch.from_numpy(words.values(kind)))
            else:
                columns.append(middle[:, own[name]])
                known[name] = words
            types.append(kind)
        return types, torch.stack(columns, 1), known

    def _list(self, writer: Any) -> None:
        count = len(self.draws)
        writer.writerow(["row", "column", "centre", "low", "high", *(f"draw_{i + 1}" for i in range(count))])
        centre = self.centre
        for place, kind in enumerate(self.rows.types):
            ordered = kind.numeric or kind.kind == "date"
            for row in self.holes[:, place].nonzero().flatten().tolist():
                draws = self.draws[:, row, place]
                ends = kind.render([float(draws.min()), float(draws.max())]) if ordered else ["", ""]
                said = kind.render(torch.cat([centre[row, place][None], draws]).numpy())
                writer.writerow([row + 1, kind.name, said[0], *ends, *said[1:]])


def holes_of(path: Path) -> Path:
    """The file beside a filled table that lists its holes."""
    name = path.name
    end = next((e for e in TABLES if name.lower().endswith(e)), path.suffix)
    return path.with_name(name[: len(name) - len(end)] + ".holes.csv")


def fill(
    run: Run, rows: Rows, draws: int = 19, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> Filled:
    """Fill the holes of rows: see `ornstein.experiment.cells.impute`."""
    tokens, _ = must_be_table(run)
    return Filled(rows, cells.impute(run, rows.values, draws, seed=seed, progress=progress), tokens.derived)


@dataclass(frozen=True, eq=False)
class RowScores:
    """How probable rows are.

    Attributes:
        found: (N,) float64, a bound on each row's log-probability, in nats.
        error: (N,), its standard error.
        unusual: the columns that make each row unusual, in a line; None if not asked for.
        oddness: (N,), the largest excess surprise of a row's cells, which shows a row with one odd cell more clearly
            than its probability does; None if not asked for.
        note: what the rows lack, as of `Rows`.
    """

    found: Tensor
    error: Tensor
    unusual: Sequence[str] | None = None
    oddness: Tensor | None = None
    note: str = ""

    def text(self) -> str:
        """For people."""
        lines = [
            *filter(None, [self.note]),
            f"{len(self.found):,} rows, on average {self.found.mean():.3f} nats: a bound on the log-probability of "
            f"their known cells, by {cells.ORDERS} orders of the columns",
        ]
        if self.oddness is not None:
            lines.append(
                "the oddest cells are in (in brackets, by how many nats a cell is more surprising, given the rest of "
                "its row, than the model expects; 2.3 nats are ten times less likely)"
            )
        for i in (self.found if self.oddness is None else -self.oddness).argsort()[:5].tolist():
            why = "" if self.unusual is None else f"  {self.unusual[i]}"
            lines.append(f"  row {i + 1:,}  {self.found[i]:.2f}{why}")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the CSV: row, log_probability, standard_error, rank (1 is the least likely), oddness, what is odd."""
        rank = self.found.argsort(stable=True).argsort() + 1
        with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            head = ["row", "log_probability", "standard_error", "rank"]
            writer.writerow(head if self.unusual is None else [*head, "oddness", "unusual"])
            for i in range(len(self.found)):
                said = [i + 1, f"{self.found[i]:.4f}", f"{self.error[i]:.4f}", int(rank[i])]
                if self.unusual is not None and self.oddness is not None:
                    said += [f"{self.oddness[i]:.4f}", self.unusual[i]]
                writer.writerow(said)


def scored(
    run: Run,
    data: Any,
    count: int | None = None,
    seed: int = 0,
    explain: bool = False,
    progress: Callable[[int, int], None] | None = None,
    noun: str = "data",
) -> RowScores:
    """Score rows: see `ornstein.experiment.cells.score`.

    Args:
        data: "train" or "test", the run's own; a table's file, or a data frame.
        count: only the first so many; None for all.
        explain: whether to say what is unusual.
        noun: what to call the data in errors.
    """
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise InputError(f"count={count!r} must be a whole number of rows, at least 1.")
    own_part = isinstance(data, str) and data in ("train", "test")
    rows = None if own_part else read_rows(run, data, noun)
    values, note = (own(run, data).x, "") if rows is None else (rows.values, rows.note)
    found, error = cells.score(run, values[:count], seed=seed, progress=progress)
    if not explain:
        return RowScores(found, error, note=note)
    told = cells.explain(run, values[:count])
    return RowScores(found, error, oddest(told, run.types), told.nan_to_num(nan=-math.inf).amax(1), note)


def oddest(surprise: Tensor, types: Sequence[ColumnType], most: int = 3) -> list[str]:
    """Of each row the columns that are least like the rest of it, (N, d) of `cells.explain` -> N lines."""
    found = []
    for row in surprise:
        order = row.nan_to_num(nan=-math.inf).argsort(descending=True)[:most].tolist()
        found.append(", ".join(f"{types[i].name} ({row[i]:+.1f})" for i in order if float(row[i]) > 0))
    return found
