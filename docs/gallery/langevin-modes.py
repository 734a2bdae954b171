"""Langevin chains between two distant modes: the weights that they find, plain and annealed."""

import math

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from style import BLUE, GREEN, GREY, INK, PURPLE, RED, save

import ornstein
from ornstein.core.exact import GaussianMixture
from ornstein.core.numerics import Estimate
from ornstein.samplers.langevin import AnnealedLangevin, langevin

torch.set_num_threads(1)
truth = GaussianMixture(torch.tensor([0.2, 0.8]), torch.tensor([[-5.0, -5.0], [5.0, 5.0]]), torch.ones(2))
process = ornstein.Tabulated.from_sigmas(torch.logspace(math.log10(0.1), math.log10(50), 100).tolist())
exact = truth.denoiser(process)  # nothing here is learned, so all errors are the sampler's
CHAINS, CALLS = 5000, (100, 300, 1000, 3000)


def share(x: torch.Tensor) -> Estimate:
    """The share of the chains that are on the small mode's side."""
    return Estimate.of((x.sum(1) < 0).double())


def plain(start: torch.Tensor) -> tuple[list[Estimate], torch.Tensor]:
    """Langevin at the lowest noise, and where it ends."""
    found = []
    for state in langevin(exact.score_at(1), start, steps=CALLS[-1], gamma=0.05, seed=0):
        if state.step in CALLS:
            found.append(share(state.x))
    return found, state.x


def annealed(corrections: int) -> dict[float, torch.Tensor]:
    """Where the chains are after each noise level; 0 is the end."""
    states = ornstein.trajectory(exact, (CHAINS, 2), stepper=AnnealedLangevin(corrections, 0.1), steps=100, seed=1)
    return {state.t: state.x for state in states}


anywhere = 16 * torch.rand(CHAINS, 2, generator=torch.Generator().manual_seed(0)) - 8
scattered, last = plain(anywhere)
left, _ = plain(anywhere / 2 - 5)
runs = [annealed(calls // 100) for calls in CALLS]
curves: dict[str, tuple[list[Estimate], str, str]] = {
    "Langevin from the small mode": (left, GREY, ":"),
    "Langevin from anywhere": (scattered, PURPLE, "--"),
    "annealed Langevin": ([share(run[0.0]) for run in runs], GREEN, "-"),
}
heights = truth.log_prob(torch.tensor([[-5.0, -5.0], [-1.0, -1.0], [0.0, 0.0]]))
print(f"the middle lies {heights[0] - heights[2]:.1f} nats below the small mode")
print(f"share of the small mode, truth 0.2, after {CALLS} score calls")
for name, curve in curves.items():
    print(f"{name:32s}" + "   ".join(f"{e.value:.3f} ± {e.standard_error:.3f}" for e in curve[0]))

figure, axes = plt.subplots(2, 3, figsize=(10, 6.6))


def scatter(axis: Axes, x: torch.Tensor, end: torch.Tensor, title: str, half: float = 10) -> None:
    """Draw some chains, in the colour of the mode in which they end."""
    small = end.sum(1) < 0
    for side, colour in ((small, RED), (~small, BLUE)):
        axis.plot(*x[:1500][side[:1500]].T, ".", ms=3, color=colour, alpha=0.5, mew=0)
    axis.set(title=title, xlim=(-half, half), ylim=(-half, half), aspect="equal", xlabel="x", ylabel="y")
    axis.locator_params(nbins=5)


drawn, found = truth.sample(CHAINS, torch.Generator().manual_seed(2)), scattered[-1]
scatter(axes[0, 0], drawn, drawn, "The truth: 20 % and 80 %")
scatter(axes[0, 1], last, last, f"Langevin: {100 * found.value:.0f} % and {100 - 100 * found.value:.0f} %")
end, found = runs[-1][0.0], curves["annealed Langevin"][0][-1]
scatter(axes[1, 0], runs[-1][70.0], end, "Annealed, at σ = 7.6: undecided", 30)
scatter(axes[1, 1], runs[-1][50.0], end, "At σ = 2.2: nearly decided", 12)
scatter(axes[1, 2], end, end, f"At the end: {100 * found.value:.0f} % and {100 - 100 * found.value:.0f} %")
for (name, (shares, colour, style)), y in zip(curves.items(), (0.93, 0.55, 0.3), strict=True):
    values, errors = [e.value for e in shares], [2 * e.standard_error for e in shares]
    axes[0, 2].errorbar(CALLS, values, errors, color=colour, ls=style, marker="o", ms=4)
    axes[0, 2].text(CALLS[-1], y, name, color=colour, ha="right", va="center", weight="bold", size=9)
axes[0, 2].axhline(0.2, color=INK, lw=1)
axes[0, 2].text(CALLS[0], 0.16, "truth", va="top", size=9)
axes[0, 2].set(title="Share of the small mode", xscale="log", xlabel="score calls per sample", ylim=(0, 1.05))
save(figure)
