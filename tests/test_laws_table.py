"""Laws of the table of readings, and of the denoisers that stand on it."""

import dataclasses
import inspect
import itertools
import math
from importlib import import_module
from typing import Any

import pytest
import torch
from laws import PROCESSES, ZERO_SNR, Oracle, interior, mixture, refused
from torch import nn

from ornstein import EDM, OU, VE, VP, Cosine, Flow, FunctionDenoiser, NetDenoiser, Prediction
from ornstein.core.grids import ends
from ornstein.core.prediction import READINGS

ALL = {**PROCESSES, **ZERO_SNR}
S = 0.7  # sigma_data


def noised(dtype: Any, n: Any = 9, seed: Any = 0) -> Any:
    """x0 (with spread S about zero) and eps, (n, 4, 3)."""
    g = torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, n, 4, 3, generator=g, dtype=torch.float64).to(dtype)
    return S * x0, eps


def worst(a: Any, b: Any) -> Any:
    """Largest difference per sample, in units of the sample's own size."""
    size = b.abs().flatten(1).amax(1).clamp(min=1e-300)
    return (a - b).abs().flatten(1).amax(1) / size


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batched", [True, False])
def test_every_reading_goes_to_every_other_and_back(name: Any, dtype: Any, batched: Any) -> None:
    """F_a -> x0 -> F_b -> x0 -> F_a, 36 ways: a network's output means the same thing in every language."""
    p = PROCESSES[name]
    t = interior(p, 9)
    x0, eps = noised(dtype)
    rounds = [(p.at(t, like=x0), slice(None), t)] if batched else [
        (p.at(one), slice(i, i + 1), t[i : i + 1]) for i, one in enumerate(t.tolist())
    ]  # fmt: skip
    for level, rows, times in rounds:
        xt = level.noised(x0[rows], eps[rows])
        assert xt.dtype == dtype
        # x0 is the worse known the more noise, and eps the less: rounding, divided by the smaller share
        log_ratio = -0.5 * p.log_snr(times).abs()
        allowed = 1e-10 if dtype == torch.float64 else 40 * 2**-24 * (-log_ratio).exp()
        start = Prediction(x0[rows], xt, level)
        for a, b in itertools.product(READINGS, READINGS):
            first = start.read(a, S)
            assert first.dtype == dtype, a
            skip, out = READINGS[a](level, S)
            second = Prediction(skip * xt + out * first, xt, level).read(b, S)
            skip, out = READINGS[b](level, S)
            again = Prediction(skip * xt + out * second, xt, level).read(a, S)
            assert (worst(again, first) < allowed).all(), (a, b)


@pytest.mark.parametrize("name", ALL)
def test_readings_are_what_they_are_called(name: Any) -> None:
    """For known x0 and eps every reading is its textbook target."""
    p = ALL[name]
    t = interior(p, 9)
    x0, eps = noised(torch.float64)
    level = p.at(t, like=x0)
    xt = level.noised(x0, eps)
    h = 1e-6 * t.reshape(-1, 1, 1)
    wide = t.reshape(-1, 1, 1)
    moved = [p.alpha(wide + d) * x0 + p.sigma(wide + d) * eps for d in (h, -h)]
    ratio = level.sigma / level.alpha
    targets = {
        "x0": x0,
        "eps": eps,
        "score": -eps / level.sigma,
        "v": level.alpha * eps - level.sigma * x0,
        "velocity": (moved[0] - moved[1]) / (2 * h),
        # Karras et al. 2022, table 1, on y = x/alpha: F = (x0 - c_skip y)/c_out
        "edm": (x0 - S**2 / (ratio**2 + S**2) * xt / level.alpha) / (ratio * S / (ratio**2 + S**2).sqrt()),
    }
    prediction = Prediction(x0, xt, level)
    for reading in READINGS:
        allowed = 1e-6 if reading == "velocity" else 1e-10
        assert (worst(prediction.read(reading, S), targets[reading]) < allowed).all(), reading
        if hasattr(prediction, reading):
            assert (worst(getattr(prediction, reading), prediction.read(reading, S)) < 1e-10).all(), reading
    # the probability-flow drift in its other form
    drift = level.f * xt - 0.5 * level.g2 * prediction.score
    assert (worst(drift, prediction.velocity) < 1e-10).all()
    # unit variance of EDM's target for data of standard deviation S, at every level
    assert targets["edm"].std() == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_predictions_are_never_below_float32_nor_above_what_came_in(name: Any, dtype: Any) -> None:
    p = ALL[name]
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    d = FunctionDenoiser(lambda x, level, condition: 0.5 * x.float(), p)
    for t in (interior(p, 3), float(interior(p, 3)[1])):
        prediction = d(x, t)
        for reading in READINGS:
            assert prediction.read(reading).dtype == torch.float32, reading
            if hasattr(prediction, reading):
                assert getattr(prediction, reading).dtype == torch.float32, reading


