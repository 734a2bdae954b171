"""Guidance against closed form: mixtures whose conditional, or whose posterior, is known."""

import dataclasses
import inspect
import itertools
import math
from typing import Any

import pytest
import torch
from laws import PROCESSES, constant, interior, mixture, refused
from torch import nn

from ornstein import EDM, VP, Flow, FunctionDenoiser, NetDenoiser, sample
from ornstein.core.condition import Condition
from ornstein.core.exact import Gaussian, GaussianMixture, LowRank
from ornstein.core.numerics import normal
from ornstein.errors import InputError
from ornstein.guidance import (
    DPS,
    GUIDANCE,
    OPERATORS,
    Autoguidance,
    Blur,
    ClassifierFree,
    ClassifierGuidance,
    Downsample,
    Function,
    LikelihoodGuidance,
    Mask,
    Matrix,
    Measurement,
    MomentMatching,
    NoisyClassifier,
    NoisyCrossEntropy,
    Operator,
    PiGDM,
    RePaint,
    Replacement,
    exact_posterior,
)
from ornstein.guidance.operators import gmres
from ornstein.nets import MLP, UNet
from ornstein.samplers import STEPPERS
from ornstein.samplers.ancestral import DDIM, DDPM
from ornstein.samplers.exponential import DPMpp2M

F64 = torch.float64
INVERSE = [name for name, g in GUIDANCE.items() if "measurement" in inspect.signature(g).parameters]
SHARES = tuple(mixture().weights.tolist())
LABELS = torch.tensor([0, 1, 2, -1, 0])


