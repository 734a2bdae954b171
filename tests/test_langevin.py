"""Langevin dynamics: its conventions, its bias, its adjusted form; annealed, against Song and the reverse chain."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from laws import PROCESSES, constant, mixture, refused

from ornstein import EDM, VP, Flow, FunctionDenoiser, Process, Tabulated, sample, trajectory
from ornstein.core.exact import Gaussian, GaussianMixture
from ornstein.core.grids import times
from ornstein.core.numerics import normal
from ornstein.samplers.langevin import AnnealedLangevin, best_step, langevin, mala
from ornstein.samplers.sde import EulerMaruyama

F64 = torch.float64


def last(states: Any) -> Any:
    *_, end = states
    return end


def start(n: Any, *shape: Any, scale: Any = 1.0, seed: Any = 99) -> Any:
    return scale * normal((seed << 32) + torch.arange(n), shape, 0, F64)


def score_of(mix: Any) -> Any:
    """The score of a mixture at the data themselves, by autograd of its density."""

    def score(x: Any) -> Any:
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            return torch.autograd.grad(mix.log_prob(at).sum(), at)[0]

    return score


# --------------------------------------------------------------------------------------------- bare scores


def test_the_two_conventions_are_one() -> None:
    """x + gamma s + sqrt(2 gamma) z and x + eps/2 s + sqrt(eps) z with eps = 2 gamma: the same bits."""
    score, x = score_of(mixture()), start(7, 2)
    sizes = [0.05, 0.2, 0.1]
    a = list(langevin(score, x, steps=3, gamma=sizes, seed=4))
    b = list(langevin(score, x, steps=3, eps=[2 * g for g in sizes], seed=4))
    assert [s.step for s in a] == [0, 1, 2, 3]
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one.x, other.x)
    # and they are what the module writes down
    z = [normal((4 << 32) + torch.arange(7), (2,), k, F64) for k in range(3)]
    y = x
    for k, eps in enumerate(2 * g for g in sizes):
        y = y + eps / 2 * score(y) + math.sqrt(eps) * z[k]
        torch.testing.assert_close(a[k + 1].x, y, rtol=1e-12, atol=1e-12)
    for one, other in zip(mala_pair(gamma=0.1), mala_pair(eps=0.2), strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.accepted, other.accepted)


def mala_pair(**size: Any) -> Any:
    return mala(mixture().log_prob, start(7, 2), steps=4, seed=4, **size)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("gamma", [0.1, 0.8, 1.5])
def test_the_bias_of_finite_steps_is_the_closed_form(gamma: Any, temperature: Any) -> None:
    """For N(m, v) the chain settles at the mean m and the variance T v/(1 - gamma/(2v)), and a recursion on the way."""
    m, v, n = 0.4, 0.8, 20000
    steps = math.ceil(20 * v / gamma) if gamma < v else 40
    states = langevin(
        lambda x: -(x - m) / v, start(n, 1, scale=3.0), steps=steps, gamma=gamma, temperature=temperature, seed=0
    )
    mean, variance = 0.0, 9.0
    for state in states:
        assert abs(state.x.mean() - mean) < 5 * math.sqrt(variance / n)
        assert abs(state.x.var() / variance - 1) < 5 * math.sqrt(2 / n)
        keep = 1 - gamma / v
        mean, variance = m + keep * (mean - m), keep**2 * variance + 2 * gamma * temperature
    assert variance == pytest.approx(temperature * v / (1 - gamma / (2 * v)), rel=1e-3)


@pytest.mark.parametrize("walk", ["langevin", "mala"])
def test_a_chain_depends_on_its_seed_alone(walk: Any) -> None:
    mix = mixture()

    def run(x: Any, **source: Any) -> Any:
        if walk == "mala":
            return last(mala(mix.log_prob, x, steps=5, gamma=0.1, **source)).x
        return last(langevin(score_of(mix), x, steps=5, gamma=0.1, **source)).x

    x = start(4, 2)
    whole = run(x, seed=3)
    assert torch.equal(whole, run(x, seed=3))
    assert not torch.equal(whole, run(x, seed=4))
    for i in range(4):
        assert torch.equal(whole[i : i + 1], run(x[i : i + 1], seeds=[(3 << 32) + i]))
    g = [torch.Generator().manual_seed(8) for _ in range(2)]
    assert torch.equal(run(x, generator=g[0]), run(x, generator=g[1]))


def test_mala_leaves_the_density_as_it_is_and_langevin_does_not() -> None:
    """Started from the mixture, large steps: every moment stays within its error; unadjusted, some leave."""
    mix, n, gamma = mixture(), 12000, 0.08
    x = mix.sample(n, torch.Generator().manual_seed(1)).double()
    end = last(mala(mix.log_prob, x, steps=12, gamma=gamma, seed=2))
    off = last(langevin(score_of(mix), x, steps=12, gamma=gamma, seed=2))
    exact = mix.sample(400000, torch.Generator().manual_seed(3)).double()
    worst = []
    for state in (end, off):
        scores = []
        for what in (
            lambda y: y,
            lambda y: torch.stack([y[:, 0] ** 2, y[:, 1] ** 2, y[:, 0] * y[:, 1]], 1),
            lambda y: mix.log_prob(y)[:, None],
            lambda y: (y[:, :1] > 0.5).double(),
        ):
            got, expected = what(state.x), what(exact)
            scores.append((got.mean(0) - expected.mean(0)).abs() / (expected.std(0) / math.sqrt(n)))
        worst.append(torch.cat(scores).max())
    assert worst[0] < 5, worst
    assert worst[1] > 15, worst  # the test has the power to see what it looks for
    assert 0.3 < end.accepted.mean() < 0.9
    assert end.accepted.shape == (n,)
    # it moved: what is kept is the law, not the points
    assert (end.x - x).square().sum(1).sqrt().mean() > 0.2


def test_mala_is_in_detailed_balance() -> None:
    """As many chains go from one region to another as come back, and the acceptance is the formula's."""
    mix, n, gamma = mixture(), 40000, 0.15
    x = mix.sample(n, torch.Generator().manual_seed(4)).double()
    state = last(mala(mix.log_prob, x, steps=1, gamma=gamma, seed=5))
    for cut in (0.0, 0.5, 1.0):
        there = ((x[:, 0] < cut) & (state.x[:, 0] >= cut)).sum()
        back = ((x[:, 0] >= cut) & (state.x[:, 0] < cut)).sum()
        assert there + back > 200
        assert abs(there - back) < 5 * math.sqrt(there + back)
    # the same proposals, accepted by densities of Gaussians as torch has them
    score = score_of(mix)
    width = math.sqrt(2 * gamma)
    y = x + gamma * score(x) + width * normal((5 << 32) + torch.arange(n), (2,), 0, F64)
    to = torch.distributions.Normal(x + gamma * score(x), width).log_prob(y).sum(1)
    fro = torch.distributions.Normal(y + gamma * score(y), width).log_prob(x).sum(1)
    chance = (mix.log_prob(y) - mix.log_prob(x) + fro - to).exp().clamp(max=1)
    assert abs(state.accepted.mean() - chance.mean()) < 5 * 0.5 / math.sqrt(n)
    moved = (state.x != x).any(1)
    assert torch.equal(moved.double(), state.accepted)
    torch.testing.assert_close(state.x[moved], y[moved], rtol=1e-9, atol=1e-9)


