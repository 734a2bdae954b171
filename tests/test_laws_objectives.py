"""Laws of every objective: what it weighs, when, and that the exact denoiser is its minimum."""

import math
from typing import Any

import pytest
import torch
from laws import PROCESSES, ZERO_SNR, cover, interior, refused
from torch import nn

from ornstein import EDM, VP, Cosine, Flow, FunctionDenoiser, NetDenoiser
from ornstein.core.grids import ends
from ornstein.laws.objectives import LAWS as OBJECTIVE_LAWS
from ornstein.laws.objectives import (
    S,
    data,
    drops_labels_at_its_rate,
    exact_is_its_minimum,
    gradient_is_the_same_in_every_reading,
    is_finite_and_per_sample,
    parts_seen,
    wrong,
)
from ornstein.laws.oracles import Known
from ornstein.objectives import OBJECTIVES
from ornstein.objectives.regression import TIMES, Regression

F64 = torch.float64
#: the regressions among them, which have a loss at given times and noise
REGRESSIONS = [name for name, make in OBJECTIVES.items() if isinstance(make(), Regression)]


#: those that draw more after the labels
PROBED = [name for name, make in OBJECTIVES.items() if getattr(make(), "probes", 0)]


def learns_variance(name: Any) -> Any:
    return getattr(OBJECTIVES[name](), "learns_variance", False)


#: the loss of a sample as the papers write it: (prediction, x0, eps, level) -> per element
FORMULAS = {
    "ddpm": lambda p, x0, eps, level: (p.eps - eps) ** 2,
    "score": lambda p, x0, eps, level: level.sigma**2 * (p.score + eps / level.sigma) ** 2,
    "v": lambda p, x0, eps, level: (p.v - (level.alpha * eps - level.sigma * x0)) ** 2,
    "edm": lambda p, x0, eps, level: (
        ((level.sigma / level.alpha) ** 2 + S**2) / (level.sigma / level.alpha * S) ** 2 * (p.x0 - x0) ** 2
    ),
    "flow": lambda p, x0, eps, level: (p.velocity - (level.rates[0] * x0 + level.rates[1] * eps)) ** 2,
    "min-snr": lambda p, x0, eps, level: (
        torch.as_tensor((level.alpha / level.sigma) ** 2, dtype=F64).clamp(max=5.0) * (p.x0 - x0) ** 2
    ),
}


@pytest.mark.parametrize("objective", FORMULAS)
@pytest.mark.parametrize("name", PROCESSES)
def test_each_preset_is_the_papers_loss(name: Any, objective: Any) -> None:
    p = PROCESSES[name]
    loss: Any = OBJECTIVES[objective]()
    x0, eps = data(9)
    t = interior(p, 9)
    level = p.at(t, like=x0)
    prediction = wrong(p)(level.noised(x0, eps), t)
    expected = FORMULAS[objective](prediction, x0, eps, level).mean(1)
    got = loss.loss_at(wrong(p), x0, t, eps, None)
    assert got.shape == (9,)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    one = loss.loss_at(wrong(p), x0, t[4].item(), eps, None)
    torch.testing.assert_close(one[4], expected[4], rtol=1e-9, atol=1e-12)


def test_min_snr_in_every_language() -> None:
    """Hang et al. 2023 with the v weight min(snr, g)/(snr + 1), not min(snr + 1, g)/(snr + 1)."""
    p, g = VP(), 5.0
    loss: Any = OBJECTIVES["min-snr"](gamma=g)
    x0, eps = data(40)
    for t in interior(p, 9).tolist():
        level = p.at(t)
        snr = math.exp(level.log_snr)
        prediction = wrong(p)(level.noised(x0, eps), t)
        got = loss.loss_at(wrong(p), x0, t, eps, None)
        v = level.alpha * eps - level.sigma * x0
        torch.testing.assert_close(got, (min(snr, g) / (snr + 1) * (prediction.v - v) ** 2).mean(1))
        torch.testing.assert_close(got, (min(snr, g) / snr * (prediction.eps - eps) ** 2).mean(1))


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if not learns_variance(name)])
@pytest.mark.parametrize("name", ["vp", "sub-vp", "ve", "edm", "ou", "flow", "betas"])
def test_gradients_do_not_know_what_the_network_predicts(name: Any, objective: Any) -> None:
    process = Flow(t_max=0.99) if name == "flow" else PROCESSES[name]
    gradient_is_the_same_in_every_reading(OBJECTIVES[objective](), process)


@pytest.mark.parametrize(("name", "objective"), cover(["vp", "edm", "flow", "betas[cosine]"], OBJECTIVES, each=2))
def test_the_exact_denoiser_is_the_minimum(name: Any, objective: Any) -> None:
    exact_is_its_minimum(OBJECTIVES[objective](), PROCESSES[name])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    "law", ["draws-from-its-generator-alone", "asks-within-the-clock", "drops-labels-at-its-rate", "teaches-the-mean"]
)
def test_keeps_the_laws_of_objectives(objective: Any, law: Any) -> None:
    OBJECTIVE_LAWS[law](OBJECTIVES[objective]())


