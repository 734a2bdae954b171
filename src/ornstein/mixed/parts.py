"""The parts of a product, and the contract of its models.

Data of several parts x = (x^1, ..., x^n), such as a picture and its class, dissolve part by part: each independently of
the others, by its own process and at its own level,

    q(x_t given x_0) = product over i of q_i(x_t^i given x_0^i).

Only the data couple the parts. So a model of the product returns for each part its posterior mean given *all* of x_t,
and any stepper of numbers or tokens walks its part with that answer: a walk of the product is the walks of its parts,
side by side. Levels need not agree. A part at its clean level is given, and the others are drawn given it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser, Scaled
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.discrete import Kernel, TokenDenoiser
from ornstein.errors import InputError

#: what a model says of a part: for numbers a Prediction, for tokens log p(x_0 given x_t), (B, T, K)
Said = Prediction | Tensor


@dataclass(frozen=True)
class Part(Scaled):
    """One part of a product.

    Args:
        process: how it dissolves: a Gaussian process, or a kernel of tokens.
        shape: of numbers, in model space; that of tokens follows from their categories.
        sigma_data: the standard deviation of numbers.
        categories: of tokens; None for numbers.

    Raises:
        InputError: tokens without a kernel, or numbers with one.
    """

    process: Process
    shape: tuple[int, ...] = ()
    sigma_data: float = 1.0
    categories: Categories | None = None

    def __post_init__(self) -> None:
        if (self.categories is not None) != isinstance(self.process, Kernel):
            raise InputError(f"process={self.process} does not fit this part: tokens alone dissolve by a kernel.")
        if self.categories is not None:
            object.__setattr__(self, "shape", (self.categories.width,))

    @property
    def width(self) -> int:
        """How many numbers it has when flattened."""
        return int(torch.Size(self.shape).numel())


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a product in order, and how they are concatenated in one vector.

    Args:
        of: name -> part.
    """

    of: Mapping[str, Part]

    @property
    def width(self) -> int:
        """Length of the vector."""
        return sum(part.width for part in self.of.values())

    def packed(self, x: Mapping[str, Tensor]) -> Tensor:
        """Parts (B, *shape) as vectors (B, width)."""
        return torch.cat([x[name].flatten(1) for name in self.of], 1)

    def unpacked(self, x: Tensor) -> dict[str, Tensor]:
        """Vectors (B, width) as parts (B, *shape)."""
        blocks = x.split([part.width for part in self.of.values()], 1)
        named = zip(self.of.items(), blocks, strict=True)
        return {name: block.reshape(len(x), *part.shape) for (name, part), block in named}


class Joint(ABC):
    """A model of a product. To add one, write `predict`.

    Attributes:
        parts: name -> part.
    """

    parts: Mapping[str, Part]

    @property
    def device(self) -> torch.device:
        """Where it expects its data."""
        return torch.device("cpu")

    @abstractmethod
    def predict(self, x: Mapping[str, Tensor], levels: Mapping[str, Level], condition: Condition) -> dict[str, Said]:
        """What it says of each part given all of them.

        Args:
            x: name -> (B, *shape), tokens as vectors.
            levels: name -> the part's level, for all rows together or for each row.
        """


@dataclass(frozen=True, eq=False)
class Independent(Joint):
    """Independent models of the parts: the product of their distributions.

    Args:
        models: name -> a denoiser of numbers or of tokens.
        shapes: name -> the shape of numbers.
    """

    models: Mapping[str, Denoiser]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def parts(self) -> Mapping[str, Part]:  # type: ignore[override]
        """Each part, as its model has it."""
        return {
            name: Part(model.process, categories=model.categories)
            if isinstance(model, TokenDenoiser)
            else Part(model.process, self.shapes[name], model.sigma_data)
            for name, model in self.models.items()
        }

    def predict(self, x: Mapping[str, Tensor], levels: Mapping[str, Level], condition: Condition) -> dict[str, Said]:
        return {
            name: model.log_probs(model.codes(x[name]), levels[name], condition)
            if isinstance(model, TokenDenoiser)
            else model.predict(x[name], levels[name], condition)
            for name, model in self.models.items()
        }
