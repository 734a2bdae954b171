"""What a data set is, how it is split, and which examples make up the batch of a given step.

A training run that is killed and resumed must see the very same examples in the same order. The usual recipe, a
loader that keeps its place in a shuffled list, makes that place one more thing to save and restore. Here there is
none: `Dataset.batch(step, size, seed)` is a *pure function*. Training visits the positions 0, 1, 2, ... of an
endless list, the concatenation of one permutation per epoch, and the permutation of epoch e is itself a function
of (seed, e). Step k of `world` processes with `size` examples each owns the positions

    k * size * world + rank * size + {0, ..., size - 1},

so to resume is to ask for the next step; every epoch shows each example exactly once; a batch that crosses the end
of an epoch continues in the next; and the processes' batches laid side by side are the batch that one process would
have drawn, however many processes there are.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from ornstein.core.condition import SOURCE, Condition
from ornstein.data.condition import LABEL, Column, Known
from ornstein.data.delimited import Dialect
from ornstein.data.layout import AS_FOUND, Layout
from ornstein.data.layout import Kind as Kind
from ornstein.data.schema import ColumnType, summary
from ornstein.data.splitting import stream
from ornstein.data.statistics import CHUNK, moments, must_be_seen, value_range
from ornstein.data.timeline import Timeline
from ornstein.data.tokens import Tokens
from ornstein.data.transform import Affine, Transform, per_feature
from ornstein.errors import InputError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples in their own units, a held-out part, what is known of each, and the map to model space.

    Args:
        name: what it is called in messages and in the run folder.
        train: (N, *shape), N >= 2: integers for images that lie on a grid, float32 otherwise, NaN where not seen.
        test: (M, *shape), M >= 1, held out: never drawn by `batch`.
        conditions: name -> what is known of each example, in model space; classes are the part "label".
        kind: "image" (C, H, W), "vector" (d,), "array" (any other shape, channels first), or "table" (d,): see
            `ornstein.data.schema` for what stands in its columns; "writing" (length,), numbers of characters.
        transform: data units -> model space.
        flip: draw each training image mirrored left to right with probability 1/2 (images only).
        note: where the data come from and how they were read, for `describe`.
        layout: the axes of examples in the user's own order; those of `train` are the model's.
        columns: what the columns of a table are; () for other data.
        dialect: the format of a table's file; None if it came from none.
        timeline: what windows of a series are cut from; None for other data.
        spread: sigma_data of the data that a continued model was first trained on; None for these data's own.
        far: the data that a bridge to these starts from, the part `SOURCE` of a batch's condition; None without one.
        overlap: how many training examples share a number, one after the other: pieces that overlap; 1 for none.

    Raises:
        InputError: fewer than two training examples or none held out; conditions that do not fit; flip on non-images;
            an example of which nothing was seen, or a feature that was not seen in training.
    """

    name: str
    train: Tensor
    test: Tensor
    conditions: Mapping[str, Column]
    kind: Kind
    transform: Transform
    flip: bool = False
    note: str = ""
    layout: Layout = AS_FOUND
    columns: tuple[ColumnType, ...] = ()
    dialect: Dialect | None = None
    timeline: Timeline | None = None
    spread: float | None = None
    far: "Dataset | None" = None
    paired: bool = False
    overlap: int = 1

    def __post_init__(self) -> None:
        if len(self.train) < 2 or len(self.test) < 1:
            raise InputError(
                f"data={self.name!r} has {len(self.train)} training and {len(self.test)} held-out examples; "
                "at least 2 and 1 are needed."
            )
        for name, column in self.conditions.items():
            if len(column.train) != len(self.train) or len(column.test) != len(self.test):
                raise InputError(
                    f"data={self.name!r} needs one {name} per example; it has {len(column.train)} and "
                    f"{len(column.test)} for {len(self.train)} and {len(self.test)} examples."
                )
        if self.flip and self.kind != "image":
            raise InputError(
                f"data.flip=True mirrors images, but data={self.name!r} are {self.kind}s; use data.flip=false."
            )
        if self.missing:
            must_be_seen(self.name, self.train, self.test)

    @cached_property
    def missing(self) -> float:
        """The share of cells that were not seen, of both parts."""
        if self.kind == "table":
            return 0.0  # where missing is a value like others: see `ornstein.data.tokens`
        parts = [part for part in (self.train, self.test) if part.is_floating_point()]
        holes = sum(int(some.isnan().sum()) for part in parts for some in part.split(CHUNK))
        return holes / (self.train.numel() + self.test.numel())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train.shape[1:])

    @cached_property
    def train_condition(self) -> Condition:
        """What is known of the training examples, N rows, without the rows of `far`, which belong to no example."""
        return Condition({name: column.train for name, column in self.conditions.items()})

    @cached_property
    def test_condition(self) -> Condition:
        """What is known of the held-out examples, M rows; with rows of `far`, repeated if there are too few."""
        known = {name: column.test for name, column in self.conditions.items()}
        if self.far is not None:
            turns = torch.arange(len(self.test)) % len(self.far.test)
            known[SOURCE] = self.transform.forward(self.far.test[turns])
        return Condition(known)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that the part "label" numbers; () without it."""
        return self.conditions[LABEL].about.classes if LABEL in self.conditions else ()

    @property
    def class_counts(self) -> list[int]:
        """How many training examples each class has; those without a label are in none."""
        labels = self.train_labels
        return [] if labels is None else labels[labels >= 0].bincount(minlength=len(self.classes)).tolist()

    @property
    def train_labels(self) -> Tensor | None:
        """The part "label" of the training examples, (N,) int64, -1 for none; None without it."""
        return self.train_condition.parts.get(LABEL)

    @property
    def test_labels(self) -> Tensor | None:
        """The part "label" of the held-out examples, (M,)."""
        return self.test_condition.parts.get(LABEL)

    @property
    def sigma_data(self) -> float:
        """Standard deviation of all training values in model space."""
        return float(self._fingerprint["sigma_data"])

    def batch(self, step: int, size: int, seed: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Condition]:
        """The training examples of one step: a pure function of its arguments.

        Args:
            step: number of the optimiser step (or micro-step), from 0.
            size: examples per process.
            seed: chooses the permutations and flips.
            rank, world: this process among how many.

        Returns:
            x0 (size, *shape), float32 in model space, and what is known of each, `size` rows. On the CPU.
        """
        if step < 0 or size < 1 or not 0 <= rank < world:
            raise InputError(f"batch(step={step}, size={size}, rank={rank}, world={world}) is out of range.")
        count = len(self.train)
        position = step * size * world + rank * size
        runs, wanted = [], size
        while wanted:
            epoch, start = divmod(position, count)
            runs.append(_permutation(count, seed, epoch)[start : start + wanted])
            position, wanted = position + len(runs[-1]), wanted - len(runs[-1])
        index = torch.cat(runs) if len(runs) > 1 else runs[0]
        given, mine = self.train_condition[index], None
        if self.flip:
            mirrored = torch.rand(size * world, generator=stream(seed, "flip", step)) < 0.5
            mine = mirrored[rank * size : (rank + 1) * size]
            # a picture of the condition lies over x, and turns with it
            given = given.map(lambda part: _turned(part, mine))
        if self.far is not None:
            # the same seed draws the same rows of as many, mirrored alike
            theirs, _ = self.far.batch(step, size, seed if self.paired else _other(seed), rank, world)
            given = Condition({**given.parts, SOURCE: theirs})
        return self._told(index, mine, (seed, step, size, rank, world)), given

    def _told(self, index: Tensor, mirrored: Tensor | None, place: tuple[int, ...]) -> Tensor:
        """The examples of a batch in model space; `place` is its seed, step, size, rank and world."""
        if isinstance(self.transform, Tokens):
            return self.transform.categories.one_hot(self._codes[index].long())
        return self.transform.forward(_turned(self.train[index], mirrored))

    @cached_property
    def _codes(self) -> Tensor:
        """The training rows of a table as classes, (N, T) int32: found once, for every epoch needs them again."""
        assert isinstance(self.transform, Tokens)
        return torch.cat([self.transform.codes(rows).int() for rows in self.train.split(CHUNK)])

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the training part in model space, of each feature, in float64."""
        return moments(self.train, self.transform)

    @property
    def _beside(self) -> dict[str, Any]:
        """What more identifies data that are told by something else, by name; hashed with them."""
        return {}

    def fingerprint(self) -> dict[str, Any]:
        """What identifies these data, as plain values for JSON or YAML.

        name, kind, shape, dtype; layout, the letters of the owner's axes; range [min, max] in data units over both
        parts; count, held_out; classes, and how many training examples each has; conditions, what each part is; mean
        and sigma_data of the training part in model space; sha256 of the content (values, conditions, shapes, types);
        missing, the share of cells that were not seen, where there are such. Of windows series, what they are cut from.
        far, of data that a bridge leads to: name, count, held_out and sigma_data of those it starts from, paired.
        Of a table also columns, their names;
        table, what each is; dialect, how its file was laid out.
        """
        return dict(self._fingerprint)

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        columns = [part for column in self.conditions.values() for part in (column.train, column.test)]
        for part in (self.train, self.test, *columns):
            digest.update(f"{tuple(part.shape)} {part.dtype}".encode())
            digest.update(part.contiguous().numpy().data)
        if set(self.conditions) - {LABEL}:  # names and scales are content too; labels alone are hashed as ever
            digest.update(repr(_facts(self.conditions)).encode())
        table = [column.to_dict() for column in self.columns]
        if table:
            digest.update(repr([{k: v for k, v in column.items() if k != "reason"} for column in table]).encode())
        far = {}
        if self.far is not None:
            theirs = self.far.fingerprint()
            digest.update(f"{theirs['sha256']} {self.paired}".encode())
            about = {key: theirs[key] for key in ("name", "count", "held_out", "range", "sigma_data", "conditions")}
            far = {"far": {**about, "paired": self.paired}}
        if self._beside:
            digest.update(repr(self._beside).encode())
        mean, sigma = self._moments()
        parts = (self.train, self.test)
        low, high = value_range(*([torch.cat([part[~part.isnan()] for part in parts])] if table else parts))
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "layout": self.layout.axes,
            "dtype": str(self.train.dtype).removeprefix("torch."),
            "range": [low, high],
            "count": len(self.train),
            "held_out": len(self.test),
            "classes": list(self.classes),
            "class_counts": self.class_counts,
            "conditions": _facts(self.conditions) | ({} if self.far is None else {SOURCE: self._start.to_dict()}),
            "mean": mean.mean().item(),
            # total variance = variance within the features + variance of their means
            "sigma_data": self.spread or (sigma.square().mean() + mean.var(correction=0)).sqrt().item(),
            "sha256": digest.hexdigest(),
            **far,
            **self._beside,
            **({"missing": self.missing} if self.missing else {}),
            **({"series": self.timeline.to_dict()} if self.timeline is not None else {}),
            **({"columns": [column.name for column in self.columns], "table": table} if table else {}),
            **({"dialect": self.dialect.to_dict()} if self.dialect is not None else {}),
        }

    @property
    def _start(self) -> Known:
        """What a row of `far` is, as a part of the condition: in the same space as what it is led to."""
        shift, scale = per_feature(self.transform, self.shape[0])
        return Known("vector" if self.kind == "vector" else "picture", self.shape, shift=shift, scale=scale)

    def describe(self) -> str:
        """One sentence: how many, of what shape and range, mapped to what.

        "1,437 images 1x8x8, values 0..16 (uint8) -> [-1, 1], sigma_data 0.75, 360 held out, 10 classes"
        """
        facts = self._fingerprint
        if self.columns:
            # an identifier is not missing, it is not told
            told = [place for place, column in enumerate(self.columns) if column.kind != "identifier"]
            holes = torch.cat([self.train[:, told], self.test[:, told]]).isnan().double().mean().item()
            parts = [
                f"{facts['count']:,} rows of {summary(self.columns)} -> {self.transform}",
                *([f"{100 * holes:.2g} % of cells missing"] if holes else []),
                f"{facts['held_out']:,} held out",
                *([self.note] if self.note else []),
            ]
            return ", ".join(parts)
        shape = f"of {self.shape[0]}" if self.kind == "vector" else "x".join(map(str, self.shape))
        low, high = (f"{v:g}" if isinstance(v, int) else f"{v:.3g}" for v in facts["range"])
        way = str(self.transform)
        if isinstance(self.transform, Affine) and isinstance(self.transform.scale, tuple):
            way += f" per {'feature' if self.kind == 'vector' else 'channel'}"
        return ", ".join(
            [
                f"{facts['count']:,} {self.kind}s {shape}",
                f"values {low}..{high} ({facts['dtype']}) -> {way}",
                f"sigma_data {facts['sigma_data']:.2f}",
                f"{facts['held_out']:,} held out",
                *(
                    f"{len(column.about.classes)} class{'es' * (len(column.about.classes) > 1)}"
                    if name == LABEL
                    else f"given {name} ({column.about.describe()})"
                    for name, column in self.conditions.items()
                ),
                *([] if self.far is None else [self._origin()]),
                *([f"{self.missing:.2%} of the cells missing: the loss counts the others"] if self.missing else []),
                *(["mirrored at random"] if self.flip else []),
                *([self.note] if self.note else []),
            ]
        )

    def _origin(self) -> str:
        far = self._fingerprint["far"]
        how = "row by row" if self.paired else "unpaired"
        return f"from {far['count']:,} of {far['name']} ({how}, {far['held_out']:,} held out)"


