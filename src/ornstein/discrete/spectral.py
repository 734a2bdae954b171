"""Chains given by their eigenvectors, for classes that have an order or a place in a space.

A symmetric generator G = -V diag(r) V^T has Q(a) = V diag(a^r) V^T for every a (`ornstein.discrete.kernels`): the
eigenvectors are computed once for each number of classes, and a step of any length costs one matrix product.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ornstein.core.copies import beside
from ornstein.core.process import Number
from ornstein.discrete.kernels import Absorbing, Kernel, Uniform, one_hot
from ornstein.errors import InputError, must_be_whole

#: the least probability of any state: below it float64 sums of cosines have no correct digits
_LEAST = 1e-30


@dataclass(frozen=True)
class Spectral(Kernel):
    """A symmetric chain, by the eigenvectors of its generator, computed once for each number of classes.

    To add one, write `spectrum`.
    """

    @abstractmethod
    def spectrum(self, classes: int) -> tuple[Tensor, Tensor]:
        """Eigenvectors as columns (K, K), the constant one first, and their rates (K,), rising from 0; float64."""

    def log_stationary(self, classes: int) -> Tensor:
        return torch.full((classes,), -math.log(classes), dtype=torch.float64)

    def _basis(self, like: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        vectors, rates = _spectrum(self, classes)
        wide = torch.float32 if like.device.type == "mps" else torch.float64
        return beside(vectors, like, wide), beside(rates, like, wide)

    def _left(self, amplitudes: Tensor, a: Number, vectors: Tensor, rates: Tensor) -> Tensor:
        """Weights of the classes (B, T, K), from the sizes of the modes (B, T, K), each times a^rate."""
        a = torch.as_tensor(a, dtype=rates.dtype, device=rates.device)
        return (amplitudes * a.pow(rates)) @ vectors.T

    def log_rows(self, codes: Tensor, classes: int, a: Number) -> Tensor:
        vectors, rates = self._basis(codes, classes)
        found = self._left(vectors[codes], a, vectors, rates).clamp_min(_LEAST)
        # at a = 1 nothing has moved, exactly, which a sum of cosines would not give
        still = torch.as_tensor(a, device=codes.device) >= 1
        found = torch.where(still, one_hot(codes, classes).to(found.dtype), found)
        return (found / found.sum(-1, keepdim=True)).log().float()

    def log_columns(self, codes: Tensor, classes: int, a: Number) -> Tensor:
        return self.log_rows(codes, classes, a)  # symmetric

    def log_spread(self, log_p: Tensor, a: Number) -> Tensor:
        most = log_p.amax(-1, keepdim=True).detach()
        vectors, rates = self._basis(log_p, log_p.shape[-1])
        p = (log_p - most).exp().to(vectors.dtype)
        found = self._left(p @ vectors, a, vectors, rates).clamp_min(_LEAST)
        found = torch.where(torch.as_tensor(a, device=log_p.device) >= 1, p, found)
        return found.log().to(log_p.dtype) + most

    def inverse(self, q: Tensor, a: Number) -> Tensor:
        vectors, rates = self._basis(q, q.shape[-1])
        return self._left(q.to(vectors.dtype) @ vectors, 1 / a, vectors, rates).to(q.dtype)

    def rates_to(self, codes: Tensor, classes: int) -> Tensor:
        vectors, rates = self._basis(codes, classes)
        found = -(vectors[codes] * rates) @ vectors.T
        return found.masked_fill(one_hot(codes, classes), 0.0).clamp_min(0.0).float()


@lru_cache(maxsize=16)
def _spectrum(kernel: Spectral, classes: int) -> tuple[Tensor, Tensor]:
    if classes < 2:
        return torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    vectors, rates = kernel.spectrum(classes)
    rates = rates / rates[1]
    rates[0] = 0.0
    return vectors, rates


@dataclass(frozen=True)
class Ordered(Spectral):
    """Classes that have an order: jumps of a discretised Gaussian's length, reflected at both ends.

    The rate of a jump by n classes falls as w(n) = exp(-n^2/(2 width^2)). With reflection its eigenvectors are cosines,
    cos(pi k (j + 1/2)/K), with rates sum over n of w(n) (1 - cos(pi k n/K)).

    Args:
        width: of a jump, as a share of the number of classes; jumps always reach the neighbour.
    """

    width: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.width < math.inf:
            raise InputError(f"process.width={self.width!r} must be a positive share of the number of classes.")

    def spectrum(self, classes: int) -> tuple[Tensor, Tensor]:
        k, place = torch.arange(classes, dtype=torch.float64), torch.arange(classes, dtype=torch.float64) + 0.5
        vectors = torch.cos(math.pi / classes * place[:, None] * k) * (2 / classes) ** 0.5
        vectors[:, 0] = classes**-0.5
        jumps = torch.arange(1, 2 * classes, dtype=torch.float64)
        # against the shortest jump, which never vanishes
        weight = torch.exp(-(jumps**2 - 1) / (2 * (self.width * classes) ** 2))
        rates = (weight * (1 - torch.cos(math.pi / classes * k[:, None] * jumps))).sum(1)
        order = rates.argsort(stable=True)
        return vectors[:, order], rates[order]


@dataclass(frozen=True)
class DiscretisedGaussian(Spectral):
    """Classes that have an order, by Austin et al.'s matrix: Gaussian jumps that never lead beyond either end.

    A step there has [Q]_ij ~ exp(-4 (i - j)^2/((K - 1)^2 beta)) for i != j, and on the diagonal what is missing to one.
    Steps of different beta do not commute, so here all jumps have the same beta, and the clock sets how many there are.

    Args:
        beta: of a jump, whose standard deviation is (K - 1) sqrt(beta/8) classes.
    """

    beta: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < math.inf:
            raise InputError(f"process.beta={self.beta!r} must be a positive number.")

    def spectrum(self, classes: int) -> tuple[Tensor, Tensor]:
        place = torch.arange(classes, dtype=torch.float64)
        squared = (place[:, None] - place).square()
        # against the shortest jump, which never vanishes
        jumps = torch.exp(-4 * (squared - 1) / ((classes - 1) ** 2 * self.beta)).fill_diagonal_(0.0)
        rates, vectors = torch.linalg.eigh(torch.diag(jumps.sum(1)) - jumps)
        return vectors, rates


@dataclass(frozen=True)
class Neighbours(Spectral):
    """Classes with places in a space: jumps to the nearest neighbours in an embedding, and a few to anywhere.

    Args:
        nearest: the number of neighbours to which there are jumps, and from which there are jumps back.
        anywhere: share of jumps that go to any class, so that every class is reached.
        embedding: where each class lies, K rows of numbers; () for even places on a circle.

    Raises:
        InputError: numbers out of range; rows of different lengths.
    """

    nearest: int = 2
    anywhere: float = 0.02
    embedding: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "embedding", tuple(map(tuple, self.embedding)))
        must_be_whole("process.nearest", self.nearest)
        if not 0 < self.anywhere <= 1:
            raise InputError(f"process.anywhere={self.anywhere!r} must be in (0, 1].")
        if len({len(row) for row in self.embedding}) > 1:
            raise InputError("process.embedding must have the same count of numbers for each class.")

    def spectrum(self, classes: int) -> tuple[Tensor, Tensor]:
        if not self.embedding:
            angle = torch.arange(classes, dtype=torch.float64) * (2 * math.pi / classes)
            places = torch.stack([angle.cos(), angle.sin()], 1)
        elif len(self.embedding) == classes:
            places = torch.tensor(self.embedding, dtype=torch.float64)
        else:
            raise InputError(
                f"process.embedding has places for {len(self.embedding)} classes; the data have {classes}."
            )
        distance = torch.cdist(places, places).fill_diagonal_(torch.inf)
        near = distance.topk(min(self.nearest, classes - 1), largest=False).indices
        jumps = torch.zeros(classes, classes, dtype=torch.float64).scatter_(1, near, 1.0)
        jumps = (jumps + jumps.T) / (2 * near.shape[1])
        jumps = (1 - self.anywhere) * jumps + self.anywhere / classes
        generator = jumps - torch.diag(jumps.sum(1))
        rates, vectors = torch.linalg.eigh(-generator)
        return vectors, rates


#: how categories dissolve, by name
KERNELS: dict[str, Callable[..., Kernel]] = {
    "absorbing": Absorbing,
    "uniform": Uniform,
    "ordered": Ordered,
    "discretised-gaussian": DiscretisedGaussian,
    "neighbours": Neighbours,
}
