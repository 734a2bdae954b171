"""Laws of every objective: what it weighs, when, and that the exact denoiser is its minimum."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from laws import PROCESSES, ZERO_SNR, interior, mixture, refused
from torch import nn

from ornstein import EDM, VP, Cosine, Denoiser, Flow, FunctionDenoiser, NetDenoiser, Prediction, Process
from ornstein.core.grids import ends
from ornstein.core.prediction import READINGS
from ornstein.objectives import OBJECTIVES
from ornstein.objectives.regression import TIMES, Regression

F64 = torch.float64
S = 0.7
#: the regressions among them, which have a loss at given times and noise
REGRESSIONS = [name for name, make in OBJECTIVES.items() if isinstance(make(), Regression)]


#: those that draw more after the labels
PROBED = [name for name, make in OBJECTIVES.items() if getattr(make(), "probes", 0)]


def learns_variance(name):
    return getattr(OBJECTIVES[name](), "learns_variance", False)


def data(n=64, seed=0, shape=(3,)):
    g = torch.Generator().manual_seed(seed)
    return S * torch.randn(n, *shape, generator=g, dtype=F64), torch.randn(n, *shape, generator=g, dtype=F64)


@dataclass(frozen=True, eq=False)
class Known(Denoiser):
    """A denoiser from a function of (x, level), with some learned variance for those objectives that want one."""

    function: Callable
    process: Process
    sigma_data: float = S

    def predict(self, x, level, cond):
        return Prediction(self.function(x, level), x, level, torch.full_like(x, 0.4))


def wrong(process):
    """Some denoiser, far from any truth."""
    return Known(lambda x, level: torch.tanh(x) * 0.8 + 0.1, process)


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
def test_each_preset_is_the_papers_loss(name, objective):
    p, loss = PROCESSES[name], OBJECTIVES[objective]()
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


def test_min_snr_in_every_language():
    """Hang et al. 2023 with the v weight min(snr, g)/(snr + 1), not min(snr + 1, g)/(snr + 1)."""
    p, g = VP(), 5.0
    loss = OBJECTIVES["min-snr"](gamma=g)
    x0, eps = data(40)
    for t in interior(p, 9).tolist():
        level = p.at(t)
        snr = math.exp(level.log_snr)
        prediction = wrong(p)(level.noised(x0, eps), t)
        got = loss.loss_at(wrong(p), x0, t, eps, None)
        v = level.alpha * eps - level.sigma * x0
        torch.testing.assert_close(got, (min(snr, g) / (snr + 1) * (prediction.v - v) ** 2).mean(1))
        torch.testing.assert_close(got, (min(snr, g) / snr * (prediction.eps - eps) ** 2).mean(1))


class Spoken(nn.Module):
    """One and the same x0 function with a parameter, put into the language `predicts`."""

    def __init__(self, process, predicts):
        super().__init__()
        self.process, self.predicts = process, predicts
        self.weight = nn.Parameter(torch.tensor([0.3, -0.2, 0.5], dtype=F64))

    def forward(self, scaled, noise_level, cond):
        ratio = noise_level.exp()[:, None]
        y = scaled * (S**2 + ratio**2).sqrt()  # x/alpha
        x0 = torch.tanh(y * self.weight) + 0.2 * self.weight / (1 + ratio)
        level = self.process.at(self.process.time(-2 * noise_level), like=y)
        return Prediction(x0, level.alpha * y, level).read(self.predicts, S)


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if not learns_variance(name)])
@pytest.mark.parametrize("name", ["vp", "sub-vp", "ve", "edm", "ou", "flow", "betas"])
def test_gradients_do_not_know_what_the_network_predicts(name, objective):
    p = Flow(t_max=0.99) if name == "flow" else PROCESSES[name]
    x0, _ = data(32)
    gradients = {}
    for reading in READINGS:
        net = Spoken(p, reading)
        losses = OBJECTIVES[objective]()(NetDenoiser(net, p, reading, S), x0, None, torch.Generator().manual_seed(1))
        losses.mean().backward()
        gradients[reading] = net.weight.grad
    for reading, gradient in gradients.items():
        torch.testing.assert_close(gradient, gradients["x0"], rtol=1e-6, atol=0, msg=lambda m, r=reading: f"{r}: {m}")


DIRECTIONS = [
    lambda x: torch.ones_like(x),
    lambda x: x.flip(1),
    lambda x: torch.sin(3 * x + 1),
]


def slope_and_bend(objective, process, base, direction, x0, seed, theta=3.0):
    """Per sample: half the difference, and the excess of the mean, of the losses at base +- theta direction."""

    def at(theta):
        def answer(x, level):
            return base(x, level) + theta * sized(direction, x, level)

        return objective(Known(answer, process, 1.3), x0, None, torch.Generator().manual_seed(seed))

    up, here, down = at(theta), at(0.0), at(-theta)
    return (up - down) / 2, (up + down) / 2 - here


def sized(direction, x, level):
    """Of bounded size in the units of the noise, at every level."""
    return direction(x / (level.alpha + level.sigma)) / (1 + 1 / level.noise_ratio)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ["vp", "edm", "flow", "betas[cosine]"])
def test_the_exact_denoiser_is_the_minimum(name, objective):
    """On a mixture: the expected slope along any direction is zero, and every step away costs."""
    p, mix, loss = PROCESSES[name], mixture(), OBJECTIVES[objective]()
    n = 4000
    x0 = mix.sample(n, torch.Generator().manual_seed(1002)).double()

    def exact(x, level):
        return mix.posterior_mean(x, level)

    for seed, direction in enumerate(DIRECTIONS):
        slope, bend = slope_and_bend(loss, p, exact, direction, x0, seed)
        assert abs(slope.mean()) < 5 * slope.std() / math.sqrt(n)
        assert bend.mean() > abs(slope.mean())  # the loss is higher on both sides

        # and the same measurement tells a denoiser that is off by as much
        def off(x, level, direction=direction):
            return exact(x, level) + 3 * sized(direction, x, level)

        slope, _ = slope_and_bend(loss, p, off, direction, x0, seed)
        assert slope.mean() > 5 * slope.std() / math.sqrt(n)


@pytest.mark.parametrize("shape", [(2,), (3, 8, 8)])
def test_losses_have_their_closed_form_on_gaussian_data(shape):
    """Data N(0, I) on VP, averaged over elements: comparable across shapes and configurations."""
    n = 120000 // math.prod(shape)
    g = torch.Generator().manual_seed(3)
    x0, eps = torch.randn(2, n, *shape, generator=g, dtype=F64)
    p = VP()
    silent = {reading: NetDenoiser(Silent(), p, reading) for reading in ("eps", "v", "x0", "edm", "velocity")}
    exact = FunctionDenoiser(lambda x, level, cond: level.alpha * x, p)
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
            got = OBJECTIVES[name]().loss_at(denoiser, x0, t, eps, None).mean().item()
            assert got == pytest.approx(value, rel=2 * se), (name, t)


class Silent(nn.Module):
    """A network with zero output, as every network of the house starts."""

    def forward(self, x, noise_level, cond):
        return torch.zeros_like(x)


# ---------------------------------------------------------------------------------------------- times and noise


def kolmogorov(u):
    u = u.sort().values
    n = len(u)
    i = torch.arange(n, dtype=F64)
    return float(torch.maximum(((i + 1) / n - u).max(), (u - i / n).max())) * math.sqrt(n)


@pytest.mark.parametrize("name", PROCESSES)
def test_times_have_their_density(name):
    p, n = PROCESSES[name], 20000
    g = torch.Generator().manual_seed(4)
    low, high = ends(p)
    by_snr = [p.at(t).log_snr for t in (low, high)]

    def drawn(times):
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
def test_stratified_times_are_evenly_spread(times):
    p, n = PROCESSES["betas"], 64
    objective = Regression(times=times, stratified=True)
    t = objective.draw_times(p, n, torch.Generator().manual_seed(5))
    edges = TIMES[times](objective, p, torch.arange(n + 1, dtype=F64) / n, 1.0)
    edges[-1] = max(edges[-1], t[-1])
    low, high = torch.minimum(edges[:-1], edges[1:]), torch.maximum(edges[:-1], edges[1:])
    assert ((t >= low) & (t <= high)).all()
    assert t.unique().numel() > n / 2


def test_stratified_times_lower_the_variance_of_the_loss():
    x0, _ = data(64)
    exact = Known(lambda x, level: level.alpha * S**2 / (level.alpha**2 * S**2 + level.sigma**2) * x, VP())
    spread = {}
    for stratified in (True, False):
        loss = OBJECTIVES["ddpm"](stratified=stratified)
        g = torch.Generator().manual_seed(6)
        spread[stratified] = torch.stack([loss(exact, x0, None, g).mean() for _ in range(300)]).var().item()
    assert spread[True] < 0.8 * spread[False]


class Watch(nn.Module):
    def __init__(self, double=False):
        super().__init__()
        self.double = double

    def forward(self, x, noise_level, cond):
        self.x, self.noise_level, self.cond = x, noise_level, cond
        return torch.cat([x, x], 1) if self.double else x


@pytest.mark.parametrize("objective", REGRESSIONS)
def test_the_network_sees_the_noised_data_that_the_target_belongs_to(objective):
    """What is regressed on is what was put in: x_t = alpha x0 + sigma eps with the same eps and the same t."""
    loss = OBJECTIVES[objective]()
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
def test_labels_are_dropped_at_the_stated_rate(objective):
    n, double = 10000, learns_variance(objective)
    x0 = torch.zeros(n, 1)

    def losses(cond, rate):
        watch = Watch(double)
        denoiser = NetDenoiser(watch, VP(), "v", learns_variance=double)
        return OBJECTIVES[objective](drop_label=rate)(denoiser, x0, cond, torch.Generator().manual_seed(8)), watch.cond

    labels = torch.arange(n) % 10
    bare, nothing = losses(None, 0.5)
    assert nothing is None
    for rate in (0.0, 0.1, 1.0):
        kept, seen = losses(labels, rate)
        gone = seen == -1
        assert seen.dtype == torch.int64
        assert torch.equal(seen[~gone], labels[~gone])
        assert abs(gone.double().mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / n)
        # the noise and the times do not depend on whether there are labels to drop
        assert torch.equal(kept, bare) or objective in PROBED
    _, seen = losses(torch.ones(n, 4), 0.25)
    rows = seen.isnan()
    assert torch.equal(rows.any(1), rows.all(1))  # a sample's features go together
    assert abs(rows.all(1).double().mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / n)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", [*PROCESSES, *ZERO_SNR])
def test_losses_are_finite_reproducible_and_per_sample(name, objective):
    p = {**PROCESSES, **ZERO_SNR}[name]
    loss = OBJECTIVES[objective]()
    x0 = data(32, shape=(2, 4))[0].float()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = loss(wrong(p), x0, None, torch.Generator().manual_seed(10))
    assert first.shape == (32,)
    assert first.dtype == torch.float32
    assert first.isfinite().all()
    assert torch.equal(first, loss(wrong(p), x0, None, torch.Generator().manual_seed(10)))
    assert torch.equal(before, torch.get_rng_state())
    if objective in REGRESSIONS:  # at the very end of the clock too, for one time and for a batch of them
        eps, last = torch.ones_like(x0), torch.full((32,), p.t_max)
        end = loss.loss_at(wrong(p), x0, p.t_max, eps, None)
        assert end.isfinite().all()
        torch.testing.assert_close(end, loss.loss_at(wrong(p), x0, last, eps, None), rtol=1e-4, atol=1e-6)
    # a sample's loss is its own: another sample changed, not this one's
    other = x0.clone()
    other[5] += 1
    changed = loss(wrong(p), other, None, torch.Generator().manual_seed(10))
    assert torch.equal(torch.cat([first[:5], first[6:]]), torch.cat([changed[:5], changed[6:]]))
    assert first[5] != changed[5]


def test_nonsense_is_refused():
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
