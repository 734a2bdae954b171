"""Langevin dynamics: sampling by nothing but a score.

The diffusion dX = grad log p(X) dt + sqrt(2) dB has p as its stationary distribution. Its Euler-Maruyama chain is
written in two ways, which are the same with gamma = eps/2:

    x <- x + gamma s(x) + sqrt(2 gamma) z          statistics, physics; Song & Ermon 2020
    x <- x + (eps/2) s(x) + sqrt(eps) z            Welling & Teh 2011; Song & Ermon 2019

**The bias.** A chain of finite steps forgets its start but settles next to p: for N(0, v), the variance settles at
v/(1 - gamma/(2v)), and beyond gamma = 2v the chain explodes. `mala` (Roberts & Tweedie 1996, Bernoulli 2:341) takes
each step as a proposal and accepts it with the probability that restores detailed balance,

    min(1, p(y) q(x given y) / (p(x) q(y given x))),        q(y given x) = N(x + gamma s(x), 2 gamma),

so that p itself is stationary; that needs log p, up to a constant. An acceptance near 0.57 is best in high
dimension (Roberts & Rosenthal 1998).

**Modes.** A chain takes exponentially long to cross the empty space between two distant modes, and no score is learned
there from data; the weights of modes come out wrong. *Annealed* Langevin (Song & Ermon 2019, 1907.05600) first samples
data with noise sigma_n, which has one mode, and lowers the noise level by level, with a few corrections at each.
The step follows the level, gamma_i = step * sigma_i^2. In that unit, since the curvature of -log q_sigma never exceeds
1/sigma^2, every step below 2 is stable, whatever the data.

In directions where the data have no spread x is noise alone, and its variance v, in units of sigma^2, obeys

    v <- (1 - step)^2 v + 2 step,                                                  stationary at 1/(1 - step/2).

Coming down from the level above, v starts at the squared ratio of the two. Too small a step leaves the noise of the
levels above in the sample, too large a one makes its own: "technique 4" of Song & Ermon 2020 (2006.09011) chooses the
step so that v after the corrections is closest to 1. `best_step` is that choice.

**And the reverse diffusion.** For Brownian noise, dX = dB in the clock sigma^2, the reverse-time chain from sigma_t to
sigma_s is x + delta s(x, t) + sqrt(delta) z, delta = sigma_t^2 - sigma_s^2. It is one Langevin step of gamma = delta at
*temperature* 1/2 (the noise sqrt(2 gamma T)); or, which is the same, a Langevin step of delta/2, which holds the
level, and Euler's step of the probability flow, delta/2 s, which lowers it. Annealed Langevin lowers the level by
naming the next one, and leaves it to the score to follow: hence more than one correction, and its own bias, however
fine the ladder.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from ornstein.core.drive import Ask, Noise, Stepper, sample_seeds
from ornstein.core.numerics import normal
from ornstein.core.process import Level
from ornstein.errors import InputError

#: a number this many times larger than its surroundings explain belongs to a chain that has left
FAR = 1e6


@dataclass(frozen=True, eq=False)
class ChainState:
    """A state of a chain.

    Attributes:
        step: 0 (the start) to `steps`.
        x: (B, ...) where the chains are.
        accepted: (B,) the share of each chain's proposals accepted so far; None where all are.
    """

    step: int
    x: Tensor
    accepted: Tensor | None = None


def _gammas(steps: int, gamma: "float | Sequence[float] | None", eps: "float | Sequence[float] | None") -> list[float]:
    """gamma of each step, from either convention."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps={steps!r} must be a positive whole number.")
    if (gamma is None) == (eps is None):
        raise InputError("give one of gamma= (x + gamma s + sqrt(2 gamma) z) and eps= (x + eps/2 s + sqrt(eps) z).")
    name, given, scale = ("gamma", gamma, 1.0) if eps is None else ("eps", eps, 0.5)
    sizes = [float(g) for g in given] if isinstance(given, Sequence) else [float(given)] * steps  # type: ignore[arg-type]
    if len(sizes) != steps:
        raise InputError(f"{name} has {len(sizes)} step sizes but steps={steps}.")
    for size in sizes:
        if not (math.isfinite(size) and size > 0):
            raise InputError(f"{name}={size!r} must be a positive finite number.")
    return [scale * size for size in sizes]


