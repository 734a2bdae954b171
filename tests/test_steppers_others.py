"""Reverse SDEs on one Brownian path, predictor-corrector, error control, encoding, and the grids."""

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from laws import PROCESSES, constant, grid_of, mixture, refused
from sure import there

import ornstein
from ornstein import EDM, VP, Flow, FunctionDenoiser, sample, trajectory
from ornstein.core.brownian import BrownianPath
from ornstein.core.exact import Gaussian, GaussianMixture
from ornstein.core.grids import ends, times
from ornstein.core.numerics import normal
from ornstein.samplers import STEPPERS, encode, stepper_named
from ornstein.samplers.ancestral import DDIM
from ornstein.samplers.corrector import PredictorCorrector
from ornstein.samplers.exponential import DPMpp2M
from ornstein.samplers.runge_kutta import _DIFFERENCE, _NODES, _STAGES, Adaptive, _soonest
from ornstein.samplers.sde import DPMpp2MSDE, EulerMaruyama, ReverseDiffusion
from ornstein.samplers.unipc import UniPC

F64 = torch.float64


# ------------------------------------------------------------------------------------------ the Brownian path


def path(n: Any = 4000) -> Any:
    return BrownianPath(lambda draws: normal(torch.arange(n), (1,), draws, F64)[..., 0])


@pytest.mark.parametrize(
    "stops",
    [
        [0.0, 1e-4, 0.003, 0.7, 1.0, 1.1, 5.3, 400.0],
        [1.0, 1.01, 1.02, 1.021, 1.0211, 1.3, 1.9, 2.0, 2.5],
        [0.3, 8.0, 64.0, 1e6],
        (1 + torch.linspace(0, 1, 30, dtype=F64) ** 2).tolist(),
    ],
)
def test_increments_of_the_path_are_independent_standard_normals(stops: Any) -> None:
    b = path()
    z = torch.stack([b.increment(low, high) for low, high in itertools.pairwise(stops)])
    n = z.shape[1]
    assert z.mean(1).abs().max() < 5 / math.sqrt(n)
    assert (z.var(1) - 1).abs().max() < 5 * math.sqrt(2 / n)
    assert (torch.corrcoef(z) - torch.eye(len(z))).abs().max() < 5 / math.sqrt(n)


def test_coarse_and_fine_walks_read_the_same_path() -> None:
    """Increments add up over any partition whose common stops lie on the tree, and nearly so elsewhere."""
    ends_of = (0.125, 1.0, 1.5, 1.75, 6.0, 32.0)
    b, fine = path(500), path(500)
    for low, high in itertools.pairwise(ends_of):
        whole = b.increment(low, high) * math.sqrt(high - low)
        stops = torch.linspace(low, high, 14, dtype=F64).tolist()
        parts = sum(fine.increment(x, y) * math.sqrt(y - x) for x, y in itertools.pairwise(stops))
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12 * math.sqrt(high))
    # off the tree the two disagree by the bridge within one leaf, 1/256 of an octave, and no more
    low, high = 1.2345, 1.8642
    whole, parts = path(4000), path(4000)
    stops = torch.linspace(low, high, 9, dtype=F64).tolist()
    off = sum(parts.increment(x, y) * math.sqrt(y - x) for x, y in itertools.pairwise(stops))
    off = off - whole.increment(low, high) * math.sqrt(high - low)
    assert off.std() < 1.1 * math.sqrt(1 / 256)


def spread(stepper: Any, counts: Any, data: Any, n: Any = 60) -> Any:
    """Mean distance of the endpoints of neighbouring counts of steps, same seeds."""
    den = data.denoiser(VP())
    found = [sample(den, (n, 2), stepper=stepper, steps=count, grid="logsnr", seed=7) for count in counts]
    return [(a - b).norm(dim=1).mean().item() for a, b in itertools.pairwise(found)]


@pytest.mark.parametrize(
    "stepper",
    [
        DPMpp2MSDE(path=True),
        DPMpp2MSDE(1.5, path=True),
        DDIM(1.0, path=True),
        ReverseDiffusion(path=True),
    ],
    ids=repr,
)
def test_on_one_path_the_sample_converges_as_steps_are_added(stepper: Any) -> None:
    """Strongly, of order 1 or nearly, where the data have one mode; with several, the same mode is found."""
    gaussian = Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([0.49, 0.04]))
    with_path = spread(stepper, (20, 40, 80), gaussian)
    assert with_path[0] > 1.6 * with_path[1], with_path
    assert with_path[1] < 0.2
    fresh = dataclasses.replace(stepper, path=False)
    assert spread(fresh, (40, 80), gaussian)[0] > 0.5  # another sample altogether, of the same law
    assert spread(stepper, (40, 80), mixture())[0] < 0.5 * spread(fresh, (40, 80), mixture())[0]


