"""The reverse-time stochastic differential equation.

Anderson (1982) showed that a diffusion dX = f X dt + g dB run backwards is a diffusion again, with the score in its
drift. It is one of a family: for every eta >= 0,

    dX = (f X - (1 + eta^2)/2 g^2 score) dt + eta g dB        (dt negative)

has the same marginals q_t, from the probability-flow ODE at eta = 0, through Anderson's equation at eta = 1, to any
amount of noise: the noise, and the score that makes up for it, are Langevin dynamics at level t. Song et al. 2021
(2011.13456) put a learned score there. Any discretisation is a sampler:

*Euler & Maruyama*, on the process's own clock.

*Reverse diffusion* (their appendix E). The forward chain x_t = a x_s + b z is a step f = (a - 1) x with noise b; the
same step back is x_s = x_t + (1 - a) x_t + (1 + eta^2)/2 b^2 score + eta b z. Stepping back by the posterior instead
is ancestral sampling: `ornstein.samplers.ancestral`.

*Exponential.* In lambda = log(alpha/sigma) the linear part is solved exactly, noise included (Lu et al. 2022,
2211.01095; Gonzalez et al. 2023, 2305.14267): with h = lambda_s - lambda_t,

    x_s = (sigma_s/sigma_t) exp(-eta^2 h) x_t + alpha_s (1 - exp(-(1 + eta^2) h)) x0
          + sigma_s sqrt(1 - exp(-2 eta^2 h)) z.

*Noise of one path.* With `path=True` z is not fresh noise but the increment of one Brownian motion per seed, read in
the clock (alpha/sigma)^(2 eta^2), in which the noise term above is exactly such an increment. As the grid is refined
the sample itself then converges, not only its distribution.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ornstein.core.drive import Ask, Noise, Stepper
from ornstein.core.process import Level
from ornstein.errors import InputError


@dataclass(frozen=True)
class _Reverse(Stepper):
    """What the discretisations share: how much noise, and from where."""

    eta: float = 1.0
    path: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.eta < math.inf:
            raise InputError(f"eta={self.eta!r} must not be negative: 0 is the ODE, 1 Anderson's reverse equation.")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def noisy(self, x: Tensor, scale: float, t: Level[float], s: Level[float], noise: Noise) -> Tensor:
        """x + scale z."""
        if scale == 0.0:
            return x
        return x.add_(noise.between(t, s, self.eta**2) if self.path else noise(), alpha=scale)


@dataclass(frozen=True)
class EulerMaruyama(_Reverse):
    """Euler-Maruyama on the reverse-time SDE, on the process's own clock. Song et al. 2021 (2011.13456), section 4.

    It needs many steps; `dpm++2m-sde` makes better use of few. From exactly no signal, where the drift is infinite, the
    step is the exponential one of the module, which is exact there for the answer that it has.

    Args:
        eta: noise level, 0 for the ODE, 1 for Anderson's equation, or more.
        path: take the noise from one Brownian path per seed, so that a sample stays the same as steps are added.

    Order 1. One call a step. Stochastic where eta > 0.
    """

    order: ClassVar[int] = 1

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        if t.alpha == 0.0:
            ratio = s.sigma / t.sigma if self.eta == 0 else 0.0  # exp(-eta^2 h), h infinite
            fresh = float(s.sigma) if self.eta > 0 else 0.0
            return self.noisy(ratio * x + s.alpha * denoiser(x, t).x0, fresh, t, s, noise), None
        p, dt = denoiser(x, t), s.t - t.t
        g2 = t.g2
        # f x - (1 + eta^2)/2 g^2 score = velocity - eta^2/2 g^2 score
        drift = p.velocity - 0.5 * self.eta**2 * g2 * p.score
        return self.noisy(x + dt * drift, self.eta * math.sqrt(-dt * g2), t, s, noise), None


@dataclass(frozen=True)
class ReverseDiffusion(_Reverse):
    """The chain's own step, reversed: Song et al. 2021 (2011.13456), equation 46, for any process.

    Args:
        eta: noise level, 0 for the ODE, 1 for Anderson's equation, or more.
        path: take the noise from one Brownian path per seed, so that a sample stays the same as steps are added.

    Order 1. One call a step. Stochastic where eta > 0.
    """

    order: ClassVar[int] = 1

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        a, b2 = t.kernel_from(s)
        mean = (2 - a) * x + 0.5 * (1 + self.eta**2) * b2 * denoiser(x, t).score
        return self.noisy(mean, self.eta * math.sqrt(b2), t, s, noise), None


@dataclass(frozen=True)
class DPMpp2MSDE(_Reverse):
    """SDE-DPM-Solver++(2M): the reverse SDE by a two-step exponential integrator. Lu et al. 2022 (2211.01095).

    With eta = 0 it is DPM-Solver++(2M). The first step, and one from exactly no signal, goes by one answer.

    Args:
        eta: noise level, 0 for the ODE, 1 for Anderson's equation, or more.
        path: take the noise from one Brownian path per seed, so that a sample stays the same as steps are added.

    Order 2. One call a step. Stochastic where eta > 0.
    """

    order: ClassVar[int] = 2

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        x0 = denoiser(x, t).x0
        lambda_t, lambda_s = 0.5 * t.log_snr, 0.5 * s.log_snr
        h, eta2 = lambda_s - lambda_t, self.eta**2
        decay = s.sigma / t.sigma * math.exp(-eta2 * h)
        # alpha_s (1 - exp(-(1 + eta^2) h)), finite too where h is not
        new = -s.alpha * math.expm1(-(1 + eta2) * h)
        after = decay * x
        if memory is not None and memory[1] > -math.inf:
            previous, lambda_previous = memory
            weight = h / (2 * (lambda_t - lambda_previous))
            after.add_(x0, alpha=new * (1 + weight)).add_(previous, alpha=-new * weight)
        else:
            after.add_(x0, alpha=new)
        spread = s.sigma * math.sqrt(-math.expm1(-2 * eta2 * h)) if eta2 > 0 else 0.0
        return self.noisy(after, spread, t, s, noise), (x0, lambda_t)
