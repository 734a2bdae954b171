"""Laws of the exact distributions, which are the oracle of everything else."""

import math
import subprocess
import sys
import textwrap
from typing import Any

import pytest
import torch
from laws import PROCESSES, interior, mixture, refused
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from ornstein import VP, Flow
from ornstein.core.exact import Empirical, Gaussian, GaussianMixture, LowRank

D64: Any = {"dtype": torch.float64}


def rough(k: Any, d: Any, seed: Any = 0) -> Any:
    """Weights, means and full covariances of no symmetry."""
    g = torch.Generator().manual_seed(seed)
    roots = 0.6 * torch.randn(k, d, d, generator=g, **D64)
    return torch.rand(k, generator=g, **D64) + 0.1, torch.randn(k, d, generator=g, **D64), roots @ roots.mT


def reference(weights: Any, means: Any, covariances: Any) -> Any:
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_log_density_is_torchs(d: Any) -> None:
    w, m, c = rough(4, d)
    x = 2 * torch.randn(200, d, generator=torch.Generator().manual_seed(1), **D64)
    torch.testing.assert_close(
        GaussianMixture(w, m, c).log_prob(x), reference(w, m, c).log_prob(x), rtol=1e-9, atol=1e-9
    )
    for p in PROCESSES.values():
        for t in interior(p, 3).tolist():
            level = p.at(t)
            noised = reference(w, level.alpha * m, level.alpha**2 * c + level.sigma**2 * torch.eye(d, **D64))
            y = level.alpha * x + level.sigma
            got = GaussianMixture(w, m, c).log_prob(y, level)
            torch.testing.assert_close(got, noised.log_prob(y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [1, 2])
def test_posterior_mean_is_that_of_brute_force(d: Any) -> None:
    """E[x_0 given x_t] as the ratio of two integrals on a fine grid of x_0."""
    w, m, c = rough(3, d, seed=3)
    c = c + 0.05 * torch.eye(d, **D64)
    mix = GaussianMixture(w, m, c)
    line = torch.linspace(-9, 9, 40001 if d == 1 else 501, **D64)
    grid = torch.cartesian_prod(*[line] * d).reshape(-1, d)
    prior = reference(w, m, c).log_prob(grid)
    for p in (VP(), Flow()):
        for t in (0.3, 0.5, 0.8):
            level = p.at(t)
            x = torch.randn(5, d, generator=torch.Generator().manual_seed(4), **D64)
            square = ((x[:, None] - level.alpha * grid) ** 2).sum(2)
            weight = (prior - square / (2 * level.sigma**2)).softmax(1)
            torch.testing.assert_close(mix.posterior_mean(x, level), weight @ grid, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PROCESSES)
def test_score_is_the_gradient_of_the_log_density(name: Any) -> None:
    """Tweedie: the posterior mean, read as a score, is autograd of log q_t."""
    p, mix = PROCESSES[name], mixture()
    denoiser = mix.denoiser(p)
    t = interior(p, 9)
    level = p.at(t, like=torch.zeros(9, 2, **D64))
    g = torch.Generator().manual_seed(5)
    x = level.noised(mix.sample(9, g).double(), torch.randn(9, 2, generator=g, **D64)).requires_grad_()
    (slope,) = torch.autograd.grad(mix.log_prob(x, level).sum(), x)
    torch.testing.assert_close(denoiser(x, t).score, slope, rtol=1e-7, atol=1e-7)
    for i in (0, 8):
        one = denoiser(x[i : i + 1], t[i].item())
        torch.testing.assert_close(one.score, slope[i : i + 1], rtol=1e-7, atol=1e-7)


def forms() -> Any:
    """The same distributions said in several ways: (what, one, another)."""
    _, _, c = rough(3, 4, seed=6)
    diagonal = c.diagonal(dim1=1, dim2=2)
    variance = torch.tensor([0.3, 0.1, 0.7], **D64)
    factor = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(7), **D64)
    eye = torch.eye(4, **D64)
    yield "diagonal", diagonal, torch.diag_embed(diagonal)
    yield "isotropic", variance, variance[:, None, None] * eye
    yield "isotropic as diagonal", variance, variance[:, None].expand(3, 4)
    yield "low rank", LowRank(factor, variance), factor @ factor.mT + variance[:, None, None] * eye
    yield "low rank, no rest", LowRank(factor, 0 * variance), factor @ factor.mT
    yield "full rank factor", LowRank(torch.linalg.cholesky(c), 0 * variance), c
    yield (
        "wide factor",
        LowRank(torch.cat([factor] * 3, 2), variance),
        3 * factor @ factor.mT + variance[:, None, None] * eye,
    )
    yield "points", 0 * variance, 0 * c
    yield "some points", torch.tensor([0.3, 0.0, 0.7], **D64), torch.tensor([0.3, 0.0, 0.7], **D64)[:, None, None] * eye


