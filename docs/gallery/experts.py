"""One network for all noise levels, or three that divide them: their errors, level by level."""

import copy
import math
import time

import torch
from matplotlib import pyplot as plt
from style import BLUE, GREEN, GREY, INK, ORANGE, PALE, save

import ornstein
from ornstein.core.denoiser import Denoiser, NetDenoiser
from ornstein.core.exact import GaussianMixture
from ornstein.core.experts import Experts
from ornstein.nets import MLP
from ornstein.objectives import OBJECTIVES

torch.set_num_threads(1)
CUTS, BATCH, PARENT, MORE = (-1.5, 0.5), 256, 1500, 3000

# data of two scales: five rings of five narrow clusters, whose exact denoiser is known
turn = 2 * math.pi * torch.arange(5) / 5
ring = torch.stack([turn.cos(), turn.sin()], 1)
means = (ring[:, None] + 0.16 * ring).reshape(25, 2)
data = GaussianMixture(torch.ones(25), means, torch.full((25,), 0.015**2))
process, scale = ornstein.VP(), float(data.sample(10_000, torch.Generator().manual_seed(9)).std())
exact = data.denoiser(process)


def one(net: torch.nn.Module) -> NetDenoiser:
    """A network as a denoiser."""
    return NetDenoiser(net, process, "edm", scale)


def taught(denoiser: Denoiser, nets: torch.nn.ModuleList, steps: int, lr: float) -> tuple[Denoiser, float]:
    """The same after further training, with weights averaged at the end, and the processor seconds that it took."""
    dice, objective = torch.Generator().manual_seed(steps), OBJECTIVES["edm"](p_std=1.8)
    mean = copy.deepcopy(nets)
    optimiser = torch.optim.Adam(nets.parameters(), lr=lr, fused=True)
    began = time.process_time()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = objective(denoiser, data.sample(BATCH, dice), None, dice).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            keep = min(0.998, step / (step + 10))
            for averaged, now in zip(mean.parameters(), nets.parameters(), strict=True):
                averaged.lerp_(now, 1 - keep)
    nets.load_state_dict(mean.state_dict())
    return denoiser, time.process_time() - began


parent = torch.nn.ModuleList([MLP(width=48, depth=2, embedding=32).build((2,))])
_, first = taught(one(parent[0]), parent, PARENT, 4e-3)
alike, longer, three = (torch.nn.ModuleList(copy.deepcopy(parent[0]) for _ in range(n)) for n in (1, 1, 3))
shown: dict[str, Denoiser] = {"parent": one(parent[0])}
shown["one, as many steps"], same = taught(one(alike[0]), alike, MORE, 2e-3)
# with networks as small as these, a step of three takes half as long again
shown["one, as much time"], long = taught(one(longer[0]), longer, 3 * MORE // 2, 2e-3)
shown["three experts"], split = taught(Experts(tuple(map(one, three)), CUTS), three, MORE, 2e-3)
print(f"seconds of a processor: parent {first:.0f}; then one {same:.0f} or {long:.0f}, three {split:.0f}")

# the squared distance to the exact denoiser's answer, as a share of the variance that is left at that level
places = torch.linspace(-4.5, 2.5, 57)
x0 = data.sample(4000, torch.Generator().manual_seed(5))
eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(6))
curves: dict[str, list[float]] = {name: [] for name in shown}
with torch.no_grad():
    for place in places.tolist():
        level = process.at(process.time(-2 * (place + math.log(scale))))
        x = level.noised(x0, eps)
        truth = exact(x, level).x0
        unit = scale**2 * level.noise_ratio**2 / (scale**2 + level.noise_ratio**2)
        for name, denoiser in shown.items():
            curves[name].append(float((denoiser(x, level).x0 - truth).square().mean()) / unit)

figure, axes = plt.subplot_mosaic([["error"] * 4, [*shown]], figsize=(9.6, 6.2), height_ratios=(1.5, 1))
looks = dict(zip(shown, ((GREY, ":"), (BLUE, "--"), (GREEN, "-."), (ORANGE, "-")), strict=True))
for name, curve in curves.items():
    axes["error"].semilogy(places, curve, color=looks[name][0], ls=looks[name][1], label=name)
    print(f"{name}: mean excess error {sum(curve) / len(curve):.5f}; by interval", end=" ")
    for low, high in zip((-math.inf, *CUTS), (*CUTS, math.inf), strict=True):
        part = [error for place, error in zip(places.tolist(), curve, strict=True) if low <= place < high]
        print(f"{sum(part) / len(part):.5f}", end=" ")
    print()
for cut in CUTS:
    axes["error"].axvline(cut, color=INK, lw=0.8)
axes["error"].set(title="Squared error beside the exact answer", xlabel="log sigma/(alpha s): from data to noise")
axes["error"].legend()
for name, denoiser in shown.items():
    drawn = ornstein.sample(denoiser, (3000, 2), steps=40, seed=0)
    off = (drawn[:, None] - means).square().sum(2).amin(1).sqrt()
    print(f"{name}: {float((off > 0.06).float().mean()):.2%} of the samples lie four deviations from any cluster")
    axes[name].plot(*means.T, "o", ms=7, color=PALE)
    axes[name].plot(*drawn.T, ",", color=looks[name][0])
    axes[name].set(title=name, xticks=[], yticks=[], aspect="equal", xlim=(-1.5, 1.5), ylim=(-1.5, 1.5))
save(figure)
