"""Learning an energy other than by its score.

**Maximum likelihood.** The gradient of -log p = E + log Z needs no Z, only samples of the model itself:

    grad (-log p) averaged over data = E_data[grad E] - E_model[grad E].

The loss E(x) - E(x'), with x from the data and x' from the model held fixed, has that gradient; its value means
nothing. The samples x', the *negatives*, come from a chain on E. Methods differ in where it starts: at the data
(contrastive divergence; Hinton 2002), in noise (short runs, which learn a sampler rather than an energy; Nijkamp et
al. 2019, 1904.09770), or where earlier chains stopped (persistent chains; Tieleman 2008). These are kept in a *buffer*,
in which a few start afresh each time (Du & Mordatch 2019, 1903.08689). The buffer is a tensor that is passed in and
returned.

**Noise contrast** (Gutmann & Hyvärinen 2010, AISTATS 9:297). Learn to tell data from nu times as many samples of a
known density p_n. The logit of the best classifier is log p - log p_n - log nu; so with logit -E - c - log p_n - log nu
the classifier's loss, without any chain, finds both E and the constant c = log Z. It learns only where p_n has mass.

**Recovery likelihood** (Gao et al. 2020, 2012.08125). A chain on E mixes badly if E has many modes. Given a noisier
version of the same example, x_t = a x_s + b z, about one mode is left:

    p(x_s given x_t) = exp( -E(x_s, s) - |x_t - a x_s|^2/(2 b^2) )/constant.

Maximum likelihood of these conditionals, at all pairs of neighbouring levels of a ladder of noise, is consistent for
each E(., s), and its negatives cost a short chain from x_t. Sampling runs the same chains level by level from noise. In
units of the variance of q(x_s given x_t, x_0), v = sigma_s^2 b^2/sigma_t^2, every step below 2 is stable, since the
curvature of -log q_s never exceeds 1/sigma_s^2; and a flat direction has variance (u_t/u_s)^2 v, with u = sigma/alpha.
So the levels stand a fixed ratio apart, about 2, and chains have the same length at all of them. What a level learns is
as local as its conditionals: E(., s) is compared only between points that the noise of x_t confuses. The weights of
distant modes are learned at the high levels, and should be read there.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from ornstein.core.condition import Given
from ornstein.core.copies import beside
from ornstein.core.denoiser import Denoiser
from ornstein.core.exact import GaussianMixture
from ornstein.core.numerics import noise_like
from ornstein.core.process import Process
from ornstein.energies.denoiser import as_energy
from ornstein.energies.moves import Energy, Moves, per_sample
from ornstein.errors import InputError, lookup

#: an energy that differs by more than this many nats between data and negatives has exploded
EXPLODED = 1e6


def _contrast(data: Tensor, negatives: Tensor, penalty: float = 0.0) -> Tensor:
    """E(x) - E(x') of each sample; raises if it has exploded."""
    gap = data - negatives
    if not bool((gap.detach().abs() <= EXPLODED).all()):  # NaN compares false
        raise InputError(
            f"the energies of data and negatives differ by {float(gap.detach().abs().max()):.3g} nats: training has "
            "diverged; take a smaller learning rate, a penalty on the energy's size, or more moves for each chain."
        )
    return gap + penalty * (data.square() + negatives.square()) if penalty else gap


class Contrast(NamedTuple):
    """What one step of maximum likelihood returns.

    Attributes:
        loss: (B,) E(x) - E(x'), whose mean is to be minimised.
        buffer: (M, *shape) the persistent chains in their new states; None if none are kept.
        negatives: (B, *shape) the samples x'.
        acceptance: the mean acceptance of the moves, 1 if they are not adjusted.
    """

    loss: Tensor
    buffer: Tensor | None
    negatives: Tensor
    acceptance: float


#: where the chains of negatives start
STARTS = {"data": "contrastive divergence", "noise": "short runs", "buffer": "persistent chains"}


@dataclass(frozen=True)
class MaximumLikelihood:
    """Maximum likelihood of an energy with negatives from Markov chains: contrastive divergence, persistent or not.

    Args:
        moves: the chain from start to negative.
        start: "data", "noise" (N(0, spread^2)) or "buffer".
        restart: the share of chains taken from the buffer that start in noise instead.
        spread: the standard deviation of that noise, in data units.
        penalty: the weight of E(x)^2 + E(x')^2, which keeps an energy with a free constant from drifting.

    Raises:
        InputError: an unknown start, numbers out of range; when called, a buffer that does not fit, a chain that
            diverges, an energy that explodes.
    """

    moves: Moves = field(default_factory=Moves)
    start: str = "buffer"
    restart: float = 0.05
    spread: float = 1.0
    penalty: float = 0.0

    def __post_init__(self) -> None:
        lookup(STARTS, self.start, "start")
        if not 0 <= self.restart <= 1:
            raise InputError(f"restart={self.restart!r} must be a probability in [0, 1].")
        if not (math.isfinite(self.spread) and self.spread > 0):
            raise InputError(f"spread={self.spread!r} must be positive: a standard deviation in data units.")
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise InputError(f"penalty={self.penalty!r} must be a finite number, not negative.")

    def buffer(self, size: int, like: Tensor, generator: Generator) -> Tensor:
        """`size` chains that start in noise, (size, *shape), for data like `like` (B, *shape)."""
        return self.spread * noise_like(like.new_empty(size, *like.shape[1:]), generator)

    def __call__(self, energy: Energy, x: Tensor, generator: Generator, buffer: Tensor | None = None) -> Contrast:
        """The loss of each example x (B, *shape), and the buffer for the next call.

        Args:
            energy: (B, *shape) -> (B,), with parameters to be learned.
            x: data.
            generator: of all randomness.
            buffer: (M, *shape), M >= B, from `buffer` or the last call; only for start="buffer".
        """
        if (buffer is not None) != (self.start == "buffer"):
            wanted = "needs a buffer: make one with .buffer(...)" if buffer is None else "takes no buffer"
            raise InputError(f"start={self.start!r} {wanted}.")
        chosen = None
        if self.start == "data":
            begin = x
        else:
            begin = self.spread * noise_like(x, generator)
        if buffer is not None:
            if buffer.shape[1:] != x.shape[1:] or len(buffer) < len(x):
                raise InputError(
                    f"buffer has shape {tuple(buffer.shape)}; for data {tuple(x.shape)} it must hold at least {len(x)} "
                    "chains of the same shape."
                )
            chosen = torch.randperm(len(buffer), generator=generator, device=generator.device)[: len(x)]
            chosen = chosen.to(buffer.device)
            again = torch.rand(len(x), generator=generator, device=generator.device).to(x.device) < self.restart
            begin = torch.where(per_sample(again, x), begin, buffer[chosen].to(x))
        negatives, accepted = self.moves(energy, begin, generator)
        if buffer is not None and chosen is not None:
            buffer = buffer.index_copy(0, chosen, negatives.to(buffer))
        data, fake = energy(torch.cat([x, negatives])).chunk(2)
        return Contrast(_contrast(data, fake, self.penalty), buffer, negatives, float(accepted.mean()))


@dataclass(frozen=True, eq=False)
class NoiseContrastive:
    """Noise-contrastive estimation: an energy and its constant by classification against a known density.

    Args:
        noise: p_n, from which samples are drawn: close to the data and wider, for example a `Gaussian` of their
            moments.
        ratio: nu, samples of noise for each example.

    Raises:
        InputError: a ratio below 1; when called, an energy that is not finite.
    """

    noise: GaussianMixture
    ratio: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int) or self.ratio < 1:
            raise InputError(f"ratio={self.ratio!r} must be a whole number, at least 1.")

    def __call__(self, energy: Energy, x: Tensor, generator: Generator, log_z: "Tensor | float" = 0.0) -> Tensor:
        """The loss of each example x (B, *shape), (B,), and of its `ratio` samples of noise, in nats.

        Args:
            energy: (B, *shape) -> (B,), with parameters to be learned.
            x: data.
            generator: of the noise.
            log_z: the constant to be learned, for an energy that has none of its own; E + log_z tends to -log p.
        """
        noise = self.noise.sample(self.ratio * len(x), generator).to(x)
        both = torch.cat([x, noise])
        with torch.no_grad():
            known = self.noise.log_prob(both).to(x.device)
        logit = -energy(both) - log_z - known.to(x.dtype) - math.log(self.ratio)
        if not bool(logit.isfinite().all()):
            raise InputError(
                "the energy is not finite at data or noise: training has diverged; take a smaller learning rate, or a "
                "noise closer to the data."
            )
        of_data, of_noise = logit.split([len(x), len(noise)])
        return softplus(-of_data) + softplus(of_noise).reshape(self.ratio, len(x)).sum(0)


