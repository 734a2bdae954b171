"""Energies of all noise levels learned at once: each way is right at the truth and nowhere else."""

import math
from typing import Any

import pytest
import torch
from laws import refused
from torch import nn

from ornstein import VP, Flow, NetDenoiser
from ornstein.core.chains import Tabulated
from ornstein.core.exact import Gaussian, GaussianMixture
from ornstein.energies import ENERGY_OBJECTIVES, EnergyDenoiser, energy_denoiser
from ornstein.nets import MLP, Label

MEANS, VARIANCES, WEIGHTS = torch.tensor([[-1.2], [0.9]]), torch.tensor([0.1, 0.25]), torch.tensor([0.3, 0.7])
MIX = GaussianMixture(WEIGHTS, MEANS, VARIANCES)
LADDER = Tabulated.from_sigmas(sigma_min=0.1, sigma_max=6.4, steps=7)

#: each with chains that leave the energy exactly stationary, so that there is no bias to allow for
EXACT: dict[str, dict[str, Any]] = {
    "recovery": {"corrections": 25, "step_size": 0.4, "adjusted": True},
    "maximum-likelihood": {"corrections": 10, "step_size": 0.4, "adjusted": True, "start": "data"},
    "noise-contrastive": {"ratio": 3},
}


def gen(seed: Any = 0) -> Any:
    return torch.Generator().manual_seed(seed)


def scaled(factor: Any, process: Any = LADDER) -> Any:
    """The mixture's exact energies at all levels, times a factor."""

    def energy(y: Any, u: Any, condition: Any) -> Any:
        v = VARIANCES.to(y) + u[:, None] ** 2
        square = (y[:, None] - MEANS.to(y)).square().sum(2)
        return -factor * (WEIGHTS.to(y).log() - 0.5 * (square / v + v.log())).logsumexp(1)

    return energy_denoiser(energy, process, 1.0)


def call(objective: Any, denoiser: Any, x0: Any, generator: Any, condition: Any = None) -> Any:
    """The loss, with a fresh memory where there is one."""
    memory = objective.memory(denoiser, x0) if hasattr(objective, "memory") else {}
    return objective(denoiser, x0, condition, generator, **({"memory": memory} if memory else {}))


def test_there_is_a_test_of_each() -> None:
    assert set(EXACT) == set(ENERGY_OBJECTIVES)


@pytest.mark.parametrize("process", [LADDER, VP()], ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_the_slope_vanishes_at_the_truth_only(name: Any, process: Any) -> None:
    """The derivative by a factor on the exact energy: zero at 1, and it points back to 1 from both sides."""
    objective = ENERGY_OBJECTIVES[name](**EXACT[name])
    factor = torch.ones((), requires_grad=True)
    slopes = {}
    for value in (0.7, 1.0, 1.4):
        factor.data.fill_(value)
        found = []
        for seed in range(10):
            loss = call(objective, scaled(factor, process), MIX.sample(800, gen(100 + seed)), gen(seed))
            assert loss.shape == (800,)
            found.append(torch.autograd.grad(loss.mean(), factor)[0])
        slopes[value] = (float(torch.stack(found).mean()), float(torch.stack(found).std()) / math.sqrt(10))
    assert abs(slopes[1.0][0]) < 4 * slopes[1.0][1]
    assert slopes[0.7][0] < -4 * slopes[0.7][1]
    assert slopes[1.4][0] > 4 * slopes[1.4][1]


def test_persistent_chains_keep_their_levels_and_settle_there() -> None:
    """Each chain of the memory comes to have the law of its own level, whatever data it is shown."""
    objective: Any = ENERGY_OBJECTIVES["maximum-likelihood"](corrections=10, step_size=0.4, adjusted=True, restart=0.0)
    c = 0.5
    den = energy_denoiser(lambda y, u, condition: 0.5 * (y.square().sum(1) / (c + u**2)), LADDER, 1.0)
    x0 = Gaussian(torch.zeros(1), c).sample(512, gen(1))
    memory = objective.memory(den, x0)
    times, start = memory["times"].clone(), memory["chains"].clone()
    for seed in range(12):
        objective(den, x0, None, gen(seed), memory)
    assert torch.equal(memory["times"], times)
    for k in range(1, 8):
        chains, first = (kept[times == k].flatten() for kept in (memory["chains"], start))
        sigma2 = float(LADDER.sigma(torch.tensor(float(k), dtype=torch.float64))) ** 2
        n = len(chains)
        assert n in (146, 147)
        assert float(first.var()) == pytest.approx(1 + sigma2, rel=4 * math.sqrt(2 / n))
        assert float(chains.var()) == pytest.approx(c + sigma2, rel=4 * math.sqrt(2 / n))


def test_chains_start_afresh_at_their_rate() -> None:
    objective: Any = ENERGY_OBJECTIVES["maximum-likelihood"](corrections=1, step_size=1e-9, chains=2048, restart=0.25)
    den = scaled(1.0, Tabulated.from_sigmas(sigma_min=1e-4, sigma_max=2e-4, steps=2))
    x0 = torch.full((2048, 1), 5.0)
    memory = objective.memory(den, x0)
    objective(den, x0, None, gen(), memory)
    share = float(((memory["chains"] - 5).abs() < 0.01).float().mean())
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 2048))


