"""The variational bound against closed forms, the papers' formulas, and the objectives that train it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from laws import PROCESSES, ZERO_SNR, mixture, refused
from torch import Tensor, nn

from ornstein.core.chains import Tabulated
from ornstein.core.clocks import EDM, VP, Flow
from ornstein.core.denoiser import Denoiser, FunctionDenoiser, NetDenoiser
from ornstein.core.exact import Empirical, Gaussian
from ornstein.core.grids import NOISE_RATIOS, ends, times
from ornstein.core.prediction import Prediction
from ornstein.core.process import Process
from ornstein.data.transform import Affine, WholeNumbers
from ornstein.objectives import OBJECTIVES
from ornstein.objectives.bound import Bins
from ornstein.objectives.continuous import LikelihoodWeighted, continuous_bound, likelihood_weighted
from ornstein.objectives.measured import Bound, Errors, step_costs, variational_bound, x0_errors
from ornstein.objectives.regression import ddpm
from ornstein.objectives.variational import Variational, bound, hybrid, importance, loss_aware, note_terms
from ornstein.samplers import sample
from ornstein.samplers.ancestral import DDPM

LN2 = math.log(2)


def gen(seed: Any = 0) -> Any:
    return torch.Generator().manual_seed(seed)


def mean_and_error(values: Any) -> Any:
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


@dataclass(frozen=True, eq=False)
class OffBy(Denoiser):
    """A denoiser that errs by exactly `offset` in x0, which it is told."""

    process: Process
    x0: Tensor
    offset: float
    sigma_data = 1.0

    def predict(self, x: Any, level: Any, condition: Any) -> Any:
        return Prediction(self.x0 + self.offset, x, level)


def gaussian_errors(process: Process, falling: Tensor, variances: Tensor) -> Errors:
    """What x0_errors would measure on the axes of N(0, variances) with the exact denoiser, exactly."""
    a, s = process.alpha(falling[:-1])[:, None], process.sigma(falling[:-1])[:, None]
    each = variances * s**2 / (a**2 * variances + s**2)
    error, d, spread = each.sum(1), len(variances), variances.mean()
    prior = 0.5 * d * torch.log1p(a**2 * spread / s**2)[:, 0]
    decoder = 0.5 * (error / s[:, 0] ** 2 + d * torch.log(2 * math.pi * s[:, 0] ** 2))
    return Errors(falling, error, prior, decoder, d)


# The bound is one, and tight where it should be -----------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("process", [VP(), EDM(), Flow()], ids=str)
def test_terms_of_a_gaussian_sum_to_its_entropy_with_a_gap_of_order_one_over_n(process: Any, variance: Any) -> None:
    variances = torch.tensor([0.5, 0.2], dtype=torch.float64)
    entropy = 0.5 * float((2 * math.pi * math.e * variances).log().sum())
    gaps = []
    for n in (100, 200, 400, 800):
        ratios = torch.logspace(math.log10(60), math.log10(0.002), n, dtype=torch.float64)
        falling = torch.cat([process.time(-2 * ratios.log()), torch.zeros(1, dtype=torch.float64)])
        costs = step_costs(process, gaussian_errors(process, falling, variances), variance)
        gaps.append(float(costs[0, 0] + costs.diagonal(1).sum()) - entropy)
    orders = [math.log2(a / b) for a, b in pairwise(gaps)]
    assert all(gap > 0 for gap in gaps)
    assert abs(orders[-1] - 1) < 0.1, (gaps, orders)
    assert gaps[-1] < 0.3


@pytest.mark.parametrize("variance", ["small", "large"])
def test_measured_terms_are_those_of_the_closed_form(variance: Any) -> None:
    process, variances = VP(), torch.tensor([0.5, 0.2], dtype=torch.float64)
    distribution = Gaussian(torch.zeros(2), variances)
    x0 = distribution.sample(4000, gen()).double()
    found = variational_bound(distribution.denoiser(process), x0, steps=12, variance=variance, seed=0, batch=4000)
    costs = step_costs(process, gaussian_errors(process, found.times, variances), variance)
    expected = torch.cat([costs[0, 0][None], costs.diagonal(1)])
    error = found.terms.std(0) / math.sqrt(len(x0))
    assert bool(((found.terms.mean(0) - expected).abs() < 4.5 * error + 1e-9).all())
    total = float(expected.sum())
    assert abs(found.mean - total) < 4 * found.standard_error


@pytest.mark.parametrize("name", [*PROCESSES, *ZERO_SNR])
def test_the_bound_of_every_process_is_finite_and_above_the_truth(name: Any) -> None:
    process = (PROCESSES | ZERO_SNR)[name]
    distribution = mixture()
    x0 = distribution.sample(300, gen(2))
    truth = -distribution.log_prob(x0)
    for found in (
        variational_bound(distribution.denoiser(process), x0, steps=8, variance="large", seed=0),
        continuous_bound(distribution.denoiser(process), x0, seed=0, draws=4),
    ):
        assert bool(torch.isfinite(found.terms).all())
        gap, error = mean_and_error(found.total - truth)
        assert gap > -4 * error


def test_the_gap_on_a_mixture_shrinks_as_the_grid_is_refined() -> None:
    distribution, process = mixture(), VP()
    x0 = distribution.sample(4000, gen(3))
    truth = -distribution.log_prob(x0)
    gaps = {}
    for n in (12, 50, 200):
        found = variational_bound(distribution.denoiser(process), x0, steps=n, seed=1, batch=4000, variance="large")
        gaps[n] = mean_and_error(found.total - truth)
    assert gaps[12][0] > gaps[50][0] + 3 * gaps[50][1]
    for gap, error in gaps.values():
        assert gap > -3 * error
    assert abs(gaps[200][0]) < 3 * gaps[200][1] + 0.05


@pytest.mark.parametrize("weighting", [True, False], ids=["importance", "uniform"])
@pytest.mark.parametrize("process", [VP(), Flow(), Tabulated.from_betas()], ids=str)
def test_the_continuous_bound_of_exact_denoisers_is_the_truth(process: Any, weighting: Any) -> None:
    for distribution in (Gaussian(torch.tensor([0.4, -0.1, 0.2]), torch.tensor([0.5, 0.2, 1.0])), mixture()):
        x0 = distribution.sample(500, gen(4)).double()
        found = continuous_bound(distribution.denoiser(process), x0, seed=2, importance=weighting, batch=500)
        gap, error = mean_and_error(found.total + distribution.log_prob(x0))
        assert abs(gap) < 4 * error
        assert not weighting or error < 0.2


def test_a_worse_denoiser_has_a_higher_bound() -> None:
    distribution, process = mixture(), VP()
    x0 = distribution.sample(300, gen(5)).double()
    wrong = FunctionDenoiser(lambda x, level, condition: 0.8 * distribution.posterior_mean(x, level), process)
    measures: list[Callable[[Denoiser], Bound]] = [
        lambda d: variational_bound(d, x0, steps=20, seed=0), lambda d: continuous_bound(d, x0, seed=0),
    ]  # fmt: skip
    for measure in measures:
        gap, error = mean_and_error(measure(wrong).total - measure(distribution.denoiser(process)).total)
        assert gap > 5 * error


# Weights and variances of the papers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_weights_are_those_of_the_papers_computed_from_betas(kind: Any, variance: Any) -> None:
    """Ho et al. 2020, equation 12: beta^2/(2 sigma^2 alpha (1 - alpha_bar)) |eps - eps_hat|^2."""
    n, d = 50, 3
    process = Tabulated.from_betas(kind, n)
    alpha_bar = process.alphas[1:] ** 2
    alpha_bar_before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    betas = 1 - alpha_bar / alpha_bar_before
    small = betas * (1 - alpha_bar_before) / (1 - alpha_bar)
    sigma2 = small if variance == "small" else betas
    weight = betas**2 / (2 * sigma2 * (1 - betas) * (1 - alpha_bar))
    x0 = torch.randn(2, d, generator=gen(), dtype=torch.float64)
    offset = 0.3
    found = variational_bound(OffBy(process, x0, offset), x0, variance=variance, seed=0)
    eps_error = d * (process.alphas[1:] / process.sigmas[1:] * offset) ** 2
    constant = 0.5 * d * ((sigma2 / small).log() + small / sigma2 - 1)
    expected = (weight * eps_error + constant).flip(0)[:-1]  # beta_1 is the decoder's
    torch.testing.assert_close(found.terms[0, 1:-1], expected, rtol=1e-9, atol=0)
    # the decoder is N(x0_hat, beta_1), as the posterior's own variance is zero there
    decoder = 0.5 * d * (offset**2 / betas[0] + torch.log(2 * math.pi * betas[0]))
    torch.testing.assert_close(found.terms[0, -1], decoder, rtol=1e-9, atol=0)


def test_a_term_of_the_ornstein_uhlenbeck_chain_is_gamma_times_denoising_score_matching() -> None:
    """lambda_k = 2 gamma on half the squared error of the score: L_k/(gamma DSM_k) = 1 + O(gamma), at time 0.76."""
    mix, ratios = mixture(), []
    x0 = mix.sample(2000, gen(3)).double()
    for gamma in (0.02, 0.005, 0.00125):
        n = round(0.76 / gamma)
        chain = Tabulated.euler_ou([gamma] * n)
        denoiser = mix.denoiser(chain)
        # the term of the step from level n to n - 1, as the bound measures it, of the same noisy data
        found = variational_bound(denoiser, x0, seed=0, grid=[float(n), n - 1.0]).terms[:, 1]
        level = chain.at(float(n))
        eps = torch.randn(x0.shape, generator=gen(4), dtype=torch.float64)
        xt = level.alpha * x0 + level.sigma * eps
        dsm = (denoiser(xt, level).score + eps / level.sigma).square().sum(1)
        value, error = mean_and_error(found)
        other, spread = mean_and_error(dsm)
        ratio = value / (gamma * other)
        # exact: half the rise of the signal-to-noise ratio over gamma (alpha/sigma^2)^2
        snr = (chain.alphas[-2:] / chain.sigmas[-2:]) ** 2
        exact = float((snr[0] - snr[1]) / (2 * gamma) * (level.sigma**2 / level.alpha) ** 2)
        assert abs(ratio / exact - 1) < 5 * math.hypot(error / value, spread / other)
        ratios.append(exact)
    assert ratios == pytest.approx([1.0532, 1.0129, 1.0032], abs=1e-4)
    assert [math.log(a / b, 4) for a, b in pairwise(r - 1 for r in ratios)] == pytest.approx([1, 1], abs=0.05)


def test_the_weight_on_x0_is_half_the_rise_of_snr_on_any_clock() -> None:
    for process in (VP(), EDM(), Flow(t_max=0.99), Tabulated.from_sigmas(steps=20)):
        x0 = torch.zeros(1, 1, dtype=torch.float64)
        found = variational_bound(OffBy(process, x0, 1.0), x0, steps=10, seed=0)
        snr = (process.alpha(found.times[:-1]) / process.sigma(found.times[:-1])) ** 2
        torch.testing.assert_close(found.terms[0, 1:-1], snr.diff() / 2, rtol=1e-9, atol=0)


def test_the_prior_is_what_sampling_starts_from() -> None:
    process, x0 = VP(), torch.tensor([[0.7, -1.1]], dtype=torch.float64)
    denoiser = FunctionDenoiser(lambda x, level, condition: x, process, sigma_data=0.6)
    found = variational_bound(denoiser, x0, grid=[0.4, 0.1], seed=0)
    level = process.at(0.4)
    q = torch.distributions.Normal(level.alpha * x0, torch.tensor(level.sigma, dtype=torch.float64))
    spread = math.sqrt((level.alpha * 0.6) ** 2 + level.sigma**2)
    p = torch.distributions.Normal(0.0, torch.tensor(spread, dtype=torch.float64))
    torch.testing.assert_close(found.terms[0, 0], torch.distributions.kl_divergence(q, p).sum())
    start = sample(denoiser, (20000, 2), steps=1, grid=[0.4], seed=0)  # the identity: what it started from
    assert abs(float(start.std()) / spread - 1) < 0.02


@dataclass(frozen=True, eq=False)
class BestVariance(Denoiser):
    """The exact denoiser of N(0, spread), which also tells the true variance of each step of a grid."""

    process: Process
    falling: Tensor
    spread: float

    @property
    def sigma_data(self) -> float:  # type: ignore[override]
        return math.sqrt(self.spread)

    def predict(self, x: Any, level: Any, condition: Any) -> Any:
        exact = Gaussian(torch.zeros(x.shape[1]), self.spread).denoiser(self.process)(x, level)
        i = int((self.falling - level.t).abs().argmin())
        s = self.process.at(float(self.falling[i + 1]))
        error = self.spread * level.sigma**2 / (level.alpha**2 * self.spread + level.sigma**2)
        posterior, (_, large) = level.posterior(s), level.kernel_from(s)
        if s.sigma > 0:
            small = posterior.variance
        else:  # Nichol's clip: that of the step above
            small = self.process.at(float(self.falling[i - 1])).posterior(level).variance
        best = posterior.variance + posterior.from_x0**2 * error
        place = math.log(best / small) / math.log(large / small)
        return replace(exact, log_var=torch.full_like(x, place))


@pytest.mark.parametrize("process", [VP(), EDM(), Tabulated.from_betas("cosine", 100)], ids=str)
def test_with_the_right_learned_variance_few_steps_are_exact(process: Any) -> None:
    falling = times(process, 5)
    denoiser = BestVariance(process, falling, 0.4)
    distribution = Gaussian(torch.zeros(3), 0.4)
    x0 = distribution.sample(3000, gen(6)).double()
    truth = -distribution.log_prob(x0)
    learned = variational_bound(denoiser, x0, grid=falling, variance="learned", seed=0)
    gap, error = mean_and_error(learned.total - truth)
    assert abs(gap) < 4 * error
    for variance in ("small", "large"):
        fixed = variational_bound(denoiser, x0, grid=falling, variance=variance, seed=0)
        assert mean_and_error(fixed.total - truth)[0] > 5 * error
    # and so is sampling, up to the last step, which takes the mean
    drawn = [s.x for s in _states(denoiser, falling, DDPM("learned"))][-2].double()
    level = process.at(float(falling[-2]))
    assert abs(float(drawn.var()) / (level.alpha**2 * 0.4 + level.sigma**2) - 1) < 0.02


def _states(denoiser: Any, falling: Any, stepper: Any) -> Any:
    from ornstein.core.drive import trajectory

    return trajectory(denoiser, (20000, 3), stepper, grid=falling, seed=0)


# The decoder of quantised data ----------------------------------------------------------------------------------------


def test_bins_are_probabilities_also_far_out() -> None:
    bins = Bins(5, -1.0, 3.0)
    levels = torch.linspace(-1, 3, 5, dtype=torch.float64)
    for mean in (-30.0, -1.2, 0.3, 0.9, 2.6, 40.0):
        for log_var in (-12.0, -3.0, 0.0, 4.0):
            m, v = (torch.full((5,), value, dtype=torch.float64) for value in (mean, log_var))
            nats = bins.nats(levels, m, v)
            assert bool(torch.isfinite(nats).all())
            assert abs(float((-nats).exp().sum()) - 1) < 1e-12
    m = torch.tensor([-400.0, 0.37], dtype=torch.float64, requires_grad=True)
    v = torch.tensor([-2.0, -4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: bins.nats(levels[[2, 1]], a, b), (m, v), rtol=1e-4)
    a, b, s = (torch.tensor(value, dtype=torch.float64) for value in (0.0, 1.0, math.exp(-2.0)))
    expected = -(torch.special.ndtr((b + 0.5 - 0.37) / s) - torch.special.ndtr((b - 0.5 - 0.37) / s)).log()
    torch.testing.assert_close(bins.nats(b[None], a[None] + 0.37, a[None] - 4), expected[None])


@pytest.mark.parametrize("ratio", [0.002, 0.05, 3.0])
def test_the_posterior_of_levels_is_that_of_equal_weights(ratio: Any) -> None:
    bins = Bins(17)
    levels = torch.linspace(-1, 1, 17, dtype=torch.float64)
    place = (2.4 * torch.rand(50, generator=gen(), dtype=torch.float64) - 1.2)[:, None]
    expected = -torch.log_softmax(-0.5 * ((place - levels) / ratio) ** 2, 1)
    found = bins.posterior_nats(levels.expand(50, -1), place.expand(-1, 17), ratio)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def uniform_noise(levels: Tensor, process: Process) -> FunctionDenoiser:
    """The ideal denoiser of independent elements, each any level with equal probability."""

    def x0(x: Any, level: Any, condition: Any) -> Any:
        place = (x / level.alpha).double()[..., None]
        ratio = torch.as_tensor(level.noise_ratio, dtype=torch.float64)[..., None]
        return (torch.softmax(-0.5 * ((place - levels) / ratio) ** 2, -1) @ levels).to(x)

    return FunctionDenoiser(x0, process, float(levels.square().mean().sqrt()))


@pytest.mark.parametrize("process", [VP(), Flow()], ids=str)
def test_black_and_white_take_a_bit_down_to_where_they_can_be_told_apart(process: Any) -> None:
    """Further down nothing is added but what a denoiser errs by, e^2/2 for each unit of the signal-to-noise ratio."""
    levels = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    x0 = levels[torch.randint(2, (200, 16), generator=gen(7))]
    for least in (0.25, None):
        found = continuous_bound(
            uniform_noise(levels, process), x0, bins=Bins(2), least=least, draws=32, seed=1, batch=200
        )
        bits, error = mean_and_error(found.bits_per_dim())
        assert abs(bits - 1) < 4 * error + 1e-3
        assert float(process.at(float(found.times[1])).noise_ratio) == pytest.approx(least or NOISE_RATIOS[0], rel=1e-6)
    found = continuous_bound(OffBy(process, x0, 0.1), x0, bins=Bins(2), least=0.25, draws=32, seed=1, batch=200)
    assert float(found.terms[:, 1].mean()) == pytest.approx(16 * 0.1**2 / 2 / 0.25**2, rel=0.02)
    t = LikelihoodWeighted(least=0.25).draw_times(process, 100, gen(0))
    assert float(t.min()) >= process.time(-2 * math.log(0.25)) - 1e-9


def test_uniform_bytes_take_eight_bits() -> None:
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    x0 = levels[torch.randint(256, (24, 64), generator=gen(7))]
    process = VP()
    denoiser = uniform_noise(levels, process)
    # Three seeds together: one alone is skewed, for few of its draws meet the levels where the integrand lies, and its
    # own error is small when its mean is. Of twelve seeds on these data the pulls are -3.0 to 1.7 (deviation 1.2); of
    # eight of four times the draws, each on data of its own, the mean is 7.993 with standard error 0.011.
    seeds = [continuous_bound(denoiser, x0, bins=Bins(256), draws=64, seed=seed).bits_per_dim() for seed in range(3)]
    pairs = [mean_and_error(found) for found in seeds]
    bits, error = sum(mean for mean, _ in pairs) / 3, math.hypot(*(error for _, error in pairs)) / 3
    assert abs(bits - 8) < 3 * error
    assert error < 0.04
    ratios = torch.logspace(math.log10(20), -3, 1000, dtype=torch.float64)
    grid = process.time(-2 * ratios.log())
    found = variational_bound(denoiser, x0[:8], grid=grid, variance="large", bins=Bins(256), seed=0).bits_per_dim()
    bits, error = mean_and_error(found)
    assert abs(bits - 8 - 0.02) < 3 * error + 0.02  # the gap of a thousand steps is about 0.02
    assert error < 0.06


def test_the_decoder_of_exact_posteriors_is_near_the_discrete_entropy() -> None:
    """Where the first level hides which level a datum had, L_0 is what is hidden: no clip to an absurd variance."""
    bins, levels = Bins(17), torch.linspace(-1, 1, 17, dtype=torch.float64)
    process = EDM()
    denoiser = uniform_noise(levels, process)
    x0 = levels[torch.randint(17, (200, 64), generator=gen(8))]
    for ratio in (0.02, 0.1, 0.2):
        found = variational_bound(denoiser, x0, grid=[5.0, ratio], bins=bins, seed=0)
        noisy = x0 + ratio * torch.randn(x0.shape, generator=gen(9), dtype=torch.float64)
        p = torch.softmax(-0.5 * ((noisy[..., None] - levels) / ratio) ** 2, -1)
        entropy = float(-(p * p.clamp(min=1e-300).log()).sum(-1).mean())
        each = float(found.terms[:, -1].mean()) / 64
        assert entropy - 0.02 < each < 1.15 * entropy + 0.06, (ratio, each, entropy)


def test_the_decoder_agrees_with_the_formula_of_published_code() -> None:
    """Ho et al. and Nichol & Dhariwal give the first step the variance of the second's posterior, in 8-bit bins."""
    process = Tabulated.from_betas("linear", 1000)
    betas = 1 - (process.alphas[1:] / process.alphas[:-1]) ** 2
    alpha_bar = process.alphas[1:] ** 2
    clipped = betas[1] * (1 - alpha_bar[0]) / (1 - alpha_bar[1])  # posterior_variance[1]
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    x0 = levels[torch.randint(256, (20, 30), generator=gen(10))]
    x0[0, :2] = torch.tensor([-1.0, 1.0])
    off = OffBy(process, x0, 0.004)

    @dataclass(frozen=True, eq=False)
    class Lowest(OffBy):
        def predict(self, x: Any, level: Any, condition: Any) -> Any:
            return replace(super().predict(x, level, condition), log_var=torch.zeros_like(x))

    mean, std = x0 + 0.004, clipped.sqrt()
    cdf: Callable[[Tensor], Tensor] = torch.distributions.Normal(0.0, 1.0).cdf
    upper, lower = cdf((x0 - mean + 1 / 255) / std), cdf((x0 - mean - 1 / 255) / std)
    p = torch.where(x0 < -0.999, upper, torch.where(x0 > 0.999, 1 - lower, upper - lower))
    expected = -p.log().sum(1)
    bins, falling = Bins(256), [3.0, 2.0, 1.0]
    learned = variational_bound(
        Lowest(process, x0, 0.004), x0, grid=falling, variance="learned", bins=bins, seed=0
    ).terms[:, -1]
    torch.testing.assert_close(learned, expected, rtol=1e-6, atol=0)
    given = torch.stack([clipped, clipped, clipped])
    stated = variational_bound(off, x0, grid=falling, variance=given, bins=bins, seed=0).terms[:, -1]
    torch.testing.assert_close(stated, expected, rtol=1e-6, atol=0)