def langevin(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    steps: int,
    gamma: "float | Sequence[float] | None" = None,
    eps: "float | Sequence[float] | None" = None,
    temperature: float = 1.0,
    seed: int | None = None,
    seeds: "Sequence[int] | Tensor | None" = None,
    generator: torch.Generator | None = None,
) -> Iterator[ChainState]:
    """Unadjusted Langevin chains, yielding each state: `steps + 1` of them, the start first.

    Args:
        score: (B, *shape) -> (B, *shape), grad log p.
        x: (B, *shape), where the chains start.
        steps: how many.
        gamma: step sizes, one or one per step, of x + gamma s + sqrt(2 gamma) z, in data units squared;
        eps: or those of x + eps/2 s + sqrt(eps) z, twice as large.
        temperature: T scales the noise to sqrt(2 gamma T): the chain then samples about p^(1/T).
        seed, seeds, generator: one source of randomness, as for `sample`; a chain does not depend on its batch.

    Raises:
        InputError: both or no step size, sizes that are not positive, or chains that leave, a million times further
            than their start and their noise explain: too large a step, or a score that does not point back.
    """
    sizes = _gammas(steps, gamma, eps)
    if not temperature >= 0:
        raise InputError(f"temperature={temperature!r} must not be negative.")
    keys = sample_seeds(len(x), seed, seeds, generator).to(x.device)
    noise = Noise(keys, tuple(x.shape[1:]), x.dtype)
    with torch.no_grad():
        home = _extent(x)
    yield ChainState(0, x)
    for k, size in enumerate(sizes):
        with torch.no_grad():
            x = x + size * score(x)
            if temperature > 0:
                x = x + math.sqrt(2 * size * temperature) * noise()
            home = home + math.sqrt(2 * size)  # what noise alone may add
            if k == steps - 1 or _due(x, k):
                _stay(x, home, f"at step {k + 1} of {steps}", f"gamma={size:g} (eps={2 * size:g})")
        yield ChainState(k + 1, x)


