"""Energies: their score, their constant, and four ways to learn them, each against a density that is known."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from laws import PROCESSES, mixture, refused
from sure import there
from torch import nn

from ornstein import EDM, VP, Flow, NetDenoiser, sample
from ornstein.core.condition import Condition
from ornstein.core.divergence import divergence
from ornstein.core.drive import Ask
from ornstein.core.exact import Gaussian, GaussianMixture, LowRank
from ornstein.energies import (
    EnergyDenoiser,
    MaximumLikelihood,
    Moves,
    NoiseContrastive,
    Partition,
    RecoveryLikelihood,
    energy_denoiser,
    log_partition,
)
from ornstein.energies.modes import Mode, find, widened
from ornstein.energies.partition import _even
from ornstein.nets import MLP, UNet
from ornstein.objectives import OBJECTIVES
from ornstein.samplers import RecoveryLangevin

F64 = torch.float64


def seeded(seed: Any = 0) -> Any:
    return torch.Generator().manual_seed(seed)


def net(shape: Any = (2,), width: Any = 32, dtype: Any = torch.float32, stirred: Any = True, seed: Any = 0) -> Any:
    """A network; stirred, its output is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = MLP(width=width, depth=2, embedding=16).build(shape).to(dtype)
        if stirred:
            for p in made.parameters():
                p.data += 0.2 * torch.randn_like(p)
    return made


class OneNumber(nn.Module):
    """A network that gives the energy itself."""

    def __init__(self, d: Any, seed: Any = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(d + 2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, z: Any, noise_level: Any, condition: Any) -> Any:
        c = noise_level[:, None].to(z)
        return self.layers(torch.cat([z, c / 4, torch.tanh(c)], 1))


def one_number(d: Any = 2, dtype: Any = F64) -> Any:
    return OneNumber(d).to(dtype)


def mix_energy(weights: Any, means: Any, variances: Any, constant: Any = 0.0) -> Any:
    """constant - log density of isotropic Gaussians, (K,), (K, d), (K,), in plain torch: log Z = -constant."""
    weights, means, variances = (torch.as_tensor(v, dtype=F64) for v in (weights, means, variances))
    d = means.shape[1]

    def energy(x: Any) -> Any:
        square = (x[:, None].double() - means).square().sum(2)
        logs = weights.log() - 0.5 * (square / variances + d * (2 * math.pi * variances).log())
        return constant - logs.logsumexp(1)

    return energy


# the denoiser


@pytest.mark.parametrize("make", [lambda: net(dtype=F64), one_number], ids=["vector", "scalar"])
@pytest.mark.parametrize("name", ["vp", "edm", "flow", "betas"])
def test_the_score_is_minus_the_gradient_of_the_energy(name: Any, make: Any) -> None:
    """By central differences of E, at several levels in one batch."""
    process = PROCESSES[name]
    den = EnergyDenoiser(make(), process, 0.7)
    t = process.t_max * torch.tensor([0.9, 0.5, 0.3, 0.1], dtype=F64)
    x = torch.randn(4, 2, generator=seeded(), dtype=F64) * process.at(t, like=torch.zeros(4, 1, dtype=F64)).sigma
    score, h = den(x, t).score, 1e-5 * process.at(t, like=x).sigma[:, 0]
    for k in range(2):
        step = torch.zeros_like(x)
        step[:, k] = h
        slope = (den.energy(x + step, t) - den.energy(x - step, t)) / (2 * h)
        torch.testing.assert_close(score[:, k], -slope, rtol=1e-6, atol=1e-6 * float(score.detach().abs().max()))


def test_untrained_it_is_the_gaussian() -> None:
    den = EnergyDenoiser(net(stirred=False), VP(), 0.5)
    x = torch.randn(6, 2, generator=seeded())
    exact = Gaussian(torch.zeros(2), 0.25)
    for t in (0.05, 0.5, 1.0):
        torch.testing.assert_close(den(x, t).x0, exact.denoiser(VP())(x, t).x0)
        gap = den.energy(x, t) + exact.log_prob(x, VP().at(t))
        assert gap.std() < 1e-5


def test_an_exact_energy_is_the_exact_denoiser() -> None:
    """From a function of y and u; at no signal, too, and at the clean point."""
    mix = mixture()
    covariances = torch.einsum("kir,kr,kjr->kij", mix.basis, mix.spread, mix.basis)

    def energy(y: Any, u: Any, condition: Any) -> Any:
        c = covariances.to(y) + u[:, None, None, None].square() * torch.eye(2).to(y)
        law = torch.distributions.MultivariateNormal(mix.means.to(y), c)
        return -(mix.log_weights.to(y) + law.log_prob(y[:, None])).logsumexp(1)

    x = torch.randn(8, 2, generator=seeded(), dtype=F64)
    for process in (VP(), Flow()):
        den, exact = energy_denoiser(energy, process, 1.1), mix.denoiser(process)
        for share in (0.02, 0.3, 0.9):
            t = share * process.t_max
            torch.testing.assert_close(den(x, t).x0, exact(x, t).x0, rtol=1e-8, atol=1e-8)
            gap = den.energy(x, t) - den.energy(x[:1], t)
            truth = mix.log_prob(x[:1] / process.at(t).alpha, EDM(1e6).at(float(process.at(t).noise_ratio)))
            truth = truth - mix.log_prob(x / process.at(t).alpha, EDM(1e6).at(float(process.at(t).noise_ratio)))
            torch.testing.assert_close(gap, truth, rtol=1e-7, atol=1e-7)
        assert torch.equal(den(x, 0.0).x0, x)
    assert den(x, 1.0).x0.isfinite().all()
    assert den.energy(x, 1.0).isfinite().all()


def test_on_another_clock_it_is_the_same_energy() -> None:
    den = EnergyDenoiser(net(dtype=F64), VP(), 0.7)
    other = den.on(Flow())
    assert isinstance(other, EnergyDenoiser)
    x = torch.randn(5, 2, generator=seeded(), dtype=F64)
    home, away = VP().at(0.4), Flow().at(Flow().time(VP().at(0.4).log_snr))
    y = x * (away.alpha / home.alpha)
    torch.testing.assert_close(other.energy(y, away), den.energy(x, home), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other(y, away).x0, den(x, home).x0, rtol=1e-9, atol=1e-9)
    assert Flow().at(other.process.t_max).log_snr == pytest.approx(VP().at(1.0).log_snr)


def test_it_answers_without_gradients_and_leaves_no_graph() -> None:
    own = net()
    den = EnergyDenoiser(own, VP())
    x = torch.randn(5, 2, generator=seeded())
    with_graph = den(x, 0.5).x0
    assert with_graph.requires_grad
    for quiet in (torch.no_grad(), torch.inference_mode()):
        with quiet:
            found = den(x.clone(), 0.5).x0
        assert not found.requires_grad
        torch.testing.assert_close(found, with_graph.detach())
    assert all(p.grad is None for p in own.parameters())
    drawn = sample(den, (16, 2), steps=5, seed=0)
    assert drawn.isfinite().all()
    assert torch.equal(drawn[3:5], sample(den, (16, 2), steps=5, seed=0)[3:5])


def test_its_divergence_is_the_trace_of_a_symmetric_jacobian() -> None:
    """Two derivatives more, through the one within: what score matching trains by."""
    den = EnergyDenoiser(net(dtype=F64), VP(), 0.7)
    x = torch.randn(3, 2, generator=seeded(), dtype=F64)
    _, trace = divergence(den.score_at(0.4), x)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda y: den(y[None], 0.4).score[0], x[i])
        torch.testing.assert_close(jacobian, jacobian.mT)
        torch.testing.assert_close(trace[i], jacobian.trace())
    free = NetDenoiser(net(dtype=F64), VP(), "edm", 0.7)
    jacobian = torch.autograd.functional.jacobian(lambda y: free(y[None], 0.4).score[0], x[0])
    assert (jacobian - jacobian.mT).abs().max() > 1e-3  # which a free score has not