# Units, chains, draws -------------------------------------------------------------------------------------------------


def test_bits_are_of_the_original_data() -> None:
    to_model = Affine(3.0, (2.0, 0.5))
    original = Gaussian(torch.tensor([3.0, 3.2]), torch.tensor([4.0, 0.25]))
    x = original.sample(3000, gen(11)).double()
    inside = Gaussian(torch.tensor([0.0, 0.4]), torch.tensor([1.0, 1.0]))
    found = continuous_bound(inside.denoiser(VP()), to_model.forward(x), seed=0, batch=3000)
    truth = -original.log_prob(x) / (2 * LN2)
    gap, error = mean_and_error(found.bits_per_dim(to_model.log_abs_det(x)) - truth)
    assert abs(gap) < 4 * error
    shift, _ = mean_and_error(found.bits_per_dim() - found.bits_per_dim(to_model.log_abs_det(x)))
    assert abs(shift) < 1e-6  # log 2 + log 0.5 = 0 for this map; not so for the next
    other = Affine(0.0, 3.0)
    difference = found.bits_per_dim(other.log_abs_det(x)) - found.bits_per_dim()
    torch.testing.assert_close(difference, torch.full_like(difference, math.log2(3)))
    quantised = Bound(found.times, found.terms, 2, Bins(17))
    refused(lambda: quantised.bits_per_dim(WholeNumbers(17).log_abs_det(x)), "log_abs_det", "bins")


