"""Watson's dynamic programme: the K noise levels with the best variational bound, against evenly spaced ones."""

import torch
from matplotlib import pyplot as plt
from style import COLOURS, INK, LINES, PALE, save

from ornstein import VP
from ornstein.core.exact import GaussianMixture
from ornstein.core.grids import times
from ornstein.distill.grid import best_grid
from ornstein.objectives.measured import step_costs, x0_errors

torch.set_num_threads(1)
COUNTS, SHOWN = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128), 12

# data of three scales: four clusters of four Gaussian clusters
corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
means = (corners[:, None] + 0.08 * corners).reshape(16, 2)
data = GaussianMixture(torch.ones(16), means, torch.full((16,), 0.008**2))
process, g = VP(), torch.Generator().manual_seed(0)
denoiser = data.denoiser(process)  # exact, so that any loss is the grid's

# one pass over 400 levels gives the cost of every step between two of them; chosen on one sample, scored on another
known, unseen = data.sample(2000, g), data.sample(2000, g)
chosen_by = step_costs(process, x0_errors(denoiser, known, steps=400, grid="logsnr", seed=0))
errors = x0_errors(denoiser, unseen, steps=400, grid="logsnr", seed=1)
costs = step_costs(process, errors)
entropy = -float(data.log_prob(unseen).mean())
log_snr = process.log_snr(errors.times[:-1])


def grid(name: str, steps: int) -> torch.Tensor:
    """The levels of the table that a grid visits: Watson's, or those nearest to an even grid."""
    if name == "Watson":
        return best_grid(chosen_by, steps)[0]
    nearest: torch.Tensor = (errors.times - times(process, steps, name)[:, None]).abs().argmin(1).unique()
    return nearest


def loss(levels: torch.Tensor) -> float:
    """How far the bound of the chain through these levels lies above -log p, nats."""
    return float(costs[levels[0], levels[0]] + costs[levels[:-1], levels[1:]].sum()) - entropy


NAMES = ("Watson", "logsnr", "karras", "flow", "quadratic", "uniform")
style = {name: {"color": c, "ls": line} for name, c, line in zip(NAMES, COLOURS, LINES, strict=True)}
figure, axes = plt.subplot_mosaic([["logsnr", "loss"], ["Watson", "where"]], figsize=(9.6, 6.4))

# what there is to learn at each noise level; the cost of a step is that of its noisy end times its length
price = 0.5 * errors.error * log_snr.exp()
for name in ("logsnr", "Watson"):
    levels = grid(name, SHOWN)[:-1]
    which = torch.bucketize(torch.arange(400), levels, right=True) - 1
    paid = 0.5 * errors.error[levels[which]] * log_snr.exp()
    axes[name].fill_between(log_snr, price, paid.where(log_snr <= log_snr[levels[-1]], price), color=PALE)
    axes[name].plot(log_snr[: levels[-1]], paid[: levels[-1]], color=style[name]["color"], lw=1.2)
    axes[name].plot(log_snr, price, color=INK)
    lost = f"{loss(grid(name, SHOWN)):.1f} nats lost"
    axes[name].set(ylim=(0, 2.6), ylabel="nats per unit of log-SNR", xlabel="log-SNR: from noise to data")
    axes[name].set_title(f"{SHOWN} steps even in log-SNR: {lost}" if name == "logsnr" else f"Watson's {SHOWN}: {lost}")
inset = axes["Watson"].inset_axes((0.06, 0.4, 0.34, 0.46))
inset.plot(*unseen.T, ",", color=INK)
inset.set_title("the data", size=9, loc="center")
inset.set(xticks=[], yticks=[], xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")

# the loss by number of steps, and where the steps fall
for name in NAMES:
    losses = [loss(grid(name, steps)) for steps in COUNTS]
    axes["loss"].loglog(COUNTS, losses, marker="o", ms=4, label=name, **style[name])
    print(f"{name}: " + ", ".join(f"{steps} steps {value:.2f}" for steps, value in zip(COUNTS, losses, strict=True)))
axes["loss"].set(title="The bound above $-$log p", xlabel="steps K", ylabel="nats", ylim=(0.1, 60))
axes["loss"].set_xticks([4, 8, 16, 32, 64, 128], ["4", "8", "16", "32", "64", "128"])
axes["loss"].minorticks_off()
axes["loss"].legend()
rows = [("Watson", 48), ("Watson", 24), *((name, SHOWN) for name in NAMES)]
for height, (name, steps) in enumerate(rows):
    at = log_snr[grid(name, steps)[:-1]]
    axes["where"].plot(at, torch.full_like(at, -height), "|", ms=11, mew=1.6, color=style[name]["color"])
axes["where"].set_yticks([-k for k in range(len(rows))], [f"{name}, {steps}" for name, steps in rows])
axes["where"].set(title="Where the steps fall", xlabel="log-SNR: from noise to data", xlim=axes["Watson"].get_xlim())
print(f"entropy of the data {entropy:.3f} nats; Watson's {SHOWN} levels at log-SNR", end=" ")
print(", ".join(f"{x:.1f}" for x in log_snr[grid("Watson", SHOWN)[:-1]].tolist()))
save(figure)