def test_gradients_of_a_regression_agree_with_finite_differences() -> None:
    """The loss of x0 by a weight of the network: the derivative of a derivative."""
    own = net(dtype=F64)
    den = EnergyDenoiser(own, VP(), 0.7)
    x = torch.randn(6, 2, generator=seeded(), dtype=F64)
    target = torch.randn(6, 2, generator=seeded(1), dtype=F64)

    def loss() -> Any:
        return (den(x, 0.4).x0 - target).square().sum()

    for p in (own.get_parameter("inp.weight"), own.get_parameter("out.weight")):
        (slope,) = torch.autograd.grad(loss(), p)
        with torch.no_grad():
            p[0, 1] += 1e-5
            up = loss()
            p[0, 1] -= 2e-5
            down = loss()
            p[0, 1] += 1e-5
        assert float((up - down) / 2e-5) == pytest.approx(float(slope[0, 1]), rel=1e-5)


# moves


@pytest.mark.parametrize("moves", [Moves(40, 0.05, 1, True), Moves(10, 0.05, 5, True)], ids=["mala", "hmc"])
def test_adjusted_moves_leave_the_density_stationary(moves: Any) -> None:
    """Even with steps that are not small: the quarter of all mass in the narrow mode stays there, and its width."""
    weights, means, variances = [0.25, 0.75], [[-1.0, 0.0], [0.8, 0.3]], [0.04, 0.3]
    mix = GaussianMixture(torch.tensor(weights), torch.tensor(means), torch.tensor(variances))
    n = 20000
    x = mix.sample(n, seeded())
    y, accepted = moves(mix_energy(weights, means, variances), x, seeded(1))
    assert 0.3 < accepted.mean() < 0.98
    powers: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda v: v, lambda v: v**2, lambda v: (v[:, :1] < -0.4).double(), lambda v: v[:, :1] * v[:, 1:],
    ]  # fmt: skip
    for f in powers:
        new, old = f(y), f(mix.sample(n, seeded(2)))
        error = ((new.var(0) + old.var(0)) / n).sqrt()
        assert ((new.mean(0) - old.mean(0)).abs() < 4 * error).all()


