"""The reverse-time stochastic differential equation.

Anderson (1982) showed that a diffusion dX = f X dt + g dB run backwards is a diffusion again, with the score in its
drift:

    dX = (f X - g^2 score) dt + g dB      (dt negative).

Song et al. 2021 (2011.13456) put a learned score there. Any discretisation of this equation is a sampler; the
plainest is Euler & Maruyama's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ornstein.core.drive import Ask, Stepper
from ornstein.core.process import Level
from ornstein.errors import InputError


@dataclass(frozen=True)
class EulerMaruyama(Stepper):
    """Euler-Maruyama on the reverse-time SDE, on the process's own clock. Song et al. 2021 (2011.13456), section 4.

    Wants many steps; `ddpm` is the better use of few. Raises InputError where it starts from exactly no signal: the
    drift is infinite there.

    Order 1. One call a step. Stochastic.
    """

    order: ClassVar[int] = 1

    @property
    def stochastic(self) -> bool:
        return True

    def step(
        self, denoiser: Ask, x: Tensor, t: Level, s: Level, memory: Any, noise: Callable[[], Tensor]
    ) -> tuple[Tensor, Any]:
        if t.alpha == 0.0:
            raise InputError(
                f"stepper='euler-maruyama' cannot start at t={t.t:g} of {t.process}: no signal is left there."
            )
        p, dt = denoiser(x, t), s.t - t.t
        g2 = t.g2
        # f x - g^2 score = velocity - g^2 score/2
        drift = p.velocity - 0.5 * g2 * p.score
        return x + dt * drift + math.sqrt(-dt * g2) * noise(), None