def test_a_respaced_chain_has_its_own_terms() -> None:
    process, distribution = Tabulated.from_betas("cosine", 60), mixture()
    denoiser, x0 = distribution.denoiser(process), distribution.sample(3000, gen(12))
    whole = variational_bound(denoiser, x0, seed=0, variance="large")
    assert whole.terms.shape == (3000, 61)
    assert torch.equal(whole.times, torch.arange(60, -1, -1).double())
    few = variational_bound(denoiser, x0, steps=6, seed=0, variance="large")
    assert torch.equal(few.times, torch.tensor([60.0, 50, 40, 30, 20, 10, 0], dtype=torch.float64))
    assert few.mean > whole.mean + 3 * few.standard_error  # another, worse, model: not a subset of the terms
    # it is the bound of the chain that has those levels and no others
    keep = few.times.flip(0).long()
    short = Tabulated(process.alphas[keep], process.sigmas[keep])
    same = variational_bound(distribution.denoiser(short), x0, seed=0, variance="large")
    torch.testing.assert_close(same.terms, few.terms, rtol=1e-4, atol=1e-4)


def test_errors_price_what_the_bound_measures() -> None:
    process, distribution = Tabulated.from_betas("cosine", 16), mixture()
    x0 = distribution.sample(50, gen(13))
    denoiser = distribution.denoiser(process)
    for bins, data in ((None, x0), (Bins(9, -4.0, 4.0), x0.round().clamp(-4, 4))):
        errors = x0_errors(denoiser, data, seed=4, bins=bins, draws=2)
        for variance in ("small", "large"):
            costs = step_costs(process, errors, variance)
            found = variational_bound(denoiser, data, seed=4, bins=bins, draws=2, variance=variance, batch=7)
            assert bool(torch.isinf(costs.tril(-1)[costs.tril(-1) != 0]).all())
            torch.testing.assert_close(
                torch.cat([costs[0, 0][None], costs.diagonal(1)]), found.terms.mean(0), rtol=1e-6, atol=1e-6
            )