def test_unadjusted_it_is_langevin_with_its_bias() -> None:
    """N(0, v): the variance settles at v/(1 - gamma/(2v)); and from a point, one step is x - gamma grad E + noise."""
    v, gamma = 0.5, 0.3
    x, _ = Moves(40, gamma)(lambda x: x.square().sum(1) / (2 * v), torch.zeros(20000, 1, dtype=F64), seeded())
    settled = v / (1 - gamma / (2 * v))
    assert float(x.var()) == pytest.approx(settled, abs=4 * settled * math.sqrt(2 / 20000))
    y, _ = Moves(1, gamma)(lambda x: x.square().sum(1) / (2 * v), torch.ones(20000, 1, dtype=F64), seeded())
    assert float(y.mean()) == pytest.approx(1 - gamma / v, abs=4 * math.sqrt(2 * gamma / 20000))
    assert float(y.var()) == pytest.approx(2 * gamma, rel=4 * math.sqrt(2 / 20000))


# the constant


def test_levels_are_even_in_the_integral_of_the_spread_as_a_formula_has_it() -> None:
    """Of a spread 1 - 0.9 beta, and a tenth of the even share: x with 1.055 x - 0.45 x^2 = 0.605 q at each share q."""
    betas = torch.linspace(0, 1, 2001, dtype=torch.float64)
    spreads = 1 - 0.9 * betas
    spreads[0] = math.nan  # unmeasured: that of its neighbour
    q = torch.linspace(0, 1, 9, dtype=torch.float64)
    wanted = (1.055 - (1.055**2 - 1.8 * 0.605 * q).sqrt()) / 0.9
    assert (_even(betas, spreads, 8) - wanted).abs().max() < 1e-5


def test_the_constant_of_a_mixture_in_two_dimensions() -> None:
    """Within 0.02 nats, with an interval that says so; the base is broad and off the mark."""
    energy = mix_energy([0.2, 0.5, 0.3], [[-1.5, 1.0], [1.2, 0.5], [0.0, -1.5]], [0.1, 0.2, 0.4], constant=7.0)
    for seed in range(2):
        found = log_partition(
            energy,
            Gaussian(torch.tensor([0.3, 0.0]), 2.0),
            generator=seeded(seed),
            chains=20000,
            levels=30,
            leapfrogs=2,
        )
        assert found.standard_error < 0.006
        assert abs(found.value + 7.0) < 0.02
        assert found.effective > 5000


def test_the_interval_covers_in_ten_dimensions() -> None:
    """Of 10 intervals at 90 %, with an error that is not tiny; the binomial has 5 or fewer once in 600 tries."""
    d = 10
    means = torch.zeros(3, d)
    means[1, 0], means[2, :2] = 2.0, torch.tensor([-1.0, 1.5])
    energy = mix_energy([0.3, 0.5, 0.2], means, [0.25, 0.3, 0.2], constant=-3.0)
    base = Gaussian(torch.zeros(d), 1.0)
    errors, covered = [], 0
    for seed in range(10):
        found = log_partition(energy, base, generator=seeded(seed), chains=128, levels=15, leapfrogs=2, pilot=32)
        low, high = found.interval(0.9)
        covered += low <= 3.0 <= high
        errors.append((found.value - 3.0) / found.standard_error)
    assert covered >= 6
    assert 0.36 < torch.tensor(errors).std() < 1.76  # chi^2 of nine: once in 1,000 on each side


@pytest.mark.parametrize("told", [False, True])
def test_a_narrow_mode_that_chains_hardly_reach_is_in_the_constant(told: Any) -> None:
    """Two modes of variances 0.02 and 0.5 in ten dimensions: half of Z lies where next to no chain of the base ends."""
    d = 10
    means = torch.zeros(2, d, dtype=F64)
    means[:, 0] = torch.tensor([2.0, -2.0])
    energy = mix_energy([0.5, 0.5], means, [0.02, 0.5])
    # the moments a little enlarged; or a base from which no chain even passes by, and data that tell of the mode
    moments = torch.full((d,), 0.26, dtype=F64)
    moments[0] += 4
    base = Gaussian(torch.zeros(d), 4.5) if told else Gaussian(torch.zeros(d), 1.2 * moments)
    near = GaussianMixture(torch.ones(2), means, torch.tensor([0.02, 0.5])).sample(40, seeded()) if told else None
    # a mode that is missed is ln 2 = 0.69 away from an error of 0.1
    found = log_partition(energy, base, generator=seeded(), chains=512, levels=60, leapfrogs=2, pilot=64, near=near)
    low, high = found.interval(0.99)
    assert low <= 0 <= high
    assert found.added >= 1
    assert found.standard_error < 0.1


