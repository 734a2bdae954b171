"""Data with levels, whose bins are filled with noise: uniform, or fitted to a model.

Digital data have probabilities, not densities. The density of a pixel plus noise u within its bin bounds the
probability from below, log P(x) >= E log p(x + u) - log q(u given x), with q uniform (Theis et al. 2016, 1511.01844)
or fitted (Ho et al. 2019, 1902.00275: "variational dequantisation"); several draws within the logarithm tighten it
(Burda et al. 2016, 1509.00519). See `Dequantiser` and `fit_dequantiser`.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser
from ornstein.core.numerics import widening
from ornstein.data import Transform, WholeNumbers
from ornstein.errors import InputError
from ornstein.likelihood.flow import LogLikelihood, reach
from ornstein.optimisers import eager


class BinNoise(Protocol):
    """A distribution of dequantisation noise within a bin."""

    def __call__(self, x: Tensor, uniform: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Noise from uniform numbers.

        Args:
            x: (B, *shape) float64, the levels, in data units.
            uniform: (B, *shape) in (0, 1).
            condition: the denoiser's condition.

        Returns:
            u (B, *shape) in (0, 1), and log q(u given x), (B,).
        """


def uniform_noise(x: Tensor, uniform: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
    """Uniform dequantisation: u is the uniform number itself, and log q is zero."""
    return uniform, uniform.new_zeros(len(x))


def noise_within(dequantise: BinNoise | str, transform: Transform | None, draws: int) -> BinNoise | None:
    """The noise that an argument `dequantise` means, which refuses data off their levels; None for no noise."""
    levels = None if transform is None else transform.levels
    if dequantise == "auto":
        dequantise = "none" if levels is None else "uniform"
    if dequantise == "none":
        if draws != 1:
            raise InputError(f"draws={draws} are of dequantisation noise, of which there is none: draws=1.")
        return None
    if levels is None:
        raise InputError("dequantise needs a transform with levels, which says what the bins are: WholeNumbers(256).")
    noise: BinNoise = uniform_noise if dequantise == "uniform" else dequantise  # type: ignore[assignment]
    if isinstance(noise, str):
        raise InputError(f"dequantise={noise!r} must be 'auto', 'none', 'uniform' or a Dequantiser.")

    def checked(x: Tensor, uniform: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        _on_levels(x, levels)
        return noise(x, uniform, condition)

    return checked


def _on_levels(x: Tensor, levels: WholeNumbers) -> None:
    off = (x != x.round()) | (x < levels.low) | (x > levels.low + levels.count - 1)
    if bool(off.any()):
        raise InputError(
            f"x holds {float(x[off][0]):g}, which is none of the levels {levels.low} to "
            f"{levels.low + levels.count - 1}: give data in their own units, or dequantise='none'."
        )


def averaged(found: list[LogLikelihood]) -> LogLikelihood:
    """The log of the mean of several densities, and its error by the jackknife, which includes that of the probes."""
    logs, k = torch.stack([each.log_prob for each in found]), len(found)
    # without each in turn, as a sum of the others: a difference would lose their digits
    others = ~torch.eye(k, dtype=torch.bool, device=logs.device)
    without = torch.stack([logs[keep].logsumexp(0) for keep in others])
    return LogLikelihood(
        logs.logsumexp(0) - math.log(k),
        ((k - 1) / k * (without - without.mean(0)).square().sum(0)).sqrt() * widening(logs.new_tensor([k - 1.0])),
        (logs.softmax(0) * torch.stack([each.integration_error for each in found])).sum(0),
        torch.stack([each.calls for each in found]).sum(0),
        torch.stack([each.products for each in found]).sum(0),
        found[0].dims,
    )


class Dequantiser(nn.Module):
    """Logistic noise within each bin, with place and width given by the level and the slope of the log-density there.

        u = sigmoid(a + exp(b) l),  l standard logistic;     a, b = MLP(level, slope)       for each element

    With a = b = 0, as before fitting, u is uniform: the family contains uniform dequantisation, and fitting only
    improves on it. The slope is the model's own, its score at the centre of the bin times the bin's width; the density
    within a bin is nearly exponential with that rate. One call of the denoiser.

    Made by `fit_dequantiser`; give it to `log_likelihood` as `dequantise`.
    """

    def __init__(self, denoiser: Denoiser, transform: Transform, hidden: int = 32) -> None:
        super().__init__()
        if transform.levels is None:
            raise InputError(
                "a Dequantiser needs a transform with levels, which says what the bins are: WholeNumbers(256)."
            )
        self.denoiser, self.transform = denoiser, transform
        self.level = denoiser.process.at(denoiser.process.time(-2 * math.log(reach(denoiser, None)[0])))
        generator = torch.Generator().manual_seed(0)
        self.inner, self.outer = nn.Linear(3, hidden).double(), nn.Linear(hidden, 2).double()
        with torch.no_grad():
            self.inner.weight.normal_(0, 0.5, generator=generator)
            self.inner.bias.zero_()
            self.outer.weight.zero_()
            self.outer.bias.zero_()

    def slope(self, x: Tensor, condition: Condition) -> Tensor:
        """d log p/dx in data units, (B, *shape), at the lowest noise level; x in data units."""
        shifted = x + 1.0
        z = self.transform.forward(x)
        score = self.denoiser.predict(float(self.level.alpha) * z, self.level, condition).score.to(z)
        # element-wise and affine: the distance of two neighbouring levels is the derivative
        return float(self.level.alpha) * score * (self.transform.forward(shifted) - z)

    def forward(self, x: Tensor, uniform: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """u and log q(u given x): see `BinNoise`."""
        levels = self.transform.levels
        assert levels is not None
        place = 2 * (x - levels.low) / (levels.count - 1) - 1
        with torch.no_grad():
            slope = self.slope(x, condition)
        # slopes of any size: what is small is told linearly, what is large by its logarithm
        told = torch.stack([place, torch.tanh(slope / 4), torch.asinh(slope)], -1)
        a, b = self.outer(nn.functional.silu(self.inner(told))).unbind(-1)
        logistic = torch.logit(uniform)
        inner = a + b.exp() * logistic
        u = torch.sigmoid(inner).clamp(1e-9, 1 - 1e-9)
        # log of the logistic density at l, over the derivative of u by l
        log_q = nn.functional.logsigmoid(logistic) + nn.functional.logsigmoid(-logistic)
        log_q = log_q - b - nn.functional.logsigmoid(inner) - nn.functional.logsigmoid(-inner)
        return u, log_q.flatten(1).sum(1)


def fit_dequantiser(
    denoiser: Denoiser,
    x: Tensor,
    transform: Transform,
    *,
    condition: Given = None,
    steps: int = 300,
    batch: int = 128,
    rate: float = 0.01,
    seed: int = 0,
) -> Dequantiser:
    """Fit dequantisation noise to a model, so that the bound E[log p(x + u) - log q(u given x)] is as high as possible.

    The gradient of log p(x + u) by u is the model's score, at its lowest noise level: nothing is differentiated through
    the flow, and a step costs two calls of the denoiser.

    Args:
        denoiser: whose likelihood is to be bounded.
        x: (N, *shape) training data in their own units: whole numbers.
        transform: from there to model space, with levels.
        condition: what each is given, with N rows; see `Condition.of`.
        steps, batch, rate, seed: of Adam, whose rate falls linearly to zero.

    Raises:
        InputError: a transform without levels, data off them.
    """
    known = Condition.of(condition).matches(len(x), "x")
    made = Dequantiser(denoiser, transform).to(denoiser.device)
    assert transform.levels is not None
    _on_levels(x, transform.levels)
    generator = torch.Generator().manual_seed(seed)
    optimiser = eager(torch.optim.Adam)(made.parameters(), lr=rate)
    for step in range(steps):
        chosen = torch.randint(len(x), (min(batch, len(x)),), generator=generator)
        part = x[chosen].to(denoiser.device).double()
        given = known[chosen].to(denoiser.device)
        uniform = torch.rand(part.shape, generator=generator, dtype=torch.float64).to(part)
        u, log_q = made(part, uniform.clamp(1e-9, 1 - 1e-9), given)
        with torch.no_grad():
            slope = made.slope(part + u - 0.5, given)
        # its gradient by u is the score
        gain = (slope * u).flatten(1).sum(1) - log_q
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimiser.zero_grad()
        (-gain.mean() / part[0].numel()).backward()
        optimiser.step()
    return made.requires_grad_(False)
