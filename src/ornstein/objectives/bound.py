"""The variational bound: how many bits a diffusion model needs for a datum.

Read as a latent-variable model, a chain t_0 > t_1 > ... > t_n = 0 has a prior p(x_{t_0}) and Gaussian steps
p(x_s given x_t). The forward process, which is fixed, gives the posterior of the latents, and Jensen's inequality

    -log p(x_0) <= L_T + sum over steps t -> s of L_t + L_0                                         (in nats)
    L_T = KL( q(x_{t_0} given x_0) || prior )
    L_t = E KL( q(x_s given x_t, x_0) || p(x_s given x_t) )
    L_0 = E[ -log p(x_0 given x_{t_{n-1}}) ],      the decoder

(Sohl-Dickstein et al. 2015, 1503.03585; Ho et al. 2020, 2006.11239, equation 5). The prior is the one that sampling
starts from, N(0, alpha^2 sigma_data^2 + sigma^2), which is N(0, I) for a variance-preserving clock and unit data.

**A step** has the posterior's mean with x0_hat in the place of x_0, so with variances `small` of the posterior and V
of the model, and c the posterior's coefficient of x_0, each element costs

    L_t = 1/2 [ log(V/small) + small/V - 1 + c^2 |x0_hat - x_0|^2 / V ].

V is "small" itself, or "large", the step's b^2 (the lower and upper bounds of the true reverse variance, for data at
a point and data N(0, I)), or "learned" between the two on a log scale (Nichol & Dhariwal 2021, 2102.09672, equation
15). With "small", L_t = (SNR_s - SNR_t)/2 |x0_hat - x_0|^2: only the signal-to-noise ratios count (Kingma et al.
2021, 2107.00630), and Ho's weight beta^2/(2 sigma^2 alpha (1 - alpha_bar)) on the noise is the same number.

**The decoder** is the last step, N(x0_hat, V): for continuous data its density; for data on a grid of levels, the
probability of the bin around the datum, the outermost bins open to infinity (`Bins`). There the posterior's own
variance is zero, and no model. "small" and "large" both take the step's b^2 = sigma^2; "learned" ranges, as in
Nichol's code, from the posterior variance of the step above to b^2.

A chain and the same chain respaced are different models with different bounds: the bound belongs to its grid.

**Continuous time.** With finer and finer steps the sum becomes an integral, 1/2 * integral of |x0_hat - x_0|^2
d(SNR), or equally the score matching loss with *likelihood weighting* g^2 (Song et al. 2021, 2101.09258;
Huang et al. 2021, 2106.02808):

    1/2 * integral of g^2 |s(x_t, t) - grad log q(x_t given x_0)|^2 dt = 1/2 * integral of |eps_hat - eps|^2 dlambda,

with lambda = log SNR. No clock is left in it, and the error of the noise varies little with lambda; so Song's
importance sampling of times, density proportional to g^2/sigma^2, is nothing but times even in log-SNR. At the lower
end quantised data are read off x_t itself, p(x_0 given x_t) proportional to q(x_t given x_0) over the levels (Kingma
et al. 2021), which is exact where noise is well below their distance.

**Every sub-grid at once.** The expected cost of a step depends on the denoiser through E|x0_hat - x_0|^2 at its upper
end alone. N evaluations therefore price all N(N+1)/2 steps between N levels: `x0_errors` measures, `step_costs`
prices, and `ornstein.samplers.schedule` finds the cheapest grid.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from ornstein.core.denoiser import Denoiser
from ornstein.core.drive import sample_seeds
from ornstein.core.grids import ends, times
from ornstein.core.numerics import normal, strata
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.errors import InputError, lookup
from ornstein.objectives.regression import drop_labels

#: steps of a chain made of a process in continuous time, where nothing is said
STEPS = 1000


@dataclass(frozen=True)
class Bins:
    """The grid on which quantised data lie in model space: `count` levels even over [low, high].

    A byte is Bins(256), scikit-learn's digits Bins(17).
    """

    count: int
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 2:
            raise InputError(f"count={self.count!r} must be a whole number of levels, at least 2.")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(f"low={self.low!r} and high={self.high!r} must be finite and rising.")

    @property
    def width(self) -> float:
        """Distance of two neighbouring levels."""
        return (self.high - self.low) / (self.count - 1)

    def check(self, x0: Tensor) -> None:
        """Refuse data that do not lie on the levels."""
        place = (x0.double() - self.low) / self.width
        off = (place - place.round().clamp(0, self.count - 1)).abs()
        if bool((off > 0.01).any()):
            value = float(x0.flatten()[off.argmax()])
            raise InputError(
                f"x0 holds {value:g}, which is none of the {self.count} levels from {self.low:g} to {self.high:g}: "
                "give the data's own levels, or bins=None for continuous data."
            )

    def nats(self, x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        """-log of the probability that N(mean, exp(log_var)) gives the bin of each x0: same shape.

        Logarithms of tails all the way, so that a bin a thousand deviations off has its price and its gradient.
        """
        half, inverse = self.width / 2, (-0.5 * log_var).exp()
        lower, upper = (x0 - half - mean) * inverse, (x0 + half - mean) * inverse
        # mirrored, where need be, into the lower tail, where small probabilities keep their digits
        mirrored = lower + upper > 0
        near = torch.special.log_ndtr(torch.where(mirrored, -lower, upper))
        far = torch.special.log_ndtr(torch.where(mirrored, -upper, lower))
        inside = near + torch.log(-torch.expm1(far - near))
        lowest, highest = x0 < self.low + half, x0 > self.high - half
        outside = torch.special.log_ndtr(torch.where(lowest, upper, -lower))
        return -torch.where(lowest | highest, outside, inside)

    def posterior_nats(self, x0: Tensor, place: Tensor, ratio: float) -> Tensor:
        """-log of the probability of each x0's level where x0 + ratio * noise was seen at `place`: same shape.

        All levels are held equally likely beforehand; those further than twelve deviations are left out.
        """
        centre = ((place - self.low) / self.width).round().clamp(0, self.count - 1)
        total = torch.full_like(place, -math.inf)
        for offset in range(1 - self.count, self.count):
            if abs(offset) * self.width > 12 * ratio + self.width:
                continue
            k = centre + offset
            logit = -0.5 * ((place - self.low - k * self.width) / ratio) ** 2
            total = torch.logaddexp(total, torch.where((k >= 0) & (k < self.count), logit, -math.inf))
        return total + 0.5 * ((place - x0) / ratio) ** 2


def _decoder_nats(x0: Tensor, mean: Tensor, log_var: Tensor, bins: Bins | None) -> Tensor:
    """L_0 of each element: of the datum's bin, or of its density."""
    if bins is not None:
        return bins.nats(x0, mean, log_var)
    return 0.5 * ((x0 - mean) ** 2 * (-log_var).exp() + log_var + math.log(2 * math.pi))


