"""The constant of an energy, Z = integral of exp(-E), by annealed importance sampling.

Importance sampling from a base p_0 with known density, Z = E_{p_0}[exp(-E)/p_0], is hopeless if the two differ by many
nats. Neal (2001, Statistics and Computing 11:125, physics/9803008) takes small steps between them,

    f_k = p_0^(1 - beta_k) exp(-E)^(beta_k),        0 = beta_0 < ... < beta_n = 1.

x is drawn from p_0; for each k it is moved by a chain that leaves f_k stationary; and the product of the ratios
f_{k+1}(x)/f_k(x) on the way is a weight w with E[w] = Z exactly, however badly the chains mix. The estimate of log Z is
the logarithm of the mean of independent weights, and its error comes from their spread.

Two things determine that spread: where the levels lie and how far a move goes. A pilot run, on separate chains, finds
both. It adapts the length of the Hamiltonian moves to an acceptance of 0.8 at each beta, and measures sd(beta), the
standard deviation of log(f_1/f_0) there. The levels of the actual run are then even in the integral of sd, so that
every ratio has the same variance, which makes their sum least (Gelman & Meng 1998, "thermodynamic length"). The run
itself adapts nothing, and stays unbiased.

An estimate of this kind fails from below: a mode in which no chain ends is missing from both Z and the error. Modes of
very different widths are the hard case: the share of a narrow one rises at a beta where the base is gone and chains no
longer cross between modes. Such modes are looked for where chains have passed (`energies.modes`). If one holds more
than a fiftieth of Z while few chains end in it, the run is repeated from a base that contains it: the weights are
unbiased whatever the base. A mode that no chain passes stays unseen. The safeguards are data or samples (`near`), a
base as wide as the energy's support, and an effective sample size near the number of chains.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist

import torch
from torch import Generator, Tensor

from ornstein.core.exact import GaussianMixture
from ornstein.core.numerics import Estimate
from ornstein.energies import modes
from ornstein.energies.moves import Energy, hamiltonian
from ornstein.errors import InputError, must_be_whole

#: the acceptance that the pilot aims at
ACCEPTANCE = 0.8
#: fewer effective chains than this give no estimate of their own spread
FEWEST = 10.0
#: a mode with more than this share of Z must have at least this many chains; how often a base is widened for such modes
_SHARE, _HELD, _TRIES = 0.02, 64, 3
#: how often on the way the places of lowest energy are recorded, and how many
_LOOKS, _LOWEST = 10, 8


@dataclass(frozen=True, eq=False)
class Partition:
    """log Z, and how well it is known.

    Attributes:
        log_weights: (chains,) float64, nats; the mean of their exponentials is Z in expectation.
        betas: (levels + 1,) float64, where the pilot has put the levels.
        acceptance: (levels - 1,) the mean acceptance of the moves at each level between the ends.
        added: the number of modes added to the base, because chains passed by them but did not end in them.
    """

    log_weights: Tensor
    betas: Tensor
    acceptance: Tensor
    added: int = 0

    @property
    def _shares(self) -> Tensor:
        return self.log_weights.softmax(0)

    @property
    def effective(self) -> float:
        """The effective number of chains, 1 to len(log_weights): (sum w)^2/sum w^2."""
        return 1 / float(self._shares.square().sum())

    @property
    def value(self) -> float:
        """log Z in nats, corrected for the bias of the logarithm, half the squared error."""
        n = len(self.log_weights)
        return float(self.log_weights.logsumexp(0)) - math.log(n) + 0.5 * self.standard_error**2

    @property
    def standard_error(self) -> float:
        """The standard error of `value`, in nats, from the spread of the weights."""
        n = len(self.log_weights)
        return float((n * self._shares).std()) / math.sqrt(n)

    @property
    def estimate(self) -> Estimate:
        """Value and standard error."""
        return Estimate(self.value, self.standard_error)

    def interval(self, probability: float = 0.95) -> tuple[float, float]:
        """The normal confidence interval of log Z in nats."""
        if not 0 < probability < 1:
            raise InputError(f"probability={probability!r} must lie in (0, 1).")
        half = NormalDist().inv_cdf(0.5 + probability / 2) * self.standard_error
        return self.value - half, self.value + half

    def __str__(self) -> str:
        added = f"; {self.added} modes added to the base" if self.added else ""
        return f"log Z = {self.estimate} nats ({self.effective:.0f} of {len(self.log_weights)} chains effective{added})"


def log_partition(
    energy: Energy,
    base: GaussianMixture,
    *,
    generator: Generator,
    chains: int = 1024,
    levels: int = 100,
    leapfrogs: int = 4,
    pilot: int = 256,
    near: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    device: "torch.device | str" = "cpu",
) -> Partition:
    """log of the integral of exp(-E), by annealed importance sampling with Hamiltonian moves; see the module.

    Args:
        energy: (B, *shape) -> (B,) nats, differentiable; +inf where the density is zero.
        base: where chains start: `Gaussian(mean, covariance)`, as wide as the energy's support; the moments of samples,
            a little enlarged, work well.
        generator: of all randomness.
        chains: the number of independent weights. The error falls with its square root.
        levels: n, ratios between the base and the energy. The variance of log w falls with their number.
        leapfrogs: gradients of each move; there is one move at each level.
        pilot: chains of the pilot run, which has about half as many levels, with two moves at each.
        near: (N, *shape) places where exp(-E) is known to be large, such as data: modes are looked for there too.
        dtype, device: of x as the energy expects it; weights are float64 throughout.

    `Partition.value` is log Z; log p(x) = -E(x) - log Z.

    Raises:
        InputError: numbers out of range; an energy that is NaN or without a bottom; weights held by a few chains.
    """
    for name, number, least in (
        ("chains", chains, 2),
        ("levels", levels, 2),
        ("leapfrogs", leapfrogs, 1),
        ("pilot", pilot, 16),
    ):
        must_be_whole(name, number, least)

    added = 0
    for _ in range(_TRIES):
        found, ends, passed, length = _run(energy, base, generator, chains, levels, leapfrogs, pilot, dtype, device)
        if near is not None:
            passed = torch.cat([passed, near.to(passed)])
        # chains may have passed by modes in which hardly any of them end, and which the weights lack
        worth = found.value + math.log(_SHARE)
        weighty = [mode for mode in modes.find(energy, passed, length, generator) if mode.log_mass > worth]
        if all(int(mode.holds(ends).sum()) >= min(_HELD, chains // 8) for mode in weighty):
            break
        base, added = modes.widened(base, weighty), added + len(weighty)
    else:
        raise InputError(
            f"chains pass by modes that they do not end in, even from a base with {added} of them added: the energy "
            "has too many for an estimate; take a base that contains them, or more chains."
        )
    result = replace(found, added=added)
    if not result.effective >= min(FEWEST, chains / 4):
        raise InputError(
            f"{result.effective:.1f} of {chains} chains hold all the weight, too few for an estimate: take a base "
            f"nearer to the energy, or more than {levels} levels; if that does not help, exp(-E) may have no integral."
        )
    return result


def _run(
    energy: Energy,
    base: GaussianMixture,
    generator: Generator,
    chains: int,
    levels: int,
    leapfrogs: int,
    pilot: int,
    dtype: torch.dtype,
    device: "torch.device | str",
) -> tuple[Partition, Tensor, Tensor, float]:
    """One run from a base: the result, where chains end, places of low energy that they passed, the last length."""

    def start(n: int) -> Tensor:
        return base.sample(n, generator).to(device, dtype)

    def rise(x: Tensor) -> Tensor:
        """log f_1 - log f_0, (B,)."""
        with torch.no_grad():
            return _checked(-energy(x).double() - base.log_prob(x).to(x.device))

    def between(beta: float) -> Energy:
        return lambda x: beta * energy(x).double() - (1 - beta) * base.log_prob(x).to(x.device)

    def move(x: Tensor, beta: float, length: float) -> tuple[Tensor, Tensor]:
        return hamiltonian(between(beta), x, length, leapfrogs, True, generator)

    # the pilot
    coarse = torch.linspace(0, 1, max(levels // 2, 20) + 1, dtype=torch.float64) ** 2
    x = start(pilot)
    length = 0.5 * float(base.covariance().diagonal().min().sqrt()) * x[0].numel() ** -0.25
    spreads, lengths = [], []
    for beta in coarse.tolist():
        for _ in range(2 if beta > 0 else 0):
            x, chance = move(x, beta, length)
            length *= math.exp(0.4 * (float(chance.mean()) - ACCEPTANCE))
        lengths.append(length)
        gap = rise(x)
        spreads.append(float(gap[gap.isfinite()].std()))
    betas = _even(coarse, torch.tensor(spreads, dtype=torch.float64), levels)
    fine = _read(coarse, torch.tensor(lengths, dtype=torch.float64).log(), betas).exp().tolist()

    # the run
    x = start(chains)
    log_weights = torch.zeros(chains, dtype=torch.float64, device=x.device)
    accepted, passed = [], []
    for k, (low, high) in enumerate(pairwise(betas.tolist())):
        if k > 0:
            x, chance = move(x, low, fine[k])
            accepted.append(float(chance.mean()))
        gap = rise(x)
        log_weights = log_weights + (high - low) * gap
        if k % max(1, levels // _LOOKS) == 0:
            depth = gap + base.log_prob(x).to(gap)
            passed.append(x[depth.topk(min(_LOWEST, chains)).indices])
    found = Partition(log_weights.cpu(), betas, torch.tensor(accepted, dtype=torch.float64))
    return found, x, torch.cat(passed), fine[-1]


def _checked(gap: Tensor) -> Tensor:
    """Raise for values that no density has; -inf, zero density at that place, is fine."""
    if bool((gap.isnan() | (gap == math.inf)).any()):
        raise InputError(
            "the energy is NaN or -inf where the chains went: it has no bottom, or has diverged in training; train "
            "with a smaller learning rate or a penalty on its size."
        )
    return gap


def _read(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """y at the points `at`, linear between rising x."""
    k = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    u = ((at - x[k - 1]) / (x[k] - x[k - 1]).clamp(min=1e-300)).clamp(0, 1)
    return y[k - 1] + u * (y[k] - y[k - 1])


def _even(betas: Tensor, spreads: Tensor, levels: int) -> Tensor:
    """levels + 1 betas from 0 to 1 even in the integral of the spread."""
    # an unmeasured spread is taken from its neighbour; every interval gets at least a tenth of its even share
    for k in range(len(spreads) - 1, 0, -1):
        if not spreads[k - 1].isfinite():
            spreads[k - 1] = spreads[k]
    cells = 0.5 * (spreads[1:] + spreads[:-1]) * betas.diff()
    cells = cells + 0.1 * cells.sum() * betas.diff() + 1e-12
    length = torch.cat([torch.zeros(1, dtype=torch.float64), cells.cumsum(0)])
    placed = _read(length, betas, torch.linspace(0, 1, levels + 1, dtype=torch.float64) * length[-1])
    placed[0], placed[-1] = 0.0, 1.0
    return placed
