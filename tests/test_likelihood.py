"""Log-densities against closed form, on every clock, by every trace; dequantisation; and the verb."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from laws import PROCESSES, Oracle, mixture, refused
from PIL import Image
from sure import Cli, there

import ornstein
from ornstein.core.divergence import deflated_forms, exact_trace, linearised, orthonormal
from ornstein.core.exact import Gaussian, GaussianMixture
from ornstein.data import Affine, Chain, WholeNumbers
from ornstein.energies import energy_denoiser
from ornstein.experiment.loglik import Given, Scores
from ornstein.likelihood import DOUBLINGS, EXACT_UP_TO, STEPS, LogLikelihood, fit_dequantiser, flow, log_likelihood
from ornstein.likelihood.digital import averaged
from ornstein.likelihood.flow import Trace, _bent


def seeded(seed: Any) -> Any:
    return torch.Generator().manual_seed(seed)


def wide_mixture(d: Any, seed: Any = 0, least: Any = 0.01) -> Any:
    """Five unequal, correlated components in d dimensions, no variance below `least`."""
    g = seeded(seed)
    means = 1.2 * torch.randn(5, d, generator=g)
    factors = 0.25 * torch.randn(5, d, d, generator=g).double() / max(1.0, (d / 8) ** 0.5)
    return GaussianMixture(
        torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1]), means, factors @ factors.mT + least * torch.eye(d)
    )


# --- closed form ------------------------------------------------------------------------------------------------------


# without a least variance the narrowest of 64 directions is a thousandth wide
@pytest.mark.parametrize(("d", "count", "least"), [(2, 400, 0.01), (16, 100, 0.01), (64, 12, 0.01), (64, 12, 0.0)])
def test_a_mixture_in_many_dimensions_to_a_hundredth_of_a_nat(d: Any, count: Any, least: Any) -> None:
    mix = wide_mixture(d, least=least)
    x = mix.sample(count, seeded(1)).double()
    found = log_likelihood(mix.denoiser(ornstein.VP()), x)
    error = (found.log_prob - mix.log_prob(x)).abs()
    assert error.mean() < 0.003
    assert error.max() < 0.01
    # the estimate of the integration's error is on the high side, short of what lies below the lowest level
    assert (error <= found.integration_error + 0.006).all()
    assert torch.equal(found.standard_error, torch.zeros(count))
    assert (found.products >= d * (STEPS + 1)).all()


@pytest.mark.parametrize("name", PROCESSES)
def test_every_clock_gives_the_same_density(name: Any) -> None:
    """Its own exact denoiser, and a network in its own language; also where the clock ends with signal left."""
    mix, process = mixture(), PROCESSES[name]
    x = mix.sample(40, seeded(2))
    found = log_likelihood(mix.denoiser(process), x)
    error = (found.log_prob - mix.log_prob(x)).abs()
    assert error.max() < 0.01, error.max()
    assert error.mean() < 0.003
    assert (error <= found.integration_error + 0.002).all()
    # a network is asked from the first level of a chain on: what lies below is stated where it is much
    found = log_likelihood(ornstein.NetDenoiser(Oracle(process, "v", 1.3), process, "v", 1.3), x, tolerance=0.2)
    error = (found.log_prob - mix.log_prob(x)).abs()
    assert (error <= found.integration_error + 0.02).all(), (error - found.integration_error).max()
    if name != "euler-ou":  # whose first level, 0.15, is nearly as wide as the narrowest component
        assert error.max() < 0.02, error.max()
        assert found.integration_error.max() < 0.2


@pytest.mark.parametrize("name", ["edm", "betas[scaled-linear]"])
@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (1.0, 0.25), (3.0, 0.1)])
def test_the_error_stated_covers_the_error_in_a_thousand_dimensions(name: Any, mean: Any, variance: Any) -> None:
    """Gaussian data, whose trace the probes know exactly: what is left is the ends and the rule."""
    gauss = Gaussian(torch.full((1000,), mean), variance)
    x = gauss.sample(4, seeded(1))
    found = log_likelihood(gauss.denoiser(PROCESSES[name]), x, trace="hutchinson")
    error = (found.log_prob - gauss.log_prob(x)).abs()
    assert (error <= found.integration_error + 1e-9).all(), (error, found.integration_error)
    assert error.max() < (0.002 if name == "edm" else 0.03)


def test_a_law_that_cannot_be_measured_at_the_end_is_refused() -> None:
    """Five components in sixteen dimensions, seen through noise of their own size: no Gaussian is near."""
    mix, ladder = wide_mixture(16), ornstein.Tabulated.from_sigmas(steps=10)
    x = mix.sample(3, seeded(1)).double()
    refused(lambda: log_likelihood(mix.denoiser(ladder), x), "sigma/alpha=1", "signal left", "prior='sampling'")
    # what is drawn from the noise that sampling starts with has a density all the same
    assert log_likelihood(mix.denoiser(ladder), x, prior="sampling", tolerance=0.5).log_prob.isfinite().all()


def test_the_law_at_the_end_takes_the_shape_of_the_data() -> None:
    """Where as much signal as noise is left, a Gaussian of any shape is exact: its shape is the Jacobian's to tell."""
    g, ladder = seeded(5), ornstein.Tabulated.from_sigmas(steps=10)
    turned = torch.linalg.qr(torch.randn(16, 16, generator=g, dtype=torch.float64))[0]
    gauss = Gaussian(torch.randn(16, generator=g), (turned * torch.logspace(-2, 1, 16)) @ turned.T)
    x = gauss.sample(8, g)
    found = log_likelihood(gauss.denoiser(ladder), x)
    assert (found.log_prob - gauss.log_prob(x)).abs().max() < 0.02
    assert found.integration_error.max() < 0.05


