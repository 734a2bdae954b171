"""The probability-flow ODE, by Euler and by Heun.

The marginals q_t of a noising process also solve an ordinary differential equation,

    dx/dt = f x - g^2 score/2 = alpha' x0(x, t) + sigma' eps(x, t),

whose right-hand side is the velocity of flow matching (Song et al. 2021, 2011.13456, section 4.3; Lipman et al. 2023,
2210.02747). Following it from noise to data draws a sample without drawing any more noise.

`Euler` steps it on the process's own clock. A change of scale and clock changes what a method of finite order does,
though not the equation; two choices of variables are good ones for `Heun`:

    "flow"   z = x/(s alpha + sigma)  against  u = sigma/(s alpha + sigma),     dz/du = eps - x0/s
    "edm"    y = x/alpha              against  u = sigma/alpha,                 dy/du = eps

with s = sigma_data, so that data in other units are solved alike. In both, Euler's step is DDIM's, and Heun corrects it
by half the change of the right-hand side. The second are those of Karras et al. 2022 (2206.00364); there u has no
bound, and from much noise a long step multiplies a small error of eps by it. The first have both ends finite.

*Churn* (their algorithm 2) adds a little noise before a step, moving back up to u(1 + gamma), and so corrects what
earlier steps got wrong, as Langevin dynamics would.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ornstein.core.drive import Ask, Noise, Stepper
from ornstein.core.process import Level
from ornstein.errors import InputError


@dataclass(frozen=True)
class _Flow(Stepper):
    """What every solver of the ODE shares: churn, then one step, which a subclass writes as `follow`."""

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.churn <= math.sqrt(2) - 1:
            raise InputError(
                f"churn={self.churn!r} must be in [0, sqrt(2) - 1], the share that sigma/alpha is raised by."
            )
        if not 0 <= self.churn_min <= self.churn_max:
            raise InputError(
                f"churn_min={self.churn_min!r} and churn_max={self.churn_max!r} must be ordered and not negative."
            )
        if not self.noise_scale > 0:
            raise InputError(f"noise_scale={self.noise_scale!r} must be positive.")

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        u = t.noise_ratio / denoiser.unit
        if self.churn > 0 and u < math.inf and self.churn_min <= u <= self.churn_max:
            higher = denoiser.process.at(denoiser.process.time(t.log_snr - 2 * math.log1p(self.churn)))
            a, b2 = higher.kernel_from(t)
            x, t = a * x + math.sqrt(max(b2, 0.0)) * self.noise_scale * noise(), higher
        return self.follow(denoiser, x, t, s), None

    @abstractmethod
    def follow(self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float]) -> Tensor:
        """x at level s, along the ODE from x at level t."""


@dataclass(frozen=True)
class Euler(_Flow):
    """Euler's method on the probability-flow ODE, on the process's own clock: the usual sampler of flow matching.

    Args:
        churn: share in [0, 0.41] by which the noise ratio is raised before each step; 0 is the plain ODE.
        churn_min, churn_max: the noise ratios sigma/(alpha sigma_data) between which to churn.
        noise_scale: scale of the churned noise, S_noise; slightly above 1 makes up for a denoiser that removes too
            much.

    Order 1. One call a step. Deterministic without churn.
    """

    order: ClassVar[int] = 1

    def follow(self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float]) -> Tensor:
        return x + (s.t - t.t) * denoiser(x, t).velocity


@dataclass(frozen=True)
class Heun(_Flow):
    """Heun's method on the probability-flow ODE, in the variables of flow matching or of EDM, with EDM's churn.

    Karras et al. 2022 (2206.00364), algorithms 1 and 2, are `Heun(variables="edm")`. In those variables the step from
    exactly no signal (sigma/alpha infinite) is DDIM's.

    Args:
        variables: those of the ODE, "flow" or "edm"; see `ornstein.samplers.flow`.
        churn: share in [0, 0.41] by which the noise ratio is raised before each step (the paper's S_churn/steps).
        churn_min, churn_max: the noise ratios sigma/(alpha sigma_data) between which to churn: S_tmin and S_tmax over
            sigma_data, 0.5 in the paper.
        noise_scale: scale of the churned noise, S_noise.

    Order 2. Two calls a step. Deterministic without churn.
    """

    variables: str = "flow"
    order: ClassVar[int] = 2
    calls: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.variables not in ("flow", "edm"):
            raise InputError(f"variables={self.variables!r} must be 'flow' or 'edm'.")
        super().__post_init__()

    def follow(self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float]) -> Tensor:
        here = denoiser(x, t)
        ratio = s.sigma / t.sigma
        euler = ratio * x + (s.alpha - ratio * t.alpha) * here.x0
        if self.variables == "flow":
            unit = denoiser.unit
            there, total = denoiser(euler, s), unit * s.alpha + s.sigma
            half = 0.5 * (s.sigma - total * t.sigma / (unit * t.alpha + t.sigma))  # half the step of u, at x's scale
            return euler + half * ((there.eps - there.x0 / unit) - (here.eps - here.x0 / unit))
        if t.noise_ratio == math.inf:
            return euler
        half = 0.5 * s.alpha * (s.noise_ratio - t.noise_ratio)
        return euler + half * (denoiser(euler, s).eps - here.eps)
