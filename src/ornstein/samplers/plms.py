"""Pseudo-numerical methods: the weights of Adams & Bashforth, or of Runge & Kutta, on the transfer of DDIM.

Liu et al. 2022 (2202.09778, PNDM) split a step into a *transfer part*, DDIM's step with some noise e,

    x_s = (alpha_s/alpha_t) x_t + (sigma_s - alpha_s sigma_t/alpha_t) e,

and a *gradient part*, which says what e is. In PLMS it is a mean of the last noises with the weights that Adams and
Bashforth derived for equal steps,

    e = eps_0,      (3 eps_0 - eps_1)/2,      (23 eps_0 - 16 eps_1 + 5 eps_2)/12,
        (55 eps_0 - 59 eps_1 + 37 eps_2 - 9 eps_3)/24.

It is the scheduler that latent diffusion came with. Four noises are known from the fourth step on. Until then PLMS uses
the methods of fewer noises; PNDM proper spends four calls a step on Kutta's weights, from noises halfway in time and at
the end, each found by the transfer from x_t with the noise before it:

    e = (eps_t + 2 eps_h + 2 eps_h' + eps_s)/6.

The steps of DDIM are steps in u = sigma/alpha, and where they are not equal, or where halfway in time is not halfway in
u, the weights are those of another grid: the order is then 2, however many noises are mixed. `deis` computes the
weights for the actual grid.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ornstein.core.drive import Ask, Noise, Stepper
from ornstein.core.process import Level
from ornstein.errors import InputError

_WEIGHTS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
#: noise ratios, in units of sigma_data, beyond which mixed noises drown in rounding: of Adams & Bashforth, whose
#: weights add up to 6.7 without their signs, and of Runge & Kutta, whose add up to 1
_MIXED_BELOW, _AVERAGED_BELOW = 32.0, 200.0


@dataclass(frozen=True)
class PLMS(Stepper):
    """PLMS, and with another start PNDM: fixed weights on the last four noises. Liu et al. 2022 (2202.09778).

    From sigma/alpha beyond 32 sigma_data, where extrapolated noise drowns in rounding, steps of PLMS are DDIM's; beyond
    200 those of the Runge-Kutta start are too, and it begins thereafter.

    Args:
        start: how the first three steps are taken. "lower-order": PLMS, with the methods of fewer noises;
            "runge-kutta": PNDM, by pseudo Runge-Kutta steps of four calls each.

    Raises:
        InputError: an unknown start.

    Order 2. One call a step; as PNDM four in each of the first three. Deterministic.
    """

    start: str = "lower-order"
    order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.start not in ("lower-order", "runge-kutta"):
            raise InputError(f"start={self.start!r} must be 'lower-order' (PLMS) or 'runge-kutta' (PNDM).")

    @property
    def calls(self) -> int | None:
        return 1 if self.start == "lower-order" else None

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        first = denoiser(x, t)

        def transfer(to: Level[float], *mixed: tuple[float, Tensor]) -> Tensor:
            """DDIM's step from t; then what the mean noise, less the first, adds to it."""
            ratio = to.sigma / t.sigma
            after = torch.add(ratio * x, first.x0, alpha=to.alpha - ratio * t.alpha)
            for weight, eps in mixed:
                after.add_(eps, alpha=(to.sigma - to.alpha * t.noise_ratio) * weight)
            return after

        # Runge-Kutta steps still to be made, and the noises so far, the latest first
        left, noises = memory or (3 if self.start == "runge-kutta" else 0, ())
        if t.noise_ratio > (_AVERAGED_BELOW if left else _MIXED_BELOW) * denoiser.unit:
            return transfer(s), (left, ())
        noises = (first.eps, *noises)
        if left:
            half = denoiser.process.at((t.t + s.t) / 2)
            second = denoiser(transfer(half), half).eps
            third = denoiser(transfer(half, (1.0, second), (-1.0, first.eps)), half).eps
            fourth = denoiser(transfer(s, (1.0, third), (-1.0, first.eps)), s).eps
            weights = ((-5 / 6, first.eps), (1 / 3, second), (1 / 3, third), (1 / 6, fourth))
            return transfer(s, *weights), (left - 1, noises)
        own, *others = _WEIGHTS[len(noises) - 1]
        mixed = ((own - 1, first.eps), *zip(others, noises[1:], strict=True)) if others else ()
        return transfer(s, *mixed), (0, noises[:3])
