"""The variational bound in continuous time: the likelihood-weighted loss, as a measure and as an objective.

With finer and finer steps the sum of `ornstein.objectives.bound` becomes an integral,
1/2 * integral of |x0_hat - x_0|^2 d(SNR), or equally the score matching loss with *likelihood weighting* g^2 (Song et
al. 2021, 2101.09258; Huang et al. 2021, 2106.02808):

    1/2 * integral of g^2 |s(x_t, t) - grad log q(x_t given x_0)|^2 dt = 1/2 * integral of |eps_hat - eps|^2 dlambda,

with lambda = log SNR. The clock drops out, and the error of the noise varies little with lambda; so Song's importance
sampling of times, with density proportional to g^2/sigma^2, simply means times even in log-SNR. At the lower end
quantised data are read off x_t itself, p(x_0 given x_t) proportional to q(x_t given x_0) over the levels (Kingma et al.
2021, 2107.00630), which is exact if the noise is well below their distance. So that end may lie as high as the levels
can be told from each other: of black and white at -1 and 1, sigma/alpha = 0.25 is enough. Below it nothing is left to
learn, but errors of the network are weighted by the signal-to-noise ratio.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser
from ornstein.core.drive import Noise, sample_seeds
from ornstein.core.grids import ends
from ornstein.core.numerics import noise_like, normal, strata
from ornstein.core.process import Process
from ornstein.errors import InputError
from ornstein.objectives.bound import Bins, check_whole, prior_nats, widest
from ornstein.objectives.measured import Bound, last_nats, placed, slices


@dataclass(frozen=True)
class LikelihoodWeighted:
    """Score matching with likelihood weighting: the bound's integral in continuous time, in bits per dimension.

    Args:
        importance: draw times even in log-SNR, where the weight is constant, instead of uniform.
        stratified: draw the times of a batch evenly spread.
        drop_label: the probability of training a sample without its label.
        least: the noise ratio sigma/alpha down to which the integral goes; None for the least that networks are asked.
    """

    importance: bool = True
    stratified: bool = True
    drop_label: float = 0.1
    least: float | None = None

    def __post_init__(self) -> None:
        if self.least is not None and not 0 < self.least < math.inf:
            raise InputError(f"least={self.least!r} must be a noise ratio above 0, such as 0.25.")
        if not 0 <= self.drop_label <= 1:
            raise InputError(f"drop_label={self.drop_label!r} must be a probability in [0, 1].")

    def __call__(self, denoiser: Denoiser, x0: Tensor, condition: Given, generator: torch.Generator) -> Tensor:
        """The loss of each sample, (B,): x0 (B, ...) in model space, and a condition of B rows."""
        t = self.draw_times(denoiser.process, len(x0), generator, denoiser.unit).to(x0.device)
        eps = noise_like(x0, generator)
        condition = Condition.of(condition).dropped(self.drop_label, generator)
        return self.nats_at(denoiser, x0, t, eps, condition) / (x0[0].numel() * math.log(2))

    def draw_times(self, process: Process, n: int, generator: torch.Generator, sigma_data: float = 1.0) -> Tensor:
        """n times, (n,) float64: the first thing that a call draws from its generator."""
        return self.times(process, strata(n, generator, self.stratified), sigma_data)

    def times(self, process: Process, u: Tensor, sigma_data: float = 1.0) -> Tensor:
        """The times that uniform numbers in (0, 1) stand for."""
        low, high = self.span(process, sigma_data)
        if not self.importance:
            return low + (high - low) * u
        at_low, at_high = (process.at(t).log_snr for t in (low, high))
        return process.time(at_low + (at_high - at_low) * u)

    def span(self, process: Process, sigma_data: float) -> tuple[float, float]:
        """The times that the integral goes over: a chain's network has seen none below level 1.

        Raises:
            InputError: `least` is beyond the most that a network is asked.
        """
        low, high = ends(process, sigma_data)
        if self.least is not None:
            low = max(low, float(process.time(-2 * math.log(self.least))))
            if low >= high:
                raise InputError(
                    f"least={self.least!r} leaves no noise: sigma/alpha ends at {process.at(high).noise_ratio:.3g}."
                )
        return (low if process.chain is None else max(low, 1.0)), high

    def nats_at(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, condition: Given) -> Tensor:
        """The estimate of the integral from a random time t, (B,), in nats, (B,)."""
        process = denoiser.process
        level = process.at(t, like=x0)
        low, high = (process.at(end) for end in self.span(process, denoiser.unit))
        rate = low.log_snr - high.log_snr if self.importance else (high.t - low.t) * level.g2 / level.sigma**2
        error = (denoiser(level.noised(x0, eps), level, condition).x0 - x0) ** 2
        return (0.5 * rate * (level.alpha / level.sigma) ** 2 * error).flatten(1).sum(1)


def likelihood_weighted(
    importance: bool = True, stratified: bool = True, drop_label: float = 0.1, least: float | None = None
) -> LikelihoodWeighted:
    """Score matching weighted by g^2, whose loss bounds the likelihood (Song et al. 2021, 2101.09258)."""
    return LikelihoodWeighted(importance, stratified, drop_label, least)


def continuous_bound(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    condition: Given = None,
    importance: bool = True,
    least: float | None = None,
    bins: Bins | None = None,
    draws: int = 32,
    batch: int = 256,
    seed: int | None = None,
    seeds: "Sequence[int] | Tensor | None" = None,
    generator: torch.Generator | None = None,
) -> Bound:
    """The bound in continuous time: the integral over all noise levels by `draws` random ones for each sample.

    Its grid has two steps, and its terms three columns: the prior, the integral between the two ends at which a
    network is asked (`grids.ends`; on a chain, down to level 1), and the decoder at the lower one: Gaussian of variance
    sigma^2, or the posterior of the levels. One sample's times are even, with a random shift.

    Args:
        importance: draw times even in log-SNR, density proportional to g^2/sigma^2, instead of uniform; either is
            unbiased.
        least: the noise ratio that the integral ends at; see `LikelihoodWeighted`.
        draws: network calls per sample, besides one for a Gaussian decoder.
        denoiser, x0, condition, bins, batch, seed, seeds, generator: as for `variational_bound`.

    Raises:
        InputError: bins or seeds that do not fit.
    """
    process = denoiser.process
    check_whole(draws=draws)
    weighting = LikelihoodWeighted(importance, least=least)
    low, high = weighting.span(process, denoiser.unit)
    falling = torch.tensor([high, low, 0.0], dtype=torch.float64)
    if bins is not None:
        bins.check(x0)
    keys = sample_seeds(len(x0), seed, seeds, generator)
    terms = widest(torch.zeros(len(x0), 3, device=denoiser.device))
    last = process.at(low)
    shift = torch.special.ndtr(normal(keys, (1,), 0, torch.float64))[:, 0]
    condition = Condition.of(condition).matches(len(x0), "x0")
    for rows in slices(len(x0), batch):
        clean, given, seeded = placed(denoiser, x0, condition, keys, rows)
        noise = Noise(seeded, tuple(clean.shape[1:]), clean.dtype, draws=1)
        with torch.no_grad():
            for draw in range(draws):
                t = weighting.times(process, (shift[rows] + draw) / draws, denoiser.unit).to(clean.device)
                nats = weighting.nats_at(denoiser, clean, t, noise(), given)
                terms[rows, 1] += nats / draws
            noisy = last.noised(clean, noise())
            if bins is None:
                nats = last_nats(denoiser(noisy, last, given), clean, None)
            else:
                place, ratio = widest(noisy) / last.alpha, last.noise_ratio
                nats = bins.posterior_nats(widest(clean), place, ratio).flatten(1).sum(1)
            terms[rows, 2] = nats
    terms[:, 0] = prior_nats(process.at(high), denoiser.sigma_data, x0)
    return Bound(falling, terms.double().cpu(), x0[0].numel(), bins)