def _prior_nats(first: Level, sigma_data: float, x0: Tensor) -> Tensor:
    """L_T of each sample, (B,): from q(x_t given x_0) at the first level to the noise that sampling starts from."""
    signal, noise = float(first.alpha) ** 2, float(first.sigma) ** 2
    spread = signal * sigma_data**2 + noise
    squares = _wide(x0).flatten(1).square().mean(1)
    return 0.5 * x0[0].numel() * (signal * (squares - sigma_data**2) / spread + math.log(spread / noise))


def _wide(x: Tensor) -> Tensor:
    """x in the type that bounds are computed in: sums of many small terms, float64 where the device has it."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


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
        """Of `mean`, in nats: from the choice of samples and of noise alike. NaN for a single sample."""
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
    cond: Tensor | None = None,
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
        cond: (B, ...) the condition.
        steps, grid: the chain, as for sampling (`grids.times`). Nothing said: every level of a chain, or 1,000 steps
            in continuous time.
        variance: of the steps: "small", "large", "learned"; or (n,) numbers, the last the decoder's.
        bins: the levels of quantised data; None for continuous data.
        draws: of noise for each term, averaged.
        batch: samples per network call.
        seed, seeds, generator: one source of randomness.

    Raises:
        InputError: a grid, variance, bins or seeds that do not fit, or "learned" where nothing was.
    """
    falling = _grid(denoiser.process, steps, grid)
    chain = _steps_of(denoiser.process, falling, variance)
    if bins is not None:
        bins.check(x0)
    keys = sample_seeds(len(x0), seed, seeds, generator)
    terms = _wide(torch.zeros(len(x0), len(falling), device=denoiser.device))
    for i, rows, prediction, clean in _predictions(denoiser, x0, cond, falling, keys, draws, batch):
        terms[rows, i + 1] += chain.nats(i, prediction, clean, bins) / draws
    terms[:, 0] = _prior_nats(denoiser.process.at(float(falling[0])), denoiser.sigma_data, x0)
    return Bound(falling, terms.double().cpu(), x0[0].numel(), bins)


