"""The one walk over levels.

Whatever the state is - a picture, a table of categories, several parts that dissolve each by a clock of its own - going
from noise to data, or from data to noise, is a recursion

    (x, memory)  <-  step(ask, x, t, s, memory)

over neighbouring levels t, s of a list, in which `ask` puts the question E[x_0 given x_t] to a model. The walk counts
the questions, passes the memory on and yields each state. It never looks at x, nor at anything of a level but its time:
where to start, what to draw noise from and which levels to visit are decided by those who know the kind of state
(`ornstein.core.drive` for states with Gaussian noise).

*Down and up.* The list gives the direction: levels that fall to the clean point draw a sample, levels that rise encode
one. At the clean point nothing is left to ask about, so a walk that ends there is given `finish`, which takes the last
level to it.

*Gradients.* While a solver is fitted, its numbers and its levels are unknowns, and the loss asks how the end of the
walk moves with them: the same walk, recorded.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, Protocol, TypeVar

import torch

from ornstein.errors import InputError

X = TypeVar("X")
L = TypeVar("L", bound="Timed")
A = TypeVar("A", bound="Answer")
Q = TypeVar("Q", bound="Asked[Any, Any, Any]")


class Timed(Protocol):
    """A level, as far as the walk knows it: a time on a clock."""

    @property
    def t(self) -> Any: ...


class Answer(Protocol):
    """What a model says of a noisy state, as far as the walk knows it: its estimate of the clean one."""

    @property
    def x0(self) -> Any: ...


class Asked(Generic[X, L, A]):
    """What a step puts its questions to, `ask(x, level)`: a function that counts them and keeps a step's first answer.

    Args:
        answer: the function, from a state and its level to what a model says of it.
        steps: of the walk, for a step that depends on their number; 0: not known.
    """

    def __init__(self, answer: Callable[[X, L], A], steps: int = 0) -> None:
        self._answer = answer
        self.steps = steps
        self.calls = 0
        self.first: A | None = None

    def __call__(self, x: X, level: L) -> A:
        answer = self._answer(x, level)
        self.calls += 1
        if self.first is None:
            self.first = answer
        return answer


@dataclass(frozen=True, eq=False)
class State(Generic[X]):
    """A state of a walk.

    Attributes:
        step: 0 (the start) to `steps` (the end).
        t: the time: from the grid's first to 0 where samples are drawn.
        x: where the walk is: (B, ...), if it is of tensors.
        x0: the model's estimate of the clean state, E[x_0 given x]. At the clean point it is x itself; at the end of a
            walk that does not end there, the answer that the last step got.
        calls: questions so far.
    """

    step: int
    t: float
    x: X
    x0: X
    calls: int


def walk(
    ask: Q,
    x: X,
    levels: Sequence[L],
    step: Callable[[Q, X, L, L, Any], tuple[X, Any]],
    finish: Callable[[Q, X, L, Any], X] | None = None,
    *,
    gradients: bool = False,
) -> Iterator[State[X]]:
    """Walk along the levels, yielding each moment: as many as there are levels, the start first.

    Args:
        ask: what the steps put their questions to.
        x: the state at the first level.
        levels: n + 1 of them, in the order in which to visit them.
        step: (ask, x, t, s, memory) -> (x at s, memory): from one level to the next. Memory is None at first, and from
            then on what the step before gave; each step asks at least once, first about (x, t).
        finish: (ask, x, t, memory) -> x at the last level, the clean point. None: the last step is like the others.
        gradients: whether what happens in a step is recorded for them.

    Raises:
        InputError: fewer than two levels; a step that asks nothing.
    """
    if len(levels) < 2:
        raise InputError(f"levels has {len(levels)} entries; a walk needs at least two.")
    last, memory, x0 = len(levels) - 1, None, x
    for i, (t, s) in enumerate(pairwise(levels)):
        ask.first = None
        before = ask.calls
        with torch.set_grad_enabled(gradients):
            if finish is not None and i + 1 == last:
                after = finish(ask, x, t, memory)
            else:
                after, memory = step(ask, x, t, s, memory)
        if ask.first is None:
            raise InputError(f"step {i} of the walk, from t={float(t.t):g}, asked nothing: each must call ask(x, t).")
        x0 = ask.first.x0
        yield State(i, t.t, x, x0, before)
        x = after
    yield State(last, levels[-1].t, x, x if finish is not None else x0, ask.calls)


def end(states: Iterator[State[X]]) -> State[X]:
    """The last state of a walk; earlier ones are not kept."""
    for state in states:
        last = state
    return last