def test_a_mode_is_found_as_wide_as_it_is_from_steps_of_any_length() -> None:
    """Its bottom, its variances and its log Z, by short chains whose steps grow or shrink to what fits."""
    at, variance = torch.tensor([1.0, -2.0, 0.5], dtype=F64), torch.tensor([0.01, 0.04, 0.09], dtype=F64)
    exact = 0.5 * float((2 * math.pi * variance).log().sum())
    for seed, length in enumerate([0.05, 0.5, 0.5]):
        x = at + variance.sqrt() * torch.randn(4, 3, generator=seeded(seed), dtype=F64)
        (mode,) = find(lambda x: 0.5 * ((x - at) ** 2 / variance).sum(1) - 2, x, length, seeded(seed))
        torch.testing.assert_close(mode.bottom, at, rtol=0, atol=1e-4)
        assert ((mode.variance / variance).log().abs() < 0.22).all()
        assert mode.log_mass == pytest.approx(2 + exact, abs=0.2)
        assert mode.holds(x).all()


def test_modes_are_put_into_a_base_whatever_form_its_covariances_have() -> None:
    """Half of the weight its own, half theirs, half as wide again as they were seen."""
    factor, rest = torch.randn(2, 3, 1, generator=seeded(), dtype=F64), torch.tensor([0.3, 0.1], dtype=F64)
    weights, means = torch.tensor([0.25, 0.75]), torch.randn(2, 3, generator=seeded(1), dtype=F64)
    mode = Mode(torch.tensor([4.0, 0.0, 1.0], dtype=F64), torch.tensor([0.2, 0.4, 0.6], dtype=F64), 0.0)
    full = factor @ factor.mT + rest[:, None, None] * torch.eye(3)
    low, whole = (widened(GaussianMixture(weights, means, given), [mode]) for given in (LowRank(factor, rest), full))
    covariances = torch.cat([full, 1.5 * mode.variance.diag()[None]])
    known = GaussianMixture(torch.tensor([0.125, 0.375, 0.5]), torch.cat([means, mode.bottom[None]]), covariances)
    for found in (low, whole):
        torch.testing.assert_close(found.covariance(), known.covariance(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.mean(), known.mean(), rtol=1e-9, atol=1e-9)


def test_the_ladder_of_an_annealing_is_even_in_the_spread_that_was_measured() -> None:
    """A tenth of each stretch is even in beta; a spread that was not measured is that of its neighbour."""
    betas = torch.tensor([0.0, 0.5, 1.0], dtype=F64)
    # shares of the two stretches: 0.5 (1 + 1)/2 + 0.075 and 0.5 (1 + 3)/2 + 0.075
    placed = _even(betas, torch.tensor([math.inf, 1.0, 3.0], dtype=F64), 2)
    torch.testing.assert_close(placed, torch.tensor([0.0, 0.5 + 0.5 * 0.25 / 1.075, 1.0], dtype=F64), rtol=1e-9, atol=0)
    torch.testing.assert_close(_even(betas, torch.full((3,), 2.0, dtype=F64), 4), torch.linspace(0, 1, 5, dtype=F64))


def test_a_constant_is_found_without_moving_when_the_base_is_the_energy() -> None:
    base = Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([0.3, 2.0]))
    energy = mix_energy([1.0], [[0.5, -1.0]], [1.0])  # not used but for its shape
    assert energy(torch.zeros(3, 2)).shape == (3,)
    found = log_partition(lambda x: 2.5 - base.log_prob(x), base, generator=seeded(), chains=32, levels=3, pilot=16)
    assert found.value == pytest.approx(-2.5, abs=1e-9)
    assert found.effective == pytest.approx(32)


def test_the_noise_conditional_energy_has_its_closed_constant() -> None:
    """Untrained, E(x, t) = |x|^2/(2V): Z = (2 pi V)^(d/2), through the network, in float32."""
    den = EnergyDenoiser(net((3,), stirred=False), VP(), 0.8)
    level = VP().at(0.3)
    v = level.alpha**2 * 0.64 + level.sigma**2
    found = log_partition(
        den.energy_at(0.3), Gaussian(torch.zeros(3), 1.5), generator=seeded(), chains=256, levels=10, pilot=64
    )
    assert abs(found.value - 1.5 * math.log(2 * math.pi * v)) < 4 * found.standard_error < 0.2