def mala(
    log_prob: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    steps: int,
    gamma: "float | Sequence[float] | None" = None,
    eps: "float | Sequence[float] | None" = None,
    seed: int | None = None,
    seeds: "Sequence[int] | Tensor | None" = None,
    generator: torch.Generator | None = None,
) -> Iterator[ChainState]:
    """Metropolis-adjusted Langevin chains: the density given is exactly stationary. Yields as `langevin` does.

    Args:
        log_prob: (B, *shape) -> (B,), log density up to a constant, differentiable, such as minus an energy.
        x, steps, gamma, eps, seed, seeds, generator: as for `langevin`.

    Raises:
        InputError: as `langevin`; or a start where the density is zero or not finite.
    """
    sizes = _gammas(steps, gamma, eps)
    keys = sample_seeds(len(x), seed, seeds, generator).to(x.device)
    shape = tuple(x.shape[1:])

    def look(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            value = log_prob(at)
            (slope,) = torch.autograd.grad(value.sum(), at)
        return value.detach(), slope

    def square(v: Tensor) -> Tensor:
        return v.flatten(1).square().sum(1)

    value, slope = look(x)
    if not bool((value.isfinite() & slope.flatten(1).isfinite().all(1)).all()):
        raise InputError("x starts a chain where log_prob or its gradient is not finite: start where there is density.")
    taken = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    yield ChainState(0, x, torch.ones_like(taken))
    for k, size in enumerate(sizes):
        with torch.no_grad():
            ahead = x + size * slope
            y = ahead + math.sqrt(2 * size) * normal(keys, shape, 2 * k, x.dtype)
            value_y, slope_y = look(y)
            back = square(x - y - size * slope_y) - square(y - ahead)
            chance = value_y - value - back.to(value) / (4 * size)
            u = torch.special.ndtr(normal(keys, (1,), 2 * k + 1, torch.float64)[:, 0])
            # a proposal where nothing is finite compares false, and is refused
            yes = u.log().to(chance) < chance
            taken += yes
            wide = yes.reshape(-1, *[1] * len(shape))
            x, slope = torch.where(wide, y, x), torch.where(wide, slope_y, slope)
            value = torch.where(yes, value_y, value)
        yield ChainState(k + 1, x, taken / (k + 1))


def _extent(x: Tensor) -> Tensor:
    """The largest number in x, at least 1: 0-d."""
    return x.abs().amax().clamp(min=1.0)


def _due(x: Tensor, k: int) -> bool:
    """Whether to look at the numbers now: always on a CPU, now and then where looking means waiting for a device."""
    return x.device.type == "cpu" or k % 64 == 63


def _stay(x: Tensor, home: "Tensor | float", when: str, step: str) -> None:
    """Refuse chains that are not finite or far away; NaN compares false."""
    inside = x.abs().flatten(1).amax(1) <= FAR * home
    if not bool(inside.all()):
        raise InputError(
            f"{int((~inside).sum())} of {len(x)} Langevin chains left for infinity {when} with {step}: take a smaller "
            "step; if that does not help, the score has diverged and needs training with a smaller learning rate."
        )


@lru_cache(maxsize=4096)
def best_step(excess: float, corrections: int, temperature: float = 1.0) -> tuple[float, float]:
    """The step, in units of sigma^2, that brings pure noise closest to its level: technique 4 of 2006.09011.

    The rule concerns noise, not modes. In many dimensions the data have no spread in nearly every direction, so the
    noise should decide the step. In few dimensions, where levels are far apart and corrections few, the noise may be
    right while chains have not moved between modes, or along them, as far as the next level needs: a larger step, or
    more corrections, may then serve better.

    Args:
        excess: the variance of the noise at first, in units of sigma^2: (sigma_{i+1}/sigma_i)^2 coming from a level
            above that was left with just its own noise.
        corrections: the number of Langevin steps, T in the paper.
        temperature: of their noise.

    Returns:
        The step gamma/sigma^2 in (0, 1), to a thousandth of itself, and the variance that it leaves.
    """
    a = torch.logspace(-5, 0, 12001, dtype=torch.float64)[:-1]
    settled = temperature / (1 - a / 2)
    left = (1 - a) ** (2 * corrections) * (excess - settled) + settled
    best = int((left - 1).abs().argmin())
    return float(a[best]), float(left[best])


@dataclass(frozen=True)
class AnnealedLangevin(Stepper):
    """Annealed Langevin dynamics: a few corrections at every noise level of the ladder that is walked down.

    Song & Ermon 2019 (1907.05600), algorithm 1, in y = x/alpha with noise u = sigma/alpha, so that it works on every
    process:

        y <- y + gamma score + sqrt(2 gamma T) z,        gamma = step_size * u^2,

    `corrections` times at level t, and on to s, where y is taken as it is. The last level, the smallest noise, has its
    corrections too, and then the denoising step, as with every stepper. From exactly no signal the step is DDIM's.

    Args:
        corrections: K, Langevin steps a level: 100 in NCSN, 5 in NCSNv2.
        step_size: gamma/u^2, in (0, 2): half of Song's eps/sigma_L^2 in NCSN (0.1), and eps/sigma_L^2 in NCSNv2
            (0.062); or one for each level, from high noise to low, the last one included. None: `best_step` at each
            level, from the variance that the levels above have left.
        temperature: T, which scales the variance of the noise; 1/2, with one correction and step_size
            1 - (u_s/u_t)^2, is the reverse diffusion.

    Raises:
        InputError: numbers out of range; too few steps in the list for the grid; a chain that diverges.

    No order: at a fixed number of corrections a finer grid does not remove the bias of the corrections. As many calls a
    step as corrections, and one more for the denoising step. Stochastic.
    """

    corrections: int = 5
    step_size: "float | tuple[float, ...] | None" = None
    temperature: float = 1.0
    order: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if isinstance(self.corrections, bool) or not isinstance(self.corrections, int) or self.corrections < 1:
            raise InputError(f"corrections={self.corrections!r} must be a whole number, at least 1.")
        if isinstance(self.step_size, Sequence):
            object.__setattr__(self, "step_size", tuple(self.step_size))
        for size in self.step_size if isinstance(self.step_size, tuple) else (self.step_size,):
            if size is not None and not 0 < size < 2:
                raise InputError(
                    f"step_size={size!r} must be in (0, 2), in units of (sigma/alpha)^2: beyond, chains explode."
                )
        if not self.temperature >= 0:
            raise InputError(f"temperature={self.temperature!r} must not be negative.")

    @property
    def calls(self) -> int:
        return self.corrections

    @property
    def last_calls(self) -> int:
        return self.corrections + 1

    @property
    def stochastic(self) -> bool:
        return self.temperature > 0

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Callable[[], Tensor]
    ) -> tuple[Tensor, Any]:
        k, noise_left = memory or (0, None)
        if t.noise_ratio == math.inf:
            ratio = s.sigma / t.sigma
            return ratio * x + (s.alpha - ratio * t.alpha) * denoiser(x, t).x0, (k + 1, None)
        # at first, as if the level above were as far as the one below
        above = noise_left or float(t.noise_ratio**4 / s.noise_ratio**2)
        x, noise_left = self._correct(denoiser, x, t, k, above, noise)
        return s.alpha / t.alpha * x, (k + 1, noise_left)

    def finish(self, denoiser: Ask, x: Tensor, t: Level, memory: Any, noise: Callable[[], Tensor]) -> Tensor:
        k, noise_left = memory or (0, None)
        if t.noise_ratio < math.inf:
            # where there is no level but this one, it comes from the noise that sampling starts with
            above = noise_left or float(t.noise_ratio) ** 2 + denoiser.sigma_data**2
            x, _ = self._correct(denoiser, x, t, k, above, noise)
        return denoiser(x, t).x0

    def _correct(
        self, denoiser: Ask, x: Tensor, t: Level, k: int, above: float, noise: Callable[[], Tensor]
    ) -> tuple[Tensor, float | None]:
        """x after the corrections at level t, the k-th, and the variance of the noise of y that they leave.

        Args:
            above: the variance of that noise at first, where the data have no spread.
        """
        variance, left = float(t.noise_ratio) ** 2, None
        if self.step_size is None:
            size, share = best_step(above / variance, self.corrections, self.temperature)
            left = share * variance
        elif isinstance(self.step_size, tuple):
            if k >= len(self.step_size):
                raise InputError(
                    f"step_size has {len(self.step_size)} sizes, and the grid more levels: give one for each level, "
                    "the last one too."
                )
            size = self.step_size[k]
        else:
            size = self.step_size
        for _ in range(self.corrections):
            # gamma times the score of y, in the scale of x
            x = x - size * t.sigma * denoiser(x, t).eps
            if self.temperature > 0:
                x = x + math.sqrt(2 * size * self.temperature) * t.sigma * noise()
        if _due(x, k):
            home = denoiser.unit * t.alpha + t.sigma
            _stay(x, home, f"at t={t.t:g}", f"step_size={size:g}, in units of (sigma/alpha)^2")
        return x, left


