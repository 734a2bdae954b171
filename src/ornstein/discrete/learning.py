"""What learners of tokens of every kind share: they learn probabilities, and draw along a clock of their own."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ornstein.core.categories import Categories
from ornstein.core.learner import OnItsOwnClock


@dataclass(frozen=True, eq=False)
class OfTokens(OnItsOwnClock):
    """A learner whose data are tokens."""

    gridless: ClassVar[str] = "tokens are drawn in even steps of their own clock"

    @property
    def categories(self) -> Categories:
        """The tokens of an example; a learner is not made for data without any."""
        assert self.problem.categories is not None
        return self.problem.categories

    @property
    def narrow(self) -> bool:
        return True

    def unit(self, alone: float) -> float:
        """The nats of a token that a held-out error of 1 stands for.

        Args:
            alone: what a token of the held-out rows costs if tokens know nothing of each other. If these rows are all
                alike it is 0, and no unit: then 1 is what it costs to take all classes for equally likely.
        """
        return alone or sum(map(math.log, self.categories.sizes)) / self.categories.tokens or 1.0