def test_partition_reads_its_weights() -> None:
    weights = torch.tensor([1.0, 3.0], dtype=F64)
    part = Partition(weights.log(), torch.tensor([0.0, 1.0]), torch.ones(0))
    assert part.effective == pytest.approx(1.6)
    assert part.standard_error == pytest.approx(0.5)
    assert part.value == pytest.approx(math.log(2) + 0.125)
    low, high = part.interval(0.6827)
    assert high - low == pytest.approx(1.0, rel=1e-3)


# learning


def gaussian_energy(mean: Any, log_precision: Any) -> Any:
    return lambda x: 0.5 * (log_precision.exp() * (x - mean) ** 2).sum(1)


def test_the_gradient_of_maximum_likelihood_is_its_closed_form() -> None:
    """For N(m, 1/p): -p (mean(x) - m) by m, and p (mean((x - m)^2) - 1/p)/2 by log p; negatives from noise."""
    mean, log_p = torch.tensor([0.3, -0.2], requires_grad=True), torch.tensor([0.4, -0.3], requires_grad=True)
    x = torch.tensor([1.0, -0.5]) + 0.8 * torch.randn(512, 2, generator=seeded())
    learn = MaximumLikelihood(Moves(12, 0.15, 4, adjusted=True), start="noise")
    slopes = []
    for seed in range(40):
        loss = learn(gaussian_energy(mean, log_p), x, seeded(seed)).loss.mean()
        slopes.append(torch.cat(torch.autograd.grad(loss, [mean, log_p])))
    found = torch.stack(slopes)
    with torch.no_grad():
        p = log_p.exp()
        closed = torch.cat([-p * (x.mean(0) - mean), 0.5 * (p * (x - mean).square().mean(0) - 1)])
    error = found.std(0) / math.sqrt(40)
    assert ((found.mean(0) - closed).abs() < 4 * error).all()
    assert (error < 0.05).all()


@pytest.mark.parametrize("start", ["buffer", "data", "noise"])
def test_maximum_likelihood_learns_a_gaussian(start: Any) -> None:
    """Mean and precision within 5 % of those of the data, the maximum of the likelihood."""
    x = torch.tensor([1.0, -0.5]) + torch.tensor([0.6, 1.2]) * torch.randn(2000, 2, generator=seeded())
    mean, log_p = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    learn = MaximumLikelihood(Moves(5, 0.15, 3, adjusted=True), start=start)
    g = seeded(1)
    buffer = learn.buffer(4000, x, g) if start == "buffer" else None
    optimiser = torch.optim.Adam([mean, log_p], lr=0.05)
    tail = []
    for k in range(200):
        if k == 120:
            optimiser.param_groups[0]["lr"] = 0.01
        rows = torch.randint(2000, (500,), generator=g)
        loss, buffer, *_ = learn(gaussian_energy(mean, log_p), x[rows], g, buffer)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
        if k >= 140:
            tail.append(torch.cat([mean, (-0.5 * log_p).exp()]).detach().clone())
    found = torch.stack(tail).mean(0)
    assert (found[:2] - x.mean(0)).abs().max() < 0.06
    assert (found[2:] / x.std(0) - 1).abs().max() < 0.05


def test_the_buffer_is_a_value() -> None:
    """What goes in is not written to; only as many chains move as there are data; restarts are as many as said."""
    learn = MaximumLikelihood(Moves(1, 1e-8), restart=0.25, spread=0.1)
    x = torch.zeros(400, 2)
    buffer = torch.full((1000, 2), 5.0)
    kept = buffer.clone()
    energy = gaussian_energy(torch.zeros(2), torch.zeros(2))
    first, again = (learn(energy, x, seeded(), buffer) for _ in range(2))
    assert torch.equal(buffer, kept)
    moved = there(first.buffer)
    assert torch.equal(moved, there(again.buffer))
    assert int(moved.ne(buffer).any(1).sum()) == 400
    fresh = int((moved[:, 0] < 2).sum())
    assert abs(fresh - 100) < 4 * math.sqrt(400 * 0.25 * 0.75)
    torch.testing.assert_close(first.negatives.sort(0).values[0], moved.sort(0).values[0])
    assert not first.negatives.requires_grad


def test_noise_contrast_finds_energy_and_constant() -> None:
    """A mixture in one dimension by a small network: -log p within 0.12 nats where the data are."""
    weights, means, variances = [0.3, 0.7], [[-1.2], [0.9]], [0.1, 0.25]
    mix = GaussianMixture(torch.tensor(weights), torch.tensor(means), torch.tensor(variances))
    x = mix.sample(20000, seeded())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        f = nn.Sequential(nn.Linear(1, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1, bias=False))
    log_z = torch.zeros((), requires_grad=True)
    learn = NoiseContrastive(Gaussian(x.mean(0), 1.3 * x.var(0)), ratio=2)
    optimiser = torch.optim.Adam([*f.parameters(), log_z], lr=1e-2)
    g = seeded(1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 500)
    for _ in range(500):
        rows = torch.randint(20000, (1000,), generator=g)
        loss = learn(lambda y: f(y)[:, 0], x[rows], g, log_z).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    at = mix.sample(4000, seeded(5))
    with torch.no_grad():
        gap = f(at)[:, 0] + log_z + mix.log_prob(at)
    assert gap.square().mean().sqrt() < 0.12
    assert abs(gap.mean()) < 0.05


