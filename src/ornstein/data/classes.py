"""Data made of classes only: characters of a text, pictures of few levels.

Every place of an example is one of K classes, a token; model space has their one-hot vectors, one after the other
(`ornstein.core.categories`). Samples come back as numbers of classes, and those of a text as characters.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.data.condition import Column
from ornstein.data.dataset import Dataset, Source
from ornstein.data.layout import Layout
from ornstein.data.reading import absolute
from ornstein.data.standard import MNIST, Digits, FashionMNIST
from ornstein.data.transform import TRANSFORMS, Transform
from ornstein.errors import InputError, lookup, must_be_whole, shown
from ornstein.files import read_text, regular

#: different characters that a text may have, and characters in all
MOST_LETTERS, MOST_CHARACTERS = 1024, 2**26
#: what stands for a character that is not known yet
BLANK = "_"


@final
@dataclass(frozen=True)
class Classes(Transform):
    """Whole numbers 0..count-1 on a grid, as one-hot vectors.

    Args:
        count: K.
        space: of one example: (length,), (height, width).
        letters: the characters that the classes of a text are; "" for pictures.
    """

    count: int
    space: tuple[int, ...]
    letters: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", tuple(self.space))
        if self.count < 2:
            raise InputError(f"classes={self.count!r} must be at least 2: data of one class have nothing to learn.")

    @cached_property
    def categories(self) -> Categories:
        """The tokens of an example."""
        return Categories((self.count,) * math.prod(self.space), space=self.space)

    def shape(self, own: tuple[int, ...]) -> tuple[int, ...]:
        return (self.categories.width,)

    def forward(self, x: Tensor) -> Tensor:
        return self.categories.one_hot(x.flatten(1).long())

    def inverse(self, z: Tensor, quantise: bool = False) -> Tensor:
        """Numbers of classes, -1 where none is known yet: (B, *own), int32."""
        codes = self.categories.codes(z).int()
        return codes if self.letters else codes.reshape(-1, 1, *self.space)

    def log_abs_det(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x))  # a name for each value

    def pictures(self, z: Tensor) -> Tensor:
        """Model space as pictures in [-1, 1], (B, 1, H, W), with 0 for what is not known yet."""
        codes = self.inverse(z)
        return torch.where(codes < 0, 0.0, codes.float() * (2 / (self.count - 1)) - 1)

    def texts(self, z: Tensor) -> list[str]:
        """Model space as texts, with blanks for what is not known yet."""
        return self.spelled(self.inverse(z))

    def spelled(self, codes: Tensor) -> list[str]:
        """Numbers of classes (B, T) as texts, -1 as blanks."""
        return ["".join(self.letters[c] if c >= 0 else BLANK for c in row) for row in codes.tolist()]

    def read(self, text: str, blanks: bool = True) -> Tensor:
        """A text of up to T characters as numbers of classes, (1, characters), with blanks, if it may have such, as -1.

        Raises:
            InputError: it is too long, or has a character that was not seen in training.
        """
        if len(text) > self.space[0]:
            raise InputError(
                f"the text has {len(text)} characters; the model was trained on {self.space[0]} at a time."
            )
        numbers = {letter: number for number, letter in enumerate(self.letters)}
        codes = torch.full((1, len(text)), -1)
        for place, letter in enumerate(text):
            if not (blanks and letter == BLANK):
                if letter not in numbers:
                    raise InputError(
                        f"the character {letter!r} was not seen in training; {BLANK} is a blank to fill in."
                    )
                codes[0, place] = numbers[letter]
        return codes

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "classes", "count": self.count, "space": list(self.space), "letters": self.letters}

    @classmethod
    def described(cls, description: Mapping[str, Any]) -> "Classes":
        return Classes(int(description["count"]), tuple(description["space"]), str(description["letters"]))

    def __str__(self) -> str:
        return f"{math.prod(self.space)} tokens of {self.count}"


TRANSFORMS["classes"] = Classes


@final
@dataclass(frozen=True)
class Text(Source):
    """Your own text file, character by character, cut into pieces of one length.

    The end of the text is held out, in one piece. Pieces for training overlap by three quarters.

    Args:
        path: the file, UTF-8.
        length: characters of a piece.
        test_fraction: share of the text that is held out.

    Raises:
        InputError: no such file, an empty or a short one, more than 1,024 different characters.
    """

    path: str
    length: int = 128
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", absolute(self.path))
        must_be_whole("data.length", self.length, 2)
        if not 0 < self.test_fraction < 1:
            raise InputError(f"data.test_fraction={self.test_fraction!r} must lie between 0 and 1, such as 0.1.")

    def load(self) -> Dataset:
        return self.load_in("")

    def load_in(self, letters: str) -> Dataset:
        """The data as classes of these letters, those of another run; "" for the text's own.

        Raises:
            InputError: as for the class; a character that is none of them.
        """
        file = regular(self.path, "data.path", "a text file")
        text = read_text(file, MOST_CHARACTERS)
        kept = len(text) - math.ceil(len(text) * self.test_fraction)
        if kept < 2 * self.length or len(text) - kept < self.length:
            raise InputError(
                f"data.path='{shown(file)}' has {len(text):,} characters; pieces of data.length={self.length} with "
                f"data.test_fraction={self.test_fraction} need at least "
                f"{math.ceil(self.length * max(2 / (1 - self.test_fraction), 1 / self.test_fraction)) + 1:,}."
            )
        new = sorted(set(text) - set(letters))
        if letters and new:
            raise InputError(
                f"data.path='{shown(file)}' has the character {new[0]!r}, which the run that is to go on has not seen."
            )
        letters = letters or "".join(new)
        if not 2 <= len(letters) <= MOST_LETTERS:
            raise InputError(
                f"data.path='{shown(file)}' has {len(letters):,} different characters; a text of 2 to {MOST_LETTERS:,} "
                "can be learned."
            )
        numbers = {letter: number for number, letter in enumerate(letters)}
        stride = max(1, self.length // 4)
        small = torch.uint8 if len(letters) <= 256 else torch.int32
        codes = torch.tensor([numbers[letter] for letter in text], dtype=small)
        return Dataset(
            name="text",
            train=codes[:kept].unfold(0, self.length, stride).contiguous(),
            test=codes[kept:].unfold(0, self.length, self.length).contiguous(),
            conditions={},
            kind="writing",
            transform=Classes(len(letters), (self.length,), letters),
            note=f"{len(text):,} characters, {len(letters)} different ones",
            overlap=-(-self.length // stride),
        )


#: pictures that are quantised at a time
_AT_ONCE = 4096
#: what can be quantised
_PICTURES: dict[str, type[Source]] = {"digits": Digits, "mnist": MNIST, "fashion-mnist": FashionMNIST}


@final
@dataclass(frozen=True)
class Quantised(Source):
    """Digits or clothes with few levels of grey, each a class: two for black and white.

    Level k of n becomes class floor(k classes/n), so that two classes are cut in the middle. Or it becomes, at random,
    one of the two classes that k (classes - 1)/(n - 1) lies between, the nearer the likelier: of two classes, grey is
    the probability of white. Most published figures of binarised MNIST are of such pictures (Salakhutdinov & Murray
    2008).

    Args:
        of: digits, mnist or fashion-mnist.
        classes: how many levels are left.
        stochastic: whether classes are drawn at random, once for all, instead of cut.
        labels: whether the model is given which digit, or piece of clothing, a picture is of.
        root: the folder with the files of mnist or fashion-mnist; None for the usual ones.

    Raises:
        InputError: other pictures, or more classes than they have levels.
    """

    of: str = "digits"
    classes: int = 4
    stochastic: bool = False
    labels: bool = True
    root: str | None = None

    def __post_init__(self) -> None:
        lookup(_PICTURES, self.of, "data.of")
        must_be_whole("data.classes", self.classes, 2, 256)
        if self.root is not None:
            if self.of == "digits":
                raise InputError(f"data.root={self.root!r} is of files, and the digits come with scikit-learn.")
            object.__setattr__(self, "root", absolute(self.root, "data.root"))

    def load(self) -> Dataset:
        kind = _PICTURES[self.of]
        data = (kind() if self.root is None else kind(root=self.root)).load()  # type: ignore[call-arg]
        levels = data.transform.levels
        if levels is None or self.classes > levels.count:
            raise InputError(
                f"data.classes={self.classes} are more than the {levels and levels.count} levels there are."
            )

        def cut(x: Tensor, dice: torch.Generator) -> Tensor:
            return x.int() * self.classes // levels.count

        def drawn(x: Tensor, dice: torch.Generator) -> Tensor:
            place = x.float() * ((self.classes - 1) / (levels.count - 1))
            return (place + torch.rand(x.shape, generator=dice)).clamp_max(self.classes - 1)

        def few(x: Tensor, seed: int) -> Tensor:
            dice, become = torch.Generator().manual_seed(seed), drawn if self.stochastic else cut
            return torch.cat([become(part - levels.low, dice).to(torch.uint8) for part in x.split(_AT_ONCE)])

        conditions: Mapping[str, Column] = data.conditions if self.labels else {}
        return Dataset(
            name=f"{data.name}, {self.classes} levels{', drawn at random' * self.stochastic}",
            train=few(data.train, 0),
            test=few(data.test, 1),
            conditions=conditions,
            kind="image",
            transform=Classes(self.classes, data.shape[1:]),
            layout=Layout("NCHW"),
        )