def test_a_sample_has_its_bound_whatever_the_batch() -> None:
    process, distribution = VP(), mixture()
    denoiser, x0 = distribution.denoiser(process), distribution.sample(7, gen(14))
    for measure in (variational_bound, continuous_bound):
        options: dict[str, Any] = {"steps": 6} if measure is variational_bound else {"draws": 5}
        whole = measure(denoiser, x0, seeds=range(7), **options).terms
        chunked = measure(denoiser, x0, seeds=range(7), batch=3, **options).terms
        alone = measure(denoiser, x0[4:5], seeds=[4], **options).terms
        torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(alone, whole[4:5], rtol=1e-5, atol=1e-6)
        again = measure(denoiser, x0, seeds=range(7), **options).terms
        assert torch.equal(again, whole)
        assert not torch.equal(measure(denoiser, x0, seed=1, **options).terms, whole)


def test_a_condition_reaches_the_denoiser() -> None:
    data = torch.tensor([[-1.0, 0.5], [1.0, -0.5]])
    denoiser = Empirical(data).denoiser(VP())
    right = continuous_bound(denoiser, data, condition=torch.tensor([0, 1]), seed=0, draws=8)
    assert float(right.terms[:, 1].abs().max()) < 1e-6  # x0 is known: noise tells nothing
    wrong = variational_bound(denoiser, data, condition=torch.tensor([1, 0]), steps=20, seed=0)
    assert float(wrong.total.min()) > 1000


