"""The named paths, each given by alpha, beta and variance = gamma^2; see `ornstein.bridge.path`.

They differ in two things: whether a curve or noise joins a pair of ends, and whether what joins them is a diffusion.
All paths with noise here are diffusions, so they have a `Path.stiffness`: noise^2 for `Brownian` and `Trigonometric`,
sigma_T^2/alpha_T for a noising process that is held.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.bridge.path import Path
from ornstein.core.process import Process, check_positive
from ornstein.errors import InputError


@dataclass(frozen=True)
class Linear(Path):
    """Straight lines without noise: alpha = 1 - t, beta = t, t in [0, 1]: rectified flow.

    The limit of `Brownian` as its noise goes to zero. Liu et al. 2023 (2209.03003); Lipman et al. 2023 (2210.02747).
    """

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def beta(self, t: Tensor) -> Tensor:
        return t

    def variance(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


@dataclass(frozen=True)
class Brownian(Path):
    """Brownian motion held at both ends: alpha = 1 - t, beta = t, variance = noise^2 t (1 - t), t in [0, 1].

    Its g^2 is noise^2 in both directions. Liu et al. 2023 (I2SB, 2302.05872); Shi et al. 2023 (2303.16852).

    Args:
        noise: standard deviation of the motion after one unit of time, in the units of model space, positive.

    Raises:
        InputError: noise that is not positive.
    """

    noise: float = 1.0

    def __post_init__(self) -> None:
        check_positive(noise=self.noise)

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def beta(self, t: Tensor) -> Tensor:
        return t

    def variance(self, t: Tensor) -> Tensor:
        return self.noise**2 * t * (1 - t)


@dataclass(frozen=True)
class Trigonometric(Path):
    """A quarter circle: alpha = cos(pi t/2), beta = sin(pi t/2), variance = noise^2 alpha beta, t in [0, 1].

    Without noise, x_t between independent ends of equal variance has that variance throughout. With noise, g^2 is
    noise^2 pi/2 in both directions. Albergo & Vanden-Eijnden 2023 (2209.15571).

    Args:
        noise: of the path, in the units of model space; 0 for none.

    Raises:
        InputError: negative noise.
    """

    noise: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise InputError(f"noise={self.noise!r} must be a finite number, zero or more.")

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * (1 - t))  # exactly 0 at the far end

    def beta(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * t)

    def variance(self, t: Tensor) -> Tensor:
        return self.noise**2 * self.alpha(t) * self.beta(t)


@dataclass(frozen=True)
class Held(Path):
    """A noising process held at both ends: x_t given x_0 and x_T.

    By Bayes' rule, with r = SNR_T/SNR_t: alpha = alpha_t (1 - r), beta = r alpha_t/alpha_T and variance =
    sigma_t^2 (1 - r). Zhou et al. 2023 (DDBM, 2309.16948), equation 8.

    Raises:
        InputError: a process with no signal left at its end, so that its end says nothing about x_0.
    """

    process: Process

    def __post_init__(self) -> None:
        if not float(self.process.alpha(self._end)) > 0:
            raise InputError(f"process={self.process} has no signal left at its end, so it cannot be held there.")

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.process.t_max

    @property
    def _end(self) -> Tensor:
        return torch.tensor(self.process.t_max, dtype=torch.float64)

    def _share(self, t: Tensor) -> Tensor:
        """SNR_T/SNR_t, exactly 0 and 1 at the ends."""
        at_t, at_end = (self.process.sigma(u) / self.process.alpha(u) for u in (t, self._end))
        return (at_t / at_end) ** 2

    def alpha(self, t: Tensor) -> Tensor:
        return self.process.alpha(t) * (1 - self._share(t))

    def beta(self, t: Tensor) -> Tensor:
        return self._share(t) * self.process.alpha(t) / self.process.alpha(self._end)

    def variance(self, t: Tensor) -> Tensor:
        return self.process.sigma(t) ** 2 * (1 - self._share(t))