@pytest.mark.parametrize("shape", [(2,), (3, 8, 8)])
def test_losses_have_their_closed_form_on_gaussian_data(shape: Any) -> None:
    """Data N(0, I) on VP, averaged over elements: comparable across shapes and configurations."""
    n = 120000 // math.prod(shape)
    g = torch.Generator().manual_seed(3)
    x0, eps = torch.randn(2, n, *shape, generator=g, dtype=F64)
    p = VP()
    silent = {reading: NetDenoiser(Silent(), p, reading) for reading in ("eps", "v", "x0", "edm", "velocity")}
    exact = FunctionDenoiser(lambda x, level, condition: level.alpha * x, p)
    se = 5 * math.sqrt(2 / (n * math.prod(shape)))
    for t in (0.05, 0.4, 0.9):
        level = p.at(t)
        a2, s2 = level.alpha**2, level.sigma**2
        f, rate = level.rates
        expected = [
            ("ddpm", silent["eps"], 1.0),  # |0 - eps|^2
            ("v", silent["v"], 1.0),  # |0 - v|^2 = alpha^2 + sigma^2
            ("flow", silent["velocity"], f**2 + rate**2),
            ("edm", silent["edm"], 1.0),  # EDM's target has unit variance
            ("min-snr", silent["x0"], min(a2 / s2, 5.0)),
            ("ddpm", exact, a2),  # E|sigma x - eps|^2
            ("v", exact, 1.0),
        ]
        for name, denoiser, value in expected:
            loss: Any = OBJECTIVES[name]()
            got = loss.loss_at(denoiser, x0, t, eps, None).mean().item()
            assert got == pytest.approx(value, rel=2 * se), (name, t)


class Silent(nn.Module):
    """A network with zero output, as every network of the house starts."""

    def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
        return torch.zeros_like(x)


# ---------------------------------------------------------------------------------------------- times and noise


def kolmogorov(u: Any) -> Any:
    u = u.sort().values
    n = len(u)
    i = torch.arange(n, dtype=F64)
    return float(torch.maximum(((i + 1) / n - u).max(), (u - i / n).max())) * math.sqrt(n)