def test_noise_contrast_at_the_truth_has_no_gradient_and_its_closed_value() -> None:
    """The true energy is a minimum whatever the ratio; with the noise equal to the data the loss is entropy."""
    law = Gaussian(torch.zeros(1), 1.0)
    for ratio in (1, 3):
        learn = NoiseContrastive(law, ratio)
        mean, log_z = torch.zeros(1, requires_grad=True), torch.tensor(0.5 * math.log(2 * math.pi), requires_grad=True)
        x = law.sample(20000, seeded(ratio))
        loss = learn(gaussian_energy(mean, torch.zeros(1)), x, seeded(7), log_z)
        closed = math.log(1 + ratio) + ratio * math.log(1 + 1 / ratio)
        torch.testing.assert_close(loss.mean(), torch.tensor(closed), rtol=1e-5, atol=1e-5)
        slopes = torch.autograd.grad(loss.mean(), [mean, log_z])
        assert abs(float(slopes[0])) < 4 * math.sqrt(ratio / 20000)
        assert abs(float(slopes[1])) < 1e-5


# recovery


def test_the_ladder_of_recovery_is_geometric_and_ends_clean() -> None:
    learn = RecoveryLikelihood(steps=7, low=0.1, high=6.4)
    for process in (VP(), Flow(), EDM()):
        grid = learn.grid(process)
        assert grid[-1] == 0
        ratios = torch.tensor([float(level.noise_ratio) for level in process.levels(grid[:-1])])
        torch.testing.assert_close(ratios, 6.4 * 0.5 ** torch.arange(7.0), rtol=1e-5, atol=0)


def test_the_gradient_of_recovery_vanishes_at_the_truth_only() -> None:
    """With the exact energies, adjusted chains and a factor on E, the mean of the loss's slope is zero at factor 1."""
    weights, means, variances = torch.tensor([0.3, 0.7]), torch.tensor([[-1.2], [0.9]]), torch.tensor([0.1, 0.25])
    factor = torch.ones(20_000, requires_grad=True)  # one for each sample, so that one lesson tells how slopes spread
    mix = GaussianMixture(weights, means, variances)

    def energy(y: Any, u: Any, condition: Any) -> Any:
        v = variances.to(y) + u[:, None] ** 2
        square = (y[:, None] - means.to(y)).square().sum(2)
        return -factor * (weights.to(y).log() - 0.5 * (square / v + v.log())).logsumexp(1)

    learn = RecoveryLikelihood(steps=6, low=0.1, high=6.4, moves=Moves(25, 0.5, 2, adjusted=True))
    den = energy_denoiser(energy, VP(), 1.0)
    slopes = {}
    for value in (0.7, 1.0, 1.4):
        factor.data.fill_(value)
        loss = learn(den, mix.sample(len(factor), seeded(100)), None, seeded())
        found = torch.autograd.grad(loss.sum(), factor)[0]
        slopes[value] = (float(found.mean()), float(found.std()) / math.sqrt(len(factor)))
    assert abs(slopes[1.0][0]) < 4 * slopes[1.0][1]
    assert slopes[0.7][0] < -4 * slopes[0.7][1]
    assert slopes[1.4][0] > 4 * slopes[1.4][1]


def test_recovery_sampling_with_the_exact_score_is_right() -> None:
    """Weights of the modes and their widths, on two clocks, with short chains; only the bias of the steps remains."""
    mix = GaussianMixture(torch.tensor([0.25, 0.75]), torch.tensor([[-1.5], [1.0]]), torch.tensor([0.05, 0.1]))
    learn = RecoveryLikelihood(steps=10, low=0.05, high=25.6)
    n = 4000
    for process in (VP(), Flow()):
        x = sample(mix.denoiser(process), (n, 1), stepper=RecoveryLangevin(30, 0.2), grid=learn.grid(process), seed=1)
        left = x < -0.25
        assert float(left.float().mean()) == pytest.approx(0.25, abs=0.03)
        assert float(x[left].std()) == pytest.approx(0.05**0.5, rel=0.08)
        assert float(x[~left].mean()) == pytest.approx(1.0, abs=0.03)


