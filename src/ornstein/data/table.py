"""Tables of your own: rows of unlike columns, each in its own units, with holes where values are missing.

**What columns are** is recognised by their words (`ornstein.data.kinds`), printed before training, and can be
overridden by name: `data.types.age=category`. **Missing values** stay missing: they are learnt and drawn as such.
**Held-out rows** are chosen by their contents: copies of a row are held out together, so that the model is not judged
on rows that it was trained on, and the order of the file does not matter. Where columns have so few values that rows
repeat by chance, as in a survey of two questions, each row is chosen by itself: to hold out all rows of one answer
would keep that answer from the model. If a column tells train from test, name it
with `data.split=COLUMN`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from ornstein.data.calendar import component
from ornstein.data.columns import read_columns
from ornstein.data.condition import Column
from ornstein.data.dataset import Dataset, Source
from ornstein.data.delimited import SUFFIXES, Dialect, line_breaks, read_delimited
from ornstein.data.derived import computed
from ornstein.data.folder import TEST_FOLDERS
from ornstein.data.frames import read_parquet, words_of
from ornstein.data.kinds import Words, find_types
from ornstein.data.layout import Layout
from ornstein.data.reading import absolute
from ornstein.data.schema import ColumnType
from ornstein.data.splitting import split
from ornstein.data.tokens import Tokens
from ornstein.data.transform import Transform
from ornstein.errors import InputError, lookup, shown

#: how the names of files of tables end
TABLES = (*SUFFIXES, ".parquet")
#: rows that are looked at before a table is read
_GLANCED = 1000
_TRAIN, _TEST = ("train", "training"), (*TEST_FOLDERS, "testing", "holdout", "held-out", "held_out")


@final
@dataclass(frozen=True)
class Table(Source):
    """A table with columns of any kind from a .csv, .csv.gz, .tsv or .parquet file.

    Args:
        path: the file.
        types: column -> number, integer, category, boolean, date, constant or identifier, to override what was
            recognised; for dates also a pattern, as in "date:%d/%m/%Y".
        drop: columns to leave out.
        condition: columns that are always given and never drawn. Rows can be drawn given any other columns too
            (`--where`), so this is for what should never be modelled.
        missing: more words that mean a missing value, besides the usual ones.
        header: whether the first row has names; None: detected.
        split: a column of two words, such as train and test, that says which rows are held out; it is left out.
        test_fraction, seed: what share of the rows is held out, and which, if no column says so.

    Raises:
        InputError: no such file, or no table in it; columns that are not there; a type that does not fit; fewer than
            three different rows.
    """

    path: str
    types: dict[str, str] = field(default_factory=dict)
    drop: str | tuple[str, ...] = ()
    condition: str | tuple[str, ...] = ()
    missing: str | tuple[str, ...] = ()
    header: bool | None = None
    split: str | None = None
    test_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", absolute(self.path))
        for name in ("drop", "condition", "missing"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        if not isinstance(self.types, dict) or not all(isinstance(w, str) for w in (*self.types, *self.types.values())):
            raise InputError(f"data.types={self.types!r:.80} must name kinds by columns, as in {{age: category}}.")

    def load(self) -> Dataset:
        return self._loaded(None)

    def load_as(self, columns: Sequence[ColumnType], transform: Transform) -> Dataset:
        return self._loaded((tuple(columns), transform))

    def _loaded(self, told: "tuple[tuple[ColumnType, ...], Transform] | None") -> Dataset:
        name = shown(Path(self.path).name)
        if _is_parquet(self.path):
            columns, typed = words_of(read_parquet(self.path)[0], shown(self.path), self.drop)
            return self.of(columns, name, typed=typed, told=told)
        columns, dialect, notes = read_delimited(self.path, header=self.header)
        return self.of(columns, name, dialect, notes, told=told)

    def of(
        self,
        columns: Mapping[str, Words],
        name: str,
        dialect: Dialect | None = None,
        notes: Sequence[str] = (),
        typed: Mapping[str, str] | None = None,
        told: "tuple[tuple[ColumnType, ...], Transform] | None" = None,
    ) -> Dataset:
        """The data set of columns that are read already.

        Args:
            columns: name -> words.
            name: of the data.
            dialect: how they lay in their file.
            notes: remarks on how they were read.
            typed: column -> what it is by its type in a frame (`words_of`).
            told: what the columns are and how rows are encoded, if that is settled already; other columns are left
                out.
        """
        notes, kept = list(notes), dict(columns)
        for dropped in (*self.drop, *self.condition, *([self.split] if self.split is not None else [])):
            kept.pop(lookup({key: key for key in columns}, dropped, "column"), None)
        if not kept:
            raise InputError(f"data={name!r} has no column but those that are left out.")
        comma = dialect is not None and dialect.delimiter != ","
        typed = {name: kind for name, kind in (typed or {}).items() if name in kept}
        types = find_types(kept, self.types, self.missing, comma, typed) if told is None else told[0]
        if all(kind.kind in ("identifier", "constant") for kind in types):
            raise InputError(
                f"data={name!r} has nothing to learn: {shown(types[0].name)!r} is "
                f"{'constant' if types[0].kind == 'constant' else 'an identifier'} ({types[0].reason})"
                f"{', and so on' * (len(types) > 1)}; say what a column is with data.types.NAME=category"
                f"{', or data=text if it is a text' * name.lower().endswith('.txt')}."
            )
        rows = carrier(kept, types)
        if self.split is not None:
            train, test = _said(columns[self.split], self.split)
        else:
            train, test = _divided(rows, types, self.test_fraction, self.seed)
        copies, crossing = _copies(rows, types, train, test)
        if copies:
            where = f"{crossing:,} of them held out" if crossing else "on the same side of the split"
            notes.append(f"{copies:,} row{'s are copies' if copies > 1 else ' is a copy'} of others, {where}")
        kept_rows = rows[train]
        given, remarks = self._given(columns, comma, train, test)
        tokens = Tokens.fit(kept_rows, types) if told is None else told[1]
        derived = computed(tokens.derived, types) if isinstance(tokens, Tokens) else ""
        return Dataset(
            name=name,
            train=kept_rows,
            test=rows[test],
            conditions=given,
            kind="table",
            transform=tokens,
            note="; ".join([*notes, *remarks, *filter(None, [derived])]),
            layout=Layout("ND"),
            columns=types,
            dialect=dialect,
        )

    def _given(
        self, columns: Mapping[str, Words], comma: bool, train: Tensor, test: Tensor
    ) -> tuple[dict[str, Column], list[str]]:
        """The columns that rows are drawn given: words as labels, all else as numbers."""
        import numpy as np

        found: dict[str, np.ndarray] = {}
        for name in self.condition:
            (kind,) = find_types(
                {name: columns[name]}, {k: v for k, v in self.types.items() if k == name}, self.missing, comma
            )
            values = columns[name].values(kind)
            if not kind.levels:
                found[name] = values
            else:  # -1 says that there is none
                found[name] = np.array([kind.levels[int(v)] if v == v else "-1" for v in values.tolist()])
        return read_columns(found, train, test, (1,))


def read_table(path: "str | Path", noun: str = "input") -> tuple[dict[str, Words], Dialect | None]:
    """The columns of a table in a file of any supported kind, and its format if it is text.

    Args:
        path: the file.
        noun: what to call it in errors.

    Raises:
        InputError: as `Table.load` raises of the file.
    """
    if _is_parquet(path):
        return words_of(read_parquet(path, noun)[0], shown(path))[0], None
    columns, dialect, _ = read_delimited(path, noun)
    return columns, dialect


def _is_parquet(path: "str | Path") -> bool:
    return str(path).lower().endswith(".parquet")


def glance_at(path: "str | Path", drop: Sequence[str] = ()) -> tuple[int, int, str]:
    """(rows, columns, the column of regular times or "") of a table, without reading all of it, or `drop` at all.

    The rows of a file of text are told by its line breaks, of which cells may hold some too.

    Raises:
        InputError: as `Table.load` does of the start of the file.
    """
    if _is_parquet(path):
        table, count = read_parquet(path, rows=_GLANCED)
        columns = words_of(table, shown(path), drop)[0]
        return count, len(columns), clock(columns)
    lines = line_breaks(path)  # before any cell, for this finds bombs
    columns, dialect, _ = read_delimited(path, rows=_GLANCED)
    rows = max(lines - dialect.header, len(next(iter(columns.values()))))
    return rows, len(columns), clock(columns)


def clock(columns: Mapping[str, Words]) -> str:
    """The first column of dates of which most come one step after the one before; "" if there is none.

    A month is one step, however long; of working days four in five come a day after the one before. Only the first
    rows are looked at.
    """
    columns = {name: words[:_GLANCED] for name, words in columns.items()}
    for kind in find_types(columns):
        if kind.kind == "date":
            seconds = torch.from_numpy(columns[kind.name].values(kind))
            months = component("year", seconds) * 12 + component("month", seconds)
            if bool((component("day", seconds) == 1).all()):
                seconds = months
            steps = seconds.diff()
            usual = steps[~steps.isnan()].mode().values if len(steps) > 10 and not steps.isnan().all() else None
            if usual is not None and usual > 0 and (steps == usual).double().mean() > 0.7:
                return kind.name
    return ""


def carrier(columns: Mapping[str, Words], types: Sequence[ColumnType], exact: bool = True) -> Tensor:
    """The columns of these types as numbers, in the types' order: (N, d) float64, NaN where missing.

    Args:
        columns: name -> words.
        types: what they are.
        exact: whether all of the columns must be there; if not, an absent column is missing throughout.

    Raises:
        InputError: a column that is not there; a cell that is none of its column's.
    """
    rows = len(next(iter(columns.values())))
    found = torch.full((rows, len(types)), torch.nan, dtype=torch.float64)
    for place, kind in enumerate(types):
        if kind.name in columns:
            found[:, place] = torch.from_numpy(columns[kind.name].values(kind))
        elif exact and kind.kind != "identifier":
            known = ", ".join(map(shown, list(columns)[:10]))
            raise InputError(f"the table has no column {shown(kind.name)!r}, which is needed; it has {known}.")
    return found


def _keys(rows: Tensor, types: Sequence[ColumnType]) -> Tensor:
    """(N,) int64: the same for rows of the same content, names of rows aside; a hash, and so different for others."""
    told = [place for place, kind in enumerate(types) if kind.kind != "identifier"]
    bits = torch.where(rows.isnan(), torch.nan, rows).view(torch.int64)  # one NaN
    key = torch.zeros(len(rows), dtype=torch.int64)
    for place in told:
        key = (key ^ bits[:, place]) * 0x2545F4914F6CDD1D  # wraps
        key = key ^ ((key >> 29) & 0x7FFFFFFFF)
        key = key * 0x5851F42D4C957F2D
        key = key ^ ((key >> 32) & 0xFFFFFFFF)
    return key


def _divided(rows: Tensor, types: Sequence[ColumnType], fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to train on, and those held out, by their content; each by itself if copies are there by chance."""
    # in the order of their hashes, not of the file
    different, which, counts = _keys(rows, types).unique(return_inverse=True, return_counts=True)
    if len(different) < 3:
        count = f"{len(rows):,} row{'s' * (len(rows) != 1)}"
        raise InputError(
            f"the table has {count}, {len(different):,} of them different; at least 3 are needed (one is held out)."
        )
    units = which.argsort(stable=True).argsort() if _by_chance(rows, types, counts) else which
    _, chosen = split(int(units.max()) + 1, fraction, seed)
    held = torch.isin(units, chosen)
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def _by_chance(rows: Tensor, types: Sequence[ColumnType], counts: Tensor) -> bool:
    """Whether copies are as many as columns that know nothing of each other would make, or up to ten times as many.

    Two rows of N agree in a column with probability sum c (c - 1)/(N (N - 1)), c counting each of its values; ten
    times, since columns do know of each other.

    Args:
        counts: how often each different row is there.
    """
    pairs = len(rows) * (len(rows) - 1)
    chance = float(pairs)
    for place, kind in enumerate(types):
        if kind.kind != "identifier":
            values = rows[:, place].nan_to_num(nan=torch.inf).unique(return_counts=True)[1].double()
            chance *= float((values * (values - 1)).sum()) / pairs
    observed = float((counts.double() * (counts - 1)).sum())
    return 0 < observed <= 10 * chance


def _copies(rows: Tensor, types: Sequence[ColumnType], train: Tensor, test: Tensor) -> tuple[int, int]:
    """How many rows repeat another one, and how many held-out rows are in the training part."""
    keys = _keys(rows, types)
    return len(keys) - len(keys.unique()), int(torch.isin(keys[test], keys[train]).sum())


def _said(words: Words, name: str) -> tuple[Tensor, Tensor]:
    """Rows to train on, and those held out, by a column that says so."""
    found = Counter(words.texts())
    test = [word for word in found if word.strip().lower() in _TEST]
    train = [word for word in found if word.strip().lower() in _TRAIN]
    if len(found) != 2 or len(test) != 1 or len(train) != 1:
        shown_words = ", ".join(repr(shown(word[:30])) for word, _ in found.most_common(4))
        raise InputError(
            f"data.split={shown(name)!r} must have two words in it, train and one of {', '.join(_TEST[:5])}; it has "
            f"{len(found):,}: {shown_words}."
        )
    held = torch.tensor([word == test[0] for word in words.texts()])
    return (~held).nonzero().flatten(), held.nonzero().flatten()
