"""Operators A of inverse problems y = A x + noise, and how to invert what can be inverted.

An operator maps a batch of clean data (B, *shape) to a batch of measurements, each sample by itself. Methods for
inverse problems need four things from it:

    apply       A x
    adjoint     A^T y
    solve       (a I + b A A^T)^+ y, the regularised inverse of its Gram matrix
    project     x + A^+ (y - A x), the nearest x' with A x' = y

A mask, and any operator whose singular value decomposition is known, has all four in closed form. Blurring with
mirrored edges and averaging blocks act on each axis alone: A is a Kronecker product of small matrices, and the
decomposition of the whole is that of its factors. Anything else is a function: its transpose comes from automatic
differentiation, (d/dx of <f(x), y>), and its Gram matrix is inverted by Krylov iterations, which need products only.
A function that is not linear is replaced by its tangent at a point, df/dx.

Singular values below 1e-6 of the largest count as zero: what they carry is lost.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ornstein.core.codec import Codec
from ornstein.core.copies import beside
from ornstein.core.numerics import blurring
from ornstein.errors import InputError

#: singular values below this share of the largest count as zero
_LOST = 1e-6


class Operator(ABC):
    """A map of clean data to measurements. To add a linear one, write `apply`; `adjoint` and `solve` if they are cheap.

    Attributes:
        linear: whether A is linear; if it is not it has no adjoint of its own, see `tangent`.
    """

    linear: bool = True

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """A x: (B, *shape) -> (B, *measured)."""

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """A^T y: (B, *measured) -> (B, *shape), the shape of `like`."""
        return _transpose(self.apply, torch.zeros_like(like), y)

    def solve(self, y: Tensor, like: Tensor, ridge: float, scale: "float | Tensor" = 1.0) -> Tensor:
        """(ridge I + scale A A^T)^+ y, like y; `scale` a number or one for each sample, shape (B, 1, ..., 1)."""
        scale = _fit(scale, y)
        return gmres(lambda v: ridge * v + scale * self.apply(self.adjoint(v, like)), y, 50)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """x + A^+ (y - A x): the nearest data with the measurement y, where there are any.

        Raises:
            InputError: the operator is not linear.
        """
        if not self.linear:
            raise InputError(f"operator={self!r} is not linear: nothing can be projected on its measurement.")
        return x + self.adjoint(self.solve(y - self.apply(x), x, 0.0), x)

    def tangent(self, x: Tensor) -> "Operator":
        """The linear operator that this one is close to `x`; itself if it is linear."""
        return self

    def count(self, y: Tensor) -> "int | Tensor":
        """How many numbers were measured of each sample: a whole number, or (B,)."""
        return y[0].numel()


@dataclass(frozen=True, eq=False)
class Mask(Operator):
    """Some entries are seen and others not: inpainting, imputation, extrapolation.

    Measurements keep the shape of the data, with zeros where nothing was seen.

    Args:
        known: what is seen: bool, (*shape) or (1, *shape) for all samples, (B, *shape) for each its own.
    """

    known: Tensor

    def __post_init__(self) -> None:
        if self.known.dtype != torch.bool:
            raise InputError(
                f"known has type {self.known.dtype}; a mask is made of booleans, True where data are seen."
            )

    def apply(self, x: Tensor) -> Tensor:
        return torch.where(beside(self.known, x, torch.bool), x, 0.0)

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        return self.apply(y)

    def solve(self, y: Tensor, like: Tensor, ridge: float, scale: "float | Tensor" = 1.0) -> Tensor:
        return self.apply(y) / (ridge + _fit(scale, y))

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(beside(self.known, x, torch.bool), y, x)  # exactly, to the last bit

    def count(self, y: Tensor) -> Tensor:
        known = beside(self.known, y, torch.bool)
        return known.expand(y.shape).flatten(1).sum(1).clamp(min=1)


@dataclass(frozen=True, eq=False)
class Matrix(Operator):
    """Any linear map given by its matrix: projections, line integrals, a few Fourier coefficients.

    Args:
        matrix: (m, d), acting on samples flattened to d numbers; measurements are (B, m).
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2:
            raise InputError(f"matrix has shape {tuple(self.matrix.shape)}; it must be (measurements, data).")
        object.__setattr__(self, "_svd", torch.linalg.svd(self.matrix.double(), full_matrices=False))

    def apply(self, x: Tensor) -> Tensor:
        if x[0].numel() != self.matrix.shape[1]:
            raise InputError(f"matrix has {self.matrix.shape[1]} columns; one sample has shape {tuple(x.shape[1:])}.")
        return x.flatten(1) @ beside(self.matrix, x).mT

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        return (y @ beside(self.matrix, y)).reshape(-1, *like.shape[1:])

    def solve(self, y: Tensor, like: Tensor, ridge: float, scale: "float | Tensor" = 1.0) -> Tensor:
        u, s = (beside(part, y) for part in self._svd[:2])  # type: ignore[attr-defined]
        inside = y @ u
        found = (inside * _inverse(s, ridge, _fit(scale, y))) @ u.mT
        return found if ridge == 0 else found + (y - inside @ u.mT) / ridge  # outside A's range A A^T is zero


