"""Learning the energies of all noise levels at once, as an objective.

An energy E(x, t) gives the data at every noise level a density, q_t = exp(-E(., t))/Z(t). Any method that learns one
energy learns all of them, if each example is taken at a level of its own; the result is a denoiser, from which every
stepper can sample. Here are two methods that do not use a score:

**Maximum likelihood** (`learning.MaximumLikelihood`, here at each level). The negatives of level t are chains on
E(., t), with steps in units of sigma_t^2, so that a step below 2 is stable at every level. They start at the noised
data (contrastive divergence; Hinton 2002) or go on from step to step (persistent chains; Tieleman 2008, ICML): each
chain in the buffer keeps its level, and data are noised to the levels of the chains whose turn it is. A few chains
start afresh at noised data each time (Du & Mordatch 2019, 1903.08689).

**Noise contrast.** A classifier must tell which of 1 + nu points is noised data, the others being draws from a known
density p_n. With w = exp(-E)/p_n it answers w(x)/(sum of all w), and its loss is

    -log w(x_data) + log(sum over the 1 + nu points of w).

A constant in E cancels, at each level separately, so there is none to learn: the ranking form of noise-contrastive
estimation (Jozefowicz et al. 2016, 1602.02410; consistent for conditional densities, which levels are: Ma & Collins
2018, 1809.01812). Here p_n is the Gaussian with the data's own standard deviation at level t, which is also the answer
of an untrained `EnergyDenoiser`. It learns up to log(1 + nu) nats, and only where p_n has mass: it is for data of few
dimensions.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser
from ornstein.core.grids import ends
from ornstein.core.numerics import noise_like, strata
from ornstein.core.process import Process
from ornstein.energies.denoiser import as_energy
from ornstein.energies.learning import RecoveryLikelihood, _contrast
from ornstein.energies.moves import Moves, per_sample
from ornstein.errors import InputError, lookup

#: where the chains of negatives start
STARTS = {"data": "contrastive divergence", "chains": "persistent chains"}


def _times(process: Process, u: Tensor, sigma_data: float) -> Tensor:
    """Times from uniform numbers in (0, 1): any level of a chain, or in continuous time even in log-SNR."""
    if process.chain is not None:
        return (u.double() * process.chain).floor().clamp(max=process.chain - 1) + 1
    first, last = (process.at(t).log_snr for t in ends(process, sigma_data))
    return process.time(first + (last - first) * u.double())


@dataclass(frozen=True)
class MaximumLikelihoodOfLevels:
    """Maximum likelihood of the energy of every noise level, with negatives from Markov chains; see the module.

    Args:
        moves: the chain from start to negative, gamma in units of sigma_t^2, in (0, 2).
        start: "chains" (persistent) or "data" (contrastive divergence).
        chains: how many are kept; at least the batch.
        restart: the share of them that start at noised data again each time.
        penalty: the weight of E(x)^2 + E(x')^2.

    Raises:
        InputError: an unknown start, numbers out of range; when called, a denoiser that is not an energy, a chain that
            diverges, an energy that explodes.
    """

    moves: Moves
    start: str = "chains"
    chains: int = 1024
    restart: float = 0.05
    penalty: float = 0.0

    def __post_init__(self) -> None:
        lookup(STARTS, self.start, "start")
        if isinstance(self.chains, bool) or not isinstance(self.chains, int) or self.chains < 1:
            raise InputError(f"chains={self.chains!r} must be a whole number, at least 1.")
        if not 0 <= self.restart <= 1:
            raise InputError(f"restart={self.restart!r} must be a probability in [0, 1].")
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise InputError(f"penalty={self.penalty!r} must be a finite number, not negative.")
        if not self.moves.gamma < 2:
            raise InputError(f"step_size={self.moves.gamma!r} must be in (0, 2), in units of sigma^2.")

    def memory(self, denoiser: Denoiser, x0: Tensor) -> dict[str, Tensor]:
        """The persistent chains at their start: Gaussian noise at evenly spread levels; {} without such chains."""
        if self.start == "data":
            return {}
        if self.chains < len(x0):
            raise InputError(f"chains={self.chains} must be at least the batch of {len(x0)}.")
        t = _times(denoiser.process, (torch.arange(self.chains) + 0.5) / self.chains, denoiser.unit)
        level = denoiser.process.at(t, like=x0.new_empty(self.chains, *x0.shape[1:]))
        spread = ((level.alpha * denoiser.sigma_data) ** 2 + level.sigma * level.sigma) ** 0.5
        dice = torch.Generator().manual_seed(0)
        return {"chains": spread * torch.randn(self.chains, *x0.shape[1:], generator=dice), "times": t}

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        condition: Given,
        generator: Generator,
        memory: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """E(x_t) - E(x'), (B,): x0 (B, ...) in model space. Its gradient is the likelihood's; its value means nothing.

        With persistent chains the condition is not used, since chains have none.
        """
        energy, condition = as_energy(denoiser), Condition.of(condition)
        if (self.start == "chains") != bool(memory):
            wanted = "needs its memory(...)" if self.start == "chains" else "has no memory"
            raise InputError(f"start={self.start!r} {wanted}.")
        chosen = None
        if memory:
            chosen = torch.randperm(len(memory["times"]), generator=generator, device=generator.device)[: len(x0)]
            chosen = chosen.to(x0.device)
            t, condition = memory["times"][chosen], Condition()
        else:
            t = _times(denoiser.process, strata(len(x0), generator, dtype=torch.float32), denoiser.unit).to(x0.device)
        level = denoiser.process.at(t, like=x0)
        data = level.noised(x0, noise_like(x0, generator))
        begin = data
        if memory and chosen is not None:
            again = torch.rand(len(x0), generator=generator, device=generator.device).to(x0.device) < self.restart
            begin = torch.where(
                per_sample(again, x0), level.noised(x0, noise_like(x0, generator)), memory["chains"][chosen]
            )
        at_level = energy.energy_at(level, condition)
        negatives, _ = self.moves(at_level, begin, generator, level.sigma * level.sigma)
        if memory and chosen is not None:
            memory["chains"].index_copy_(0, chosen, negatives.to(memory["chains"]))
        return _contrast(at_level(data), at_level(negatives), self.penalty)


@dataclass(frozen=True)
class Ranking:
    """Noise contrast at every noise level, in its ranking form; see the module.

    Args:
        ratio: nu, draws of noise for each example.

    Raises:
        InputError: a ratio below 1; when called, a denoiser that is not an energy, energies that are not finite.
    """

    ratio: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int) or self.ratio < 1:
            raise InputError(f"ratio={self.ratio!r} must be a whole number, at least 1.")

    def __call__(self, denoiser: Denoiser, x0: Tensor, condition: Given, generator: Generator) -> Tensor:
        """The loss of each example, (B,), in nats: log(1 + ratio) for pure guessing. x0 (B, ...) in model space."""
        energy = as_energy(denoiser)
        t = _times(denoiser.process, strata(len(x0), generator, dtype=torch.float32), denoiser.unit).to(x0.device)
        points = 1 + self.ratio
        clean = x0.repeat(points, *[1] * (x0.ndim - 1))
        level = denoiser.process.at(t.repeat(points), like=clean)
        variance = torch.as_tensor((level.alpha * denoiser.sigma_data) ** 2 + level.sigma * level.sigma)
        eps = noise_like(clean, generator)
        both = torch.where(
            per_sample(torch.arange(len(clean), device=x0.device) < len(x0), clean),
            level.noised(clean, eps),
            variance**0.5 * eps,
        )
        given = Condition.of(condition).repeat(points)
        known = 0.5 * (both * both / variance).flatten(1).sum(1)  # -log p_n, up to a constant of the level
        log_weight = (known - energy.energy(both, level, given)).reshape(points, len(x0))
        if not bool(log_weight.isfinite().all()):
            raise InputError(
                "the energy is not finite at data or noise: training has diverged; take a smaller learning rate."
            )
        return log_weight.logsumexp(0) - log_weight[0]


def maximum_likelihood(
    corrections: int = 20,
    step_size: float = 0.1,
    start: str = "chains",
    chains: int = 1024,
    restart: float = 0.05,
    penalty: float = 0.0,
    adjusted: bool = False,
) -> MaximumLikelihoodOfLevels:
    """Maximum likelihood of an energy, its negatives from persistent Langevin chains (Tieleman 2008) or from data.

    Args:
        corrections: Langevin steps that make a negative.
        step_size: size of each step, in (0, 2), in units of the noise's variance sigma^2.
        start: where negatives start: "chains" (where those of the last step ended) or "data" (at noised data).
        chains: how many persistent chains there are; at least the batch.
        restart: the share of chains that start at noised data again at each step.
        penalty: the weight of E(x)^2 + E(x')^2, which keeps energies from growing.
        adjusted: whether each step is accepted or rejected by Metropolis' rule.
    """
    return MaximumLikelihoodOfLevels(Moves(corrections, step_size, adjusted=adjusted), start, chains, restart, penalty)


def noise_contrastive(ratio: int = 8) -> Ranking:
    """Tell data from Gaussian noise; the classifier is an energy (Gutmann & Hyvärinen 2010, AISTATS 9:297)."""
    return Ranking(ratio)


def recovery(
    corrections: int = 30,
    step_size: float = 0.3,
    steps: int = 10,
    low: float = 0.05,
    high: float = 20.0,
    adjusted: bool = False,
) -> RecoveryLikelihood:
    """Recovery likelihood: energies of x_s given a noisier x_t, along a ladder (Gao et al. 2020, 2012.08125).

    Args:
        corrections: Langevin steps that make a negative.
        step_size: size of each step, in (0, 2), in units of the variance of x_s given x_t and x_0.
        steps: noise levels of the ladder; a chain has its own.
        low, high: sigma/alpha at the ends of the ladder.
        adjusted: whether each step is accepted or rejected by Metropolis' rule.
    """
    return RecoveryLikelihood(steps, low, high, Moves(corrections, step_size, adjusted=adjusted))
