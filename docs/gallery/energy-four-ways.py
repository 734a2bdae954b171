"""One energy landscape learned in four ways, each with its constant and the likelihood that follows from it."""

import math

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from style import BLUE, INK, save

from ornstein import EDM, energies
from ornstein.core.exact import Gaussian, GaussianMixture
from ornstein.nets import MLP
from ornstein.objectives import OBJECTIVES

torch.set_num_threads(1)

# two moons of unequal weight, made of Gaussians so that the truth is known; their density, a little blurred, is learned
angle = torch.linspace(0, math.pi, 12)
moons = [torch.stack([angle.cos(), angle.sin()], 1), torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)]
means = torch.cat(moons) - torch.tensor([0.5, 0.25])
truth = GaussianMixture(torch.tensor([0.7] * 12 + [0.3] * 12), means, torch.full((24,), 0.08**2))
process, blur = EDM(t_max=10.0), 0.08
g = torch.Generator().manual_seed(0)
train, held_out = truth.sample(5000, g), truth.sample(5000, g)
held_out += blur * torch.randn(5000, 2, generator=g)
wide = Gaussian(train.mean(0), 1.5 * train.var(0))  # the noise of noise contrast, and the base of importance sampling

regression = OBJECTIVES["edm"](p_mean=-1.0)
likelihood = energies.MaximumLikelihood(energies.Moves(10, 0.006, adjusted=True), restart=0)
contrast = energies.NoiseContrastive(wide, ratio=4)
recovery = energies.RecoveryLikelihood(steps=6, low=blur, high=4.0, moves=energies.Moves(5, 0.5, 3, adjusted=True))


def learn(way: str, steps: int) -> tuple[energies.EnergyDenoiser, torch.Tensor]:
    """The learned energy, and the log Z that noise contrast learns with it: the same network and optimiser for all."""
    g = torch.Generator().manual_seed(1)
    net = MLP(64, 2, 32).build((2,))
    model = energies.EnergyDenoiser(net, process, float(train.std()))
    chains: torch.Tensor | None = likelihood.buffer(256, train, g)
    log_z = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam([*net.parameters(), log_z], lr=3e-3, betas=(0.0, 0.99))
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
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model, log_z.detach()


figure, axes = plt.subplots(2, 3, figsize=(8.8, 4.7))
level, extent, scores = process.at(blur), (-2.2, 2.2, -1.6, 1.6), axes[1, 2]
at = torch.stack(torch.meshgrid(torch.linspace(-2.2, 2.2, 133), torch.linspace(-1.6, 1.6, 97), indexing="xy"), -1)
at, upper = at.reshape(-1, 2), torch.cdist(at.reshape(-1, 2), means).argmin(1) < 12  # nearer to the upper moon
true = truth.log_prob(held_out, level)


def draw(axis: Axes, title: str, log_p: torch.Tensor, log_z: str) -> None:
    """Draw the landscape, the share of the upper moon in it, and the constant."""
    share = float(log_p.exp()[upper].sum() / log_p.exp().sum())
    axis.imshow(log_p.reshape(97, 133), origin="lower", extent=extent, vmin=-10, vmax=0.5)
    axis.contour(log_p.reshape(97, 133), [-8, -6, -4, -2, 0], extent=extent, colors="w", linewidths=0.4, linestyles="-")
    axis.text(-2.1, -1.5, f"log Z = {log_z}\nupper moon {share:.2f}", color="w", size=8)
    axis.set(title=title, xticks=[], yticks=[])
    print(f"{title}: log Z {log_z}, upper moon {share:.3f}", end=", ")


draw(axes[0, 0], "the truth", truth.log_prob(at, level), "0")
print(f"log p {true.mean():.3f}")
ways = ("denoising score matching", "maximum likelihood", "noise contrast", "recovery likelihood")
for k, (way, steps) in enumerate(zip(ways, (1500, 1000, 1000, 800), strict=True)):
    model, learned = learn(way, steps)
    z = energies.log_partition(model.energy_at(blur), wide, generator=g, chains=1024, levels=60, leapfrogs=2)
    half = z.interval(0.95)[1] - z.value
    with torch.no_grad():
        draw(axes.flat[k + 1], way, -model.energy(at, blur) - z.value, f"{z.value:.2f} ± {half:.2f}")
        log_p = -model.energy(held_out, blur) - z.value
    scores.errorbar(log_p.mean(), -k, xerr=half, fmt="o", ms=5, color=BLUE, capsize=3)
    scores.text(log_p.mean(), 0.15 - k, way, size=8, ha="center")
    print(f"learned with the energy {learned:.3f}, log p {log_p.mean():.3f}, off by {(log_p - true).std():.2f} nats")
scores.axvline(float(true.mean()), color=INK, lw=1)
scores.set(title="log p of held-out data", xlabel="nats; the line is the truth", ylim=(-3.4, 0.6), yticks=[])
scores.set_xticks([-1.25, -1.2, -1.15, -1.1])
scores.set_xlim(-1.27, -1.08)
save(figure)