def test_the_law_at_the_end_is_each_conditions_own() -> None:
    """On the default ladder, which ends with as much signal as noise; labels mixed, and none."""
    mix, ladder = mixture(), ornstein.Tabulated.from_sigmas(steps=10)
    x, labels = mix.sample(24, seeded(7)), torch.arange(24) % 4 - 1
    found = log_likelihood(mix.denoiser(ladder), x, condition=labels).log_prob
    torch.testing.assert_close(found[labels == -1], mix.log_prob(x[labels == -1]), rtol=0, atol=5e-3)
    for k in range(3):
        one = GaussianMixture(torch.ones(1), mix.means[k : k + 1], _covariance(mix, k)[None])
        torch.testing.assert_close(found[labels == k], one.log_prob(x[labels == k]), rtol=1e-4, atol=5e-3)
    alone = log_likelihood(mix.denoiser(ladder), x[5:6], condition=labels[5:6]).log_prob
    torch.testing.assert_close(alone, found[5:6], rtol=1e-9, atol=1e-9)


def test_a_denoiser_read_on_another_clock_has_the_same_density() -> None:
    mix = mixture()
    x = mix.sample(6, seeded(3))
    net = ornstein.NetDenoiser(Oracle(ornstein.VP(), "eps", 1.2), ornstein.VP(), "eps", 1.2)
    own = log_likelihood(net, x, tolerance=0.5).log_prob
    for process in (ornstein.EDM(), ornstein.Cosine()):
        found = log_likelihood(net.on(process), x, tolerance=0.5).log_prob
        torch.testing.assert_close(found, own, rtol=0, atol=0.01)


def test_a_gaussian_is_exact_whatever_its_mean_and_covariance() -> None:
    g = seeded(4)
    root = torch.randn(3, 3, generator=g)
    mean, covariance = torch.tensor([4.0, -7.0, 0.5]), root @ root.T + 0.1 * torch.eye(3)
    gauss = Gaussian(mean, covariance)
    x = gauss.sample(50, g)
    reference = torch.distributions.MultivariateNormal(mean.double(), covariance.double()).log_prob(x.double())
    found = log_likelihood(gauss.denoiser(ornstein.EDM()), x)
    torch.testing.assert_close(found.log_prob, reference, rtol=0, atol=5e-3)
    # far from the mean too, where no sample lies
    far = mean + torch.tensor([[30.0, 0, 0], [0, -40.0, 10]])
    torch.testing.assert_close(
        log_likelihood(gauss.denoiser(ornstein.EDM()), far).log_prob, gauss.log_prob(far), rtol=1e-3, atol=0
    )


def test_the_noise_that_sampling_starts_from_is_a_density_too() -> None:
    """prior="sampling" is off by about |m|/u: the reason for "centred"."""
    gauss = Gaussian(torch.full((4,), 3.0), 0.2)
    x = gauss.sample(200, seeded(5))
    denoiser = gauss.denoiser(ornstein.EDM())
    off = log_likelihood(denoiser, x, prior="sampling").log_prob - gauss.log_prob(x)
    assert 0.3 < off.std() / (6 / 80) < 3
    assert (log_likelihood(denoiser, x).log_prob - gauss.log_prob(x)).abs().max() < 2e-3


def test_ratios_reach_structure_finer_than_the_default_ends() -> None:
    fine = GaussianMixture(torch.ones(3), torch.tensor([[1.0, 0], [0, 1.0], [-1, -1]]), torch.tensor([4e-6, 1e-3, 0.3]))
    x = fine.sample(60, seeded(6))
    denoiser = fine.denoiser(ornstein.Flow())
    coarse = (log_likelihood(denoiser, x, ratios=(2e-3, 160)).log_prob - fine.log_prob(x)).abs()
    found = (log_likelihood(denoiser, x).log_prob - fine.log_prob(x)).abs()
    # what is not known to be exact is asked where sampling asks
    asked = log_likelihood(ornstein.FunctionDenoiser(lambda x, level, _: denoiser(x, level).x0, ornstein.Flow()), x)
    assert ((asked.log_prob - fine.log_prob(x)).abs().max()) > 0.05
    assert coarse.max() > 0.05
    assert found.max() < 0.01


