"""Laws of guidance: what every entry of the table keeps, on every stepper, and in every company.

An entry takes the denoiser to guide and, by the names of its fields, what `ARGUMENTS` holds: a new one that uses the
same names is held to every law without a test being edited.
"""

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from laws import constant, cover, mixture, refused
from torch import nn

import ornstein
from ornstein import VP, FunctionDenoiser, NetDenoiser, sample
from ornstein.core.prediction import Prediction
from ornstein.guidance import GUIDANCE, Guidance, Mask, Matrix, Measurement, NoisyClassifier
from ornstein.nets import MLP, Label
from ornstein.samplers import STEPPERS

F64 = torch.float64
PROCESS = VP()
C = torch.tensor([0.4, -0.7])
#: two numbers, the second seen
HALF = Mask(torch.tensor([False, True]))


class Opinions(nn.Module):
    """A classifier of three classes with an opinion."""

    def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
        return torch.stack([x[:, 0], x[:, 1] ** 2 - x[:, 0], x.sum(1)], 1) / (1 + noise_level.exp()[:, None])


class Silent(nn.Module):
    """A classifier without any."""

    def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
        return 0 * x[:, :1].expand(-1, 3)


ARGUMENTS = {
    "measurement": Measurement(HALF, torch.tensor([[0.0, 0.3]], dtype=F64), 0.1),
    "classifier": NoisyClassifier(Opinions(), PROCESS, (1, 1, 1)),
    "weaker": FunctionDenoiser(lambda x, level, condition: 0.3 * x + 0.1, PROCESS),
    "log_likelihood": lambda x, level: -((x - 0.5) ** 2 / (1 + level.sigma * level.sigma)).sum(1),
}
#: such that whatever it is asked of agrees with C
AGREEING = {
    "measurement": Measurement(Matrix(torch.tensor([[1.0, 2.0]])), torch.tensor([[0.4 - 1.4]]), 0.0),
    "classifier": NoisyClassifier(Silent(), PROCESS, (1, 1, 1)),
    "weaker": constant(PROCESS, C),
    "log_likelihood": lambda x, level: 0 * x.sum(1),
}
LABELS = torch.tensor([0, 1, 2, -1])


def guided(name: Any, base: Any, arguments: Any = ARGUMENTS, **options: Any) -> Any:
    """The entry with its fields filled in by name."""
    taken = inspect.signature(GUIDANCE[name]).parameters
    needed = {key: arguments[key] for key in taken if key in arguments}
    return GUIDANCE[name](base, **needed, **options)


def conditional() -> Any:
    """The mixture, by label where there is one."""
    return mixture().denoiser(PROCESS)


def x_at(seed: Any, rows: Any = 4) -> Any:
    return 1.3 * torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("name", GUIDANCE)
def test_every_entry_is_a_denoiser_made_from_one(name: Any) -> None:
    base = conditional()
    g = guided(name, base)
    assert isinstance(g, Guidance)
    assert (g.process, g.sigma_data, g.device) == (base.process, base.sigma_data, base.device)
    x = x_at(0)
    prediction = g(x, 0.4, LABELS)
    assert isinstance(prediction, Prediction)
    assert prediction.xt is x
    assert prediction.x0.dtype == x.dtype
    assert not prediction.x0.requires_grad
    assert not torch.allclose(prediction.x0, base(x, 0.4, LABELS).x0, atol=1e-3)  # it does something
    line = (inspect.getdoc(GUIDANCE[name]) or "").partition("\n")[0]
    assert line.endswith(".")
    assert 10 < len(line) <= 120
    with pytest.raises(dataclasses.FrozenInstanceError):
        g.base = base  # type: ignore[misc]