@pytest.mark.parametrize(("what", "one", "other"), list(forms()), ids=[form[0] for form in forms()])
def test_every_form_of_covariance_agrees(what: Any, one: Any, other: Any) -> None:
    w, m, _ = rough(3, 4, seed=6)
    a, b = GaussianMixture(w, m, one), GaussianMixture(w, m, other)
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(8), **D64)
    torch.testing.assert_close(a.mean(), b.mean())
    torch.testing.assert_close(a.covariance(), b.covariance())
    assert a.denoiser(VP()).sigma_data == pytest.approx(b.denoiser(VP()).sigma_data, rel=1e-10)
    for t in (0.02, 0.4, 1.0):
        level = VP().at(t)
        torch.testing.assert_close(a.log_prob(x, level), b.log_prob(x, level), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(a.posterior_mean(x, level), b.posterior_mean(x, level), rtol=1e-7, atol=1e-9)
    # both draw the distribution that they describe
    for mix in (a, b):
        draws = mix.sample(20000, torch.Generator().manual_seed(9)).double()
        se = (mix.covariance().diagonal() / 20000).sqrt()
        assert ((draws.mean(0) - mix.mean()).abs() < 5 * se).all()
        assert torch.allclose(draws.T.cov(), mix.covariance(), rtol=0, atol=0.06 * mix.covariance().abs().max().item())


def test_spread_is_about_zero() -> None:
    w, m, c = rough(3, 4, seed=6)
    mix = GaussianMixture(w, m, c)
    second = mix.covariance().diagonal() + mix.mean() ** 2
    assert mix.denoiser(VP()).sigma_data == pytest.approx(math.sqrt(second.mean()), rel=1e-12)


def test_labels_select_components() -> None:
    w, m, c = rough(4, 2, seed=10)
    labels = torch.tensor([0, 1, 0, 7])
    mix = GaussianMixture(w, m, c, labels)
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(11), **D64)
    level = VP().at(0.3)
    part = GaussianMixture(w[[0, 2]], m[[0, 2]], c[[0, 2]])
    got = mix.posterior_mean(x, level, torch.tensor([0, 1, 7, 0, -1, 1]))
    torch.testing.assert_close(got[[0, 3]], part.posterior_mean(x[[0, 3]], level))
    torch.testing.assert_close(got[[2]], GaussianMixture(w[3:], m[3:], c[3:]).posterior_mean(x[[2]], level))
    torch.testing.assert_close(got[[4]], mix.posterior_mean(x[[4]], level))
    n = 20000
    draws = mix.sample(n, torch.Generator().manual_seed(12), torch.zeros(n, dtype=torch.int64)).double()
    assert ((draws.mean(0) - part.mean()).abs() < 5 * (part.covariance().diagonal() / n).sqrt()).all()
    refused(lambda: mix.posterior_mean(x[:1], level, torch.tensor([3])), "label 3")
    refused(lambda: mix.sample(1, labels=torch.tensor([5])), "label 5")
    refused(lambda: GaussianMixture(w, m, c, labels[:3]), "labels", "(4,)")


def test_singular_covariances_are_allowed_whatever_type_they_come_in() -> None:
    for dtype in (torch.float32, torch.float64):
        root = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(13)).to(dtype)
        c = root @ root.mT  # rank 2 in 3 dimensions
        mix = GaussianMixture(torch.ones(2), torch.zeros(2, 3), c)
        torch.testing.assert_close(mix.covariance().to(dtype), c.mean(0), rtol=1e-5, atol=1e-5)
        flat = GaussianMixture(torch.ones(2), torch.zeros(2, 3), LowRank(root, torch.zeros(2)))
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(14))
        level = VP().at(0.2)
        torch.testing.assert_close(mix.posterior_mean(x, level), flat.posterior_mean(x, level), rtol=1e-4, atol=1e-4)
        refused(lambda mix=mix, x=x: mix.log_prob(x), "no density")
    Gaussian(torch.zeros(2), torch.zeros(2, 2)).posterior_mean(torch.ones(1, 2), VP().at(0.5))


def test_images_keep_their_shape() -> None:
    data = torch.randn(5, 1, 4, 3, generator=torch.Generator().manual_seed(15))
    mix = Empirical(data, torch.tensor([0, 1, 0, 1, 2]))
    assert mix.sample(7, torch.Generator()).shape == (7, 1, 4, 3)
    assert mix.mean().shape == (1, 4, 3)
    level = VP().at(0.05)
    x = level.alpha * data + level.sigma * 0.1
    near = mix.posterior_mean(x, level)
    torch.testing.assert_close(near.float(), data, rtol=0, atol=1e-3)
    # the ideal denoiser of a data set is a softmax of distances
    level = VP().at(0.5)
    square = ((x[:, None] - level.alpha * data) ** 2).flatten(2).sum(2)
    weight = (-square.double() / (2 * level.sigma**2)).softmax(1)
    expected = torch.einsum("bk,kchw->bchw", weight, data.double())
    torch.testing.assert_close(mix.posterior_mean(x, level), expected, rtol=1e-6, atol=1e-6)
    refused(lambda: mix.posterior_mean(torch.zeros(2, 1, 4, 4), level), "(2, 1, 4, 4)", "(1, 4, 3)")
    # a Gaussian over images: mean (*shape), covariance a number or (d,)
    torch.testing.assert_close(
        Gaussian(data[0], 0.1).posterior_mean(x, level),
        Gaussian(data[0], torch.full((12,), 0.1, **D64)).posterior_mean(x, level),
    )


