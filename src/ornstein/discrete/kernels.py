"""How categories dissolve: chains on K classes, each with its cumulative product in closed form.

A chain in discrete time has a K x K matrix for each step; t steps together have the product of these matrices. Each
chain here is a continuous-time chain with generator G, run on a clock, so that the product over any steps is

    Q(a) = exp(-log(a) G) = sum over k of a^(r_k) P_k,        a = alpha_t/alpha_s,        r_0 = 0 < 1 = r_1 <= r_2 ...

with P_k the projections on G's eigenvectors: alpha(t), the size of the slowest mode, says how much is left, and one
number a takes the place of a product of matrices. P_0 gives the *stationary law*, all that remains at alpha = 0.

| kernel | Q(a) | stationary | from |
|---|---|---|---|
| absorbing | kept with probability a, else masked | masked | Austin et al. 2021 |
| uniform | a I + (1 - a)/K | uniform | Hoogeboom et al. 2021 |
| ordered | cosines, r_k from Gaussian jumps reflected at both ends | uniform | Campbell et al. 2022 |
| discretised-gaussian | eigenvectors of Gaussian jumps that stop at the ends | uniform | Austin et al. 2021 |
| neighbours | eigenvectors of a graph of nearest neighbours | uniform | Austin et al. 2021, appendix A |

Bayes' rule gives the way back; with p the probabilities of x_0 given x_t,

    q(x_s given x_t) = sum over x_0 of q(x_s given x_t, x_0) p(x_0)
                     = q(x_t given x_s) sum over x_0 of q(x_s given x_0) p(x_0)/q(x_t given x_0).

*The mask* is one more state beside the K classes: number K among the states, and zeros as a vector
(`ornstein.core.categories`), so that E[x_t given x_0] = alpha x_0 as for Gaussian noise.

*Clocks.* With sigma = 1 - alpha, the share alpha that is kept has a signal-to-noise ratio alpha/sigma. So every
Gaussian process serves as a clock for categories, with the same alpha/sigma, rescaled to end at alpha = 0, where the
stationary law is exact. The loss and the distribution of a masked model do not depend on the clock at all.

References: Austin et al. 2021 (2107.03006); Hoogeboom et al. 2021 (2102.05379); Campbell et al. 2022 (2205.14987);
Shi et al. 2024 (2406.04329); Sahoo et al. 2024 (2406.07524).
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ornstein.core import PROCESSES
from ornstein.core.process import Level, Number, Process
from ornstein.errors import lookup


@dataclass(frozen=True)
class Kernel(Process):
    """A chain on K classes. To add one, write `log_rows`, `log_columns`, `log_spread`, `inverse`, `rates_to`.

    The share `a` that these methods take is a number, or a tensor that broadcasts against (B, T, K).

    Args:
        clock: the name of the Gaussian process whose alpha/sigma is used.

    Raises:
        InputError: an unknown clock.
    """

    clock: str = "flow"

    def __post_init__(self) -> None:
        lookup(PROCESSES, self.clock, "process.clock")

    @cached_property
    def _schedule(self) -> Process:
        return PROCESSES[self.clock]()

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self._schedule.t_max

    @property
    def chain(self) -> int | None:  # type: ignore[override]
        return self._schedule.chain

    def _kept(self, t: Tensor) -> Tensor:
        alpha, sigma = self._schedule.alpha(t), self._schedule.sigma(t)
        return alpha / (alpha + sigma)

    @cached_property
    def _end(self) -> float:
        return float(self._kept(torch.tensor(self.t_max, dtype=torch.float64)))

    def alpha(self, t: Tensor) -> Tensor:
        return (self._kept(t) - self._end) / (1 - self._end)

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - self.alpha(t)

    @property
    def masks(self) -> bool:
        """Whether there is a state beside the classes, the mask, number K."""
        return False

    def states(self, classes: int) -> int:
        """The number of states of a token with this number of classes, S."""
        return classes + self.masks

    @abstractmethod
    def log_stationary(self, classes: int) -> Tensor:
        """Log-probabilities of the states at alpha = 0, (S,) float64."""

    @abstractmethod
    def log_rows(self, codes: Tensor, classes: int, a: Number) -> Tensor:
        """log q(x_t = each state given x_s = codes), for codes (B, T) in [0, S): (B, T, S)."""

    @abstractmethod
    def log_columns(self, codes: Tensor, classes: int, a: Number) -> Tensor:
        """log q(x_t = codes given x_s = each state), for codes (B, T): (B, T, S)."""

    @abstractmethod
    def log_spread(self, log_p: Tensor, a: Number) -> Tensor:
        """log of p Q(a): from log-weights of the classes, (B, T, K), to those of the states, (B, T, S)."""

    @abstractmethod
    def inverse(self, q: Tensor, a: Number) -> Tensor:
        """The p with p Q(a) = q, for weights of the classes (B, T, K); a above 0."""

    @abstractmethod
    def rates_to(self, codes: Tensor, classes: int) -> Tensor:
        """G(each state, codes), the rates from each state to codes, per -d log alpha: (B, T, S), >= 0.

        The diagonal is left out: it is 0 here.
        """

    def log_posterior(self, codes: Tensor, log_p: Tensor, t: Level, s: Level) -> Tensor:
        """log q(x_s = each state given x_t = codes), with log_p (B, T, K) for x_0: (B, T, S); see the module.

        With a one-hot p this is Bayes' rule for a known x_0.
        """
        classes, (from_s, from_0, to_s) = log_p.shape[-1], (share(t, s), share(t), share(s))
        weights = self.cavity(codes, log_p, from_0)
        return (self.log_columns(codes, classes, from_s) + self.log_spread(weights, to_s)).log_softmax(-1)

    def cavity(self, codes: Tensor, log_p: Tensor, a: Number) -> Tensor:
        """log of p(x_0)/q(x_t = codes given x_0), (B, T, K): what all other tokens say of each token."""
        classes = log_p.shape[-1]
        column = self.log_columns(codes, classes, a)[..., :classes]
        return torch.where(column > -torch.inf, log_p - column.clamp_min(-1e4), -torch.inf)


def share(t: Level, s: Level | None = None) -> Number:
    """alpha_t, or alpha_t/alpha_s, in the shape that a kernel's methods take."""
    left = t.alpha if s is None else t.alpha / s.alpha
    return left[..., None] if isinstance(left, Tensor) else left


