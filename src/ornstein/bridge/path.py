"""Paths between two data sets: what lies between a pair of ends, and what a point in between says about them.

Given a pair (x_0, x_1), one end from each data set, a *path* is the Gaussian

    x_t = alpha(t) x_0 + beta(t) x_1 + gamma(t) z,      z ~ N(0, I),

with alpha(0) = 1, beta(0) = 0 at the data (t = 0), alpha(t_max) = 0, beta(t_max) = 1 at the other end, and gamma zero
at both: a stochastic interpolant (Albergo & Vanden-Eijnden 2023, 2209.15571; Albergo, Boffi & Vanden-Eijnden 2023,
2303.08797). A noising process is the case in which the far end is N(0, I), with beta = sigma and gamma = 0. So a path
is defined by `alpha`, `beta`, `variance` = gamma^2 and `t_max`; everything else is derived here, once.

*Readings.* A point x_t determines the posterior means of both ends, x0 = E[x_0 given x_t] and x1 = E[x_1 given x_t];
that of z follows, since x_t = alpha x0 + beta x1 + gamma E[z given x_t]. Every other quantity in use is linear in x_t,
x0 and x1, with v = variance:

    reading   is                                     from x_t      from x0                 from x1
    x0                                               0             1
    x1                                               0                                     1
    eps       E[z given x_t]                         1/gamma       -alpha/gamma            -beta/gamma
    score     grad log q(x_t) = -eps/gamma           -1/v          alpha/v                 beta/v
    velocity  E[dx_t/dt given x_t]: the ODE's drift  h             alpha' - h alpha        beta' - h beta
    up        drift upward by the far end alone      alpha'/alpha                          beta' - beta alpha'/alpha
    down      drift downward by the near end alone   beta'/beta    alpha' - alpha beta'/beta

with h = v'/(2v). For any g^2 the equations dX = (velocity + g^2/2 score) dt + g dB, upward, and dX = (velocity -
g^2/2 score) dt + g dB, downward, have the path's marginals too. In each direction one choice of g^2 eliminates an end,

    upward:   g^2 = v' - 2 v alpha'/alpha,        downward:   g^2 = 2 v beta'/beta - v',

which gives the last two rows of the table. The first has f and g^2 of a noising process with sigma = gamma; the second
is the same seen from the other end. With x_0 given, the downward equation has the exact solution

    x_s = (b_s/b_t) x_t + (a_s - a_t b_s/b_t) x_0 + noise of variance v_s - (b_s/b_t)^2 v_t        (a, b: alpha, beta)

which with v = 0 is the step of DDIM. The two g^2 agree exactly if v = c alpha beta for a number c: then the path is a
linear diffusion held at both ends (Doob's h-transform), and c = b^2/a for that diffusion's kernel N(a x_0, b^2)
between them. Such paths have a Schrodinger bridge, see `ornstein.bridge.gaussian`.

References: Liu et al. 2023 (I2SB, 2302.05872); Zhou et al. 2023 (DDBM, 2309.16948); Shi et al. 2023 (2303.16852).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ornstein.core.process import Number, check_times, derivative, per_sample
from ornstein.errors import InputError, lookup


def _sqrt(value: Number) -> Number:
    return value.sqrt() if isinstance(value, Tensor) else math.sqrt(value)


def over(a: Number, b: Number) -> Number:
    """a/b, with 0/0 = 0 (nothing changes) and another number over 0 infinite, for floats as for tensors."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        ratio = torch.as_tensor(a / b)
        return torch.where(torch.as_tensor(a == 0, device=ratio.device), torch.zeros_like(ratio), ratio)
    if a == 0.0:
        return 0.0
    return a / b if b != 0.0 else math.copysign(math.inf, a)


class Row(NamedTuple):
    """A reading as xt * x_t + x0 * E[x_0] + x1 * E[x_1]; None means that it does not look at that end."""

    xt: Number
    x0: Number | None
    x1: Number | None