def test_one_level_of_recovery_sampling_is_its_closed_form() -> None:
    """Gaussian data: x_s given x_t is Gaussian, and the chain on it settles with Langevin's own bias."""
    c, n = 0.6, 20000
    for process in (VP(), Flow()):
        t, s = (process.at(process.time(-2 * math.log(u))) for u in (0.8, 0.4))
        a, b2 = t.kernel_from(s)
        var = 1 / (a**2 / b2 + 1 / (s.alpha**2 * c + s.sigma**2))
        gamma = 0.4 * t.posterior(s).variance
        ask = Ask(Gaussian(torch.zeros(1), c).denoiser(process), Condition())
        g = seeded(4)
        x = torch.full((n, 1), 0.7, dtype=F64)
        y, _ = RecoveryLangevin(40, 0.4).step(ask, x, t, s, None, lambda g=g: torch.randn(n, 1, generator=g, dtype=F64))  # type: ignore[misc]
        settled = var / (1 - gamma / (2 * var))
        assert float(y.mean()) == pytest.approx(var * a / b2 * 0.7, abs=4 * math.sqrt(settled / n))
        assert float(y.var()) == pytest.approx(settled, rel=4 * math.sqrt(2 / n))
        assert ask.calls == 40


def fitted(den: Any, x: Any, steps: Any, rate: Any, batch: Any, loss: Any) -> None:
    """Trains a network's energy in place."""
    optimiser = torch.optim.Adam(den.net.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    g = seeded(1)
    for _ in range(steps):
        value = loss(den, x[torch.randint(len(x), (batch,), generator=g)], None, g).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()


def pair() -> Any:
    return GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.2], [0.9]]), torch.tensor([0.1, 0.15]))


def test_recovery_learns_a_mixture() -> None:
    """From data alone in one dimension: the modes' shares in samples, and energies; the lowest level's only locally."""
    mix = pair()
    x = mix.sample(20000, seeded())
    learn = RecoveryLikelihood(steps=7, low=0.2, high=12.8, moves=Moves(10, 0.3, adjusted=True))
    den = EnergyDenoiser(one_number(1, torch.float32), VP(), float(x.square().mean().sqrt()))
    fitted(den, x, 140, 1e-2, 512, learn)
    grid = learn.grid(den.process)
    drawn = sample(den, (2000, 1), stepper=RecoveryLangevin(10, 0.3), grid=grid, seed=3)
    assert float((drawn < -0.2).float().mean()) == pytest.approx(0.3, abs=0.06)
    assert float(drawn.std()) == pytest.approx(float(x.std()), rel=0.06)
    for k, bound in ((-2, 0.5), (-3, 0.25), (-4, 0.25), (-6, 0.15)):
        level = den.process.at(float(grid[k]))
        at = level.alpha * mix.sample(2000, seeded(4)) + level.sigma * torch.randn(2000, 1, generator=seeded(5))
        with torch.no_grad():
            gap = (den.energy(at, level) + mix.log_prob(at, level)).float()
        assert gap.std() < bound


def test_an_energy_learned_by_score_matching_gives_a_likelihood() -> None:
    """Denoising score matching at all levels; then log Z at a small one: log p within 0.1 nats of the truth's."""
    mix = pair()
    x = mix.sample(20000, seeded())
    den = EnergyDenoiser(one_number(1, torch.float32), VP(), float(x.square().mean().sqrt()))
    fitted(den, x, 200, 1e-2, 512, OBJECTIVES["edm"]())
    level = VP().at(VP().time(-2 * math.log(0.2)))
    z = log_partition(den.energy_at(level.t), Gaussian(torch.zeros(1), 2.0), generator=seeded(), levels=20, leapfrogs=2)
    assert z.standard_error < 0.03
    at = level.alpha * mix.sample(4000, seeded(4)) + level.sigma * torch.randn(4000, 1, generator=seeded(5))
    with torch.no_grad():
        found = -den.energy(at, level).double() - z.value
    gap = found - mix.log_prob(at, level)
    assert gap.std() < 0.2
    assert abs(gap.mean()) < 0.1
    assert gap.mean() < 4 * z.standard_error  # no density is better than the true one
    drawn = sample(den, (2000, 1), stepper="dpm++2m", steps=20, seed=3)
    assert float((drawn < -0.2).float().mean()) == pytest.approx(0.3, abs=0.05)


