"""Exponential integrators: solve exactly what is known, approximate only the network.

With lambda = log(alpha/sigma) as time, the probability-flow ODE has the exact solution

    x_s = (sigma_s/sigma_t) x_t + sigma_s * integral from lambda_t to lambda_s of e^lambda x0(x_lambda, lambda)
    dlambda.

Only x0 inside the integral is unknown. Freezing it at its value at t gives DDIM; extrapolating it linearly through
the last two values gives DPM-Solver++(2M), second order for one call a step (Lu et al. 2022, 2211.01095).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ornstein.core.drive import Ask, Stepper
from ornstein.core.process import Level


@dataclass(frozen=True)
class DPMpp2M(Stepper):
    """DPM-Solver++(2M): a two-step exponential integrator in log-SNR. Lu et al. 2022 (2211.01095), algorithm 2.

    The first step, and one from exactly no signal, is DDIM's.

    Order 2. One call a step. Deterministic.
    """

    order: ClassVar[int] = 2

    def step(
        self, denoiser: Ask, x: Tensor, t: Level, s: Level, memory: Any, noise: Callable[[], Tensor]
    ) -> tuple[Tensor, Any]:
        x0 = denoiser(x, t).x0
        lambda_t, lambda_s = 0.5 * t.log_snr, 0.5 * s.log_snr
        ahead = x0
        if memory is not None:
            previous, lambda_previous = memory
            if lambda_previous > -math.inf:
                weight = (lambda_s - lambda_t) / (2 * (lambda_t - lambda_previous))
                ahead = (1 + weight) * x0 - weight * previous
        ratio = s.sigma / t.sigma
        return ratio * x + (s.alpha - ratio * t.alpha) * ahead, (x0, lambda_t)