def _facts(conditions: Mapping[str, Column]) -> dict[str, Any]:
    return {name: column.about.to_dict() for name, column in conditions.items()}


class Source(ABC):
    """Where data come from: a frozen dataclass of arguments with one method.

    Attributes:
        beside: whether the data lie in the folder of the run that was trained on them, and move with it.
        fetched: whether the data are found by ORNSTEIN_DATA, or have to be downloaded first.
    """

    beside: ClassVar[bool] = False
    fetched: ClassVar[bool] = False

    @abstractmethod
    def load(self) -> Dataset:
        """Read or make the data. Raises `InputError` if they are absent or unfit, in one sentence."""

    def load_as(self, columns: Sequence[ColumnType], transform: Transform) -> Dataset:
        """As `load`, with these types for the columns of a table, and this transform for its rows."""
        return self.load()


@lru_cache(maxsize=2)  # this epoch's and the next one's: of many examples an order is large
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=stream(seed, "epoch", epoch))


def _turned(x: Tensor, which: Tensor | None) -> Tensor:
    """Pictures (B, C, H, W) mirrored left to right where `which` says; all else as it is."""
    return x if which is None or x.ndim != 4 else torch.where(which[:, None, None, None], x.flip(-1), x)


def _other(seed: int) -> int:
    """A seed for the second of two data sets, whose order has nothing to do with that of the first."""
    return stream(seed, "far").initial_seed()
