"""Averages of the weights: closed forms, and other lengths made from snapshots."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ornstein.errors import InputError
from ornstein.training import Training
from ornstein.training.ema import (
    LONGEST,
    PowerEMA,
    average_file,
    combination,
    inner_product,
    power,
    reconstruct,
    snapshot,
    snapshots,
)

LENGTHS = (0.03, 0.05, 0.10, 0.20)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Nets this small are slower on two, by far so when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def walk(net: nn.Module, steps: int, seed: int = 0) -> Any:
    """Move the parameters at random, and yield after each move."""
    g = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.05 * torch.randn(p.shape, generator=g, dtype=p.dtype))
        yield step


def flat(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([state[name].flatten().double() for name in sorted(state)])


@pytest.mark.parametrize("length", [0.005, 0.01, 0.05, 0.10, 0.20, 0.25, LONGEST])
def test_power_inverts_the_definition_of_the_relative_width(length: Any) -> None:
    gamma = power(length)
    assert gamma >= -1e-12
    assert math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) == pytest.approx(length, rel=1e-9)


def test_power_is_the_standard_deviation_of_the_profile_measured() -> None:
    gamma = power(0.10)
    tau = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    p = (gamma + 1) * tau**gamma / 200_000
    mean = (p * tau).sum()
    assert p.sum() == pytest.approx(1, abs=1e-8)
    assert (p * (tau - mean) ** 2).sum().sqrt() == pytest.approx(0.10, abs=1e-7)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.3, math.nan])
def test_power_refuses_a_length_that_no_profile_has(length: Any) -> None:
    with pytest.raises(InputError, match="ema length"):
        power(length)


@pytest.mark.parametrize("length", LENGTHS)
def test_average_is_the_closed_form_weighted_sum(length: Any) -> None:
    net = nn.Linear(3, 2).double()
    ema = PowerEMA(net, [length])
    history = []
    for t in walk(net, 57):
        ema.update(t)
        history.append(flat(net.state_dict()))
        i = torch.arange(t + 1, dtype=torch.float64)
        weights = ((i / t) ** (power(length) + 1)).diff()
        assert weights.sum() == pytest.approx(1, abs=1e-14)
        torch.testing.assert_close(flat(ema.state(length)), weights @ torch.stack(history), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [0.10, 0.20])
def test_a_wide_average_takes_in_every_fourth_weights_for_all_four(length: Any) -> None:
    """The profile is the closed form's, in steps of four; smooth weights come out as if all had been taken in."""
    net = nn.Linear(1, 1).double()
    ema = PowerEMA(net, [length])
    start, seen, ends = math.ceil(10 / length) * 4, [], [0]
    for t in range(1, 1001):
        nn.init.constant_(net.weight, math.sin(t / 100))
        ema.update(t)
        seen.append(math.sin(t / 100))
        if t <= start or t % 4 == 0:
            ends.append(t)
    edges = torch.tensor(ends, dtype=torch.float64)
    weights = ((edges / 1000) ** (power(length) + 1)).diff()
    taken = torch.tensor(seen, dtype=torch.float64)[edges[1:].long() - 1]
    found = float(ema.state(length)["weight"])
    assert found == pytest.approx(float(weights @ taken), abs=1e-12)
    all_edges = torch.arange(1001, dtype=torch.float64)
    all_taken = ((all_edges / 1000) ** (power(length) + 1)).diff() @ torch.tensor(seen, dtype=torch.float64)
    # 1.5 steps later on average, along a sine that turns by 0.01 a step
    assert abs(found - float(all_taken)) < 0.015


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.999])
def test_an_average_of_constant_rate_is_its_closed_form(kept: Any) -> None:
    """sum m (1 - m)^(t - i) theta_i over the sum of its weights: the initial weights have none."""
    net = nn.Linear(3, 2).double()
    ema = PowerEMA(net, (0.05, kept))
    seen, steps = [], 60
    for t in walk(net, steps):
        ema.update(t)
        seen.append(flat(net.state_dict()))
        shares = torch.tensor([(1 - kept) * kept ** (t - i) for i in range(1, t + 1)], dtype=torch.float64)
        wanted = (shares[:, None] * torch.stack(seen)).sum(0) / (1 - kept**t)
        torch.testing.assert_close(flat(ema.state(kept)), wanted, rtol=1e-12, atol=1e-12)
    # and once the beginning is forgotten it is theta' <- (1 - m) theta' + m theta
    if kept < 0.9:
        before = flat(ema.state(kept))
        for t in walk(net, 1, seed=1):
            ema.update(steps + t)
        after = kept * before + (1 - kept) * flat(net.state_dict())
        torch.testing.assert_close(flat(ema.state(kept)), after, rtol=1e-9, atol=1e-9)