@pytest.mark.parametrize("name", PROCESSES)
def test_times_have_their_density(name: Any) -> None:
    p, n = PROCESSES[name], 20000
    g = torch.Generator().manual_seed(4)
    low, high = ends(p)
    by_snr = [p.at(t).log_snr for t in (low, high)]

    def drawn(times: Any) -> Any:
        t = Regression(times=times, stratified=False).draw_times(p, n, g)
        assert t.shape == (n,)
        assert t.dtype == F64
        assert (t >= 0).all()
        assert (t <= p.t_max).all()
        return t

    assert kolmogorov((drawn("uniform") - low) / (high - low)) < 1.95
    assert kolmogorov((p.log_snr(drawn("log-snr")) - by_snr[0]) / (by_snr[1] - by_snr[0])) < 1.95
    z = (-0.5 * p.log_snr(drawn("log-normal")) + 1.2) / 1.2
    inside = z[(z - (-0.5 * by_snr[0] + 1.2) / 1.2 > 1e-6) & ((-0.5 * by_snr[1] + 1.2) / 1.2 - z > 1e-6)]
    edges = [0.5 * (1 + math.erf((-0.5 * l + 1.2) / 1.2 / math.sqrt(2))) for l in by_snr]  # noqa: E741
    cdf = 0.5 * (1 + torch.erf(inside / math.sqrt(2)))
    assert len(inside) / n == pytest.approx(edges[1] - edges[0], abs=5 / math.sqrt(n) * 0.5)
    assert kolmogorov((cdf - edges[0]) / (edges[1] - edges[0])) < 1.95
    if p.chain:
        t = drawn("chain-uniform")
        assert torch.equal(t, t.round())
        counts = torch.bincount(t.long(), minlength=p.chain + 1)
        assert counts[0] == 0
        chi2 = ((counts[1:] - n / p.chain) ** 2 / (n / p.chain)).sum().item()
        assert abs(chi2 - p.chain) < 5 * math.sqrt(2 * p.chain)
        assert t.max() == p.chain
    else:
        refused(lambda: drawn("chain-uniform"), "chain-uniform", "continuous")
    auto = Regression(times="auto").draw_times(p, 100, torch.Generator().manual_seed(0))
    named = Regression(times="chain-uniform" if p.chain else "uniform")
    assert torch.equal(auto, named.draw_times(p, 100, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("times", TIMES)
def test_stratified_times_are_evenly_spread(times: Any) -> None:
    p, n = PROCESSES["betas"], 64
    objective = Regression(times=times, stratified=True)
    t = objective.draw_times(p, n, torch.Generator().manual_seed(5))
    edges = TIMES[times](objective, p, torch.arange(n + 1, dtype=F64) / n, 1.0)
    edges[-1] = max(edges[-1], t[-1])
    low, high = torch.minimum(edges[:-1], edges[1:]), torch.maximum(edges[:-1], edges[1:])
    assert ((t >= low) & (t <= high)).all()
    assert t.unique().numel() > n / 2


def test_stratified_times_lower_the_variance_of_the_loss() -> None:
    x0, _ = data(64)
    exact = Known(lambda x, level: level.alpha * S**2 / (level.alpha**2 * S**2 + level.sigma**2) * x, VP())
    spread = {}
    for stratified in (True, False):
        loss = OBJECTIVES["ddpm"](stratified=stratified)
        g = torch.Generator().manual_seed(6)
        spread[stratified] = torch.stack([loss(exact, x0, None, g).mean() for _ in range(300)]).var().item()
    assert spread[True] < 0.8 * spread[False]


class Watch(nn.Module):
    def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
        self.x, self.noise_level = x, noise_level
        return x


@pytest.mark.parametrize("objective", REGRESSIONS)
def test_the_network_sees_the_noised_data_that_the_target_belongs_to(objective: Any) -> None:
    """What is regressed on is what was put in: x_t = alpha x0 + sigma eps with the same eps and the same t."""
    loss: Any = OBJECTIVES[objective]()
    for p in (VP(), EDM(), PROCESSES["betas"]):
        x0, _ = data(16, shape=(2, 4))
        watch = Watch()
        got = loss(NetDenoiser(watch, p, "x0", S), x0, None, torch.Generator().manual_seed(7))
        g = torch.Generator().manual_seed(7)
        t = loss.draw_times(p, 16, g, S)
        eps = torch.randn(16, 2, 4, generator=g, dtype=F64)
        level = p.at(t, like=x0)
        c_in = (level.alpha**2 * S**2 + level.sigma**2) ** -0.5
        torch.testing.assert_close(watch.x, c_in * (level.alpha * x0 + level.sigma * eps))
        torch.testing.assert_close(watch.noise_level, (level.sigma / level.alpha).log().flatten())
        weight = loss.weight_at(level, S)
        torch.testing.assert_close(got, (weight * (watch.x - x0) ** 2).flatten(1).mean(1))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_labels_are_dropped_at_the_stated_rate(objective: Any) -> None:
    n = 10000
    bare, _ = parts_seen(OBJECTIVES[objective](drop_label=0.5), None, n)
    for rate in (0.0, 0.1, 0.25, 1.0):
        loss = OBJECTIVES[objective](drop_label=rate)
        drops_labels_at_its_rate(loss)
        # the noise and the times do not depend on whether there are labels to drop
        assert torch.equal(parts_seen(loss, torch.arange(n) % 10, n)[0], bare) or objective in PROBED


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_tenth_of_the_labels_is_dropped_where_nothing_is_said(objective: Any) -> None:
    n = 10000
    _, seen = parts_seen(OBJECTIVES[objective](), torch.arange(n) % 10, n)
    assert abs((seen["label"] == -1).double().mean() - 0.1) < 5 * math.sqrt(0.1 * 0.9 / n)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", [*PROCESSES, *ZERO_SNR])
def test_losses_are_finite_reproducible_and_per_sample(name: Any, objective: Any) -> None:
    p = {**PROCESSES, **ZERO_SNR}[name]
    loss: Any = OBJECTIVES[objective]()
    is_finite_and_per_sample(loss, p)
    if objective in REGRESSIONS:  # at the very end of the clock too, for one time and for a batch of them
        x0 = data(32, shape=(2, 4))[0].float()
        eps, last = torch.ones_like(x0), torch.full((32,), p.t_max)
        end = loss.loss_at(wrong(p), x0, p.t_max, eps, None)
        assert end.isfinite().all()
        torch.testing.assert_close(end, loss.loss_at(wrong(p), x0, last, eps, None), rtol=1e-4, atol=1e-6)


def test_nonsense_is_refused() -> None:
    for make, words in [
        (lambda: Regression("epsilon"), ["weight='epsilon'", "eps"]),
        (lambda: Regression(times="unifrom"), ["times='unifrom'", "uniform"]),
        (lambda: Regression(drop_label=1.5), ["drop_label=1.5"]),
        (lambda: Regression(drop_label=math.nan), ["drop_label=nan"]),
        (lambda: Regression(gamma=0.0), ["gamma=0.0"]),
        (lambda: Regression(p_std=-1.0), ["p_std=-1.0"]),
        (lambda: Regression().loss_at(wrong(Cosine()), torch.zeros(2, 1), 1.5, torch.zeros(2, 1), None), ["t=1.5"]),
    ]:
        refused(make, *words)