def test_densities_integrate_to_one() -> None:
    """Over a grid of the plane, for a denoiser that is no exact one of anything."""
    blur = mixture().denoiser(ornstein.VP())
    bent = ornstein.FunctionDenoiser(
        lambda x, level, condition: 0.9 * blur.predict(x, level, condition).x0 + 0.1 * torch.tanh(x.flip(1)),
        ornstein.VP(),
        1.2,
    )
    side = torch.linspace(-4.2, 4.2, 37)
    points = torch.cartesian_prod(side, side)
    mass = log_likelihood(bent, points, tolerance=0.2).log_prob.exp().sum() * (side[1] - side[0]) ** 2
    assert abs(mass - 1) < 0.02


# --- denoisers of every kind ------------------------------------------------------------------------------------------


def test_conditions_are_per_sample() -> None:
    mix = mixture()
    x, labels = mix.sample(30, seeded(7)), torch.arange(30) % 3
    found = log_likelihood(mix.denoiser(ornstein.VP()), x, condition=labels).log_prob
    for k in range(3):
        one = GaussianMixture(torch.ones(1), mix.means[k : k + 1], _covariance(mix, k)[None])
        here = labels == k
        torch.testing.assert_close(found[here], one.log_prob(x[here]), rtol=1e-4, atol=5e-3)


def _covariance(mix: Any, k: Any) -> Any:
    return mix.basis[k] @ torch.diag(mix.spread[k]) @ mix.basis[k].T


def test_an_energy_that_takes_gradients_of_its_own() -> None:
    variance = torch.tensor([0.3, 1.7])
    denoiser = energy_denoiser(
        lambda y, u, condition: 0.5 * (y.square() / (variance + u[:, None] ** 2)).sum(1), ornstein.VP(), 1.0
    )
    gauss = Gaussian(torch.zeros(2), variance)
    x = gauss.sample(40, seeded(8))
    torch.testing.assert_close(log_likelihood(denoiser, x).log_prob, gauss.log_prob(x), rtol=0, atol=2e-3)


def test_a_guided_denoiser() -> None:
    """x0 moved by the gradient of log N(c; x0_t, .): the closed form is a product of Gaussians."""
    prior, seen, noise = Gaussian(torch.zeros(2), 1.0).denoiser(ornstein.VP()), torch.tensor([1.0, -0.5]), 0.5

    def posterior(x: Any, level: Any, condition: Any) -> Any:
        # y = x_0 + e seen as well: p(y given x_t) is N(E[x_0 given x_t], Var + noise)
        u = level.sigma / level.alpha
        variance = u**2 / (1 + u**2)
        mean = prior(x, level).x0
        score = (seen - mean) / (variance + noise) / (1 + u**2) / level.alpha
        return mean + level.sigma**2 / level.alpha * score

    guided = ornstein.FunctionDenoiser(posterior, ornstein.VP(), 0.8)
    truth = Gaussian(seen / (1 + noise), noise / (1 + noise))
    x = truth.sample(40, seeded(9))
    torch.testing.assert_close(log_likelihood(guided, x).log_prob, truth.log_prob(x), rtol=0, atol=2e-3)


# --- the trace --------------------------------------------------------------------------------------------------------


def test_products_and_traces_against_the_jacobian() -> None:
    g = seeded(10)
    matrix = torch.randn(6, 6, generator=g, dtype=torch.float64)

    def field(x: Any) -> Any:
        return torch.tanh(x @ matrix.T) + x.square()

    x = torch.randn(3, 6, generator=g, dtype=torch.float64)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda one: field(one[None])[0], each) for each in x])
    value, pull = linearised(field, x)
    v = torch.randn(4, 3, 6, generator=g, dtype=torch.float64)
    torch.testing.assert_close(value, field(x))
    torch.testing.assert_close(pull(v), torch.einsum("kbi,bij->kbj", v, jacobian))
    trace = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(exact_trace(pull, x), trace)
    # within any basis exactly, outside on average; nothing is left outside of a whole one
    basis = orthonormal(v[:2])
    torch.testing.assert_close(torch.einsum("kbd,lbd->bkl", basis, basis), torch.eye(2).double().expand(3, 2, 2))
    probes = torch.randn(4000, 3, 6, generator=g).double()
    known, forms, image = deflated_forms(pull, basis, probes)
    torch.testing.assert_close(image, pull(basis))
    error = forms.std(0) / math.sqrt(len(forms))
    assert ((known + forms.mean(0) - trace).abs() < 4 * error).all()
    known, forms, _ = deflated_forms(pull, orthonormal(pull(torch.randn(6, 3, 6, generator=g).double())), probes[:2])
    torch.testing.assert_close(known, trace)
    torch.testing.assert_close(forms, torch.zeros_like(forms), rtol=0, atol=1e-9)


