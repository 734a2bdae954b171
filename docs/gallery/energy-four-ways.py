"""One energy landscape learned in four ways, each with its constant and the likelihood that follows from it."""

import math
from dataclasses import replace

import torch
from matplotlib import pyplot as plt
from style import BLUE, INK, save
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ornstein import EDM, energies
from ornstein.core.exact import Gaussian, GaussianMixture
from ornstein.nets import MLP
from ornstein.objectives import OBJECTIVES

torch.set_num_threads(1)

# two moons of unequal weight, made of Gaussians so that the truth is known; to learn: their density, a little blurred
angle = torch.linspace(0, math.pi, 12)
moons = [torch.stack([angle.cos(), angle.sin()], 1), torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)]
means = torch.cat(moons) - torch.tensor([0.5, 0.25])
truth = GaussianMixture(torch.tensor([0.7] * 12 + [0.3] * 12), means, torch.full((24,), 0.08**2))
process, blur = EDM(t_max=10.0), 0.08
g = torch.Generator().manual_seed(0)
train, held_out = truth.sample(5000, g), truth.sample(5000, g)
held_out += blur * torch.randn(5000, 2, generator=g)
wide = Gaussian(train.mean(0), 1.5 * train.var(0))  # what data are told from, and where importance sampling starts

regression = OBJECTIVES["edm"](p_mean=-1.0)
likelihood = energies.MaximumLikelihood(energies.Moves(5, 0.006, adjusted=True), restart=0.02)
contrast = energies.NoiseContrastive(wide, ratio=4)
recovery = energies.RecoveryLikelihood(steps=6, low=blur, high=4.0, moves=energies.Moves(8, 0.5, adjusted=True))


def learn(way: str, steps: int) -> tuple[energies.EnergyDenoiser, torch.Tensor]:
    """The learned energy, and the log Z that noise contrast learns beside it: one network and optimiser for all."""
    g = torch.Generator().manual_seed(1)
    model = energies.EnergyDenoiser(MLP(64, 2, 32).build((2,)), process, float(train.std()))
    chains, log_z = likelihood.buffer(1000, train, g), torch.zeros((), requires_grad=True)
    average = AveragedModel(model.net, multi_avg_fn=get_ema_multi_avg_fn(0.98))
    optimiser = torch.optim.Adam([*model.net.parameters(), log_z], lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        x0 = train[torch.randint(len(train), (256,), generator=g)]
        x, energy = x0 + blur * torch.randn(x0.shape, generator=g), model.energy_at(blur)
        if way == "denoising score matching":
            loss = regression(model, x0, None, g)
        elif way == "maximum likelihood":
            loss, chains, *_ = likelihood(energy, x, g, chains)
        elif way == "noise contrast":
            loss = contrast(energy, x, g, log_z)
        else:
            loss = recovery(model, x0, None, g)
        optimiser.zero_grad()
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(model.net)
    return replace(model, net=average.module), log_z.detach()


figure, axes = plt.subplots(2, 3, figsize=(9.6, 5.2))
at = torch.stack(torch.meshgrid(torch.linspace(-2.2, 2.2, 133), torch.linspace(-1.6, 1.6, 97), indexing="xy"), -1)
at, upper = at.reshape(-1, 2), torch.cdist(at.reshape(-1, 2), means).argmin(1) < 12  # nearer to the upper moon


def draw(axis: plt.Axes, title: str, log_p: torch.Tensor) -> float:
    """The landscape, and the share of the upper moon in it."""
    extent = (-2.2, 2.2, -1.6, 1.6)
    axis.imshow(log_p.reshape(97, 133), origin="lower", extent=extent, vmin=-10, vmax=0.5)
    axis.contour(log_p.reshape(97, 133), [-8, -6, -4, -2, 0], extent=extent, colors="w", linewidths=0.4)
    axis.set(title=title, xticks=[], yticks=[])
    axis.grid(False)
    return float(log_p.exp()[upper].sum() / log_p.exp().sum())


level, scores = process.at(blur), axes[1, 2]
true, share = truth.log_prob(held_out, level), draw(axes[0, 0], "the truth", truth.log_prob(at, level))
print(f"truth: log p {true.mean():.3f}, upper moon {share:.3f}")
ways = {
    "denoising score matching": 1500,
    "maximum likelihood": 1200,
    "noise contrast": 1000,
    "recovery likelihood": 1000,
}
for k, (way, steps) in enumerate(ways.items()):
    model, learned = learn(way, steps)
    z = energies.log_partition(model.energy_at(blur), wide, generator=g, chains=2000, levels=60, leapfrogs=2)
    with torch.no_grad():
        share = draw(axes.flat[k + 1], way, -model.energy(at, blur) - z.value)
        log_p = -model.energy(held_out, blur) - z.value
    low, high = z.interval(0.95)
    scores.errorbar(log_p.mean(), -k, xerr=(high - low) / 2, fmt="o", ms=5, color=BLUE, capsize=3)
    print(f"{way}: log Z {z.value:.3f} in [{low:.3f}, {high:.3f}] (learned: {learned:.3f}), ", end="")
    print(f"log p {log_p.mean():.3f}, off by {(log_p - true).std():.2f}, upper moon {share:.3f}")
scores.axvline(float(true.mean()), color=INK, lw=1)
scores.set_yticks([-k for k in range(4)], [way.replace(" ", "\n", 1) for way in ways], size=8)
scores.set(title="log p of held-out data", xlabel="nats; the line is the truth", ylim=(-3.5, 0.5))
save(figure)
