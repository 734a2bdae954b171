"""Modes of an energy that annealed chains missed, found from the places that the chains passed.

The share of a narrow mode in f = p_0^(1 - beta) exp(-beta E) is small until beta is near 1, and by then no chain
crosses over to it: either a few chains end in it and carry all the weight, or none does and nothing shows it. But
chains pass through its basin at smaller beta, where crossing is easy, and such places stand out by their low energy.
From there `find` goes downhill to the bottom, and lets short chains spread from it to measure how wide the mode is. To
leading order (Laplace) its share is log Z = -E + half the sum of log(2 pi v) over the dimensions, enough to tell
whether a run has missed something that matters.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ornstein.core.exact import GaussianMixture
from ornstein.energies.moves import Energy, hamiltonian, per_sample, value_and_slope

#: steps downhill, the most modes examined; chains and moves that measure how wide one is
_DOWN, _MODES, _SPREAD, _MOVES = 60, 8, 32, 40
#: how much wider than measured a mode is made in a base
_WIDER = 1.5


@dataclass(frozen=True, eq=False)
class Mode:
    """A basin of the energy: its bottom (*shape), the variances there (d,), and roughly its log Z, in nats."""

    bottom: Tensor
    variance: Tensor
    log_mass: float

    def holds(self, x: Tensor) -> Tensor:
        """Which of x (B, *shape) lie in it: (B,) bool."""
        d = self.bottom.numel()
        square = ((x - self.bottom).flatten(1).double() ** 2 / self.variance).sum(1)
        return square < d + 5 * math.sqrt(2 * d)


def find(energy: Energy, x: Tensor, length: float, generator: Generator) -> list[Mode]:
    """The modes below x (N, *shape), deepest first.

    Args:
        length: of a Hamiltonian step at first; it is adapted.
    """
    x, value = _downhill(energy, x, length)
    left, found = value.isfinite(), []
    for _ in range(_MODES):
        if not bool(left.any()):
            break
        at = int(torch.where(left, value, math.inf).argmin())
        mode = _around(energy, x[at], float(value[at]), length, generator)
        left &= ~mode.holds(x)
        left[at] = False
        found.append(mode)
    return found


def widened(base: GaussianMixture, modes: list[Mode]) -> GaussianMixture:
    """A base with these modes added, which get half of the weight."""
    means = torch.cat([base.means, torch.stack([mode.bottom.flatten() for mode in modes]).to(base.means)])
    variances = torch.stack([_WIDER * mode.variance for mode in modes]).to(base.means)
    weights = torch.cat([0.5 * base.weights, base.means.new_full((len(modes),), 0.5 / len(modes))])
    if base.diagonal is not None or base.basis.shape[2] == 0:
        own = base.diagonal if base.diagonal is not None else base.rest[:, None].expand(-1, base.d)
        covariances = torch.cat([own, variances])
    else:
        inside = torch.einsum("kir,kr,kjr->kij", base.basis, base.spread - base.rest[:, None], base.basis)
        eye = torch.eye(base.d, dtype=base.means.dtype, device=base.means.device)
        own = inside + base.rest[:, None, None] * eye
        covariances = torch.cat([0.5 * (own + own.mT), torch.diag_embed(variances)])
    return GaussianMixture(weights, means.reshape(-1, *base.shape), covariances)


def _downhill(energy: Energy, x: Tensor, length: float) -> tuple[Tensor, Tensor]:
    """Gradient descent in which each sample's step grows while it helps: the places, and their energies (N,)."""
    value, slope = value_and_slope(energy, x)
    size = torch.full_like(value, 0.5 * length**2)
    for _ in range(_DOWN):
        y = x - per_sample(size, x) * slope
        below, there = value_and_slope(energy, y)
        better = below < value
        wide = per_sample(better, x)
        x, slope, value = torch.where(wide, y, x), torch.where(wide, there, slope), torch.where(better, below, value)
        size = size * torch.where(better, 1.5, 0.4)
    return x, value


def _around(energy: Energy, bottom: Tensor, depth: float, length: float, generator: Generator) -> Mode:
    """The mode at a bottom, its width measured by short chains from there."""
    x = bottom.expand(_SPREAD, *bottom.shape).clone()
    total, count = torch.zeros(bottom.numel(), dtype=torch.float64, device=x.device), 0
    for move in range(_MOVES):
        x, chance = hamiltonian(energy, x, length, 4, True, generator)
        length *= math.exp(0.4 * (float(chance.mean()) - 0.8))
        if move >= _MOVES // 2:
            total, count = total + (x - bottom).flatten(1).double().square().mean(0), count + 1
    variance = (total / count).clamp(min=1e-12)
    return Mode(bottom, variance, -depth + 0.5 * float((2 * math.pi * variance).log().sum()))