class _Unbatchable(torch.autograd.Function):
    """x^2 with a derivative that looks at its values, as no batching rule can."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        assert grad.sum().item() is not None
        return 2 * ctx.saved_tensors[0] * grad


def test_the_tail_below_the_first_level_is_that_of_two_powers_of_u() -> None:
    """Of a u^2 + b u^4 over log u, by its values at two levels: half the first, and what `_bent` weighs them with."""
    a, b, first, second = 0.7, -0.3, 0.5, 0.8
    one, two = (a * u**2 + b * u**4 for u in (first, second))
    below = 0.5 * one + sum(weight * value for weight, value in zip(_bent(first, second), (one, two), strict=True))
    assert below == pytest.approx(a * first**2 / 2 + b * first**4 / 4, rel=1e-12)


@pytest.mark.parametrize(("d", "first", "later"), [(4, [2, 5], [5]), (1, [1, 4], [4])])
def test_half_of_the_products_are_the_subspaces_and_no_more_than_dimensions(d: int, first: Any, later: Any) -> None:
    taken: list[int] = []

    def pull(v: torch.Tensor) -> torch.Tensor:
        taken.append(len(v))
        return -2.0 * v

    trace, x, keys = Trace("hutch++", 5), torch.zeros(3, d, dtype=torch.float64), torch.arange(3)
    known, forms, memory = trace.forms(pull, x, keys, 0, None)
    assert forms is not None
    torch.testing.assert_close(known + forms.mean(0), torch.full((3,), -2.0 * d, dtype=torch.float64))
    assert taken == first
    trace.forms(pull, x, keys, 5, torch.randn_like(there(memory)))
    assert taken[len(first) :] == later


def test_fields_that_cannot_be_batched_are_taken_one_at_a_time() -> None:
    x = torch.randn(3, 4, generator=seeded(11))
    torch.testing.assert_close(exact_trace(linearised(_Unbatchable.apply, x)[1], x), 2 * x.sum(1))


def test_products_go_back_through_a_field_together() -> None:
    x, went = torch.randn(3, 4, generator=seeded(11)), []

    def field(x: Any) -> Any:
        y = x.square()
        y.register_hook(lambda g: went.append(tuple(g.shape)))
        return 3 * y

    v = torch.randn(5, 3, 4, generator=seeded(12))
    torch.testing.assert_close(linearised(field, x)[1](v), 6 * x * v)
    assert len(went) == 1


@pytest.mark.parametrize(("trace", "probes"), [("hutchinson", 2), ("hutchinson", 8), ("hutch++", 5)])
def test_the_standard_error_covers_the_truth_at_its_rate(trace: Any, probes: Any) -> None:
    """Samples, each with probes of its own: 68% within one, 95% within two standard errors, up to counting error."""
    # two probes a step leave few degrees of freedom, and the error is widened for them: more samples show if enough
    mix, count = wide_mixture(8, seed=3), 3000 if probes == 2 else 500
    x = mix.sample(count, seeded(12))
    found = log_likelihood(mix.denoiser(ornstein.VP()), x, trace=trace, probes=probes, tolerance=0.1)
    error = found.log_prob - mix.log_prob(x)
    z = error / found.standard_error
    for bound, rate in ((1.0, 0.683), (1.96, 0.95)):
        inside, counting = (z.abs() < bound).double().mean(), math.sqrt(rate * (1 - rate) / count)
        assert inside > rate - 3 * counting, (bound, inside)
        # one standard error holds somewhat more than 68% for what 1.96 of it is to hold
        assert inside < rate + 4 * counting + (0.03 if probes == 2 else 0.01), (bound, inside)
    assert abs(z.mean()) < 4 / math.sqrt(count)
    assert error.abs().max() > 0.1  # it is an estimate


def test_more_probes_and_a_subspace_lessen_the_error() -> None:
    """A low-rank posterior covariance: Hutch++ finds the few directions in which the Jacobian is large."""
    d = 40
    g = seeded(13)
    basis = torch.linalg.qr(torch.randn(d, 3, generator=g)).Q
    gauss = Gaussian(torch.zeros(d), 9.0 * basis @ basis.T + 0.05 * torch.eye(d))
    x = gauss.sample(30, g)
    found = {
        (trace, probes): log_likelihood(gauss.denoiser(ornstein.VP()), x, trace=trace, probes=probes)
        for trace, probes in (("hutchinson", 2), ("hutchinson", 8), ("hutch++", 8))
    }
    error = {key: (each.log_prob - gauss.log_prob(x)).square().mean().sqrt() for key, each in found.items()}
    assert 0.3 < error["hutchinson", 8] / error["hutchinson", 2] < 0.75  # a half
    assert error["hutch++", 8] < 0.2 * error["hutchinson", 8]
    assert (found["hutch++", 8].products == found["hutchinson", 8].products).all()


@pytest.mark.parametrize(("trace", "probes"), [("hutchinson", 3), ("hutch++", 5)])
def test_a_picture_has_the_trace_of_the_vector_it_is(trace: Any, probes: Any) -> None:
    """The same numbers as pictures (1, 3, 3) and in a row: the same probes, and the same density."""
    g = seeded(20)
    root = torch.randn(9, 9, generator=g, dtype=torch.float64) / 4
    covariance, mean = root @ root.T + 0.05 * torch.eye(9), torch.randn(9, generator=g)
    row, picture = Gaussian(mean, covariance), Gaussian(mean.reshape(1, 3, 3), covariance)
    x = row.sample(20, g)
    flat, shaped = (
        log_likelihood(each.denoiser(ornstein.VP()), x.reshape(20, *each.shape), trace=trace, probes=probes, seed=3)
        for each in (row, picture)
    )
    torch.testing.assert_close(shaped.log_prob, flat.log_prob, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shaped.standard_error, flat.standard_error, rtol=1e-9, atol=1e-9)
    assert ((shaped.log_prob - row.log_prob(x)).abs() < 5 * shaped.standard_error + 0.01).all()


def test_auto_is_exact_up_to_the_stated_dimension() -> None:
    for d, products in ((EXACT_UP_TO, EXACT_UP_TO * (STEPS + 1)), (EXACT_UP_TO + 1, 8 * (STEPS + 1))):
        gauss = Gaussian(torch.zeros(d), 1.0)
        found = log_likelihood(gauss.denoiser(ornstein.VP()), gauss.sample(2, seeded(14)))
        assert (found.products == products).all()


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trace", "draws"), [("exact", 2), ("hutchinson", 1), ("hutch++", 1)])
def test_a_sample_does_not_depend_on_its_batch(trace: Any, draws: Any) -> None:
    mix, transform = wide_mixture(4, seed=5), WholeNumbers(33)
    x = transform.inverse(mix.sample(12, seeded(15)), quantise=True)
    options = {"transform": transform, "trace": trace, "draws": draws, "tolerance": 0.3}
    denoiser, seeds = mix.denoiser(ornstein.VP()), torch.arange(100, 112)
    together = log_likelihood(denoiser, x, seeds=seeds, **options)
    for part in (slice(0, 1), slice(1, 12)):
        apart = log_likelihood(denoiser, x[part], seeds=seeds[part], **options)
        torch.testing.assert_close(apart.log_prob, together.log_prob[part], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(apart.standard_error, together.standard_error[part], rtol=1e-5, atol=1e-6)
        assert torch.equal(apart.calls, together.calls[part])
    assert len(together.calls.unique()) > 1  # some take more steps than others
    again = log_likelihood(denoiser, x, seeds=seeds, **options)
    assert torch.equal(again.log_prob, together.log_prob)


def test_what_cannot_be_integrated_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are doubled to the last and still do not settle: between two points as fine as the lowest level."""
    assert DOUBLINGS == 4
    doublings = 2  # the last steps are then four times as many as the first, not sixteen times
    monkeypatch.setattr(flow, "DOUBLINGS", doublings)
    points = GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), torch.tensor([1e-5, 1e-5]))
    found = log_likelihood(points.denoiser(ornstein.VP()), torch.tensor([[0.001], [1.001]]))
    assert found.integration_error[0] > 1
    assert found.calls[0] > STEPS * 2 * (2 ** (doublings + 1) - 1)
    assert found.integration_error[1] < 0.01