def test_constant_rates_have_files_of_their_own_and_are_made_by_training_alone(tmp_path: Path) -> None:
    assert [average_file(s) for s in (0.05, 0.9999, 0.99995)] == [
        "ema-0.050.safetensors", "ema-0.9999.safetensors", "ema-0.99995.safetensors",
    ]  # fmt: skip
    assert Training(ema=(0.05, 0.9999)).ema == (0.05, 0.9999)
    for wrong in ((0.3,), (1.0,), (0.4,), (0.9999, 0.9999)):
        with pytest.raises(InputError, match=r"ema.*constant rates"):
            Training(ema=wrong)
    with pytest.raises(InputError, match=r"ema=1\.0"):
        PowerEMA(nn.Linear(1, 1), (1.0,))
    net = nn.Linear(3, 2)
    ema = PowerEMA(net, (0.9, 0.05, 0.10))
    for t in walk(net, 40):
        ema.update(t)
        if t % 20 == 0:
            snapshot(tmp_path, ema, t, t)
    with pytest.raises(InputError, match=r"constant rate.*training\.ema"):
        reconstruct(tmp_path, 0.99)
    # lengths are made of lengths
    made = reconstruct(tmp_path, 0.10)
    torch.testing.assert_close(flat(made), flat(ema.state(0.10)), rtol=2e-3, atol=2e-3)


def test_first_average_is_the_first_weights_whatever_the_initial_ones_were() -> None:
    net = nn.Linear(3, 2)
    nn.init.constant_(net.weight, 1e30)
    ema = PowerEMA(net, LENGTHS)
    nn.init.normal_(net.weight)
    ema.update(1)
    for length in LENGTHS:
        assert all(torch.equal(v, net.state_dict()[name]) for name, v in ema.state(length).items())


def test_longest_average_is_the_plain_mean() -> None:
    net = nn.Linear(3, 2).double()
    ema = PowerEMA(net, [LONGEST])
    history = [(ema.update(t), flat(net.state_dict()))[1] for t in walk(net, 40)]
    torch.testing.assert_close(flat(ema.state(LONGEST)), torch.stack(history).mean(0), rtol=0, atol=1e-12)


def test_buffers_and_frozen_parameters_are_the_live_ones_and_tied_weights_stay_tied() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 4))
    net[2].requires_grad_(False)
    net[3].weight = net[0].weight
    ema = PowerEMA(net, [0.10])
    for t in walk(net, 5):
        net(torch.randn(8, 4, generator=torch.Generator().manual_seed(t)))
        ema.update(t)
    state, live = ema.state(0.10), net.state_dict()
    assert state.keys() == live.keys()
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked", "2.weight", "2.bias"):
        assert torch.equal(state[name], live[name])
    assert torch.equal(state["0.weight"], state["3.weight"])
    assert not torch.equal(state["0.weight"], live["0.weight"])


def test_averages_of_low_precision_weights_are_kept_in_float32() -> None:
    net = nn.Linear(4, 4).bfloat16()
    ema = PowerEMA(net, [0.05])
    for t in walk(net, 3):
        ema.update(t)
    assert {v.dtype for v in ema.state(0.05).values()} == {torch.float32}


def test_copy_to_fills_a_copy_and_refuses_the_live_network() -> None:
    net, copy = nn.Linear(4, 4), nn.Linear(4, 4)
    ema = PowerEMA(net, [0.05])
    for t in walk(net, 3):
        ema.update(t)
    ema.copy_to(copy, 0.05)
    assert torch.equal(flat(copy.state_dict()), flat(ema.state(0.05)))
    with pytest.raises(InputError, match="must not overwrite"):
        ema.copy_to(net, 0.05)
    with pytest.raises(InputError, match="not tracked"):
        ema.copy_to(copy, 0.06)


@pytest.mark.parametrize(("t_a", "s_a", "t_b", "s_b"), [(3, 0.1, 3, 0.1), (2, 0.05, 3, 0.2), (5, 0.2, 1.5, 0.1)])
def test_inner_product_is_the_integral(t_a: Any, s_a: Any, t_b: Any, s_b: Any) -> None:
    a, b = power(s_a), power(s_b)
    end, n = min(t_a, t_b), 400_000
    tau = (torch.arange(n, dtype=torch.float64) + 0.5) * end / n
    integral = ((a + 1) * tau**a / t_a ** (a + 1) * (b + 1) * tau**b / t_b ** (b + 1)).sum() * end / n
    assert inner_product(t_a, a, t_b, b) == pytest.approx(float(integral), rel=1e-7)


STORED = [(t, length) for t in range(100, 2001, 100) for length in (0.05, 0.10)]


