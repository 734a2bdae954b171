"""The Ornstein-Uhlenbeck chain with constant and with linear step sizes, forwards and backwards."""

import matplotlib.pyplot as plt
import torch
from style import BLUE, GREEN, GREY, ORANGE, PALE, save

import ornstein
from ornstein import Tabulated
from ornstein.core.exact import GaussianMixture
from ornstein.metrics import METRICS

torch.set_num_threads(1)
TIME, COUNT = 4.0, 50_000  # the sum of all step sizes; samples
STYLES = {"constant": (BLUE, "-"), "large near the data": (ORANGE, "--"), "small near the data": (GREEN, "-.")}
weights, means = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([[-1.3], [0.4], [1.7]])
data = GaussianMixture(weights, means, torch.tensor([0.03, 0.1, 0.01]))


def chains(n: int) -> dict[str, Tabulated]:
    """Three ways to cut the same time into n steps: constant, linearly falling, linearly rising."""
    ramp = torch.linspace(0.1, 1.9, n)
    shapes = (torch.ones(n), ramp.flip(0), ramp)
    return {
        name: Tabulated.euler_ou(gammas=(TIME / n * shape).tolist()) for name, shape in zip(STYLES, shapes, strict=True)
    }


figure, axes = plt.subplot_mosaic(
    [["signal", "noise"], ["constant", "error"], ["large near the data", "error"], ["small near the data", "error"]],
    figsize=(8.6, 6.4),
    height_ratios=[3, 1, 1, 1],
)

# forwards: lines are the marginals in the chain's table, dots are 50,000 particles that follow the recursion from x = 1
g = torch.Generator().manual_seed(0)
for name, chain in chains(20).items():
    colour, line = STYLES[name]
    axes["signal"].plot(chain.alphas, ls=line, color=colour, label=name)
    axes["noise"].plot(chain.sigmas**2, ls=line, color=colour)
    x = torch.ones(COUNT)
    for k in range(20):
        gamma = float(1 - chain.alphas[k + 1] / chain.alphas[k])
        x = (1 - gamma) * x + (2 * gamma) ** 0.5 * torch.randn(COUNT, generator=g)
        if k % 3 == 2:
            axes["signal"].plot(k + 1, x.mean(), "o", ms=4, color=colour)
            axes["noise"].plot(k + 1, x.var(), "o", ms=4, color=colour)
    highest, last = float(chain.sigmas.max() ** 2), float(chain.sigmas[-1] ** 2)
    print(f"20 steps, {name}: sigma_1 {chain.sigmas[1]:.2f}, variance at most {highest:.3f}, at the end {last:.3f}")
axes["signal"].set(title="Forwards: the signal that is left", xlabel="step k", ylabel="mean of $X_k$ given $X_0 = 1$")
axes["noise"].set(title="Forwards: the noise overshoots", xlabel="step k", ylabel="variance of $X_k$ given $X_0$")
axes["noise"].axhline(1, color=GREY, lw=1)
axes["noise"].text(20, 0.98, "the diffusion's own limit", ha="right", va="top", size=9)
axes["signal"].legend(title="step sizes")

# backwards: ancestral sampling with the exact denoiser, so that all errors are the chain's
truth, again = (data.sample(10 * COUNT, torch.Generator().manual_seed(seed)) for seed in (1, 2))
distance = METRICS["sliced-wasserstein"](projections=1, p=1)  # in one dimension this is W_1 itself
at, counts = torch.linspace(-2.2, 2.4, 500)[:, None], (8, 16, 32, 64, 128, 256)
for name in STYLES:
    colour, line = STYLES[name]
    errors = []
    for n in counts:
        x = ornstein.sample(data.denoiser(chains(n)[name]), (COUNT, 1), stepper="ddpm", steps=n, seed=3)
        errors.append(distance(x, truth, g))
        if n == 64:
            axes[name].hist(x[:, 0].numpy(), 92, range=(-2.2, 2.4), density=True, histtype="step", color=colour, lw=1.3)
    axes["error"].loglog(counts, errors, ls=line, marker="o", ms=5, color=colour, label=name)
    axes[name].fill_between(at[:, 0], data.log_prob(at).exp(), color=PALE, zorder=0)
    axes[name].set(yticks=[], xlim=(-2.2, 2.4), ylim=(0, 2.8))
    axes[name].text(2.35, 2.2, name, ha="right", size=9)
    print(f"W1 after {counts} steps, {name}: " + ", ".join(f"{error:.3f}" for error in errors))
floor = distance(again[:COUNT], truth, g)
print(f"W1 of fresh data: {floor:.3f}")
axes["error"].axhline(floor, color=GREY, lw=1)
axes["error"].text(8, floor * 1.06, "fresh data in the samples' place", size=9)
axes["error"].set(title="Backwards: error by number of steps", xlabel="steps", ylabel="$W_1$ distance to the data")
axes["error"].set_xticks(counts, map(str, counts), minor=False)
axes["error"].minorticks_off()
axes["constant"].set_title("Backwards: 64 steps, the data in grey")
for name in ("constant", "large near the data"):
    axes[name].set_xticklabels([])
axes["small near the data"].set_xlabel("x")
save(figure)