# --- units ------------------------------------------------------------------------------------------------------------


def test_an_affine_map_of_the_data_shifts_log_p_by_its_log_determinant() -> None:
    mix = mixture()
    z = mix.sample(30, seeded(16))
    denoiser = mix.denoiser(ornstein.VP())
    plain = log_likelihood(denoiser, z).log_prob
    transform = Affine((3.0, -200.0), (0.01, 40.0))
    x = transform.inverse(z.double())
    found = log_likelihood(denoiser, x, transform=transform).log_prob
    torch.testing.assert_close(found, plain - math.log(0.01 * 40), rtol=0, atol=1e-5)
    chained = Chain((transform, Affine(0.5, -2.0)))
    x = chained.inverse(z.double())
    found = log_likelihood(denoiser, x, transform=chained).log_prob
    torch.testing.assert_close(found, plain - math.log(0.01 * 40 * 4), rtol=0, atol=1e-5)


def uniform(low: Any, high: Any) -> Any:
    """The exact denoiser of independent uniform elements: means of truncated normal distributions."""

    def x0(x: Any, level: Any, condition: Any) -> Any:
        y, u = x.double() / level.alpha, level.sigma / level.alpha
        a, b = (low - y) / u, (high - y) / u
        # mirrored into the tail where differences of probabilities keep their digits
        side = torch.where(a + b > 0, -1.0, 1.0)
        a, b = torch.where(side < 0, -b, a), torch.where(side < 0, -a, b)
        log_mass = torch.special.log_ndtr(b) + torch.log(
            -torch.expm1(torch.special.log_ndtr(a) - torch.special.log_ndtr(b))
        )
        phi = [torch.exp(-0.5 * c * c - 0.5 * math.log(2 * math.pi) - log_mass) for c in (a, b)]
        return (y + u * side * (phi[0] - phi[1])).to(x)

    width = high - low
    return ornstein.FunctionDenoiser(x0, ornstein.VP(), math.sqrt(width**2 / 12))


def test_uniform_bytes_have_eight_bits_per_dimension() -> None:
    transform = WholeNumbers(256)
    half = transform.bin_width / 2
    x = torch.randint(256, (40, 6), generator=seeded(17), dtype=torch.uint8)
    found = log_likelihood(uniform(-1 - half, 1 + half), x, transform=transform, trace="exact")
    assert abs(found.bits.value - 8) < 4 * found.bits.standard_error + 0.01
    assert found.bits.standard_error < 0.05
    assert (found.bits_per_dim - 8).abs().median() < 0.01


