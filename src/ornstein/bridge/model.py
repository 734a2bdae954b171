"""Bridges: the contract of every model between two data sets.

For x at time t of its path, a bridge returns the posterior means of both ends, E[x_0 given x_t = x] and E[x_1 given
x_t = x], or of one of them, as a denoiser does where the far end is noise. Everything else builds on that answer: a
bridge can be walked in both directions, derived in closed form from an exact distribution, or learned by a network.

Seen from the other end, a bridge is a bridge again. So whatever goes down a path can also go up, and is written once.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ornstein.bridge.path import Ends, Path, Stage, over
from ornstein.core.condition import SOURCE, Condition, Given
from ornstein.core.process import Number, check_positive
from ornstein.errors import InputError

#: log(beta/alpha) is cut here, at a 400th of a line from either end. At the ends themselves it is infinite, and a
#: network asked there, as by the first step of a walk, would extrapolate: training shows next to nothing beyond.
LEVEL_LIMIT = 6.0


class Bridge(ABC):
    """`(x, t, condition) -> Ends`: a model of where x_t comes from and where it goes. To add one, write `predict`.

    Attributes:
        path: the path that t refers to.
        near, far: standard deviations of x_0 and x_1 in model space, 1 where they are not known.
    """

    path: Path
    near: float = 1.0
    far: float = 1.0

    @abstractmethod
    def predict(self, x: Tensor, stage: Stage, condition: Condition) -> Ends:
        """The ends of x (B, ...) at `stage`, given `condition`, which has B rows or no parts."""

    def __call__(self, x: Tensor, t: "float | Tensor | Stage", condition: Given = None) -> Ends:
        """E[x_0 given x_t = x] and E[x_1 given x_t = x].

        Args:
            x: (B, ...) in model space.
            t: one time for all, or (B,), in [0, t_max] of `path`; or a Stage of it.
            condition: what to condition on, with B rows; see `Condition.of`.

        Raises:
            InputError: a time out of range; an invalid condition, or one with another number of rows.
        """
        return self.predict(x, self.path.at(t, like=x), Condition.of(condition).matches(len(x), "x"))

    def reversed(self) -> "Bridge":
        """The same bridge seen from the other end."""
        return ReversedBridge(self)

    @property
    def device(self) -> torch.device:
        """Where the bridge expects its data."""
        return torch.device("cpu")


@dataclass(frozen=True, eq=False)
class ReversedBridge(Bridge):
    """A bridge seen from the other end."""

    bridge: Bridge

    @property
    def near(self) -> float:  # type: ignore[override]
        return self.bridge.far

    @property
    def far(self) -> float:  # type: ignore[override]
        return self.bridge.near

    @property
    def path(self) -> Path:  # type: ignore[override]
        return self.bridge.path.reversed()

    @property
    def device(self) -> torch.device:
        return self.bridge.device

    def predict(self, x: Tensor, stage: Stage, condition: Condition) -> Ends:
        path, t = self.bridge.path, self.path.t_max - stage.t
        # coefficients are passed on, not computed again: a time subtracted from t_max twice is not exactly itself
        there = Stage(path, t, stage.beta, stage.alpha, stage.variance)
        ends = self.bridge.predict(x, there, condition)
        return Ends(ends.x1, ends.x0, x, stage)

    def reversed(self) -> Bridge:
        return self.bridge


@dataclass(frozen=True)
class Guess:
    """The best linear guess at both ends from x_t, for independent white ends of given scales, and its error.

    It serves a network as EDM's preconditioning does (Karras et al. 2022): E[x_0] = skip0 x_t + out0 F with F of unit
    variance at every time, and likewise for x_1. Without noise both have the same F, except for its sign.

        skip0 = alpha s0^2/S,    out0 = s0 ((beta^2 s1^2 + v)/S)^(1/2),    S = alpha^2 s0^2 + beta^2 s1^2 + v

    Attributes:
        spread: S^(1/2), the standard deviation of x_t.
        skip0, out0, skip1, out1: see above; for the far end exchange alpha with beta and s0 with s1.
    """

    spread: Number
    skip0: Number
    out0: Number
    skip1: Number
    out1: Number

    @staticmethod
    def at(stage: Stage, near: float, far: float) -> "Guess":
        """The guess at a stage, for ends of standard deviation `near` and `far`."""
        a, b = (stage.alpha * near) ** 2, (stage.beta * far) ** 2
        total = a + b + stage.variance
        return Guess(
            total**0.5,
            stage.alpha * near**2 / total,
            near * ((b + stage.variance) / total) ** 0.5,
            stage.beta * far**2 / total,
            far * ((a + stage.variance) / total) ** 0.5,
        )


@dataclass(frozen=True, eq=False)
class NetBridge(Bridge):
    """A network as a bridge: each end is a linear guess plus what the network adds, see `Guess`.

    Args:
        net: `net(x, level, parts) -> F`, with twice the channels of x, for F_0 and F_1; with as many as x if the path
            has no noise. x has unit variance; the level is log(beta/alpha) within [-6, 6], (B,).
        path: the path that t refers to.
        near, far: standard deviations of x_0 and x_1 in model space.
        precision: type of the net's matrix products and convolutions; None for that of its parameters.

    Raises:
        InputError: a standard deviation that is not positive; when called, a net with a wrong number of channels.
    """

    net: nn.Module
    path: Path
    near: float = 1.0
    far: float = 1.0
    precision: torch.dtype | None = None

    def __post_init__(self) -> None:
        check_positive(near=self.near, far=self.far)

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    def predict(self, x: Tensor, stage: Stage, condition: Condition) -> Ends:
        guess = Guess.at(stage, self.near, self.far)
        own = next((p.dtype for p in self.net.parameters() if p.is_floating_point()), x.dtype)
        wide = torch.promote_types(own, torch.float32)
        with torch.autocast(x.device.type, self.precision) if self.precision else nullcontext():
            told = _told(stage, x).to(wide).expand(len(x))
            f = self.net((x / guess.spread).to(own), told, condition.without(SOURCE).parts)
        f = f.to(torch.promote_types(x.dtype, torch.float32))
        single = self.path.noiseless
        if f.shape[1] != x.shape[1] * (1 if single else 2):
            raise InputError(
                f"net returns {f.shape[1]} channels for {x.shape[1]}, and a bridge on {self.path} needs "
                f"{x.shape[1] * (1 if single else 2)}."
            )
        f0, f1 = (-f, f) if single else f.chunk(2, dim=1)
        return Ends(guess.skip0 * x + guess.out0 * f0, guess.skip1 * x + guess.out1 * f1, x, stage)


def _told(stage: Stage, x: Tensor) -> Tensor:
    """log(beta/alpha) within the limit, (B,), or (1,) where it is the same for all rows."""
    if isinstance(stage.alpha, Tensor) and isinstance(stage.beta, Tensor):
        return (stage.beta.log() - stage.alpha.log()).flatten().clamp(-LEVEL_LIMIT, LEVEL_LIMIT)
    ratio = over(stage.beta, stage.alpha)
    level = LEVEL_LIMIT if ratio == math.inf else math.log(max(ratio, 1e-300))
    return x.new_full((1,), max(-LEVEL_LIMIT, min(level, LEVEL_LIMIT)))


@dataclass(frozen=True, eq=False)
class FunctionBridge(Bridge):
    """A bridge from a function `(x, stage, condition) -> readings by name`, as `Ends.of` takes them."""

    function: Callable[[Tensor, Stage, Condition], Mapping[str, Tensor]]
    path: Path

    def predict(self, x: Tensor, stage: Stage, condition: Condition) -> Ends:
        return Ends.of(x, stage, self.function(x, stage, condition))