def at_share(kernel: Kernel, left: Tensor) -> Level[Tensor]:
    """The level at which a share alpha (B,) is left; its time is not set, since kernels and readings do not use it."""
    left = left[:, None]
    return Level(kernel, torch.zeros_like(left), left, 1 - left)


def _log(a: Number, like: Tensor) -> Tensor:
    return torch.as_tensor(a, dtype=like.dtype if like.is_floating_point() else torch.float32, device=like.device).log()


def one_hot(codes: Tensor, states: int) -> Tensor:
    return torch.nn.functional.one_hot(codes, states).bool()


@dataclass(frozen=True)
class Absorbing(Kernel):
    """Masking: each token is kept with probability alpha, else masked for good."""

    @property
    def masks(self) -> bool:
        return True

    def log_stationary(self, classes: int) -> Tensor:
        found = torch.full((classes + 1,), -torch.inf, dtype=torch.float64)
        found[-1] = 0.0
        return found

    def log_rows(self, codes: Tensor, classes: int, a: Number) -> Tensor:
        kept = _log(a, codes)
        here, masked = one_hot(codes, classes + 1), (codes == classes)[..., None]
        to_mask = torch.where(masked, 0.0, _log(1 - a, codes))
        is_mask = torch.arange(classes + 1, device=codes.device) == classes
        return torch.where(is_mask, to_mask, torch.where(here, kept, -torch.inf))

    def log_columns(self, codes: Tensor, classes: int, a: Number) -> Tensor:
        here, masked = one_hot(codes, classes + 1), (codes == classes)[..., None]
        from_class = torch.where(here, _log(a, codes), torch.where(masked, _log(1 - a, codes), -torch.inf))
        is_mask = torch.arange(classes + 1, device=codes.device) == classes
        return torch.where(is_mask, torch.where(masked, 0.0, -torch.inf), from_class)

    def log_spread(self, log_p: Tensor, a: Number) -> Tensor:
        masked = _log(1 - a, log_p) + log_p.logsumexp(-1, keepdim=True)
        return torch.cat([_log(a, log_p) + log_p, masked], -1)

    def inverse(self, q: Tensor, a: Number) -> Tensor:
        return q / a

    def rates_to(self, codes: Tensor, classes: int) -> Tensor:
        is_class = torch.arange(classes + 1, device=codes.device) < classes
        return ((codes == classes)[..., None] & is_class).float()


@dataclass(frozen=True)
class Uniform(Kernel):
    """Uniform noise: each token is kept with probability alpha, else drawn anew, every class being equally likely."""

    def log_stationary(self, classes: int) -> Tensor:
        return torch.full((classes,), -math.log(classes), dtype=torch.float64)

    def log_rows(self, codes: Tensor, classes: int, a: Number) -> Tensor:
        thrown = _log(1 - a, codes) - math.log(classes)
        return torch.where(one_hot(codes, classes), torch.logaddexp(_log(a, codes), thrown), thrown)

    def log_columns(self, codes: Tensor, classes: int, a: Number) -> Tensor:
        return self.log_rows(codes, classes, a)  # symmetric

    def log_spread(self, log_p: Tensor, a: Number) -> Tensor:
        thrown = _log(1 - a, log_p) - math.log(log_p.shape[-1]) + log_p.logsumexp(-1, keepdim=True)
        return torch.logaddexp(_log(a, log_p) + log_p, thrown.expand_as(log_p))

    def inverse(self, q: Tensor, a: Number) -> Tensor:
        return (q - (1 - a) * q.mean(-1, keepdim=True)) / a

    def rates_to(self, codes: Tensor, classes: int) -> Tensor:
        return (~one_hot(codes, classes)).float() / classes