@dataclass(frozen=True)
class RecoveryLangevin(Stepper):
    """Short-run Langevin on p(x_s given x_t), level by level: how recovery likelihood samples (Gao et al. 2020).

    p(x_s given x_t) is proportional to q_s(x_s) exp(-|x_t - a x_s|^2/(2 b^2)), a and b of the kernel from s to t: a
    density with about one mode, whose score is that of level s and a pull towards x_t/a (2012.08125, equation 9). The
    chain starts at the mean that Gaussian data would have. For energies trained by recovery likelihood, at the levels
    they were trained at; works with any denoiser, since it asks for the score at level s alone.

    Args:
        corrections: steps of each chain.
        step_size: gamma in units of the variance of q(x_s given x_t, x_0), in (0, 2).

    Raises:
        InputError: numbers out of range; a chain that diverges.

    No order: at a fixed number of corrections a finer grid does not remove their bias. As many calls a step as
    corrections. Stochastic.
    """

    corrections: int = 30
    step_size: float = 0.3
    order: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if isinstance(self.corrections, bool) or not isinstance(self.corrections, int) or self.corrections < 1:
            raise InputError(f"corrections={self.corrections!r} must be a whole number, at least 1.")
        if not 0 < self.step_size < 2:
            raise InputError(
                f"step_size={self.step_size!r} must be in (0, 2), in units of the variance of x_s given x_t and x_0."
            )

    @property
    def calls(self) -> int:
        return self.corrections

    @property
    def stochastic(self) -> bool:
        return True

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Callable[[], Tensor]
    ) -> tuple[Tensor, Any]:
        a, b2 = t.kernel_from(s)
        gamma = self.step_size * t.posterior(s).variance
        y = t.shrinkage(s, denoiser.sigma_data) * x
        for _ in range(self.corrections):
            slope = denoiser(y, s).score + (a / b2) * (x - a * y)
            y = y + gamma * slope + (2 * gamma) ** 0.5 * noise()
        if _due(y, memory or 0):
            _stay(y, denoiser.unit * s.alpha + s.sigma, f"at t={s.t:g}", f"step_size={self.step_size:g}")
        return y, (memory or 0) + 1
