"""Explicit, implicit, sliced and denoising score matching along one family of scores: one curve, up to constants."""

from collections.abc import Callable

import numpy as np
import torch
from matplotlib import pyplot as plt
from style import BLUE, GREEN, INK, ORANGE, save
from torch import Tensor

import ornstein
from ornstein.core.exact import GaussianMixture
from ornstein.core.numerics import Estimate
from ornstein.objectives.score_matching import denoising_loss, explicit_loss, implicit_loss, sliced_loss

torch.set_num_threads(1)
SIGMA, COUNT, PARTS = 0.5, 20_000, 20
thetas = np.linspace(0.6, 1.4, 17)  # [8] is 1
level = ornstein.EDM().at(SIGMA)
means = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [-0.5, -1.5]])


def mixture(theta: float) -> GaussianMixture:
    """The family: three Gaussians with their means spread by theta. The data have theta = 1."""
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), theta * means, torch.tensor([0.1, 0.3, 0.2]))


def score(theta: float) -> Callable[[Tensor], Tensor]:
    """The score of a member of the family with noise: the density that all methods match."""
    return mixture(theta).denoiser(ornstein.EDM()).score_at(SIGMA)


def noisy(count: int, generator: torch.Generator) -> Tensor:
    return level.noised(mixture(1.0).sample(count, generator), torch.randn(count, 2, generator=generator))


truth = score(1.0)
WAYS: dict[
    str, Callable[..., Tensor]
] = {  # (score, generator) -> the loss of COUNT samples; only the first method knows the true score
    "explicit": lambda s, g: explicit_loss(s, noisy(COUNT, g), truth),
    "implicit": lambda s, g: implicit_loss(s, noisy(COUNT, g)),
    "sliced": lambda s, g: sliced_loss(s, noisy(COUNT, g), g),
    "denoising": lambda s, g: denoising_loss(s, mixture(1.0).sample(COUNT, g), SIGMA, g),
}
half = Estimate.of(truth(noisy(500_000, torch.Generator().manual_seed(0))).square().sum(1) / 2)
constants = {"explicit": 0.0, "implicit": half.value, "sliced": half.value, "denoising": half.value - 1 / SIGMA**2}
print(f"1/2 E|r|^2 = {half}, d/(2 sigma^2) = {1 / SIGMA**2:g}")

figure, (raw, moved, least) = plt.subplots(1, 3, figsize=(10, 4.2), width_ratios=(3, 3, 2))
looks = zip((INK, BLUE, ORANGE, GREEN), ("-", "-", "--", "-"), ("none", "o", "s", "^"), strict=True)
for i, ((name, loss), (colour, line, mark)) in enumerate(zip(WAYS.items(), looks, strict=True)):
    with torch.no_grad():  # each method has its own samples, the same for every theta
        losses = [loss(score(theta), torch.Generator().manual_seed(i + 1)) for theta in thetas]
    values, errors = np.array([(e.value, e.standard_error) for e in map(Estimate.of, losses)]).T
    raw.plot(thetas, values, color=colour, ls=line, label=name)
    some = slice(None) if i == 0 else slice(i - 1, None, 3)  # a third of the points for each, so that no two coincide
    bars = None if i == 0 else 2 * errors[some]
    moved.errorbar(
        thetas[some], (values + constants[name])[some], bars, color=colour, ms=5, fmt="-" if i == 0 else mark
    )
    # the minimiser for each of several parts of the samples, by a polynomial through that part's curve
    curves = torch.stack(losses).reshape(len(thetas), PARTS, -1).mean(2).numpy()
    fine = np.linspace(thetas[0], thetas[-1], 2001)
    best = Estimate.of(torch.tensor([fine[np.polyval(np.polyfit(thetas, c, 6), fine).argmin()] for c in curves.T]))
    least.errorbar(best.value, i, xerr=2 * best.standard_error, color=colour, fmt="o", capsize=4)
    print(
        f"{name:10s} at theta = 1: {values[8]:6.3f} ± {errors[8]:.3f}, + constant {values[8] + constants[name]:+.3f}",
        end="",
    )
    print(f", least at {best.value:.4f} ± {best.standard_error:.4f}")
arrow = {"arrowstyle": "<->", "color": INK, "shrinkA": 0, "shrinkB": 0}
for top, bottom, text in ((0, -half.value, "½E|r|²"), (1 / SIGMA**2 - half.value, 0, "d/2σ² − ½E|r|²")):
    raw.annotate("", (1, top), (1, bottom), arrowprops=arrow)
    raw.text(1.02, (top + bottom) / 2 + 0.1, text, va="center")
raw.set(title="As they are", xlabel="θ", ylabel="loss")
moved.set(title="Constants removed", xlabel="θ", ylabel="loss + constant")
least.axvline(1, color=INK, lw=1)
least.set(title="Minimiser", xlabel="θ", yticks=range(len(WAYS)), yticklabels=WAYS, ylim=(3.5, -0.5))
figure.legend(*raw.get_legend_handles_labels(), loc="outside lower center", ncols=4)
save(figure)
