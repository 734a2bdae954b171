"""Guidance of tokens: a model of tokens made from a model of tokens, in log-probabilities (Schiff et al. 2024).

Gaussian data are guided by adding to a posterior mean, categories by multiplying their probabilities. With a
*classifier* of noisy tokens Bayes' rule is exact. The ratios of the marginals given y are those of the marginals, times
what the classifier says of the change,

    p_t(x' given y)/p_t(x given y) = p_t(x')/p_t(x) . p(y given x')/p(y given x),      x' differing in one token from x,

and ratios are another form of probabilities (`readings`). So with scale 1 and enough steps the samples have the
distribution given y, whatever the kernel and however tokens depend on each other. Other scales raise the second factor
to a power, which gives the distribution p(x) p(y given x)^scale for a row of one masked token, and one near it for
longer rows.

References: Schiff et al. 2024 (2412.10193); Nisonoff et al. 2024 (2406.01572); Ho & Salimans 2022 (2207.12598).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.condition import Condition
from ornstein.core.process import Level
from ornstein.discrete.kernels import Kernel
from ornstein.discrete.readings import LEAST_LEFT, from_ratios, ratios
from ornstein.discrete.tokens import TokenDenoiser, told
from ornstein.errors import InputError

#: rows that a classifier sees at a time: one for each class that a token may change to
_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Tilting(TokenDenoiser, ABC):
    """A model of tokens that calls another one and tilts its answer. To add one, write `log_probs`.

    Args:
        base: the model to guide.
    """

    base: TokenDenoiser

    @property
    def process(self) -> Kernel:  # type: ignore[override]
        """How tokens dissolve."""
        return self.base.process

    @property
    def categories(self) -> Categories:  # type: ignore[override]
        """The tokens of a row."""
        return self.base.categories

    @property
    def device(self) -> torch.device:
        return self.base.device


@dataclass(frozen=True, eq=False)
class Tilted(Tilting):
    """Classifier-free guidance in log-probabilities: p(x_0 given x_t, y)^scale p(x_0 given x_t)^(1 - scale), normed.

    Scale 1 is the model given the condition, 0 the model without it; beyond 1 samples follow the condition more closely
    than the data do (Ho & Salimans 2022; Schiff et al. 2024). The distribution of each token is tilted by itself, so
    that a row of one token is drawn from the tilted distribution, but longer rows are not exactly.

    Args:
        base: a model trained with and without the condition.
        scale: how strongly.

    Raises:
        InputError: a scale that is not a finite number; no condition at all if the scale is not 1.
    """

    scale: float = 2.0

    def __post_init__(self) -> None:
        _check(self.scale)

    def log_probs(self, codes: Tensor, level: Level, condition: Condition, known: Tensor | None = None) -> Tensor:
        given = self.base.log_probs(codes, level, condition, known)
        if self.scale == 1:
            return given
        if not condition:
            raise InputError("classifier-free guidance needs condition=, what to guide each sample to.")
        free = self.base.log_probs(codes, level, condition.none(), known)
        # impossible classes stay impossible, without computing -inf minus -inf
        mixed = self.scale * given.clamp_min(-1e4) + (1 - self.scale) * free.clamp_min(-1e4)
        return torch.where(given > -torch.inf, mixed, -torch.inf).log_softmax(-1)


class TokenClassifier(ABC):
    """log p(y given x_t) for noisy tokens. To add one, write `log_classes`.

    Attributes:
        process: how tokens dissolve.
    """

    process: Kernel

    @abstractmethod
    def log_classes(self, codes: Tensor, level: Level) -> Tensor:
        """log p(y given x_t = codes) for each class y, (B, T) -> (B, C)."""


@dataclass(frozen=True, eq=False)
class TiltedByClassifier(Tilting):
    """Classifier guidance in log-probabilities: ratios times (p(y given x')/p(y given x))^scale (Schiff et al. 2024).

    The part "label" of the condition goes to the classifier; the base is called without it. Scale 1 is Bayes' rule for
    an unconditional base. Rows with the label -1 are not guided. The classifier is called for each class of each token,
    T K rows for a row. Where almost nothing is left, a change of a token hardly matters to the classifier, and its
    errors count most.

    Args:
        base: the model to guide.
        classifier: of the same tokens, dissolved by the same kernel.
        scale: the power.

    Raises:
        InputError: a scale that is not a finite number, another kernel, no labels given to the sampler.
    """

    classifier: TokenClassifier
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check(self.scale)
        if self.classifier.process != self.process:
            raise InputError(
                f"classifier is for tokens dissolved by {self.classifier.process}, the base for {self.process}."
            )

    def log_probs(self, codes: Tensor, level: Level, condition: Condition, known: Tensor | None = None) -> Tensor:
        labels = condition.parts.get("label")
        if labels is None:
            raise InputError("classifier guidance needs condition=, the label to guide each sample to; -1 for none.")
        kernel = self.process
        left = torch.as_tensor(level.alpha, dtype=torch.float64)
        if not kernel.masks and bool((left < LEAST_LEFT).any()):  # where nothing is left, ratios say nothing
            left = left.clamp_min(LEAST_LEFT)
            level = Level(kernel, level.t, left if isinstance(level.alpha, Tensor) else float(left), 1 - left)
        plain = self.base.log_probs(codes, level, condition.without("label"), known)
        change = self.scale * self._change(codes, level, labels).to(plain)
        if kernel.masks:
            found = (plain + change).log_softmax(-1)
        else:
            factor = told(kernel, codes, self.classes, level, known).double()
            tilted = (ratios(kernel, codes, plain.double(), level) + change).exp()
            found = from_ratios(kernel, codes, tilted, level, factor).to(plain)
        return torch.where((labels >= 0)[:, None, None], found, plain)

    def _change(self, codes: Tensor, level: Level, labels: Tensor) -> Tensor:
        """log p(y given x') - log p(y given x), for each x' with one token changed to one class: (B, T, K)."""
        rows, tokens, classes = *codes.shape, self.classes
        here = self._of(codes, level, labels)
        each, found = max(1, _AT_ONCE // (tokens * classes)), []
        which = torch.arange(tokens, device=codes.device)
        for part in torch.arange(rows, device=codes.device).split(each):
            other = codes[part, None, None].repeat(1, tokens, classes, 1)
            other[:, which, :, which] = torch.arange(classes, device=codes.device).expand(tokens, len(part), -1)
            at = _repeated(level, part, tokens * classes)
            told_ = self._of(other.flatten(0, 2), at, labels[part].repeat_interleave(tokens * classes))
            found.append(told_.reshape(len(part), tokens, classes))
        return torch.cat(found) - here[:, None, None]

    def _of(self, codes: Tensor, level: Level, labels: Tensor) -> Tensor:
        """log p(label given x_t = codes), (B,)."""
        return self.classifier.log_classes(codes, level).gather(1, labels.clamp(min=0)[:, None])[:, 0]


def _repeated(level: Level, rows: Tensor, times: int) -> Level:
    """The level of these rows, each repeated `times` times."""
    if not isinstance(level.alpha, Tensor):
        return level
    values = [torch.as_tensor(value) for value in (level.t, level.alpha, level.sigma)]
    return Level(level.process, *(value[rows].repeat_interleave(times, 0) for value in values))


def _check(scale: float) -> None:
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise InputError(f"scale={scale!r} must be a finite number.")


#: how a model of tokens may be guided, by name
TOKEN_GUIDANCE: dict[str, Callable[..., Tilting]] = {"classifier-free": Tilted, "classifier": TiltedByClassifier}