def test_mala_takes_any_shape_and_an_unnormalised_energy() -> None:
    """N(0, 0.5) on pictures, known up to a constant, from far away; acceptance falls with the step."""

    def energy(x: Any) -> Any:
        return x.flatten(1).square().sum(1) + 7.0

    x = torch.full((500, 1, 2, 3), 3.0)
    states = {g: last(mala(lambda x: -energy(x), x, steps=60, gamma=g, seed=6)) for g in (0.05, 0.3)}
    for state in states.values():
        assert state.x.dtype == torch.float32
        assert abs(state.x.mean()) < 5 * math.sqrt(0.5 / 3000)
        assert abs(state.x.var() / 0.5 - 1) < 5 * math.sqrt(2 / 3000)
    assert states[0.05].accepted.mean() > states[0.3].accepted.mean() + 0.1


def test_chains_that_leave_are_reported() -> None:
    def steep(x: Any) -> Any:
        return -10 * x

    x = start(6, 2)
    refused(
        lambda: last(langevin(steep, x, steps=200, gamma=0.3, seed=0)),
        "of 6 Langevin chains left",
        "gamma=0.3",
        "smaller step",
    )
    refused(lambda: last(langevin(lambda x: x.sqrt(), x, steps=5, eps=0.1, seed=0)), "chains left", "eps=0.1")
    # a chain far from the origin, or one that wanders for long, has not left
    far = x + 1e5
    assert last(langevin(lambda x: 1e5 - x, far, steps=50, gamma=0.1, seed=0)).x.isfinite().all()
    assert last(langevin(torch.zeros_like, x, steps=100, gamma=1e4, seed=0)).x.isfinite().all()
    # adjusted chains refuse what is not finite, and stay
    state = last(mala(lambda x: -(x**4).sum(1), x, steps=30, gamma=50.0, seed=0))
    assert state.x.isfinite().all()
    refused(lambda: list(mala(lambda x: x.log().sum(1), -torch.ones(3, 2), steps=2, gamma=0.1)), "not finite")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["gamma=", "eps="]),
        ({"gamma": 0.1, "eps": 0.2}, ["gamma=", "eps="]),
        ({"gamma": 0.0}, ["gamma=0.0", "positive"]),
        ({"eps": -1.0}, ["eps=-1.0"]),
        ({"gamma": math.nan}, ["gamma=nan"]),
        ({"gamma": [0.1, 0.2]}, ["gamma has 2", "steps=3"]),
        ({"gamma": 0.1, "steps": 0}, ["steps=0"]),
        ({"gamma": 0.1, "temperature": -1.0}, ["temperature=-1.0"]),
        ({"gamma": 0.1, "seed": 1, "seeds": [1, 2]}, ["seed"]),
    ],
)
def test_nonsense_is_refused(options: Any, words: Any) -> None:
    refused(lambda: list(langevin(lambda x: -x, torch.ones(2, 2), **{"steps": 3, **options})), *words)


