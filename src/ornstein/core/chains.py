"""Chains in discrete time: alpha and sigma tabulated at k = 0..N.

A chain x_k = a_k x_{k-1} + b_k z is a process whose clock is a table: its marginals
N(alpha_k x_0, sigma_k^2 I) follow by

    alpha_k = a_k alpha_{k-1},      sigma_k^2 = a_k^2 sigma_{k-1}^2 + b_k^2,      alpha_0 = 1, sigma_0 = 0,

and from alpha and sigma all else, as for any process (`ornstein.core.process`). DDPM's betas, NCSN's ladder of noise
levels and the Euler-Maruyama chain of the Ornstein-Uhlenbeck process are three ways to fill the table.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ornstein.core.clocks import Cosine
from ornstein.core.copies import beside
from ornstein.core.numerics import cubics, hermite, monotone_slopes
from ornstein.core.process import Process, check_ordered, check_positive
from ornstein.errors import InputError, lookup


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
    _curves: tuple[Tensor, Tensor] = field(init=False, repr=False)

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
        set_(self, "_curves", tuple(cubics(y, monotone_slopes(y)) for y in (alphas, sigmas)))

    @property
    def chain(self) -> int:  # type: ignore[override]
        return math.floor(self.t_max)

    def alpha(self, t: Tensor) -> Tensor:
        return hermite(beside(self._curves[0], t), t)

    def sigma(self, t: Tensor) -> Tensor:
        return hermite(beside(self._curves[1], t), t)

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

        Args:
            sigmas: the levels themselves, rising; without them `steps` levels, each the same multiple of the one below.
            steps: how many.
            sigma_min, sigma_max: the smallest and the largest.
        """
        if sigmas is None:
            check_ordered("sigma_min", "sigma_max", sigma_min=sigma_min, sigma_max=sigma_max)
            if not isinstance(steps, int) or steps < 2:
                raise InputError(f"steps={steps!r} must be a whole number, at least 2, for a ladder between two ends.")
            ladder = torch.logspace(math.log10(sigma_min), math.log10(sigma_max), steps, dtype=torch.float64)
        else:
            ladder = torch.as_tensor(sigmas, dtype=torch.float64)
        ladder = torch.cat([torch.zeros(1, dtype=torch.float64), ladder])
        return Tabulated(torch.ones_like(ladder), ladder, name="Ladder")

    @staticmethod
    def euler_ou(
        gammas: Sequence[float] | None = None,
        steps: int = 100,
        gamma_min: float = 0.01,
        gamma_max: float = 0.1,
        order: Literal["rising", "falling"] = "rising",
    ) -> "Tabulated":
        """The Euler-Maruyama chain of the Ornstein-Uhlenbeck process, X_{k+1} = (1 - gamma_k) X_k + sqrt(2 gamma_k) Z.

        Its own marginals, not the process's: with a constant step the variance settles at 1/(1 - gamma/2), not at 1.

        The usual schedule counts the *backward* chain's steps: with n = `steps` its step k = 0 .. n-1, from noise to
        data, is gamma_min + (gamma_max - gamma_min)(n - k)/n, so that steps are short where the data are. Counted
        forwards, as here, sizes rise from the data on: gamma_k = gamma_min + (gamma_max - gamma_min)(k + 1)/n.

        Args:
            gammas: the forward step sizes gamma_0 .. gamma_{n-1} in (0, 1), gamma_0 next to the data; without them
                the schedule above, from the three numbers and the order.
            steps: n.
            gamma_min, gamma_max: the ends of that schedule, in (0, 1).
            order: "rising" from the data on; "falling" is the same sizes backwards, the longest step next to the data,
                as older runs have it.

        Raises:
            InputError: a step size outside (0, 1), steps below 1, an unknown order.
        """
        lookup({"rising": None, "falling": None}, order, "order")
        if gammas is None:
            check_positive(gamma_min=gamma_min, gamma_max=gamma_max)
            if not isinstance(steps, int) or steps < 1:
                raise InputError(f"steps={steps!r} must be a positive whole number.")
            gammas = [gamma_min + (gamma_max - gamma_min) * (k + 1) / steps for k in range(steps)]
            if order == "falling":
                gammas.reverse()
        alphas, variances = [1.0], [0.0]
        for k, gamma in enumerate(gammas):
            if not 0 < gamma < 1:
                raise InputError(f"gamma_{k}={gamma!r} must be in (0, 1).")
            alphas.append((1 - gamma) * alphas[-1])
            variances.append((1 - gamma) ** 2 * variances[-1] + 2 * gamma)
        wide = torch.float64
        return Tabulated(torch.tensor(alphas, dtype=wide), torch.tensor(variances, dtype=wide).sqrt(), name="EulerOU")
