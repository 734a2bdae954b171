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

A chain in discrete time is the same thing with alpha and sigma tabulated at k = 0..N: see `Tabulated`.

Coefficients are computed in float64 and only then rounded to the precision of the data: at the ends of the clock
1 - alpha^2 has no digits left in float32.

References: Sohl-Dickstein et al. 2015 (1503.03585); Ho et al. 2020 (2006.11239); Song et al. 2021 (2011.13456);
Kingma et al. 2021 (2107.00630); Karras et al. 2022 (2206.00364).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ornstein.core.numerics import bisect, hermite, monotone_slopes
from ornstein.errors import InputError

#: A coefficient: a float where one time serves a whole batch, or a tensor that broadcasts against the data.
Number = float | Tensor


class Posterior(NamedTuple):
    """q(x_s given x_t, x_0) = N(from_xt * x_t + from_x0 * x_0, variance I)."""

    from_xt: Number
    from_x0: Number
    variance: Number


@dataclass(frozen=True, eq=False)
class Level:
    """A point of a process's clock, with every coefficient that a formula needs there.

    Made by `Process.at`. The coefficients are floats for one time shared by the batch (sampling: no tensor is made
    and no device is waited for), or tensors of shape (B, 1, ..., 1) for a time per sample (training).
    """

    process: "Process"
    t: Number
    alpha: Number
    sigma: Number

    @cached_property
    def rates(self) -> tuple[Number, Number]:
        """(alpha', sigma'), the derivatives by t."""
        rates = self.process._rates(self.t)
        if isinstance(self.alpha, Tensor):
            rates = tuple(rate.to(self.alpha) for rate in rates)  # type: ignore[union-attr, assignment]
        return rates

    @property
    def inverse_alpha(self) -> Number:
        """1/alpha, infinite at zero signal: floats behave as tensors do."""
        return math.inf if isinstance(self.alpha, float) and self.alpha == 0.0 else 1 / self.alpha

    @property
    def noise_ratio(self) -> Number:
        """sigma/alpha: the one number that, with x/alpha, the posterior mean depends on. Infinite at zero SNR."""
        return self.sigma * self.inverse_alpha

    @property
    def log_snr(self) -> Number:
        """2 log(alpha/sigma): +inf at the clean point, -inf at zero signal."""
        if isinstance(self.alpha, Tensor) or isinstance(self.sigma, Tensor):
            return 2 * torch.log(self.alpha / self.sigma)  # type: ignore[arg-type]
        if self.sigma == 0.0:
            return math.inf
        return 2 * math.log(self.alpha / self.sigma) if self.alpha > 0.0 else -math.inf

    @property
    def f(self) -> Number:
        """Drift coefficient of dX = f X dt + g dB, in 1/time."""
        return self.rates[0] * self.inverse_alpha

    @property
    def g2(self) -> Number:
        """Squared diffusion coefficient g^2, in data units squared per time."""
        return 2 * self.sigma * (self.rates[1] - self.f * self.sigma)

    def noised(self, x0: Tensor, eps: Tensor) -> Tensor:
        """x_t = alpha x_0 + sigma eps."""
        return self.alpha * x0 + self.sigma * eps

    def kernel_from(self, s: "Level") -> tuple[Number, Number]:
        """(a, b^2) of x_t = a x_s + b z, from the earlier level `s` to this one."""
        if isinstance(self.alpha, Tensor) or isinstance(s.alpha, Tensor):
            # b^2 is a small difference of nearly equal numbers: taken in float64, rounded afterwards
            alpha_t, sigma_t, alpha_s, sigma_s = *self._wide, *s._wide
            dtype = torch.result_type(self.alpha, s.alpha)
            wide = alpha_t / alpha_s
            return wide.to(dtype), (sigma_t**2 - (wide * sigma_s) ** 2).to(dtype)
        a = self.alpha / s.alpha
        return a, self.sigma**2 - (a * s.sigma) ** 2

    @property
    def _wide(self) -> tuple[Tensor, Tensor]:
        """alpha and sigma before they were rounded to the type of the data."""
        t = torch.as_tensor(self.t, dtype=None if isinstance(self.t, Tensor) else torch.float64)
        return self.process.alpha(t), self.process.sigma(t)

    def shrinkage(self, s: "Level", sigma_data: float = 1.0) -> Number:
        """The mean of x_s given x_t, as a factor of x_t, if the data were Gaussian of this standard deviation."""
        a, _ = self.kernel_from(s)
        # x_t/a where the levels are close, and finite where no signal is left
        at_t, at_s = ((level.alpha * sigma_data) ** 2 + level.sigma * level.sigma for level in (self, s))
        return a * at_s / at_t

    def posterior(self, s: "Level") -> Posterior:
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

    def at(self, t: "float | Tensor | Level", like: Tensor | None = None) -> Level:
        """The level at time t, shaped and typed to multiply `like`: the house's one place that broadcasts.

        Args:
            t: a number (or 0-d tensor) for the whole batch; or (B,), one time per sample; a Level passes.
            like: data of shape (B, ...): gives the shape, device and type (float32 at least) of per-sample
                coefficients.

        Raises:
            InputError: t outside [0, t_max] (times on another device than the CPU are not looked at: that would wait
                for it), or a batch of times that does not fit `like`.
        """
        if isinstance(t, Level):
            return t
        if not isinstance(t, Tensor) or t.ndim == 0:
            return self.levels(torch.tensor([float(t)], dtype=torch.float64))[0]
        if like is None:
            raise InputError(f"a batch of times (shape {tuple(t.shape)}) needs like=x to broadcast against.")
        if t.shape != like.shape[:1]:
            raise InputError(f"t has shape {tuple(t.shape)}, x {tuple(like.shape)}: t must be a number or (B,).")
        if t.device.type == "cpu":
            self._inside(t)
        wide = torch.float32 if like.device.type == "mps" else torch.float64
        t = t.to(like.device, wide).reshape(-1, *[1] * (like.ndim - 1))
        dtype = torch.promote_types(like.dtype, torch.float32)
        return Level(self, t, self.alpha(t).to(dtype), self.sigma(t).to(dtype))

    def levels(self, times: Tensor) -> list[Level]:
        """The levels of a whole grid (n,), as floats, their derivatives included, in a few vector operations."""
        times = times.detach().to("cpu", torch.float64)
        self._inside(times)
        alpha, sigma = self.alpha(times).tolist(), self.sigma(times).tolist()
        alpha_rate, sigma_rate = (rate.tolist() for rate in self._rates(times))  # type: ignore[union-attr]
        levels = [Level(self, *row) for row in zip(times.tolist(), alpha, sigma, strict=True)]
        for level, *rates in zip(levels, alpha_rate, sigma_rate, strict=True):
            level.__dict__["rates"] = tuple(rates)  # fills the cached property
        return levels

    def _inside(self, times: Tensor) -> None:
        outside = ~((times >= 0) & (times <= self.t_max))
        if bool(outside.any()):
            t = float(times[outside][0])
            raise InputError(f"t={t:g} must lie within [0, {self.t_max:g}], the clock of {self}.")

    def log_snr(self, t: Tensor) -> Tensor:
        """2 log(alpha/sigma) at times `t` (any shape, float64)."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def time(self, log_snr: Number) -> Number:
        """The inverse of `log_snr`; values beyond the clock give its ends. A float for a float."""
        wide = torch.float32 if isinstance(log_snr, Tensor) and log_snr.device.type == "mps" else torch.float64
        target = torch.as_tensor(log_snr, dtype=wide)
        t = bisect(self.log_snr, target, 0.0, self.t_max)
        return t if isinstance(log_snr, Tensor) else t.item()

    def kernel(self, s: float | Tensor, t: float | Tensor, like: Tensor | None = None) -> tuple[Number, Number]:
        """(a, b^2) with q(x_t given x_s) = N(a x_s, b^2 I), for s < t."""
        return self.at(t, like).kernel_from(self.at(s, like))

    def posterior(self, s: float | Tensor, t: float | Tensor, like: Tensor | None = None) -> Posterior:
        """q(x_s given x_t, x_0), for s < t."""
        return self.at(t, like).posterior(self.at(s, like))

    def _rates(self, t: Number) -> tuple[Number, Number]:
        at = torch.as_tensor(t, dtype=torch.float64) if isinstance(t, float) else t
        alpha_rate, sigma_rate = _derivative(self.alpha, at), _derivative(self.sigma, at)
        return (alpha_rate.item(), sigma_rate.item()) if isinstance(t, float) else (alpha_rate, sigma_rate)


def _derivative(scale: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    # reverse mode: each time's value depends on that time alone, so the gradient of the sum is the derivative at each.
    # A leaf of our own, so that it works wherever it is called from: inference mode, torch.func's transforms
    with torch.inference_mode(False):
        at = torch.zeros(t.shape, dtype=t.dtype, device=t.device, requires_grad=True)
        with torch.no_grad():
            at.copy_(t)
        with torch.enable_grad():
            value = scale(at)
            return torch.autograd.grad(value.sum(), at)[0] if value.requires_grad else torch.zeros_like(t)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise InputError(f"{name}={value!r} must be a positive finite number.")


def _ordered(low: str, high: str, **values: float) -> None:
    _positive(**values)
    if not values[low] < values[high]:
        raise InputError(f"{low}={values[low]!r} must be smaller than {high}={values[high]!r}.")


@dataclass(frozen=True)
class VP(Process):
    """Variance preserving: beta rises linearly, alpha^2 + sigma^2 = 1; DDPM in continuous time.

    alpha = exp(-B/2), sigma^2 = 1 - exp(-B), B(t) = beta_min t + (beta_max - beta_min) t^2/2, t in [0, 1].
    Song et al. 2021 (2011.13456), equation 33.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _ordered("beta_min", "beta_max", beta_min=self.beta_min, beta_max=self.beta_max)
        _positive(t_max=self.t_max)

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self._integral(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(t)))


