"""Fréchet distance: compare two clouds by their means and covariances.

Between Gaussians the squared 2-Wasserstein distance has a closed form (Dowson and Landau 1982),

    |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x^{1/2} S_y S_x^{1/2})^{1/2}).

Put the means and covariances of any features into it and it compares their first two moments; with the features of an
Inception network on photographs it is the "FID" of the literature (Heusel et al. 2017). It is zero if the moments
agree, whatever else differs.

The product S_x S_y is not symmetric, and a general matrix square root of it fails just where it is used most, with
fewer points than dimensions. S_x^{1/2} S_y S_x^{1/2} has the same spectrum and is symmetric and positive semi-
definite, so two calls of `eigh` in float64 suffice; eigenvalues that rounding made negative are cut at zero. With
fewer points than dimensions it is quicker and cleaner still to write S_x = A^T A and S_y = B^T B with the centred
data as A and B: the trace of the root is then the sum of the singular values of the N x M matrix A B^T.

**Bias.** The estimate from N points is too high by about C/N, where C grows with the dimension and *depends on the
model* (Chong and Forsyth 2020): compare numbers at equal N only, and beside a floor of equal N. With N at or below
the dimension the covariance is singular and the number says little; a warning says so.

References: Dowson, Landau (1982); Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter (2017, arXiv:1706.08500); Chong,
Forsyth (2020, arXiv:1911.07023).
"""

import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from ornstein.metrics.metric import Metric, vectors


def gaussian_frechet(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> Tensor:
    """Squared Fréchet distance between the Gaussians N(mean_x, cov_x) and N(mean_y, cov_y), a 0-d float64 tensor.

    Means have shape (d,), covariances (d, d), symmetric and positive semi-definite.
    """
    mean_x, cov_x, mean_y, cov_y = mean_x.double(), cov_x.double(), mean_y.double(), cov_y.double()
    values, basis = torch.linalg.eigh(cov_x)
    root = (basis * values.clamp(min=0).sqrt()) @ basis.T
    overlap: Tensor = torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()
    return (mean_x - mean_y).square().sum() + cov_x.trace() + cov_y.trace() - 2 * overlap


@final
@dataclass(frozen=True)
class Frechet(Metric):
    """Squared Fréchet distance between the means and covariances of features (0 = same two moments; FID's formula).

    In squared units of the features; biased upwards by about C/N, see the module. In float64; time O((N + M) d^2 +
    d^3).

    Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter (2017), arXiv:1706.08500.
    """

    close: ClassVar[float] = 1.5**2
    reads: ClassVar[Literal["data", "features", "marks"]] = "features"

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        x, y = vectors(x, y)
        points, d = min(len(x), len(y)), x.shape[1]
        if points <= d:
            warnings.warn(
                f"Fréchet distance from {points} points in {d} dimensions: singular covariance, strong bias; "
                "compare only at equal sizes.",
                stacklevel=2,
            )
        x, y = x.double(), y.double()
        mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
        a, b = (x - mean_x) / (len(x) - 1) ** 0.5, (y - mean_y) / (len(y) - 1) ** 0.5
        if points > d:
            return float(gaussian_frechet(mean_x, a.T @ a, mean_y, b.T @ b))
        overlap: Tensor = torch.linalg.svdvals(a @ b.T).sum()
        return float((mean_x - mean_y).square().sum() + a.square().sum() + b.square().sum() - 2 * overlap)