def continuous_bound(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    cond: Tensor | None = None,
    importance: bool = True,
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
        draws: network calls per sample, besides one for a Gaussian decoder.
        denoiser, x0, cond, bins, batch, seed, seeds, generator: as for `variational_bound`.

    Raises:
        InputError: bins or seeds that do not fit.
    """
    process = denoiser.process
    _check_whole(draws=draws)
    low, high = _span(process)
    falling = torch.tensor([high, low, 0.0], dtype=torch.float64)
    if bins is not None:
        bins.check(x0)
    keys = sample_seeds(len(x0), seed, seeds, generator)
    terms = _wide(torch.zeros(len(x0), 3, device=denoiser.device))
    weighting, last = Likelihood(importance), process.at(low)
    shift = torch.special.ndtr(normal(keys, (1,), 0, torch.float64))[:, 0]
    for rows in _slices(len(x0), batch):
        clean, given, seeded = _placed(denoiser, x0, cond, keys, rows)
        shape = tuple(clean.shape[1:])
        with torch.no_grad():
            for draw in range(draws):
                t = weighting.times(process, (shift[rows] + draw) / draws).to(clean.device)
                nats = weighting.nats_at(denoiser, clean, t, normal(seeded, shape, draw + 1, clean.dtype), given)
                terms[rows, 1] += nats / draws
            noisy = last.noised(clean, normal(seeded, shape, draws + 1, clean.dtype))
            if bins is None:
                nats = _last_nats(denoiser(noisy, last, given), clean, None)
            else:
                place, ratio = _wide(noisy) / last.alpha, float(last.noise_ratio)
                nats = bins.posterior_nats(_wide(clean), place, ratio).flatten(1).sum(1)
            terms[rows, 2] = nats
    terms[:, 0] = _prior_nats(process.at(high), denoiser.sigma_data, x0)
    return Bound(falling, terms.double().cpu(), x0[0].numel(), bins)


@dataclass(frozen=True, eq=False)
class Errors:
    """What the bound of every sub-grid is made from: averages over data, from one network call per level.

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
    cond: Tensor | None = None,
    steps: int | None = None,
    grid: "str | Sequence[float] | Tensor | None" = None,
    bins: Bins | None = None,
    draws: int = 1,
    batch: int = 256,
    seed: int | None = None,
    seeds: "Sequence[int] | Tensor | None" = None,
    generator: torch.Generator | None = None,
) -> Errors:
    """Measure the error of x0 at every level of a grid, and what the chain would pay at both ends there.

    Arguments as for `variational_bound`; the decoder's variance is that of "small" and "large", sigma^2.
    """
    process = denoiser.process
    falling = _grid(process, steps, grid)
    if bins is not None:
        bins.check(x0)
    keys = sample_seeds(len(x0), seed, seeds, generator)
    levels = process.levels(falling)[:-1]
    error, decoder = (_wide(torch.zeros(len(levels), device=denoiser.device)) for _ in range(2))
    share = 1 / (len(x0) * draws)
    for i, _, prediction, clean in _predictions(denoiser, x0, cond, falling, keys, draws, batch):
        error[i] += share * (_wide(prediction.x0) - _wide(clean)).square().sum()
        decoder[i] += share * _last_nats(prediction, clean, bins).sum()
    prior = [_prior_nats(level, denoiser.sigma_data, x0).double().mean().cpu() for level in levels]
    return Errors(falling, error.double().cpu(), torch.stack(prior), decoder.double().cpu(), x0[0].numel())


