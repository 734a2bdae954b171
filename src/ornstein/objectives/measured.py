"""The variational bound of a model, measured: the terms of a chain, and the cost of every step between levels.

The terms are those of `ornstein.objectives.bound`. The prior's is exact; each step's is one prediction from freshly
noised data, unbiased, and so is their sum.

**Every sub-grid at once.** The expected cost of a step depends on the denoiser only through E|x0_hat - x_0|^2 at its
upper end. N evaluations therefore give the costs of all N(N+1)/2 steps between N levels: `x0_errors` measures the
errors, `step_costs` computes the costs, and `ornstein.distill.grid` finds the cheapest grid.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser
from ornstein.core.drive import Noise, sample_seeds
from ornstein.core.prediction import Prediction
from ornstein.core.process import Process
from ornstein.errors import InputError
from ornstein.objectives.bound import (
    Bins,
    chain_times,
    check_whole,
    coefficients,
    decoder_nats,
    prior_nats,
    steps_of,
    widest,
)


@dataclass(frozen=True, eq=False)
class Bound:
    """An upper bound on -log p(x_0), term by term.

    Attributes:
        times: (n + 1,) float64, the grid that the bound belongs to, falling to 0.
        terms: (B, n + 1) float64, nats. terms[:, 0] is L_T, of the prior at times[0]; terms[:, i] is of the step from
            times[i - 1] to times[i]; the last, L_0, is the decoder's.
        dims: the number of elements of a sample.
        bins: the levels of the data, where the terms are of probabilities and not of densities in model space.
    """

    times: Tensor
    terms: Tensor
    dims: int
    bins: Bins | None

    @property
    def total(self) -> Tensor:
        """(B,) nats: the bound on -log p of each sample."""
        return self.terms.sum(1)

    @property
    def mean(self) -> float:
        """Nats, averaged over the samples."""
        return float(self.total.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of `mean`, in nats, from the choice of samples and of noise; NaN for a single sample."""
        return float(self.total.std() / math.sqrt(len(self.terms)))

    def bits_per_dim(self, log_abs_det: "Tensor | float | None" = None) -> Tensor:
        """(B,) bits per dimension of the original data.

        Args:
            log_abs_det: of the map from the data's own units to model space, nats, (B,) or a number, for continuous
                data (`Transform.log_abs_det`); None for data already in their units. Quantised data take none: the
                probability of a level has no units.

        Raises:
            InputError: log_abs_det for quantised data.
        """
        if log_abs_det is not None and self.bins is not None:
            raise InputError("log_abs_det does not apply to a bound with bins: the probability of a level has no unit.")
        total = self.total if log_abs_det is None else self.total - log_abs_det
        return total / (self.dims * math.log(2))


def variational_bound(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    condition: Given = None,
    steps: int | None = None,
    grid: "str | Sequence[float] | Tensor | None" = None,
    variance: "str | Tensor" = "small",
    bins: Bins | None = None,
    draws: int = 1,
    batch: int = 256,
    seed: int | None = None,
    seeds: "Sequence[int] | Tensor | None" = None,
    generator: torch.Generator | None = None,
) -> Bound:
    """Every term of the variational bound of the chain that walks this grid: n network calls a sample and draw.

    The terms of the steps are unbiased by drawing noise, a function of the sample's seed and of the step; L_T is
    exact.

    Args:
        denoiser: the model; its process is the clock.
        x0: (B, ...) data in model space.
        condition: what each sample is given, with B rows; see `Condition.of`.
        steps, grid: the chain, as for sampling (`grids.times`). By default every level of a chain, or 1,000 steps in
            continuous time.
        variance: of the steps: "small", "large", "learned"; or (n,) numbers, the last the decoder's.
        bins: the levels of quantised data; None for continuous data.
        draws: draws of noise for each term, which are averaged.
        batch: samples per network call.
        seed, seeds, generator: one source of randomness.

    Raises:
        InputError: a grid, variance, bins or seeds that do not fit, or "learned" where nothing was.
    """
    falling = chain_times(denoiser.process, steps, grid, denoiser.unit)
    chain = steps_of(denoiser.process, falling, variance)
    if bins is not None:
        bins.check(x0)
    keys = sample_seeds(len(x0), seed, seeds, generator)
    terms = widest(torch.zeros(len(x0), len(falling), device=denoiser.device))
    given = Condition.of(condition).matches(len(x0), "x0")
    for i, rows, prediction, clean in _predictions(denoiser, x0, given, falling, keys, draws, batch):
        terms[rows, i + 1] += chain.nats(i, prediction, clean, bins) / draws
    terms[:, 0] = prior_nats(denoiser.process.at(float(falling[0])), denoiser.sigma_data, x0)
    return Bound(falling, terms.double().cpu(), x0[0].numel(), bins)


