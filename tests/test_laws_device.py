"""Laws of devices: everything that computes does so where its data lie, and nothing that repeats waits for the device.

Held on the accelerator that is at hand, and where there is none on a pretend one (`pretend.py`). Each law runs over a
table of the house, does the same on the CPU, and asks for

- *one place*: no operation mixes devices, and the result is the CPU's within float32;
- *no wait*: within a step of a walk or of training the host asks the device for nothing. Where it must, `MAY_WAIT` says
  why.
"""

import copy
import dataclasses
import math
import shutil

import numpy as np
import pytest
import torch
from laws import WAYS, mixture
from pretend import NAME, POSSIBLE, posed, waits
from test_condition import PARTS, SPECS, B
from test_laws_guidance import ARGUMENTS

from ornstein import VP, Condition, EnergyDenoiser, Flow, NetDenoiser, log_likelihood, ranks, sample, trajectory
from ornstein.core.chains import Tabulated
from ornstein.core.exact import Empirical, Gaussian, GaussianMixture, LowRank
from ornstein.core.learner import Problem
from ornstein.distill.grid import best_grid
from ornstein.distill.solver import endpoint_error, fit_endpoint
from ornstein.energies import MaximumLikelihood, Moves, NoiseContrastive, log_partition
from ornstein.experiment.build import load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.learner import LEARNERS
from ornstein.experiment.run import Run
from ornstein.experiment.settle import settle
from ornstein.guidance import GUIDANCE, OPERATORS, Mask, Measurement, RePaint
from ornstein.likelihood import fit_dequantiser
from ornstein.metrics import METRICS, report
from ornstein.nets import MLP, NETS, Label
from ornstein.nets.unet import UNet
from ornstein.samplers import STEPPERS, encode
from ornstein.training import fit

REAL = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None

pytestmark = pytest.mark.skipif(REAL is None and not POSSIBLE, reason="this torch can pose no device")

#: where the host does wait within a step, and why it must
MAY_WAIT: dict[str, str] = {}


@pytest.fixture
def device():
    """The accelerator of this machine, else the pretend one."""
    if REAL is not None:
        exact = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        yield torch.device(REAL.type, 0)
        torch.backends.cudnn.allow_tf32 = exact
        return
    with posed() as there:
        yield there


def no_wait(counted):
    """What was counted is allowed."""
    left = {place: n for place, n in counted.items() if place.partition(": ")[0] not in MAY_WAIT}
    assert not left, left


def close(found, expected, tolerance=1e-3):
    """A result on the device is the CPU's."""
    torch.testing.assert_close(found.detach().cpu(), expected, rtol=tolerance, atol=tolerance)


def generator(device="cpu", seed=0):
    return torch.Generator(device).manual_seed(seed)


def net(shape=(2,), conditions=None, out_multiple=1, config=None):
    """A small network that has learned something, if only noise."""
    made = (config or MLP(width=16, depth=1, embedding=8)).build(shape, conditions, out_multiple)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(seed=5)))
    return made


def frozen(*arguments, **named):
    return net(*arguments, **named).eval().requires_grad_(False)


def moved(thing, device):
    """The same, with every tensor and module in it on the device; denoisers, classifiers, conditions and tuples."""
    if isinstance(thing, torch.nn.Module):
        return copy.deepcopy(thing).to(device)
    if isinstance(thing, torch.Tensor | Condition):
        return thing.to(device)
    if isinstance(thing, GaussianMixture):
        return mixture_on(thing, device)
    if dataclasses.is_dataclass(thing):
        fields = {f.name: moved(getattr(thing, f.name), device) for f in dataclasses.fields(thing) if f.init}
        return dataclasses.replace(thing, **fields)
    return thing


def walked(denoiser, device, stepper, x, **options):
    """The samples, and what was waited for after the walk was prepared."""
    states = trajectory(denoiser, x.shape, stepper=stepper, seed=1, x=x, **options)
    with waits(device) as counted:
        for state in states:
            last = state.x
    return last, counted


@pytest.mark.parametrize("stepper", WAYS, ids=repr)
@pytest.mark.parametrize("process", [VP(), Tabulated.from_betas("linear", 50)], ids=["vp", "betas"])
def test_every_stepper(stepper, process, device):
    there = NetDenoiser(net().to(device).requires_grad_(False), process)
    here = NetDenoiser(frozen(), process)
    x = torch.randn(3, 2, generator=generator())
    last, counted = walked(there, device, stepper, x, steps=4)
    assert last.device == device
    no_wait(counted)
    close(last, walked(here, torch.device("cpu"), stepper, x, steps=4)[0])
