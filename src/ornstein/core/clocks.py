"""Clocks in continuous time: alpha(t) and sigma(t) of the processes that have a name.

Each is q(x_t given x_0) = N(alpha(t) x_0, sigma(t)^2 I), written down as two functions and the end of the clock; all
else follows in `ornstein.core.process`. They differ in two things: in the scale that signal and noise share, and in how
fast log(alpha/sigma) falls along the clock. E[x_0 given x_t] depends on x/alpha and sigma/alpha alone, so both are
changes of variables, and a denoiser of one clock answers on any other.

Where sigma follows from alpha it is written through expm1 or through sines, which keep the digits that 1 - alpha^2
loses near t = 0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.process import Process, check_ordered, check_positive
from ornstein.errors import InputError


@dataclass(frozen=True)
class VP(Process):
    """Variance preserving: beta rises linearly, alpha^2 + sigma^2 = 1; DDPM in continuous time.

    alpha = exp(-B/2), sigma^2 = 1 - exp(-B), B(t) = beta_min t + (beta_max - beta_min) t^2/2, t in [0, 1].
    Song et al. 2021 (2011.13456), equation 33.

    Args:
        beta_min, beta_max: the rate of noising at t = 0 and at t = 1, positive and rising.
        t_max: where the clock ends, in its own time.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_ordered("beta_min", "beta_max", beta_min=self.beta_min, beta_max=self.beta_max)
        check_positive(t_max=self.t_max)

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self._integral(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(t)))


@dataclass(frozen=True)
class SubVP(Process):
    """Sub-VP: the drift of VP with a variance that stays below it; better likelihoods.

    alpha = exp(-B/2), sigma = 1 - exp(-B), B as in `VP`, t in [0, 1]. Song et al. 2021 (2011.13456), equation 37.

    Args:
        beta_min, beta_max: the rate of noising at t = 0 and at t = 1, positive and rising.
        t_max: where the clock ends, in its own time.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_ordered("beta_min", "beta_max", beta_min=self.beta_min, beta_max=self.beta_max)
        check_positive(t_max=self.t_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * VP._integral(self, t))  # type: ignore[arg-type]

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-VP._integral(self, t))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Cosine(Process):
    """Cosine: the signal fades as a cosine, slowest at both ends of the clock.

    alpha = cos(w (t + s)) / cos(w s), w = (pi/2)/(1 + s), sigma^2 = 1 - alpha^2, t in [0, 1]. The signal is exactly
    gone at t = 1, where noise prediction cannot work: predict v, or stop the clock before with t_max=0.99.
    Nichol & Dhariwal 2021 (2102.09672), equation 17, with s = 0.008.

    Args:
        s: keeps the noise from growing too slowly near the data, positive.
        t_max: where the clock ends, at most 1, where no signal is left.
    """

    s: float = 0.008
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_positive(s=self.s, t_max=self.t_max)
        if self.t_max > 1:
            raise InputError(f"t_max={self.t_max!r} must be at most 1, where the cosine reaches zero.")

    def alpha(self, t: Tensor) -> Tensor:
        w = 0.5 * math.pi / (1 + self.s)
        # cos(w(t+s)) written as sin(w(1-t)), which is exactly zero at t = 1
        return torch.sin(w * (1 - t)) / math.cos(w * self.s)

    def sigma(self, t: Tensor) -> Tensor:
        w = 0.5 * math.pi / (1 + self.s)
        # cos^2 A - cos^2 B = sin(B - A) sin(B + A) keeps the digits that 1 - alpha^2 loses near t = 0
        return torch.sqrt(torch.sin(w * t) * torch.sin(w * (t + 2 * self.s))) / math.cos(w * self.s)


@dataclass(frozen=True)
class VE(Process):
    """Variance exploding: the data stay put, noise grows geometrically.

    alpha = 1, sigma^2 = sigma_min^2 ((sigma_max/sigma_min)^(2t) - 1), t in [0, 1]: the exact kernel of Song's SDE,
    which starts from the data themselves. Song et al. 2021 (2011.13456), equation 30, states it up to the constant
    sigma_min^2, that is, from data that already carry noise sigma_min.

    Args:
        sigma_min, sigma_max: the smallest and the largest noise, in the units of model space, positive and rising.
        t_max: where the clock ends, in its own time.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_ordered("sigma_min", "sigma_max", sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        check_positive(t_max=self.t_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.sqrt(torch.expm1(2 * math.log(self.sigma_max / self.sigma_min) * t))


@dataclass(frozen=True)
class EDM(Process):
    """EDM: time is the noise level itself, alpha = 1 and sigma = t. Karras et al. 2022 (2206.00364).

    Args:
        t_max: the largest noise, in the units of model space.
    """

    t_max: float = 80.0

    def __post_init__(self) -> None:
        check_positive(t_max=self.t_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t * torch.ones_like(t)


@dataclass(frozen=True)
class OU(Process):
    """Ornstein-Uhlenbeck at unit speed, dX = -X dt + sqrt(2) dB: alpha = exp(-t), sigma^2 = 1 - exp(-2t).

    Uhlenbeck & Ornstein 1930; as a generative model see Chen et al. 2022 (2209.11215).

    Args:
        t_max: where the clock ends; at 5 a signal of exp(-5) is left.
    """

    t_max: float = 5.0

    def __post_init__(self) -> None:
        check_positive(t_max=self.t_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-t)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-2 * t))


@dataclass(frozen=True)
class Flow(Process):
    """Linear interpolation from data to noise, alpha = 1 - t and sigma = t: flow matching and rectified flow.

    Lipman et al. 2023 (2210.02747), Liu et al. 2023 (2209.03003); their time runs the other way. No signal is left at
    t = 1, where noise prediction cannot work: predict the velocity, v or x0.

    Args:
        t_max: where the clock ends, at most 1, where no signal is left.
    """

    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_positive(t_max=self.t_max)
        if self.t_max > 1:
            raise InputError(f"t_max={self.t_max!r} must be at most 1, where the interpolation ends.")

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t * torch.ones_like(t)
