"""Experts: several networks by noise interval are one denoiser, exact at the seams, and as a run begin with another."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sure import Cli

from ornstein.core.clocks import VP
from ornstein.core.condition import Condition
from ornstein.core.denoiser import FunctionDenoiser, NetDenoiser
from ornstein.core.experts import Experts
from ornstein.core.learner import Problem
from ornstein.errors import InputError
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import read_weights
from ornstein.experiment.learner import LEARNERS
from ornstein.experiment.run import Run
from ornstein.experiment.start import going_on
from ornstein.experiment.train import train
from ornstein.nets import NETS, Label
from ornstein.objectives import OBJECTIVES
from ornstein.samplers import sample

PROCESS, CUTS = VP(), (-0.7, 0.7)


def network() -> Any:
    net = NETS["unet"](channels=16, multipliers=(1, 2), blocks=1, attention=()).build((1, 8, 8), {"label": Label(10)})  # type: ignore[call-arg]
    with torch.no_grad():
        dice = torch.Generator().manual_seed(0)
        for parameter in net.parameters():  # a network just built answers nothing but zeros
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=dice))
    return net.eval()


def test_experts_that_share_one_network_are_that_network_bit_for_bit() -> None:
    one = NetDenoiser(network(), PROCESS, "v", 0.7)
    several = Experts((one, one, one), CUTS)
    dice = torch.Generator().manual_seed(1)
    x, labels = torch.randn(32, 1, 8, 8, generator=dice), torch.randint(-1, 10, (32,), generator=dice)
    t = PROCESS.time(-2 * (torch.linspace(-4, 4, 32, dtype=torch.float64) + math.log(0.7)))
    t = t[torch.randperm(32, generator=dice)]
    with torch.no_grad():
        assert torch.equal(several(x, t, labels).x0, one(x, t, labels).x0)
        drawn = [sample(denoiser, (4, 1, 8, 8), steps=8, seed=0, condition=labels[:4]) for denoiser in (several, one)]
    assert torch.equal(*drawn)
    # apart, they answer the same to rounding: a batch of fewer rows is summed in another order
    apart = Experts(tuple(NetDenoiser(one.net, PROCESS, "v", 0.7) for _ in range(3)), CUTS)
    with torch.no_grad():
        assert torch.allclose(apart(x, t, labels).x0, one(x, t, labels).x0, rtol=0, atol=1e-5)
        assert torch.equal(apart(x, 0.5, labels).x0, one(x, 0.5, labels).x0)
    assert (several.unit, several.device, several.gaps) == (one.unit, one.device, one.gaps)


def test_each_level_is_answered_by_the_expert_of_its_interval_and_a_seam_by_the_noisier() -> None:
    def saying(value: float) -> FunctionDenoiser:
        return FunctionDenoiser(lambda x, level, condition: torch.full_like(x, value), PROCESS, 0.5)

    several = Experts((saying(0.0), saying(1.0), saying(2.0)), CUTS)
    places = torch.tensor([-3.0, -0.701, -0.699, 0.0, 0.699, 0.701, 3.0], dtype=torch.float64)
    t = PROCESS.time(-2 * (places + math.log(0.5)))
    x = torch.zeros(7, 2)
    assert several(x, t).x0[:, 0].tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert [float(several(x[:1], float(time)).x0[0, 0]) for time in t] == [0, 0, 1, 1, 1, 2, 2]
    # what rows are given goes with them
    told = FunctionDenoiser(lambda x, level, c: c.parts["number"][:, None].expand_as(x).clone(), PROCESS, 0.5)
    numbers = torch.arange(7.0)
    assert torch.equal(Experts((told,) * 3, CUTS)(x, t, Condition({"number": numbers})).x0[:, 1], numbers)


@pytest.mark.parametrize("cuts", [(), (1.0, 1.0), (math.inf,)])
def test_cuts_rise(cuts: Any) -> None:
    one = FunctionDenoiser(lambda x, level, condition: x, PROCESS)
    with pytest.raises(InputError, match="numbers that rise"):
        Experts((one,) * (len(cuts) + 1), cuts)
    with pytest.raises(InputError, match="numbers that rise"):
        LEARNERS["experts"](Problem(PROCESS, "v", OBJECTIVES["v"](), (2,)), cuts=cuts)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="make 2 intervals, not 1"):
        Experts((one,), (0.0,))


def test_experts_begin_as_copies_of_their_parent_and_each_learns_at_its_own_levels(run: Path, tmp_path: Path) -> None:
    few = ["preset=experts", "training.steps=1", "training.lr=1e-30", "training.batch_size=16", "sampling.preview=0"]
    for _ in train(going_on(run, None, few), tmp_path / "experts", draws=False):
        pass
    opened, parent = Run.load(tmp_path / "experts"), Run.load(run)
    own = read_weights(tmp_path / "experts" / "model.safetensors", tmp_path / "experts")
    teacher = read_weights(run / "ema-0.100.safetensors", run)
    assert len(own) == 3 * len(teacher)
    assert all(torch.equal(own[f"{k}.{name}"], value) for k in range(3) for name, value in teacher.items())
    assert torch.equal(opened.draw(2, seed=0), parent.draw(2, seed=0))
    # a lesson at one level alone moves one expert alone
    opened.model.each[0].net.requires_grad_(True)
    opened.model.each[1].net.requires_grad_(True)
    objective: Any = OBJECTIVES["v"]()
    x0 = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    objective.loss_at(opened.model, x0, torch.full((4,), 0.02), torch.ones_like(x0), None).sum().backward()
    moved = [any(p.grad is not None for p in one.net.parameters()) for one in opened.model.each]
    assert moved == [True, False, False]


def test_experts_are_not_distilled_and_their_cuts_are_checked(run: Path, cli: Cli, tmp_path: Path) -> None:
    asked = Experiment.read("digits", ["preset=experts"])
    assert asked.learner == {"name": "experts", "cuts": (-0.7, 0.7)}
    told = cli("train", "digits", "preset=experts", "learner.cuts=[1,0]", "--out", tmp_path / "x")
    assert told.code == 2
    assert "numbers that rise" in told.err