def test_refusals() -> None:
    process, x0 = VP(), torch.zeros(3, 2)
    denoiser = Gaussian(torch.zeros(2), 1.0).denoiser(process)
    refused(lambda: variational_bound(denoiser, x0, variance="medium", seed=0, steps=4), "medium", "learned")
    refused(lambda: variational_bound(denoiser, x0, variance="learned", seed=0, steps=4), "learns_variance")
    refused(lambda: variational_bound(denoiser, x0, variance=torch.ones(3), seed=0, steps=4), "(3,)", "4")
    refused(lambda: variational_bound(denoiser, x0 + 0.1, bins=Bins(3), seed=0, steps=4), "0.1", "3 levels")
    refused(lambda: continuous_bound(denoiser, x0 + 0.1, bins=Bins(3), seed=0), "0.1")
    refused(lambda: continuous_bound(denoiser, x0, least=0.0, seed=0), "least=0.0")
    refused(lambda: continuous_bound(denoiser, x0, least=1e9, seed=0), "least=1000000000.0", "no noise")
    refused(lambda: variational_bound(denoiser, x0, seed=0, batch=0), "batch=0")
    refused(lambda: variational_bound(denoiser, x0, seed=0, draws=0), "draws=0")
    refused(lambda: Bins(1), "count=1")
    refused(lambda: Variational("small", simple=True), "variance='small'")
    refused(lambda: bound(importance=(1.0, 0.0)), "importance")
    refused(lambda: hybrid(weight=0.0), "weight=0.0")
    refused(lambda: bound(drop_label=2.0), "drop_label=2.0")
    refused(lambda: hybrid()(denoiser, x0, None, gen()), "learns_variance")
    chain = Tabulated.from_betas("cosine", 4)
    five = bound(importance=(1.0,) * 5)
    refused(lambda: five(denoiser.on(chain), x0, None, gen()), "5 parts", "4 steps")
    refused(lambda: DDPM("medium"), "medium", "learned")
    one = nn.Conv2d(1, 1, 1)
    twice = NetDenoiser(_Net(one), process, learns_variance=True)
    refused(lambda: twice(torch.zeros(2, 1, 4, 4), 0.5), "learns_variance=True", "out_multiple=2")
    plain = NetDenoiser(_Net(nn.Conv2d(1, 2, 1)), process)
    refused(lambda: plain(torch.zeros(2, 1, 4, 4), 0.5), "learns_variance=False", "out_multiple=1")


