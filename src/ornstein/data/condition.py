"""What is known of each example beside its values: labels, numbers, vectors, pictures, texts to condition a model on.

A network learns best from numbers of about unit variance. So numbers and vectors, and the channels of pictures, are
standardised by the mean and the standard deviation of the training part, which are stored with the run: you give a
price in dollars, and the network sees the standardised price. Labels number names; tokens number words or characters.
In model space the values of `ornstein.core.condition` mark an absent part: label -1, tokens -1 throughout, NaN for all
else.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ornstein.data.sentences import WIDTH, encoder
from ornstein.errors import InputError, shown

TextKind = Literal["words", "characters", "sentences"]
PartKind = Literal["label", "number", "vector", "picture", TextKind]
#: the part that guidance by class, classifiers and `--label` mean
LABEL = "label"


@dataclass(frozen=True)
class Known:
    """What a part of the condition is in the user's terms, and the map from there to model space.

    Args:
        kind: "label", "number", "vector" or "picture"; "words" or "characters", of which texts are made; "sentences",
            texts as vectors (`ornstein.data.sentences`).
        shape: of one value: () for labels and numbers, (F,) for vectors, (C, *space) for pictures, (L,) for texts of at
            most L tokens.
        classes: the names that labels number; the words or the characters that tokens number.
        shift, scale: of numbers, of each feature or each channel: model space is (value - shift)/scale.

    Raises:
        InputError: a kind that is not known, no classes, a scale that is not positive.
    """

    kind: PartKind
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(PartKind):
            raise InputError(f"kind={self.kind!r} of a condition must be one of {', '.join(get_args(PartKind))}.")
        if self.counts:
            if not self.classes:
                raise InputError(f"a condition of the kind {self.kind!r} needs the names of what it counts.")
            if len(self.shape) != self.is_tokens or any(size < 1 for size in self.shape):
                raise InputError(f"shape={self.shape} of a condition of the kind {self.kind!r} is not its own.")
            return
        count = self.shape[0] if self.shape else 1
        fits = len(self.shift) == len(self.scale) == count
        if not fits or not all(map(math.isfinite, self.shift)) or not all(0 < s < math.inf for s in self.scale):
            raise InputError(f"shift={self.shift} and scale={self.scale} of a condition must be {count} numbers each.")

    @property
    def is_text(self) -> bool:
        """Whether it is given as a text."""
        return self.kind in get_args(TextKind)

    @property
    def is_tokens(self) -> bool:
        """Whether it is a text of words or of characters."""
        return self.kind in ("words", "characters")

    @property
    def counts(self) -> bool:
        """Whether its values number `classes` rather than measure something."""
        return self.kind == "label" or self.is_tokens

    def to_dict(self) -> dict[str, Any]:
        """As plain values, without what is empty."""
        every = {"shape": self.shape, "classes": self.classes, "shift": self.shift, "scale": self.scale}
        return {"kind": self.kind, **{name: list(value) for name, value in every.items() if value}}

    @staticmethod
    def from_dict(found: Mapping[str, Any]) -> "Known":
        """Undoes `to_dict`."""
        try:
            return Known(
                found["kind"],
                *(tuple(found.get(name, ())) for name in ("shape", "classes", "shift", "scale")),
            )
        except (KeyError, TypeError, AttributeError):
            raise InputError(f"{found!r} describes no part of a condition.") from None

    @staticmethod
    def of_facts(facts: Mapping[str, Any]) -> "dict[str, Known]":
        """What the facts of a data set say of its conditions; those of old runs name classes alone."""
        if "conditions" in facts:
            return {name: Known.from_dict(found) for name, found in facts["conditions"].items()}
        return {LABEL: Known("label", classes=tuple(facts["classes"]))} if facts.get("classes") else {}

    def model(self, value: Any, n: int, name: str = "condition") -> Tensor:
        """n rows in model space from what the user gives.

        Args:
            value: None: absent. For labels, the name of a class, its number (unless a class has a number as its name),
                a sequence of n of these, or class numbers as a tensor or an array (n,). For texts, one for all, or a
                sequence of n; "" is absent. For all else, in the units of the data, one value for all, or n of them: a
                number, or numbers as a sequence, an array or a tensor. NaN, and the label -1, mean absent.
            n: how many rows.
            name: of the part, for errors.

        Returns:
            int64 (n,) for labels, (n, L) for texts; float32 (n, *shape).

        Raises:
            InputError: an unknown class or word, another shape, something that is not a number.
        """
        if self.counts:
            return (self._texts if self.is_tokens else self._labels)(value, n, name)
        if self.is_text and not isinstance(value, Tensor):
            several, texts = _said(value, n, name)
            value = encoded(texts) if several else encoded(texts)[0]
        if value is None:
            value = math.nan
        try:
            found = torch.as_tensor(float(value) if isinstance(value, str) else value, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise InputError(f"{name}={value!r} must be {self.describe()}.") from None
        if found.isinf().any():
            raise InputError(f"{name}={value!r} must be finite; NaN says that it is not known.")
        if found.ndim == 0 and bool(found.isnan()):
            found = found.expand(n, *self.shape)
        if tuple(found.shape) == self.shape:
            found = found.expand(n, *self.shape)
        if tuple(found.shape) != (n, *self.shape):
            raise InputError(
                f"{name} has shape {tuple(found.shape)}; it must be {self.describe()}: {self.shape} for all, or "
                f"{(n, *self.shape)}."
            )
        return self.standardised(found)

    def standardised(self, values: Tensor) -> Tensor:
        """(N, *shape) in the units of the data -> model space, float32."""
        shift, scale = (torch.tensor(v, dtype=torch.float64) for v in (self.shift, self.scale))
        if self.shape:
            shift, scale = (v.reshape(-1, *[1] * (len(self.shape) - 1)) for v in (shift, scale))
        return ((values.double() - shift) / scale).float()

    def units(self, part: Tensor) -> Tensor:
        """Model space -> the units of the data; labels and tokens stay numbers."""
        if self.counts:
            return part
        shift, scale = (torch.tensor(v, dtype=torch.float64) for v in (self.shift, self.scale))
        if self.shape:
            shift, scale = (v.reshape(-1, *[1] * (len(self.shape) - 1)) for v in (shift, scale))
        return (part.double() * scale + shift).float()

    def describe(self) -> str:
        """What one is, such as "a number around 5.2e+03 with spread 1.1e+03", "one of 10 classes"."""
        if self.kind == "label":
            return f"one of {len(self.classes)} class{'es' * (len(self.classes) > 1)}"
        if self.is_tokens:
            return f"a text of up to {self.shape[0]} {self.kind}, {len(self.classes):,} different ones"
        size = "x".join(map(str, self.shape))
        along = f"{self.shape[0]} numbers at each of {self.shape[1]} steps" if len(self.shape) == 2 else ""
        what = {"number": "a number", "vector": f"{size} numbers", "picture": along or f"a picture {size}",
                "sentences": "a text, by a frozen encoder"}[self.kind]  # fmt: skip
        around = f" around {self.shift[0]:.3g} with spread {self.scale[0]:.3g}" if self.kind == "number" else ""
        return what + around

    def texts(self, tokens: Tensor) -> list[str]:
        """Tokens (n, L) as texts; "" where there is none."""
        between = " " if self.kind == "words" else ""
        return [between.join(self.classes[token] for token in row if token >= 0) for row in tokens.tolist()]

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, list[str]]:
        """Texts as tokens (n, L), and what they leave out: unknown words, or words beyond L."""
        numbers = {word: number for number, word in enumerate(self.classes)}
        found, unsaid = torch.full((len(texts), self.shape[0]), -1), []
        for row, text in enumerate(texts):
            words = pieces(text, self.kind)
            known = [numbers[word] for word in words if word in numbers]
            unsaid += [word for word in words if word not in numbers]
            unsaid += [self.classes[number] for number in known[self.shape[0] :]]
            known = known[: self.shape[0]]
            found[row, : len(known)] = torch.tensor(known, dtype=torch.int64)
        return found, unsaid

    def _texts(self, value: Any, n: int, name: str) -> Tensor:
        if isinstance(value, Tensor):
            fits = value.ndim == 2 and value.shape == (n, *self.shape) and not value.is_floating_point()
            if not fits or not bool(((value >= -1) & (value < len(self.classes))).all()):
                raise InputError(
                    f"{name} must be texts, or tokens {(n, *self.shape)} from 0 to {len(self.classes) - 1}, -1 after "
                    "the end."
                )
            return value.long()
        (several, texts), seen = _said(value, n, name), set(self.classes)
        for text in dict.fromkeys(texts):
            words = pieces(text, self.kind)
            if text.strip() and not words:
                raise InputError(f"{name}={shown(text)!r} has no {self.kind}.")
            if len(words) > self.shape[0]:
                raise InputError(
                    f"{name}={shown(text)!r} has {len(words)} {self.kind}; the model was trained on at most "
                    f"{self.shape[0]}."
                )
            if strange := [word for word in words if word not in seen]:
                near = get_close_matches(strange[0], self.classes, n=3)
                known = f"near it {', '.join(map(repr, near))}" if near else f"{len(self.classes):,} others"
                raise InputError(f"{name}={shown(text)!r}: {strange[0]!r} was not seen in training; {known} were.")
        tokens, _ = self.tokens(texts)
        return tokens if several else tokens.repeat(n, 1)

    def _labels(self, value: Any, n: int, name: str) -> Tensor:
        if isinstance(value, np.ndarray):  # whole numbers count classes, as a tensor's do; all else names them
            value = torch.as_tensor(value) if value.ndim and value.dtype.kind in "iu" else value.tolist()
        if isinstance(value, Tensor):
            fits = value.shape == (n,) and not value.is_floating_point()
            if not fits or not bool(((value >= -1) & (value < len(self.classes))).all()):
                raise InputError(
                    f"{name} must be {n} whole numbers from 0 to {len(self.classes) - 1}, or -1 for none: "
                    f"{', '.join(self.classes)}."
                )
            return value.long()
        if isinstance(value, Sequence) and not isinstance(value, str):
            if len(value) != n:
                raise InputError(f"{name} has shape ({len(value)},); it must be one class, or {n} of them.")
            return torch.tensor([self._label(each, name) for each in value], dtype=torch.int64)
        return torch.full((n,), self._label(value, name), dtype=torch.int64)

    def _label(self, value: Any, name: str) -> int:
        """The number of a class: a name wins over a number, and numbers that are names are never counted."""
        text = str(value)
        if value is None or text == "-1":
            return -1
        if text in self.classes:
            return self.classes.index(text)
        counted = not any(known.lstrip("-").isdigit() for known in self.classes)
        if counted and text.isascii() and text.isdigit() and len(text) < 10 and int(text) < len(self.classes):
            return int(text)
        also = f", or 0 to {len(self.classes) - 1}" if counted else ""
        raise InputError(f"{name}={value!r} is not a class of these data; they have {', '.join(self.classes)}{also}.")


def _said(value: Any, n: int, name: str) -> tuple[bool, list[str]]:
    """Whether a person gave several texts, and these; "" where there is none."""
    several = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)
    if several and len(value) != n:
        raise InputError(f"{name} has shape ({len(value)},); it must be one text, or {n} of them.")
    return several, ["" if text is None or text != text else str(text) for text in (value if several else [value])]


def encoded(texts: Sequence[str]) -> Tensor:
    """Texts as vectors (n, 384), each different one encoded once; NaN where there is none.

    Raises:
        InputError: the encoder is not installed.
    """
    different = sorted({text.strip() for text in texts} - {""})
    places = {text: row for row, text in enumerate(different)}
    known = torch.cat([encoder()(different) if different else torch.empty(0, WIDTH), torch.full((1, WIDTH), math.nan)])
    return known[[places.get(text.strip(), -1) for text in texts]]


def pieces(text: str, kind: str) -> list[str]:
    """The words of a text, or its characters, in lower case.

    Words are runs of letters and digits, as "o'clock"; characters are all of them, with each run of blanks as one.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text) if kind == "words" else list(" ".join(text.split()))


@dataclass(frozen=True, eq=False)
class Column:
    """A part of the condition of every example, in model space.

    Args:
        about: what it is.
        train, test: (N, ...) and (M, ...): int64 for labels and texts, float32 for all else.
    """

    about: Known
    train: Tensor
    test: Tensor


def labelled(train: Tensor | None, test: Tensor | None, classes: Sequence[str]) -> dict[str, Column]:
    """The conditions of data that have labels, (N,) and (M,) numbers of classes, and nothing else; None: no labels."""
    if train is None or test is None or not classes:
        return {}
    return {LABEL: Column(Known("label", classes=tuple(classes)), train, test)}