def step_costs(process: Process, errors: Errors, variance: str = "small") -> Tensor:
    """The bound's price of every step between the levels of a grid, (N + 1, N + 1) float64 nats.

    costs[i, j], for i < j, is the step from times[i] to times[j], the decoder where times[j] = 0; costs[i, i] is the
    prior of a chain that starts at times[i]; all else is infinite. The bound of a sub-grid is the sum along it.

    Args:
        process: the clock of the errors.
        errors: from `x0_errors`.
        variance: "small" or "large". (A learned variance is not priced by the error alone.)

    Raises:
        InputError: another variance.
    """
    if variance not in ("small", "large"):
        raise InputError(f"variance={variance!r} must be 'small' or 'large': the price of another needs more than E.")
    small, large, from_x0 = _coefficients(process, errors.times[:-1, None], errors.times[None, 1:])
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


def importance(bound: Bound, parts: int = 50) -> tuple[float, ...]:
    """How often to train each part of a chain: sqrt(E[L_t^2]), by `parts` equal runs of steps, summing to 1.

    Drawing steps in this proportion gives the estimate of the bound its least variance (Nichol & Dhariwal 2021,
    2102.09672, equation 18). This table is measured once, on a model trained for a while, and stated in the experiment
    (`bound(importance=...)`); `bound(adaptive=True)` follows the losses as the training goes.
    """
    squares = bound.terms[:, 1:].square().mean(0)
    n = len(squares)
    _check_whole(parts=parts)
    part = torch.arange(n) * min(parts, n) // n
    sums = torch.zeros(min(parts, n), dtype=torch.float64).index_add(0, part, squares)
    found = (sums / torch.bincount(part)).sqrt()
    return tuple((found / found.sum()).tolist())


@dataclass(frozen=True, eq=False)
class _Steps:
    """The steps of a chain: all that their terms depend on, besides the error of x0; tables over n steps, float64.

    `small` and `large` are the variances that a learned one lies between, `fixed` the one that is not learned.
    """

    times: Tensor
    small: Tensor
    large: Tensor
    from_x0: Tensor
    fixed: Tensor | None

    def nats(self, i: "int | Tensor", prediction: Prediction, x0: Tensor, bins: Bins | None) -> Tensor:
        """The term of step i, (B,): one step for all, or (B,) steps."""
        clean, mean = _wide(x0), _wide(prediction.x0)

        def of(table: Tensor) -> Tensor:
            if isinstance(i, Tensor):
                return table.to(clean)[i].reshape(-1, *[1] * (x0.ndim - 1))
            return table[i]

        log_small, log_large = of(self.small).log(), of(self.large).log()
        log_var = prediction.log_variance(log_small, log_large) if self.fixed is None else of(self.fixed).log()
        decoder = len(self.small) - 1
        if isinstance(i, int) and i == decoder:
            return _decoder_nats(clean, mean, _wide(log_var), bins).flatten(1).sum(1)
        squares = of(self.small) + of(self.from_x0) ** 2 * (mean - clean) ** 2
        kl = 0.5 * (log_var - log_small - 1 + squares * (-log_var).exp())
        if isinstance(i, Tensor):
            last = (i == decoder).reshape(-1, *[1] * (x0.ndim - 1))
            kl = torch.where(last, _decoder_nats(clean, mean, _wide(log_var), bins), kl)
        return kl.flatten(1).sum(1)