@lru_cache(maxsize=64)
def _ladder(process: Process, steps: int, low: float, high: float) -> Tensor:
    if process.chain is not None:
        return torch.arange(process.chain, -1, -1, dtype=torch.float64)
    end = process.at(process.t_max).noise_ratio
    if not low < end:
        raise InputError(f"low={low!r} is beyond the clock of {process}, whose sigma/alpha ends at {end:g}.")
    ratios = torch.linspace(math.log(min(high, end)), math.log(low), steps, dtype=torch.float64)
    return torch.cat([process.time(-2 * ratios), torch.zeros(1, dtype=torch.float64)])


@dataclass(frozen=True)
class RecoveryLikelihood:
    """Diffusion recovery likelihood: maximum likelihood of each noise level given the next (Gao et al. 2020).

    An objective, (denoiser, x0, condition, generator) -> (B,), for an `EnergyDenoiser`. Its value means nothing.

    Args:
        steps: noise levels of the ladder; a chain has its own, all of which are used.
        low, high: sigma/alpha at its ends; levels between are a fixed ratio apart. Below `low` the data are taken as
            smooth: the last step of sampling is the denoising step. `high` is at most the clock's end.
        moves: the chain of the negatives, with gamma in units of the variance of q(x_s given x_t, x_0), in (0, 2).

    Raises:
        InputError: numbers out of range; when called, a denoiser that is not an energy, a chain that diverges, an
            energy that explodes.
    """

    steps: int = 10
    low: float = 0.05
    high: float = 20.0
    moves: Moves = field(default_factory=lambda: Moves(30, 0.3))

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 2:
            raise InputError(f"steps={self.steps!r} must be a whole number, at least 2.")
        if not (0 < self.low < self.high < math.inf):
            raise InputError(f"low={self.low!r} and high={self.high!r} must be positive, finite and rising.")
        if not self.moves.gamma < 2:
            raise InputError(
                f"moves.gamma={self.moves.gamma!r} must be in (0, 2), in units of the variance of x_s given x_t and "
                "x_0: beyond, chains explode."
            )

    def grid(self, process: Process) -> Tensor:
        """The falling times of the ladder and the clean point, (steps + 1,): the `grid=` to sample with."""
        return _ladder(process, self.steps, self.low, self.high)

    def __call__(self, denoiser: Denoiser, x0: Tensor, condition: Given, generator: Generator) -> Tensor:
        """The loss of each sample, (B,), each at its own pair of neighbouring levels: x0 (B, ...) in model space."""
        denoiser = as_energy(denoiser)
        process = denoiser.process
        times = beside(self.grid(process), x0, torch.float64)
        pair = torch.randint(len(times) - 2, (len(x0),), generator=generator, device=generator.device).to(x0.device)
        t, s = (process.at(times[k], like=x0) for k in (pair, pair + 1))
        a, b2 = t.kernel_from(s)
        xs = s.noised(x0, noise_like(x0, generator))
        xt = a * xs + b2**0.5 * noise_like(x0, generator)

        def given(x: Tensor) -> Tensor:
            return denoiser.energy(x, s, condition) + 0.5 * ((xt - a * x) ** 2 / b2).flatten(1).sum(1)

        start = t.shrinkage(s, denoiser.sigma_data) * xt
        negatives, _ = self.moves(given, start, generator, t.posterior(s).variance)
        return _contrast(denoiser.energy(xs, s, condition), denoiser.energy(negatives, s, condition))
