"""What a sample is drawn given: named parts, each of which may be absent.

A model of p(x given c) learns from pairs (x, c). Here c is a handful of *parts* with names (a label, a price, a
sketch, a caption), each with one row for each sample. What kind a part is can be read off its tensor:

    kind      tensor                     absent
    label     int64 (B,)                 -1
    number    float (B,)                 NaN
    vector    float (B, F)               a row with a NaN
    picture   float (B, C, *space)       a row with a NaN
    tokens    int64 (B, L), -1 after     -1 throughout
              the end of a text

*Absence is a value*, row by row, and not a missing argument. One network then serves p(x given c) and p(x): leave the
condition out of a random share of the examples, and it learns both, whose difference is classifier-free guidance
(Ho & Salimans 2022, 2207.12598). Each part is left out independently. So with two parts all four subsets occur in
training, with n parts all 2^n, and a model can be asked with whatever is known: p(x given price), p(x given kind),
p(x given both), p(x).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ornstein.errors import InputError

#: the part that a bridge starts from: a row of the second data set, of a sample's own shape
SOURCE = "source"


@dataclass(frozen=True, eq=False)
class Condition:
    """Named parts, each with one row for each sample; without parts nothing is given.

    Args:
        parts: name -> tensor, of a kind that the module lists.

    Raises:
        InputError: a part that is of no kind, or parts of different numbers of rows.
    """

    parts: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, part in self.parts.items():
            kind_of(part, f"condition {name!r}")
        if len({len(part) for part in self.parts.values()}) > 1:
            rows = ", ".join(f"{name} {len(part)}" for name, part in self.parts.items())
            raise InputError(f"condition has parts of different numbers of rows ({rows}): one for each sample.")

    @staticmethod
    def of(given: "Given") -> "Condition":
        """A condition from whatever was given.

        Args:
            given: a Condition; a mapping of names to tensors; a bare tensor, which gets the name of its kind: int64
                (B,) "label", float (B,) "number", float (B, F) "vector", float (B, C, ...) "picture", int64 (B, L)
                "tokens"; None for no condition. Whole numbers of any width become int64.

        Raises:
            InputError: none of these.
        """
        if isinstance(given, Condition):
            return given
        if given is None:
            return Condition()
        if isinstance(given, Tensor):
            given = {kind_of(given, "condition"): given}
        if not isinstance(given, Mapping):
            raise InputError(
                f"condition={given!r} must be a tensor with a row for each sample, a mapping of names to such, or None."
            )
        return Condition({name: _long(part, f"condition {name!r}") for name, part in given.items()})

    @property
    def rows(self) -> int | None:
        """The number of samples, None where there are no parts."""
        return next((len(part) for part in self.parts.values()), None)

    def __bool__(self) -> bool:
        """Whether there are any parts; they may be absent in every row."""
        return bool(self.parts)

    def __getitem__(self, rows: "slice | Tensor") -> "Condition":
        """The condition of some samples: a slice, an index (n,) or a mask (B,)."""
        if isinstance(rows, Tensor):
            return self.map(lambda part: part[rows.to(part.device)])
        return self.map(lambda part: part[rows])

    def map(self, function: Callable[[Tensor], Tensor]) -> "Condition":
        """`function` of every part."""
        return Condition({name: function(part) for name, part in self.parts.items()}) if self.parts else self

    def to(self, device: "torch.device | str") -> "Condition":
        """The same on a device."""
        return self.map(lambda part: part.to(device))

    def repeat(self, times: int) -> "Condition":
        """The rows laid after themselves, `times` times in all."""
        return self.map(lambda part: part.repeat(times, *[1] * (part.ndim - 1)))

    @staticmethod
    def cat(conditions: "Sequence[Condition]") -> "Condition":
        """Rows of one condition after those of another; a part that one of them lacks is absent in its rows.

        Raises:
            InputError: some have parts and others none, so that their number of rows is not known.
        """
        names = list(dict.fromkeys(name for condition in conditions for name in condition.parts))
        if names and not all(conditions):
            raise InputError("conditions without any part have no number of rows, and cannot be laid after others.")
        known = {name: next(c.parts[name] for c in conditions if name in c.parts) for name in names}

        def rows(condition: "Condition", name: str) -> Tensor:
            if name in condition.parts:
                return condition.parts[name]
            like = known[name]
            return like.new_full((condition.rows or 0, *like.shape[1:]), _nothing(like))

        return Condition({name: torch.cat([rows(condition, name) for condition in conditions]) for name in names})

    def none(self) -> "Condition":
        """The same parts, absent in every row."""
        return self.map(lambda part: torch.full_like(part, _nothing(part)))

    def without(self, name: str) -> "Condition":
        """All parts but this one."""
        return Condition({other: part for other, part in self.parts.items() if other != name})

    def absent(self, name: str) -> Tensor:
        """Where a part is absent, (B,) bool."""
        return absent(self.parts[name])

    def dropped(self, share: float, generator: torch.Generator) -> "Condition":
        """The same with each part absent in a random share of the rows, independently of the others.

        Args:
            share: in [0, 1]; with 0 nothing is drawn.
            generator: draws as many numbers as there are rows, part after part.
        """
        if share == 0:
            return self

        def drop(part: Tensor) -> Tensor:
            out = (torch.rand(len(part), generator=generator, device=generator.device) < share).to(part.device)
            return torch.where(out.reshape(-1, *[1] * (part.ndim - 1)), _nothing(part), part)

        return self.map(drop)

    def only(self, name: str, what: str) -> Tensor | None:
        """The one part that may be there, (B, ...), or None.

        Raises:
            InputError: parts of other names, which `what` does not know.
        """
        for other in self.parts:
            if other != name:
                raise InputError(f"condition has the part {other!r}, and {what} knows {name!r} alone.")
        return self.parts.get(name)

    def matches(self, rows: int, field: str) -> "Condition":
        """The condition itself, if it has one row for each of `rows` samples.

        Raises:
            InputError: another number of rows than `field` has.
        """
        for name, part in self.parts.items():
            if len(part) != rows:
                raise InputError(
                    f"condition {name!r} has {len(part)} rows but {field} has {rows}: one for each sample."
                )
        return self


#: what everything takes that is conditioned: see `Condition.of`
Given = Condition | Mapping[str, Tensor] | Tensor | None


def kind_of(part: Any, field: str) -> str:
    """What a part is, by its type and shape: "label", "number", "vector", "picture" or "tokens".

    Raises:
        InputError: none of these; `field` is what the sentence calls it.
    """
    if not isinstance(part, Tensor):
        raise InputError(f"{field} is {type(part).__name__}; it must be a tensor with a row for each sample.")
    if part.ndim > 0 and part.is_floating_point():
        return {1: "number", 2: "vector"}.get(part.ndim, "picture")
    if part.ndim in (1, 2) and not part.is_complex():
        return "label" if part.ndim == 1 else "tokens"
    raise InputError(
        f"{field} is {str(part.dtype).removeprefix('torch.')} {tuple(part.shape)}; it must be labels (B,) or tokens "
        "(B, L) in whole numbers, or numbers (B,), vectors (B, F) or pictures (B, C, ...) in floats."
    )


def absent(part: Tensor) -> Tensor:
    """Where a part (B, ...) is absent, (B,) bool."""
    if part.is_floating_point():
        return part.isnan().reshape(len(part), -1).any(1)
    return (part < 0).reshape(len(part), -1).all(1)


def _nothing(part: Tensor) -> float:
    """The value that stands for absence."""
    return math.nan if part.is_floating_point() else -1


def _long(part: Any, field: str) -> Tensor:
    """Whole numbers in 64 bits, floats as they are."""
    kind_of(part, field)
    kept: Tensor = part if part.is_floating_point() else part.long()
    return kept
