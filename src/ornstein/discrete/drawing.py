"""Drawing tokens that dissolve by any kernel: the walk of `ornstein.core.walk`, from the stationary law to the data.

Every step draws each token independently, from a distribution given by the model's posterior. So within a step the
tokens' dependence on each other is lost; this error vanishes as steps increase. Uniform numbers are functions of a
row's seed, the token and the step, so that a row does not depend on the batch that it is drawn in.

*Filling in.* Known tokens of a row stay as they are throughout, and the model is told which they are. With the mask it
can see that by itself; with other kernels it must have been trained for it (`TokenObjective.shown`). Tokens that nobody
asks for, such as those beyond the end of a short text, stay masked: what is drawn has the same distribution without
them, and takes fewer calls. Without a mask they have some state at every level, so they are drawn like all others.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.drive import sample_seeds
from ornstein.core.numerics import uniform
from ornstein.core.process import Level
from ornstein.core.walk import Asked, State, walk
from ornstein.discrete.drive import drawn
from ornstein.discrete.kernels import Kernel
from ornstein.discrete.tokens import TokenDenoiser
from ornstein.errors import InputError


@dataclass(frozen=True, eq=False)
class Told:
    """What a model says of rows of tokens.

    Attributes:
        codes: the rows, (B, T).
        log_p: log p(x_0 given these), (B, T, K).
    """

    codes: Tensor
    log_p: Tensor

    @property
    def x0(self) -> Tensor:
        """The posterior mean, (B, T K)."""
        return self.log_p.exp().flatten(1)


class AskTokens(Asked[Tensor, Level, Told]):
    """What a step calls for the model's answer: `ask(x, level)`, x (B, T K).

    Attributes:
        denoiser: the model.
        known: tokens that the walk began with and keeps, (B, T) bool; None for none.
        held: tokens that stay as the walk began: those known, and those that are not asked for; None for none.
    """

    def __init__(
        self, denoiser: TokenDenoiser, condition: Condition, known: Tensor | None, steps: int, until: int | None = None
    ) -> None:
        self.denoiser, self.known, self.held = denoiser, known, known
        if until is not None:
            beyond = torch.arange(denoiser.categories.tokens, device=denoiser.device)[None] >= until
            self.held = beyond if known is None else known | beyond

        def answer(x: Tensor, level: Level) -> Told:
            codes = denoiser.codes(x)
            return Told(codes, denoiser.log_probs(codes, level, condition, known))

        super().__init__(answer, steps)

    @property
    def kernel(self) -> Kernel:
        """How tokens dissolve."""
        return self.denoiser.process

    @property
    def classes(self) -> int:
        """K."""
        return self.denoiser.classes

    def blank(self, codes: Tensor) -> Tensor:
        """Which tokens of rows (B, T) are masked and asked for, (B, T) bool."""
        masked = codes == self.classes
        return masked if self.held is None else masked & ~self.held

    def kept(self, before: Tensor, codes: Tensor) -> Tensor:
        """States (B, T) as vectors, with those that are held as they were in `before` (B, T)."""
        return self.denoiser.vectors(codes if self.held is None else torch.where(self.held, before, codes))


class Dice:
    """Uniform numbers of a walk's rows, drawn one table after the other.

    Args:
        seeds: (B,) int64, one per row.
        tokens: T.
    """

    def __init__(self, seeds: Tensor, tokens: int) -> None:
        self._seeds, self._tokens, self._number = seeds, tokens, 0

    def __call__(self) -> Tensor:
        """(B, T) in (0, 1), new at every call."""
        self._number += 1
        return uniform(self._seeds, self._tokens, self._number)


class TokenStepper(ABC):
    """Goes from a level to one at which tokens are less dissolved: a frozen dataclass with one method.

    Facts, each checked by a test: the distribution of what is drawn tends to the model's as steps increase, and a model
    that always gives the same answer is drawn exactly in any number of steps.
    """

    @property
    def masks(self) -> bool:
        """Whether it works with the absorbing kernel only."""
        return False

    @property
    def calls(self) -> int | None:
        """Calls of the model in a step; None if that varies."""
        return 1

    @property
    def stochastic(self) -> bool:
        """Whether it draws random numbers beyond the start."""
        return True

    @abstractmethod
    def step(
        self, ask: AskTokens, x: Tensor, t: Level[float], s: Level[float], memory: Any, dice: Dice
    ) -> tuple[Tensor, Any]:
        """One step from level t to s; x is (B, T K)."""

    def finish(self, ask: AskTokens, x: Tensor, t: Level[float], memory: Any, dice: Dice) -> Tensor:
        """The last step, to the data: draws from p(x_0 given x_t)."""
        told = ask(x, t)
        return ask.kept(told.codes, drawn(told.log_p, dice()))


def begun(denoiser: TokenDenoiser, stepper: TokenStepper, rows: int, dice: Dice) -> Tensor:
    """Where a walk begins: states (rows, T) drawn from the stationary law by the next uniform numbers.

    Raises:
        InputError: a stepper of masked tokens with a kernel that masks none.
    """
    kernel = denoiser.process
    if stepper.masks and not kernel.masks:
        raise InputError(f"{stepper} unmasks tokens, and {kernel} masks none; take ancestral, euler or tau-leaping.")
    law = kernel.log_stationary(denoiser.classes).float().to(denoiser.device)
    return drawn(law.expand(rows, denoiser.categories.tokens, -1), dice())


def draw_tokens(
    denoiser: TokenDenoiser,
    rows: int,
    stepper: TokenStepper,
    *,
    steps: int,
    seed: int | None = None,
    seeds: Any = None,
    generator: torch.Generator | None = None,
    condition: Given = None,
    x: Tensor | None = None,
    until: int | None = None,
) -> Iterator[State[Tensor]]:
    """Draw rows of tokens, yielding each state, (rows, T K): `steps + 1` of them.

    Args:
        denoiser: the model to draw from.
        rows: how many.
        stepper: the stepper.
        steps: how many steps, even along the clock.
        seed, seeds, generator: one source of randomness, as for `ornstein.core.drive.trajectory`.
        condition: what to draw given, with `rows` rows.
        x: (rows, T K), the known tokens, zeros elsewhere; these are returned as they are. None for none.
        until: how many tokens are asked for, the first ones; with a mask the others are not drawn. None for all.

    Raises:
        InputError: an argument that does not fit.
    """
    categories, kernel, device = denoiser.categories, denoiser.process, denoiser.device
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps={steps!r} must be a whole number, at least 1.")
    if x is not None and tuple(x.shape) != (rows, categories.width):
        raise InputError(f"x has shape {tuple(x.shape)}; it must be {(rows, categories.width)}.")
    condition = Condition.of(condition).matches(rows, f"rows={rows}").to(device)
    dice = Dice(sample_seeds(rows, seed, seeds, generator).to(device), categories.tokens)
    codes = begun(denoiser, stepper, rows, dice)
    known = None
    if x is not None:
        x = x.to(device)
        known = categories.known(x)
        codes = torch.where(known, denoiser.codes(x), codes)
    ask = AskTokens(denoiser, condition, known, steps, until if kernel.masks else None)
    times = torch.linspace(kernel.t_max, 0.0, steps + 1, dtype=torch.float64)
    return walk(
        ask,
        denoiser.vectors(codes),
        kernel.levels(times),
        lambda ask, x, t, s, memory: stepper.step(ask, x, t, s, memory, dice),
        lambda ask, x, t, memory: stepper.finish(ask, x, t, memory, dice),
    )