class Separable(Operator, ABC):
    """The same kind of small matrix along every axis after the channels: A = K_1 (x) K_2 (x) ..."""

    @abstractmethod
    def factor(self, size: int) -> Tensor:
        """K, (m, size) float64, along an axis of `size` values."""

    @abstractmethod
    def size(self, measured: int) -> int:
        """The size of the axis that m = `measured` values came from."""

    def apply(self, x: Tensor) -> Tensor:
        return self._along(x, [beside(_factor(self, n)[0], x) for n in x.shape[2:]])

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        return self._along(y, [beside(_factor(self, n)[0], y).mT for n in like.shape[2:]])

    def solve(self, y: Tensor, like: Tensor, ridge: float, scale: "float | Tensor" = 1.0) -> Tensor:
        sizes = tuple(self.size(m) for m in y.shape[2:])
        turns = [beside(_factor(self, size)[1], y) for size in sizes]
        inside = self._along(y, [u.mT for u in turns])
        return self._along(inside * _inverse(beside(_singular(self, sizes), y), ridge, _fit(scale, y)), turns)

    @staticmethod
    def _along(x: Tensor, factors: list[Tensor]) -> Tensor:
        if not factors:
            raise InputError(f"data of shape {tuple(x.shape[1:])} have no axis after the channels to act along.")
        for axis, k in enumerate(factors, 2):
            x = (x.movedim(axis, -1) @ k.mT).movedim(-1, axis)
        return x


