"""Distributions whose denoiser is known in closed form: the oracle of the tests, and a teacher.

If x_0 is drawn from a mixture of Gaussians, sum_k w_k N(m_k, C_k), then x_t = alpha x_0 + sigma eps is one too, with
components N(alpha m_k, alpha^2 C_k + sigma^2 I), and

    E[x_0 given x_t] = sum_k r_k(x_t) [ m_k + alpha C_k (alpha^2 C_k + sigma^2 I)^{-1} (x_t - alpha m_k) ],

r_k being the posterior weights of the components. With C_k = 0 and the points of a data set as means it is the ideal
denoiser of that data set, the one that a network would learn if it memorised everything: a softmax of distances.

Covariances are kept as their eigenvectors in the subspace where they differ from a multiple of the identity,
C = U diag(lambda) U^T + rho (I - U U^T), which covers full, low-rank, isotropic and zero covariances with one
formula; diagonal ones are kept as such. All arithmetic is float64, in chunks over the batch, so that memory is
bounded.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.errors import InputError

#: numbers held at a time by one chunk of a batch: 16 MB, which a CPU's allocator reuses (2^24 is six times slower)
_CHUNK = 2**21


class LowRank(NamedTuple):
    """Covariances factor factor^T + variance I. Shapes (K, d, r) and (K,)."""

    factor: Tensor
    variance: Tensor


class GaussianMixture:
    """A mixture of Gaussians, at the data or at any noise level of any process.

    Args:
        weights: (K,) positive; normalised here.
        means: (K, *shape).
        covariances: (K, d, d) full, (K, d) diagonal, (K,) multiples of the identity (0 allowed: points), or
            `LowRank`; d is the number of elements of `shape`.
        labels: (K,) int64, the label that a condition selects components by; each component its own by default.

    Raises:
        InputError: shapes that do not fit, negative weights, covariances that are not positive semi-definite.
    """

    def __init__(
        self, weights: Tensor, means: Tensor, covariances: "Tensor | LowRank", labels: Tensor | None = None
    ) -> None:
        means = torch.as_tensor(means).double()
        count, self.shape = len(means), tuple(means.shape[1:])
        self.means = means.reshape(count, -1)
        d = self.means.shape[1]
        weights = torch.as_tensor(weights).to(means)
        if weights.shape != (count,) or not bool((weights >= 0).all() and weights.sum() > 0):
            raise InputError(f"weights {tuple(weights.shape)} must be {count} non-negative numbers, one per mean.")
        self.log_weights = (weights / weights.sum()).log()
        self.labels = (torch.arange(count) if labels is None else torch.as_tensor(labels)).to(means.device)
        if self.labels.shape != (count,):
            raise InputError(f"labels has shape {tuple(self.labels.shape)}; it must be ({count},), one per mean.")
        self.diagonal: Tensor | None = None  # (K, d), or the three below
        self.basis = means.new_zeros(count, d, 0)
        self.spread = means.new_zeros(count, 0)  # eigenvalues within the basis
        self.rest = means.new_zeros(count)  # variance outside it
        if isinstance(covariances, LowRank):
            factor, self.rest = covariances.factor.to(means), torch.as_tensor(covariances.variance).to(means)
            if factor.shape[:2] != (count, d) or self.rest.shape != (count,):
                raise InputError(f"LowRank wants factor ({count}, {d}, r) and variance ({count},).")
            self.basis, singular, _ = torch.linalg.svd(factor, full_matrices=False)
            self.spread = singular**2 + self.rest[:, None]
        else:
            given = torch.as_tensor(covariances)
            c = given.to(means)
            if c.shape == (count,):
                self.rest = c
            elif c.shape == (count, d):
                self.diagonal = c
            elif c.shape == (count, d, d):
                # rounding, in the type that they came in: float32 covariances are symmetric, and singular, to 1e-6
                rounding = 10 * d * torch.finfo(given.dtype if given.is_floating_point() else torch.float64).eps
                largest = c.abs().amax((1, 2))
                if bool(((c - c.mT).abs().amax((1, 2)) > rounding * largest).any()):
                    raise InputError("covariances must be symmetric matrices.")
                self.spread, self.basis = torch.linalg.eigh(c)
                # a singular covariance has eigenvalues of either sign within rounding of zero
                # which are of the size of the trace at most
                whole = torch.einsum("kii->k", c).abs().maximum(largest)
                self.spread = torch.where(self.spread.abs() <= rounding * whole[:, None], 0.0, self.spread)
            else:
                raise InputError(
                    f"covariances has shape {tuple(c.shape)}; with means {tuple(means.shape)} it must be "
                    f"({count}, {d}, {d}), ({count}, {d}), ({count},) or LowRank."
                )
        # what no sample changes: the axes of all components side by side (d, K r), the means along them, |m|^2
        self._axes = self.basis.movedim(1, 0).flatten(1)
        self._by_mean = torch.einsum("kdr,kd->kr", self.basis, self.means)
        self._squares = (self.means**2).sum(1)
        smallest = min(float(v.min()) for v in (self.diagonal, self.spread, self.rest) if v is not None and v.numel())
        if smallest < 0:
            raise InputError(f"covariances must be positive semi-definite; the smallest eigenvalue is {smallest:.3g}.")

    @property
    def d(self) -> int:
        """Number of elements of one sample."""
        return self.means.shape[1]

    @property
    def weights(self) -> Tensor:
        """(K,), summing to 1."""
        return self.log_weights.exp()

    def mean(self) -> Tensor:
        """(*shape)."""
        return (self.weights @ self.means).reshape(self.shape)

    def covariance(self) -> Tensor:
        """(d, d), of the whole mixture."""
        eye = torch.eye(self.d, dtype=torch.float64, device=self.means.device)
        if self.diagonal is not None:
            within = torch.diag(self.weights @ self.diagonal)
        else:
            excess = self.weights[:, None] * (self.spread - self.rest[:, None])
            within = torch.einsum("kir,kr,kjr->ij", self.basis, excess, self.basis) + (self.weights @ self.rest) * eye
        centred = self.means - self.weights @ self.means
        return within + torch.einsum("k,ki,kj->ij", self.weights, centred, centred)

    def sample(self, n: int, generator: torch.Generator | None = None, labels: Tensor | None = None) -> Tensor:
        """n draws, (n, *shape) float32; with labels (n,), each from the components of its label (-1: from any)."""
        if labels is None:
            k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        else:
            k = torch.multinomial(self._selected(labels, n).exp(), 1, generator=generator)[:, 0]
        z = torch.randn(n, self.d, generator=generator, dtype=torch.float64, device=self.means.device)
        if self.diagonal is not None:
            x = self.diagonal[k].sqrt() * z
        else:
            within = torch.einsum("ndr,nd->nr", self.basis[k], z)
            excess = (self.spread.sqrt() - self.rest.sqrt()[:, None])[k]
            x = self.rest.sqrt()[k][:, None] * z + torch.einsum("ndr,nr->nd", self.basis[k], excess * within)
        return (self.means[k] + x).reshape(n, *self.shape).float()

    def log_prob(self, x: Tensor, level: Level | None = None) -> Tensor:
        """log q_t(x) in nats, (B,) float64; without a level, of the data themselves.

        Raises:
            InputError: a distribution of points has no density without noise.
        """
        if level is None:
            least = self.diagonal.min() if self.diagonal is not None else self._variances().min()
            if least == 0:
                raise InputError("covariances with zero variance have no density: give a noise level.")
        return self._in_chunks(lambda *part: self._terms(*part)[0].logsumexp(0, keepdim=True), 1, x, level, None)[:, 0]

    def posterior_mean(self, x: Tensor, level: Level, condition: Given = None) -> Tensor:
        """E[x_0 given x_t = x], (B, *shape) float64; with a condition, given the part "label" too (-1: none)."""
        labels = Condition.of(condition).only("label", "an exact distribution")
        return self._in_chunks(self._posterior_mean, self.d, x, level, labels).reshape(x.shape)

    def denoiser(self, process: Process) -> "ExactDenoiser":
        """The exact denoiser of this distribution under a process."""
        return ExactDenoiser(self, process)

    def _variances(self) -> Tensor:
        """Every variance there is; a basis that spans the whole space leaves no rest."""
        return self.spread if self.basis.shape[2] == self.d else torch.cat([self.spread, self.rest[:, None]], 1)

    def _selected(self, labels: Tensor | None, n: int) -> Tensor:
        """Log weights of the components that each of n samples may come from, (n, K)."""
        if labels is None:
            return self.log_weights.expand(n, -1)
        labels = labels.to(self.labels.device)
        allowed = (labels[:, None] == self.labels) | (labels[:, None] == -1)
        if not bool(allowed.any(1).all()):
            raise InputError(f"condition has the label {int(labels[~allowed.any(1)][0])}, which no component has.")
        logits = torch.where(allowed, self.log_weights, -torch.inf)
        return logits - logits.logsumexp(1, keepdim=True)

    def _in_chunks(
        self, f: Callable[..., Tensor], width: int, x: Tensor, level: Level | None, labels: Tensor | None
    ) -> Tensor:
        """f of the samples x, a chunk of them at a time: of (d, B) it makes (width, B), and this is (B, width)."""
        flat = x.reshape(len(x), -1).to(self.means.device).double()
        if flat.shape[1] != self.d:
            raise InputError(f"x has shape {tuple(x.shape)}; one sample must have shape {self.shape}.")
        alpha, sigma = (1.0, 0.0) if level is None else (level.alpha, level.sigma)
        # (1, B), or (1, 1) of a level that the samples share: what depends on it alone is then worked out once
        alpha, sigma = (
            (v.to(flat) if isinstance(v, Tensor) else flat.new_full((), v)).reshape(1, -1) for v in (alpha, sigma)
        )
        shared = self._at(alpha, sigma) if alpha.shape[1] == 1 else None
        per_row = self.d * 3 if self.diagonal is not None else self.basis.shape[2] + 4
        size = max(1, _CHUNK // (len(self.means) * per_row))
        logits = self.log_weights[:, None] if labels is None else self._selected(labels, len(x)).T
        # samples last, as all sums are over components and axes, of which there may be two or three
        flat = flat.T.contiguous()
        if len(x) <= size:
            return f(flat, shared or self._at(alpha, sigma), logits).T.contiguous()
        # one place for all results: small ones kept between large temporaries would scatter the heap
        found = torch.empty(len(x), width, dtype=flat.dtype, device=flat.device)
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            at = shared or self._at(alpha[:, rows], sigma[:, rows])
            found[rows] = f(flat[:, rows], at, logits if labels is None else logits[:, rows]).T
        return found

    def _at(self, alpha: Tensor, sigma: Tensor) -> "_Noisy":
        """What is known of the components at a level for each sample, (1, B), or at one, (1, 1)."""
        noise = sigma**2
        inner = (self.spread if self.diagonal is None else self.diagonal)[:, :, None]
        precision = (alpha**2 * inner + noise).reciprocal()
        log_det = -precision.log().sum(1)
        gain = alpha * inner * precision
        pull = density = None
        if inner.shape[1] < self.d:
            rest = self.rest[:, None]
            density = (alpha**2 * rest + noise).reciprocal()
            log_det = log_det - (self.d - inner.shape[1]) * density.log()
            pull = alpha * rest * density
            gain = gain - pull[:, None]
        heights = -0.5 * (log_det + self.d * math.log(2 * math.pi))
        centres = alpha * (self._by_mean if self.diagonal is None else self.means)[:, :, None]
        return _Noisy(alpha, centres, precision, heights, gain, density, pull)

    def _terms(self, x: Tensor, at: "_Noisy", logits: Tensor) -> tuple[Tensor, Tensor]:
        """Log joint of x (d, B) and each component, (K, B), and x - alpha m in the component's own axes, (K, r, B)."""
        rank = self.basis.shape[2]
        if self.diagonal is not None:
            inside = x - at.centres
        elif rank:
            inside = (self._axes.T @ x).unflatten(0, (-1, rank)) - at.centres
        else:
            inside = x.new_zeros(len(self.means), 0, x.shape[1])
        squares = inside * inside
        quadratic = (squares * at.precision).sum(1)
        if at.density is not None:
            # |x - alpha m|^2 by matrix products: no (K, d, B) array; exact enough in float64 for sigma > 1e-6
            whole = (x**2).sum(0) - 2 * at.alpha * (x.T @ self.means.T).T + at.alpha**2 * self._squares[:, None]
            quadratic = quadratic + (whole - squares.sum(1)).clamp(min=0) * at.density
        return torch.add(logits + at.heights, quadratic, alpha=-0.5), inside

    def _posterior_mean(self, x: Tensor, at: "_Noisy", logits: Tensor) -> Tensor:
        """E[x_0 given x], (d, B)."""
        joint, inside = self._terms(x, at, logits)
        r = joint.softmax(0)  # (K, B)
        if self.diagonal is not None:
            return (r[:, None] * (self.means[:, :, None] + at.gain * inside)).sum(0)
        found = (r.T @ self.means).T
        if at.pull is not None:
            pull = r * at.pull
            found = found + pull.sum(0) * x - at.alpha * (pull.T @ self.means).T
        return found + self._axes @ (r[:, None] * (at.gain * inside)).flatten(0, 1)


