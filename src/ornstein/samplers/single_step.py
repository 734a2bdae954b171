"""Single-step exponential integrators: several calls within a step, none remembered.

Lu et al. 2022 (2206.00927) expand the network's answer about lambda_t = log(alpha/sigma) and integrate the terms
exactly. With h = lambda_s - lambda_t and the noise as answer,

    x_s = (alpha_s/alpha_t) x_t - sigma_s h [ phi_1(h) eps + phi_2(h) h eps' + phi_3(h) h^2 eps'' + ... ],

primes being derivatives by lambda and phi_k(z) = (e^z - 1 - z - ... - z^(k-1)/(k-1)!)/z^k. With the data as answer
(2211.01095),

    x_s = (sigma_s/sigma_t) x_t + alpha_s h [ phi_1(-h) x0 + phi_2(-h) h x0' + phi_3(-h) h^2 x0'' + ... ].

The slope is a difference to an answer within the step, at lambda_t + r h, where x is found by the same formula. With
r = 1/2 the method has order 2; with r = 2/3, and a slope for the guess there from r = 1/3, order 3.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ornstein.core.drive import Ask, Noise, Stepper
from ornstein.core.process import Level, Process
from ornstein.errors import InputError


@lru_cache(maxsize=4096)
def level_at(process: Process, log_snr: float) -> Level[float]:
    """The level of a process with this log-SNR, found once and kept."""
    return process.at(process.time(log_snr))


def _phi(k: int, z: float) -> float:
    """(e^z - 1 - z - ... - z^(k-1)/(k-1)!)/z^k, by its series where the difference would lose its digits."""
    if abs(z) < 1.0:
        term, total, n = 1.0 / math.factorial(k), 0.0, k
        while abs(term) > 1e-18:
            total += term
            n += 1
            term *= z / n
        return total
    return (math.exp(z) - math.fsum(z**j / math.factorial(j) for j in range(k))) / z**k


@dataclass(frozen=True)
class DPMSolver(Stepper):
    """DPM-Solver-2 and -3, single step: derivatives from calls within the step. Lu et al. 2022 (2206.00927).

    From exactly no signal the step is DDIM's. Differences of the noise multiply rounding by sigma/alpha: from where
    that exceeds 32 sigma_data the data are integrated, whatever `predicts`.

    Args:
        order: 2 or 3.
        predicts: what is integrated: "eps", DPM-Solver; or "x0", DPM-Solver++(2S), (3S).

    Raises:
        InputError: another order or prediction.

    Order 3 by default, 2 if asked. As many calls a step as order. Deterministic.
    """

    order: int = 3
    predicts: str = "x0"

    def __post_init__(self) -> None:
        if self.order not in (2, 3) or isinstance(self.order, bool):
            raise InputError(f"order={self.order!r} must be 2 or 3.")
        if self.predicts not in ("x0", "eps"):
            raise InputError(f"predicts={self.predicts!r} must be 'x0' or 'eps'.")

    @property
    def calls(self) -> int:
        return self.order

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        first = denoiser(x, t)
        if t.alpha == 0.0:
            return (s.sigma / t.sigma) * x + s.alpha * first.x0, None
        by_noise = self.predicts == "eps" and t.noise_ratio <= 32 * denoiser.unit
        here = first.eps if by_noise else first.x0
        start, h = t.log_snr, 0.5 * (s.log_snr - t.log_snr)

        def expanded(to: Level[float], r: float, slope: Tensor | None = None) -> Tensor:
            """x at `to`, lambda_t + r h, from the answer here and its slope by r."""
            z = r * h if by_noise else -r * h
            kept, new = (to.alpha / t.alpha, -to.sigma * z) if by_noise else (to.sigma / t.sigma, -to.alpha * z)
            after = torch.add(kept * x, here, alpha=new * _phi(1, z))
            return after if slope is None else after.add_(slope, alpha=new * r * _phi(2, z))

        def slope(to: Level[float], r: float, guess: Tensor) -> Tensor:
            """The mean slope of the answer by r over [0, r]."""
            there = denoiser(guess, to)
            return ((there.eps if by_noise else there.x0) - here) / r

        if self.order == 2:
            middle = level_at(denoiser.process, start + h)
            return expanded(s, 1.0, slope(middle, 1 / 2, expanded(middle, 1 / 2))), None
        one, two = (level_at(denoiser.process, start + 2 * r * h) for r in (1 / 3, 2 / 3))
        early = slope(one, 1 / 3, expanded(one, 1 / 3))
        return expanded(s, 1.0, slope(two, 2 / 3, expanded(two, 2 / 3, early))), None