def test_a_single_gaussian_is_linear_regression() -> None:
    mean, covariance = torch.tensor([0.5, -1.0], **D64), torch.tensor([[0.7, 0.3], [0.3, 0.4]], **D64)
    level = Flow().at(0.4)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(16), **D64)
    a, s = level.alpha, level.sigma
    gain = a * covariance @ torch.linalg.inv(a * a * covariance + s * s * torch.eye(2, **D64))
    expected = mean + (x - a * mean) @ gain.T
    torch.testing.assert_close(Gaussian(mean, covariance).posterior_mean(x, level), expected, rtol=1e-12, atol=1e-12)


def test_the_posterior_mean_has_its_derivative() -> None:
    """For guidance: the Jacobian of E[x_0 given x_t] is alpha/sigma^2 times a covariance, so symmetric; and exact."""
    mix, level = mixture(), VP().at(0.3)
    x = torch.tensor([0.4, -0.2], **D64)
    jacobian = torch.autograd.functional.jacobian(lambda x: mix.posterior_mean(x[None], level)[0], x)
    h = 1e-6 * torch.eye(2, **D64)
    moved = (mix.posterior_mean(x + h, level) - mix.posterior_mean(x - h, level)) / 2e-6
    torch.testing.assert_close(jacobian, moved.T, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(jacobian, jacobian.T, rtol=1e-9, atol=1e-9)
    assert (torch.linalg.eigvalsh(jacobian) > 0).all()


def test_nothing_is_lost_far_out_nor_close_in() -> None:
    """Points far from every mean, and noise near nothing, stay finite: weights are taken in logarithms."""
    mix = mixture()
    for t in (1e-6, 0.5, 1.0):
        level = VP().at(t)
        x = torch.tensor([[1e4, -1e4], [0.0, 0.0]], **D64)
        assert mix.log_prob(x, level).isfinite().all()
        assert mix.posterior_mean(x, level).isfinite().all()
    # at the clean point of a distribution with a density nothing is left to guess
    torch.testing.assert_close(mix.posterior_mean(x[1:], VP().at(0.0)), x[1:])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda w, m, c: GaussianMixture(w[:2], m, c), ["weights", "(2,)"]),
        (lambda w, m, c: GaussianMixture(-w, m, c), ["weights"]),
        (lambda w, m, c: GaussianMixture(0 * w, m, c), ["weights"]),
        (lambda w, m, c: GaussianMixture(w, m, c[:, :2]), ["covariances", "(3, 2, 4)"]),
        (lambda w, m, c: GaussianMixture(w, m, -c), ["positive semi-definite"]),
        (lambda w, m, c: GaussianMixture(w, m, c - 100 * torch.diag(torch.eye(4)[0])), ["positive semi-definite"]),
        (lambda w, m, c: GaussianMixture(w, m, c + torch.triu(torch.ones(4, 4), 1)), ["symmetric"]),
        (lambda w, m, c: GaussianMixture(w, m, -w), ["positive semi-definite"]),
        (lambda w, m, c: GaussianMixture(w, m, LowRank(c[:, :2], w)), ["LowRank", "(3, 4, r)"]),
        (lambda w, m, c: Empirical(m).log_prob(m), ["no density"]),
    ],
)
def test_what_is_no_distribution_is_refused(make: Any, words: Any) -> None:
    refused(lambda: make(*rough(3, 4)), *words)


def test_memory_of_a_large_data_set_is_bounded() -> None:
    """2,000 points in 1,000 dimensions, a batch of 512: 16 MB of points; a (B, K, d) array would be 8 GB."""
    code = """
        import re, torch
        from pathlib import Path
        torch.set_num_threads(1)
        from ornstein import VP
        from ornstein.core.exact import Empirical, GaussianMixture
        g = torch.Generator().manual_seed(0)
        data, x = torch.randn(2000, 1000, generator=g), torch.randn(512, 1000, generator=g)
        warm = Empirical(data[:2]).denoiser(VP())(x[:2], 0.5).x0
        # ru_maxrss would begin at the high-water mark of the process that this one was forked from
        peak = lambda: int(re.search("VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
        before = peak()
        mix = Empirical(data)
        mix.sample(512, g)
        mix.denoiser(VP())(x, torch.linspace(0.1, 0.9, 512)).x0
        print(peak() - before)
        before = peak()
        GaussianMixture(torch.ones(200), data[:200], 0.1 + data[:200] ** 2).denoiser(VP())(x, 0.5).x0
        print(peak() - before)
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    points, diagonal = (float(line) for line in out.stdout.split())
    # measured: 70 to 90 MB (16 of them the points, 4 the batch) and 0 to 20 MB
    assert points < 200, f"{points:.0f} MB"
    assert diagonal < 120, f"{diagonal:.0f} MB"