# ------------------------------------------------------------------------------------------------ annealed


@dataclass(frozen=True)
class Brownian(Process):
    """dX = dB: alpha = 1, sigma = sqrt(t)."""

    t_max: float = 36.0

    def alpha(self, t: Any) -> Any:
        return torch.ones_like(t)

    def sigma(self, t: Any) -> Any:
        return torch.sqrt(t)


def states_of(denoiser: Any, stepper: Any, grid: Any, n: Any = 6, seed: Any = 0) -> Any:
    return [s.x for s in trajectory(denoiser, (n, 2), stepper=stepper, grid=grid, seed=seed, dtype=F64)]


def test_one_correction_at_half_temperature_is_the_reverse_chain_of_brownian_motion() -> None:
    """K = 1 and gamma = sigma_t^2 - sigma_s^2, state by state; on any grid."""
    mix = mixture()
    for grid in ([36.0, 20.0, 9.0, 4.0, 1.5, 0.3, 0.02], times(Brownian(), 40, "karras").tolist()):
        falling = grid if grid[-1] == 0 else [*grid, 0.0]
        matched = tuple(1 - s / t for t, s in itertools.pairwise(falling))
        a = states_of(mix.denoiser(Brownian()), AnnealedLangevin(1, matched, temperature=0.5), grid)
        b = states_of(mix.denoiser(Brownian()), EulerMaruyama(), grid)
        # the sample itself differs: annealed Langevin has corrections at the last level too
        for x, y in zip(a[:-1], b[:-1], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def test_the_reverse_chain_is_half_a_langevin_step_and_half_a_step_of_the_flow() -> None:
    """With the same noise: gamma = delta/2 at full temperature, then Euler's delta/2 of the probability flow."""
    denoiser = mixture().denoiser(Brownian())
    for t, s in ((36.0, 20.0), (4.0, 1.5), (0.3, 0.02)):
        x, reverse, _ = states_of(denoiser, EulerMaruyama(), [t, s])
        kept = states_of(denoiser, AnnealedLangevin(1, (1 - s / t) / 2), [t, s])[1]
        torch.testing.assert_close(reverse, kept + (s - t) / 2 * -denoiser(x, t).score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("corrections", [1, 3])
def test_it_is_songs_algorithm(corrections: Any) -> None:
    """Song & Ermon 2019, algorithm 1, written out: alpha_i = eps sigma_i^2/sigma_L^2, at all levels; then denoising."""
    mix, n = mixture(), 5
    sigmas = [3.0, 1.4, 0.6, 0.25, 0.1]
    eps = 0.2 * sigmas[-1] ** 2
    process = Tabulated.from_sigmas(sigmas[::-1])
    got = states_of(mix.denoiser(process), AnnealedLangevin(corrections, 0.1), [5.0, 4.0, 3.0, 2.0, 1.0], n)
    draws = (normal(torch.arange(n), (2,), k, F64) for k in itertools.count(1))
    x = got[0]
    for i, sigma in enumerate(sigmas):
        size = eps * sigma**2 / sigmas[-1] ** 2
        for _ in range(corrections):
            x0 = mix.posterior_mean(x, EDM().at(sigma))
            x = x + size / 2 * (x0 - x) / sigma**2 + math.sqrt(size) * next(draws)
        if sigma > sigmas[-1]:
            torch.testing.assert_close(got[i + 1], x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got[-1], mix.posterior_mean(x, EDM().at(sigmas[-1])), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("step_size", [None, 0.2])
def test_the_last_level_has_its_corrections_too(step_size: Any) -> None:
    """A ladder of one level is plain Langevin there, and then the denoising step; ten levels come nearer for it."""
    data = Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([0.4, 0.1]))
    one = data.denoiser(Tabulated.from_sigmas([0.3]))
    *_, state = trajectory(one, (20000, 2), stepper=AnnealedLangevin(100, step_size), grid=[1.0], seed=0, dtype=F64)
    assert state.calls == 101
    # K steps x <- x + size (0.09 score) from N(0, s^2 + 0.09), and the mean given what is left: exact, dimension by
    # dimension
    size = best_step(1 + one.sigma_data**2 / 0.09, 100)[0] if step_size is None else step_size
    for k, (mean, variance) in enumerate(((0.5, 0.4), (-1.0, 0.1))):
        total = variance + 0.09
        keep = 1 - size * 0.09 / total
        centre, spread = -mean, one.sigma_data**2 + 0.09
        for _ in range(100):
            centre, spread = keep * centre, keep**2 * spread + 2 * size * 0.09
        gain = variance / total
        assert abs(state.x[:, k].mean() - (mean + gain * centre)) < 5 * gain * math.sqrt(spread / 20000)
        assert abs(state.x[:, k].var() / (gain**2 * spread) - 1) < 5 * math.sqrt(2 / 20000)


def test_ten_levels_end_as_far_from_the_data_as_the_algorithm_does() -> None:
    """Gaussian data: K corrections at each level, the smallest too, and the denoising step, in closed form."""
    data, n, corrections, size = Gaussian(torch.tensor([0.5]), torch.tensor([0.1])), 20000, 5, 0.2
    process = Tabulated.from_sigmas(steps=10, sigma_min=0.1, sigma_max=3.0)
    denoiser = data.denoiser(process)

    def ends(corrected: int) -> tuple[float, float]:
        centre, spread = -0.5, process.sigmas[-1].item() ** 2 + denoiser.sigma_data**2
        for sigma in process.sigmas[1:].flip(0)[:corrected].tolist():
            for _ in range(corrections):
                keep = 1 - size * sigma**2 / (0.1 + sigma**2)
                centre, spread = keep * centre, keep**2 * spread + 2 * size * sigma**2
        gain = 0.1 / (0.1 + process.sigmas[1].item() ** 2)
        return 0.5 + gain * centre, gain * math.sqrt(spread)

    x = sample(denoiser, (n, 1), stepper=AnnealedLangevin(corrections, size), steps=10, seed=0, dtype=F64)
    found = x.flatten().sort().values
    quantiles = torch.special.ndtri((torch.arange(n, dtype=F64) + 0.5) / n)
    distance = [(centre + spread * quantiles - 0.5 - math.sqrt(0.1) * quantiles).abs().mean().item()
                for centre, spread in map(ends, (10, 9))]  # fmt: skip
    measured = (found - 0.5 - math.sqrt(0.1) * quantiles).abs().mean().item()
    assert distance[0] < 0.85 * distance[1]
    assert measured == pytest.approx(distance[0], abs=3 * 0.4 / math.sqrt(n))


def test_every_process_is_walked_in_the_same_coordinates() -> None:
    """In y = x/alpha a grid of the same noise ratios is the same chain, whatever the clock."""
    mix, ratios = mixture(), torch.tensor([12.0, 5.0, 2.0, 0.8, 0.3, 0.1], dtype=F64)
    found = {}
    for name in ("vp", "sub-vp", "edm", "flow", "ou", "betas", "cosine"):
        process = PROCESSES[name]
        grid = process.time(-2 * ratios.log())
        first = process.at(float(grid[0]))
        x = start(6, 2) * first.alpha * 12.0
        states = trajectory(
            mix.denoiser(process), (6, 2), stepper=AnnealedLangevin(), grid=grid, seed=0, x=x, dtype=F64
        )
        found[name] = [s.x / process.at(s.t).alpha for s in states]
    for name, walked in found.items():
        for x, y in zip(walked, found["edm"], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")  # type: ignore[misc]


@pytest.mark.parametrize("corrections", [1, 5])
@pytest.mark.parametrize("step_size", [None, 0.1, (0.4, 0.3, 0.2, 0.1, 0.05, 0.5, 0.3)])
def test_noise_without_data_follows_its_recursion(corrections: Any, step_size: Any) -> None:
    """Data at a point: at every level the variance of what is left is v <- (1 - step)^2 v + 2 step, as stated."""
    process, n = EDM(), 20000
    grid = [20.0, 12.0, 7.0, 4.0, 2.0, 1.2, 0.7]
    c = torch.tensor([0.3, -0.2], dtype=F64)
    stepper = AnnealedLangevin(corrections, step_size)
    states = list(trajectory(constant(process, c), (n, 2), stepper=stepper, grid=grid, seed=1, dtype=F64))
    variance = ((states[0].x - c) / grid[0]).square().mean().item()
    left = (grid[0] / grid[1]) ** 2  # what the automatic step takes for the first level
    for k, (t, s) in enumerate(itertools.pairwise(grid)):
        if step_size is None:
            size, left = best_step(left, corrections)
            left *= (t / s) ** 2
        else:
            size = step_size[k] if isinstance(step_size, tuple) else step_size
        for _ in range(corrections):
            variance = (1 - size) ** 2 * variance + 2 * size
        measured = ((states[k + 1].x - c) / t).square().mean().item()
        assert abs(measured / variance - 1) < 5 / math.sqrt(n), k
        variance *= (t / s) ** 2


@pytest.mark.parametrize("name", ["vp", "edm", "flow", "ladder"])
@pytest.mark.parametrize("steps", [10, 40])
def test_the_automatic_step_keeps_the_noise_at_its_level(name: Any, steps: Any) -> None:
    """However coarse the grid: the noise in excess is a factor of a few, not of the ladder."""
    process = PROCESSES[name]
    if process.chain:
        process = Tabulated.from_sigmas(steps=steps, sigma_max=5.0)
    point = constant(process, torch.tensor([0.3, -0.2], dtype=F64))
    states = list(trajectory(point, (2000, 2), stepper=AnnealedLangevin(5), steps=steps, seed=2, dtype=F64))
    for a, b in itertools.pairwise(states[:-1]):
        level = process.at(a.t)
        noise = (b.x / process.at(b.t).alpha - torch.tensor([0.3, -0.2], dtype=F64)) / level.noise_ratio
        assert 0.85 < noise.square().mean() < (1.6 if steps == 40 else 2.2)


def test_best_step_is_the_best() -> None:
    for excess, corrections in itertools.product((1.01, 1.0765, 1.5, 4.0, 50.0), (1, 2, 5, 100)):
        step, left = best_step(excess, corrections)

        def after(step: Any, excess: Any = excess, corrections: Any = corrections) -> Any:
            v = excess
            for _ in range(corrections):
                v = (1 - step) ** 2 * v + 2 * step
            return v

        assert left == pytest.approx(after(step), rel=1e-9)
        tried = [after(k / 997) for k in range(1, 997)]
        assert left <= min(tried) * (1 + 1e-6)
        assert left >= 1
        if corrections == 1:  # the derivative of (1 - a)^2 r^2 + 2a
            assert step == pytest.approx(1 - 1 / excess, rel=2e-3)
    # colder noise can come back to its level exactly
    step, left = best_step(3.0, 1, 0.5)
    assert left == pytest.approx(1.0, abs=1e-3)
    assert step == pytest.approx(1 - 1 / 3, rel=2e-3)


def test_annealing_finds_the_weights_of_far_modes_and_plain_langevin_does_not() -> None:
    mix = GaussianMixture(
        torch.tensor([0.2, 0.8], dtype=F64), torch.tensor([[-5.0, -5.0], [5.0, 5.0]]), torch.tensor([1.0, 1.0])
    )
    n = 2000
    # as many calls of the score, from as wide a start
    plain = last(langevin(score_of(mix), start(n, 2, scale=8.0), steps=600, gamma=0.05, seed=3)).x
    annealed = sample(
        mix.denoiser(Tabulated.from_sigmas(steps=30, sigma_min=0.1, sigma_max=20.0)),
        (n, 2), stepper=AnnealedLangevin(20), steps=30, seed=3,
    )  # fmt: skip
    share = {
        "plain": (plain.sum(1) < 0).double().mean().item(),
        "annealed": (annealed.sum(1) < 0).double().mean().item(),
    }
    assert abs(share["plain"] - 0.5) < 0.06, share
    assert abs(share["annealed"] - 0.2) < 0.04, share
    assert abs(mix.log_prob(annealed).mean() - mix.log_prob(mix.sample(20000, torch.Generator())).mean()) < 0.15


def test_a_denoiser_that_pushes_away_is_reported() -> None:
    denoiser = FunctionDenoiser(lambda x, level, condition: -30 * x, VP())
    refused(
        lambda: sample(denoiser, (4, 2), stepper="annealed-langevin", steps=30, seed=0),
        "of 4 Langevin chains left",
        "t=",
        "step_size=",
    )
    broken = FunctionDenoiser(lambda x, level, condition: x * math.nan, VP())
    refused(lambda: sample(broken, (4, 2), stepper="annealed-langevin", steps=5, seed=0), "chains left")
    # a distribution far from the origin is no divergence
    far = Gaussian(torch.full((2,), 1000.0), 1.0).denoiser(EDM())
    x = sample(far, (50, 2), stepper="annealed-langevin", steps=60, seed=0)
    assert (x - 1000).abs().max() < 6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AnnealedLangevin(0), ["corrections=0"]),
        (lambda: AnnealedLangevin(2.5), ["corrections=2.5"]),  # type: ignore[arg-type]
        (lambda: AnnealedLangevin(step_size=2.0), ["step_size=2.0", "(0, 2)"]),
        (lambda: AnnealedLangevin(step_size=0.0), ["step_size=0.0"]),
        (lambda: AnnealedLangevin(step_size=(0.1, math.nan)), ["step_size=nan"]),
        (lambda: AnnealedLangevin(temperature=-0.1), ["temperature=-0.1"]),
        (
            lambda: sample(
                constant(Flow(), torch.zeros(2)), (1, 2), stepper=AnnealedLangevin(step_size=(0.1,)), steps=5
            ),
            ["step_size has 1", "one for each level"],
        ),
    ],
)
def test_impossible_settings_are_refused(make: Any, words: Any) -> None:
    refused(make, *words)
