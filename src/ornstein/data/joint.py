"""Data together with their class: both are drawn, while other models are given the class.

In the data's own units the class is one more column, the last, with its number; in model space it is a one-hot vector
after the numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.data.between import Named, named_end, opened
from ornstein.data.condition import labelled
from ornstein.data.dataset import Dataset, Source
from ornstein.data.transform import TRANSFORMS, Transform
from ornstein.errors import InputError


@final
@dataclass(frozen=True)
class WithClass(Transform):
    """Numbers by their own transform, and after them a class as a one-hot vector.

    Args:
        numbers: of the numbers, (B, *shape).
        own: their shape.
        classes: how many classes.
    """

    numbers: Transform
    own: tuple[int, ...]
    classes: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "own", tuple(self.own))
        if self.classes < 2:
            raise InputError(f"classes={self.classes!r} must be at least 2: data of one class have nothing to learn.")

    @cached_property
    def categories(self) -> Categories:
        """The class, a row's one token."""
        return Categories((self.classes,))

    def shape(self, own: tuple[int, ...]) -> tuple[int, ...]:
        return (own[0] - 1 + self.classes,)

    def forward(self, x: Tensor) -> Tensor:
        z = self.numbers.forward(x[:, :-1].reshape(len(x), *self.own)).flatten(1)
        return torch.cat([z, self.categories.one_hot(x[:, -1:].long()).to(z)], 1)

    def inverse(self, z: Tensor, quantise: bool = False) -> Tensor:
        numbers, label = z[:, : -self.classes], z[:, -self.classes :]
        x = self.numbers.inverse(numbers.reshape(len(z), *self.own), quantise).flatten(1).float()
        return torch.cat([x, self.categories.codes(label).to(x)], 1)

    def log_abs_det(self, x: Tensor) -> Tensor:
        return self.numbers.log_abs_det(x[:, :-1].reshape(len(x), *self.own))

    def to_dict(self) -> dict[str, Any]:
        numbers = self.numbers.to_dict()
        return {"kind": "with-class", "numbers": numbers, "own": list(self.own), "classes": self.classes}

    @classmethod
    def described(cls, description: Mapping[str, Any]) -> "WithClass":
        numbers = Transform.from_dict(description["numbers"])
        return WithClass(numbers, tuple(description["own"]), int(description["classes"]))

    def __str__(self) -> str:
        return f"{self.numbers}, and one of {self.classes} classes"


TRANSFORMS["with-class"] = WithClass


@final
@dataclass(frozen=True)
class Labelled(Source):
    """Labelled data, each row followed by its class: numbers and a category that are drawn together.

    Args:
        of: a name of data, a file or a folder; or a mapping of a name and arguments.

    Raises:
        InputError: data that are absent, have no labels, or some rows without, or cells that are missing.
    """

    of: Named = "moons"

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", named_end(self.of, "data.of"))

    def load(self) -> Dataset:
        base = opened(self.of).load()
        if base.kind in ("table", "writing") or base.missing:
            raise InputError(f"data.of={base.name!r} has {base.kind}s; take pictures, points or rows without gaps.")
        labels = (base.train_labels, base.test_labels)
        if len(base.classes) < 2 or any(some is None or bool((some < 0).any()) for some in labels):
            raise InputError(f"data.of={base.name!r} needs a label for every row, of two classes or more.")
        train, test = (
            torch.cat([part.flatten(1).float(), label.float()[:, None]], 1)
            for part, label in zip((base.train, base.test), labels, strict=True)
            if label is not None
        )
        return Dataset(
            name=f"{base.name} with their class",
            train=train,
            test=test,
            conditions=labelled(*labels, base.classes),
            kind="vector",
            transform=WithClass(base.transform, base.shape, len(base.classes)),
            note=f"the class is the last column, one of {', '.join(base.classes)}",
        )
