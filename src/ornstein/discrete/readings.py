"""What the output of a network of noisy tokens means: three readings of one posterior, like the six of Gaussian noise.

With w = p(x_0 given x_t)/q(x_t given x_0), token by token, and Q(alpha) the kernel up to time t,

    ratios      s(y) = p_t(x with y in the token's place)/p_t(x) = (w Q)(y)         the concrete score: Lou et al. 2024
    rates       from x_t to y on the way back: G(y, x_t) s(y)                       Campbell et al. 2022
    probabilities                              p(x_0) = q(x_t given x_0) (s Q^-1)(x_0)

so that each follows from any other. Ratios that do not come from a posterior, such as a network's, may give a negative
p, which is then set to 0. Rates are per -d log alpha, whatever the clock; for a masked token they are

    alpha/(1 - alpha) p(x_0 = y).

References: Meng et al. 2022 (2211.00802); Lou et al. 2024 (2310.16834); Campbell et al. 2022 (2205.14987).
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.process import Level
from ornstein.discrete.kernels import Kernel, share

#: the least alpha at which a network's ratios are converted to probabilities
LEAST_LEFT = 1e-3


def ratios(kernel: Kernel, codes: Tensor, log_p: Tensor, level: Level) -> Tensor:
    """log s for each state, (B, T, S), from log p(x_0 given x_t = codes) (B, T, K); 0 for the present state."""
    at = share(level)
    return kernel.log_spread(kernel.cavity(codes, log_p, at), at)


def from_ratios(kernel: Kernel, codes: Tensor, s: Tensor, level: Level, factor: Tensor) -> Tensor:
    """log p(x_0 given x_t = codes) (B, T, K) from ratios s (B, T, S), not their logarithms.

    Args:
        factor: log q(x_t = codes given x_0), (B, T, K).
    """
    p = kernel.inverse(s[..., : factor.shape[-1]], share(level)).clamp_min(0.0)
    return (p.log() + factor).log_softmax(-1)


def rates(kernel: Kernel, codes: Tensor, log_p: Tensor, level: Level) -> Tensor:
    """The rates at which x_t = codes turns into each state on the way back, (B, T, S), per -d log alpha."""
    return kernel.rates_to(codes, log_p.shape[-1]) * ratios(kernel, codes, log_p, level).exp()


def from_rates(kernel: Kernel, codes: Tensor, found: Tensor, level: Level, factor: Tensor) -> Tensor:
    """log p(x_0 given x_t = codes) (B, T, K) from rates (B, T, S), for a kernel with a rate from every class."""
    there = kernel.rates_to(codes, factor.shape[-1])
    # the ratio of a state to itself is 1
    s = torch.where(there > 0, found / there.clamp_min(1e-30), 1.0)
    return from_ratios(kernel, codes, s, level, factor)


class TokenReading(ABC):
    """One reading of a network's output: K numbers per token, its logarithms up to the factor that Bayes' rule gives.

    To add one, write the conversions between it and probabilities, and give it a line in `TOKEN_READINGS`.
    """

    @abstractmethod
    def log_probs(self, kernel: Kernel, codes: Tensor, out: Tensor, level: Level, factor: Tensor) -> Tensor:
        """log p(x_0 given x_t = codes), (B, T, K).

        Args:
            out: the network's output, (B, T, K).
            factor: log q(x_t = codes given x_0), (B, T, K).
        """

    @abstractmethod
    def said(self, kernel: Kernel, codes: Tensor, log_p: Tensor, level: Level, factor: Tensor) -> Tensor:
        """The output (B, T, K) of a network whose answer is log_p."""


class Probabilities(TokenReading):
    """Probabilities of each token's classes given the other tokens, as logits."""

    def log_probs(self, kernel: Kernel, codes: Tensor, out: Tensor, level: Level, factor: Tensor) -> Tensor:
        return (out + factor).log_softmax(-1)

    def said(self, kernel: Kernel, codes: Tensor, log_p: Tensor, level: Level, factor: Tensor) -> Tensor:
        return torch.where(factor > -torch.inf, log_p - factor, 0.0)  # any output will do for an impossible class


class Ratios(TokenReading):
    """The concrete score: ratios of the marginals, as logarithms (Lou et al. 2024)."""

    def log_probs(self, kernel: Kernel, codes: Tensor, out: Tensor, level: Level, factor: Tensor) -> Tensor:
        if kernel.masks:  # ratios of the classes are proportional to the probabilities
            return (out + factor).log_softmax(-1)
        # positive, and 1 at the present state; where almost nothing is left the ratios say almost nothing
        s, left = (out - out.gather(-1, codes[..., None])).exp(), torch.as_tensor(share(level)).clamp_min(LEAST_LEFT)
        p = kernel.inverse(s, left.to(out)).clamp_min(torch.finfo(torch.float32).tiny)
        return (p.log() + factor).log_softmax(-1)

    def said(self, kernel: Kernel, codes: Tensor, log_p: Tensor, level: Level, factor: Tensor) -> Tensor:
        found = ratios(kernel, codes, log_p, level)[..., : factor.shape[-1]]
        return torch.where(found > -torch.inf, found, 0.0)


#: what a network's output may mean
TOKEN_READINGS: dict[str, type[TokenReading]] = {"probabilities": Probabilities, "ratios": Ratios}


@dataclass(frozen=True)
class Described(Mapping[str, str]):
    """A view of a table of readings that maps each name to the first sentence of its docstring."""

    table: Mapping[str, type[TokenReading]]

    def __getitem__(self, name: str) -> str:
        return (inspect.getdoc(self.table[name]) or "").partition("\n")[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)
