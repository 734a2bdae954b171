"""Time grids: at which noise levels a sampler calls the network.

A grid of n steps is n + 1 falling times. The first is where sampling starts from noise; the last is 0, the clean
point, where nothing is left to remove; the n before it are levels at which the network is asked.

Where the steps go often matters more than the solver. Low noise needs many steps, since that is where detail is
decided: even steps in log-SNR (Lu et al. 2022, 2206.00927) or in (sigma/alpha)^(1/rho) (Karras et al. 2022,
2206.00364) give them. Even steps in q/(1 + q), q = sigma/(alpha sigma_data), are the time of flow matching on any
clock, and the default of a stepper that has no grid of its own. A chain in discrete time is walked through whole
levels: "trailing" starts at the last one and is the default there (Lin et al. 2023, 2305.08891, say why); "leading",
the older convention, rounds from the other end and never visits level N.

Noise is large or small beside the data, so a grid reads q and never a bare sigma/alpha: data in other units, twice as
large with noise twice as large, are the same problem, and are walked through the same levels.

The ends are cut here and nowhere else: at exactly no signal the reverse SDE is singular, and log-SNR has no bottom.
In continuous time the first level lies within `NOISE_RATIOS` of q, and so does the last noisy one of the
grids that are spread by noise; those spread by time come closer to the data the more steps they have. Whole levels of
a chain are taken as they are.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ornstein.core.process import Process
from ornstein.errors import InputError, lookup

#: a number of steps beyond this is a slip of the pen
MOST_STEPS = 100_000
#: sigma/(alpha sigma_data) at the two ends: EDM's smallest level for data of unit scale, and about the noisiest that
#: DDPM's linear betas end with
NOISE_RATIOS = (0.002, 160.0)


@lru_cache(maxsize=256)
def ends(process: Process, sigma_data: float = 1.0) -> tuple[float, float]:
    """The times within which a network is asked: sigma/(alpha sigma_data) within `NOISE_RATIOS`, at most t_max.

    Data at a single point have no scale: sigma_data = 0 counts as 1.
    """
    low, high = (process.time(-2 * math.log(ratio * (sigma_data or 1.0))) for ratio in NOISE_RATIOS)
    return low, high


def uniform(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """Even steps in time."""
    return torch.linspace(ends(process, sigma_data)[1], 0, steps + 1, dtype=torch.float64)


def quadratic(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """Steps that shrink linearly towards the data: t proportional to a square (Song et al. 2020, 2010.02502)."""
    return ends(process, sigma_data)[1] * torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** 2


def _by_ratio(
    process: Process, steps: int, sigma_data: float, ratios: Callable[[float, float, Tensor], Tensor]
) -> Tensor:
    """The times of noise ratios q spread by `ratios(high, low, u)` for even u in [0, 1]; then the clean point."""
    low, high = (process.at(t).noise_ratio / sigma_data for t in ends(process, sigma_data))
    q = ratios(high, low, torch.linspace(0, 1, steps, dtype=torch.float64))
    spread = process.time(-2 * (sigma_data * q).log())
    spread[0] = ends(process, sigma_data)[1]  # exactly, whatever rounding made of it
    return torch.cat([spread, torch.zeros(1, dtype=torch.float64)])


def _by_flow(process: Process, steps: int, sigma_data: float, power: float = 1.0, shift: float = 1.0) -> Tensor:
    """r/(1 + r), r = q/shift, falling as (1 - k/steps)^power to no less than may be asked; then clean."""
    shift *= sigma_data
    lowest, highest = ends(process, sigma_data)
    least, first = (ratio / (1 + ratio) for ratio in (process.at(t).noise_ratio / shift for t in (lowest, highest)))
    last = max(first / steps**power, least)
    u = torch.linspace(first ** (1 / power), last ** (1 / power), steps, dtype=torch.float64) ** power
    inner = process.time(-2 * (shift * u[1:] / (1 - u[1:])).log())
    return torch.cat([inner.new_tensor([highest]), inner, inner.new_zeros(1)])


def flow(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """Even steps in q/(1 + q), the time of flow matching whatever the clock; then the clean point."""
    return _by_flow(process, steps, sigma_data)


def power(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """Even steps to the power 3/2 in q/(1 + q), finer towards the data; then the clean point."""
    return _by_flow(process, steps, sigma_data, 1.5)


def tapered(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """Even steps to the power 2 - 3/n in q/(2 + q), the grid of "unipc"; then the clean point.

    Finer towards the data the more steps there are: with few of them those near the noise decide the error, with many
    those near the data.
    """
    return _by_flow(process, steps, sigma_data, power=max(1.0, 2 - 3 / steps), shift=2.0)


def balanced(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """Even steps to the power 2 - 3/n in q/(1.5 + q), the default in continuous time; then the clean point.

    Chosen by measurement, together with the stepper "unipc-auto" (docs/frontier.md).
    """
    return _by_flow(process, steps, sigma_data, power=max(1.0, 2 - 3 / steps), shift=1.5)


def shifted(process: Process, steps: int, sigma_data: float = 1.0, shift: float = 3.0) -> Tensor:
    """The grid "flow" with q tripled, for large pictures (Esser et al. 2024, 2403.03206, equation 23)."""
    return _by_flow(process, steps, sigma_data, shift=shift)


def logit_normal(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """Even quantiles of a normal distribution of log q, as training draws it (Esser et al. 2024, 2403.03206)."""

    def ratios(high: float, low: float, u: Tensor) -> Tensor:
        first, last = torch.special.ndtr(torch.tensor([high, low], dtype=torch.float64).log())
        place: Tensor = torch.special.ndtri(first + u * (last - first))
        return place.exp()

    return _by_ratio(process, steps, sigma_data, ratios)


def logsnr(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """Even steps in the log signal-to-noise ratio, then the clean point (Lu et al. 2022, 2206.00927)."""
    return _by_ratio(process, steps, sigma_data, lambda high, low, u: high * (low / high) ** u)


def exponential(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """The same factor on q at each step: k-diffusion's name for the grid "logsnr"."""
    return logsnr(process, steps, sigma_data)