class _Noisy(NamedTuple):
    """The components at a level, whatever the sample; B is 1 where the samples share it."""

    alpha: Tensor  # (1, B)
    centres: Tensor  # (K, r, B): alpha m, along the axes
    precision: Tensor  # (K, r, B): 1 / variance along them
    heights: Tensor  # (K, B): log-density at the centre
    gain: Tensor  # (K, r, B): of x0 by x - alpha m along them, beyond `pull`
    density: Tensor | None  # (K, B): 1 / variance outside the axes; None if they span all
    pull: Tensor | None  # (K, B): the gain there


def Gaussian(mean: Tensor, covariance: "Tensor | float") -> GaussianMixture:
    """N(mean, covariance): mean (*shape); covariance (d, d), (d,) or a number."""
    mean = torch.as_tensor(mean)
    covariance = covariance if isinstance(covariance, Tensor) else torch.tensor(covariance, dtype=torch.float64)
    return GaussianMixture(torch.ones(1), mean[None], covariance[None])


def Empirical(data: Tensor, labels: Tensor | None = None) -> GaussianMixture:
    """The distribution of a finite data set (N, *shape): equal weights on its points, conditioned by their labels."""
    zero = torch.zeros(len(data), device=data.device)
    return GaussianMixture(zero + 1, data, zero, labels if labels is not None else torch.arange(len(data)))


@dataclass(frozen=True, eq=False)
class ExactDenoiser(Denoiser):
    """The denoiser of a known distribution; the part "label" of a condition selects components."""

    distribution: GaussianMixture
    process: Process

    @property
    def sigma_data(self) -> float:  # type: ignore[override]
        p = self.distribution
        within = p.diagonal.mean(1) if p.diagonal is not None else (
            (p.spread.sum(1) + (p.d - p.basis.shape[2]) * p.rest) / p.d
        )  # fmt: skip
        return float((p.weights @ (within + (p.means**2).mean(1))).sqrt())

    @property
    def device(self) -> torch.device:
        return self.distribution.means.device

    def on(self, process: Process) -> "ExactDenoiser":
        return ExactDenoiser(self.distribution, process)

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        x0 = self.distribution.posterior_mean(x, level, condition)
        return Prediction(x0.to(torch.promote_types(x.dtype, torch.float32)), x, level)
