"""Noising processes: a clock and a scale.

Every Gaussian noising process is described by two functions of time,

    q(x_t given x_0) = N(alpha(t) x_0, sigma(t)^2 I),      alpha(0) = 1, sigma(0) = 0,

and is the Ornstein-Uhlenbeck process seen through a clock and a scale: dX = f X dt + g dB with

    f = alpha'/alpha,        g^2 = 2 sigma sigma' - 2 f sigma^2.

(Differentiate the mean and the variance of the solution to see it; with f = 0 it is the driftless limit, variance
exploding.) t = 0 is data, t = t_max is noise. So a process is written down as `alpha`, `sigma` and `t_max`; all else
follows here, once: derivatives by automatic differentiation, the log signal-to-noise ratio

    log_snr(t) = 2 log(alpha/sigma)

and its inverse, the exact kernel between two times s < t,

    x_t = a x_s + b z,       a = alpha_t/alpha_s,    b^2 = sigma_t^2 - a^2 sigma_s^2,

and the posterior that sampling walks back along (multiply two Gaussians),

    q(x_s given x_t, x_0) = N( (a sigma_s^2 x_t + alpha_s b^2 x_0)/sigma_t^2,   sigma_s^2 b^2/sigma_t^2 ).

A chain in discrete time is the same thing with alpha and sigma tabulated at k = 0..N: see
`ornstein.core.chains`; the clocks that have a name are in `ornstein.core.clocks`.

Coefficients are computed in float64 and only then rounded to the precision of the data: at the ends of the clock
1 - alpha^2 has no digits left in float32.

References: Sohl-Dickstein et al. 2015 (1503.03585); Ho et al. 2020 (2006.11239); Song et al. 2021 (2011.13456);
Kingma et al. 2021 (2107.00630); Karras et al. 2022 (2206.00364).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar, overload

import torch
from torch import Tensor

from ornstein.core.numerics import Inverse
from ornstein.errors import InputError

#: A coefficient: a float where one time serves a whole batch, or a tensor that broadcasts against the data.
Number = float | Tensor
#: of a function that gives floats for floats and tensors for tensors
T = TypeVar("T", float, Tensor, Number)
#: what kind of number the coefficients of a level are
if TYPE_CHECKING:
    # a default, which Python's own type variables have from 3.13 on: `Level` alone is a level of either kind
    from typing_extensions import TypeVar as _TypeVar

    N = _TypeVar("N", float, Tensor, Number, covariant=True, default=Number)
else:
    N = TypeVar("N", float, Tensor, Number, covariant=True)


class Posterior(NamedTuple, Generic[N]):
    """q(x_s given x_t, x_0) = N(from_xt * x_t + from_x0 * x_0, variance I)."""

    from_xt: N
    from_x0: N
    variance: N


@dataclass(frozen=True, eq=False)
class Level(Generic[N]):
    """A point of a process's clock, with every coefficient that a formula needs there.

    Made by `Process.at`. The coefficients are floats for one time shared by the batch (`Level[float]`, sampling: no
    tensor is made and no device is waited for), or tensors of shape (B, 1, ..., 1) for a time per sample
    (`Level[Tensor]`, training). `Level` alone may be either: what a denoiser takes.
    """

    process: "Process"
    t: N
    alpha: N
    sigma: N

    @cached_property
    def rates(self) -> tuple[N, N]:
        """(alpha', sigma'), the derivatives by t."""
        alpha_rate, sigma_rate = self.process._rates(self.t)
        if isinstance(self.alpha, Tensor) and isinstance(alpha_rate, Tensor) and isinstance(sigma_rate, Tensor):
            return alpha_rate.to(self.alpha), sigma_rate.to(self.alpha)
        return alpha_rate, sigma_rate

    @property
    def inverse_alpha(self) -> N:
        """1/alpha, infinite at zero signal: floats behave as tensors do."""
        return math.inf if isinstance(self.alpha, float) and self.alpha == 0.0 else 1 / self.alpha

    @property
    def noise_ratio(self) -> N:
        """sigma/alpha: the one number that, with x/alpha, the posterior mean depends on. Infinite at zero SNR."""
        return self.sigma * self.inverse_alpha

    @property
    def log_snr(self) -> N:
        """2 log(alpha/sigma): +inf at the clean point, -inf at zero signal."""
        if not isinstance(self.sigma, Tensor) and self.sigma == 0.0:
            return math.inf
        ratio = self.alpha / self.sigma
        if isinstance(ratio, Tensor):
            return 2 * torch.log(ratio)
        return 2 * math.log(ratio) if ratio > 0.0 else -math.inf

    @property
    def f(self) -> N:
        """Drift coefficient of dX = f X dt + g dB, in 1/time."""
        return self.rates[0] * self.inverse_alpha

    @property
    def g2(self) -> N:
        """Squared diffusion coefficient g^2, in data units squared per time."""
        alpha_rate, sigma_rate = self.rates
        return 2 * self.sigma * (sigma_rate - alpha_rate * self.inverse_alpha * self.sigma)

    def noised(self, x0: Tensor, eps: Tensor) -> Tensor:
        """x_t = alpha x_0 + sigma eps."""
        return self.alpha * x0 + self.sigma * eps

    def kernel_from(self, s: "Level[N]") -> tuple[N, N]:
        """(a, b^2) of x_t = a x_s + b z, from the earlier level `s` to this one."""
        if isinstance(self.alpha, Tensor) or isinstance(s.alpha, Tensor):
            # b^2 is a small difference of nearly equal numbers: taken in float64, rounded afterwards
            alpha_t, sigma_t, alpha_s, sigma_s = *self._unrounded, *s._unrounded
            dtype = torch.result_type(self.alpha, s.alpha)
            wide = alpha_t / alpha_s
            return wide.to(dtype), (sigma_t**2 - (wide * sigma_s) ** 2).to(dtype)
        a = self.alpha / s.alpha
        return a, self.sigma**2 - (a * s.sigma) ** 2

    @property
    def _unrounded(self) -> tuple[Tensor, Tensor]:
        """alpha and sigma before they were rounded to the type of the data."""
        t = torch.as_tensor(self.t, dtype=None if isinstance(self.t, Tensor) else torch.float64)
        return self.process.alpha(t), self.process.sigma(t)

    def shrinkage(self, s: "Level[N]", sigma_data: float = 1.0) -> N:
        """The mean of x_s given x_t, as a factor of x_t, if the data were Gaussian of this standard deviation."""
        a, _ = self.kernel_from(s)
        # x_t/a where the levels are close, and finite where no signal is left
        at_t, at_s = ((level.alpha * sigma_data) ** 2 + level.sigma * level.sigma for level in (self, s))
        return a * at_s / at_t

    def posterior(self, s: "Level[N]") -> Posterior[N]:
        """q(x_s given x_t, x_0) for the earlier level `s`, from this one."""
        a, b2 = self.kernel_from(s)
        var_s, var_t = s.sigma * s.sigma, self.sigma * self.sigma
        return Posterior(a * var_s / var_t, s.alpha * b2 / var_t, var_s * b2 / var_t)


class Process(ABC):
    """A clock: `alpha(t)`, `sigma(t)` and `t_max`. Write those; the rest is derived here and never overridden.

    `alpha` and `sigma` take a float64 tensor of times of any shape and return a tensor of that shape, in
    differentiable torch operations, with alpha(0) = 1, sigma(0) = 0 and alpha/sigma strictly falling.
    """

    t_max: float
    #: number of steps of a chain in discrete time, whose times are then 0, 1, ..., N; None in continuous time
    chain: int | None = None

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale at times `t`."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale at times `t`."""

    # a 0-d tensor with like= gives floats, too; its type does not tell it from a batch
    @overload
    def at(self, t: float, like: Tensor | None = None) -> Level[float]: ...
    @overload
    def at(self, t: Tensor, like: None = None) -> Level[float]: ...
    @overload
    def at(self, t: Tensor, like: Tensor) -> Level[Tensor]: ...
    @overload
    def at(self, t: Level[T], like: Tensor | None = None) -> Level[T]: ...
    @overload
    def at(self, t: float | Tensor | Level, like: Tensor | None = None) -> Level: ...
    def at(self, t: float | Tensor | Level, like: Tensor | None = None) -> Level:
        """The level at time t, shaped and typed to multiply `like`: the only place in the library that broadcasts.

        Args:
            t: a number (or 0-d tensor) for the whole batch; or (B,), one time per sample; a Level is returned as it is.
            like: data of shape (B, ...): gives the shape, device and type (float32 at least) of per-sample
                coefficients.

        Raises:
            InputError: t outside [0, t_max] (times on another device than the CPU are not checked, since that would
                wait for it), or a batch of times that does not fit `like`.
        """
        if isinstance(t, Level):
            return t
        if not isinstance(t, Tensor) or t.ndim == 0:
            time = torch.tensor([float(t)], dtype=torch.float64)
            check_times(time, self)
            return Level(self, time.item(), self.alpha(time).item(), self.sigma(time).item())
        t, dtype = per_sample(t, like, self)
        return Level(self, t, self.alpha(t).to(dtype), self.sigma(t).to(dtype))

    def levels(self, times: Tensor) -> list[Level[float]]:
        """The levels of a whole grid (n,), as floats, their derivatives included, in a few vector operations."""
        times = times.detach().to("cpu", torch.float64)
        check_times(times, self)
        alpha, sigma = self.alpha(times).tolist(), self.sigma(times).tolist()
        alpha_rate, sigma_rate = (rate.tolist() for rate in self._rates(times))
        levels = [Level(self, *row) for row in zip(times.tolist(), alpha, sigma, strict=True)]
        for level, *rates in zip(levels, alpha_rate, sigma_rate, strict=True):
            level.__dict__["rates"] = tuple(rates)  # fills the cached property
        return levels

    def log_snr(self, t: Tensor) -> Tensor:
        """2 log(alpha/sigma) at times `t` (any shape, float64)."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def time(self, log_snr: T) -> T:
        """The inverse of `log_snr`; values beyond the clock give its ends. A float gives a float."""
        if not isinstance(log_snr, Tensor):
            return self._inverse.one(log_snr)
        wide = torch.float32 if log_snr.device.type == "mps" else torch.float64
        return self._inverse(log_snr.to(wide))

    @cached_property
    def _inverse(self) -> Inverse:
        return Inverse(self.log_snr, 0.0, self.t_max)

    def kernel(self, s: float | Tensor, t: float | Tensor, like: Tensor | None = None) -> tuple[Number, Number]:
        """(a, b^2) with q(x_t given x_s) = N(a x_s, b^2 I), for s < t."""
        return self.at(t, like).kernel_from(self.at(s, like))

    def posterior(self, s: float | Tensor, t: float | Tensor, like: Tensor | None = None) -> Posterior:
        """q(x_s given x_t, x_0), for s < t."""
        return self.at(t, like).posterior(self.at(s, like))

    def _rates(self, t: T) -> tuple[T, T]:
        at = t if isinstance(t, Tensor) else torch.as_tensor(t, dtype=torch.float64)
        alpha_rate, sigma_rate = derivative(self.alpha, at), derivative(self.sigma, at)
        return (alpha_rate, sigma_rate) if isinstance(t, Tensor) else (alpha_rate.item(), sigma_rate.item())


class Clock(Protocol):
    """Whatever has times: from 0 to t_max."""

    @property
    def t_max(self) -> float: ...


def check_times(times: Tensor, clock: Clock) -> None:
    """Refuse times outside [0, t_max] of a clock."""
    outside = ~((times >= 0) & (times <= clock.t_max))
    if bool(outside.any()):
        t = float(times[outside][0])
        raise InputError(f"t={t:g} must lie within [0, {clock.t_max:g}], the clock of {clock}.")


def per_sample(t: Tensor, like: Tensor | None, clock: Clock) -> tuple[Tensor, torch.dtype]:
    """A time per sample, (B,), shaped to multiply `like` (B, ...), beside it; and the type of what is made of it.

    Raises:
        InputError: no `like`, a batch that does not fit it, times outside the clock (those on another device than the
            CPU are not checked, since that would wait for it).
    """
    if like is None:
        raise InputError(f"a batch of times (shape {tuple(t.shape)}) needs like=x to broadcast against.")
    if t.shape != like.shape[:1]:
        raise InputError(f"t has shape {tuple(t.shape)}, x {tuple(like.shape)}: t must be a number or (B,).")
    if t.device.type == "cpu":
        check_times(t, clock)
    wide = torch.float32 if like.device.type == "mps" else torch.float64
    shaped = t.to(like.device, wide).reshape(-1, *[1] * (like.ndim - 1))
    return shaped, torch.promote_types(like.dtype, torch.float32)


def derivative(scale: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """d scale/dt at times `t` (any shape), each value depending on its own time alone; by automatic differentiation."""
    # reverse mode: each time's value depends on that time alone, so the gradient of the sum is the derivative at each.
    # A leaf of our own, so that it works wherever it is called from: inference mode, torch.func's transforms
    with torch.inference_mode(False):
        at = torch.zeros(t.shape, dtype=t.dtype, device=t.device, requires_grad=True)
        with torch.no_grad():
            at.copy_(t)
        with torch.enable_grad():
            value = scale(at)
            return torch.autograd.grad(value.sum(), at)[0] if value.requires_grad else torch.zeros_like(t)


def check_positive(**values: float) -> None:
    """Refuse numbers that are not positive and finite, by their names."""
    for name, value in values.items():
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise InputError(f"{name}={value!r} must be a positive finite number.")


def check_ordered(low: str, high: str, **values: float) -> None:
    """Refuse two positive numbers that do not rise, by their names."""
    check_positive(**values)
    if not values[low] < values[high]:
        raise InputError(f"{low}={values[low]!r} must be smaller than {high}={values[high]!r}.")