@dataclass(frozen=True, eq=False)
class Stage:
    """A point of a path, with every coefficient that a formula needs there. Made by `Path.at`.

    Coefficients are floats if the batch shares one time, or tensors (B, 1, ..., 1) if each sample has its own.
    """

    path: "Path"
    t: Number
    alpha: Number
    beta: Number
    variance: Number

    @cached_property
    def rates(self) -> tuple[Number, Number, Number]:
        """(alpha', beta', variance'), the derivatives by t."""
        at = torch.as_tensor(self.t, dtype=None if isinstance(self.t, Tensor) else torch.float64)
        found = [derivative(f, at) for f in (self.path.alpha, self.path.beta, self.path.variance)]
        if isinstance(self.alpha, Tensor):
            alpha, beta, variance = (rate.to(self.alpha) for rate in found)
            return alpha, beta, variance
        alpha_rate, beta_rate, variance_rate = (rate.item() for rate in found)
        return alpha_rate, beta_rate, variance_rate

    @property
    def gamma(self) -> Number:
        """The scale of the noise, in units of the data."""
        return _sqrt(self.variance)

    @property
    def g2_up(self) -> Number:
        """Squared diffusion of the upward equation whose drift is "up", in data units squared per time."""
        alpha_rate, _, variance_rate = self.rates
        return variance_rate - 2 * self.variance * over(alpha_rate, self.alpha)

    @property
    def g2_down(self) -> Number:
        """Squared diffusion of the downward equation whose drift is "down"."""
        _, beta_rate, variance_rate = self.rates
        return 2 * self.variance * over(beta_rate, self.beta) - variance_rate

    def between(self, x0: Tensor, x1: Tensor, z: Tensor) -> Tensor:
        """x_t = alpha x_0 + beta x_1 + gamma z, of the ends' shape (B, ...)."""
        return self.alpha * x0 + self.beta * x1 + self.gamma * z

    def step_to(self, s: "Stage") -> tuple[Number, Number, Number]:
        """(from_xt, from_x0, variance) of x_s given x_t and x_0, for an earlier stage `s`, by the downward equation.

        The variance can be below zero only by rounding, and is cut there.
        """
        ratio = s.beta / self.beta
        variance = s.variance - ratio * ratio * self.variance
        clipped = variance.clamp(min=0) if isinstance(variance, Tensor) else max(variance, 0.0)
        return ratio, s.alpha - self.alpha * ratio, clipped


def _velocity(stage: Stage) -> Row:
    alpha_rate, beta_rate, variance_rate = stage.rates
    h = over(variance_rate, 2 * stage.variance)
    return Row(h, alpha_rate - h * stage.alpha, beta_rate - h * stage.beta)


def _up(stage: Stage) -> Row:
    alpha_rate, beta_rate, _ = stage.rates
    f = over(alpha_rate, stage.alpha)
    return Row(f, None, beta_rate - stage.beta * f)


def _down(stage: Stage) -> Row:
    alpha_rate, beta_rate, _ = stage.rates
    f = over(beta_rate, stage.beta)
    return Row(f, alpha_rate - stage.alpha * f, None)


def _eps(stage: Stage) -> Row:
    return Row(*(over(part, stage.gamma) for part in (1.0, -stage.alpha, -stage.beta)))


def _score(stage: Stage) -> Row:
    return Row(*(over(part, stage.variance) for part in (-1.0, stage.alpha, stage.beta)))


#: what can be asked of x_t: name -> stage -> its row of the table
READINGS: dict[str, Callable[[Stage], Row]] = {
    "x0": lambda stage: Row(0.0, 1.0, None),
    "x1": lambda stage: Row(0.0, None, 1.0),
    "eps": _eps,
    "score": _score,
    "velocity": _velocity,
    "up": _up,
    "down": _down,
}


@dataclass(frozen=True, eq=False)
class Ends:
    """What a bridge says of x_t: where it comes from and where it goes, and every other reading of that.

    Attributes:
        x0: E[x_0 given x_t], (B, ...); None for a bridge that knows only the far end.
        x1: E[x_1 given x_t], same shape; None for one that knows only the near end.
        xt: x_t, same shape.
        stage: the point of the path at which xt lies.
    """

    x0: Tensor | None
    x1: Tensor | None
    xt: Tensor
    stage: Stage

    @staticmethod
    def of(xt: Tensor, stage: Stage, readings: Mapping[str, Tensor]) -> "Ends":
        """The ends from any readings that determine them, exactly: the table, solved.

        Two readings give two ends. One that looks at a single end ("x0", "x1", "up", "down") gives that end. If the
        path has no noise, any one reading gives both, since x_t = alpha x0 + beta x1 is the second equation.

        Raises:
            InputError: an unknown reading; one, or more than two, that do not determine an end.
        """
        rows = {name: lookup(READINGS, name, "reading")(stage) for name in readings}
        parts: list[tuple[Tensor, Number, Number]] = [
            (readings[name] - row.xt * xt, 0.0 if row.x0 is None else row.x0, 0.0 if row.x1 is None else row.x1)
            for name, row in rows.items()
        ]
        if len(parts) == 1 and stage.path.noiseless:
            parts.append((xt, stage.alpha, stage.beta))
        if len(parts) == 1:
            ((row, (value, a, b)),) = zip(rows.values(), parts, strict=True)
            if row.x1 is None:
                return Ends(value / a, None, xt, stage)
            if row.x0 is None:
                return Ends(None, value / b, xt, stage)
        if len(parts) != 2:
            raise InputError(f"readings={list(readings)} must be two, or one of x0, x1, up and down.")
        (p, a, b), (q, c, d) = parts
        determinant = a * d - b * c
        return Ends((d * p - b * q) / determinant, (a * q - c * p) / determinant, xt, stage)

    def read(self, reading: str) -> Tensor:
        """A reading of the table, (B, ...).

        Raises:
            InputError: an unknown one, or one that looks at an end that this bridge does not know.
        """
        row = lookup(READINGS, reading, "reading")(self.stage)
        found = row.xt * self.xt
        for name, coefficient, end in (("x0", row.x0, self.x0), ("x1", row.x1, self.x1)):
            if coefficient is not None:
                if end is None:
                    raise InputError(f"reading={reading!r} looks at {name}, which this bridge does not know.")
                found = found + coefficient * end
        return found

    @property
    def velocity(self) -> Tensor:
        """dx/dt of the ODE with the path's marginals."""
        return self.read("velocity")

    @property
    def score(self) -> Tensor:
        """grad log q(x_t); only where the path has noise."""
        return self.read("score")

    def drift(self, g2: Number, up: bool) -> Tensor:
        """Drift, per unit of t, of the equation with squared diffusion `g2` and the path's marginals, up or down."""
        return self.velocity + (0.5 if up else -0.5) * g2 * self.score