@dataclass(frozen=True)
class SubVP(Process):
    """Sub-VP: the drift of VP with a variance that stays below it; better likelihoods.

    alpha = exp(-B/2), sigma = 1 - exp(-B), B as in `VP`, t in [0, 1]. Song et al. 2021 (2011.13456), equation 37.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _ordered("beta_min", "beta_max", beta_min=self.beta_min, beta_max=self.beta_max)
        _positive(t_max=self.t_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * VP._integral(self, t))  # type: ignore[arg-type]

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-VP._integral(self, t))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Cosine(Process):
    """Cosine: the signal fades as a cosine, slowest at both ends of the clock.

    alpha = cos(w (t + s)) / cos(w s), w = (pi/2)/(1 + s), sigma^2 = 1 - alpha^2, t in [0, 1]. The signal is exactly
    gone at t = 1, where noise prediction cannot work: predict v, or stop the clock before with t_max=0.99.
    Nichol & Dhariwal 2021 (2102.09672), equation 17, with s = 0.008.
    """

    s: float = 0.008
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _positive(s=self.s, t_max=self.t_max)
        if self.t_max > 1:
            raise InputError(f"t_max={self.t_max!r} must be at most 1, where the cosine reaches zero.")

    def alpha(self, t: Tensor) -> Tensor:
        w = 0.5 * math.pi / (1 + self.s)
        # cos(w(t+s)) written as sin(w(1-t)), which is exactly zero at t = 1
        return torch.sin(w * (1 - t)) / math.cos(w * self.s)

    def sigma(self, t: Tensor) -> Tensor:
        w = 0.5 * math.pi / (1 + self.s)
        # cos^2 A - cos^2 B = sin(B - A) sin(B + A) keeps the digits that 1 - alpha^2 loses near t = 0
        return torch.sqrt(torch.sin(w * t) * torch.sin(w * (t + 2 * self.s))) / math.cos(w * self.s)


@dataclass(frozen=True)
class VE(Process):
    """Variance exploding: the data stay put, noise grows geometrically.

    alpha = 1, sigma^2 = sigma_min^2 ((sigma_max/sigma_min)^(2t) - 1), t in [0, 1]: the exact kernel of Song's SDE,
    which starts from the data themselves. Song et al. 2021 (2011.13456), equation 30, states it up to the constant
    sigma_min^2, that is, from data that already carry noise sigma_min.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _ordered("sigma_min", "sigma_max", sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        _positive(t_max=self.t_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.sqrt(torch.expm1(2 * math.log(self.sigma_max / self.sigma_min) * t))


@dataclass(frozen=True)
class EDM(Process):
    """EDM: time is the noise level itself, alpha = 1 and sigma = t. Karras et al. 2022 (2206.00364)."""

    t_max: float = 80.0

    def __post_init__(self) -> None:
        _positive(t_max=self.t_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t * torch.ones_like(t)


@dataclass(frozen=True)
class OU(Process):
    """Ornstein-Uhlenbeck at unit speed, dX = -X dt + sqrt(2) dB: alpha = exp(-t), sigma^2 = 1 - exp(-2t).

    Uhlenbeck & Ornstein 1930; as a generative model see Chen et al. 2022 (2209.11215).
    """

    t_max: float = 5.0

    def __post_init__(self) -> None:
        _positive(t_max=self.t_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-t)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-2 * t))


@dataclass(frozen=True)
class Flow(Process):
    """Linear interpolation from data to noise, alpha = 1 - t and sigma = t: flow matching and rectified flow.

    Lipman et al. 2023 (2210.02747), Liu et al. 2023 (2209.03003); their time runs the other way. No signal is left at
    t = 1, where noise prediction cannot work: predict the velocity, v or x0.
    """

    t_max: float = 1.0

    def __post_init__(self) -> None:
        _positive(t_max=self.t_max)
        if self.t_max > 1:
            raise InputError(f"t_max={self.t_max!r} must be at most 1, where the interpolation ends.")

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t * torch.ones_like(t)


@dataclass(frozen=True, eq=False)
class Tabulated(Process):
    """A chain in discrete time: alpha and sigma tabulated at k = 0..N, t_max = N.

    Times between the integers are read off a monotone cubic through the table, so every stepper, continuous or
    discrete, works on a chain. Entry 0 is the data: alpha 1, sigma 0.

    Args:
        alphas, sigmas: (N+1,) each, alphas[0] = 1, sigmas[0] = 0, alphas/sigmas strictly falling.

    Raises:
        InputError: tables of unequal length, not starting at the data, or whose signal-to-noise ratio does not fall.
    """

    alphas: Tensor
    sigmas: Tensor
    t_max: float = 0.0
    name: str = "Tabulated"
    _slopes: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        alphas = torch.as_tensor(self.alphas).detach().to("cpu", torch.float64)
        sigmas = torch.as_tensor(self.sigmas).detach().to("cpu", torch.float64)
        if alphas.ndim != 1 or alphas.shape != sigmas.shape or len(alphas) < 2:
            raise InputError(
                f"alphas {tuple(alphas.shape)} and sigmas {tuple(sigmas.shape)} must be two tables of N+1 >= 2 numbers."
            )
        if alphas[0] != 1 or sigmas[0] != 0:
            raise InputError(f"alphas[0]={alphas[0]:g}, sigmas[0]={sigmas[0]:g} must be 1 and 0: entry 0 is the data.")
        ratio = sigmas / alphas
        if not bool((alphas >= 0).all() and (ratio.diff() > 0).all()):
            raise InputError("alphas/sigmas must fall strictly: every step of a chain adds noise.")
        last = len(alphas) - 1
        if not 0 <= self.t_max <= last:
            raise InputError(f"t_max={self.t_max!r} must be in (0, {last}], the levels of the table; 0 means all.")
        set_ = object.__setattr__
        set_(self, "alphas", alphas)
        set_(self, "sigmas", sigmas)
        set_(self, "t_max", float(self.t_max or last))
        set_(self, "_slopes", (monotone_slopes(alphas), monotone_slopes(sigmas)))

    @property
    def chain(self) -> int:  # type: ignore[override]
        return math.floor(self.t_max)

    def alpha(self, t: Tensor) -> Tensor:
        return hermite(self.alphas.to(t), self._slopes[0].to(t), t)

    def sigma(self, t: Tensor) -> Tensor:
        return hermite(self.sigmas.to(t), self._slopes[1].to(t), t)

    def __repr__(self) -> str:
        return f"{self.name}(N={self.chain})"

    @staticmethod
    def from_betas(
        betas: str | Sequence[float] = "linear",
        steps: int = 1000,
        beta_min: float | None = None,
        beta_max: float | None = None,
        zero_snr: bool = False,
    ) -> "Tabulated":
        """DDPM's chain x_k = sqrt(1 - beta_k) x_{k-1} + sqrt(beta_k) z, from a named schedule or the betas themselves.

        Args:
            betas: "linear" (Ho et al. 2020: 1e-4 to 0.02), "scaled-linear" (linear in sqrt(beta), 0.00085 to 0.012:
                latent diffusion), "cosine" (Nichol & Dhariwal 2021, betas at most 0.999), "sigmoid" (a sigmoid over
                [-6, 6] from 1e-4 to 0.02), or N numbers in (0, 1).
            steps: N. The linear, scaled-linear and sigmoid schedules are stated for 1,000 steps and scaled by 1000/N,
                so that any N reaches about the same noise.
            beta_min, beta_max: ends of the three scaled schedules, for 1,000 steps.
            zero_snr: rescale alpha linearly so that no signal is left at k = N (Lin et al. 2023, 2305.08891).

        Raises:
            InputError: an unknown schedule, or a beta outside (0, 1).
        """
        ends = {"linear": (1e-4, 0.02), "scaled-linear": (0.00085, 0.012), "sigmoid": (1e-4, 0.02)}
        name = betas if isinstance(betas, str) else "given"
        if isinstance(betas, str):
            if not isinstance(steps, int) or steps < 1:
                raise InputError(f"steps={steps!r} must be a positive whole number.")
            if betas == "cosine":
                if beta_min is not None or beta_max is not None:
                    raise InputError("beta_min and beta_max do not apply to betas='cosine'; leave them out.")
                clock = Cosine()
                alpha2 = clock.alpha(torch.linspace(0, 1, steps + 1, dtype=torch.float64)) ** 2
                table = (1 - alpha2[1:] / alpha2[:-1]).clamp(max=0.999)
            elif betas in ends:
                low, high = ends[betas]
                low, high = beta_min if beta_min is not None else low, beta_max if beta_max is not None else high
                scale = 1000 / steps
                u = torch.linspace(0, 1, steps, dtype=torch.float64)
                if betas == "linear":
                    table = scale * (low + (high - low) * u)
                elif betas == "scaled-linear":
                    table = scale * (math.sqrt(low) + (math.sqrt(high) - math.sqrt(low)) * u) ** 2
                else:
                    table = scale * (low + (high - low) * torch.sigmoid(12 * u - 6))
            else:
                raise InputError(f"betas={betas!r} is not known; known: {', '.join(ends)}, cosine, or N numbers.")
        else:
            table = torch.as_tensor(betas, dtype=torch.float64)
        bad = ~((table > 0) & (table < 1))
        if bool(bad.any()):
            k = int(bad.nonzero()[0])
            raise InputError(f"beta_{k + 1}={table[k]:g} of the {name} schedule (N={len(table)}) must be in (0, 1).")
        log_alpha2 = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-table).cumsum(0)])
        # sigma^2 = 1 - alpha^2 through expm1, or the first levels lose their digits
        alphas, sigmas = (log_alpha2 / 2).exp(), (-torch.expm1(log_alpha2)).sqrt()
        if zero_snr:
            first, last = alphas[1], alphas[-1].clone()
            alphas[1:] = (alphas[1:] - last) * first / (first - last)
            alphas[-1] = 0.0
            sigmas = (1 - alphas * alphas).sqrt()
        return Tabulated(alphas, sigmas, name=f"Betas[{name}{', zero SNR' if zero_snr else ''}]")

    @staticmethod
    def from_sigmas(
        sigmas: Sequence[float] | None = None, steps: int = 10, sigma_min: float = 0.01, sigma_max: float = 1.0
    ) -> "Tabulated":
        """NCSN's ladder of noise levels: alpha = 1, sigma geometric between the ends, or the rising sigmas themselves.

        Song & Ermon 2019 (1907.05600). Level 1 is the smallest noise, level N the largest.
        """
        if sigmas is None:
            _ordered("sigma_min", "sigma_max", sigma_min=sigma_min, sigma_max=sigma_max)
            if not isinstance(steps, int) or steps < 2:
                raise InputError(f"steps={steps!r} must be a whole number, at least 2, for a ladder between two ends.")
            ladder = torch.logspace(math.log10(sigma_min), math.log10(sigma_max), steps, dtype=torch.float64)
        else:
            ladder = torch.as_tensor(sigmas, dtype=torch.float64)
        ladder = torch.cat([torch.zeros(1, dtype=torch.float64), ladder])
        return Tabulated(torch.ones_like(ladder), ladder, name="Ladder")

    @staticmethod
    def euler_ou(
        gammas: Sequence[float] | None = None, steps: int = 100, gamma_min: float = 0.01, gamma_max: float = 0.1
    ) -> "Tabulated":
        """The Euler-Maruyama chain of the Ornstein-Uhlenbeck process, X_{k+1} = (1 - gamma_k) X_k + sqrt(2 gamma_k) Z.

        Its own marginals, not the process's: with a constant step the variance settles at 1/(1 - gamma/2), not at 1.

        Args:
            gammas: the step sizes gamma_0 .. gamma_{n-1} in (0, 1); without them
                gamma_k = gamma_min + (gamma_max - gamma_min)(n - k)/n with n = `steps`.
        """
        if gammas is None:
            _positive(gamma_min=gamma_min, gamma_max=gamma_max)
            if not isinstance(steps, int) or steps < 1:
                raise InputError(f"steps={steps!r} must be a positive whole number.")
            gammas = [gamma_min + (gamma_max - gamma_min) * (steps - k) / steps for k in range(steps)]
        alphas, variances = [1.0], [0.0]
        for k, gamma in enumerate(gammas):
            if not 0 < gamma < 1:
                raise InputError(f"gamma_{k}={gamma!r} must be in (0, 1).")
            alphas.append((1 - gamma) * alphas[-1])
            variances.append((1 - gamma) ** 2 * variances[-1] + 2 * gamma)
        wide = torch.float64
        return Tabulated(torch.tensor(alphas, dtype=wide), torch.tensor(variances, dtype=wide).sqrt(), name="EulerOU")
