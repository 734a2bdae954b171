"""Laws of sampling: the loop, the grids, and every stepper on every process."""

import itertools
import math
from typing import Any

import pytest
import torch
from laws import OPTIONS, PROCESSES, WAYS, Oracle, constant, cover, grid_of, grids_of, interior, mixture, refused
from sure import there

import ornstein
from ornstein import EDM, VP, Flow, FunctionDenoiser, NetDenoiser, Tabulated, sample, trajectory
from ornstein.core.exact import Gaussian, GaussianMixture
from ornstein.core.grids import GRIDS, ends, times
from ornstein.core.numerics import normal
from ornstein.core.prediction import READINGS
from ornstein.laws.oracles import different
from ornstein.laws.others import falls_to_the_data
from ornstein.laws.steppers import (
    C,
    counts,
    depends_on_its_seed_alone,
    linear,
    returns_constant_data,
    single_precision_follows_double,
    walk_of_constant_data,
)
from ornstein.samplers import STEPPERS, stepper_named
from ornstein.samplers.ancestral import DDIM, DDPM
from ornstein.samplers.exponential import DPMpp2M
from ornstein.samplers.flow import Euler, Heun
from ornstein.samplers.langevin import RecoveryLangevin
from ornstein.samplers.sde import EulerMaruyama

ALL = different()
DEFAULTS = [STEPPERS[name]() for name in STEPPERS]
F64 = torch.float64
#: steppers that follow the ODE exactly where the answer does not change: (x - alpha c)/sigma is kept
EXPONENTIAL = [DDIM(), Heun(), Heun(variables="edm"), DPMpp2M()]


@pytest.mark.parametrize("name", ALL)
def test_constant_data_come_out_exactly_and_everything_is_finite(name: Any) -> None:
    """Oracle 1 on every process, stepper and grid, and few steps; beside it, in one batch, a Gaussian.

    Each stepper walks on each process, also from no signal at all, by the usual grid there, and by one other, which is
    another on each process: to a stepper a grid is the levels that it is given.
    """
    process, at = ALL[name], list(ALL).index(name)
    every = grids_of(process)
    for i, stepper in enumerate(DEFAULTS):
        grids = {"trailing" if process.chain else "flow"}
        # steppers with many calls in a step, or any number of them, are walked on one grid only
        if (stepper.calls or 30) <= 5:
            grids.add(every[(at + i) % len(every)])
        for grid in grids:
            for steps in counts(process, grid):
                walk_of_constant_data(process, stepper, grid, steps)


@pytest.mark.slow
@pytest.mark.parametrize("stepper", DEFAULTS, ids=repr)
def test_constant_data_come_out_exactly_on_every_grid_of_every_process(stepper: Any) -> None:
    returns_constant_data(stepper)


OTHERS = [stepper for stepper in WAYS if stepper not in DEFAULTS]


@pytest.mark.parametrize(("stepper", "name"), cover(OTHERS, ALL), ids=str)
def test_constant_data_come_out_exactly_whatever_the_options(stepper: Any, name: Any) -> None:
    for process in (ALL[name], ALL["betas[short zero]"]):
        for steps in (1, 2, 3, 10):
            walk_of_constant_data(process, stepper, None, steps)


def test_constant_data_come_out_exactly_over_a_thousand_levels() -> None:
    walk_of_constant_data(PROCESSES["betas"], DDPM(), "chain", 1000)


