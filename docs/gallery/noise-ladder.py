"""One noise level against a ladder of them: the true score, what a network learns of it, and where it is wrong."""

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from style import BLUE, GREY, INK, ORANGE, save

import ornstein
from ornstein.core.exact import GaussianMixture
from ornstein.nets import MLP
from ornstein.objectives.score_matching import denoising, fisher_divergence
from ornstein.samplers.noise_ladder import advise_ladder

torch.set_num_threads(1)
truth = GaussianMixture(torch.tensor([0.2, 0.8]), torch.tensor([[-5.0, -5.0], [5.0, 5.0]]), torch.ones(2))
data = truth.sample(10_000, torch.Generator().manual_seed(0))
ladder = advise_ladder(data, sigma_min=0.3).sigmas
process = ornstein.Tabulated.from_sigmas(ladder)
exact = truth.denoiser(process)


def learn(sigma: float | None, steps: int = 3000) -> ornstein.NetDenoiser:
    """The same network, trained by denoising score matching at one sigma, or (None) at every level of the ladder."""
    denoiser = ornstein.NetDenoiser(MLP(64, 2).build((2,)), process, "eps", sigma_data=data.std().item())
    objective, generator = denoising(sigma=sigma), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(denoiser.net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        x0 = data[torch.randint(len(data), (512,), generator=generator)]
        optimiser.zero_grad()
        objective(denoiser, x0, None, generator).mean().backward()
        optimiser.step()
        schedule.step()
    return denoiser


def noisy(level: int) -> torch.Tensor:
    """New data with the noise of a level."""
    generator = torch.Generator().manual_seed(2)
    return process.at(level).noised(truth.sample(20_000, generator), torch.randn(20_000, 2, generator=generator))


def error(denoiser: ornstein.Denoiser, level: int, x: torch.Tensor) -> float:
    """The root of E|s - r|^2 / E|r|^2 over points x, r being the true score."""
    s, r = denoiser.score_at(level), exact.score_at(level)
    return float((fisher_divergence(s, x, r).value / fisher_divergence(torch.zeros_like, x, r).value) ** 0.5)


def draw(axis: Axes, denoiser: ornstein.Denoiser, level: int, title: str, home: int) -> QuadContourSet:
    """Draw the error as colour, the score as arrows, and the line around 99 % of the data with the noise of `home`."""
    half = 6 + 3 * max(1.0, process.at(home).sigma)
    line = torch.linspace(-half, half, 121)
    x = torch.cartesian_prod(line, line)
    with torch.no_grad():
        s, r = (field(x, level).score.reshape(121, 121, 2) for field in (denoiser, exact))
    typical = exact(noisy(level), level).score.square().sum(1).mean().sqrt()
    wrong = (s - r).norm(dim=2) / r.norm(dim=2).clamp(min=typical)
    bands = ("#a9cfe8", "#dcebf5", "#fdebd0", "#f7c480", "#e08e3c")
    image = axis.contourf(line, line, wrong.T, (0, 0.03, 0.1, 0.3, 1, 10), colors=bands)
    arrows = (s / s.norm(dim=2, keepdim=True).sqrt())[4::8, 4::8]  # shortened, or the far ones would cover the rest
    axis.quiver(line[4::8], line[4::8], *arrows.permute(2, 1, 0), color=INK, alpha=0.8, pivot="mid", width=0.005)
    edge = truth.log_prob(noisy(home), process.at(home)).quantile(0.01).item()
    density = truth.log_prob(x, process.at(home)).reshape(121, 121)
    axis.contour(line, line, density.T, [edge], colors=INK, linestyles="-", linewidths=2)
    axis.set(title=title, xlabel="x", ylabel="y", aspect="equal")
    axis.grid(False)
    return image


one, many = learn(ladder[0]), learn(None)
levels = range(1, len(ladder) + 1)
curves = {
    "learned at 0.3 alone": ([error(one, 1, noisy(k)) for k in levels], ORANGE, "-"),
    "ladder, its level 0.3": ([error(many, 1, noisy(k)) for k in levels], GREY, "--"),
    "ladder, next level down": ([error(many, max(k - 1, 1), noisy(k)) for k in levels], BLUE, "-"),
}
print("sigma of the points      " + ", ".join(f"{sigma:.2g}" for sigma in ladder))
for name, (errors, *_) in curves.items():
    print(f"{name:25s}" + ", ".join(f"{e:.2f}" for e in errors))

figure, axes = plt.subplots(2, 3, figsize=(10, 6.6))
draw(axes[0, 0], exact, 1, "True score at σ = 0.3", 1)
draw(axes[0, 1], one, 1, "Learned at σ = 0.3 alone", 1)
for axis, level in zip(axes[1], (6, 4, 1), strict=True):
    image = draw(axis, many, level, f"Ladder, at its σ = {ladder[level - 1]:.1f}", level + 1)
for name, (errors, colour, style) in curves.items():
    axes[0, 2].loglog(ladder, errors, color=colour, ls=style, label=name)
axes[0, 2].set(title="Error where the chain is", xlabel="noise of the points, σ", ylabel="relative error")
axes[0, 2].set_ylim(0.02, 3)
axes[0, 2].legend(loc="upper left")
bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.5, aspect=35, label="relative error of the score")
bar.set_ticks([0.03, 0.1, 0.3, 1], labels=["3 %", "10 %", "30 %", "100 %"])
save(figure)