def quantised(seed: Any = 0, count: Any = 7) -> Any:
    """A mixture far finer than the bins it is quantised to, the probability of each pair of levels, and a sampler."""
    mix = GaussianMixture(
        torch.tensor([0.6, 0.4]), torch.tensor([[0.1, -0.2], [-0.5, 0.4]]), torch.tensor([0.03, 0.02])
    )
    transform = WholeNumbers(count)
    side = torch.arange(count)
    levels = torch.cartesian_prod(side, side)
    sub = (torch.arange(60) + 0.5) / 60 - 0.5
    inner = torch.cartesian_prod(sub, sub)
    places = transform.forward((levels[:, None] + inner).double())
    log_det = 2 * math.log(2 / (count - 1))
    mass = mix.log_prob(places.reshape(-1, 2)).reshape(len(levels), -1).exp().mean(1).log() + log_det
    return mix, transform, levels, mass


def test_dequantisation_bounds_the_probability_and_tightens() -> None:
    """Uniform below fitted below the truth; more draws under the logarithm nearer to it."""
    mix, transform, levels, mass = quantised()
    g = seeded(18)
    chosen = torch.multinomial(mass.exp(), 1000, replacement=True, generator=g)
    x, truth = levels[chosen], mass[chosen]
    denoiser = mix.denoiser(ornstein.VP())
    fitted = fit_dequantiser(denoiser, x, transform, steps=200)
    gaps = {}
    ways: list[tuple[str, Any, int]] = [("uniform", "uniform", 1), ("8 draws", "uniform", 8), ("fitted", fitted, 1)]
    for name, noise, draws in ways:
        found = log_likelihood(denoiser, x[:300], transform=transform, dequantise=noise, draws=draws, tolerance=0.1)
        gap = truth[:300] - found.log_prob
        gaps[name] = (gap.mean().item(), gap.std().item() / math.sqrt(len(gap)))
        assert gap.mean() > -3 * gaps[name][1], name  # a bound
    assert gaps["8 draws"][0] < 0.3 * gaps["uniform"][0]
    assert gaps["fitted"][0] < 0.5 * gaps["uniform"][0]


def test_noise_that_was_not_fitted_is_uniform() -> None:
    from ornstein.likelihood import Dequantiser

    mix, transform, levels, _ = quantised()
    made = Dequantiser(mix.denoiser(ornstein.VP()), transform)
    uniform = torch.rand(len(levels), 2, generator=seeded(19), dtype=torch.float64)
    u, log_q = made(levels.double(), uniform, None)
    torch.testing.assert_close(u, uniform)
    torch.testing.assert_close(log_q, torch.zeros(len(levels)).double(), rtol=0, atol=1e-9)


def test_the_density_of_fitted_noise_is_that_of_its_noise() -> None:
    """log q integrates to one over the bin, and is that of u as it is drawn."""
    mix, transform, levels, _ = quantised()
    made = fit_dequantiser(mix.denoiser(ornstein.VP()), levels, transform, steps=60)
    even = (torch.arange(4000, dtype=torch.float64)[:, None] + 0.5) / 4000
    for level in (levels[10], levels[30]):
        x = level.double().expand(4000, 2).clone()
        p = even.expand(4000, 2)
        u, log_q = made(x, p, None)
        slope = u.diff(dim=0) * 4000  # du/dp = 1/q, element by element; both run through together
        middle = (log_q[1:] + log_q[:-1]) / 2
        torch.testing.assert_close(-slope.log().sum(1)[200:-200], middle[200:-200], rtol=0, atol=2e-3)


def test_the_error_of_averaged_draws_is_their_spread() -> None:
    """About the expectation of the estimate, found by many seeds."""
    mix, transform, levels, mass = quantised()
    x = levels[mass.topk(6).indices].repeat(120, 1)
    found = log_likelihood(mix.denoiser(ornstein.VP()), x, transform=transform, draws=8, tolerance=0.1)
    logs, errors = found.log_prob.reshape(120, 6), found.standard_error.reshape(120, 6)
    # the error stated is widened by Student's t of seven degrees of freedom, 2.365/1.96
    ratio = errors.square().mean(0).sqrt() / logs.std(0) / (2.365 / 1.96)
    assert ((ratio > 0.7) & (ratio < 1.45)).all(), ratio


