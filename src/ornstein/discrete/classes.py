"""A classifier of noisy tokens at every level of noise, to guide a model of tokens that knows no classes.

A network outputs h_y for each class y, a mean over the places, and p(y given x_t) ~ p(y) exp(m h_y), with m the share
of the row that is left. Where nothing is left, only the shares of the classes can be known, and need not be learned.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ornstein.core.categories import Categories
from ornstein.core.condition import Condition, Given
from ornstein.core.copies import beside
from ornstein.core.learner import JUDGED_BY, LEVELS, Judgement, Learner, Measure, with_shares
from ornstein.core.numerics import strata, uniform
from ornstein.core.process import Level
from ornstein.discrete.drive import drawn
from ornstein.discrete.guided import TokenClassifier
from ornstein.discrete.jumps import TOKEN_STEPPERS
from ornstein.discrete.kernels import Kernel, at_share, share
from ornstein.discrete.readings import TOKEN_READINGS, Described
from ornstein.discrete.spectral import KERNELS
from ornstein.discrete.tokens import TokenNet, as_shown
from ornstein.errors import InputError


@dataclass(frozen=True, eq=False)
class TokenClassifierNet(TokenClassifier):
    """A network as a classifier of noisy tokens.

    Args:
        net: like that of a `TokenNet`, with at least as many channels as there are classes.
        process: how tokens dissolve.
        categories: the tokens of a row.
        shares: p(y), the share of each class in the data.
    """

    net: nn.Module
    process: Kernel
    categories: Categories
    shares: tuple[float, ...]

    @property
    def device(self) -> torch.device:
        """Where it expects its data."""
        return next(self.net.parameters()).device

    def log_classes(self, codes: Tensor, level: Level) -> Tensor:
        kernel, classes = self.process, self.categories.sizes[0]
        certain = codes < classes if kernel.masks else None
        out = self.net(*as_shown(kernel, codes, classes, self.categories.space, level, certain), {})
        h = out.flatten(2).mean(2)[:, : len(self.shares)].float()
        left = torch.as_tensor(level.alpha, dtype=h.dtype, device=h.device).reshape(-1, 1)
        if kernel.masks:
            left = (codes < classes).to(h).mean(1, keepdim=True)
        found: Tensor = (beside(_log(self.shares), h) + left * h).log_softmax(1)
        return found

    def noised(self, x0: Tensor, left: Tensor, u: Tensor) -> tuple[Tensor, Level]:
        """Rows (B, T K), noised until a share (B,) is left, as states (B, T) drawn by u (B, T); and their level."""
        level = at_share(self.process, left)
        codes = self.categories.codes(x0)
        return drawn(self.process.log_rows(codes, self.categories.sizes[0], share(level)), u), level


@lru_cache(maxsize=64)
def _log(shares: tuple[float, ...]) -> Tensor:
    """The logarithms of the shares, on the CPU."""
    return torch.tensor(shares).log()


@dataclass(frozen=True)
class TokenCrossEntropy:
    """Train a network to tell the class of noisy tokens: cross-entropy, at every share of tokens left.

    Args:
        shares: the share of each class in the data; an experiment takes them from its data.
    """

    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", tuple(self.shares))

    def __call__(self, model: TokenClassifierNet, x0: Tensor, condition: Given, generator: torch.Generator) -> Tensor:
        """The loss of each row, (B,), in nats; 0 for a row without a label."""
        labels = Condition.of(condition).parts["label"]
        left = strata(len(x0), generator)[torch.randperm(len(x0), generator=generator, device=generator.device)]
        u = torch.rand(len(x0), model.categories.tokens, generator=generator, device=generator.device)
        codes, level = model.noised(x0, left.float().to(x0.device), u.to(x0.device))
        return cross_entropy(model.log_classes(codes, level), labels, reduction="none", ignore_index=-1)


@dataclass(frozen=True, eq=False)
class TokenClasses(Learner):
    """A classifier of noisy tokens at every level of noise: not drawn from, but used to guide another model."""

    readings: ClassVar[Mapping[str, str]] = Described(TOKEN_READINGS)  # accepted, but not used
    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = {"token-classifier": TokenCrossEntropy}
    processes: ClassVar[Mapping[str, Callable[..., Any]]] = KERNELS
    steppers: ClassVar[Mapping[str, Callable[..., Any]]] = TOKEN_STEPPERS  # an experiment names one in any case
    draws: ClassVar[bool] = False
    walks: ClassVar[bool] = False
    then: ClassVar[str] = "ornstein sample RUN --guidance classifier --guide {run}"
    judges: ClassVar[Measure] = Measure(
        "accuracy-by-noise", "share told right", "the commonest class", "the classes' shares", share=True
    )

    @classmethod
    def implied(cls, predicts: str, objective: Callable[..., Any]) -> bool:
        return isinstance(objective, TokenCrossEntropy)

    @classmethod
    def completed(cls, objective: Mapping[str, Any], shares: tuple[float, ...], data: str) -> Mapping[str, Any]:
        return with_shares(objective, shares, data)

    def __post_init__(self) -> None:
        categories = self.problem.categories
        if categories is None or not categories.space or not isinstance(self.problem.process, Kernel):
            raise InputError(
                f"objective={self.problem.taught_by!r} needs data in tokens of one size, such as data=quantised; these "
                "data are not."
            )

    @property
    def categories(self) -> Categories:
        """The tokens of a row."""
        assert self.problem.categories is not None  # see above
        return self.problem.categories

    @property
    def shown(self) -> tuple[int, ...]:
        return TokenNet.shown(self.categories.sizes[0], self.categories.space)

    @property
    def told(self) -> Mapping[str, Any]:
        return {}

    @property
    def out_multiple(self) -> int:
        return math.ceil(self.problem.classes / self.shown[0])

    def model(self, net: nn.Module) -> TokenClassifierNet:
        process, taught = self.problem.process, self.problem.objective
        assert isinstance(process, Kernel)  # see above
        assert isinstance(taught, TokenCrossEntropy)  # no other is named in `objectives`
        return TokenClassifierNet(net, process, self.categories, taught.shares)

    @torch.no_grad()
    def judge(self, model: TokenClassifierNet, x0: Tensor, condition: Given) -> Judgement:
        """Its cross-entropy relative to that of the classes' shares alone; `found` is the share that it tells right."""
        labels = Condition.of(condition).parts["label"]
        known = (labels >= 0).nonzero().flatten()[:JUDGED_BY]
        x0, labels = x0[known].to(model.device), labels[known].to(model.device)
        seeds = torch.arange(len(x0), device=x0.device)
        ratios, right, losses = [], [], []
        for number in range(LEVELS):
            gone = (number + 0.5) / LEVELS
            left = torch.full((len(x0),), 1 - gone, device=x0.device)
            codes, level = model.noised(x0, left, uniform(seeds, self.categories.tokens, number))
            found = model.log_classes(codes, level)
            losses.append(-float(found.gather(1, labels[:, None]).mean()))
            right.append(float((found.argmax(1) == labels).float().mean()))
            ratios.append(gone / (1 - gone))
        alone = -sum(share * math.log(share) for share in model.shares)
        value = sum(losses) / len(losses) / alone
        return Judgement(value, ratios[::-1], right[::-1], [max(model.shares)] * len(ratios))