# Objectives -----------------------------------------------------------------------------------------------------------


class _Net(nn.Module):
    """A module of one argument as a network."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
        return self.inner(x)


class _Two(nn.Module):
    """A linear mean and a constant variance, with separate parameters."""

    def __init__(self, d: Any) -> None:
        super().__init__()
        self.mean, self.variance = nn.Linear(d, d), nn.Parameter(torch.zeros(d))
        with torch.no_grad():
            for i, p in enumerate(self.mean.parameters()):
                p.copy_(0.3 * torch.randn(p.shape, generator=gen(i)))
            self.variance.copy_(torch.linspace(-0.5, 0.5, d))

    def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
        return torch.cat([self.mean(x), self.variance.expand_as(x)], 1)


CHAINS = [Tabulated.from_betas("cosine", 40), VP()]


@pytest.mark.parametrize("process", CHAINS, ids=str)
@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_the_objective_has_the_bound_as_its_mean(process: Any, quantised: Any, variance: Any) -> None:
    levels = 9 if quantised else 0
    x0 = torch.tensor([[-0.75, 0.5, 1.0]]) if quantised else torch.tensor([[-0.7, 0.45, 0.9]])
    denoiser = NetDenoiser(_Two(3), process, "v", learns_variance=True)
    steps = None if process.chain else 40
    objective = Variational(variance, levels=levels, steps=steps)
    many = x0.expand(10000, 3)
    with torch.no_grad():
        value, error = mean_and_error(objective(denoiser, many, None, gen(15)).double())
    found = variational_bound(
        denoiser, x0.expand(1000, 3), steps=steps, variance=variance, bins=Bins(9) if quantised else None, seed=0
    )
    expected, other = mean_and_error(found.bits_per_dim())
    assert abs(value - expected) < 4 * math.hypot(error, other)


@pytest.mark.parametrize("name", ["bound", "likelihood"])
def test_the_exact_denoiser_minimises_the_objective(name: Any) -> None:
    distribution, process = mixture(), Tabulated.from_betas("cosine", 50)
    x0 = distribution.sample(10000, gen(16)).double()
    objective = OBJECTIVES[name]()
    exact = objective(distribution.denoiser(process), x0, None, gen(17))
    for other in (
        lambda x, level, condition: distribution.posterior_mean(x, level) + 0.3 * level.sigma,
        lambda x, level, condition: (1 + 0.3 * level.sigma) * distribution.posterior_mean(x, level),
        lambda x, level, condition: 0.9 * distribution.posterior_mean(x, level),
    ):
        wrong = FunctionDenoiser(other, process, distribution.denoiser(process).sigma_data)
        rise, error = mean_and_error(objective(wrong, x0, None, gen(17)) - exact)
        assert rise > 3 * error


def test_objectives_draw_their_times_first_and_only_from_the_generator() -> None:
    distribution = mixture()
    for process in CHAINS:
        denoiser = distribution.denoiser(process)
        x0 = distribution.sample(64, gen())
        for objective in (bound(importance=(1.0, 3.0)), likelihood_weighted(), likelihood_weighted(importance=False)):
            torch.manual_seed(1)
            first = objective(denoiser, x0, None, gen(18))
            torch.manual_seed(2)
            assert torch.equal(first, objective(denoiser, x0, None, gen(18)))
            assert first.shape == (64,)
            t = objective.draw_times(process, 64, gen(18))
            seen: list[Any] = []
            spy = FunctionDenoiser(lambda x, level, condition, seen=seen: seen.append(level.t) or x, process)  # type: ignore[misc]
            objective(spy, x0, None, gen(18))
            torch.testing.assert_close(seen[0].flatten(), t, rtol=0, atol=0)


def test_the_gradient_of_the_bound_in_hybrid_reaches_the_variance_only() -> None:
    process = Tabulated.from_betas("cosine", 40)
    x0 = torch.randn(256, 3, generator=gen(19))
    net = _Two(3)
    denoiser = NetDenoiser(net, process, "eps", learns_variance=True)

    def gradients(loss: Any) -> Any:
        found = torch.autograd.grad(loss.mean(), list(net.parameters()), allow_unused=True)
        return dict(zip([name for name, _ in net.named_parameters()], found, strict=True))

    g = gen(20)
    t = hybrid().draw_times(process, 256, g)
    eps = torch.randn(x0.shape, generator=g)
    both = gradients(hybrid(weight=0.001)(denoiser, x0, None, gen(20)))
    simple = gradients(ddpm().loss_at(denoiser, x0, t, eps, None))
    alone = gradients(Variational("learned")(denoiser, x0, None, gen(20)))
    for name in ("mean.weight", "mean.bias"):
        torch.testing.assert_close(both[name], simple[name], rtol=1e-4, atol=1e-6)
        assert float(alone[name].abs().max()) > 1e-3
    assert not simple["variance"].any()
    torch.testing.assert_close(both["variance"], 0.001 * alone["variance"], rtol=1e-4, atol=1e-9)
    assert float(alone["variance"].abs().min()) > 0


def test_hybrid_is_the_regression_and_a_thousandth_of_the_bound() -> None:
    """Sample by sample: the weight of the paper where none is said, and any that is."""
    process = Tabulated.from_betas("cosine", 40)
    x0, g = torch.randn(64, 3, generator=gen(19)), gen(20)
    denoiser = NetDenoiser(_Two(3), process, "eps", learns_variance=True)
    t = hybrid().draw_times(process, 64, g)
    eps = torch.randn(x0.shape, generator=g)
    with torch.no_grad():
        simple = ddpm().loss_at(denoiser, x0, t, eps, None)
        whole = Variational("learned")(denoiser, x0, None, gen(20))
        for objective, weight in ((hybrid(), 0.001), (hybrid(weight=0.5), 0.5)):
            found = objective(denoiser, x0, None, gen(20))
            torch.testing.assert_close(found, simple + weight * whole, rtol=1e-5, atol=1e-6)
        assert float((0.001 * whole / simple).abs().mean()) > 1e-5  # or the comparison would say nothing


def test_hybrid_learns_the_variance_that_makes_few_steps_exact() -> None:
    """On N(0, 0.3) the true reverse variance lies between the ends; learned, the bound falls below both fixed ones."""
    process = Tabulated.from_betas("cosine", 8)
    spread, d = 0.3, 4

    class Exact(nn.Module):
        """The exact noise; the variance by a table over levels."""

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(8))

        def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
            u = noise_level.exp()[:, None]  # sigma/alpha; x comes scaled by 1/sqrt(alpha^2 + sigma^2)
            xt = x  # alpha^2 + sigma^2 = 1
            alpha = 1 / (1 + u**2).sqrt()
            eps = (u * alpha) / (alpha**2 * spread + (u * alpha) ** 2) * xt
            i = (noise_level[:, None] - levels).abs().argmin(1)
            return torch.cat([eps, self.table[i][:, None].expand_as(x)], 1)

    levels = (process.sigmas[1:] / process.alphas[1:]).log().clamp(max=12).float()
    net = Exact()
    denoiser = NetDenoiser(net, process, "eps", learns_variance=True)
    distribution = Gaussian(torch.zeros(d), spread)
    objective, optimizer = hybrid(weight=1.0), torch.optim.Adam(net.parameters(), lr=0.05)
    for step in range(300):
        optimizer.zero_grad()
        objective(denoiser, distribution.sample(512, gen(step)), None, gen(1000 + step)).mean().backward()
        optimizer.step()
    x0 = distribution.sample(4000, gen(21)).double()
    denoiser = NetDenoiser(net.double(), process, "eps", learns_variance=True)
    totals = {v: variational_bound(denoiser, x0, variance=v, seed=0).total for v in ("small", "large", "learned")}
    gap, error = mean_and_error(totals["learned"] + distribution.log_prob(x0))
    assert abs(gap) < 4 * error + 0.02
    for variance in ("small", "large"):
        worse, error = mean_and_error(totals[variance] - totals["learned"])
        assert worse > 5 * error


def test_a_learned_variance_belongs_to_its_own_clock() -> None:
    denoiser = NetDenoiser(_Two(3), Tabulated.from_betas("cosine", 40), learns_variance=True)
    x = torch.randn(5, 3, generator=gen())
    prediction = denoiser(x, 7.0)
    assert prediction.log_var is not None
    torch.testing.assert_close(prediction.log_var, (torch.linspace(-0.5, 0.5, 3) + 1).expand(5, 3) / 2)
    plain = NetDenoiser(_Net(nn.Linear(3, 3)), VP())(x, 0.5)
    assert plain.log_var is None
    assert denoiser.on(VP())(x, 0.5).log_var is None
    refused(lambda: sample(denoiser.on(VP()), (2, 3), stepper=DDPM("learned"), steps=3, seed=0), "learns_variance")


# Where training and measuring look ------------------------------------------------------------------------------------


def test_likelihood_weighting_has_the_closed_form_of_a_standard_normal() -> None:
    """E[loss] = integral of SNR/(1 + SNR) d(log SNR)/2 per element: a fixed number on every clock (no factor of d)."""
    for process in (VP(), EDM(), Flow(), Tabulated.from_betas()):
        low, high = ends(process)  # on a chain, from its first level
        low, high = (process.at(t).log_snr for t in (max(low, 1.0) if process.chain else low, high))
        expected = 0.5 * (math.log1p(math.exp(low)) - math.log1p(math.exp(high))) / LN2
        for d in (1, 5):
            distribution = Gaussian(torch.zeros(d), 1.0)
            x0 = distribution.sample(20000 // d, gen(22)).double()
            for objective in (likelihood_weighted(), likelihood_weighted(importance=False)):
                value, error = mean_and_error(objective(distribution.denoiser(process), x0, None, gen(23)))
                assert abs(value - expected) < 4 * error


def test_likelihood_weighting_is_g_squared_on_the_score() -> None:
    process, t = VP(), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    x0 = torch.randn(3, 4, generator=gen(24), dtype=torch.float64)
    eps = torch.randn(3, 4, generator=gen(25), dtype=torch.float64)
    denoiser = FunctionDenoiser(lambda x, level, condition: 0.3 * x, process)
    level = process.at(t, like=x0)
    score = denoiser(level.noised(x0, eps), level).score
    fisher = (score + eps / level.sigma).square().sum(1)
    low, high = ends(process)
    expected = 0.5 * level.g2.flatten() * fisher * (high - low)
    torch.testing.assert_close(LikelihoodWeighted(importance=False).nats_at(denoiser, x0, t, eps, None), expected)


def test_importance_sampling_lowers_the_variance_of_the_continuous_bound() -> None:
    distribution = Gaussian(torch.zeros(16), 0.5)
    x0 = distribution.sample(4000, gen(26)).double()
    for process in (VP(), EDM()):
        stds = [
            float(
                continuous_bound(distribution.denoiser(process), x0, importance=on, draws=1, seed=3).terms[:, 1].std()
            )
            for on in (True, False)
        ]
        assert stds[0] < 0.5 * stds[1], (process, stds)


def test_importance_from_a_table_keeps_the_mean_and_lowers_the_variance() -> None:
    process, distribution = Tabulated.from_betas("linear", 200), mixture()
    denoiser = distribution.denoiser(process)
    measured = variational_bound(denoiser, distribution.sample(500, gen(27)), seed=0)
    table = importance(measured, parts=40)
    assert len(table) == 40
    assert abs(sum(table) - 1) < 1e-12
    roots = measured.terms[:, 1:].square().mean(0).reshape(40, 5).mean(1).sqrt()
    torch.testing.assert_close(torch.tensor(table, dtype=torch.float64), roots / roots.sum())
    x0 = distribution.sample(20000, gen(28))
    plain = bound(stratified=False)(denoiser, x0, None, gen(29)).double()
    weighed = bound(importance=table, stratified=False)(denoiser, x0, None, gen(29)).double()
    (a, a_error), (b, b_error) = mean_and_error(plain), mean_and_error(weighed)
    assert abs(a - b) < 4 * math.hypot(a_error, b_error)
    assert b_error < 0.6 * a_error, (a_error, b_error)
    # steps are drawn in proportion to the table
    t = bound(importance=table, stratified=False).draw_times(process, 100000, gen(30))
    part = torch.bincount(((200 - t).long() * 40) // 200, minlength=40) / 100000
    torch.testing.assert_close(part.double(), torch.tensor(table, dtype=torch.float64), rtol=0.3, atol=0.002)
    refused(lambda: importance(measured, parts=0), "parts=0")


def test_loss_aware_sampling_is_uniform_until_every_step_is_known_and_then_follows_the_losses() -> None:
    objective = bound(adaptive=True, steps=8)
    memory = objective.memory(mixture().denoiser(VP()), torch.zeros(4, 2))
    assert torch.equal(loss_aware(memory), torch.full((8,), 1 / 8))
    note_terms(memory, torch.arange(7).repeat(10), torch.ones(70))
    assert torch.equal(loss_aware(memory), torch.full((8,), 1 / 8))
    # the last step's ten newest terms are 3, the rest of its fifteen are forgotten; what is not finite is not kept
    note_terms(memory, torch.full((15,), 7), torch.tensor([100.0] * 5 + [3.0] * 10))
    note_terms(memory, torch.tensor([2]), torch.tensor([math.inf]))
    expected = torch.tensor([1.0] * 7 + [3.0])
    torch.testing.assert_close(loss_aware(memory), 0.999 * expected / 10 + 0.001 / 8)


def test_loss_aware_sampling_keeps_the_mean_and_lowers_the_variance() -> None:
    """On the exact denoiser of a mixture, whose terms differ a hundredfold along the chain."""
    den, steps = mixture().denoiser(VP()), 40
    x0 = mixture().sample(4096, gen(1)).double()
    plain, adaptive = bound(steps=steps, stratified=False), bound(steps=steps, stratified=False, adaptive=True)
    memory = adaptive.memory(den, x0)
    with torch.no_grad():
        for seed in range(4):  # getting to know the losses
            adaptive(den, x0, None, gen(10 + seed), memory)
        known = {name: tensor.clone() for name, tensor in memory.items()}
        one = plain(den, x0, None, gen(2)).double()
        two = adaptive(den, x0, None, gen(3), known).double()
    error = math.sqrt(float(one.var() + two.var()) / len(x0))
    assert abs(float(one.mean() - two.mean())) < 4 * error
    assert float(two.var()) < 0.6 * float(one.var())