@dataclass(frozen=True, eq=False)
class Errors:
    """What gives the bound of every sub-grid: averages over data, from one network call per level.

    Attributes:
        times: (N + 1,) float64, falling to 0.
        error: (N,) E|x0_hat - x_0|^2 at times[i], summed over the elements of a sample.
        prior: (N,) nats, L_T of a chain that starts at times[i].
        decoder: (N,) nats, L_0 of a chain whose last noisy level is times[i].
        dims: the number of elements of a sample.
    """

    times: Tensor
    error: Tensor
    prior: Tensor
    decoder: Tensor
    dims: int


def x0_errors(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    condition: Given = None,
    steps: int | None = None,
    grid: "str | Sequence[float] | Tensor | None" = None,
    bins: Bins | None = None,
    draws: int = 1,
    batch: int = 256,
    seed: int | None = None,
    seeds: "Sequence[int] | Tensor | None" = None,
    generator: torch.Generator | None = None,
) -> Errors:
    """Measure the error of x0 at every level of a grid, and the cost of the prior and of the decoder there.

    Arguments as for `variational_bound`; the decoder's variance is that of "small" and "large", sigma^2.
    """
    process = denoiser.process
    falling = chain_times(process, steps, grid, denoiser.unit)
    if bins is not None:
        bins.check(x0)
    keys = sample_seeds(len(x0), seed, seeds, generator)
    levels = process.levels(falling)[:-1]
    error, decoder = (widest(torch.zeros(len(levels), device=denoiser.device)) for _ in range(2))
    share = 1 / (len(x0) * draws)
    given = Condition.of(condition).matches(len(x0), "x0")
    for i, _, prediction, clean in _predictions(denoiser, x0, given, falling, keys, draws, batch):
        error[i] += share * (widest(prediction.x0) - widest(clean)).square().sum()
        decoder[i] += share * last_nats(prediction, clean, bins).sum()
    prior = [prior_nats(level, denoiser.sigma_data, x0).double().mean().cpu() for level in levels]
    return Errors(falling, error.double().cpu(), torch.stack(prior), decoder.double().cpu(), x0[0].numel())


def step_costs(process: Process, errors: Errors, variance: str = "small") -> Tensor:
    """The cost in the bound of every step between the levels of a grid, (N + 1, N + 1) float64 nats.

    costs[i, j], for i < j, is the step from times[i] to times[j], the decoder where times[j] = 0; costs[i, i] is the
    prior of a chain that starts at times[i]; all else is infinite. The bound of a sub-grid is the sum along it.

    Args:
        process: the clock of the errors.
        errors: from `x0_errors`.
        variance: "small" or "large". (With a learned variance the cost does not follow from the error alone.)

    Raises:
        InputError: another variance.
    """
    if variance not in ("small", "large"):
        raise InputError(f"variance={variance!r} must be 'small' or 'large': the price of another needs more than E.")
    small, large, from_x0 = coefficients(process, errors.times[:-1, None], errors.times[None, 1:])
    v = small if variance == "small" else large
    ratio = small / v
    priced = 0.5 * (errors.dims * (ratio - 1 - ratio.log()) + from_x0**2 / v * errors.error[:, None])
    n = len(errors.error)
    costs = torch.full((n + 1, n + 1), math.inf, dtype=torch.float64)
    later = torch.ones(n, n, dtype=torch.bool).triu()  # times[i] to times[j + 1]
    costs[:n, 1:] = torch.where(later, priced, math.inf)
    costs[:n, n] = errors.decoder
    costs.diagonal()[:n] = errors.prior
    return costs


def slices(n: int, batch: int) -> list[slice]:
    """The rows of each batch of n samples."""
    check_whole(batch=batch)
    return [slice(start, min(start + batch, n)) for start in range(0, n, batch)]


def placed(
    denoiser: Denoiser, x0: Tensor, condition: Condition, keys: Tensor, rows: slice
) -> tuple[Tensor, Condition, Tensor]:
    """Some rows of data, condition and seeds where the denoiser expects them."""
    device = denoiser.device
    return x0[rows].to(device), condition[rows].to(device), keys[rows].to(device)


def _predictions(
    denoiser: Denoiser, x0: Tensor, condition: Condition, falling: Tensor, keys: Tensor, draws: int, batch: int
) -> Iterator[tuple[int, slice, Prediction, Tensor]]:
    """Every step's prediction from freshly noised data: (step, rows, prediction, the clean rows)."""
    check_whole(draws=draws)
    levels = denoiser.process.levels(falling)[:-1]
    for rows in slices(len(x0), batch):
        clean, given, seeded = placed(denoiser, x0, condition, keys, rows)
        noise = Noise(seeded, tuple(clean.shape[1:]), clean.dtype)
        for i, level in enumerate(levels):
            for _ in range(draws):
                with torch.no_grad():
                    prediction = denoiser(level.noised(clean, noise()), level, given)
                yield i, rows, prediction, clean


def last_nats(prediction: Prediction, x0: Tensor, bins: Bins | None) -> Tensor:
    """The decoder's term, (B,), of a last step from the prediction's level: its variance is the step's, sigma^2."""
    log_var = torch.as_tensor(prediction.level.sigma, dtype=torch.float64).square().log()
    return decoder_nats(widest(x0), widest(prediction.x0), log_var, bins).flatten(1).sum(1)