@pytest.mark.parametrize("name", ["cosine", "flow", *ZERO_SNR])
def test_readings_that_exist_without_signal_are_finite_there(name: Any) -> None:
    p = ALL[name]
    x0, eps = noised(torch.float64, 2)
    for level in (p.at(p.t_max), p.at(torch.full((2,), p.t_max, dtype=torch.float64), like=x0)):
        prediction = Prediction(x0, level.noised(x0, eps), level)
        for reading in ("x0", "v", "velocity", "edm"):
            skip, out = READINGS[reading](level, S)
            back = skip * prediction.xt + out * prediction.read(reading, S)
            assert (worst(back, x0) < 1e-12).all(), reading
        assert (worst(prediction.eps, eps) < 1e-12).all()
        # the two that do not: x0 is infinitely far from them, for one time as for a batch of times
        for reading in ("eps", "score"):
            assert not torch.as_tensor(READINGS[reading](level, S)[1]).isfinite().any(), reading


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("reading", READINGS)
def test_a_network_may_speak_any_reading(name: Any, reading: Any) -> None:
    p = PROCESSES[name]
    if p.at(p.t_max).alpha == 0.0:
        p = dataclasses.replace(p, t_max=ends(p)[1])  # type: ignore[type-var]  # every one of the table is a dataclass
    exact = mixture().denoiser(p)
    net = Oracle(p, reading, exact.sigma_data)
    denoiser = NetDenoiser(net, p, reading, exact.sigma_data)
    t = interior(p, 9)
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x * p.at(t, like=x).alpha + p.at(t, like=x).sigma
    expected = exact(x, t).x0
    torch.testing.assert_close(denoiser(x, t).x0, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(net.told[-1], -0.5 * p.log_snr(t), rtol=0, atol=1e-12)
    for i in (0, 4, 8):
        got = denoiser(x[i : i + 1], t[i].item()).x0
        torch.testing.assert_close(got, expected[i : i + 1], rtol=0, atol=1e-7)
        assert net.told[-1].item() == pytest.approx(-0.5 * p.log_snr(t[i]).item(), abs=1e-12)


def test_networks_are_fed_unit_variance_at_every_level() -> None:
    class Watch(nn.Module):
        def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
            self.seen = x
            return x

    data = mixture()
    g = torch.Generator().manual_seed(0)
    x0 = data.sample(8000, g).double()
    for p in PROCESSES.values():
        watch = Watch()
        denoiser = NetDenoiser(watch, p, "x0", data.denoiser(p).sigma_data)
        for t in interior(p, 3).tolist():
            denoiser(p.at(t).noised(x0, torch.randn(x0.shape, generator=g, dtype=torch.float64)), t)
            assert watch.seen.square().mean().item() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("home", PROCESSES)
def test_one_network_serves_every_clock(home: Any) -> None:
    """`on(other)` is the posterior mean under the other process, exactly: checked on the mixture, all pairs."""
    p, data = PROCESSES[home], mixture()
    denoiser = FunctionDenoiser(lambda x, level, condition: data.posterior_mean(x, level, condition), p)
    g = torch.Generator().manual_seed(2)
    for name, other in PROCESSES.items():
        moved = denoiser.on(other)
        assert moved.process.t_max <= other.t_max
        # its own levels, and no more
        t = interior(moved.process, 9)
        level = other.at(t, like=torch.zeros(9, 2, dtype=torch.float64))
        x0 = data.sample(9, g).double()
        x = level.noised(x0, torch.randn(9, 2, generator=g, dtype=torch.float64))
        expected = data.posterior_mean(x, level)
        torch.testing.assert_close(moved(x, t).x0, expected, rtol=0, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")  # type: ignore[misc]
        single = moved(x[3:4], t[3].item())
        torch.testing.assert_close(single.x0, expected[3:4], rtol=0, atol=1e-8)
        # every other reading is on the other clock too
        score = other.at(t[3].item())
        torch.testing.assert_close(
            single.score, (score.alpha * expected[3:4] - x[3:4]) / score.sigma**2, rtol=1e-6, atol=1e-6
        )
        # float32 and back
        torch.testing.assert_close(moved(x.float(), t).x0.double(), expected, rtol=0, atol=2e-3)


def test_a_borrowed_clock_stops_where_the_knowledge_does() -> None:
    data = mixture()
    for home in PROCESSES.values():
        for other in PROCESSES.values():
            moved = FunctionDenoiser(lambda x, level, condition: data.posterior_mean(x, level), home).on(other).process
            ours, theirs = (p.at(p.t_max).log_snr for p in (home, other))
            assert moved.at(moved.t_max).log_snr == pytest.approx(max(ours, theirs), abs=1e-9)
    short = FunctionDenoiser(lambda x, level, condition: x, EDM(t_max=3.0)).on(Flow())
    assert short.process.t_max == pytest.approx(0.75, rel=1e-9)
    refused(lambda: short(torch.zeros(1, 2), 0.8), "0.8", "0.75")
    assert ends(short.process)[1] == short.process.t_max


def test_conditions_scores_and_scale_pass_through() -> None:
    data = mixture()
    denoiser = FunctionDenoiser(lambda x, level, condition: data.posterior_mean(x, level, condition), VP(), 0.3)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    condition = torch.tensor([0, 2, -1])
    assert denoiser.on(EDM()).sigma_data == 0.3
    torch.testing.assert_close(
        denoiser.on(OU())(x, 0.5, condition).x0, data.posterior_mean(x, OU().at(0.5), condition), rtol=0, atol=1e-9
    )
    t = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64)
    torch.testing.assert_close(denoiser.score_at(t, condition)(x), denoiser(x, t, condition).score)


@pytest.mark.parametrize("predicts", READINGS)
@pytest.mark.parametrize("name", ALL)
def test_combinations_that_cannot_work_are_refused(name: Any, predicts: Any) -> None:
    p = ALL[name]
    blind = p.at(p.t_max).alpha == 0.0
    if blind and predicts in ("eps", "score"):
        refused(lambda: NetDenoiser(nn.Identity(), p, predicts), f"predicts={predicts!r}", "without any signal")
    else:
        NetDenoiser(nn.Identity(), p, predicts)


def test_nonsense_is_refused() -> None:
    refused(lambda: NetDenoiser(nn.Identity(), VP(), "epsilon"), "predicts='epsilon'", "eps")
    refused(lambda: NetDenoiser(nn.Identity(), VP(), "v", sigma_data=0.0), "sigma_data=0.0")
    refused(lambda: NetDenoiser(nn.Identity(), VP(), "v", sigma_data=math.nan), "sigma_data=nan")
    NetDenoiser(nn.Identity(), Cosine(t_max=0.99), "eps")  # stopped before the signal is gone
    NetDenoiser(nn.Identity(), VE(), "score")


@pytest.mark.parametrize("own", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("given", [torch.float64, torch.float32])
def test_a_network_runs_in_its_own_type(own: Any, given: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
            assert noise_level.dtype == torch.promote_types(own, torch.float32)
            return self.linear(x)

    denoiser = NetDenoiser(Net().to(own), VP(), "v")
    x = torch.ones(3, 2, dtype=given)
    for t in (0.5, torch.tensor([0.1, 0.5, 0.9])):
        assert denoiser(x, t).x0.dtype == given


def test_whatever_has_a_seed_begins_with_none_or_nought() -> None:
    """So that the same call gives the same, and a person who names no seed knows which it was."""
    found = {}
    for room in ("cells", "doctor", "evaluate", "restore", "rows", "series", "tune"):
        module = import_module(f"ornstein.experiment.{room}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            seed = inspect.signature(function).parameters.get("seed")
            if seed is not None and seed.default is not seed.empty:
                found[module.__name__, name] = seed.default
    assert len(found) > 8
    assert set(found.values()) <= {0, None}, found