def test_the_mean_of_densities_in_closed_form() -> None:
    """Of 1 and 3, and of 2 and 2; errors of integrals count by each one's share of the sum."""
    one, two = torch.tensor([1.0, 2.0]).double().log(), torch.tensor([3.0, 2.0]).double().log()
    calls = torch.tensor([5, 6])
    first = LogLikelihood(one, torch.zeros(2), torch.tensor([0.4, 0.1]).double(), calls, calls + 1, 7)
    second = LogLikelihood(two, torch.zeros(2), torch.tensor([0.8, 0.3]).double(), calls + 2, calls, 7)
    found = averaged([first, second])
    torch.testing.assert_close(found.log_prob.exp(), torch.tensor([2.0, 2.0]).double())
    torch.testing.assert_close(found.integration_error, torch.tensor([0.25 * 0.4 + 0.75 * 0.8, 0.2]).double())
    # the jackknife of two: half of what their logarithms differ by, widened
    assert float(found.standard_error[0]) > 0.5 * math.log(3) > float(found.standard_error[1]) == 0
    assert found.calls.tolist() == [12, 14]
    assert found.products.tolist() == [11, 13]
    assert found.dims == 7


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(3)}, ["x", "shape"]),
        ({"x": torch.tensor([[1.0, math.nan]])}, ["x", "1 cells missing", "complete samples"]),
        ({"condition": torch.zeros(3, dtype=torch.long)}, ["condition", "3", "2"]),
        ({"trace": "hutch"}, ["trace", "hutch", "hutch++"]),
        ({"trace": "hutchinson", "probes": 1}, ["probes", "1", "2"]),
        ({"trace": "hutch++", "probes": 2}, ["probes", "2", "3"]),
        ({"tolerance": 0.0}, ["tolerance", "0"]),
        ({"prior": "zero"}, ["prior", "zero", "centred"]),
        ({"ratios": (0.5, 0.1)}, ["ratios", "0.5"]),
        ({"ratios": (500.0, 600.0)}, ["ratios", "152"]),
        ({"draws": 0}, ["draws", "0"]),
        ({"draws": 2}, ["draws", "2"]),
        ({"dequantise": "uniform"}, ["dequantise", "levels"]),
        ({"transform": WholeNumbers(4), "dequantise": "normal"}, ["dequantise", "normal"]),
        ({"transform": WholeNumbers(4), "x": torch.tensor([[0.5, 1.0]])}, ["x", "0.5", "3"]),
        ({"transform": WholeNumbers(4), "x": torch.tensor([[4, 1]])}, ["x", "4", "3"]),
        ({"seeds": [1]}, ["seeds", "2"]),
    ],
)
def test_refused_in_one_sentence(change: Any, words: Any) -> None:
    given = {"x": torch.zeros(2, 2), **change}
    denoiser = mixture().denoiser(ornstein.VP())
    refused(lambda: log_likelihood(denoiser, given.pop("x"), **given), *words)


# --- the verb ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run on a few hundred points, two classes, trained for a moment."""
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.train import train

    folder = tmp_path_factory.mktemp("runs") / "moons"
    changes = [
        "training.steps=300",
        "training.validate_every=300",
        "net.width=32",
        "data.count=600",
        "sampling.preview=4",
    ]
    for _ in train(Experiment.read("moons", changes), folder, draws=False):
        pass
    return folder


