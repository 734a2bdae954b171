"""Pseudo-numerical multistep: the weights of Adams & Bashforth on the transfer of DDIM.

Liu et al. 2022 (2202.09778) split a step into a *gradient part*, a mean of the last noises with the weights that Adams
and Bashforth derived for equal steps,

    e = eps_0,      (3 eps_0 - eps_1)/2,      (23 eps_0 - 16 eps_1 + 5 eps_2)/12,
        (55 eps_0 - 59 eps_1 + 37 eps_2 - 9 eps_3)/24,

and a *transfer part*, DDIM's step with e for the noise. It is the scheduler that latent diffusion came with. The steps
of DDIM are steps in u = sigma/alpha, and where they are not equal the weights are those of another grid: the order is
then 2, however many noises are mixed. `deis` computes the weights of the grid that there is.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ornstein.core.drive import Ask, Noise, Stepper
from ornstein.core.process import Level

_WEIGHTS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


@dataclass(frozen=True)
class PLMS(Stepper):
    """PLMS, the multistep method of PNDM: fixed weights on the last four noises. Liu et al. 2022 (2202.09778).

    It starts with the methods of fewer noises in place of PNDM's twelve calls. From sigma/alpha beyond 32, where
    extrapolated noise drowns in rounding, its steps are DDIM's.

    Order 2. One call a step. Deterministic.
    """

    order: ClassVar[int] = 2

    def step(self, denoiser: Ask, x: Tensor, t: Level, s: Level, memory: Any, noise: Noise) -> tuple[Tensor, Any]:
        prediction = denoiser(x, t)
        ratio = s.sigma / t.sigma
        # DDIM's step; then what the mean noise adds to the last
        after = torch.add(ratio * x, prediction.x0, alpha=float(s.alpha - ratio * t.alpha))
        if t.noise_ratio > 32:
            return after, None
        noises = (prediction.eps, *(memory or ()))
        transfer = float(s.sigma - s.alpha * t.noise_ratio)
        first, *weights = _WEIGHTS[len(noises) - 1]
        if weights:
            after.add_(noises[0], alpha=transfer * (first - 1))
            for weight, eps in zip(weights, noises[1:], strict=True):
                after.add_(eps, alpha=transfer * weight)
        return after, noises[:3]