@lru_cache(maxsize=64)
def _factor(operator: Separable, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """K, its left singular vectors (m, m) and its m singular values; K has no more rows than columns."""
    k = operator.factor(size)
    u, s, _ = torch.linalg.svd(k, full_matrices=False)
    return k, u, s


@lru_cache(maxsize=64)
def _singular(operator: Separable, sizes: tuple[int, ...]) -> Tensor:
    """The singular values of the whole map, (m, m, ...) float64, for axes of these sizes."""
    s = torch.ones((), dtype=torch.float64)
    for size in sizes:
        s = s[..., None] * _factor(operator, size)[2]
    return s


#: pixels: beyond it every picture is one colour, and the kernel fills memory
_WIDEST = 10_000.0


@dataclass(frozen=True)
class Blur(Separable):
    """Gaussian blur along every axis, the edges mirrored.

    Args:
        width: standard deviation of the kernel, in pixels.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.width <= _WIDEST:
            raise InputError(f"width={self.width!r} must be a number of pixels above 0, up to {_WIDEST:g}.")

    def factor(self, size: int) -> Tensor:
        return blurring(size, self.width)

    def size(self, measured: int) -> int:
        return measured


@dataclass(frozen=True)
class Downsample(Separable):
    """Means of blocks of factor x factor x ... values: super-resolution is its inverse.

    Args:
        by: the factor, which every side must be a multiple of.
    """

    by: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.by, bool) or not isinstance(self.by, int) or self.by < 1:
            raise InputError(f"by={self.by!r} must be a whole number of at least 1.")

    def factor(self, size: int) -> Tensor:
        if size % self.by:
            raise InputError(f"by={self.by} does not divide a side of {size}; choose a factor that does.")
        return torch.eye(size // self.by, dtype=torch.float64).repeat_interleave(self.by, 1) / self.by

    def size(self, measured: int) -> int:
        return measured * self.by


@dataclass(frozen=True, eq=False)
class Function(Operator):
    """Any differentiable function of a batch, each sample for itself.

    Args:
        function: (B, *shape) -> (B, *measured), in torch operations that torch.func can transform.
        linear: whether it is linear; methods that need A^+ require this.
    """

    function: Callable[[Tensor], Tensor]
    linear: bool = False

    def apply(self, x: Tensor) -> Tensor:
        return self.function(x)

    def tangent(self, x: Tensor) -> Operator:
        return self if self.linear else _Tangent(self.function, x)


@dataclass(frozen=True, eq=False)
class ReadBack(Operator):
    """An operator on samples as one on their latents: the sample is decoded first.

    Args:
        operator: on samples.
        codec: the codec of the latents.
    """

    operator: Operator
    codec: Codec
    linear = False

    def apply(self, x: Tensor) -> Tensor:
        return self.operator.apply(self.codec.read(x))

    def tangent(self, x: Tensor) -> Operator:
        return _Tangent(self.apply, x)

    def count(self, y: Tensor) -> "int | Tensor":
        return self.operator.count(y)


@dataclass(frozen=True, eq=False)
class _Tangent(Operator):
    function: Callable[[Tensor], Tensor]
    point: Tensor

    def apply(self, x: Tensor) -> Tensor:
        moved: Tensor = torch.func.jvp(self.function, (self.point,), (x,))[1]
        return moved

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        return _transpose(self.function, self.point, y)


#: operators by name, for the command line and the law tests
OPERATORS: dict[str, Callable[..., Operator]] = {
    "mask": Mask,
    "blur": Blur,
    "downsample": Downsample,
    "matrix": Matrix,
    "function": Function,
}


def _transpose(function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """(d function/d x)^T y, at x."""
    back: Callable[[Tensor], tuple[Tensor]] = torch.func.vjp(function, x)[1]
    return back(y)[0]


def _inverse(singular: Tensor, ridge: float, scale: "float | Tensor") -> Tensor:
    """1/(ridge + scale s^2), zero where that would divide by what counts as zero."""
    alive = singular > _LOST * singular.max()
    bottom = ridge + scale * torch.where(alive, singular, 0.0) ** 2
    return torch.where(alive | (ridge > 0), 1 / bottom, 0.0)


def _fit(scale: "float | Tensor", y: Tensor) -> "float | Tensor":
    """Numbers of shape (B, 1, ..., 1) for data, reshaped to multiply measurements."""
    return scale.reshape(-1, *[1] * (y.ndim - 1)).to(y) if isinstance(scale, Tensor) and scale.ndim else scale


def gmres(product: Callable[[Tensor], Tensor], y: Tensor, iterations: int) -> Tensor:
    """Solve M z = y for every sample with a limited number of products with M, which need not be symmetric.

    The generalised minimal residual method (Saad & Schultz 1986): of all z in the span of y, M y, ..., M^(k-1) y that
    with the smallest residual, for each sample by itself. Exact after as many products as M has distinct eigenvalues.
    A singular M gives the solution of least norm in that span; a zero y gives zero.

    Args:
        product: v -> M v, (B, *shape) to (B, *shape).
        y: (B, *shape).
        iterations: products, at least 1; never more than y has entries.
    """
    iterations = min(iterations, y[0].numel())
    flat = y.flatten(1)
    size = flat.norm(dim=1, keepdim=True)
    tiny = torch.finfo(flat.dtype).tiny
    basis = [flat / size.clamp(min=tiny)]
    upper = flat.new_zeros(len(flat), iterations + 1, iterations)
    for k in range(iterations):
        v = product(basis[k].reshape(y.shape)).flatten(1)
        length = v.norm(dim=1)
        for _ in range(2):  # once more, for orthogonality to rounding
            for i, b in enumerate(basis):
                along = (b * v).sum(1)
                upper[:, i, k] = upper[:, i, k] + along
                v = v - along[:, None] * b
        rest = v.norm(dim=1)
        # nothing but rounding is left: the span is complete, and a zero vector keeps it so
        rest = torch.where(rest > 100 * torch.finfo(v.dtype).eps * length, rest, 0.0)
        upper[:, k + 1, k] = rest
        basis.append(torch.where(rest[:, None] > 0, v / rest.clamp(min=tiny)[:, None], 0.0))
    rtol = 10 * iterations * torch.finfo(flat.dtype).eps
    weights = torch.linalg.pinv(upper, rtol=rtol)[:, :, 0] * size
    return torch.stack(basis[:-1], 1).mul(weights[:, :, None]).sum(1).reshape(y.shape)
