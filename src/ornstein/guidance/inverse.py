"""Inverse problems: samples of x_0 given a measurement y = A x_0 + noise, by a denoiser that was trained without A.

What is needed is the gradient of log p(y given x_t), and p(y given x_t) is an integral over all x_0 that may lie under
x_t. Take x_0 given x_t as Gaussian, with the denoiser's answer x0 as its mean and some covariance C. Then y given x_t
is N(A x0, s^2 I + A C A^T) for noise of standard deviation s, and by Tweedie's formula

    E[x_0 given x_t, y] = x0 + V A^T (s^2 I + A C A^T)^{-1} (y - A x0),       V = (sigma^2/alpha) (d x0/d x_t)^T.

V is not a further guess: the derivative of the posterior mean *is* the posterior covariance, V = Cov[x_0 given x_t],
and V A^T u costs one backward pass. With C = V the formula is Kalman's update, exact if x_0 given x_t is Gaussian: for
a Gaussian prior at every noise level, for any smooth prior at low noise. The methods of the literature are this formula
with other quantities in place of one V or both. With rho^2 = s_d^2 sigma^2/(alpha^2 s_d^2 + sigma^2), the variance that
uncorrelated data of standard deviation s_d would have left given x_t:

    method            outer V   inner C                   from
    replacement       rho^2     rho^2                     Song et al. 2021; DDNM, Wang et al. 2022 (2212.00490)
    dps               V         from the residual's size  Chung et al. 2022 (2209.14687)
    pigdm             V         rho^2                     Song et al. 2023, "Pseudoinverse-guided diffusion models"
    moment-matching   V         V                         Boys et al. 2023 (2310.06721), Rozet et al. 2024 (2405.13712)

An A that is not linear is replaced by its tangent at x0. Without noise (s = 0), if A is linear, the answer is finally
projected, x0 + A^+(y - A x0), which leaves the true answer unchanged: what was measured comes back exactly.

How far each is from the exact posterior of Gaussian mixtures is measured in docs/guidance.md.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.copies import beside
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Number
from ornstein.errors import InputError
from ornstein.guidance.contract import Guidance
from ornstein.guidance.gradient import Graph, gain
from ornstein.guidance.operators import Operator, gmres

#: u -> V A^T u: measurements (B, *measured) to data (B, *shape)
Spread = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Measurement:
    """y = A x_0 + noise, in model space.

    Args:
        operator: A, one of `OPERATORS` or any `Operator`.
        y: (1, *measured), the same for every sample, or (B, *measured), one for each.
        noise: standard deviation of the noise, the same in every entry; 0 for none.

    Raises:
        InputError: a noise that is not a number of at least 0, a y that is not finite.
    """

    operator: Operator
    y: Tensor
    noise: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.noise, bool) or not isinstance(self.noise, int | float) or not 0 <= self.noise < math.inf:
            raise InputError(f"noise={self.noise!r} must be a standard deviation of at least 0.")
        if not bool(torch.isfinite(self.y).all()):
            raise InputError("y has entries that are not finite; leave them out with a Mask.")

    def residual(self, x0: Tensor) -> Tensor:
        """y - A x0, (B, *measured).

        Raises:
            InputError: y does not fit.
        """
        measured = self.operator.apply(x0)
        return self._seen(measured) - measured

    def exactly(self, x0: Tensor) -> Tensor:
        """The nearest data to x0 with this measurement, if it was made without noise and A is linear; else x0."""
        if self.noise > 0 or not self.operator.linear:
            return x0
        return self.operator.project(x0, self._seen(self.operator.apply(x0.detach())))

    def _seen(self, like: Tensor) -> Tensor:
        if self.y.shape[1:] != like.shape[1:] or len(self.y) not in (1, len(like)):
            raise InputError(
                f"y has shape {tuple(self.y.shape)}; {self.operator!r} measures {tuple(like.shape)} here, so it must "
                "be that, or that with one row."
            )
        return beside(self.y, like)


def left_uncertain(level: Level, sigma_data: float) -> Number:
    """rho^2, the variance of x_0 given x_t of white data; (B, 1, ..., 1) for a level of each sample."""
    noise = level.sigma * level.sigma
    return sigma_data**2 * noise / ((level.alpha * sigma_data) ** 2 + noise)


@dataclass(frozen=True, eq=False)
class Replacement(Guidance):
    """What was measured replaces what is predicted there; the rest stays (DDNM: Wang et al. 2022, 2212.00490).

    Without noise x0 is projected on A x = y; with noise it moves as far as uncorrelated data would. One call, no
    gradient. The rest is affected only through x_t, from the next call on.

    Args:
        base: the denoiser to guide.
        measurement: what was measured, by a linear operator.

    Raises:
        InputError: an operator that is not linear.
    """

    measurement: Measurement

    def __post_init__(self) -> None:
        if not self.measurement.operator.linear:
            raise InputError(
                f"operator={self.measurement.operator!r} is not linear: take 'dps', 'pigdm' or 'moment-matching'."
            )

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        base = self.base.predict(x, level, condition)
        if self.measurement.noise == 0:
            return Prediction(self.measurement.exactly(base.x0), x, level, base.log_var)
        operator, left = self.measurement.operator, left_uncertain(level, self.sigma_data)
        weighed = operator.solve(self.measurement.residual(base.x0), base.x0, self.measurement.noise**2, left)
        return Prediction(base.x0 + left * operator.adjoint(weighed, base.x0), x, level, base.log_var)


@dataclass(frozen=True, eq=False)
class Kalman(Guidance, ABC):
    """The update x0 + V A^T (s^2 I + A C A^T)^{-1} (y - A x0); a subclass says what C is.

    Args:
        base: the denoiser to guide.
        measurement: what was measured.
    """

    measurement: Measurement

    @abstractmethod
    def weigh(self, operator: Operator, residual: Tensor, x0: Tensor, level: Level, spread: Spread) -> Tensor:
        """(s^2 I + A C A^T)^{-1} residual, like residual.

        Args:
            operator: A, or its tangent at x0.
            residual: y - A x0, (B, *measured).
            x0: (B, *shape).
            level: the noise level.
            spread: u -> V A^T u, (B, *measured) to (B, *shape), a backward pass each.
        """

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        with Graph(x, condition) as graph:
            base = self.base.predict(graph.x, level, graph.condition)
            at = base.x0 if graph.nested else base.x0.detach()
            operator = self.measurement.operator.tangent(at)

            def spread(u: Tensor) -> Tensor:
                return graph.gradient(base.x0, operator.adjoint(u, at)) * gain(level)

            moved = at + spread(self.weigh(operator, self.measurement.residual(at), at, level, spread))
            return graph.prediction(self.measurement.exactly(moved), base, x, level)


@dataclass(frozen=True, eq=False)
class DPS(Kalman):
    """Diffusion posterior sampling: the gradient of |y - A x0|^2 through the denoiser (Chung et al. 2022, 2209.14687).

    The paper divides its step by the residual's norm, with a factor that is tuned for the number of steps. Here the
    same rule is written independently of the stepper: the inner covariance is s^2 + rho |y - A x0|/(scale sqrt(m))
    for m measurements, so that a step stays within `scale` of what is left uncertain, whatever the residual.

    Args:
        scale: positive; larger follows the measurement more closely.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise InputError(f"scale={self.scale!r} must be positive.")

    def weigh(self, operator: Operator, residual: Tensor, x0: Tensor, level: Level, spread: Spread) -> Tensor:
        size = (residual.flatten(1).square().sum(1) / operator.count(residual)).sqrt()
        rho = left_uncertain(level, self.sigma_data) ** 0.5
        variance = self.measurement.noise**2 + size * (rho.flatten() if isinstance(rho, Tensor) else rho) / self.scale
        variance = variance.clamp(min=torch.finfo(residual.dtype).tiny)
        return residual / variance.reshape(-1, *[1] * (residual.ndim - 1))