def polyexponential(process: Process, steps: int, sigma_data: float = 1.0, rho: float = 1.5) -> Tensor:
    """Even steps to the power 3/2 in log q, finer towards the data; then the clean point."""
    return _by_ratio(process, steps, sigma_data, lambda high, low, u: low * (high / low) ** ((1 - u) ** rho))


def decay(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """Even steps in Ornstein-Uhlenbeck time t down to t = 1, then t decaying exponentially, stopped early; then clean.

    The step sizes min(1, t) under which convergence is proved in a number of steps that hardly depends on the data
    (Chen et al. 2022, 2209.11215; Lee et al. 2022, 2209.12381; Benton et al. 2023, 2308.03686). There the walk ends at
    the small time where it is stopped; here, as always, in the denoising step from it.
    """

    def ratios(high: float, low: float, u: Tensor) -> Tensor:
        # t = log(1 + q^2)/2 at noise ratio q; even in the integral of dt/min(1, t)
        first, last = (0.5 * math.log1p(ratio**2) for ratio in (high, low))
        top, bottom = (t - 1 if t > 1 else math.log(t) for t in (first, last))
        depth = top + u * (bottom - top)
        t = torch.where(depth > 0, 1 + depth, depth.exp())
        return torch.expm1(2 * t).sqrt()

    return _by_ratio(process, steps, sigma_data, ratios)


def karras(process: Process, steps: int, sigma_data: float = 1.0, rho: float = 7.0) -> Tensor:
    """Even steps in q^(1/7), then the clean point (Karras et al. 2022, 2206.00364, equation 5)."""

    def ratios(high: float, low: float, u: Tensor) -> Tensor:
        first, last = math.pow(high, 1 / rho), math.pow(low, 1 / rho)
        return ((1 - u) * first + u * last) ** rho

    return _by_ratio(process, steps, sigma_data, ratios)


def _levels(process: Process, steps: int, kind: str) -> int:
    if process.chain is None:
        raise InputError(f"grid={kind!r} walks the levels of a chain, and {process} runs in continuous time.")
    if steps > process.chain:
        raise InputError(f"steps={steps} must be at most {process.chain}, the levels of {process}, with grid={kind!r}.")
    return process.chain


def trailing(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """Whole levels of a chain, evenly, from the last (Lin et al. 2023, 2305.08891)."""
    n = _levels(process, steps, "trailing")
    return torch.tensor([n - (i * n) // steps for i in range(steps + 1)], dtype=torch.float64)


def leading(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """Whole levels of a chain, evenly, from the first: an older convention; visits level N only if steps = N."""
    n = _levels(process, steps, "leading")
    return torch.tensor([i * (n // steps) + 1 for i in reversed(range(steps))] + [0], dtype=torch.float64)


def chain(process: Process, steps: int, sigma_data: float = 1.0) -> Tensor:
    """Every level of a chain, N steps."""
    n = _levels(process, steps, "chain")
    if steps != n:
        raise InputError(f"steps={steps} must be {n} with grid='chain', which visits every level of {process}.")
    return torch.arange(n, -1, -1, dtype=torch.float64)


#: name -> (process, steps, sigma_data) -> times
GRIDS: dict[str, Callable[[Process, int, float], Tensor]] = {
    "flow": flow,
    "uniform": uniform,
    "quadratic": quadratic,
    "logsnr": logsnr,
    "exponential": exponential,
    "polyexponential": polyexponential,
    "karras": karras,
    "power": power,
    "tapered": tapered,
    "balanced": balanced,
    "shifted": shifted,
    "logit-normal": logit_normal,
    "decay": decay,
    "trailing": trailing,
    "leading": leading,
    "chain": chain,
}


def times(
    process: Process,
    steps: int,
    grid: "str | Sequence[float] | Tensor | None" = None,
    sigma_data: float = 1.0,
) -> Tensor:
    """The grid of sampling times, (steps + 1,) float64, strictly falling, ending at 0.

    Args:
        process: the clock.
        steps: the number of steps, at least 1.
        grid: a key of `GRIDS`, or the times themselves (falling; the clean point 0 is appended if it is not there,
            and `steps` is not consulted). None: "trailing" for a chain, "flow" in continuous time.
        sigma_data: the standard deviation of the data in model space, the unit in which a named grid measures noise (0
            counts as 1). It affects neither whole levels of a chain nor given times.

    Raises:
        InputError: an unknown grid, steps that are not a positive whole number, times outside the clock or not
            falling.
    """
    if grid is None:
        grid = "trailing" if process.chain is not None else "flow"
    if isinstance(grid, str):
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
            raise InputError(f"steps={steps!r} must be a positive whole number, up to {MOST_STEPS:,}.")
        return lookup(GRIDS, grid, "grid")(process, steps, sigma_data or 1.0)
    given = torch.as_tensor(grid, dtype=torch.float64).flatten().cpu()
    if len(given) and given[-1] != 0:
        given = torch.cat([given, given.new_zeros(1)])
    if len(given) < 2 or not bool((given.diff() < 0).all()) or given[0] > process.t_max:
        raise InputError(f"grid={given.tolist()} must be times that fall strictly from at most {process.t_max:g} to 0.")
    return given
