"""A noising process of your own, as a plug-in: two functions, one line to register it, and it works everywhere.

    python examples/own_process.py
    python -m ornstein.laws own_process          # run in examples/: tests every law that a process must satisfy

It draws own_process.png.
"""

import os
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import ornstein
from ornstein.core.exact import GaussianMixture

STEPS = int(os.environ.get("STEPS", "3000"))

# %% [markdown]
# A process is alpha(t), sigma(t) and the end of its clock. In this one log(alpha/sigma) falls in a straight line,
# except near t = 0, so even steps in time are even steps in the level of noise. The library derives drift, diffusion,
# kernels and posteriors.


# %%
@ornstein.register("process", "straight")
@dataclass(frozen=True)
class Straight(ornstein.Process):
    """Noise that grows e-fold in equal times: sigma^2/alpha^2 = exp(rate t) - 1, alpha^2 + sigma^2 = 1.

    Args:
        rate: how fast, positive.
        t_max: where the clock ends.
    """

    rate: float = 10.0
    t_max: float = 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.rate * t)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self.rate * t))  # expm1 keeps the digits that 1 - alpha^2 loses near t = 0


# %% [markdown]
# If the distribution of the data is known, so is the best denoiser, and samplers can be tried without any training.

# %%
means, weights = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [-1.0, -1.0]]), torch.tensor([0.5, 0.3, 0.2])
mixture = GaussianMixture(weights, means, torch.tensor([0.05, 0.02, 0.1]))
drawn = ornstein.sample(mixture.denoiser(Straight()), (2000, 2), steps=30, seed=0)
shares = torch.cdist(drawn, means).argmin(1).bincount(minlength=3) / len(drawn)
print("shares of the three Gaussians:", [round(float(share), 2) for share in shares], "of", weights.tolist())

# %% [markdown]
# Once registered, the process can be named like any other: in `ornstein.fit`, on the command line
# (`ornstein train moons process=straight process.rate=8`) and in `ornstein list processes`.

# %%
points = mixture.sample(20_000, generator=torch.Generator().manual_seed(1)).numpy()
changes: dict[str, Any] = {"process": "straight", "process.rate": 8.0, "steps": STEPS}
model = ornstein.fit(points, **changes)
learned = model.sample(2000, seed=0)

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, sharey=True)
for axis, title, x in zip(
    axes, ("data", "drawn, exact denoiser", "drawn, trained"), (points, drawn.numpy(), learned), strict=True
):
    axis.scatter(*x[:2000].T, s=2, alpha=0.5)
    axis.set(title=title, xlabel="first coordinate", aspect="equal")
axes[0].set_ylabel("second coordinate")
figure.savefig("own_process.png", dpi=150, bbox_inches="tight")
