"""One energy landscape learned in four ways, each with its constant and the likelihood that follows from it."""

import math
from collections.abc import Callable

import torch
from matplotlib import pyplot as plt
from style import BLUE, GREY, INK, save
from torch import Generator, Tensor

from ornstein import EDM
from ornstein.core.exact import Gaussian, GaussianMixture
from ornstein.energies import (
    EnergyDenoiser,
    MaximumLikelihood,
    Moves,
    NoiseContrastive,
    RecoveryLikelihood,
    log_partition,
)
from ornstein.nets import MLP
from ornstein.objectives import OBJECTIVES

torch.set_num_threads(1)

# two moons of unequal weight, made of Gaussians so that the truth is known, and blurred a little: the level to learn
angle = torch.linspace(0, math.pi, 12)
moons = [torch.stack([angle.cos(), angle.sin()], 1), torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)]
means = torch.cat(moons) - torch.tensor([0.5, 0.25])
truth = GaussianMixture(torch.tensor([0.7] * 12 + [0.3] * 12), means, torch.full((24,), 0.08**2))
process, blur = EDM(t_max=10.0), 0.08
train = truth.sample(5000, Generator().manual_seed(0))


def blurred(x0: Tensor, generator: Generator) -> Tensor:
    return x0 + blur * torch.randn(x0.shape, generator=generator)


held_out = blurred(truth.sample(5000, Generator().manual_seed(1)), Generator().manual_seed(2))
wide = Gaussian(train.mean(0), 1.5 * train.var(0))  # the noise to tell data from, and the start of importance sampling

# the four losses, each (model, data, generator) -> (B,)
regression = OBJECTIVES["edm"](p_mean=-1.0)
likelihood = MaximumLikelihood(Moves(10, 0.004), start="buffer", restart=0.05)
contrast = NoiseContrastive(wide, ratio=4)
recovery = RecoveryLikelihood(steps=6, low=blur, high=4.0, moves=Moves(15, 0.4))
log_z = torch.zeros((), requires_grad=True)
chains = likelihood.buffer(5000, train, Generator().manual_seed(3))


def by_score(model: EnergyDenoiser, x0: Tensor, g: Generator) -> Tensor:
    return regression(model, x0, None, g)


def by_likelihood(model: EnergyDenoiser, x0: Tensor, g: Generator) -> Tensor:
    global chains
    loss, chains, *_ = likelihood(model.energy_at(blur), blurred(x0, g), g, chains)
    return loss


def by_contrast(model: EnergyDenoiser, x0: Tensor, g: Generator) -> Tensor:
    return contrast(model.energy_at(blur), blurred(x0, g), g, log_z)


def by_recovery(model: EnergyDenoiser, x0: Tensor, g: Generator) -> Tensor:
    return recovery(model, x0, None, g)


def learn(loss: Callable[[EnergyDenoiser, Tensor, Generator], Tensor], steps: int) -> EnergyDenoiser:
    model, g = EnergyDenoiser(MLP(64, 2, 32).build((2,)), process, float(train.std())), Generator().manual_seed(4)
    optimiser = torch.optim.Adam([*model.net.parameters(), log_z], lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        x0 = train[torch.randint(len(train), (512,), generator=g)]
        optimiser.zero_grad()
        loss(model, x0, g).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model
