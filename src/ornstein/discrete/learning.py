"""What learners of tokens of every kind share: they learn probabilities, and draw along a clock of their own."""

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