@dataclass(frozen=True, eq=False)
class PiGDM(Kalman):
    """Pseudoinverse guidance: x_0 given x_t taken as white inside, C = rho^2 I (Song et al. 2023, ICLR).

    One backward pass a call; (s^2 I + rho^2 A A^T)^{-1} is in closed form for the operators that have one.
    """

    def weigh(self, operator: Operator, residual: Tensor, x0: Tensor, level: Level, spread: Spread) -> Tensor:
        left = left_uncertain(level, self.sigma_data)
        return operator.solve(residual, x0, self.measurement.noise**2, left)


@dataclass(frozen=True, eq=False)
class MomentMatching(Kalman):
    """The covariance of x_0 given x_t from the denoiser's own derivative (Boys et al. 2023; Rozet et al. 2024).

    s^2 I + A V A^T is inverted by GMRES, one backward pass an iteration, since a learned derivative is not quite
    symmetric. If PiGDM's inverse is available it serves as a preconditioner, so that the iterations only have to
    correct what PiGDM wrongly takes for white. Exact for Gaussian data, with as many iterations as there are distinct
    eigenvalues (at most the number of measurements).

    Args:
        iterations: at least 1. A few are enough for images: the first ones find the directions that matter.
    """

    iterations: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise InputError(f"iterations={self.iterations!r} must be a whole number of at least 1.")

    def weigh(self, operator: Operator, residual: Tensor, x0: Tensor, level: Level, spread: Spread) -> Tensor:
        ridge, left = self.measurement.noise**2, left_uncertain(level, self.sigma_data)

        def white(u: Tensor) -> Tensor:
            closed = type(operator).solve is not Operator.solve
            return operator.solve(u, x0, ridge, left) if closed else u

        def product(u: Tensor) -> Tensor:
            v = white(u)
            return ridge * v + operator.apply(spread(v))

        return white(gmres(product, residual, self.iterations))