@pytest.mark.parametrize("eta", [0.6, 1.0, 1.7])
def test_on_one_path_the_noise_of_point_data_is_the_same_by_any_steps(eta: float) -> None:
    """There the integrator is exact, and the path runs on the clock on which its noise adds up; up to its leaves."""
    point = torch.tensor([0.3, -1.0])
    den, found = constant(VP(), point), []
    for steps in (1, 3, 8):
        grid = [*torch.linspace(0.9, 0.1, steps + 1, dtype=F64).tolist(), 0.0]
        walk = trajectory(den, (200, 2), stepper=DPMpp2MSDE(eta, path=True), grid=grid, seed=2, dtype=F64)
        found.append(list(walk)[-2].x)
    for other in found[1:]:
        assert (other - found[0]).std() < 0.1 * VP().at(0.1).sigma


def test_on_one_path_a_seed_gives_the_same_sample_on_every_clock() -> None:
    mix = mixture()
    found = []
    for p in (VP(), EDM()):
        grid = p.time(-2 * (20.0 * (0.01 / 20.0) ** torch.linspace(0, 1, 60, dtype=F64)).log())
        start = math.hypot(p.at(grid[0].item()).alpha, p.at(grid[0].item()).sigma) * normal(torch.arange(50), (2,), 0)
        walk = sample(mix.denoiser(p), (50, 2), stepper=DPMpp2MSDE(path=True), grid=grid, x=start, seed=3, dtype=F64)
        found.append(walk)
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0, 1.7])
def test_the_sde_steps_are_the_published_ones(eta: Any) -> None:
    p, mix, t = VP(), mixture(), [0.9, 0.7, 0.4, 0.2]

    def states(stepper: Any) -> Any:
        return [s.x for s in trajectory(mix.denoiser(p), (3, 2), stepper=stepper, grid=t, seed=0, dtype=F64)]

    em, rd, dpm = (states(cls(eta)) for cls in (EulerMaruyama, ReverseDiffusion, DPMpp2MSDE))
    before = None
    for i, (a, b) in enumerate(itertools.pairwise(t)):
        z, (start, end) = normal(torch.arange(3), (2,), i + 1, F64), (p.at(a), p.at(b))

        def score(x: Any, level: Any = start) -> Any:
            return (level.alpha * mix.posterior_mean(x, level) - x) / level.sigma**2

        beta = 0.1 + 19.9 * a
        drift = -beta / 2 * em[i] - (1 + eta**2) / 2 * beta * score(em[i])
        expected = em[i] + (b - a) * drift + eta * math.sqrt((a - b) * beta) * z
        torch.testing.assert_close(em[i + 1], expected, rtol=1e-9, atol=1e-9)
        # Song et al. 2021, equation 46: f = (sqrt(1 - beta_k) - 1) x, G^2 = beta_k
        ratio = start.alpha / end.alpha
        g2 = 1 - ratio**2
        expected = rd[i] - (ratio - 1) * rd[i] + (1 + eta**2) / 2 * g2 * score(rd[i]) + eta * math.sqrt(g2) * z
        torch.testing.assert_close(rd[i + 1], expected, rtol=1e-8, atol=1e-8)
        # SDE-DPM-Solver++(2M) as printed for eta = 1
        if eta == 1.0:
            h, now = 0.5 * (end.log_snr - start.log_snr), mix.posterior_mean(dpm[i], start)
            data = now if before is None else now + h / before[1] / 2 * (now - before[0])
            expected = end.sigma / start.sigma * math.exp(-h) * dpm[i] - end.alpha * math.expm1(-2 * h) * data
            expected = expected + end.sigma * math.sqrt(-math.expm1(-2 * h)) * z
            torch.testing.assert_close(dpm[i + 1], expected, rtol=1e-9, atol=1e-9)
            before = now, h
    if eta == 0.0:
        for x, y in zip(dpm, states(DPMpp2M()), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------------------------------ predictor-corrector


def test_corrections_are_langevin_steps_at_the_level_arrived_at() -> None:
    p, mix, t = VP(), mixture(), [0.9, 0.5, 0.2]
    for stepper, size in ((PredictorCorrector("ddim", 2, delta=0.1), None), (PredictorCorrector("ddim", 2, 0.3), 0.3)):
        walk = [s.x for s in trajectory(mix.denoiser(p), (3, 2), stepper=stepper, grid=t, seed=0, dtype=F64)]
        draws = itertools.count(1)
        for i, (a, b) in enumerate(itertools.pairwise(t)):
            start, end = p.at(a), p.at(b)
            prediction = mix.denoiser(p)(walk[i], start)
            x = end.alpha * prediction.x0 + end.sigma * prediction.eps
            for _ in range(2):
                score = mix.denoiser(p)(x, end).score
                square = (end.sigma * score).square().sum(1, keepdim=True)
                gamma = 0.1 if size is None else size**2 * (2 + 100) / (square + 100)
                gamma = gamma * end.sigma**2
                x = x + gamma * score + (2 * gamma) ** 0.5 * normal(torch.arange(3), (2,), next(draws), F64)
            torch.testing.assert_close(walk[i + 1], x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("predictor", ["dpm++2m", "unipc", "multistep", "ddim", "heun", "reverse-diffusion"])
def test_corrections_forget_a_wrong_start(predictor: Any) -> None:
    """Started with the wrong variance and mean a predictor ends wrong; corrected, right: UniPC keeps corrections."""
    data, p, n = Gaussian(torch.tensor([0.5]), 0.49), VP(), 3000
    start = 2.0 + 0.5 * normal(torch.arange(n), (1,), 0)
    found = {}
    for stepper in (stepper_named(predictor), PredictorCorrector(predictor, 4, delta=0.15)):
        x = sample(data.denoiser(p), (n, 1), stepper=stepper, steps=24, x=start, seed=1)
        found[type(stepper)] = max(abs(x.mean().item() - 0.5), abs(x.std().item() - 0.7))
    alone, corrected = found.values()
    assert corrected < 0.08
    if predictor != "reverse-diffusion":
        assert alone > 3 * corrected


def test_a_given_delta_for_each_step_and_bad_numbers() -> None:
    p, mix = VP(), mixture()
    x = sample(mix.denoiser(p), (2, 2), stepper=PredictorCorrector(delta=(0.1, 0.05, 0.01)), steps=4, seed=0)
    assert x.isfinite().all()
    refused(lambda: sample(mix.denoiser(p), (2, 2), stepper=PredictorCorrector(delta=[0.1]), steps=4), "delta", "1")  # type: ignore[arg-type]
    for call, words in [
        (lambda: PredictorCorrector("hein"), ["'hein'", "heun"]),
        (lambda: PredictorCorrector(corrections=0), ["corrections=0"]),
        (lambda: PredictorCorrector(snr=0.0), ["snr=0.0"]),
        (lambda: PredictorCorrector(snr=None), ["snr=None", "delta"]),
        (lambda: PredictorCorrector(delta=1.5), ["delta=1.5"]),
        (lambda: PredictorCorrector({"name": "ddim", "churn": 1}), ["churn"]),
        (lambda: EulerMaruyama(-0.1), ["eta=-0.1"]),
        (lambda: DPMpp2MSDE(math.inf), ["eta=inf"]),
    ]:
        refused(call, *words)
    assert PredictorCorrector(predictor={"name": "ddim", "eta": 0.5}).predictor == DDIM(0.5)
    assert PredictorCorrector("heun", corrections=3).calls == 5
    assert PredictorCorrector("adaptive").calls is None


def test_the_configuration_knows_a_predictor_by_name() -> None:
    from ornstein.experiment.arguments import choice, construct

    chosen = choice(STEPPERS, {"name": "predictor-corrector", "predictor": "unipc", "corrections": 2}, "stepper")
    assert construct(STEPPERS, chosen) == PredictorCorrector(UniPC(), 2)


# ------------------------------------------------------------------------------------------------ error control


def endpoints(process: Any, n: Any = 60) -> Any:
    mix = mixture()
    x = sample(mix.denoiser(process), (n, 2), stepper="rk4", steps=120, grid="logsnr", seed=0, dtype=F64)
    return mix.denoiser(process), x


@pytest.mark.parametrize("name", ["vp", "edm", "flow", "sub-vp"])
def test_a_tolerance_is_honoured(name: Any) -> None:
    """Mean error of the sample at most twice the tolerance, whatever the grid; and calls that grow with the demand."""
    denoiser, exact = endpoints(PROCESSES[name])
    spent = []
    for tolerance, grids in ((1e-2, (1, 4)), (1e-3, (1, 4)), (1e-5, (1,))):
        for steps in grids:
            states = list(trajectory(denoiser, (60, 2), stepper=Adaptive(tolerance), steps=steps, seed=0, dtype=F64))
            assert (states[-1].x - exact).norm(dim=1).mean() < 2 * tolerance
            spent.append(states[-1].calls)
    assert spent[0] <= 40  # a hundredth, in forty calls
    assert spent[::2] == sorted(spent[::2])  # of one step each


def test_hard_samples_do_not_cost_easy_ones_their_accuracy_and_none_goes_beyond_the_clock() -> None:
    """A narrow component beside a wide one: each sample goes its own way, and is what it is alone, bit for bit."""
    mix = GaussianMixture(torch.ones(2), torch.tensor([[0.0, 0.0], [2.0, 2.0]]), torch.tensor([1e-4, 1.0]))
    asked, p = [], VP()

    def answer(x: Any, level: Any, condition: Any) -> Any:
        asked.append(torch.as_tensor(level.t))
        return mix.posterior_mean(x, level).to(x)

    denoiser = FunctionDenoiser(answer, p)
    whole = sample(denoiser, (6, 2), stepper=Adaptive(1e-4), steps=2, seed=0, dtype=F64)
    assert all(((t >= ends(p)[0] * (1 - 1e-9)) & (t <= ends(p)[1])).all() for t in asked)
    for i in range(6):
        one = sample(denoiser, (1, 2), stepper=Adaptive(1e-4), steps=2, seeds=[i], dtype=F64)
        torch.testing.assert_close(one[0], whole[i], rtol=0, atol=1e-12)


def test_the_pair_of_runge_kutta_keeps_the_conditions_of_its_orders() -> None:
    """Each stage is at its node; the answer is of order five, the other that it is compared with of order four."""
    c, off = torch.tensor(_NODES, dtype=F64), torch.tensor(_DIFFERENCE, dtype=F64)
    stages = torch.tensor([[*row, *[0.0] * (7 - len(row))] for row in _STAGES], dtype=F64)
    close: dict[str, Any] = {"rtol": 0, "atol": 1e-13}
    torch.testing.assert_close(stages.sum(1), c, **close)
    for k in range(5):
        assert float(stages[-1] @ c**k) == pytest.approx(1 / (k + 1), abs=1e-13)
        assert (abs(float(off @ c**k)) < 1e-13) == (k < 4)
    for k in range(2, 6):  # and of a linear equation, where slopes are of slopes
        slopes = torch.linalg.matrix_power(stages, k - 2) @ c
        assert float(stages[-1] @ slopes) == pytest.approx(1 / math.factorial(k), abs=1e-13)
        assert (abs(float(off @ slopes)) < 1e-13) == (k < 5)


def test_no_call_is_spent_after_the_last_sample_has_arrived() -> None:
    """The device is asked seldom whether all have arrived, but not later than the first time that they may have."""
    assert [_soonest(length) for length in (1.0, 1.01, 6.0, 6.1, 31.0, 1e300, math.inf)] == [1, 2, 2, 3, 3, 8, 8]
    mix, p, asked = mixture(), VP(), []

    def answer(x: Any, level: Any, condition: Any) -> Any:
        asked.append(torch.as_tensor(level.t).max().item())
        return mix.posterior_mean(x, level).to(x)

    for tolerance in (1e-2, 1e-4, 1e-7):
        asked.clear()
        states = list(trajectory(FunctionDenoiser(answer, p), (1, 2), stepper=Adaptive(tolerance), steps=3, dtype=F64))
        assert states[-1].calls == len(asked)
        # two slopes at the end of a sub-step and one at the start of a step; in an idle sub-step all six
        assert max(len(list(same)) for _, same in itertools.groupby(asked)) <= 3


def test_impossible_tolerances_are_refused() -> None:
    refused(lambda: Adaptive(0.0), "tolerance=0.0")
    refused(lambda: Adaptive(1.0), "tolerance=1.0")
    denoiser = constant(VP(), torch.zeros(2))
    refused(lambda: sample(denoiser, (2, 2), stepper=Adaptive(1e-8), steps=2), "1e-08", "float64")
    broken = FunctionDenoiser(lambda x, level, condition: x * math.nan, VP())
    refused(lambda: sample(broken, (2, 2), stepper=Adaptive(), steps=2), "cannot be met")


# ---------------------------------------------------------------------------------------------------- encoding


@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
def test_encoding_comes_back(name: Any) -> None:
    """To within what the docstring states, in both precisions; and the encoding is the ODE's own."""
    mix, p = mixture(), PROCESSES[name]
    x, den = mix.sample(64, torch.Generator().manual_seed(0)), mix.denoiser(p)
    exact = encode(den, x, stepper=Adaptive(1e-7), steps=1, dtype=F64)
    ways: list[tuple[Any, int, str, float]] = [
        (UniPC(4), 50, "power", 6e-5),
        (UniPC(4), 100, "power", 5e-6),
        (UniPC(4), 50, "flow", 1.5e-3),
        ("heun", 50, "power", 1.5e-4),
    ]
    for stepper, steps, grid, off in ways:
        for dtype in (torch.float32, F64):
            z = encode(den, x, stepper=stepper, steps=steps, grid=grid, dtype=dtype)
            back = sample(den, x.shape, stepper=stepper, steps=steps, grid=grid, x=z, dtype=dtype)
            assert (back - x).norm(dim=1).mean() < off
        level = p.at(times(p, steps, grid)[0].item())
        if stepper == UniPC(4):  # the default encodes, and the default sampler decodes, on a grid of its own
            assert torch.equal(z, encode(den, x, steps=steps, grid=grid, dtype=dtype))
            assert (sample(den, x.shape, steps=steps, x=z, dtype=dtype) - x).norm(dim=1).mean() < 2 * off + 1e-4
        assert (z - exact).norm(dim=1).mean() < 20 * off * math.hypot(level.alpha, level.sigma)


def test_encodings_of_gaussian_data_have_a_closed_form() -> None:
    """N(m, v): the map from data to level t is x -> alpha m + (x - m) sqrt((alpha^2 v + sigma^2)/v)."""
    m, v, p = torch.tensor([0.4, -1.0]), 0.3, VP()
    x = m + math.sqrt(v) * normal(torch.arange(20), (2,), 0)
    z = ornstein.encode(Gaussian(m, v).denoiser(p), x, steps=100)
    level = p.at(times(p, 100, "power")[0].item())
    expected = level.alpha * m + (x - m) * math.sqrt((level.alpha**2 * v + level.sigma**2) / v)
    torch.testing.assert_close(z, expected, rtol=0, atol=2e-4)


def test_encoding_refuses_noise_and_misfits() -> None:
    den, x = mixture().denoiser(VP()), torch.zeros(3, 2)
    refused(lambda: encode(den, x, stepper="ddpm"), "draws noise")
    refused(lambda: encode(den, x, condition=torch.zeros(2)), "condition", "2", "3")
    refused(lambda: encode(den, x, steps=0), "steps=0")


# ------------------------------------------------------------------------------------------------------- grids


@pytest.mark.parametrize("name", PROCESSES)
def test_the_further_grids_are_spread_as_they_say(name: Any) -> None:
    p, n = PROCESSES[name], 12
    low, high = (float(p.at(t).noise_ratio) for t in ends(p))
    k = torch.linspace(0, 1, n, dtype=F64)

    def ratios(grid: Any) -> Any:
        given = there(grid_of(p, n, grid))
        assert len(given) == n + 1
        return torch.tensor([p.at(t).noise_ratio for t in given[:-1].tolist()], dtype=F64)

    close: dict[str, Any] = {"rtol": 1e-6, "atol": 0}
    torch.testing.assert_close(ratios("exponential"), high * (low / high) ** k, **close)
    torch.testing.assert_close(ratios("polyexponential"), low * (high / low) ** ((1 - k) ** 1.5), **close)
    # the 3/2 power of flow matching's time
    u = ratios("power") / (1 + ratios("power"))
    even = (u ** (2 / 3)).diff()
    torch.testing.assert_close(even, even.mean().expand(n - 1), rtol=1e-5, atol=0)
    # SD3: t' = 3 t/(1 + 2 t), from even t
    u = ratios("shifted") / (1 + ratios("shifted"))
    unshifted = u / (3 - 2 * u)
    assert (unshifted.diff() - unshifted.diff().mean()).abs().max() < 1e-7
    # quantiles of N(0, 1)
    quantiles = torch.special.ndtr(ratios("logit-normal").log())
    assert (quantiles.diff() - quantiles.diff().mean()).abs().max() < 1e-7
    # the theory's: steps of Ornstein-Uhlenbeck time in proportion to min(1, t)
    t = 0.5 * torch.log1p(ratios("decay") ** 2)
    steps = -t.diff()
    small, large = t[:-1] < 1, t[1:] > 1
    if small.sum() > 2:
        share = steps[small] / t[:-1][small]
        assert (share - share.mean()).abs().max() < 1e-5
    if large.sum() > 2:
        assert (steps[large] - steps[large].mean()).abs().max() < 1e-6


def test_flow_is_untouched_by_its_generalisation() -> None:
    assert times(Flow(), 4, "flow").tolist() == pytest.approx([160 / 161 * (1 - i / 4) for i in range(5)], abs=1e-9)