class Path(ABC):
    """`alpha(t)`, `beta(t)`, `variance(t)` and `t_max`. Write these; the rest is derived and never overridden.

    Each takes a float64 tensor of times and returns one of the same shape, by differentiable torch operations.
    """

    t_max: float = 1.0

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Share of the near end x_0: from 1 to 0."""

    @abstractmethod
    def beta(self, t: Tensor) -> Tensor:
        """Share of the far end x_1: from 0 to 1."""

    @abstractmethod
    def variance(self, t: Tensor) -> Tensor:
        """gamma^2, in data units squared: zero at both ends, smooth up to them."""

    def at(self, t: "float | Tensor | Stage", like: Tensor | None = None) -> Stage:
        """The stage at time t, of a shape and type to multiply `like`; compare `Process.at`.

        Args:
            t: a number (or 0-d tensor) for the whole batch; (B,), one time per sample; or a Stage, returned as it is.
            like: data of shape (B, ...).

        Raises:
            InputError: t outside [0, t_max], or a batch of times that does not fit `like`.
        """
        if isinstance(t, Stage):
            return t
        if isinstance(t, Tensor) and t.ndim > 0:
            times, dtype = per_sample(t, like, self)
            return Stage(self, times, *(f(times).to(dtype) for f in (self.alpha, self.beta, self.variance)))
        one = torch.tensor(float(t), dtype=torch.float64)
        check_times(one, self)
        return Stage(self, one.item(), *(f(one).item() for f in (self.alpha, self.beta, self.variance)))

    @cached_property
    def noiseless(self) -> bool:
        """Whether the variance is zero throughout, so that the ends determine x_t."""
        return not bool(self.variance(self._inner).any())

    @cached_property
    def stiffness(self) -> float:
        """c in variance = c alpha beta, in data units squared: how freely the diffusion behind a path joins its ends.

        Raises:
            InputError: a path that is not a diffusion held at both ends, and so has no such number.
        """
        t = self._inner
        ratio = self.variance(t) / (self.alpha(t) * self.beta(t))
        if not bool((ratio > 0).all()) or float(ratio.max() / ratio.min()) > 1 + 1e-9:
            raise InputError(f"path={self} is not a diffusion held at both ends: variance must be c alpha beta, c > 0.")
        return float(ratio.mean())

    def reversed(self) -> "Path":
        """The same path seen from the other end: time is t_max - t, and the ends are exchanged."""
        return Reversed(self)

    @property
    def _inner(self) -> Tensor:
        return self.t_max * torch.linspace(0.1, 0.9, 9, dtype=torch.float64)


@dataclass(frozen=True)
class Reversed(Path):
    """A path seen from the other end, so that whatever goes down can go up."""

    path: Path

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.path.t_max

    def alpha(self, t: Tensor) -> Tensor:
        return self.path.beta(self.t_max - t)

    def beta(self, t: Tensor) -> Tensor:
        return self.path.alpha(self.t_max - t)

    def variance(self, t: Tensor) -> Tensor:
        return self.path.variance(self.t_max - t)

    def reversed(self) -> Path:
        return self.path