def draw(*shape: Any, seed: Any = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Counted(FunctionDenoiser):
    """The mixture, conditional by label, that counts its calls."""

    calls: int

    def __init__(self, process: Any) -> None:
        self.__dict__["calls"] = 0
        exact = mixture().denoiser(process)

        def answer(x: Any, level: Any, condition: Any) -> Any:
            self.__dict__["calls"] += 1
            return exact.predict(x, level, condition).x0

        super().__init__(answer, process)


# ------------------------------------------------------------------------------------------------ two denoisers


def test_classifier_free_guidance_is_the_line_through_two_answers() -> None:
    base, x = Counted(VP()), draw(5, 2)
    exact = mixture().denoiser(VP())
    none, given = exact(x, 0.3).x0, exact(x, 0.3, LABELS).x0
    for scale in (0.5, 2.0, 7.5, -1.0):
        before = base.calls
        found = ClassifierFree(base, scale)(x, 0.3, LABELS).x0
        torch.testing.assert_close(found, none + scale * (given - none), rtol=1e-12, atol=1e-12)
        assert base.calls == before + 1  # one call for both
    assert torch.equal(ClassifierFree(base, 1.0)(x, 0.3, LABELS).x0, given)
    assert torch.equal(ClassifierFree(base, 0.0)(x, 0.3, LABELS).x0, none)
    with pytest.raises(InputError, match="needs condition="):  # nothing to guide to: not ignored in silence
        ClassifierFree(base, 4.0)(x, 0.3)
    torch.testing.assert_close(ClassifierFree(base, 4.0)(x, 0.3, LABELS).x0[3], none[3], rtol=1e-12, atol=1e-12)


def test_features_are_left_out_by_nan() -> None:
    def answer(x: Any, level: Any, condition: Any) -> Any:
        told = ~condition.absent("vector")[:, None]
        return torch.where(told, condition.parts["vector"].nan_to_num(), 0.0) + 0.1 * x

    base, x, condition = FunctionDenoiser(answer, VP()), draw(3, 2), draw(3, 2, seed=1)
    torch.testing.assert_close(ClassifierFree(base, 3.0)(x, 0.3, condition).x0, 0.1 * x + 3 * condition)


@pytest.mark.parametrize("stepper", STEPPERS)
def test_scale_one_draws_from_the_conditional_model_bit_for_bit(stepper: Any) -> None:
    base = mixture().denoiser(VP())
    plain = sample(base, (5, 2), stepper=stepper, steps=3, seed=0, condition=LABELS)
    assert torch.equal(
        sample(ClassifierFree(base, 1.0), (5, 2), stepper=stepper, steps=3, seed=0, condition=LABELS), plain
    )
    weak = Autoguidance(base, mixture().denoiser(VP()), 1.0)
    assert torch.equal(sample(weak, (5, 2), stepper=stepper, steps=3, seed=0, condition=LABELS), plain)


def test_rescaling_gives_the_spread_back_to_each_sample() -> None:
    pictures = GaussianMixture(torch.ones(3), draw(3, 4, 4), torch.full((3,), 0.2)).denoiser(VP())
    x = draw(4, 4, 4, seed=1)
    given = pictures(x, 0.5, LABELS[:4]).x0
    free, full, half = (ClassifierFree(pictures, 6.0, rescale=r)(x, 0.5, LABELS[:4]).x0 for r in (0.0, 1.0, 0.5))
    std = [v.flatten(1).std(1) for v in (given, free, full, half)]
    assert bool((std[1][:3] > 1.05 * std[0][:3]).all())  # a large scale over-exposes
    torch.testing.assert_close(std[2], std[0])
    torch.testing.assert_close(half, (free + full) / 2)


def test_classifier_free_guidance_of_gaussians_is_the_gaussian_it_should_be() -> None:
    """Two Gaussians of the same variance: the guided answer is that of means further apart."""
    mean, var = torch.tensor([[1.0], [-1.0]], dtype=F64), torch.tensor([0.25, 0.25])
    pair = GaussianMixture(torch.ones(2), mean, var).denoiser(VP())
    x, level = draw(6, 1), VP().at(0.4)
    # far to one side there is one component, and guiding to the other moves by w times the distance of the answers
    x[:] = 60.0
    shift = float(pair(x, level, torch.ones(6, dtype=torch.long)).x0[0, 0] - pair(x, level).x0[0, 0])
    gain = level.alpha**2 * 0.25 / (level.alpha**2 * 0.25 + level.sigma**2)
    assert shift == pytest.approx(-2 * (1 - gain), abs=1e-6)
    found = ClassifierFree(pair, 3.0)(x, level, torch.ones(6, dtype=torch.long)).x0
    torch.testing.assert_close(found, pair(x, level).x0 + 3 * shift)


def test_autoguidance_points_away_from_the_weaker_model_on_any_clock() -> None:
    base, blurred = mixture(), Gaussian(torch.zeros(2), 1.5)
    x, level = draw(5, 2), VP().at(0.3)
    good, weak = base.denoiser(VP())(x, level).x0, blurred.denoiser(VP())(x, level).x0
    for clock in (VP(), EDM(), Flow()):
        found = Autoguidance(base.denoiser(VP()), blurred.denoiser(clock), 2.5)(x, level).x0
        torch.testing.assert_close(found, weak + 2.5 * (good - weak), rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------------------------- classifiers


class Bayes(nn.Module):
    """The network of the classifier that knows: log p(x_t given c), up to a constant and to the classifier's factor."""

    def __init__(self, sigma_data: Any) -> None:
        super().__init__()
        self.sigma_data = sigma_data

    def forward(self, scaled: Any, noise_level: Any, condition: Any) -> Any:
        ratio = noise_level.double().exp()[:, None]
        y = scaled.double() * (self.sigma_data**2 + ratio**2).sqrt()  # x/alpha
        process, mix = EDM(t_max=1e6), mixture()
        level = process.at(ratio[:, 0], like=y)
        logits = []
        for k in range(3):
            part = Gaussian(mix.means[k], mix.basis[k] @ torch.diag(mix.spread[k]) @ mix.basis[k].mT)
            logits.append(part.log_prob(y, level))
        return torch.stack(logits, 1) * (self.sigma_data**2 + ratio**2).sqrt() / self.sigma_data


@pytest.mark.parametrize("process", [VP(), EDM(), Flow()], ids=repr)
def test_an_exact_classifier_makes_the_conditional_model(process: Any) -> None:
    """Bayes: unconditional + classifier = conditional, at every level; and scale 0 is unconditional."""
    base = mixture().denoiser(process)
    classifier = NoisyClassifier(Bayes(base.sigma_data), process, SHARES, base.sigma_data)
    x = draw(5, 2)
    for t in interior(process):
        level = process.at(float(t))
        found = ClassifierGuidance(base, classifier)(level.alpha * x, level, LABELS).x0
        torch.testing.assert_close(found, base(level.alpha * x, level, LABELS).x0, rtol=1e-5, atol=1e-5)
        off = ClassifierGuidance(base, classifier, 0.0)(level.alpha * x, level, LABELS).x0
        torch.testing.assert_close(off, base(level.alpha * x, level).x0)
        total = classifier.log_probs(level.alpha * x, level).logsumexp(1)
        torch.testing.assert_close(total, torch.zeros(5, dtype=F64), rtol=0, atol=1e-6)


def test_the_cross_entropy_is_smallest_for_the_exact_classifier() -> None:
    base = mixture().denoiser(VP())
    exact = NetDenoiser(Bayes(base.sigma_data), VP(), sigma_data=base.sigma_data)

    class Tempered(Bayes):
        def forward(self, scaled: Any, noise_level: Any, condition: Any) -> Any:
            return self.by * super().forward(scaled, noise_level, condition) + self.tilt

    def loss(by: Any, tilt: Any) -> Any:
        net = Tempered(base.sigma_data)
        net.by, net.tilt = by, torch.tensor([tilt, 0.0, 0.0])
        g = torch.Generator().manual_seed(0)
        x0 = mixture().sample(4000, generator=g, labels=labels)
        return NoisyCrossEntropy(SHARES)(dataclasses.replace(exact, net=net), x0, labels, g)

    labels = torch.multinomial(mixture().weights, 4000, True, generator=torch.Generator().manual_seed(1))
    best = loss(1.0, 0.0)
    assert best.shape == (4000,)
    for by, tilt in [(0.7, 0.0), (1.4, 0.0), (1.0, 1.0), (1.0, -1.0)]:
        more = loss(by, tilt) - best
        assert more.mean() > 2 * more.std() / math.sqrt(4000), (by, tilt)
    # at high noise it is the entropy of the classes
    g = torch.Generator().manual_seed(0)
    entropy = -(mixture().weights * mixture().log_weights).sum()
    far = NoisyCrossEntropy(SHARES, low=100.0, high=150.0)(exact, mixture().sample(4000, g, labels), labels, g)
    assert far.mean() == pytest.approx(entropy.item(), abs=4 * far.std().item() / math.sqrt(4000))


def test_a_small_network_learns_to_guide() -> None:
    """Trained for a few seconds on the mixture's components, it draws the component asked for."""
    mix, process = mixture(), VP()
    base = mix.denoiser(process)
    net = MLP(width=48, depth=2).build((2,), out_multiple=NoisyClassifier.out_multiple((2,), 3))
    denoiser, objective = NetDenoiser(net, process, sigma_data=base.sigma_data), NoisyCrossEntropy(SHARES)
    g = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(net.parameters(), 8e-3)
    for step in range(120):
        optimiser.param_groups[0]["lr"] = 8e-3 * (1 - step / 120)
        labels = torch.multinomial(mix.weights, 256, True, generator=g)
        loss = objective(denoiser, mix.sample(256, g, labels), labels, g).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    classifier = NoisyClassifier(net.requires_grad_(False), process, SHARES, base.sigma_data)
    guided = ClassifierGuidance(base, classifier)
    for label in range(3):
        condition = torch.full((400,), label)
        x = sample(guided, (400, 2), steps=12, seed=label, condition=condition)
        off = (x.double().mean(0) - mix.means[label]).norm()
        plain = (mix.mean() - mix.means[label]).norm()
        assert off < 0.2 * plain, (label, off, plain)


def test_a_picture_classifier_is_a_net_of_the_house() -> None:
    """A U-Net with enough channels, averaged over positions; the gradient reaches every pixel."""
    net: Any = UNet(channels=8, multipliers=(1, 2), blocks=1, attention=()).build(
        (1, 6, 5), out_multiple=NoisyClassifier.out_multiple((1, 6, 5), 10)
    )
    torch.nn.init.normal_(net.out.weight, generator=torch.Generator().manual_seed(0))
    classifier = NoisyClassifier(net, VP(), (1,) * 10)
    x = draw(3, 1, 6, 5).float()
    torch.testing.assert_close(classifier.log_probs(x, 0.3).exp().sum(1), torch.ones(3))
    guided = ClassifierGuidance(constant(VP(), torch.zeros(1, 6, 5)), classifier)
    moved = guided(x, 0.3, torch.tensor([1, 2, -1])).x0
    assert bool((moved[:2] != 0).all())
    assert torch.equal(moved[2], torch.zeros(1, 6, 5))
    small = NoisyClassifier(UNet(channels=8, multipliers=(1,)).build((1, 4, 4)), VP(), (1,) * 10)
    refused(lambda: small.log_probs(torch.zeros(1, 1, 4, 4), 0.3), "1 channels", "10 classes", "out_multiple=10")


def test_any_log_likelihood_of_the_noisy_data_is_bayes_rule() -> None:
    """A Gaussian likelihood of x_t that is the one of x_0: the answer of the product."""
    process, x = VP(), draw(5, 3)
    prior, y, var = Gaussian(torch.zeros(3), 1.0), torch.tensor([0.5, -1.0, 2.0], dtype=F64), 0.3
    posterior = Gaussian(y / (1 + var), var / (1 + var))

    def log_likelihood(x: Any, level: Any) -> Any:  # y given x_t is N(E[x_0 given x_t], var + what is left)
        total = level.alpha**2 + level.sigma**2
        return -0.5 * ((y - level.alpha / total * x) ** 2 / (var + level.sigma**2 / total)).sum(1)

    for t in (0.05, 0.3, 0.9):
        found = LikelihoodGuidance(prior.denoiser(process), log_likelihood)(x, t).x0
        torch.testing.assert_close(found, posterior.denoiser(process)(x, t).x0)

    # of x0, through the denoiser: the same likelihood as a function of the denoiser's answer
    def of_x0(x0: Any, level: Any) -> Any:
        return -0.5 * ((y - x0) ** 2 / (var + level.sigma**2 / (level.alpha**2 + level.sigma**2))).sum(1)

    found = LikelihoodGuidance(prior.denoiser(process), of_x0, of="x0")(x, 0.3).x0
    torch.testing.assert_close(found, posterior.denoiser(process)(x, 0.3).x0)
    double = LikelihoodGuidance(prior.denoiser(process), of_x0, 2.0, of="x0")(x, 0.3).x0
    before = prior.denoiser(process)(x, 0.3).x0
    torch.testing.assert_close(double - before, 2 * (found - before))


# ------------------------------------------------------------------------------------------------------ operators


def operators(shape: Any) -> Any:
    """One of each for data of this shape."""
    d = math.prod(shape)
    known = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    made = {
        "mask": Mask(known),
        "matrix": Matrix(draw(3, d)),
        "low-rank matrix": Matrix(draw(4, 2) @ draw(2, d, seed=1)),
        "tall matrix": Matrix(draw(d + 3, d)),
        "function": Function(lambda x: x.flatten(1).cumsum(1)[:, 1:4], linear=True),
    }
    if len(shape) > 1:
        made |= {"blur": Blur(0.7), "downsample": Downsample(2)}
    return made


@pytest.mark.parametrize(("shape", "name"), [(s, n) for s in [(6,), (2, 4, 6), (1, 8)] for n in operators(s)])
def test_operators_know_their_transpose_their_inverse_and_their_matrix(shape: Any, name: Any) -> None:
    operator = operators(shape)[name]
    d = math.prod(shape)
    columns = operator.apply(torch.eye(d, dtype=F64).reshape(d, *shape))
    dense = columns.flatten(1).mT  # (m, d)
    x, y = draw(3, *shape), operator.apply(draw(3, *shape, seed=1))
    rows = y.flatten(1)
    torch.testing.assert_close(operator.apply(x).flatten(1), x.flatten(1) @ dense.mT)
    torch.testing.assert_close(operator.adjoint(y, x).flatten(1), rows @ dense)
    gram = dense @ dense.mT
    eye = torch.eye(len(gram), dtype=F64)
    scale = torch.tensor([0.5, 2.0, 1.0], dtype=F64)
    found = operator.solve(y, x, 0.3, scale.reshape(3, *[1] * len(shape))).flatten(1)
    for i in range(3):
        expected = torch.linalg.solve(0.3 * eye + scale[i] * gram, rows[i])
        torch.testing.assert_close(found[i], expected, rtol=1e-7, atol=1e-9)
    projected = operator.project(x, y)
    torch.testing.assert_close(operator.apply(projected), y, rtol=1e-7, atol=1e-7)
    nearest = x.flatten(1) + (rows - x.flatten(1) @ dense.mT) @ torch.linalg.pinv(dense).mT
    torch.testing.assert_close(projected.flatten(1), nearest, rtol=1e-6, atol=1e-6)
    # in single precision too
    torch.testing.assert_close(operator.apply(x.float()), operator.apply(x).float(), rtol=1e-5, atol=1e-5)
    assert operator.solve(y.float(), x.float(), 0.3).dtype == torch.float32


def test_every_operator_of_the_table_is_tested() -> None:
    tested = {type(op) for op in operators((2, 4, 6)).values()}
    assert tested == set(OPERATORS.values())


def test_blur_is_scipys() -> None:
    from scipy.ndimage import gaussian_filter

    x = draw(2, 3, 9, 4)
    for width in (0.5, 1.3, 4.0):
        theirs = gaussian_filter(x.numpy(), (0, 0, width, width), mode="reflect", radius=math.ceil(4 * width))
        torch.testing.assert_close(Blur(width).apply(x), torch.from_numpy(theirs))


def test_downsampling_takes_means_of_blocks() -> None:
    x = draw(2, 3, 4, 6)
    expected = torch.nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(Downsample(2).apply(x), expected)
    refused(lambda: Downsample(4).apply(x), "by=4", "6")


def test_gmres_solves_what_is_not_symmetric_each_sample_by_itself() -> None:
    a = draw(4, 7, 7) + 3 * torch.eye(7)
    y = draw(4, 7, seed=1)
    y[2] = 0
    a[3] = torch.diag(torch.tensor([1.0, 1.0, 2.0, 2.0, 2.0, 5.0, 5.0]))  # three eigenvalues: three products

    def product(m: Any) -> Any:
        return lambda v: torch.einsum("bij,bj->bi", m, v)

    solved = gmres(product(a), y, 20)
    torch.testing.assert_close(solved, torch.linalg.solve(a, y), rtol=1e-8, atol=1e-8)
    assert torch.equal(solved[2], torch.zeros(7, dtype=F64))
    few = gmres(product(a), y, 3)
    torch.testing.assert_close(few[3], solved[3], rtol=1e-8, atol=1e-8)
    residual = [(product(a)(gmres(product(a), y, k)) - y).norm(dim=1)[:2] for k in (1, 2, 4, 7)]
    assert all(bool((after < before).all()) for before, after in itertools.pairwise(residual))
    for i in range(4):
        torch.testing.assert_close(few[i : i + 1], gmres(product(a[i : i + 1]), y[i : i + 1], 3), rtol=1e-9, atol=1e-9)
    # a singular matrix, a right side within its range
    low = draw(4, 7, 2, seed=3)
    low = low @ low.mT
    y = product(low)(draw(4, 7, seed=4))
    torch.testing.assert_close(product(low)(gmres(product(low), y, 7)), y, rtol=1e-7, atol=1e-7)
    assert torch.equal(gmres(lambda v: 0 * v, y, 3), 0 * y)


# ----------------------------------------------------------------------------------------------- inverse problems


def problem(noise: Any, d: Any = 5, components: Any = 1, seed: Any = 0) -> Any:
    """A prior, a measurement of it by a random matrix, and the posterior."""
    root = 0.7 * draw(components, d, d, seed=seed) / math.sqrt(d)
    weights = torch.linspace(1, 2, components)
    prior = GaussianMixture(weights, draw(components, d, seed=seed + 1), root @ root.mT + 0.02 * torch.eye(d))
    a = Matrix(draw(2, d, seed=seed + 2))
    y = a.apply(prior.sample(1, torch.Generator().manual_seed(seed)).double()) + noise * draw(1, 2, seed=seed + 3)
    measurement = Measurement(a, y, noise)
    return prior, measurement, exact_posterior(prior, measurement)


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_the_exact_posterior_is_prior_times_likelihood(noise: Any) -> None:
    prior, measurement, posterior = problem(noise, components=3)
    x = posterior.sample(50, torch.Generator().manual_seed(0)).double()
    if noise == 0:
        torch.testing.assert_close(measurement.operator.apply(x), measurement.y.expand(50, 2), rtol=0, atol=1e-5)
        blurred = exact_posterior(prior, dataclasses.replace(measurement, noise=1e-4))
        torch.testing.assert_close(posterior.mean(), blurred.mean(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(posterior.weights, blurred.weights, rtol=1e-3, atol=1e-4)
        return
    likelihood = -0.5 * (measurement.residual(x) / noise).square().sum(1)
    constant = posterior.log_prob(x) - prior.log_prob(x) - likelihood
    torch.testing.assert_close(constant, constant[:1].expand(50), rtol=1e-6, atol=1e-6)


def test_the_exact_posterior_is_the_same_however_the_covariances_are_given() -> None:
    prior, measurement, _ = problem(0.3, components=2)
    factor, variance = draw(2, 5, 2, seed=7), torch.tensor([0.3, 0.1], dtype=torch.float64)
    full = factor @ factor.mT + variance[:, None, None] * torch.eye(5)
    low, whole = (
        exact_posterior(GaussianMixture(prior.weights, prior.means, given), measurement)
        for given in (LowRank(factor, variance), full)
    )
    torch.testing.assert_close(low.mean(), whole.mean(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(low.covariance(), whole.covariance(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(low.weights, whole.weights, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_moment_matching_is_exact_for_gaussian_data(name: Any, noise: Any) -> None:
    """At every level of every process the answer is that of the closed-form posterior."""
    process = PROCESSES[name]
    prior, measurement, posterior = problem(noise)
    mask = Mask(torch.tensor([True, False, False, True, False]))
    masked = Measurement(mask, mask.apply(draw(1, 5, seed=9)), noise)
    for seen, exact in ((measurement, posterior), (masked, exact_posterior(prior, masked))):
        guided, truth = MomentMatching(prior.denoiser(process), seen), exact.denoiser(process)
        for t in interior(process):
            level = process.at(float(t))
            x = level.noised(draw(4, 5, seed=3), draw(4, 5, seed=4))
            torch.testing.assert_close(guided(x, level).x0, truth(x, level).x0, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_samples_by_moment_matching_converge_to_the_posterior(noise: Any) -> None:
    """With the steps, at the stepper's order, to the closed-form end of each trajectory."""
    process = VP()
    prior, measurement, posterior = problem(noise)
    guided = MomentMatching(prior.denoiser(process), measurement)
    first = process.at(1.0)
    start = first.sigma * normal(torch.arange(64), (5,), 0, F64)
    basis, spread, mean = posterior.basis[0], posterior.spread[0], posterior.means[0]
    shrink = (spread / (first.alpha**2 * spread + first.sigma**2)).sqrt()
    exact = mean + ((start - first.alpha * mean) @ basis * shrink) @ basis.mT
    error = []
    for steps in (16, 32, 64):
        x = sample(guided, (64, 5), stepper=DPMpp2M(), steps=steps, grid="logsnr", x=start, seed=0, dtype=F64)
        error.append((x - exact).norm(dim=1).mean().item())
    assert error[2] < 0.01
    assert math.log2(error[0] / error[1]) > 1.5, error
    assert math.log2(error[1] / error[2]) > 1.5, error


def test_a_covariance_that_is_known_makes_pigdm_exact_too() -> None:
    """White data are what PiGDM takes all data for, and what replacement takes them for."""
    prior = Gaussian(draw(4), 0.49)
    a = Matrix(draw(2, 4, seed=1))
    for noise in (0.0, 0.3):
        measurement = Measurement(a, draw(1, 2, seed=2), noise)
        base = dataclasses.replace(prior.denoiser(VP()))
        centred = FunctionDenoiser(lambda x, level, condition, base=base: base(x, level).x0, VP(), 0.7)  # type: ignore[misc]
        truth = exact_posterior(prior, measurement).denoiser(VP())
        for t in (0.02, 0.4, 0.9):
            x = draw(3, 4, seed=3)
            for method in (PiGDM, Replacement):
                found = method(centred, measurement)(x, t).x0
                torch.testing.assert_close(found, truth(x, t).x0, rtol=1e-8, atol=1e-8)


def test_on_mixtures_moment_matching_is_exact_at_low_noise_and_nearest_on_the_way() -> None:
    """The error of the answer on noisy data of the posterior, by level."""
    prior, measurement, posterior = problem(0.3, d=6, components=3, seed=20)
    process, truth = VP(), posterior.denoiser(VP())
    errors: dict[str, list[float]] = {name: [] for name in INVERSE}
    for t in (0.01, 0.03, 0.1, 0.3):
        level = process.at(t)
        x = level.noised(posterior.sample(400, torch.Generator().manual_seed(0)).double(), draw(400, 6, seed=1))
        for name in INVERSE:
            found = GUIDANCE[name](prior.denoiser(process), measurement)(x, level).x0
            errors[name].append((found - truth(x, level).x0).norm(dim=1).mean().item())
    for i in range(4):
        assert errors["moment-matching"][i] <= min(errors[name][i] for name in INVERSE)
        assert errors["moment-matching"][i] < 0.4 * errors["replacement"][i]
    assert errors["moment-matching"][0] < 1e-3
    assert errors["moment-matching"][0] < 0.05 * errors["moment-matching"][2]


@pytest.mark.parametrize("name", INVERSE)
@pytest.mark.parametrize("stepper", STEPPERS)
def test_known_pixels_come_back_to_the_last_bit(name: Any, stepper: Any) -> None:
    process = VP()
    pictures = GaussianMixture(torch.ones(3), draw(3, 1, 3, 4), torch.full((3,), 0.1)).denoiser(process)
    known = torch.tensor([True, False, True, True]).expand(1, 3, 4)
    truth = draw(1, 1, 3, 4, seed=5).float()
    mask = Mask(known)
    guided = GUIDANCE[name](pictures, Measurement(mask, mask.apply(truth)))
    x = sample(guided, (3, 1, 3, 4), stepper=stepper, steps=3, seed=0)
    assert torch.equal(x[:, known], truth.expand(3, -1, -1, -1)[:, known])
    assert len(x[:, ~known].unique(dim=0)) == 3


@pytest.mark.parametrize("name", INVERSE)
def test_other_measurements_without_noise_are_met(name: Any) -> None:
    prior = GaussianMixture(torch.ones(3), draw(3, 1, 4, 6), torch.full((3,), 0.1)).denoiser(VP())
    truth = draw(1, 1, 4, 6, seed=5)
    for operator in (Downsample(2), Blur(0.6), Matrix(draw(3, 24))):
        y = operator.apply(truth)
        x = sample(GUIDANCE[name](prior, Measurement(operator, y)), (3, 1, 4, 6), steps=4, seed=0, dtype=F64)
        torch.testing.assert_close(operator.apply(x), y.expand(3, *y.shape[1:]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", INVERSE)
def test_a_constant_denoiser_that_knows_nothing_of_the_measurement_believes_it_where_it_was_measured(name: Any) -> None:
    """No covariance to spread by: what was seen stands, the rest stays c."""
    c = torch.tensor([0.5, -0.5, 0.2])
    mask = Mask(torch.tensor([True, False, False]))
    guided = GUIDANCE[name](constant(VP(), c), Measurement(mask, torch.tensor([[2.0, 0.0, 0.0]])))
    assert torch.equal(sample(guided, (2, 3), steps=3, seed=0), torch.tensor([2.0, -0.5, 0.2]).expand(2, 3))


def test_each_sample_may_have_its_own_measurement() -> None:
    """Imputation: another mask in every row."""
    prior = problem(0.0)[0].denoiser(VP())
    known = torch.tensor([[True, False, False, True, False], [False, True, False, False, False]])
    rows = draw(2, 5, seed=7)
    for name in INVERSE:
        together = GUIDANCE[name](prior, Measurement(Mask(known), Mask(known).apply(rows)))
        both = sample(together, (2, 5), steps=4, seeds=[1, 2], dtype=F64)
        for i in range(2):
            alone = GUIDANCE[name](prior, Measurement(Mask(known[i]), Mask(known[i]).apply(rows[i : i + 1])))
            one = sample(alone, (1, 5), steps=4, seeds=[i + 1], dtype=F64)
            torch.testing.assert_close(both[i : i + 1], one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in INVERSE if name != "replacement"])
def test_a_function_stands_for_its_tangent(name: Any) -> None:
    """Through sinh a linear problem looks bent; near where the two agree the methods do as well."""
    prior, measurement, _ = problem(0.2)
    den, x = prior.denoiser(VP()), draw(3, 5, seed=8)
    straight = GUIDANCE[name](den, measurement)(x, 0.1).x0
    matrix = measurement.operator.matrix
    as_function = dataclasses.replace(measurement, operator=Function(lambda x: x @ matrix.to(x).mT))
    torch.testing.assert_close(GUIDANCE[name](den, as_function)(x, 0.1).x0, straight, rtol=1e-6, atol=1e-6)
    small = 1e-3  # sinh(a x)/a is x + a^2 x^3/6
    bent = Function(lambda x: torch.sinh(small * (x @ matrix.to(x).mT)) / small)
    near = GUIDANCE[name](den, dataclasses.replace(measurement, operator=bent))(x, 0.1).x0
    torch.testing.assert_close(near, straight, rtol=0, atol=1e-3)
    # and what it finds explains the measurement better than what it was given
    square = Function(lambda x: x[:, :2] ** 2)
    seen = Measurement(square, torch.tensor([[0.8, 0.3]], dtype=F64), 0.05)
    found, before = (sample(d, (200, 5), steps=40, seed=0, dtype=F64) for d in (GUIDANCE[name](den, seen), den))
    assert seen.residual(found).square().mean() < 0.1 * seen.residual(before).square().mean()


def test_the_scale_of_dps_is_how_closely_it_follows_the_measurement() -> None:
    """With next to no noise the step is proportional to the scale; with none, what was measured is put in exactly."""
    prior = problem(0.0)[0]
    mask = Mask(torch.tensor([True, False, False, True, False]))
    measurement = Measurement(mask, mask.apply(draw(1, 5, seed=9)), 1e-9)
    den = prior.denoiser(VP())
    level, x = VP().at(0.5), draw(6, 5, seed=3)
    plain = den.predict(x, level, Condition()).x0
    steps = {
        scale: GUIDANCE["dps"](den, measurement, scale=scale).predict(x, level, Condition()).x0 - plain
        for scale in (0.25, 1.0, 2.0)
    }
    for scale in (0.25, 2.0):
        torch.testing.assert_close(steps[scale], scale * steps[1.0], rtol=1e-6, atol=1e-9)
    before, after = (measurement.residual(plain + step).square().mean() for step in (0 * plain, steps[0.25]))
    assert after < 0.5 * before


def test_repaint_comes_nearer_the_posterior_with_each_repeat() -> None:
    """Gaussian data, half of the entries known: mean and covariance against closed form."""
    prior = problem(0.0)[0]
    mask = Mask(torch.tensor([True, False, False, True, False]))
    measurement = Measurement(mask, mask.apply(draw(1, 5, seed=9)))
    truth, guided = exact_posterior(prior, measurement), Replacement(prior.denoiser(VP()), measurement)
    errors, spreads = [], []
    for repeats in (1, 4, 12):
        around = RePaint(DDPM(), measurement, repeats)
        assert around.calls == repeats
        x = sample(guided, (500, 5), stepper=around, steps=20, seed=0, dtype=F64)
        assert torch.equal(x[:, mask.known], measurement.y.expand(500, 5)[:, mask.known])
        errors.append(((x.mean(0) - truth.mean()).norm() / truth.covariance().trace().sqrt()).item())
        spreads.append((x.T.cov().trace() / truth.covariance().trace()).item())
    assert errors[0] > 2 * errors[2]
    assert errors[1] < errors[0]
    assert errors[2] < 0.15, errors
    # going back adds its noise: without it samples draw together, to a third of their variance (20 coarse steps: 0.7)
    assert 0.6 < spreads[2] < 1.1, spreads
    # one repeat costs what the stepper costs; a deterministic stepper will do
    x = sample(guided, (4, 5), stepper=RePaint(DDIM(), measurement, 2), steps=5, seed=0)
    assert bool(torch.isfinite(x).all())


def test_guidance_ends_where_no_signal_is_left() -> None:
    """At zero signal the gradient says nothing: no infinities, and the walk goes on."""
    process = PROCESSES["flow"]
    prior, measurement, _ = problem(0.0)
    process = dataclasses.replace(process, t_max=1.0)  # type: ignore[type-var]  # every one of the table is a dataclass
    level = process.at(1.0)
    assert level.alpha == 0.0
    for name in INVERSE:
        guided = GUIDANCE[name](prior.denoiser(process), measurement)
        assert bool(torch.isfinite(guided(draw(3, 5), 1.0).x0).all())


def test_bad_input_is_refused_in_a_sentence() -> None:
    den, x = mixture().denoiser(VP()), draw(2, 2)
    mask = Mask(torch.tensor([True, False]))
    seen = Measurement(mask, torch.zeros(1, 2))
    bent = Function(torch.sin)
    classifier = NoisyClassifier(Bayes(1.0), VP(), SHARES)
    for call, words in [
        (lambda: ClassifierFree(den, math.nan), ["scale=nan"]),
        (lambda: ClassifierFree(den, rescale=2.0), ["rescale=2.0", "[0, 1]"]),
        (lambda: LikelihoodGuidance(den, lambda x, level: x, of="eps"), ["of='eps'", "'x0'"]),
        (lambda: ClassifierGuidance(den, classifier)(x, 0.3), ["condition="]),
        (lambda: ClassifierGuidance(mixture().denoiser(EDM()), classifier), ["VP", "EDM", "clock"]),
        (lambda: NoisyClassifier(Bayes(1.0), VP(), (1.0,)), ["shares=(1.0,)"]),
        (lambda: NoisyCrossEntropy((0.5, 0.0)), ["shares=(0.5, 0.0)", "positive"]),
        (lambda: NoisyCrossEntropy(SHARES, low=0.0), ["low=0.0"]),
        (lambda: NoisyCrossEntropy(SHARES, smoothing=1.0), ["smoothing=1.0"]),
        (lambda: NoisyCrossEntropy(SHARES)(den, x, LABELS[:2], torch.Generator()), ["ExactDenoiser", "network"]),
        (
            lambda: NoisyCrossEntropy(SHARES)(NetDenoiser(Bayes(1.0), VP()), x, None, torch.Generator()),
            ["labels", "none"],
        ),
        (lambda: Mask(torch.tensor([1.0, 0.0])), ["known", "float32", "boolean"]),
        (lambda: Matrix(torch.ones(3)), ["matrix", "(3,)"]),
        (lambda: Matrix(torch.ones(1, 3)).apply(x), ["3 columns", "(2,)"]),
        (lambda: Blur(0.0), ["width=0.0"]),
        (lambda: Blur(1.0).apply(x), ["(2,)", "axis"]),
        (lambda: Downsample(0), ["by=0"]),
        (lambda: Measurement(mask, torch.zeros(1, 2), -1.0), ["noise=-1.0"]),
        (lambda: Measurement(mask, torch.tensor([[math.nan, 0.0]])), ["y", "finite"]),
        (lambda: PiGDM(den, Measurement(mask, torch.zeros(3, 2)))(x, 0.3), ["y", "(3, 2)", "(2, 2)"]),
        (lambda: Replacement(den, Measurement(bent, torch.zeros(1, 2))), ["not linear", "moment-matching"]),
        (lambda: bent.project(x, x), ["not linear"]),
        (lambda: DPS(den, seen, 0.0), ["scale=0.0"]),
        (lambda: MomentMatching(den, seen, 0), ["iterations=0"]),
        (lambda: RePaint(DDPM(), seen, 0), ["repeats=0"]),
        (lambda: RePaint(DDPM(), dataclasses.replace(seen, noise=0.1)), ["noise=0"]),
        (lambda: exact_posterior(mixture(), Measurement(bent, torch.zeros(1, 2))), ["linear"]),
    ]:
        refused(call, *words)
    assert isinstance(mask, Operator)
