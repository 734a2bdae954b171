"""Exponential integrators against closed forms: the weights, the published formulas, and the last step."""

import itertools
import math
from typing import Any

import pytest
import torch
from laws import mixture, refused

from ornstein import EDM, VP, Flow, FunctionDenoiser, sample, trajectory
from ornstein.core.condition import Condition
from ornstein.core.drive import Ask
from ornstein.core.grids import times
from ornstein.samplers import DEFAULT_STEPPER, stepper_named
from ornstein.samplers.ancestral import DDIM
from ornstein.samplers.exponential import CLOCKS, DEIS, DPMpp2M, Multistep, _shares, polynomial_weights
from ornstein.samplers.plms import PLMS
from ornstein.samplers.single_step import DPMSolver
from ornstein.samplers.unipc import UniPC

F64 = torch.float64


def integral(f: Any, a: Any, b: Any, n: Any = 4000) -> Any:
    """Simpson's rule in lambda: slow, plain and independent of the rule under test."""
    h = (b - a) / n
    return h / 3 * math.fsum((1 if i in (0, n) else 4 if i % 2 else 2) * f(a + i * h) for i in range(n + 1))


#: where answers are known, up to the highest order that is offered
POINTS = [(0.3,), (0.3, -0.4), (0.3, -0.4, -1.5), (1.1, 0.3, -0.4, -1.5)]
POINTS += [(1.1, 0.7, 0.3, -0.1, -0.6, -1.0)[:n] for n in (5, 6)] + [(1.1, 0.8, 0.5, 0.3, -0.1, -0.5, -0.8, -1.3)]


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("predicts", ["x0", "eps"])
@pytest.mark.parametrize("points", POINTS)
def test_weights_integrate_polynomials_of_the_clock_exactly(clock: Any, predicts: Any, points: Any) -> None:
    """Every monomial of the clock below the number of points, over short, long and backward steps."""
    read = CLOCKS[clock]
    for start, end in ((0.3, 1.1), (0.3, 4.9), (1.1, -0.2)):
        weights = polynomial_weights(predicts, clock, start, end, points)
        for power in range(len(points)):
            rate = (lambda lam: -math.exp(-lam)) if predicts == "eps" else math.exp
            expected = integral(lambda lam, r=rate, p=power: read(lam) ** p * r(lam), start, end)
            got = math.fsum(w * read(lam) ** power for w, lam in zip(weights, points, strict=True))
            assert got == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_weights_from_no_signal_at_all() -> None:
    """In the flow clock tau = 1/(1 + mu), integrals over mu from 0 have closed forms: log(1 + mu), mu/(1 + mu)."""
    mu, points = 3.7, (-math.inf, -0.8, 0.2)
    weights = polynomial_weights("x0", "flow", -math.inf, math.log(mu), points)
    tau = [CLOCKS["flow"](lam) for lam in points]
    for power, expected in ((0, mu), (1, math.log1p(mu)), (2, mu / (1 + mu))):
        assert math.fsum(w * t**power for w, t in zip(weights, tau, strict=True)) == pytest.approx(expected, rel=1e-12)


def test_the_classical_weights_are_special_cases() -> None:
    # Adams and Bashforth: equal steps of u, a polynomial in u
    u = [1.0, 1.1, 1.2, 1.3]
    weights = polynomial_weights("eps", "ratio", -math.log(u[0]), -math.log(0.9), tuple(-math.log(v) for v in u))
    expected = [-0.1 * w for w in (55 / 24, -59 / 24, 37 / 24, -9 / 24)]
    assert weights == pytest.approx(expected, rel=1e-9)
    # DPM-Solver++(2M) is UniPC's predictor of two points with B(h) = 1 - exp(-h)
    start, end, previous = 0.2, 0.9, -0.3
    r = (previous - start) / (end - start)
    got = polynomial_weights("x0", "log-snr", start, end, (start, previous), "b2")
    total = math.exp(end) - math.exp(start)
    assert got == pytest.approx([total * (1 - 1 / (2 * r)), total / (2 * r)], rel=1e-12)


def states(denoiser: Any, stepper: Any, grid: Any, **options: Any) -> Any:
    return [s.x for s in trajectory(denoiser, (3, 2), stepper=stepper, grid=grid, dtype=F64, seed=0, **options)]


