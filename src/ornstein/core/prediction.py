"""One prediction, six readings.

A network in a diffusion model sees x_t = alpha x_0 + sigma eps and outputs F. What F *means* is a matter of
convention, and every convention in use is linear,

    x0 = skip * x_t + out * F,

with skip and out read off the noise level:

    F is       skip                                 out
    x0         0                                    1
    eps        1/alpha                              -sigma/alpha
    score      1/alpha                              sigma^2/alpha                    grad log q(x_t)
    v          alpha/(alpha^2+sigma^2)              -sigma/(alpha^2+sigma^2)         Salimans & Ho 2022 (2202.00512)
    velocity   -sigma'/(alpha' sigma-alpha sigma')  sigma/(alpha' sigma-alpha sigma')  probability-flow drift
    edm        alpha s^2/(alpha^2 s^2+sigma^2)      sigma s/sqrt(alpha^2 s^2+sigma^2)  s = sigma_data; 2206.00364

So parameterisation and preconditioning are one idea. The best x0 in mean square is the posterior mean E[x0 given
x_t], from which all else follows; Tweedie's formula E[x0 given x_t] = (x_t + sigma^2 grad log q(x_t))/alpha is the
third row.

The error of F is the error of x0 divided by |out|: |F - F*|^2 = |x0_hat - x0|^2 / out^2. Every loss in use is therefore
one regression of x0 under some weight.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ornstein.core.process import Level, Number
from ornstein.errors import InputError


def _velocity(level: Level, s: float) -> tuple[Number, Number]:
    alpha_rate, sigma_rate = level.rates
    wronskian = alpha_rate * level.sigma - level.alpha * sigma_rate
    return -sigma_rate / wronskian, level.sigma / wronskian


def _v(level: Level, s: float) -> tuple[Number, Number]:
    total = level.alpha * level.alpha + level.sigma * level.sigma
    return level.alpha / total, -level.sigma / total


def _edm(level: Level, s: float) -> tuple[Number, Number]:
    total = (level.alpha * s) ** 2 + level.sigma * level.sigma
    return level.alpha * s**2 / total, level.sigma * s / total**0.5


#: readings of the noise, from which x0 is had by dividing by alpha: they say nothing of it where no signal is left
OF_THE_NOISE = ("eps", "score")
#: what a network's output can mean: name -> (level, sigma_data) -> (skip, out)
READINGS: dict[str, Callable[[Level, float], tuple[Number, Number]]] = {
    "x0": lambda level, s: (0.0, 1.0),
    "eps": lambda level, s: (level.inverse_alpha, -level.noise_ratio),
    "score": lambda level, s: (level.inverse_alpha, level.sigma * level.noise_ratio),
    "v": _v,
    "velocity": _velocity,
    "edm": _edm,
}


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a denoiser says of x_t: the posterior mean, and every other reading of it.

    Attributes:
        x0: E[x_0 given x_t], (B, ...), float32 at least, in model space.
        xt: the noisy data it was made from, same shape.
        level: the noise level of xt.
        log_var: where a network has learned it, the log variance of the reverse transition, same shape, as its place
            between two ends that depend on the step: 0 for the posterior's own variance, 1 for the step's b^2. See
            `log_variance`.
    """

    x0: Tensor
    xt: Tensor
    level: Level
    log_var: Tensor | None = None

    def log_variance(self, log_small: Number, log_large: Number) -> Tensor:
        """The learned log variance of a step, like xt, from those of its ends (Nichol & Dhariwal 2021, equation 15).

        Raises:
            InputError: the denoiser has not learned any.
        """
        if self.log_var is None:
            raise InputError("variance='learned' needs a denoiser that predicts one: learns_variance=True.")
        return log_small + self.log_var * (log_large - log_small)

    @property
    def eps(self) -> Tensor:
        """E[eps given x_t], the noise: (x_t - alpha x0)/sigma."""
        return (self.xt - self.level.alpha * self.x0) / self.level.sigma

    @property
    def score(self) -> Tensor:
        """grad log q(x_t) = -eps/sigma."""
        return (self.level.alpha * self.x0 - self.xt) / (self.level.sigma * self.level.sigma)

    @property
    def v(self) -> Tensor:
        """alpha eps - sigma x0."""
        return self.level.alpha * self.eps - self.level.sigma * self.x0

    @property
    def velocity(self) -> Tensor:
        """dx/dt of the probability-flow ODE: alpha' x0 + sigma' eps = f x - g^2 score/2."""
        alpha_rate, sigma_rate = self.level.rates
        return alpha_rate * self.x0 + sigma_rate * self.eps

    def read(self, reading: str, sigma_data: float = 1.0) -> Tensor:
        """The output F that a network of this reading would have given: (x0 - skip x_t)/out."""
        skip, out = READINGS[reading](self.level, sigma_data)
        return (self.x0 - skip * self.xt) / out
