"""The levels on which students are trained, and the steps between them, each sample at a level of its own.

The levels lie evenly in u = q/(1 + q), q = sigma/(alpha sigma_data), so that those for half as many calls are every
second one. On a chain they are the nearest whole levels or, if two of these coincide, evenly spaced whole levels. Rungs
are numbered from 0, the noise, to `segments`, the clean point.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from ornstein.core.condition import Condition
from ornstein.core.copies import beside
from ornstein.core.denoiser import Denoiser
from ornstein.core.drive import Ask, Noise, Stepper
from ornstein.core.grids import ends, times
from ornstein.core.numerics import strata
from ornstein.core.process import Level, Process


@lru_cache(maxsize=256)
def grid(process: Process, segments: int, unit: float) -> Tensor:
    """The times of a ladder, falling to 0, (segments + 1,) float64.

    Raises:
        InputError: more segments than the chain has levels.
    """
    even = times(process, segments, "flow", unit)
    if process.chain is None:
        return even
    whole = torch.cat([even[:-1].round().clamp(min=1), even[-1:]])
    return whole if bool((whole.diff() < 0).all()) else times(process, segments, "trailing", unit)


def falling(process: Process, steps: int, unit: float, top: float = math.inf, power: float = 1.0) -> Tensor:
    """Times at which q/(1 + q), q = sigma/(alpha unit), falls as (1 - k/steps)^power, and the clean point.

    (steps + 1,) float64. The first is at q = `top`, or where the clock begins if that is lower; on a chain they need
    not be whole.
    """
    first = min(process.at(ends(process, unit)[1]).noise_ratio / unit, top)
    u = first / (1 + first) * (1 - torch.arange(steps, dtype=torch.float64) / steps) ** power
    found = process.time(-2 * (unit * u / (1 - u)).log())
    return torch.cat([found, found.new_zeros(1)])


def scattered(denoiser: Denoiser, x: Tensor, generator: Generator) -> Level[Tensor]:
    """A level for each row of x (B, ...), even in u between those that a denoiser is asked at; on a chain whole."""
    u = strata(len(x), generator).to(x.device).clamp(1e-6, 1 - 1e-6)
    process, unit = denoiser.process, denoiser.unit
    low, high = ends(process, unit)
    t = process.time(-2 * (unit * u / (1 - u)).log()).clamp(low, high)
    return process.at(t if process.chain is None else t.round().clamp(min=1), like=x)


class Ladder:
    """`segments` + 1 levels of a denoiser's clock."""

    def __init__(self, denoiser: Denoiser, segments: int) -> None:
        self.process, self.unit, self.segments = denoiser.process, denoiser.unit, segments
        self._times = grid(self.process, segments, self.unit)
        # the least level at which the denoiser is called
        self._least = 1.0 if self.process.chain else min(ends(self.process, self.unit)[0], float(self._times[-2]))

    def at(self, rung: Tensor, like: Tensor) -> Level[Tensor]:
        """The level of each sample, from its rung (B,)."""
        return self.process.at(beside(self._times, rung, self._times.dtype)[rung], like=like)

    def ddim(self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, condition: Condition) -> Tensor:
        """A step of DDIM from x (B, ...) at rungs t (B,) to rungs s (B,)."""
        here, there = self.at(t, x), self.at(s, x)
        ratio = there.sigma / here.sigma
        return ratio * x + (there.alpha - ratio * here.alpha) * denoiser.predict(x, here, condition).x0

    def heun(self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, condition: Condition) -> Tensor:
        """A step of Heun's rule from rungs t to rungs s in the variables of flow matching (`samplers.flow.Heun`).

        A step to the clean point goes through the least level at which the denoiser is called. There its answer is the
        clean sample under x, and moves with x, to second order in the noise that is left.
        """
        clean = s == self.segments
        here = self.at(t, x)
        below = torch.where(clean, self._least, beside(self._times, s, self._times.dtype)[s])
        there = self.process.at(below, like=x)
        told = denoiser.predict(x, here, condition)
        ratio = there.sigma / here.sigma
        euler = ratio * x + (there.alpha - ratio * here.alpha) * told.x0
        again = denoiser.predict(euler, there, condition)
        unit = self.unit
        total = unit * there.alpha + there.sigma
        half = 0.5 * (there.sigma - total * here.sigma / (unit * here.alpha + here.sigma))
        shift = half * ((again.eps - again.x0 / unit) - (told.eps - told.x0 / unit))
        return torch.where(clean.reshape(half.shape), again.x0 + shift / there.alpha, euler + shift)


@dataclass(frozen=True)
class Renoise(Stepper):
    """Each answer, with fresh noise of the next level: multistep consistency (Song et al. 2023).

    No order: the answers are ends of trajectories, and more steps correct their errors. One call a step. Stochastic.
    """

    order: ClassVar[int | None] = None

    @property
    def stochastic(self) -> bool:
        return True

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        return s.noised(denoiser(x, t).x0, noise()), None


class Remembered(nn.Module):
    """A network with other weights than its own, which get no gradients, in evaluation mode; it owns neither.

    Args:
        net: the network.
        weights: every parameter and buffer that the network's `state_dict` names.
    """

    def __init__(self, net: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        # in a list, so that it is not registered; uncompiled, since the weights have the names of that network
        self._of, self._weights = [getattr(net, "_orig_mod", net)], weights

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return self._of[0].parameters(recurse)

    @property
    def out(self) -> nn.Module | None:
        """The network's last layer, if it names it."""
        return getattr(self._of[0], "out", None)

    def forward(self, *given: object) -> Tensor:
        net = self._of[0]
        training = net.training
        net.eval()
        try:
            found: Tensor = functional_call(net, self._weights, given)
        finally:
            net.train(training)
        return found