@pytest.mark.parametrize("stepper", EXPONENTIAL, ids=repr)
@pytest.mark.parametrize("name", ALL)
def test_exponential_steppers_are_exact_on_points(name: Any, stepper: Any) -> None:
    """Where the answer is constant, the noise in x, (x - alpha c)/sigma, is the same at every state."""
    p = ALL[name]
    for grid in grids_of(p):
        given = grid_of(p, 7, grid)
        if given is None:
            continue
        states = list(trajectory(constant(p, C), (4, 2), stepper=stepper, grid=given, seed=1, dtype=F64))
        noise = [(s.x - p.at(s.t).alpha * C) / p.at(s.t).sigma for s in states[:-1]]
        for later in noise[1:]:
            torch.testing.assert_close(later, noise[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("stepper", [DDPM(), DDIM(), DDIM(0.5), DDIM(1.0), Heun(variables="edm", churn=0.3)], ids=repr)
@pytest.mark.parametrize("name", ["vp", "ve", "flow", "betas[cosine]", "betas[zero]"])
def test_states_of_point_data_carry_the_noise_of_their_level(name: Any, stepper: Any) -> None:
    """At every state, not only the last, the noise (x - alpha c)/sigma is N(0, 1) where it was so at the first."""
    p, n = ALL[name], 3000
    given = there(grid_of(p, 6))
    first = p.at(given[0].item())
    start = first.alpha * C + first.sigma * normal(torch.arange(n), (2,), 0, F64)
    for state in trajectory(constant(p, C), (n, 2), stepper=stepper, grid=given, x=start, seed=2, dtype=F64):
        if state.t > 0:
            level = p.at(state.t)
            noise = (state.x - level.alpha * C) / level.sigma
            assert noise.mean(0).abs().max() < 4.5 / math.sqrt(n)
            assert (noise.var(0) - 1).abs().max() < 4.5 * math.sqrt(2 / n)


def test_the_level_asked_is_the_level_of_the_state() -> None:
    """What the denoiser is asked at each step is the state's own x at the state's own time, first the grid's first."""
    asked = []

    def answer(x: Any, level: Any, condition: Any) -> Any:
        asked.append((level.t, x))
        return 0.4 * x

    for p in ALL.values():
        for stepper in DEFAULTS:
            asked.clear()
            if isinstance(stepper, RecoveryLangevin):  # by design it asks at the level that it goes to, alone
                continue
            before, given = 0, there(grid_of(p, 5))
            for state in trajectory(FunctionDenoiser(answer, p), (2, 3), stepper=stepper, grid=given, seed=0):
                if state.t > 0:
                    assert state.t == given[state.step]
                    t, x = asked[state.calls]
                    assert t == state.t
                    assert torch.equal(x, state.x)
                    assert state.calls >= before
                    before = state.calls


@pytest.mark.parametrize("name", ALL)
def test_sampling_starts_from_the_prior_of_the_first_level(name: Any) -> None:
    """Whatever the first level is: mean 0 and variance alpha^2 sigma_data^2 + sigma^2 about zero."""
    p, n = ALL[name], 8000
    denoiser = FunctionDenoiser(lambda x, level, condition: x, p, sigma_data=1.7)
    for t in [p.t_max, ends(p)[1], *interior(p, 3).tolist()]:
        state = next(trajectory(denoiser, (n, 2), grid=[t], seed=4))
        assert state.t == t
        variance = (1.7 * p.at(t).alpha) ** 2 + p.at(t).sigma ** 2
        assert abs(state.x.mean()) < 5 * math.sqrt(variance / (2 * n))
        assert (state.x.var() / variance - 1).abs() < 5 * math.sqrt(1 / n)


# ------------------------------------------------------------------------------------------------ grids


@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_falls_to_the_data_on_every_process(grid: Any) -> None:
    falls_to_the_data(GRIDS[grid])


@pytest.mark.parametrize("grid", GRIDS)
def test_every_step_count_gives_that_many_steps(grid: Any) -> None:
    """1 to T on a chain of 50, and a thousand counts in continuous time where the grid allows it."""
    p = Tabulated.from_betas("cosine", 50)
    whole = grid in ("trailing", "leading", "chain")
    for steps in [50] if grid == "chain" else range(1, 51):
        t = times(p, steps, grid)
        assert len(t) == steps + 1
        assert (t.diff() < 0).all()
        assert t[-1] == 0.0
        assert 0 < t[0] <= 50
        if whole:
            assert torch.equal(t, t.round())
        if grid == "trailing":
            assert t[0] == 50
            assert -t.diff().max() - -t.diff().min() <= 1 or (t.diff().max() - t.diff().min()) <= 1  # evenly
        assert sum(1 for _ in trajectory(constant(p, C), (1, 2), stepper="ddim", grid=t)) == steps + 1
    clocks = [PROCESSES["betas"]] if whole else [VP(), EDM()]
    for clock in clocks:
        for steps in [1000] if grid == "chain" else [53, 333, 500, 501, 999, 1000]:
            t = times(clock, steps, grid)
            assert len(t) == steps + 1
            assert (t.diff() < 0).all()
            assert t[-1] == 0.0
            assert t[0] <= clock.t_max
    if grid == "chain":
        refused(lambda: times(p, 49, grid), "steps=49", "50")
    elif whole:
        refused(lambda: times(p, 51, grid), "steps=51", "50")
    if whole:
        refused(lambda: times(VP(), 10, grid), f"grid={grid!r}", "continuous")


def test_a_chain_walked_whole_visits_every_level() -> None:
    p = PROCESSES["betas"]
    for grid in ("trailing", "leading", "chain"):
        assert times(p, 1000, grid).tolist() == list(range(1000, -1, -1))
    assert times(p, 1000, "uniform").tolist() == pytest.approx(list(range(1000, -1, -1)), abs=1e-9)
    # "trailing" starts where the prior is; "leading", the older habit, does not
    assert times(p, 10, "trailing").tolist() == list(range(1000, -1, -100))
    assert times(p, 10, "leading").tolist() == [*range(901, 0, -100), 0]
    assert times(p, 3, "trailing").tolist() == [1000, 667, 334, 0]
    assert times(p, 10).tolist() == times(p, 10, "trailing").tolist()


@pytest.mark.parametrize("name", PROCESSES)
def test_grids_are_spread_as_they_say(name: Any) -> None:
    p = PROCESSES[name]
    high, low = (p.at(t).noise_ratio for t in ends(p)[::-1])
    assert low >= 0.002 * (1 - 1e-9)
    assert high <= 160 * (1 + 1e-9)
    n = 9
    ratios = {g: torch.tensor([p.at(t).noise_ratio for t in times(p, n, g)[:-1].tolist()], dtype=F64) for g in
              ("logsnr", "karras")}  # fmt: skip
    u = torch.linspace(0, 1, n, dtype=F64)
    torch.testing.assert_close(ratios["logsnr"], high * (low / high) ** u, rtol=1e-7, atol=0)
    # Karras et al. 2022, equation 5
    expected = (high ** (1 / 7) + u * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    torch.testing.assert_close(ratios["karras"], expected, rtol=1e-7, atol=0)
    # flow matching's time, on any clock; with very many steps the last noisy level stays where it may be asked
    levels = [p.at(t) for t in times(p, n, "flow").tolist()]
    u = torch.tensor([level.sigma / (level.alpha + level.sigma) for level in levels], dtype=F64)
    torch.testing.assert_close(u, torch.linspace(high / (1 + high), 0, n + 1, dtype=F64), rtol=0, atol=1e-9)
    fine = times(p, 2000, "flow")
    assert (fine.diff() < 0).all()
    assert p.at(fine[-2].item()).noise_ratio >= low * (1 - 1e-9)
    top = ends(p)[1]
    torch.testing.assert_close(times(p, n, "uniform"), torch.linspace(top, 0, n + 1, dtype=F64))
    torch.testing.assert_close(times(p, n, "quadratic").sqrt(), math.sqrt(top) * torch.linspace(1, 0, n + 1, dtype=F64))


def test_grids_of_ones_own() -> None:
    p = VP()
    for grid in ([0.9, 0.5, 0.1], [0.9, 0.5, 0.1, 0.0], torch.tensor([0.9, 0.5, 0.1], dtype=F64)):
        assert times(p, 50, grid).tolist() == [0.9, 0.5, 0.1, 0.0]
        assert sum(1 for _ in trajectory(constant(p, C), (1, 2), grid=grid)) == 4
    for grid in ([], [0.0], [0.5, 0.5], [0.1, 0.5], [1.5, 0.5], [0.5, -0.1], [0.5, math.nan], [math.inf, 0.5]):
        refused(lambda grid=grid: times(p, 50, grid), "grid=")
    for steps in (0, -3, 2.0, "ten", True, None):
        refused(lambda steps=steps: times(p, steps), f"steps={steps!r}")
    refused(lambda: times(p, 5, "karas"), "karas", "karras")


# ------------------------------------------------------------------------------------- randomness and batches


@pytest.mark.parametrize("stepper", WAYS, ids=repr)
def test_a_sample_depends_on_its_seed_alone(stepper: Any) -> None:
    depends_on_its_seed_alone(stepper)


def test_noise_differs_from_step_to_step() -> None:
    seen = []
    denoiser = FunctionDenoiser(lambda x, level, condition: 0 * x, VP())
    for state in trajectory(denoiser, (1, 400), stepper=DDIM(1.0), steps=8, seed=0):
        seen.append(state.x[0])
    # with x0 = 0 each state is a share of the last plus fresh noise: take the share away
    p, fresh = VP(), [seen[0] / seen[0].std()]
    t = there(grid_of(p, 8)).tolist()
    for i in range(7):
        a = p.posterior(t[i + 1], t[i])
        fresh.append((seen[i + 1] - a.from_xt * seen[i]) / math.sqrt(a.variance))
    correlation = torch.corrcoef(torch.stack(fresh)) - torch.eye(8)
    assert correlation.abs().max() < 5 / math.sqrt(400)
    assert all(abs(x.std() - 1) < 5 / math.sqrt(800) for x in fresh)


def test_generators_are_followed_and_global_state_is_left_alone() -> None:
    def draw() -> Any:
        return sample(linear(VP()), (2, 3), stepper="ddpm", steps=4, generator=torch.Generator().manual_seed(8))

    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = draw()
    assert torch.equal(first, draw())
    assert torch.equal(before, torch.get_rng_state())
    g = torch.Generator().manual_seed(8)
    pair = [sample(linear(VP()), (2, 3), stepper="ddpm", steps=4, generator=g) for _ in range(2)]
    assert torch.equal(pair[0], first)
    assert not torch.equal(pair[1], first)
    assert not torch.equal(sample(linear(VP()), (2, 3), steps=2), sample(linear(VP()), (2, 3), steps=2))
    assert torch.equal(before, torch.get_rng_state())  # a fresh seed is not one of torch's


#: with their defaults on any process, else where there is least signal
PRECISE = [*cover(DEFAULTS, ALL, each=2), *cover(OTHERS, ("vp", "betas[cosine]", "betas[zero]"))]


@pytest.mark.parametrize(("stepper", "name"), PRECISE, ids=str)
def test_single_precision_follows_double(stepper: Any, name: Any) -> None:
    single_precision_follows_double(ALL[name], stepper)


@pytest.mark.parametrize("stepper", DEFAULTS, ids=repr)
def test_single_precision_follows_double_from_no_signal(stepper: Any) -> None:
    single_precision_follows_double(ALL["betas[zero]"], stepper)


# --------------------------------------------------------------------------------------- parity, step for step


def states_of(denoiser: Any, shape: Any, stepper: Any, grid: Any, **options: Any) -> Any:
    return [s.x for s in trajectory(denoiser, shape, stepper=stepper, grid=grid, dtype=F64, **options)]


@pytest.mark.parametrize("name", PROCESSES)
def test_ddim_with_eta_one_is_ancestral_sampling(name: Any) -> None:
    p, mix = PROCESSES[name], mixture()
    for grid in grids_of(p):
        given = grid_of(p, 6, grid)
        if given is None:
            continue
        a = states_of(mix.denoiser(p), (3, 2), DDPM(), given, seed=0)
        b = states_of(mix.denoiser(p), (3, 2), DDIM(1.0), given, seed=0)
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_first_step_of_dpmpp_is_ddim_and_so_is_heuns_predictor(name: Any) -> None:
    p, mix = PROCESSES[name], mixture()
    given = grid_of(p, 2)
    for stepper in (DPMpp2M(),):
        for x, y in zip(
            *(states_of(mix.denoiser(p), (3, 2), s, given, seed=0) for s in (stepper, DDIM())), strict=True
        ):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)
    # in the variables of EDM, Euler is DDIM
    t = grid_of(EDM(), 6)
    for x, y in zip(*(states_of(mix.denoiser(EDM()), (3, 2), s, t, seed=0) for s in (Euler(), DDIM())), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


def edm_sampler(denoise: Any, x: Any, t: Any, noises: Any, s_churn: Any, s_min: Any, s_max: Any, s_noise: Any) -> Any:
    """Karras et al. 2022, algorithm 2, as printed; t falls to 0, the last churn left out."""
    n = len(t) - 1
    for i in range(n):
        gamma = min(s_churn / n, math.sqrt(2) - 1) if s_min <= t[i] <= s_max and i < n - 1 else 0
        hat = t[i] + gamma * t[i]
        if gamma > 0:
            x = x + math.sqrt(hat**2 - t[i] ** 2) * s_noise * next(noises)
        d = (x - denoise(x, hat)) / hat
        x_next = x + (t[i + 1] - hat) * d
        if t[i + 1] != 0:
            d_next = (x_next - denoise(x_next, t[i + 1])) / t[i + 1]
            x_next = x + (t[i + 1] - hat) * (d + d_next) / 2
        x = x_next
        yield x


@pytest.mark.parametrize("churn", [0.0, 5.0, 40.0])
def test_heun_on_edm_is_edms_sampler(churn: Any) -> None:
    mix, p, n = mixture(), EDM(), 18
    t = [(80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(n)] + [0.0]
    x = 80 * normal(torch.arange(4), (2,), 0, F64)
    noises = (normal(torch.arange(4), (2,), k, F64) for k in itertools.count(1))
    gamma = min(churn / n, math.sqrt(2) - 1)
    t[0] = 80.0  # exactly
    stepper = Heun(gamma, 0.05, 50.0, 1.003, "edm") if churn else Heun(variables="edm")
    ours = states_of(mix.denoiser(p), (4, 2), stepper, t, x=x, seeds=[0, 1, 2, 3])

    def denoise(x: Any, s: Any) -> Any:
        return mix.posterior_mean(x, p.at(s))

    theirs = edm_sampler(denoise, x, t, noises, churn, 0.05, 50.0, 1.003)
    for a, b in zip(ours[1:], theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_dpmpp_2m_is_the_papers() -> None:
    """Lu et al. 2022 (2211.01095), algorithm 2, in lambda = log(alpha/sigma)."""
    p, mix = VP(), mixture()
    t = torch.tensor([1.0, 0.8, 0.65, 0.4, 0.3, 0.12, 0.01], dtype=F64).tolist()
    lam = [0.5 * p.at(s).log_snr for s in t]
    x = states_of(mix.denoiser(p), (3, 2), DPMpp2M(), t, seed=0)
    outputs = [mix.posterior_mean(y, p.at(s)) for y, s in zip(x, t, strict=False)]
    for i in range(1, len(t)):
        h = lam[i] - lam[i - 1]
        d = outputs[i - 1]
        if i > 1:
            r = (lam[i - 1] - lam[i - 2]) / h
            d = (1 + 1 / (2 * r)) * outputs[i - 1] - 1 / (2 * r) * outputs[i - 2]
        expected = p.at(t[i]).sigma / p.at(t[i - 1]).sigma * x[i - 1] - p.at(t[i]).alpha * math.expm1(-h) * d
        torch.testing.assert_close(x[i], expected, rtol=1e-10, atol=1e-10)


BETAS = torch.linspace(1e-3, 0.25, 40, dtype=F64)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_is_the_papers(variance: Any) -> None:
    """Ho et al. 2020, algorithm 2, from the betas: eps form of the mean, beta or beta-tilde as variance."""
    p, mix = Tabulated.from_betas(BETAS.tolist()), mixture()
    abar = torch.cat([torch.ones(1, dtype=F64), (1 - BETAS).cumprod(0)]).tolist()
    x = states_of(mix.denoiser(p), (3, 2), DDPM(variance), "chain", steps=40, seed=0)
    for k in range(40, 1, -1):
        beta, now = BETAS[k - 1].item(), x[40 - k]
        eps = (now - math.sqrt(abar[k]) * mix.posterior_mean(now, p.at(float(k)))) / math.sqrt(1 - abar[k])
        mean = (now - beta / math.sqrt(1 - abar[k]) * eps) / math.sqrt(1 - beta)
        var = beta if variance == "large" else (1 - abar[k - 1]) / (1 - abar[k]) * beta
        z = normal(torch.arange(3), (2,), 41 - k, F64)
        torch.testing.assert_close(x[41 - k], mean + math.sqrt(var) * z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_the_papers(eta: Any) -> None:
    """Song et al. 2020 (2010.02502), equations 12 and 16, on a sub-sequence of the chain."""
    p, mix = Tabulated.from_betas(BETAS.tolist()), mixture()
    abar = torch.cat([torch.ones(1, dtype=F64), (1 - BETAS).cumprod(0)]).tolist()
    x = states_of(mix.denoiser(p), (3, 2), DDIM(eta), [40, 33, 20, 7, 1], seed=0)
    for i, (k, j) in enumerate(itertools.pairwise([40, 33, 20, 7, 1])):
        x0 = mix.posterior_mean(x[i], p.at(float(k)))
        eps = (x[i] - math.sqrt(abar[k]) * x0) / math.sqrt(1 - abar[k])
        scale = eta * math.sqrt((1 - abar[j]) / (1 - abar[k])) * math.sqrt(1 - abar[k] / abar[j])
        z = normal(torch.arange(3), (2,), i + 1, F64)
        expected = math.sqrt(abar[j]) * x0 + math.sqrt(1 - abar[j] - scale**2) * eps + scale * z
        torch.testing.assert_close(x[i + 1], expected, rtol=1e-9, atol=1e-9)


def test_euler_follows_the_velocity_and_euler_maruyama_songs_reverse_equation() -> None:
    mix, t = mixture(), [0.9, 0.7, 0.4, 0.2]
    x = states_of(mix.denoiser(Flow()), (3, 2), Euler(), t, seed=0)
    for i, (a, b) in enumerate(itertools.pairwise(t)):
        x0 = mix.posterior_mean(x[i], Flow().at(a))
        noise = (x[i] - (1 - a) * x0) / a
        torch.testing.assert_close(x[i + 1], x[i] + (b - a) * (noise - x0), rtol=1e-9, atol=1e-9)
    x = states_of(mix.denoiser(VP()), (3, 2), EulerMaruyama(), t, seed=0)
    for i, (a, b) in enumerate(itertools.pairwise(t)):
        beta, level = 0.1 + 19.9 * a, VP().at(a)
        score = (level.alpha * mix.posterior_mean(x[i], level) - x[i]) / level.sigma**2
        z = normal(torch.arange(3), (2,), i + 1, F64)
        expected = x[i] + (a - b) * (beta * x[i] / 2 + beta * score) + math.sqrt((a - b) * beta) * z
        torch.testing.assert_close(x[i + 1], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("stepper", "p"), cover(DEFAULTS, (VP(), Flow(t_max=0.98))), ids=str)
def test_samples_do_not_depend_on_what_the_network_predicts(stepper: Any, p: Any) -> None:
    """A wrong level at a second stage is invisible in one reading and noise in another: all six must agree."""
    exact = mixture().denoiser(p)
    given = grid_of(p, 6)
    expected = sample(exact, (4, 2), stepper=stepper, grid=given, seed=0, dtype=F64)
    for reading in READINGS:
        denoiser = NetDenoiser(Oracle(p, reading, exact.sigma_data), p, reading, exact.sigma_data)
        x = sample(denoiser, (4, 2), stepper=stepper, grid=given, seed=0, dtype=F64)
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-6, msg=lambda m, r=reading: f"{r}: {m}")  # type: ignore[misc]


def test_constant_pictures_keep_their_brightness_without_terminal_signal() -> None:
    """Lin et al. 2023: a chain that ends with signal left starts from the wrong mean, one without does not."""
    ones = torch.ones(64)
    data = GaussianMixture(torch.tensor([0.85, 0.15]), torch.stack([ones, -ones]), torch.full((2,), 0.01))
    n = 600
    bright = {}
    for zero in (False, True):
        p = Tabulated.from_betas("scaled-linear", zero_snr=zero)
        x = sample(data.denoiser(p), (n, 64), stepper="ddim", steps=20, seed=0)
        bright[zero] = (x.mean(1) > 0).float().mean().item()
    se = math.sqrt(0.85 * 0.15 / n)
    assert abs(bright[True] - 0.85) < 4 * se
    assert abs(bright[False] - 0.85) > 3 * se


# ---------------------------------------------------------------------------------------------- the front door


@pytest.mark.parametrize("eta", [0.0, 1.0, 2.0])
def test_euler_maruyama_walks_from_exactly_no_signal(eta: Any) -> None:
    """Every level of a chain with zero terminal SNR: the moments of Gaussian data come out, whatever the noise."""
    process = Tabulated.from_betas("linear", 1000, zero_snr=True)
    data = Gaussian(torch.tensor([0.7, -0.3]), torch.tensor([0.5, 0.05]))
    _, second, *_, state = trajectory(
        data.denoiser(process), (4000, 2), stepper=EulerMaruyama(eta=eta), steps=1000, seed=0, dtype=F64
    )
    # the first step: from no signal x0 is the mean, and all the noise of the level is there
    level = process.at(second.t)
    assert abs((second.x - level.alpha * data.mean()).var() / level.sigma**2 - 1) < 5 * (2 / 8000) ** 0.5
    spread = torch.tensor([0.5, 0.05], dtype=F64)
    assert (state.x.mean(0) - data.mean()).abs().max() < 5 * (0.5 / 4000) ** 0.5
    # the step's own bias, of first order, beside the sampling error
    assert (state.x.var(0) / spread - 1).abs().max() < 5 * (2 / 4000) ** 0.5 + 0.08


def test_a_start_beyond_the_grids_range_is_refused_or_honoured() -> None:
    """sigma = 1000 on a clock that reaches it: named grids begin at 160 sigma_data, given times where x lies."""
    data = Gaussian(torch.tensor([0.7, -0.3]), torch.tensor([0.5, 0.05]))
    denoiser = data.denoiser(EDM(t_max=2000.0))
    x = 1000.0 * normal(torch.arange(400), (2,), 0, F64)
    top = 160 * denoiser.sigma_data
    for grid in (None, "karras"):
        refused(lambda grid=grid: sample(denoiser, (400, 2), x=x, steps=20, grid=grid), "x has", f"t={top:g}", "grid=")
    own = torch.logspace(3, -2, 60, dtype=F64)
    found = sample(denoiser, (400, 2), stepper="heun", x=x, grid=own, dtype=F64)
    assert (found.var(0) / torch.tensor([0.5, 0.05]) - 1).abs().max() < 5 * (2 / 400) ** 0.5
    assert (found.mean(0) - data.mean()).abs().max() < 5 * (0.5 / 400) ** 0.5
    # what the grid starts with is taken, and so is somewhat more or less of it
    for scale in (0.5, 1.0, 1.5):
        sample(denoiser, (400, 2), x=top / 1000 * scale * x, steps=4)


def test_bad_input_is_refused_in_a_sentence() -> None:
    d = linear(VP())
    for call, words in [
        (lambda: sample(d, (2,)), ["shape=(2,)"]),
        (lambda: sample(d, (0, 3)), ["shape=(0, 3)"]),
        (lambda: sample(d, (2, 3), stepper="hein"), ["stepper='hein'", "'heun'"]),
        (lambda: sample(d, (2, 3), seed=0, generator=torch.Generator()), ["seed"]),
        (lambda: sample(d, (2, 3), seed=-1), ["seed=-1"]),
        (lambda: sample(d, (2, 3), seed=2**31), ["seed="]),
        (lambda: sample(d, (2, 3), seeds=[1]), ["seeds", "2"]),
        (lambda: sample(d, (2, 3), seeds=[1.0, 2.0]), ["seeds"]),
        (lambda: sample(d, (2, 3), condition=torch.zeros(3)), ["condition", "3", "2"]),
        (lambda: sample(d, (2, 3), x=torch.zeros(2, 4)), ["x", "(2, 4)"]),
        (lambda: stepper_named("ddim", churn=1.0), ["churn", "eta"]),
        (lambda: stepper_named("dpm++2m", eta=1.0), ["eta", "no options"]),
        (lambda: stepper_named(DDIM(), eta=1.0), ["eta"]),
        (lambda: DDIM(1.5), ["eta=1.5"]),
        (lambda: DDIM(math.nan), ["eta=nan"]),
        (lambda: DDPM("medium"), ["variance='medium'"]),
        (lambda: Heun(variables="karras"), ["variables='karras'", "edm"]),
        (lambda: Heun(churn=0.5), ["churn=0.5"]),
        (lambda: Heun(churn=0.1, churn_min=2.0, churn_max=1.0), ["churn_min=2.0"]),
        (lambda: Euler(noise_scale=0.0), ["noise_scale=0.0"]),
        (lambda: list(trajectory(d, (2, 3), stepper=EulerMaruyama(), grid=[0.5, math.nan])), ["grid="]),
    ]:
        refused(call, *words)


def test_options_by_name_reach_the_stepper() -> None:
    assert stepper_named("ddim", eta=0.5) == DDIM(0.5)
    for name, options in OPTIONS.items():
        for option in options:
            assert stepper_named(name, **option) == STEPPERS[name](**option)


def test_nothing_said_of_steps_means_fifty() -> None:
    den, seen = linear(VP()), []
    assert len(list(trajectory(den, (1, 2), seed=0))) == 51
    sample(den, (1, 2), seed=0, progress=lambda state: seen.append(state.step))
    assert len(seen) == 51


def test_progress_sees_every_state_and_gradients_are_not_kept() -> None:
    seen = []
    x = sample(linear(VP()), (1, 2), steps=4, seed=0, progress=lambda state: seen.append(state.step))
    assert seen == [0, 1, 2, 3, 4]
    weight = torch.ones(2, requires_grad=True)
    d = FunctionDenoiser(lambda x, level, condition: weight * x, VP())
    assert not sample(d, (1, 2), steps=3, seed=0).requires_grad
    with torch.inference_mode():
        assert torch.equal(sample(linear(VP()), (1, 2), steps=4, seed=0), x)
    assert ornstein.sample is sample
