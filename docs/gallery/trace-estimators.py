"""The trace in the implicit loss, exact or from one random probe: noise and cost by dimension."""

from collections.abc import Callable

import torch
from matplotlib import pyplot as plt
from style import BLUE, GREEN, INK, ORANGE, save
from torch.utils.flop_counter import FlopCounterMode

import ornstein
from ornstein.core.exact import Gaussian, GaussianMixture
from ornstein.nets import MLP
from ornstein.objectives.score_matching import implicit_loss, sliced_loss

torch.set_num_threads(1)
DIMENSIONS, COUNT, SIGMA = (2, 4, 8, 16, 32, 64, 128, 256), 1000, 0.5
clock = ornstein.EDM()
WAYS: dict[
    str, tuple[Callable[..., torch.Tensor], str, str]
] = {  # (score, x, generator) -> the loss of each sample, with a graph for the gradient
    "exact trace": (lambda s, x, g: implicit_loss(s, x, keep=x.shape[1]), INK, "-D"),
    "Rademacher probe": (lambda s, x, g: implicit_loss(s, x, probes=1, generator=g), BLUE, "-o"),
    "Gaussian probe": (lambda s, x, g: implicit_loss(s, x, probes=1, law="gaussian", generator=g), ORANGE, "--s"),
    "sliced, not reduced": (lambda s, x, g: sliced_loss(s, x, g, reduced=False), GREEN, "-.^"),
}


def neighbours(d: int) -> GaussianMixture:
    """Numbers in a row, each with correlation 0.8 to the next, like pixels or samples of sound."""
    place = torch.arange(d)
    return Gaussian(torch.zeros(d), 0.8 ** (place[:, None] - place).abs().double())


def noise(d: int) -> dict[str, float]:
    """The standard deviation of a sample's loss at the true score: over data with the exact trace, then over probes."""
    data, generator = neighbours(d), torch.Generator().manual_seed(d)
    x = clock.at(SIGMA).noised(data.sample(COUNT, generator), torch.randn(COUNT, d, generator=generator))
    score = data.denoiser(clock).score_at(SIGMA)
    with torch.no_grad():
        losses = {name: loss(score, x, generator) for name, (loss, *_) in WAYS.items()}
    exact = losses["exact trace"]
    return {name: float((loss if loss is exact else loss - exact).std()) for name, loss in losses.items()}


def theory(d: int) -> dict[str, float]:
    """The same from the Jacobian J = -(C + sigma^2 I)^-1: tr J^2 / 2 over data; over probes see core/divergence.py."""
    j2 = torch.linalg.inv(neighbours(d).covariance() + SIGMA**2 * torch.eye(d)) ** 2
    variances = j2.sum() / 2, 2 * (j2.sum() - j2.trace()), 2 * j2.sum()
    return {name: float(variance.sqrt()) for name, variance in zip(WAYS, variances, strict=False)}


def cost(d: int) -> dict[str, float]:
    """Floating-point operations of the loss of one sample and its gradient, for a network of six layers."""
    net, generator = MLP(256, 2).build((d,)), torch.Generator().manual_seed(0)
    torch.nn.init.normal_(net.get_parameter("out.weight"), std=0.05, generator=generator)
    score, found = ornstein.NetDenoiser(net, clock, "eps").score_at(SIGMA), {}
    for name, (loss, *_) in WAYS.items():
        with FlopCounterMode(display=False) as counter:
            loss(score, torch.randn(4, d, generator=generator), generator).mean().backward()
        found[name] = counter.get_total_flops() / 4
    return found


noises, costs = {d: noise(d) for d in DIMENSIONS}, {d: cost(d) for d in DIMENSIONS}
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 4.2))
for name, (_, colour, style) in WAYS.items():
    spread, price = [noises[d][name] for d in DIMENSIONS], [costs[d][name] for d in DIMENSIONS]
    # what counts for a mean over new samples: the variance for one, from data and probes together, times its cost
    own = [noises[d]["exact trace"] ** 2 for d in DIMENSIONS]
    total = own if name == "exact trace" else [v + s * s for v, s in zip(own, spread, strict=True)]
    worth = [v * costs[d]["exact trace"] / (t * c) for d, v, t, c in zip(DIMENSIONS, own, total, price, strict=True)]
    left.loglog(DIMENSIONS, spread, style[-1], color=colour, ms=5)
    middle.loglog(DIMENSIONS, [c / 1e6 for c in price], style, color=colour, ms=5, label=name)
    right.loglog(DIMENSIONS, worth, style, color=colour, ms=5)
    expected = [theory(d).get(name) for d in DIMENSIONS]
    left.loglog(DIMENSIONS, expected if expected[0] else spread, style[:-1], color=colour)
    for d in (2, 8, 64, 256):
        i = DIMENSIONS.index(d)
        closed = f" (theory {expected[i]:.2f})" if expected[0] else ""
        print(
            f"d = {d:3d}  {name:20s} noise {spread[i]:6.2f}{closed}, {price[i] / 1e6:7.1f} Mflop, worth {worth[i]:.2f}"
        )
left.set(title="Noise of the loss", xlabel="dimension", ylabel="standard deviation, one sample")
middle.set(title="Cost of loss and gradient", xlabel="dimension", ylabel="million operations a sample")
right.set(title="Precision for the cost", xlabel="dimension", ylabel="relative to the exact trace")
middle.text(30, 2.9, "any one probe", va="top")
middle.set_ylim(1.5, None)
for axis in (left, middle, right):
    axis.set_xticks((2, 8, 32, 128), labels=("2", "8", "32", "128"))
    axis.minorticks_off()
figure.legend(loc="outside lower center", ncols=4)
save(figure)
