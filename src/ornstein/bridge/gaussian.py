"""Bridges between two Gaussians in closed form, by which the other files of this room are tested.

Let the ends be jointly Gaussian, with means m_0, m_1, covariances S_0, S_1 and cross-covariance C = cov(x_0, x_1). Then
x_t is Gaussian,

    mean  alpha m_0 + beta m_1,         S_t = alpha^2 S_0 + beta^2 S_1 + alpha beta (C + C^T) + variance I,

and so is each end given x_t,

    E[x_0 given x_t] = m_0 + (alpha S_0 + beta C) S_t^-1 (x_t - m_t),
    E[x_1 given x_t] = m_1 + (alpha C^T + beta S_1) S_t^-1 (x_t - m_t),

from which every drift follows (`ornstein.bridge.path`).

*The Schrodinger bridge.* Of all processes from one distribution to the other it is the one nearest, in relative
entropy, to the diffusion behind a path of variance c alpha beta. It is that diffusion held at pairs (x_0, x_1) from the
only coupling with density u(x_0) v(x_1) exp(x_0 . x_1/c): a Gaussian whose precision matrix has -I/c as its
off-diagonal block. So

    C = T S_1,      T = R U diag(h) U^T R,      h = 2/(sqrt(4 m + c^2) + c),

where R = S_0^(1/2) and R S_1 R = U diag(m) U^T (Bunne et al. 2022, 2202.05722, written here without an inverse, and
without their difference, which at large c is one of nearly equal numbers; Janati et al. 2020, 2006.02572). E[x_0
given x_1] = m_0 + T (x_1 - m_1) with T symmetric: the gradient of a convex function. As c goes to zero, h tends to
1/sqrt(m), T to the map of optimal transport and C to its coupling; as c grows, C tends to zero and the ends become
independent.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.bridge.model import Bridge
from ornstein.bridge.path import Ends, Path, Stage
from ornstein.core.condition import Condition
from ornstein.errors import InputError


def _symmetric(name: str, matrix: Tensor, d: int) -> Tensor:
    found = torch.as_tensor(matrix).double()
    if found.shape != (d, d) or not torch.allclose(found, found.mT, rtol=1e-6, atol=1e-12):
        raise InputError(f"{name} has shape {tuple(found.shape)}; it must be a symmetric matrix ({d}, {d}).")
    least = float(torch.linalg.eigvalsh(found).min())
    if not least >= -1e-9 * float(found.abs().max()):
        raise InputError(f"{name} must be positive semi-definite; its smallest eigenvalue is {least:.3g}.")
    return found


def _root(matrix: Tensor) -> Tensor:
    values, basis = torch.linalg.eigh(matrix)
    root: Tensor = (basis * values.clamp(min=0).sqrt()) @ basis.mT
    return root


@dataclass(frozen=True, eq=False)
class GaussianCoupling:
    """Two Gaussians and how they are joined.

    Args:
        mean0, mean1: (d,).
        cov0, cov1: (d, d), positive semi-definite.
        cross: (d, d), cov(x_0, x_1).

    Raises:
        InputError: shapes that do not fit, or a joint covariance that is not positive semi-definite.
    """

    mean0: Tensor
    mean1: Tensor
    cov0: Tensor
    cov1: Tensor
    cross: Tensor

    def __post_init__(self) -> None:
        d = self.mean0.numel()
        for name in ("mean0", "mean1"):
            mean = getattr(self, name).double()
            if mean.shape != (d,):
                raise InputError(f"{name} has shape {tuple(mean.shape)}; it must be ({d},).")
            object.__setattr__(self, name, mean)
        for name in ("cov0", "cov1"):
            object.__setattr__(self, name, _symmetric(name, getattr(self, name), d))
        object.__setattr__(self, "cross", self.cross.double())
        if self.cross.shape != (d, d):
            raise InputError(f"cross has shape {tuple(self.cross.shape)}; it must be ({d}, {d}).")
        _symmetric("the joint covariance of x_0 and x_1", self.covariance, 2 * d)

    @staticmethod
    def independent(mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor) -> "GaussianCoupling":
        """Independent ends."""
        return GaussianCoupling(mean0, mean1, cov0, cov1, torch.zeros_like(cov0))

    @staticmethod
    def entropic(
        mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor, stiffness: float = 0.0
    ) -> "GaussianCoupling":
        """The coupling of the Schrodinger bridge, or, with stiffness zero, of optimal transport; see the module.

        Args:
            mean0, mean1: (d,).
            cov0, cov1: (d, d).
            stiffness: c, in data units squared: `path.stiffness`.

        Raises:
            InputError: a negative stiffness; a matrix that is not a covariance.
        """
        if not stiffness >= 0:
            raise InputError(f"stiffness={stiffness!r} must be zero or more.")
        d = mean0.numel()
        cov0, cov1 = _symmetric("cov0", cov0, d), _symmetric("cov1", cov1, d)
        root = _root(cov0)
        m, basis = torch.linalg.eigh(root @ cov1 @ root)
        m = m.clamp(min=0)
        # at c = 0 a direction in which one of the distributions has no spread is joined to nothing
        h = torch.where(m + stiffness > 0, 2 / ((4 * m + stiffness**2).sqrt() + stiffness), 0.0)
        return GaussianCoupling(mean0, mean1, cov0, cov1, root @ ((basis * h) @ basis.mT) @ root @ cov1)

    @property
    def mean(self) -> Tensor:
        """(2d,), of (x_0, x_1)."""
        return torch.cat([self.mean0, self.mean1])

    @property
    def covariance(self) -> Tensor:
        """(2d, 2d), of (x_0, x_1)."""
        return torch.cat([torch.cat([self.cov0, self.cross], 1), torch.cat([self.cross.mT, self.cov1], 1)])

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n pairs, (n, d) float64 each."""
        z = torch.randn(n, 2 * len(self.mean0), generator=generator, dtype=torch.float64)
        x0, x1 = (self.mean + z @ _root(self.covariance)).chunk(2, 1)
        return x0, x1


