"""A diffusion model in one file: points in the plane, from data to samples and a check, in about half a minute.

Read it from top to bottom. It uses the library's parts by hand; `ornstein train moons` does the same for two moons,
with checkpoints, averages of the weights, pictures and resuming.

    python examples/minimal.py            # writes minimal.png
"""

import sys

import torch
from torch import nn

import ornstein
from ornstein.core.exact import GaussianMixture
from ornstein.objectives import OBJECTIVES

torch.manual_seed(0)


# --- Data: four Gaussians in the plane, so that the truth is known ----------------------------------------------------
means = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [-1.0, -1.0], [0.3, 0.3]])
truth = GaussianMixture(torch.tensor([0.4, 0.3, 0.2, 0.1]), means, torch.tensor([0.02, 0.05, 0.02, 0.01]))
data = truth.sample(20_000, generator=torch.Generator().manual_seed(1))


# --- Network: anything callable as net(x, noise_level, condition) -----------------------------------------------------
class Net(nn.Module):
    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.frequencies = nn.Buffer(2.0 ** torch.arange(-2, 3))
        self.layers = nn.Sequential(
            nn.Linear(2 + 10, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.out = nn.Linear(width, 2)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: torch.Tensor, noise_level: torch.Tensor, condition: dict[str, torch.Tensor]) -> torch.Tensor:
        angles = noise_level[:, None] * self.frequencies
        answer: torch.Tensor = self.out(self.layers(torch.cat([x, angles.sin(), angles.cos()], dim=1)))
        return answer


# --- A denoiser is a network on a process's clock, with a meaning for what it outputs ---------------------------------
denoiser = ornstein.NetDenoiser(Net(), ornstein.VP(), predicts="v", sigma_data=data.std().item())


# --- Training: an objective gives one loss per sample -----------------------------------------------------------------
objective = OBJECTIVES["edm"]()
optimiser = torch.optim.Adam(denoiser.net.parameters(), lr=2e-3)
generator = torch.Generator().manual_seed(2)
steps = 3000
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
for step in range(1, steps + 1):
    x0 = data[torch.randint(len(data), (512,), generator=generator)]
    loss = objective(denoiser, x0, None, generator).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
    if step % 500 == 0:
        print(f"step {step}  loss {loss.item():.4f}")


# --- Sampling: any stepper, any number of steps -----------------------------------------------------------------------
samples = ornstein.sample(denoiser, (2000, 2), stepper="dpm++2m", steps=30, seed=0)
ideal = ornstein.sample(truth.denoiser(ornstein.VP()), (2000, 2), stepper="dpm++2m", steps=30, seed=0)


# --- How good is it? The truth is known here, so ask it ---------------------------------------------------------------
likelihood = {
    name: truth.log_prob(x).mean().item() for name, x in (("data", data), ("samples", samples), ("ideal", ideal))
}
print("mean log-density under the truth, nats: " + ", ".join(f"{k} {v:.3f}" for k, v in likelihood.items()))
nearest = torch.cdist(samples, means).argmin(dim=1)
print("share of each Gaussian: " + ", ".join(f"{s:.2f}" for s in nearest.bincount(minlength=4) / len(samples)))


# --- Pictures ---------------------------------------------------------------------------------------------------------
if "--no-picture" not in sys.argv:
    from pathlib import Path

    from ornstein.experiment.pictures import draw

    draw(samples, "vector", Path("minimal.png"), real=data[:2000])
    print("wrote minimal.png")