def test_a_network_with_attention_learns_as_an_energy() -> None:
    """Its fused kernels have one derivative; and in bfloat16 the prediction is float32."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet(channels=16, multipliers=(1, 2), blocks=1, attention=(4,), embedding=32).build((1, 8, 8))
    den = EnergyDenoiser(unet, VP(), 0.5)
    x = torch.randn(4, 1, 8, 8, generator=seeded())
    before = float(OBJECTIVES["edm"]()(den, x, None, seeded(2)).mean().detach())
    optimiser = torch.optim.Adam(unet.parameters(), lr=1e-3)
    for _ in range(5):
        loss = OBJECTIVES["edm"]()(den, x, None, seeded(2)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.98 * before
    wide = den(x, 0.5).x0.detach()
    unet.to(torch.bfloat16)
    narrow = den(x, 0.5).x0.detach()
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, wide, rtol=0, atol=0.1)


# what goes wrong, and is said


def test_what_diverges_is_said_with_what_to_change() -> None:
    steep = lambda x: 1e4 * x.square().sum(1)  # noqa: E731
    start = torch.ones(10, 2)
    refused(lambda: Moves(20, 0.1)(steep, start, seeded()), "10 of 10 chains", "gamma=0.1", "smaller")
    refused(lambda: Moves(3, 0.1)(lambda x: x.sum(1) * math.nan, start, seeded()), "chains left")
    refused(lambda: Moves(3, 9.0, 2, True)(steep, start, seeded()), "none of 10 chains", "gamma=9", "smaller")
    refused(lambda: Moves(3, 0.1, 1, True)(lambda x: x.sum(1) * math.nan, start, seeded()), "not finite")
    bottomless = lambda x: -x.square().sum(1)  # noqa: E731
    refused(
        lambda: log_partition(bottomless, Gaussian(torch.zeros(2), 1.0), generator=seeded()),
        "chains hold all the weight",
        "base",
        "more than 100 levels",
    )
    broken = lambda x: x.sum(1) * math.nan  # noqa: E731
    refused(lambda: log_partition(broken, Gaussian(torch.zeros(2), 1.0), generator=seeded()), "NaN", "smaller")
    far = mix_energy([1.0], [[60.0] * 20], [1e-4])
    # no diverging, but a base thousands of its own widths away: the mode is found downhill, and the base widened by it
    found = log_partition(far, Gaussian(torch.zeros(20), 0.01), generator=seeded(), chains=64, levels=4)
    assert found.added == 1
    assert abs(found.value) < max(4 * found.standard_error, 0.1)
    exploded = lambda x: 1e9 * torch.tanh(x.sum(1))  # noqa: E731
    learn = MaximumLikelihood(Moves(1, 1e-9), start="noise")
    refused(lambda: learn(exploded, start, seeded()), "diverged", "smaller learning rate")
    noise = NoiseContrastive(Gaussian(torch.zeros(2), 1.0))
    refused(lambda: noise(lambda x: x.sum(1) / 0, start, seeded()), "not finite", "smaller learning rate")
    wild = energy_denoiser(lambda y, u, condition: 1e5 * y.square().sum(1), VP())
    recovery = RecoveryLikelihood()
    refused(lambda: recovery(wild, start, None, seeded()), "chains left", "smaller")
    refused(
        lambda: sample(wild, (4, 2), stepper=RecoveryLangevin(), grid=recovery.grid(VP()), seed=0),
        "chains left",
        "step_size",
    )


def test_bad_input_is_refused() -> None:
    den = EnergyDenoiser(net(), VP())
    x = torch.zeros(4, 2)
    g = seeded()
    refused(lambda: EnergyDenoiser(net(), VP(), -1.0), "sigma_data=-1.0", "positive")
    refused(lambda: den.energy(x, 0.0), "t=0", "smallest")
    refused(lambda: EnergyDenoiser(lambda z, u, c: z[:, :1].expand(-1, 3), VP())(x, 0.5), "(4, 3)", "(4, 2)")
    refused(lambda: Moves(0), "count=0")
    refused(lambda: Moves(1, -1.0), "gamma=-1.0")
    refused(lambda: Moves()(lambda x: x.sum(), x, g), "energy gives ()", "(4,)")
    refused(lambda: MaximumLikelihood(start="dat"), "start='dat'", "data")
    refused(lambda: MaximumLikelihood(restart=1.5), "restart=1.5")
    refused(lambda: MaximumLikelihood()(den.energy_at(0.5), x, g), "needs a buffer")
    refused(lambda: MaximumLikelihood(start="data")(den.energy_at(0.5), x, g, x), "takes no buffer")
    refused(lambda: MaximumLikelihood()(den.energy_at(0.5), x, g, x[:2]), "(2, 2)", "at least 4")
    refused(lambda: NoiseContrastive(Gaussian(x[0], 1.0), 0), "ratio=0")
    refused(lambda: RecoveryLikelihood(low=3.0, high=2.0), "low=3.0", "rising")
    refused(lambda: RecoveryLikelihood(moves=Moves(5, 2.5)), "gamma=2.5", "(0, 2)")
    refused(lambda: RecoveryLikelihood(low=200.0, high=300.0).grid(VP()), "low=200.0", "clock")
    refused(lambda: RecoveryLikelihood()(NetDenoiser(net(), VP()), x, None, g), "EnergyDenoiser", "NetDenoiser")
    refused(lambda: RecoveryLangevin(step_size=2.0), "step_size=2.0")
    refused(lambda: log_partition(den.energy_at(0.5), Gaussian(x[0], 1.0), generator=g, chains=1), "chains=1")
    refused(lambda: Partition(torch.zeros(3), torch.zeros(1), torch.zeros(0)).interval(1.0), "probability=1.0")