@dataclass(frozen=True, eq=False)
class GaussianBridge(Bridge):
    """The exact bridge between two Gaussians along a path; all arithmetic is float64.

    Args:
        coupling: the ends and how they are joined.
        path: what lies between a pair.
    """

    coupling: GaussianCoupling
    path: Path

    @staticmethod
    def schrodinger(mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor, path: Path) -> "GaussianBridge":
        """The Schrodinger bridge from N(mean0, cov0) to N(mean1, cov1), for the diffusion behind `path`.

        Raises:
            InputError: a path that is not a diffusion held at its ends; a matrix that is not a covariance.
        """
        return GaussianBridge(GaussianCoupling.entropic(mean0, cov0, mean1, cov1, path.stiffness), path)

    def mean(self, t: float) -> Tensor:
        """(d,), of x_t."""
        stage = self.path.at(t)
        return stage.alpha * self.coupling.mean0 + stage.beta * self.coupling.mean1

    def covariance(self, t: float) -> Tensor:
        """(d, d), of x_t."""
        return self._between(self.path.at(t))[2]

    def affine(self, reading: str, t: float) -> tuple[Tensor, Tensor]:
        """(A, b), (d, d) and (d,), that give a reading as A x + b: a drift, a score, an end's mean."""
        origin = torch.zeros(1, len(self.coupling.mean0), dtype=torch.float64)
        b = self(origin, t).read(reading)[0]
        return (self(torch.eye(len(b), dtype=b.dtype), t).read(reading) - b).mT, b

    def predict(self, x: Tensor, stage: Stage, condition: Condition) -> Ends:
        c = self.coupling
        flat = x.flatten(1).double()
        if flat.shape[1] != len(c.mean0):
            raise InputError(f"x has shape {tuple(x.shape)}; one sample must have {len(c.mean0)} elements.")
        near, far, total = self._between(stage)
        alpha, beta = (v.flatten(1).to(flat) if isinstance(v, Tensor) else v for v in (stage.alpha, stage.beta))
        centred = flat - alpha * c.mean0 - beta * c.mean1
        pulled = torch.linalg.solve(total, centred[:, :, None])
        dtype = torch.promote_types(x.dtype, torch.float32)
        x0, x1 = (
            (mean + (gain @ pulled)[:, :, 0]).reshape(x.shape).to(dtype)
            for mean, gain in ((c.mean0, near), (c.mean1, far))
        )
        return Ends(x0, x1, x, stage)

    def _between(self, stage: Stage) -> tuple[Tensor, Tensor, Tensor]:
        """cov(x_0, x_t), cov(x_1, x_t), cov(x_t): (d, d), or (B, d, d) if each sample has its own time."""
        c = self.coupling
        alpha, beta, variance = (
            v.double().reshape(-1, 1, 1) if isinstance(v, Tensor) else v
            for v in (stage.alpha, stage.beta, stage.variance)
        )
        near, far = alpha * c.cov0 + beta * c.cross, alpha * c.cross.mT + beta * c.cov1
        return near, far, alpha * near + beta * far + variance * torch.eye(len(c.mean0), dtype=torch.float64)
