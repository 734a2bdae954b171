"""What a run on tokens learns: the probabilities of the classes at every place of a sequence or a picture."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ornstein.core.condition import Condition, Given
from ornstein.core.learner import JUDGED_BY, LEVELS, Judgement, Measure
from ornstein.core.numerics import uniform
from ornstein.core.walk import State
from ornstein.discrete.bounds import TOKEN_OBJECTIVES, LeftToRight, Rows, TokenObjective
from ornstein.discrete.drawing import draw_tokens
from ornstein.discrete.guided import TOKEN_GUIDANCE
from ornstein.discrete.jumps import TOKEN_STEPPERS
from ornstein.discrete.kernels import Kernel, at_share
from ornstein.discrete.learning import OfTokens
from ornstein.discrete.reading import CountedNet, TokenReader
from ornstein.discrete.readings import TOKEN_READINGS, Described, Probabilities
from ornstein.discrete.spectral import KERNELS
from ornstein.discrete.tokens import TokenDenoiser, TokenNet
from ornstein.errors import InputError, must_be_whole
from ornstein.nets import READERS

#: the default number of steps of a walk; fewer if there are fewer tokens
_STEPS = 128


@dataclass(frozen=True, eq=False)
class Sequences(OfTokens):
    """Sequences and pictures of categories that dissolve by any kernel (Austin et al. 2021)."""

    readings: ClassVar[Mapping[str, str]] = Described(TOKEN_READINGS)
    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = TOKEN_OBJECTIVES
    processes: ClassVar[Mapping[str, Callable[..., Any]]] = KERNELS
    steppers: ClassVar[Mapping[str, Callable[..., Any]]] = TOKEN_STEPPERS
    guidance: ClassVar[Mapping[str, Callable[..., Any]]] = TOKEN_GUIDANCE
    instead: ClassVar[str] = "token by token, for which there are sample and loglik, and of a text sample --fill"
    at_once: ClassVar[int] = 64
    then: ClassVar[str] = "ornstein sample {run} -n 16"
    judges: ClassVar[Measure] = Measure(
        "loss-by-noise", "nats of a token that is gone", "each place by itself", "places alone"
    )
    made: ClassVar[type[TokenNet]] = TokenNet

    def __post_init__(self) -> None:
        categories = self.problem.categories
        if categories is None or not categories.space or not isinstance(self.problem.process, Kernel):
            raise InputError(
                f"predicts={self.problem.predicts!r} needs data in tokens of one size, such as data=text or "
                "data=quantised; these data are not."
            )
        if isinstance(self.problem.objective, TokenObjective):
            self.problem.objective.must_suit(self.problem.process)

    @property
    def steps(self) -> int:
        return min(self.categories.tokens, _STEPS)

    @property
    def shown(self) -> tuple[int, ...]:
        return TokenNet.shown(self.categories.sizes[0], self.categories.space)

    def model(self, net: nn.Module) -> TokenNet:
        process = self.problem.process
        assert isinstance(process, Kernel)  # see above
        return self.made(net, process, self.categories, self.categories.space, self.problem.predicts)

    def walk(self, model: Any, rows: int, stepper: Any, steps: int | None, **options: Any) -> Iterator[State[Tensor]]:
        return draw_tokens(model, rows, stepper, steps=self.steps if steps is None else steps, **options)

    @torch.no_grad()
    def judge(self, model: TokenDenoiser, x0: Tensor, condition: Given) -> Judgement:
        """The cross-entropy of held-out tokens that are gone, relative to that of independent places.

        It uses the first `JUDGED_BY` rows, at `LEVELS` shares that are gone. For masked tokens its mean is the bound.
        """
        x0 = x0[:JUDGED_BY].to(model.device)
        condition = Condition.of(condition)[:JUDGED_BY].to(model.device)
        codes, seeds = self.categories.codes(x0), torch.arange(len(x0), device=x0.device)
        # a picture's classes are counted at each place, a sequence's over all places together
        shares = x0.unflatten(1, (self.categories.tokens, -1)).mean(0)
        shares = shares.mean(0, keepdim=True).expand_as(shares) if len(self.categories.space) == 1 else shares
        alone = self.unit(float(-torch.special.xlogy(shares, shares).sum(1).mean()))
        ratios, nats = [], []
        for number in range(LEVELS):
            gone = (number + 0.5) / LEVELS
            level = at_share(model.process, torch.full((len(x0),), 1 - gone, device=x0.device))
            u = uniform(seeds, codes.shape[1], number)
            rows = Rows(codes, condition, 1 - level.alpha, u)
            xt = rows.noised(model.process, model.classes, level)
            told = rows.nats(model.log_probs(xt, level, condition))
            # if the kernel does not show what has moved, all tokens count; those that have not cost almost nothing
            moved = xt == model.classes if model.process.masks else torch.ones_like(xt, dtype=torch.bool)
            nats.append(float(told[moved].mean()))
            ratios.append(gone / (1 - gone))
        return Judgement(sum(nats) / len(nats) / alone, ratios[::-1], nats[::-1], [alone] * len(nats))


@dataclass(frozen=True, eq=False)
class Read(Sequences):
    """Sequences that are read in order and filled in from both sides, beginning at what counting says.

    Args:
        order: of the n-gram that it begins at, from 1 (how often each token is) to 6.
    """

    order: int = 5

    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = {"left-to-right": LeftToRight}
    nets: ClassVar[Mapping[str, Callable[..., Any]]] = READERS
    readings: ClassVar[Mapping[str, str]] = Described({"probabilities": Probabilities})
    made: ClassVar[type[TokenNet]] = TokenReader

    def __post_init__(self) -> None:
        super().__post_init__()
        must_be_whole("learner.order", self.order, 1, 6)
        if len(self.categories.space) != 1:
            raise InputError(
                f"objective={self.problem.taught_by!r} is of sequences, such as data=text; take masked-bound."
            )

    def network(self, build: Callable[..., nn.Module], seed: int = 0) -> nn.Module:
        return CountedNet(super().network(build, seed), self.categories.sizes[0], self.order)

    def count(self, net: nn.Module, examples: Tensor) -> None:
        assert isinstance(net, CountedNet)  # by `network`
        net.count(examples)

    @classmethod
    def implied(cls, predicts: str, objective: Callable[..., Any]) -> bool:
        return isinstance(objective, LeftToRight)

    @property
    def steps(self) -> int:
        return self.categories.tokens

    @torch.no_grad()
    def judge(self, model: TokenDenoiser, x0: Tensor, condition: Given) -> Judgement:
        """The nats of a token in order, in the units of `Sequences.judge`, beside the curve of any order."""
        x0, found = x0[:JUDGED_BY].to(model.device), super().judge(model, x0, condition)
        codes = self.categories.codes(x0)
        rows = Rows(codes, Condition.of(condition)[:JUDGED_BY].to(model.device), codes[:, 0].float(), codes.float())
        nats = float(rows.nats(model.in_order(rows.codes, rows.condition)).mean())
        return replace(found, value=nats / found.known[0])