@pytest.mark.parametrize("stepper", [Multistep(1), DEIS(1), DEIS(1, "ratio"), Multistep(1, "signal")], ids=repr)
def test_of_order_one_they_are_ddim(stepper: Any) -> None:
    for p in (VP(), Flow()):
        given = [0.9, 0.6, 0.3, 0.1]
        for x, y in zip(*(states(mixture().denoiser(p), s, given) for s in (stepper, DDIM())), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


def test_of_order_two_multistep_differs_from_2m_by_its_rule_only() -> None:
    """Half the slope times 1 - exp(-h) instead of the integral: a difference of third order in h."""
    p, gaps = VP(), []
    for n in (20, 40):
        lam = torch.linspace(-1.5, 1.5, n + 1, dtype=F64)
        a, b = (states(mixture().denoiser(p), s, p.time(2 * lam)) for s in (Multistep(2), DPMpp2M()))
        gaps.append((a[-2] - b[-2]).abs().max().item())
    assert 1.7 < math.log2(gaps[0] / gaps[1]) < 2.4


@pytest.mark.parametrize("rule", ["b1", "b2"])
def test_unipc_is_the_papers(rule: Any) -> None:
    """Zhao et al. 2023 (2302.04867), algorithms 5 to 8, data prediction, p = 3: solved from R rho = b as printed."""
    p, mix = VP(), mixture()
    t = [0.95, 0.8, 0.65, 0.4, 0.3, 0.12, 0.05]
    lam = [0.5 * p.at(s).log_snr for s in t]
    ours = states(mix.denoiser(p), UniPC(4, "log-snr", 1, rule), t)

    def update(x: Any, i: Any, values: Any, corrected: Any) -> Any:
        """From t[i] to t[i + 1] by the data at t[i], t[i - 1], ... and, to correct, at t[i + 1]."""
        h = lam[i + 1] - lam[i]
        others = [(lam[k] - lam[i]) / h for k in sorted(values, reverse=True) if k < i]
        data = [values[k] for k in sorted(values, reverse=True) if k < i]
        if corrected:
            others, data = [*others, 1.0], [*data, values[i + 1]]
        b_of_h = -h if rule == "b1" else math.expm1(-h)
        phi, factorial, right = math.expm1(-h) / -h - 1, 1, []
        for k in range(1, len(others) + 1):
            right.append(phi * factorial / b_of_h)
            factorial *= k + 1
            phi = phi / -h - 1 / factorial
        if len(others) < 2:
            rho = [0.5] * len(others)
        else:
            rows = torch.tensor([[r ** (k - 1) for r in others] for k in range(1, len(others) + 1)], dtype=F64)
            rho = torch.linalg.solve(rows, torch.tensor(right, dtype=F64)).tolist()
        alpha = p.at(t[i + 1]).alpha
        x = p.at(t[i + 1]).sigma / p.at(t[i]).sigma * x - alpha * math.expm1(-h) * values[i]
        for weight, r, m in zip(rho, others, data, strict=True):
            x = x - alpha * b_of_h * weight * (m - values[i]) / r
        return x

    x = predicted = ours[0]
    values: dict[Any, Any] = {}
    for i in range(len(t) - 1):
        now = mix.posterior_mean(predicted, p.at(t[i]))
        if i > 0:
            x = update(x, i - 1, {k: values[k] for k in list(values)[-3:]} | {i: now}, corrected=True)
        values[i] = now
        predicted = update(x, i, {k: values[k] for k in list(values)[-3:]}, corrected=False)
        torch.testing.assert_close(ours[i + 1], predicted, rtol=1e-9, atol=1e-9)


def test_plms_is_deis_where_steps_are_equal_and_then_of_order_four() -> None:
    p, mix = EDM(), mixture()
    even = torch.linspace(2.0, 0.4, 17, dtype=F64).tolist()

    def walk(stepper: Any, levels: Any) -> Any:
        memory: Any = None
        ask = Ask(mix.denoiser(p), Condition())
        x = torch.tensor([[1.0, -2.0], [0.3, 1.5]], dtype=F64)
        for t, s in itertools.pairwise(levels):
            x, memory = stepper.step(ask, x, t, s, memory, None)
        return x

    levels = p.levels(torch.tensor(even, dtype=F64))
    a, b = walk(PLMS(), levels), walk(DEIS(4, "ratio"), levels)
    # they start differently: DEIS corrects its first steps
    assert 0 < (a - b).abs().max() < 1e-3
    ends = [walk(PLMS(), p.levels(torch.linspace(2.0, 0.4, n + 1, dtype=F64))) for n in (64, 128, 1024)]
    start = [(end - ends[-1]).abs().max().item() for end in ends[:2]]
    assert start[0] / start[1] > 3.3  # the first step's error is of second order, and all that is left


def test_pndm_starts_with_three_runge_kutta_steps_of_four_calls_each() -> None:
    """Counted by the loop; on equal steps of sigma/alpha the classical rule, so that Adams & Bashforth show order 4."""
    p, mix = EDM(), mixture()
    pndm = PLMS(start="runge-kutta")
    assert pndm.calls is None
    for n in (1, 2, 3, 4, 7):
        states = list(trajectory(mix.denoiser(p), (2, 2), stepper=pndm, grid=torch.linspace(2.0, 0.0, n + 1), seed=0))
        spent = [b.calls - a.calls for a, b in itertools.pairwise(states)]
        assert spent == [*[4, 4, 4, 1, 1, 1][: n - 1], 1]
    # from no signal at all the first step is DDIM's, and the start comes after it
    states = list(trajectory(mix.denoiser(Flow()), (2, 2), stepper=pndm, grid=torch.linspace(1, 0, 8), seed=0))
    assert [b.calls - a.calls for a, b in itertools.pairwise(states)] == [1, 4, 4, 4, 1, 1, 1]
    assert torch.isfinite(states[-1].x).all()
    ends: dict[Any, Any] = {}
    for start in ("lower-order", "runge-kutta"):
        for n in (128, 256, *([1024] if start == "runge-kutta" else [])):
            memory = None
            ask = Ask(mix.denoiser(p), Condition())
            x = torch.tensor([[1.0, -2.0], [0.3, 1.5]], dtype=F64)
            for t, s in itertools.pairwise(p.levels(torch.linspace(2.0, 0.4, n + 1, dtype=F64))):
                x, memory = PLMS(start=start).step(ask, x, t, s, memory, None)  # type: ignore[arg-type]
            ends[start, n] = x
    errors = {key: (end - ends["runge-kutta", 1024]).abs().max().item() for key, end in ends.items()}
    assert errors["runge-kutta", 128] / errors["runge-kutta", 256] > 2**3.8
    # without that start, what its first steps left of second and third order is all that there is
    assert errors["lower-order", 128] / errors["lower-order", 256] < 2**2.6
    refused(lambda: PLMS(start="heun"), "start='heun'", "runge-kutta")


@pytest.mark.parametrize(("last", "weights"), [(1, [1.0]), (2, [2.0, -1.0]), (3, [8 / 3, -2.0, 1 / 3])])
def test_the_last_step_goes_by_as_many_answers_as_it_says(last: int, weights: list[float]) -> None:
    """Lagrange's weights at a ratio of zero, of answers at the ratios 1/2, 1 and 2: no more of them than `last`."""
    den = FunctionDenoiser(lambda x, level, condition: torch.full_like(x, math.cos(level.noise_ratio)), EDM())
    grid = [4.0, 2.0, 1.0, 0.5, 0.0]
    x = sample(den, (1, 1), stepper=Multistep(4, "ratio", last), grid=grid, seed=0, dtype=F64)
    expected = sum(weight * math.cos(ratio) for weight, ratio in zip(weights, (0.5, 1.0, 2.0), strict=False))
    assert float(x) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("clock", ["ratio", "flow", "signal"])
def test_answers_that_are_a_polynomial_of_the_clock_are_followed_and_ended_exactly(clock: Any) -> None:
    """Data that depend on the level alone, a parabola of the clock: order 3 makes no error, nor does last=3."""
    p, read = VP(), CLOCKS[clock]

    def answer(x: Any, level: Any, condition: Any) -> Any:
        c = read(0.5 * level.log_snr)
        return (0.7 - 1.3 * c + 0.4 * c * c) * torch.ones_like(x)

    value = read(math.inf)
    expected = 0.7 - 1.3 * value + 0.4 * value**2
    lam = torch.linspace(-2, 2, 9, dtype=F64)
    for stepper in (Multistep(3, clock, 3), UniPC(3, clock, 3), UniPC(4, clock, 4)):
        x = sample(FunctionDenoiser(answer, p), (2, 2), stepper=stepper, grid=p.time(2 * lam), seed=0, dtype=F64)
        torch.testing.assert_close(x, torch.full_like(x, expected), rtol=0, atol=1e-9)
    # along the way: the exact integral of the parabola against mu
    walk = states(FunctionDenoiser(answer, p), UniPC(4, clock, 3), p.time(2 * lam))
    for i in range(3, 8):
        a, b, (t, s) = lam[i].item(), lam[i + 1].item(), (p.at(p.time(2 * lam[k].item())) for k in (i, i + 1))

        def rate(v: Any) -> Any:
            return (0.7 - 1.3 * read(v) + 0.4 * read(v) ** 2) * math.exp(v)

        expected = s.sigma * (walk[i] / t.sigma + integral(rate, a, b))
        torch.testing.assert_close(walk[i + 1], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("order", [5, 6, 7, 8])
@pytest.mark.parametrize("kind", [Multistep, UniPC])
def test_high_orders_integrate_polynomials_of_their_degree_exactly(kind: Any, order: Any) -> None:
    """Once there are answers enough. What the first steps leave hides these orders where steps are halved."""
    p, read = VP(), CLOCKS["signal"]
    # UniPC's last order is its corrector's, which has not seen the newest state yet
    points = order - (kind is UniPC)
    coefficients = [0.7, -1.3, 0.4, 0.9, -0.5, 1.1, -0.8, 0.6][:points]

    def polynomial(v: Any) -> Any:
        return sum(c * read(v) ** k for k, c in enumerate(coefficients))

    def answer(x: Any, level: Any, condition: Any) -> Any:
        return polynomial(0.5 * level.log_snr) * torch.ones_like(x)

    lam = torch.linspace(-2, 2, 15, dtype=F64)
    levels = [p.at(p.time(2 * v.item())) for v in lam]

    def off(order: Any) -> Any:
        walk = states(FunctionDenoiser(answer, p), kind(order, "signal", 1), p.time(2 * lam))
        found = 0.0
        for i in range(order, 13):
            gain = integral(lambda v: polynomial(v) * math.exp(v), lam[i].item(), lam[i + 1].item())
            expected = levels[i + 1].sigma * (walk[i] / levels[i].sigma + gain)
            found = max(found, float((walk[i + 1] - expected).abs().max()))
        return found

    assert off(order) < 1e-9
    assert off(order - 1) > 1e-8


@pytest.mark.parametrize("predicts", ["x0", "eps"])
def test_dpm_solver_2_is_the_papers(predicts: Any) -> None:
    """Lu et al. 2022: 2206.00927 algorithm 1 (noise, r = 1/2) and 2211.01095 algorithm 1 (data)."""
    p, mix, t = VP(), mixture(), [0.7, 0.4, 0.15]
    ours = states(mix.denoiser(p), DPMSolver(2, predicts), t)
    for i, (a, b) in enumerate(itertools.pairwise(t)):
        x, (start, end) = ours[i], (p.at(a), p.at(b))
        h = 0.5 * (end.log_snr - start.log_snr)
        middle = p.at(p.time(start.log_snr + h))
        here = mix.denoiser(p)(x, start)
        if predicts == "eps":
            u = middle.alpha / start.alpha * x - middle.sigma * math.expm1(h / 2) * here.eps
            there = mix.denoiser(p)(u, middle).eps
            first = end.alpha / start.alpha * x - end.sigma * math.expm1(h) * here.eps
            expected = first - end.sigma * (math.expm1(h) - h) / h * 2 * (there - here.eps)
        else:
            u = middle.sigma / start.sigma * x - middle.alpha * math.expm1(-h / 2) * here.x0
            there = mix.denoiser(p)(u, middle).x0
            first = end.sigma / start.sigma * x - end.alpha * math.expm1(-h) * here.x0
            expected = first + end.alpha * (math.expm1(-h) + h) / h * 2 * (there - here.x0)
        torch.testing.assert_close(ours[i + 1], expected, rtol=1e-9, atol=1e-9)


def test_the_clock_that_is_smooth_at_both_ends_pays() -> None:
    """The claim of the module: in "signal" ten calls of UniPC err less than half as much as in log-SNR."""
    mix, p = mixture(), VP()
    exact = sample(mix.denoiser(p), (200, 2), stepper="rk4", steps=120, grid="logsnr", seed=0, dtype=F64)

    def error(stepper: Any, grid: Any) -> Any:
        x = sample(mix.denoiser(p), (200, 2), stepper=stepper, steps=10, grid=grid, seed=0, dtype=F64)
        return (x - exact).norm(dim=1).mean().item()

    published = min(error(UniPC(o, "log-snr", 1, "b2"), g) for o in (3, 4) for g in ("flow", "logsnr", "karras"))
    assert error(UniPC(), "power") < 0.5 * published


@pytest.mark.parametrize(("steps", "order"), [(1, 3), (7, 3), (8, 4), (24, 4), (25, 6), (40, 6)])
def test_unipc_by_name_is_what_it_says(steps: Any, order: Any) -> None:
    """Its order by the number of steps, its clock, its end and its grid: the same bits as with all of them named."""
    den = mixture().denoiser(EDM(t_max=33.0))
    named = [state.x for state in trajectory(den, (3, 2), stepper="unipc", steps=steps, seed=0)]
    grid = times(EDM(t_max=33.0), steps, "tapered", den.sigma_data)
    told = list(trajectory(den, (3, 2), stepper=UniPC(order, "signal", 3, "exact"), grid=grid, seed=0))
    assert [state.t for state in told] == grid.tolist()
    for x, state in zip(named, told, strict=True):
        assert torch.equal(x, state.x)
    if steps > 4:
        other = list(trajectory(den, (3, 2), stepper=UniPC(order - 1), grid=grid, seed=0))
        assert not torch.equal(named[-1], other[-1].x)


def test_bad_numbers_are_refused() -> None:
    for call, words in [
        (lambda: Multistep(0), ["order=0"]),
        (lambda: Multistep(9), ["order=9"]),
        (lambda: Multistep(True), ["order=True"]),
        (lambda: Multistep(3, "snr"), ["clock='snr'"]),
        (lambda: Multistep(3, "log-snr", 2), ["last=2", "log-snr"]),
        (lambda: UniPC(1), ["order=1"]),
        (lambda: UniPC(3, rule="b3"), ["rule='b3'"]),
        (lambda: UniPC(3, last=0), ["last=0"]),
        (lambda: DEIS(2.0), ["order=2.0"]),  # type: ignore[arg-type]
        (lambda: DPMSolver(4), ["order=4"]),
        (lambda: DPMSolver(2, "v"), ["predicts='v'"]),
    ]:
        refused(call, *words)


def test_weights_are_computed_once_for_a_grid() -> None:
    polynomial_weights.cache_clear()
    _shares.cache_clear()
    computed = []
    for _ in range(2):
        sample(mixture().denoiser(EDM(t_max=33.0)), (2, 2), stepper="unipc", steps=8, seed=0)
        computed.append((polynomial_weights.cache_info().misses, _shares.cache_info().misses))
    assert computed[0] == computed[1]
    assert computed[0][1] == 7  # a step each, and the last, which has none


def test_a_run_folder_from_before_draws_as_it_says() -> None:
    """Its YAML names "unipc" and every option, order: null among them: that means what it meant, grid included."""
    before: Any = stepper_named("unipc", order=None, clock="signal", last=3, rule="exact")
    assert [before.points(n) for n in (4, 7, 8, 24, 25, 50)] == [2, 2, 3, 3, 5, 5]
    den = mixture().denoiser(VP())
    given: dict[str, Any] = {
        "x": torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=F64),
        "steps": 12,
        "dtype": F64,
    }
    old = sample(den, (4, 2), stepper=before, **given)
    assert torch.equal(old, sample(den, (4, 2), stepper=UniPC(order=4), grid="tapered", **given))
    assert not torch.equal(old, sample(den, (4, 2), **given))


def test_the_default_is_unipc_of_an_order_by_the_number_of_steps() -> None:
    den = mixture().denoiser(VP())
    for steps, order in ((4, 3), (6, 3), (7, 6), (20, 6)):
        given: dict[str, Any] = {"seed": 0, "steps": steps, "dtype": F64}
        by_hand = sample(den, (4, 2), stepper=UniPC(order=order), grid="balanced", **given)
        assert torch.equal(sample(den, (4, 2), **given), by_hand)
    refused(lambda: stepper_named(DEFAULT_STEPPER, order=4), "order", "no options")
    refused(lambda: Multistep(order=None), "order=None", "[1, 8]")  # type: ignore[arg-type]