@pytest.mark.parametrize(("stepper", "name"), cover(STEPPERS, GUIDANCE, each=2))
def test_a_batch_is_its_samples_one_by_one_with_every_stepper(name: Any, stepper: Any) -> None:
    g = guided(name, conditional())
    seeds = (7 << 32) + torch.arange(2)
    condition = LABELS[1:3]
    both = sample(g, (2, 2), stepper=stepper, steps=3, seeds=seeds, condition=condition, dtype=F64)
    assert bool(torch.isfinite(both).all())
    for i in range(2):
        one = sample(
            g, (1, 2), stepper=stepper, steps=3, seeds=seeds[i : i + 1], condition=condition[i : i + 1], dtype=F64
        )
        torch.testing.assert_close(both[i : i + 1], one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", GUIDANCE)
def test_data_that_are_always_c_stay_c(name: Any) -> None:
    """The constant denoiser, guided by what agrees with it: exactly c on every stepper, from any x at any level."""
    g = guided(name, constant(PROCESS, C), AGREEING)
    for t in (1e-3, 0.2, 1.0):
        torch.testing.assert_close(g(x_at(1), t, LABELS).x0, C.to(F64).expand(4, 2), rtol=0, atol=1e-6)
    for stepper in STEPPERS:
        x = sample(g, (4, 2), stepper=stepper, steps=4, seed=0, condition=LABELS)
        torch.testing.assert_close(x, C.expand(4, 2), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", GUIDANCE)
def test_a_level_for_each_sample_is_a_level_for_all(name: Any) -> None:
    g = guided(name, conditional())
    x, t = x_at(2), torch.tensor([0.02, 0.3, 0.6, 0.95], dtype=F64)
    each = g(x, t, LABELS).x0
    for i in range(4):
        one = g(x[i : i + 1], float(t[i]), LABELS[i : i + 1]).x0
        torch.testing.assert_close(each[i : i + 1], one, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [n for n, g in GUIDANCE.items() if "interval" in inspect.signature(g).parameters])
def test_outside_its_interval_it_is_the_base(name: Any) -> None:
    base = conditional()
    condition = None if name == "classifier" else LABELS
    low, high = 0.5, 5.0
    ratio = PROCESS.at(0.4).noise_ratio
    assert low < ratio < high
    g, everywhere = guided(name, base, interval=(low, high)), guided(name, base)
    x = x_at(3)
    for t in (0.01, 1.0):
        assert torch.equal(g(x, t, LABELS).x0, base(x, t, condition).x0)
        assert not torch.equal(everywhere(x, t, LABELS).x0, base(x, t, condition).x0)
    assert torch.equal(g(x, 0.4, LABELS).x0, everywhere(x, 0.4, LABELS).x0)
    times = torch.tensor([0.01, 0.4, 1.0, 0.4], dtype=F64)
    each = g(x, times, LABELS).x0
    expected = torch.where((times == 0.4)[:, None], everywhere(x, times, LABELS).x0, base(x, times, condition).x0)
    torch.testing.assert_close(each, expected, rtol=1e-10, atol=1e-10)
    refused(lambda: guided(name, base, interval=(2.0, 1.0)), "interval=(2.0, 1.0)")
    refused(lambda: guided(name, base, interval=(1.0, 1.0)), "interval=(1.0, 1.0)")


@pytest.mark.parametrize("name", GUIDANCE)
def test_it_works_where_gradients_are_off_and_where_they_are_wanted(name: Any) -> None:
    g = guided(name, conditional())
    x = x_at(4)
    expected = g(x, 0.3, LABELS).x0
    with torch.no_grad():
        assert torch.equal(g(x, 0.3, LABELS).x0, expected)
    with torch.inference_mode():
        assert torch.equal(g(x.clone(), 0.3, LABELS.clone()).x0, expected)
    # through it: against finite differences
    leaf = x.clone().requires_grad_()
    found = torch.autograd.grad(g(leaf, 0.3, LABELS).x0.sum(), leaf)[0]
    h, step = 1e-5, torch.tensor([[1.0, 0.0]], dtype=F64)
    slope = (g(x + h * step, 0.3, LABELS).x0 - g(x - h * step, 0.3, LABELS).x0).sum(1) / (2 * h)
    torch.testing.assert_close(found[:, 0], slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", GUIDANCE)
def test_networks_are_left_as_they_were(name: Any) -> None:
    """No gradient is left in a network, whether or not its weights ask for one."""
    net: Any = MLP(width=16, depth=1).build((2,), {"label": Label(3)})
    torch.nn.init.normal_(net.out.weight, generator=torch.Generator().manual_seed(0))
    g = guided(name, NetDenoiser(net, PROCESS))
    found = g(x_at(5).float(), 0.3, LABELS).x0
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)
    torch.testing.assert_close(g(x_at(5).float(), 0.3, LABELS).x0, found.detach())


@pytest.mark.parametrize("outer", GUIDANCE)
@pytest.mark.parametrize("inner", GUIDANCE)
def test_guidance_can_be_guided(outer: Any, inner: Any) -> None:
    """Any two, one around the other: still each sample for itself."""
    options = {"both": True} if outer == "classifier" else {}  # a classifier keeps the label to itself else
    g = guided(outer, guided(inner, conditional()), **options)
    x, condition = x_at(6, 2), LABELS[1:3]
    both = g(x, 0.3, condition).x0
    assert bool(torch.isfinite(both).all())
    for i in range(2):
        one = g(x[i : i + 1], 0.3, condition[i : i + 1]).x0
        torch.testing.assert_close(both[i : i + 1], one, rtol=1e-8, atol=1e-8)
    assert not torch.allclose(both, conditional()(x, 0.3, condition).x0, atol=1e-4)


@pytest.mark.parametrize("name", GUIDANCE)
def test_it_can_be_read_on_another_clock(name: Any) -> None:
    g = guided(name, conditional())
    flow = ornstein.Flow()
    level = PROCESS.at(0.3)
    other = flow.at(flow.time(level.log_snr))
    x = x_at(7)
    found = g.on(flow)(x * other.alpha / level.alpha, other, LABELS).x0
    torch.testing.assert_close(found, g(x, level, LABELS).x0, rtol=1e-6, atol=1e-6)
