"""Walking back along the chain's own posterior: DDPM, and DDIM, which contains it.

The forward chain's posterior q(x_s given x_t, x_0) is Gaussian and known. Put the denoiser's x0 in place of x_0 and
draw from it: that is ancestral sampling (Ho et al. 2020). DDIM (Song et al. 2020) uses the fact that many processes
have the same marginals q(x_t given x_0), so that training cannot tell them apart; each gives a sampler,

    x_s = alpha_s x0 + sqrt(sigma_s^2 - c^2) eps + c z,     c = eta sqrt(sigma_s^2 b^2 / sigma_t^2),

with b^2 the variance of the step from s to t. At eta = 1 this is ancestral sampling again. At eta = 0 no noise is
drawn, the map from noise to data is one to one, and the sampler is Euler's method on the probability-flow ODE in the
variables x/alpha and sigma/alpha.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ornstein.core.drive import Ask, Noise, Stepper
from ornstein.core.process import Level
from ornstein.errors import InputError


@dataclass(frozen=True)
class DDPM(Stepper):
    """Ancestral sampling: draws from the chain's posterior, x0 predicted. Ho et al. 2020 (2006.11239).

    Args:
        variance: "small", the posterior's own sigma_s^2 b^2/sigma_t^2 (right for data at a point), or "large", the
            step's b^2 (right for data N(0, I)), or "learned" between the two by the denoiser (Nichol & Dhariwal 2021,
            2102.09672). Song et al. 2021 (2011.13456, appendix F) have "small" for VE and "large" for VP.
        path: take the noise from one Brownian path per seed, so that a sample stays the same as steps are added.

    Order 1. One call a step. Stochastic.
    """

    variance: str = "small"
    path: bool = False
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.variance not in ("small", "large", "learned"):
            raise InputError(f"variance={self.variance!r} must be 'small', 'large' or 'learned'.")

    @property
    def stochastic(self) -> bool:
        return True

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        posterior, large = t.posterior(s), t.kernel_from(s)[1]
        prediction = denoiser(x, t)
        mean = posterior.from_xt * x + posterior.from_x0 * prediction.x0
        z = noise.between(t, s) if self.path else noise()
        if self.variance == "learned":
            log_variance = prediction.log_variance(math.log(posterior.variance), math.log(large))
            return mean + (0.5 * log_variance).exp() * z, None
        return mean + math.sqrt(posterior.variance if self.variance == "small" else large) * z, None


@dataclass(frozen=True)
class DDIM(Stepper):
    """Denoising diffusion implicit models: one family from deterministic (eta = 0) to ancestral (eta = 1).

    Song et al. 2020 (2010.02502), equation 12.

    Args:
        eta: in [0, 1], the share of the ancestral noise.
        path: take the noise from one Brownian path per seed, so that a sample stays the same as steps are added.

    Order 1. One call a step. Deterministic at eta = 0.
    """

    eta: float = 0.0
    path: bool = False
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta={self.eta!r} must be in [0, 1]: 0 is deterministic, 1 ancestral.")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        x0 = denoiser(x, t).x0
        fresh = self.eta**2 * t.posterior(s).variance  # c^2
        kept = math.sqrt(max(s.sigma**2 - fresh, 0.0)) / t.sigma
        # alpha_s x0 + sqrt(sigma_s^2 - c^2) eps, with eps = (x - alpha_t x0)/sigma_t put in
        after = kept * x + (s.alpha - kept * t.alpha) * x0
        if fresh > 0:
            after = after + math.sqrt(fresh) * (noise.between(t, s, self.eta**2) if self.path else noise())
        return after, None
