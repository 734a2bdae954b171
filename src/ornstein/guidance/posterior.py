"""The posterior of a Gaussian mixture under a linear measurement, in closed form: the oracle of inverse problems.

For x_0 from sum_k w_k N(m_k, C_k) and y = A x_0 + noise of variance s^2, each component is updated by Kalman's formulas
and weighed by how well it explains y:

    S_k = s^2 I + A C_k A^T,                    w_k' ~ w_k N(y; A m_k, S_k),
    m_k' = m_k + C_k A^T S_k^{-1} (y - A m_k),  C_k' = C_k - C_k A^T S_k^{-1} A C_k.
"""

import torch

from ornstein.core.exact import GaussianMixture
from ornstein.errors import InputError
from ornstein.guidance.inverse import Measurement


def exact_posterior(mixture: GaussianMixture, measurement: Measurement) -> GaussianMixture:
    """The distribution of x_0 given one measurement, a Gaussian mixture again.

    Args:
        mixture: of d numbers; what is made here is (K, d, d).
        measurement: by a linear operator, with one row of y. Entries that A does not look at (a mask keeps their
            places) drop out.

    Raises:
        InputError: an operator that is not linear, or more than one row of y.
    """
    operator, y = measurement.operator, measurement.y.double()
    if not operator.linear or len(y) != 1:
        raise InputError(
            f"exact_posterior takes a linear operator and one row of y, not {operator!r} and {len(y)} rows."
        )
    eye = torch.eye(mixture.d, dtype=torch.float64, device=mixture.means.device)
    columns = operator.apply(eye.reshape(-1, *mixture.shape)).flatten(1)  # row i is A e_i
    looked = columns.abs().amax(0) > 0
    a, y = columns[:, looked].mT, y.flatten(1)[0, looked].to(columns)
    if mixture.diagonal is not None:
        c = torch.diag_embed(mixture.diagonal)
    else:
        excess = mixture.spread - mixture.rest[:, None]
        c = torch.einsum("kir,kr,kjr->kij", mixture.basis, excess, mixture.basis) + mixture.rest[:, None, None] * eye
    cross = c @ a.mT  # (K, d, m)
    s = measurement.noise**2 * torch.eye(len(a), dtype=a.dtype, device=a.device) + a @ cross
    off = y - mixture.means @ a.mT  # (K, m)
    inverse = torch.linalg.pinv(s, hermitian=True)
    # one component's log N(y; A m, S); where rows of A repeat each other, on the space that S spans
    values = torch.linalg.eigvalsh(s)
    alive = values > 1e-12 * values.amax(1, keepdim=True)
    log_det = torch.where(alive, values.clamp(min=1e-300).log(), 0.0).sum(1)
    log_weights = mixture.log_weights - 0.5 * (torch.einsum("km,kmn,kn->k", off, inverse, off) + log_det)
    means = mixture.means + torch.einsum("kdm,kmn,kn->kd", cross, inverse, off)
    covariances = c - cross @ inverse @ cross.mT
    covariances = 0.5 * (covariances + covariances.mT)
    # rounding leaves eigenvalues just below zero where there is nothing left to know
    values, vectors = torch.linalg.eigh(covariances)
    covariances = vectors @ torch.diag_embed(values.clamp(min=0)) @ vectors.mT
    return GaussianMixture(
        log_weights.softmax(0), means.reshape(-1, *mixture.shape), 0.5 * (covariances + covariances.mT), mixture.labels
    )