def _coefficients(process: Process, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The variances "small" and "large", and the posterior's coefficient of x_0, of steps from t to s, float64."""
    upper, lower = (Level(process, at, process.alpha(at), process.sigma(at)) for at in (t, s))
    posterior, (_, large) = upper.posterior(lower), upper.kernel_from(lower)
    return posterior.variance, large, posterior.from_x0  # type: ignore[return-value]


def _steps_of(process: Process, falling: Tensor, variance: "str | Tensor") -> _Steps:
    small, large, from_x0 = _coefficients(process, falling[:-1], falling[1:])
    small[-1] = small[-2] if len(small) > 1 else large[-1]  # the decoder's: the posterior's own is zero
    if isinstance(variance, Tensor):
        fixed = variance.detach().to("cpu", torch.float64)
        if fixed.shape != small.shape or not bool((fixed > 0).all()):
            raise InputError(f"variance has shape {tuple(variance.shape)}; it must be {len(small)} positive numbers.")
        return _Steps(falling, small, large, from_x0, fixed)
    known = {"small": torch.cat([small[:-1], large[-1:]]), "large": large, "learned": None}
    return _Steps(falling, small, large, from_x0, lookup(known, variance, "variance"))


def _grid(process: Process, steps: int | None, grid: "str | Sequence[float] | Tensor | None") -> Tensor:
    return times(process, (process.chain or STEPS) if steps is None else steps, grid)


def _span(process: Process) -> tuple[float, float]:
    """The times that the bound in continuous time integrates between: a chain's network has seen none below level 1."""
    low, high = ends(process)
    return (low if process.chain is None else max(low, 1.0)), high


def _check_whole(**values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value!r} must be a positive whole number.")


def _slices(n: int, batch: int) -> list[slice]:
    _check_whole(batch=batch)
    return [slice(start, min(start + batch, n)) for start in range(0, n, batch)]


def _placed(
    denoiser: Denoiser, x0: Tensor, cond: Tensor | None, keys: Tensor, rows: slice
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Some rows of data, condition and seeds where the denoiser expects them."""
    device = denoiser.device
    return x0[rows].to(device), None if cond is None else cond[rows].to(device), keys[rows].to(device)


def _predictions(
    denoiser: Denoiser, x0: Tensor, cond: Tensor | None, falling: Tensor, keys: Tensor, draws: int, batch: int
) -> Iterator[tuple[int, slice, Prediction, Tensor]]:
    """Every step's prediction from freshly noised data: (step, rows, prediction, the clean rows)."""
    _check_whole(draws=draws)
    levels = denoiser.process.levels(falling)[:-1]
    for rows in _slices(len(x0), batch):
        clean, given, seeded = _placed(denoiser, x0, cond, keys, rows)
        for i, level in enumerate(levels):
            for draw in range(draws):
                noise = normal(seeded, tuple(clean.shape[1:]), i * draws + draw, clean.dtype)
                with torch.no_grad():
                    prediction = denoiser(level.noised(clean, noise), level, given)
                yield i, rows, prediction, clean


def _last_nats(prediction: Prediction, x0: Tensor, bins: Bins | None) -> Tensor:
    """The decoder's term, (B,), of a last step from the prediction's level: its variance is the step's, sigma^2."""
    log_var = torch.as_tensor(prediction.level.sigma, dtype=torch.float64).square().log()
    return _decoder_nats(_wide(x0), _wide(prediction.x0), log_var, bins).flatten(1).sum(1)


#: terms of each step that loss-aware sampling looks back on, and the share of all draws that stays uniform
HISTORY, UNIFORM_SHARE = 10, 0.001


def loss_aware(memory: dict[str, Tensor]) -> Tensor:
    """How often to train each step, (n,): sqrt(E[L_t^2]) over its last terms, uniform until every step has enough.

    Nichol & Dhariwal 2021 (2102.09672), equation 18, with a thousandth of the draws uniform, so that no step is lost.
    """
    terms, seen = memory["terms"][:-1], memory["seen"][:-1]
    p = terms.square().mean(1).sqrt()
    p = (1 - UNIFORM_SHARE) * p / p.sum().clamp(min=torch.finfo(p.dtype).tiny) + UNIFORM_SHARE / len(p)
    return torch.where((seen >= HISTORY).all(), p, 1 / len(p))


def note_terms(memory: dict[str, Tensor], i: Tensor, terms: Tensor) -> None:
    """Write the terms (B,) of steps i (B,) into `memory`, over the oldest of each step."""
    nowhere = len(memory["seen"]) - 1  # a row for what is not kept
    order = i.argsort(stable=True)
    i, terms = i[order], terms.detach().to(memory["terms"])[order]
    place = torch.arange(len(i), device=i.device)
    first = torch.searchsorted(i, i)  # of the run of the same step
    rank, left = place - first, torch.searchsorted(i, i, right=True) - 1 - place
    row = torch.where((left < HISTORY) & terms.isfinite(), i, nowhere)
    memory["terms"][row, (memory["seen"][i] + rank) % HISTORY] = terms
    memory["seen"].index_add_(0, i, torch.ones_like(i))
    memory["terms"][nowhere] = 0


@lru_cache(maxsize=64)
def _chain(process: Process, steps: int | None, grid: str | None, variance: str) -> _Steps:
    return _steps_of(process, _grid(process, steps, grid), variance)


@dataclass(frozen=True)
class Variational:
    """The variational bound as an objective: one random term of a sample, weighted so that its mean is the bound.

    In bits per dimension (in model space, where `levels` is 0). One network call.

    Args:
        variance: of the steps: "small", "large" or "learned" (the denoiser must have learned one).
        weight: of the bound in the loss.
        simple: train the mean by the noise regression of `ddpm`, added with weight 1, and let the bound's gradient
            reach the variance only.
        levels: the number of the data's own levels, even over [-1, 1] (256 for bytes); 0 for continuous data.
        steps, grid: the chain: every level of a chain, or 1,000 steps in continuous time, unless said.
        importance: how often to train the parts of the chain, relative numbers for equal runs of steps from the
            noise to the data (see `importance`); () for all alike.
        adaptive: let the losses met so far say how often instead: loss-aware sampling, which has a memory.
        stratified: draw the steps of a batch evenly spread.
        drop_label: the probability of training a sample without its label.

    Raises:
        InputError: numbers out of range, or a learned variance of a denoiser without one.
    """

    variance: str = "small"
    weight: float = 1.0
    simple: bool = False
    levels: int = 0
    steps: int | None = None
    grid: str | None = None
    importance: tuple[float, ...] = ()
    adaptive: bool = False
    stratified: bool = True
    drop_label: float = 0.1

    def __post_init__(self) -> None:
        lookup({"small": 0, "large": 0, "learned": 0}, self.variance, "variance")
        if self.simple and self.variance != "learned":
            raise InputError(f"variance={self.variance!r} leaves the bound nothing to train beside simple=True.")
        if not self.weight > 0:
            raise InputError(f"weight={self.weight!r} must be positive.")
        if self.levels:
            Bins(self.levels)
        object.__setattr__(self, "importance", tuple(self.importance))
        if not all(math.isfinite(p) and p > 0 for p in self.importance):
            raise InputError("importance must be positive numbers: a step never trained would bias the bound.")
        if self.adaptive and self.importance:
            raise InputError("importance is measured as training goes with adaptive=True; give one of the two.")
        if not 0 <= self.drop_label <= 1:
            raise InputError(f"drop_label={self.drop_label!r} must be a probability in [0, 1].")

    @property
    def learns_variance(self) -> bool:
        """Whether the denoiser must predict a variance: a network with `out_multiple=2`."""
        return self.variance == "learned"

    def memory(self, denoiser: Denoiser, x0: Tensor) -> dict[str, Tensor]:
        """What `adaptive` sampling remembers, at its start: the last terms of each step. Else nothing."""
        n = len(self._of(denoiser.process).small) if self.adaptive else 0
        return {"terms": torch.zeros(n + 1, HISTORY), "seen": torch.zeros(n + 1, dtype=torch.long)} if n else {}

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        cond: Tensor | None,
        generator: torch.Generator,
        memory: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """The loss of each sample, (B,): x0 (B, ...) in model space, cond labels (B,) int64 or features, or None."""
        how_often = self._probabilities(denoiser.process, memory)
        i = self._draw_steps(how_often, len(x0), generator).to(x0.device)
        eps = torch.randn(x0.shape, generator=generator, device=generator.device, dtype=x0.dtype).to(x0.device)
        cond = drop_labels(cond, self.drop_label, generator)
        terms, error = self._terms(denoiser, x0, i, eps, cond)
        if memory:
            note_terms(memory, i, terms)
        return self._loss(terms, error, how_often.to(x0.device)[i], denoiser, x0)

    def draw_times(self, process: Process, n: int, generator: torch.Generator) -> Tensor:
        """n times, (n,) float64: the first thing that a call draws from its generator, where it is not adaptive."""
        steps = self._draw_steps(self._probabilities(process, None), n, generator)
        return self._of(process).times[steps.cpu()]

    def loss_at(self, denoiser: Denoiser, x0: Tensor, i: Tensor, eps: Tensor, cond: Tensor | None) -> Tensor:
        """The loss of each sample at given steps i (B,), 0 the noisiest, with given noise, (B,)."""
        terms, error = self._terms(denoiser, x0, i, eps, cond)
        how_often = self._probabilities(denoiser.process, None).to(x0.device)[i]
        return self._loss(terms, error, how_often, denoiser, x0)

    def _terms(
        self, denoiser: Denoiser, x0: Tensor, i: Tensor, eps: Tensor, cond: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The bound's terms of steps i in bits per dimension, (B,) float64, and the mean squared error of the noise."""
        chain, wide = self._of(denoiser.process), _wide(x0)
        level = denoiser.process.at(chain.times.to(wide)[i], like=x0)
        prediction = denoiser(level.noised(x0, eps), level, cond)
        mean = replace(prediction, x0=prediction.x0.detach()) if self.simple else prediction
        terms = chain.nats(i, mean, x0, Bins(self.levels) if self.levels else None)
        error = (level.alpha / level.sigma) ** 2 * (prediction.x0 - x0) ** 2
        return terms / (x0[0].numel() * math.log(2)), error.flatten(1).mean(1)

    def _loss(self, terms: Tensor, error: Tensor, how_often: Tensor, denoiser: Denoiser, x0: Tensor) -> Tensor:
        """An estimate of the objective from one step of each sample, drawn this often, (B,)."""
        chain, how_often = self._of(denoiser.process), how_often.to(terms)
        bits = x0[0].numel() * math.log(2)
        prior = _prior_nats(denoiser.process.at(float(chain.times[0])), denoiser.sigma_data, x0) / bits
        loss = self.weight * (terms / how_often + prior)
        if self.simple:
            loss = loss + error / (len(chain.small) * how_often)
        return loss.to(error.dtype)

    def _of(self, process: Process) -> _Steps:
        return _chain(process, self.steps, self.grid, self.variance)

    def _probabilities(self, process: Process, memory: dict[str, Tensor] | None) -> Tensor:
        """How often each step is drawn, (n,), summing to 1."""
        if memory:
            return loss_aware(memory)
        n = len(self._of(process).small)
        if not self.importance:
            return torch.full((n,), 1 / n, dtype=torch.float64)
        if len(self.importance) > n:
            raise InputError(f"importance has {len(self.importance)} parts, and the chain {n} steps: at most as many.")
        table = torch.tensor(self.importance, dtype=torch.float64)
        p = table[torch.arange(n) * len(table) // n]
        return p / p.sum()

    def _draw_steps(self, how_often: Tensor, n: int, generator: torch.Generator) -> Tensor:
        u = strata(n, generator, self.stratified)
        return torch.searchsorted(how_often.cumsum(0)[:-1].to(u), u, right=True)


@dataclass(frozen=True)
class Likelihood:
    """Score matching with likelihood weighting: the bound's integral in continuous time, in bits per dimension.

    Args:
        importance: draw times even in log-SNR, where the weight is constant, instead of uniform.
        stratified: draw the times of a batch evenly spread.
        drop_label: the probability of training a sample without its label.
    """

    importance: bool = True
    stratified: bool = True
    drop_label: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.drop_label <= 1:
            raise InputError(f"drop_label={self.drop_label!r} must be a probability in [0, 1].")

    def __call__(self, denoiser: Denoiser, x0: Tensor, cond: Tensor | None, generator: torch.Generator) -> Tensor:
        """The loss of each sample, (B,): x0 (B, ...) in model space, cond labels (B,) int64 or features, or None."""
        t = self.draw_times(denoiser.process, len(x0), generator).to(x0.device)
        eps = torch.randn(x0.shape, generator=generator, device=generator.device, dtype=x0.dtype).to(x0.device)
        cond = drop_labels(cond, self.drop_label, generator)
        return self.nats_at(denoiser, x0, t, eps, cond) / (x0[0].numel() * math.log(2))

    def draw_times(self, process: Process, n: int, generator: torch.Generator) -> Tensor:
        """n times, (n,) float64: the first thing that a call draws from its generator."""
        return self.times(process, strata(n, generator, self.stratified))

    def times(self, process: Process, u: Tensor) -> Tensor:
        """The times that uniform numbers in (0, 1) stand for."""
        low, high = _span(process)
        if not self.importance:
            return low + (high - low) * u
        at_low, at_high = (process.at(t).log_snr for t in (low, high))
        return process.time(at_low + (at_high - at_low) * u)  # type: ignore[return-value]

    def nats_at(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, cond: Tensor | None) -> Tensor:
        """What a random time t, (B,), says of the integral, in nats, (B,)."""
        process = denoiser.process
        level = process.at(t, like=x0)
        low, high = (process.at(end) for end in _span(process))
        rate = low.log_snr - high.log_snr if self.importance else (high.t - low.t) * level.g2 / level.sigma**2
        error = (denoiser(level.noised(x0, eps), level, cond).x0 - x0) ** 2
        return (0.5 * rate * (level.alpha / level.sigma) ** 2 * error).flatten(1).sum(1)


def bound(
    variance: str = "small",
    levels: int = 0,
    steps: int | None = None,
    grid: str | None = None,
    importance: tuple[float, ...] = (),
    adaptive: bool = False,
    stratified: bool = True,
    drop_label: float = 0.1,
) -> Variational:
    """The variational bound of the chain, whole, in bits per dimension (Sohl-Dickstein et al. 2015, 1503.03585)."""
    return Variational(variance, 1.0, False, levels, steps, grid, importance, adaptive, stratified, drop_label)


def hybrid(
    weight: float = 0.001,
    levels: int = 0,
    steps: int | None = None,
    grid: str | None = None,
    importance: tuple[float, ...] = (),
    adaptive: bool = False,
    stratified: bool = True,
    drop_label: float = 0.1,
) -> Variational:
    """Predict the noise, and learn the variance by a thousandth of the bound (Nichol & Dhariwal 2021, 2102.09672)."""
    return Variational("learned", weight, True, levels, steps, grid, importance, adaptive, stratified, drop_label)


def likelihood(importance: bool = True, stratified: bool = True, drop_label: float = 0.1) -> Likelihood:
    """Score matching weighted by g^2, whose loss bounds the likelihood (Song et al. 2021, 2101.09258)."""
    return Likelihood(importance, stratified, drop_label)