@pytest.mark.parametrize("index", [0, 7, 38, 39])
def test_combination_for_a_stored_average_picks_it_alone(index: Any) -> None:
    x, error = combination(STORED, STORED[index])
    expected = [float(i == index) for i in range(len(STORED))]
    assert x == pytest.approx(expected, abs=1e-6)
    assert error < 1e-6


@pytest.mark.parametrize("length", [0.03, 0.04, 0.07, 0.15, 0.20])
def test_coefficients_sum_to_one(length: Any) -> None:
    assert sum(combination(STORED, (2000, length))[0]) == pytest.approx(1, abs=1e-9)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder of snapshots of two lengths, and the averages of more lengths tracked directly."""
    folder = tmp_path_factory.mktemp("history")
    net = nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20))
    stored, direct = PowerEMA(net, (0.05, 0.10)), PowerEMA(net, (0.04, 0.05, 0.07, 0.10, 0.15, 0.20))
    at_1000 = {}
    for t in walk(net, 2000):
        stored.update(t)
        direct.update(t)
        if t % 100 == 0:
            snapshot(folder, stored, t, t)
        if t == 1000:
            at_1000 = {name: v.clone() for name, v in direct.state(0.07).items()}
    return folder, net, direct, at_1000


def departure(made: Any, tracked: Any, live: Any) -> float:
    """How far `made` is from `tracked`, in units of the distance that averaging moved the weights."""
    return float((flat(made) - flat(tracked)).norm() / (flat(live) - flat(tracked)).norm())


@pytest.mark.parametrize("length", [0.05, 0.10])
def test_reconstruction_of_a_stored_length_is_the_stored_average(history: Any, length: Any) -> None:
    folder, _, direct, _ = history
    made = reconstruct(folder, length)
    for name, tracked in direct.state(length).items():
        if tracked.dtype.is_floating_point:  # half precision has 11 bits
            torch.testing.assert_close(made[name], tracked, rtol=2**-11, atol=1e-5)


# A random walk is the hardest case, being rough at every scale. Measured: 0.5 %, 0.09 %, 0.06 %, 0.2 %.
@pytest.mark.parametrize(("length", "bound"), [(0.04, 0.01), (0.07, 0.003), (0.15, 0.003), (0.20, 0.006)])
def test_reconstruction_of_another_length_agrees_with_tracking_it(history: Any, length: Any, bound: Any) -> None:
    folder, net, direct, _ = history
    made, tracked = reconstruct(folder, length), direct.state(length)
    assert departure(made, tracked, net.state_dict()) < bound
    assert made["1.num_batches_tracked"].dtype == torch.int64
    nearest = min(departure(direct.state(other), tracked, net.state_dict()) for other in (0.05, 0.10))
    assert nearest > 10 * bound  # the stored lengths themselves are far off


def test_reconstruction_can_end_at_an_earlier_snapshot(history: Any) -> None:
    folder, net, _, at_1000 = history
    assert departure(reconstruct(folder, 0.07, step=1000), at_1000, net.state_dict()) < 0.003


def test_reconstruction_leaves_weights_that_stood_still_as_they_are(tmp_path: Path) -> None:
    net = nn.Linear(5, 5)
    ema = PowerEMA(net, (0.05, 0.10))
    for t in range(1, 801):
        ema.update(t)
        if t % 100 == 0:
            snapshot(tmp_path, ema, t, t)
    half = {name: v.half().float() for name, v in net.state_dict().items()}
    for length in (0.05, 0.07, 0.15):
        torch.testing.assert_close(flat(reconstruct(tmp_path, length)), flat(half), rtol=0, atol=1e-6)


def test_reconstruction_refuses_what_the_snapshots_cannot_make(history: Any, tmp_path: Path) -> None:
    folder = history[0]
    with pytest.raises(InputError, match="holds no snapshots"):
        reconstruct(tmp_path, 0.05)
    with pytest.raises(InputError, match="step=150 has no snapshot"):
        reconstruct(folder, 0.05, step=150)
    with pytest.raises(InputError, match="cannot be made"):
        reconstruct(folder, 0.005)
    with pytest.raises(InputError, match="ema length"):
        reconstruct(folder, 0.4)


def test_snapshots_are_half_precision_and_know_their_place(history: Any) -> None:
    from safetensors.torch import load_file

    found = snapshots(history[0])
    assert [(s.step, s.t, s.length) for s in found] == [(t, t, length) for t, length in STORED]
    dtypes = {name: v.dtype for name, v in load_file(found[0].path).items()}
    assert dtypes["0.weight"] == torch.float16
    assert dtypes["1.running_mean"] == torch.float32
