"""Classifier guidance: any unconditional model made conditional by a classifier of noisy data.

By Bayes, grad log p(x_t given c) = grad log p(x_t) + grad log p(c given x_t): a classifier that reads x_t at every
noise level adds a condition to a denoiser that knows none (Song et al. 2021, 2011.13456, section 5; Dhariwal & Nichol
2021, 2105.05233). With its gradient times w one draws about p(x) p(c given x)^w.

The classifier is trained by cross-entropy on noised data at random levels,

    log p(c given x_t) = log p(c) + h_c alpha s/sqrt(alpha^2 s^2 + sigma^2) + const,        s = sigma_data.

The factor on the network's answer h makes it fit for guidance. At high noise the class cannot be told: the true
logits fall with alpha/sigma, while they move x0 by their gradient times sigma^2/alpha. A bare network's small errors
would be multiplied by sigma/alpha, 160 at the start; with the factor they stay small. Any network of `ornstein.nets`
will do: a map x -> (B, C', ...) with at least as many channels as there are classes, averaged over positions.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.core.condition import Condition, Given
from ornstein.core.copies import beside
from ornstein.core.denoiser import NOISE_LEVEL_LIMIT, Denoiser, NetDenoiser, Scaled
from ornstein.core.grids import ends
from ornstein.core.numerics import noise_like, strata
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.errors import InputError
from ornstein.guidance.contract import Guidance, check_scale, scale_at
from ornstein.guidance.gradient import pull


@dataclass(frozen=True, eq=False)
class NoisyClassifier(Scaled):
    """log p(c given x_t) for each class c, by a network that reads x_t/alpha and sigma/alpha alone.

    Args:
        net: `net(x, noise_level, {}) -> (B, C', ...)`, the mean over positions being h, C' >= classes; called as
            `NetDenoiser` calls its own, without a condition.
        process: the clock of the data that it is asked about.
        shares: p(c), the share of each class in the data, two or more; they are scaled to sum to 1.
        sigma_data: standard deviation of the data in model space.
        noise_unit: what noise is measured in, if not in sigma_data.

    Raises:
        InputError: fewer than two classes, shares that are not positive.
    """

    net: nn.Module
    process: Process
    shares: tuple[float, ...]
    sigma_data: float = 1.0
    noise_unit: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", _checked(self.shares))

    @staticmethod
    def out_multiple(shape: tuple[int, ...], classes: int) -> int:
        """The `out_multiple` to build a network for data of this shape with, so that it has enough channels."""
        return math.ceil(classes / shape[0])

    def log_probs(self, x: Tensor, t: "float | Tensor | Level") -> Tensor:
        """log p(c given x_t = x), (B, classes), float32 at least.

        Raises:
            InputError: the network gives too few channels.
        """
        level = self.process.at(t, like=x)
        c_in = ((level.alpha * self.sigma_data) ** 2 + level.sigma * level.sigma) ** -0.5
        told = -0.5 * level.log_snr
        told = told.flatten() if isinstance(told, Tensor) else x.new_full((len(x),), told)
        own = next((p.dtype for p in self.net.parameters() if p.is_floating_point()), x.dtype)
        told = told.clamp(-NOISE_LEVEL_LIMIT, NOISE_LEVEL_LIMIT).to(torch.promote_types(own, torch.float32))
        h = self.net((c_in * x).to(own), told, {}).to(torch.promote_types(x.dtype, torch.float32))
        if h.shape[1] < len(self.shares):
            raise InputError(
                f"net gives {h.shape[1]} channels for {len(self.shares)} classes; build it with out_multiple="
                f"{self.out_multiple(tuple(x.shape[1:]), len(self.shares))}."
            )
        h = h.reshape(*h.shape[:2], -1).mean(2)[:, : len(self.shares)]
        told_apart = level.alpha * self.sigma_data * c_in
        told_apart = told_apart.reshape(-1, 1).to(h) if isinstance(told_apart, Tensor) else told_apart
        logits: Tensor = beside(_log(self.shares), h) + told_apart * h
        return logits.log_softmax(1)

    def log_likelihood(self, x: Tensor, level: Level, labels: Tensor) -> Tensor:
        """log p(labels given x_t = x), (B,); 0 for the label -1, which means none."""
        picked = self.log_probs(x, level).gather(1, labels.clamp(min=0)[:, None])[:, 0]
        return torch.where(labels >= 0, picked, 0.0)


@dataclass(frozen=True)
class NoisyCrossEntropy:
    """Teach a network to tell the class of noisy data: cross-entropy over noise levels (Dhariwal & Nichol 2021).

    An objective like any other, (denoiser, x0, condition, generator) -> loss (B,), in nats, which uses the denoiser's
    network, clock and sigma_data. The noise is even in log(sigma/alpha) between `low` and `high`, stratified over the
    batch.

    Args:
        shares: the share of each class in the data, see `NoisyClassifier`; labels must be below their number. An
            experiment takes them from its data.
        low, high: noise ratios sigma/alpha to train between, within the clock's. Guide between the same.
        smoothing: in [0, 1), the share of each target spread over all classes: smoother gradients.

    Raises:
        InputError: numbers out of range; data without labels, or a denoiser that is not a network.
    """

    shares: tuple[float, ...] = ()
    low: float = 0.01
    high: float = 100.0
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", _checked(self.shares) if self.shares else ())
        if not 0 < self.low < self.high:
            raise InputError(f"low={self.low!r} and high={self.high!r} must be noise ratios, 0 < low < high.")
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing={self.smoothing!r} must be in [0, 1).")

    def __call__(self, denoiser: Denoiser, x0: Tensor, condition: Given, generator: torch.Generator) -> Tensor:
        """The loss of each sample, (B,), in nats; 0 for one without a label."""
        if not isinstance(denoiser, NetDenoiser | NoisyClassifier):
            raise InputError(
                f"{type(denoiser).__name__} has no network to teach; the objective 'classifier' wants one."
            )
        labels = Condition.of(condition).parts.get("label")
        if labels is None:
            raise InputError(
                "the objective 'classifier' needs labels, whole numbers, one per sample; these data have none."
            )
        classifier = NoisyClassifier(denoiser.net, denoiser.process, self.shares, denoiser.sigma_data)
        t = self.draw_times(denoiser.process, len(x0), generator, denoiser.unit).to(x0.device)
        eps = noise_like(x0, generator)
        level = denoiser.process.at(t, like=x0)
        found = classifier.log_probs(level.noised(x0, eps), level)
        return F.cross_entropy(found, labels, reduction="none", label_smoothing=self.smoothing, ignore_index=-1)

    def draw_times(self, process: Process, n: int, generator: torch.Generator, sigma_data: float = 1.0) -> Tensor:
        """n times, (n,) float64: the first thing that a call draws from its generator."""
        u = strata(n, generator)
        first, last = ends(process, sigma_data)
        log_ratio = math.log(self.low) + (math.log(self.high) - math.log(self.low)) * u
        return process.time(-2 * log_ratio).clamp(first, last)


@lru_cache(maxsize=64)
def _log(shares: tuple[float, ...]) -> Tensor:
    """Their logarithms, on the CPU."""
    return torch.tensor(shares).log()


def _checked(shares: tuple[float, ...]) -> tuple[float, ...]:
    """The shares, summing to 1."""
    if len(shares) < 2 or not all(math.isfinite(share) and share > 0 for share in shares):
        raise InputError(f"shares={shares!r} must be the positive shares of two or more classes.")
    return tuple(share / sum(shares) for share in shares)


@dataclass(frozen=True, eq=False)
class ClassifierGuidance(Guidance):
    """Guidance by a classifier of noisy data: x0 + scale (sigma^2/alpha) grad log p(label given x_t).

    The part "label" of the condition given to the sampler goes to the classifier; the base is asked without it, unless
    `both`. Scale 1 is Bayes' rule for an unconditional base. The label -1 is not guided.

    Args:
        base: the denoiser to guide.
        classifier: of the same data; on any clock.
        scale: a factor on the gradient.
        interval: noise ratios sigma/alpha between which to guide; outside them it is the base.
        both: the base gets the label too (Dhariwal & Nichol 2021 do so with scale 1 and more).

    Raises:
        InputError: numbers out of range; no labels given to the sampler.
    """

    classifier: NoisyClassifier
    scale: float = 1.0
    interval: tuple[float, float] | None = None
    both: bool = False

    def __post_init__(self) -> None:
        check_scale(self.scale, self.interval)
        if self.classifier.process != self.process:
            raise InputError(
                f"classifier runs on {self.classifier.process}, the base on {self.process}; put it on the base's clock "
                "with dataclasses.replace(classifier, process=base.process)."
            )

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        labels = condition.parts.get("label")
        if labels is None:
            raise InputError("classifier guidance needs condition=, the label to guide each sample to; -1 for none.")
        base = self.base.predict(x, level, condition if self.both else condition.without("label"))
        scale = scale_at(level, self.scale, self.interval, 0.0)
        moved = pull(x, level, scale, lambda leaf: self.classifier.log_likelihood(leaf, level, labels))
        return Prediction(base.x0 + moved, x, level, base.log_var)
