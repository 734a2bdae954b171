"""The steppers of tokens.

For any kernel: by the exact posterior over a step (ancestral), or by the rates of the reversed chain (Euler,
tau-leaping). For the mask only: in order of confidence, one token after another, each at its own moment (first hitting)
or in the order of reading, or with tokens masked again (remasking). A corrector dissolves tokens a little after a step
and draws them again at that level.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ornstein.core.process import Level
from ornstein.discrete.drawing import AskTokens, Dice, TokenStepper
from ornstein.discrete.drive import drawn
from ornstein.discrete.kernels import at_share
from ornstein.discrete.readings import rates
from ornstein.errors import InputError

#: the least alpha at which rates are computed: where nothing at all is left they are undefined
_LEAST_LEFT = 1e-6


@dataclass(frozen=True)
class TokenAncestral(TokenStepper):
    """Draw each token from its exact posterior over the step (Austin et al. 2021, 2107.03006).

    q(x_s given x_t) = sum over x_0 of q(x_s given x_t, x_0) p(x_0 given x_t), token by token.

    Order 1 in law. One call a step. Stochastic.
    """

    def step(
        self, ask: AskTokens, x: Tensor, t: Level[float], s: Level[float], memory: None, dice: Dice
    ) -> tuple[Tensor, None]:
        told = ask(x, t)
        return ask.kept(told.codes, drawn(ask.kernel.log_posterior(told.codes, told.log_p, t, s), dice())), None


def _leap(ask: AskTokens, x: Tensor, t: Level[float], s: Level[float], dice: Dice, poisson: bool) -> Tensor:
    """Every token stays or jumps once, with the rates at t times the length of the step."""
    told, kernel = ask(x, t), ask.kernel
    left = max(t.alpha, _LEAST_LEFT)
    found = rates(kernel, told.codes, told.log_p, Level(kernel, t.t, left, 1 - left))
    expected = (-t.rates[0] / left * (t.t - s.t)) * found.double()
    total = expected.sum(-1)
    jumps = (-torch.expm1(-total) if poisson else total.clamp_max(1.0)) > dice()
    # a token with nowhere to go has no distribution to draw from
    to = drawn(torch.where(total[..., None] > 0, expected, 1.0).log(), dice())
    return ask.kept(told.codes, torch.where(jumps & (total > 0), to, told.codes))


@dataclass(frozen=True)
class TokenEuler(TokenStepper):
    """Follow the rates of the reversed chain: a jump with probability rate times time (Lou et al. 2024, 2310.16834).

    Order 1 in law. One call a step. Stochastic.
    """

    def step(
        self, ask: AskTokens, x: Tensor, t: Level[float], s: Level[float], memory: None, dice: Dice
    ) -> tuple[Tensor, None]:
        return _leap(ask, x, t, s, dice, poisson=False), None


@dataclass(frozen=True)
class TauLeaping(TokenStepper):
    """Hold the reversed chain's rates over the step: jumps are Poisson (Campbell et al. 2022, 2205.14987).

    If a token jumps several times in one step, the first jump counts.

    Order 1 in law. One call a step. Stochastic.
    """

    def step(
        self, ask: AskTokens, x: Tensor, t: Level[float], s: Level[float], memory: None, dice: Dice
    ) -> tuple[Tensor, None]:
        return _leap(ask, x, t, s, dice, poisson=True), None


@dataclass(frozen=True)
class PredictorCorrector(TokenStepper):
    """Ancestral steps, each followed by corrections at its level (Campbell et al. 2022, 2205.14987, section 4.4).

    A correction runs the chain and then its reversal, which leaves the distribution at that level unchanged: it
    dissolves a share of what the step has restored, and steps back from there. So a badly drawn token can be drawn
    again, given the others.

    Args:
        corrections: how many, after each step.
        size: of a correction: 1 dissolves as much as the step has restored.

    Order 1 in law. 1 + corrections calls a step. Stochastic.
    """

    corrections: int = 1
    size: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.corrections, bool) or not isinstance(self.corrections, int) or self.corrections < 1:
            raise InputError(f"stepper.corrections={self.corrections!r} must be a whole number, at least 1.")
        if not 0 < self.size <= 1:
            raise InputError(f"stepper.size={self.size!r} must be in (0, 1].")

    @property
    def calls(self) -> int:
        return 1 + self.corrections

    def step(
        self, ask: AskTokens, x: Tensor, t: Level[float], s: Level[float], memory: None, dice: Dice
    ) -> tuple[Tensor, None]:
        kernel = ask.kernel
        x, _ = TokenAncestral().step(ask, x, t, s, memory, dice)
        again = 1 - self.size * (1 - t.alpha / s.alpha)
        left = torch.tensor(s.alpha * again, dtype=torch.float64)
        back = Level(kernel, kernel.time(2 * float(left.logit())), float(left), 1 - float(left))
        for _ in range(self.corrections):
            codes = ask.denoiser.codes(x)
            dissolved = ask.kept(codes, drawn(kernel.log_rows(codes, ask.classes, again), dice()))
            x, _ = TokenAncestral().step(ask, dissolved, back, s, memory, dice)
        return x, None


class Unmasking(TokenStepper):
    """A stepper for masked tokens only."""

    @property
    def masks(self) -> bool:
        return True


@dataclass(frozen=True)
class Confidence(Unmasking):
    """Unmask where the model is surest first (MaskGIT: Chang et al. 2022, 2202.04200).

    Each step unmasks as many tokens as the clock says, those whose likeliest class has the highest probability. The
    choice does not depend on the classes that are drawn, so with as many steps as tokens samples have the model's own
    distribution; ranking by the probability of the drawn class, as MaskGIT does, favours likely classes.

    Args:
        temperature: of Gumbel noise on the logarithm of that probability; 0 for none.

    Exact with as many steps as tokens. One call a step. Stochastic.
    """

    temperature: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"stepper.temperature={self.temperature!r} must not be negative.")

    def step(
        self, ask: AskTokens, x: Tensor, t: Level[float], s: Level[float], memory: Any, dice: Dice
    ) -> tuple[Tensor, Any]:
        told = ask(x, t)
        masked = ask.blank(told.codes)
        # how many there were at the start
        total = masked.sum(1, keepdim=True) if memory is None else memory
        wanted = (total * s.alpha + 1e-9).floor() - (total - masked.sum(1, keepdim=True))
        sure = told.log_p.amax(-1)
        u = dice()
        if self.temperature:
            sure = sure - self.temperature * (-u.log()).log().to(sure)
        rank = torch.where(masked, -sure, torch.inf).argsort(dim=1, stable=True).argsort(1)
        codes = torch.where(masked & (rank < wanted), drawn(told.log_p, dice()), told.codes)
        return ask.kept(told.codes, codes), total


class OneByOne(Unmasking):
    """Unmasks one token after the other, each at a moment of its own: write `moments`.

    A token leaves the mask when alpha passes its moment. All moments are known beforehand, no two coincide, and none
    depends on what is drawn: samples have the model's own distribution whatever the number of steps.
    """

    @property
    def calls(self) -> None:
        return None

    @abstractmethod
    def moments(self, masked: Tensor, u: Tensor) -> Tensor:
        """When each masked token leaves, (B, T) in (0, 1); by uniform numbers u (B, T)."""

    def step(
        self, ask: AskTokens, x: Tensor, t: Level[float], s: Level[float], memory: Any, dice: Dice
    ) -> tuple[Tensor, Any]:
        if memory is None:
            masked = ask.blank(ask.denoiser.codes(x))
            moments, u = torch.where(masked, self.moments(masked, dice()), 2.0), dice()
            memory = moments, u, moments.cpu()  # on the CPU, to know how many calls a step takes
        moments, u, there = memory
        calls = int(((there > t.alpha) & (there <= s.alpha)).sum(1).max())
        for _ in range(max(calls, 1)):
            codes = ask.denoiser.codes(x)
            due = torch.where((codes == ask.classes) & (moments <= s.alpha), moments, 2.0)
            first = due.amin(1, keepdim=True)
            told = ask(x, at_share(ask.kernel, first[:, 0].clamp_max(s.alpha).to(x.dtype)))
            mine = due == first.clamp_max(1.5)
            x = ask.kept(codes, torch.where(mine, drawn(told.log_p, u), codes))
        return x, memory

    def finish(self, ask: AskTokens, x: Tensor, t: Level[float], memory: Any, dice: Dice) -> Tensor:
        return self.step(ask, x, t, ask.kernel.at(0.0), memory, dice)[0]


@dataclass(frozen=True)
class FirstHitting(OneByOne):
    """Unmask one token after the other, each at its own moment (Zheng et al. 2024, 2409.02908).

    A token's moment is uniform in (0, 1), as when tokens dissolve.

    Exact. A call for each token. Stochastic.
    """

    def moments(self, masked: Tensor, u: Tensor) -> Tensor:
        return u


@dataclass(frozen=True)
class InOrder(OneByOne):
    """Unmask one token after the other, in the order of reading.

    Exact. A call for each token. Stochastic.
    """

    def moments(self, masked: Tensor, u: Tensor) -> Tensor:
        number = masked.cumsum(1)
        return (number / (number[:, -1:] + 1)).to(u)


@dataclass(frozen=True)
class Remasking(Unmasking):
    """Ancestral steps in which tokens may be masked again (ReMDM: Wang et al. 2025, 2503.00307).

    A known token is masked again with eta times the largest probability that the marginals allow,
    min(1, (1 - alpha_s)/alpha_t), and as many more are unmasked, so that every level keeps its distribution.

    Args:
        eta: in [0, 1]; 0 is the ancestral stepper.

    Order 1 in law. One call a step. Stochastic.
    """

    eta: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise InputError(f"stepper.eta={self.eta!r} must be in [0, 1].")

    def step(
        self, ask: AskTokens, x: Tensor, t: Level[float], s: Level[float], memory: None, dice: Dice
    ) -> tuple[Tensor, None]:
        told = ask(x, t)
        masked = ask.blank(told.codes)
        again = self.eta * min(1.0, (1 - s.alpha) / t.alpha) if t.alpha > 0 else 0.0
        leave = (s.alpha - (1 - again) * t.alpha) / (1 - t.alpha)
        u = dice()
        codes = torch.where(masked & (u < leave), drawn(told.log_p, dice()), told.codes)
        return ask.kept(told.codes, torch.where(~masked & (u < again), ask.classes, codes)), None


#: every stepper of tokens, by name
TOKEN_STEPPERS: dict[str, Any] = {
    "token-ancestral": TokenAncestral,
    "token-euler": TokenEuler,
    "tau-leaping": TauLeaping,
    "token-corrector": PredictorCorrector,
    "confidence": Confidence,
    "left-to-right": InOrder,
    "first-hitting": FirstHitting,
    "remasking": Remasking,
}