def rows(path: Any) -> Any:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_verb_scores_and_ranks(cli: Cli, points: Any, tmp_path: Path) -> None:
    run = ornstein.load(points)
    near = run.sample(10, seed=1)
    far = near[:3] + 30
    np.savez(tmp_path / "new.npz", x=torch.cat([far, near]).numpy(), labels=np.array([1] * 3 + [0] * 10))
    answer = cli("loglik", points, tmp_path / "new.npz", "--out", tmp_path / "s" / "scores.csv", "--reference", "20")
    assert answer.code == 0, answer
    table = rows(tmp_path / "s" / "scores.csv")
    assert list(table[0]) == ["index", "label", "log_likelihood", "bits_per_dim", "standard_error", "rank"]
    assert [row["label"] for row in table] == ["1"] * 3 + ["0"] * 10
    assert sorted(int(row["rank"]) for row in table) == list(range(1, 14))
    assert {int(row["rank"]) for row in table[:3]} == {1, 2, 3}
    nats = [float(row["log_likelihood"]) for row in table]
    assert sorted(nats) == [n for _, n in sorted((int(row["rank"]), n) for row, n in zip(table, nats, strict=True))]
    for row, n in zip(table, nats, strict=True):
        assert abs(float(row["bits_per_dim"]) + n / (2 * math.log(2))) < 1e-4 * max(1, abs(n))
    # in the data's own units: what the library says of the same samples
    direct = log_likelihood(run.denoiser, near, transform=run.transform)
    assert np.allclose(nats[3:], direct.log_prob.numpy(), atol=1e-4)
    assert "held-out data" in answer.out
    assert "13" in answer.out
    with Image.open(tmp_path / "s" / "scores.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["scores.csv", "scores.png"]


def test_the_verb_on_the_runs_own_data(cli: Cli, points: Any, tmp_path: Path) -> None:
    words = ["-n", 8, "--reference", 0, "--seed", 3]
    for part in ("test", "train"):
        assert cli("loglik", points, part, "--out", tmp_path / f"{part}.csv", *words).code == 0
    assert len(rows(tmp_path / "test.csv")) == 8
    assert (tmp_path / "test.csv").read_text() != (tmp_path / "train.csv").read_text()
    answer = cli("loglik", points, "test", "--out", tmp_path / "given.csv", "-n", 8, "--seed", 3, "--conditional")
    assert answer.code == 0, answer
    assert "held-out data" not in answer.out  # which are what was scored
    # the class told, the same point is likelier: log p(x given c) is about log p(x) + log 2
    gain = [
        float(a["log_likelihood"]) - float(b["log_likelihood"])
        for a, b in zip(rows(tmp_path / "given.csv"), rows(tmp_path / "test.csv"), strict=True)
    ]
    assert 0 < np.mean(gain) < 1.5


def test_the_verb_on_images(cli: Cli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in class folders, named in the CSV; digital data by dequantisation. How exactly is not asked here."""
    monkeypatch.setattr(flow, "STEPS", 16)
    monkeypatch.setattr(flow, "DOUBLINGS", 0)
    from ornstein.experiment.loglik import own, read

    given = own(ornstein.load(run), "test")
    for i in range(3):
        place = tmp_path / "digits" / there(given.labels)[i] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(given.x[i, 0].numpy()).save(place)
    words = ["--reference", 0, "--trace", "hutchinson", "--probes", 2, "--conditional"]
    answer = cli("loglik", run, tmp_path / "digits", "--out", tmp_path / "scores.csv", *words)
    assert answer.code == 0, answer
    table = rows(tmp_path / "scores.csv")
    assert {row["file"] for row in table} == {f"{there(given.labels)[i]}/{i}.png" for i in range(3)}
    assert all(row["file"].startswith(row["label"] + "/") for row in table)
    assert all(0 < float(row["bits_per_dim"]) < 12 and float(row["standard_error"]) > 0 for row in table)
    # one picture, and pictures of which some lie in no folder, have no labels
    one = read(ornstein.load(run), tmp_path / "digits" / there(given.labels)[0] / "0.png")
    assert (one.labels, one.files) == (None, ["0.png"])
    Image.fromarray(given.x[0, 0].numpy()).save(tmp_path / "digits" / "a.png")
    mixed = read(ornstein.load(run), tmp_path / "digits")
    assert (mixed.labels, len(mixed.x)) == (None, 4)


@pytest.mark.parametrize(("error", "told"), [(0.1, False), (0.11, True)])
def test_an_integration_that_is_off_is_said(error: float, told: bool) -> None:
    nats, calls = torch.tensor([-3.0, -1.0, -2.0], dtype=torch.float64), torch.full((3,), 9)
    found = LogLikelihood(nats, 0 * nats, torch.tensor([0.0, 0.0, error], dtype=torch.float64), calls, calls, 2)
    lines = Scores(Given("these", torch.zeros(3, 2)), found, None).text().splitlines()
    assert lines[2] == "least likely: 0, 2, 1"
    single = LogLikelihood(nats[:1], 0 * nats[:1], 0 * nats[:1], calls[:1], calls[:1], 2)
    alone = Scores(Given("one", torch.zeros(1, 2)), single, None).text()
    assert "±" not in alone  # of one there is no spread
    assert lines[3:] == (["the integration of the hardest sample is off by up to 0.11 nats"] if told else [])


def one_sentence(answer: Any, *words: Any) -> None:
    assert answer.code == 2, answer
    text = answer.err.strip()
    assert text.startswith("ornstein: "), text
    assert "\n" not in text, text
    for word in words:
        assert str(word) in text, f"{word!r} is not in {text!r}"


@pytest.mark.parametrize(
    ("data", "words", "said"),
    [
        ("nowhere.npy", [], ["nowhere.npy", "not a file"]),
        ("nowhere", [], ["nowhere", "test"]),
        ("text.txt", [], ["text.txt", "train"]),
        ("damaged.npy", [], ["damaged.npy", "damaged"]),
        ("wide.npy", [], ["wide.npy", "3", "2"]),
        ("nan.npy", [], ["nan.npy", "NaN"]),
        ("photos", [], ["photos", "images", "vectors"]),
        ("plain.npy", ["--conditional"], ["conditional", "label"]),
        ("other.npz", ["--conditional"], ["label", "7"]),
        ("plain.npy", ["--trace", "exakt"], ["trace", "exakt", "exact"]),
        ("plain.npy", ["--trace", "hutchinson", "--probes", "1"], ["probes", "1"]),
        ("plain.npy", ["-n", "0"], ["count", "0"]),
        ("plain.npy", ["--reference", "-1"], ["reference", "-1"]),
        ("plain.npy", ["--draws", "3"], ["draws", "3"]),
        ("plain.npy", ["--out", "scores.txt"], ["scores.txt", ".csv"]),
        ("plain.npy", ["--out", "/proc/nowhere/scores.csv"], ["/proc/nowhere"]),
        ("plain.npy", ["--seed", "-1"], ["seed", "-1"]),
    ],
)
def test_the_verb_refuses_in_one_sentence_and_writes_nothing(
    cli: Cli, points: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Any, words: Any, said: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    np.save("plain.npy", plain)
    np.save("wide.npy", np.zeros((4, 3), np.float32))
    np.save("nan.npy", np.full((4, 2), np.nan, np.float32))
    np.savez("other.npz", x=plain, labels=np.array([7, 7, 7, 7]))
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "text.txt").write_text("no")
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save("photos/0.png")
    before = sorted(path.name for path in tmp_path.iterdir())
    out = [] if "--out" in words else ["--out", "scores.csv"]
    one_sentence(
        cli("loglik", points, data, *out, *(["--reference", 0] if "--reference" not in words else []), *words), *said
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_verb_refuses_what_is_not_a_run(cli: Cli, tmp_path: Path) -> None:
    one_sentence(cli("loglik", tmp_path / "nowhere", "test", "--out", tmp_path / "s.csv"), "nowhere")
