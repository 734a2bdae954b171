"""Bridges: the one thing that a model between two data sets is.

A bridge answers, for x at time t of its path, with the posterior means of both ends, E[x_0 given x_t = x] and E[x_1
given x_t = x], or of one of them: what a denoiser is for a far end that is noise. Everything is built on that answer:
one walks along it in either direction, an exact law gives one in closed form, a network learns one.

Told from the other end it is a bridge again. So what goes down a path goes up it, too, and is written once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ornstein.bridge.path import Ends, Path, Stage
from ornstein.core.condition import Condition, Given


class Bridge(ABC):
    """`(x, t, condition) -> Ends`: whatever knows where x_t comes from and where it goes. To add one, write `predict`.

    Attributes:
        path: what t is read on.
    """

    path: Path

    @abstractmethod
    def predict(self, x: Tensor, stage: Stage, condition: Condition) -> Ends:
        """The ends of x (B, ...) at `stage`, given `condition`, which has B rows or no parts."""

    def __call__(self, x: Tensor, t: "float | Tensor | Stage", condition: Given = None) -> Ends:
        """Ask for E[x_0 given x_t = x] and E[x_1 given x_t = x].

        Args:
            x: (B, ...) in model space.
            t: one time for all, or (B,), in [0, t_max] of `path`; or a Stage of it.
            condition: what to condition on, with B rows; see `Condition.of`.

        Raises:
            InputError: a time out of range; a condition that is none, or of another number of rows.
        """
        return self.predict(x, self.path.at(t, like=x), Condition.of(condition).matches(len(x), "x"))

    def reversed(self) -> "Bridge":
        """The same knowledge told from the other end."""
        return ReversedBridge(self)


@dataclass(frozen=True, eq=False)
class ReversedBridge(Bridge):
    """A bridge told from the other end."""

    bridge: Bridge

    @property
    def path(self) -> Path:  # type: ignore[override]
        return self.bridge.path.reversed()

    def predict(self, x: Tensor, stage: Stage, condition: Condition) -> Ends:
        path, t = self.bridge.path, self.path.t_max - stage.t
        # the coefficients as they are: the far end's time, subtracted twice, would not be what it was
        there = Stage(path, t, stage.beta, stage.alpha, stage.variance)
        ends = self.bridge.predict(x, there, condition)
        return Ends(ends.x1, ends.x0, x, stage)

    def reversed(self) -> Bridge:
        return self.bridge


@dataclass(frozen=True, eq=False)
class FunctionBridge(Bridge):
    """A bridge from a function `(x, stage, condition) -> readings by name`, as `Ends.of` takes them."""

    function: Callable[[Tensor, Stage, Condition], Mapping[str, Tensor]]
    path: Path

    def predict(self, x: Tensor, stage: Stage, condition: Condition) -> Ends:
        return Ends.of(x, stage, self.function(x, stage, condition))