def test_chains_start_afresh_at_their_own_level() -> None:
    """Every chain restarted beside a datum: it has the noise of the level that it belongs to, not of another."""
    objective: Any = ENERGY_OBJECTIVES["maximum-likelihood"](corrections=1, step_size=1e-12, chains=4096, restart=1.0)
    ladder = Tabulated.from_sigmas(sigma_min=0.01, sigma_max=10.0, steps=4)
    den = scaled(1.0, ladder)
    x0 = torch.full((4096, 1), 50.0)
    memory = objective.memory(den, x0)
    objective(den, x0, None, gen(), memory)
    for k in range(1, 5):
        chains, sigma = memory["chains"][memory["times"] == k].double() - 50, float(ladder.sigmas[k])
        assert float(chains.square().mean().sqrt()) == pytest.approx(sigma, rel=4 / math.sqrt(2 * len(chains)))


def test_ranking_knows_nothing_at_first_and_never_more_than_it_can_tell() -> None:
    """The untrained energy gives log(1 + ratio); the exact one gives less, by the divergence from the noise."""
    x0 = MIX.sample(4000, gen(3))
    s = float(x0.square().mean().sqrt())
    flat = EnergyDenoiser(lambda z, u, condition: torch.zeros(len(z), 1), LADDER, s)
    objective = ENERGY_OBJECTIVES["noise-contrastive"](ratio=7)
    torch.testing.assert_close(objective(flat, x0, None, gen()), torch.full((4000,), math.log(8.0)))
    loss = objective(scaled(1.0), x0, None, gen())
    assert float(loss.mean()) < math.log(8.0) - 0.1


@pytest.mark.parametrize("name", EXACT)
def test_they_draw_from_the_generator_alone_and_reach_the_network(name: Any) -> None:
    net = MLP(width=16, depth=1, embedding=8).build((2,), {"label": Label(3)})
    den = EnergyDenoiser(net, VP(), 1.0)
    x0, labels = torch.randn(6, 2, generator=gen(1)), torch.arange(6) % 3
    objective = ENERGY_OBJECTIVES[name]()
    state = torch.get_rng_state()
    one, two = (call(objective, den, x0, gen(5), labels) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one, two)
    one.mean().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in net.parameters())
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in net.parameters())


def test_an_energy_that_explodes_is_said() -> None:
    wild = energy_denoiser(lambda y, u, condition: 1e9 * torch.sin(1e3 * y).sum(1), LADDER, 1.0)
    x0 = MIX.sample(64, gen())
    learn = ENERGY_OBJECTIVES["maximum-likelihood"](start="data", corrections=2, step_size=1e-6)
    refused(lambda: call(learn, wild, x0, gen()), "left for infinity", "gamma=")
    nothing = energy_denoiser(lambda y, u, condition: y.sum(1) * torch.inf, LADDER, 1.0)
    refused(lambda: call(ENERGY_OBJECTIVES["noise-contrastive"](), nothing, x0, gen()), "not finite", "learning rate")


def test_refusals() -> None:
    make: Any = ENERGY_OBJECTIVES["maximum-likelihood"]
    den = NetDenoiser(nn.Linear(1, 1), Flow())
    x0 = torch.zeros(4, 1)
    for name in EXACT:
        refused(lambda name=name: ENERGY_OBJECTIVES[name](**EXACT[name])(den, x0, None, gen()), "EnergyDenoiser")
    refused(lambda: make(start="dat"), "start='dat'", "data")
    refused(lambda: make(restart=2.0), "restart=2.0")
    refused(lambda: make(step_size=2.5), "step_size=2.5", "(0, 2)")
    refused(lambda: make(chains=0), "chains=0")
    refused(lambda: make(penalty=-1.0), "penalty=-1.0")
    refused(lambda: make(chains=2).memory(scaled(1.0), x0), "chains=2", "batch of 4")
    refused(lambda: make()(scaled(1.0), x0, None, gen()), "start='chains'", "memory")
    refused(lambda: ENERGY_OBJECTIVES["noise-contrastive"](ratio=0), "ratio=0")
