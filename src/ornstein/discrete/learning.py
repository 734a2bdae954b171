"""What is learned of tokens, whatever they are tokens of: their probabilities, drawn along a clock of their own."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.learner import Learner
from ornstein.core.walk import State
from ornstein.discrete.denoiser import MaskedNet
from ornstein.discrete.tokens import TokenNet
from ornstein.errors import InputError


@dataclass(frozen=True, eq=False)
class OfTokens(Learner):
    """A learner whose data are tokens. To add one, write what a `Learner` needs, and `walk`."""

    walks: ClassVar[bool] = False

    @property
    def categories(self) -> Categories:
        """The tokens of an example; a learner refuses data without any when it is made."""
        assert self.problem.categories is not None
        return self.problem.categories

    @property
    def narrow(self) -> bool:
        return True

    def in_precision(self, model: Any, precision: torch.dtype | None) -> Any:
        return replace(model, precision=precision) if isinstance(model, MaskedNet | TokenNet) else model

    @abstractmethod
    def walk(self, model: Any, rows: int, stepper: Any, steps: int | None, **options: Any) -> Iterator[State[Tensor]]:
        """From nothing that is known to `rows` examples."""

    def trajectory(
        self,
        model: Any,
        rows: int,
        stepper: Any,
        steps: int | None,
        grid: "str | Sequence[float] | Tensor | None",
        **options: Any,
    ) -> Iterator[State[Tensor]]:
        if grid is not None:
            raise InputError(
                f"grid={grid!r} says where Gaussian noise is walked; tokens are drawn in even steps of their own clock."
            )
        return self.walk(model, rows, stepper, steps, **options)
