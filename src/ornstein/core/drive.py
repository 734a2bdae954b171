"""Sampling: the walk of `ornstein.core.walk`, downward, for states with Gaussian noise; and the contract of steppers.

Sampling starts from noise, x ~ N(0, alpha^2 sigma_data^2 + sigma^2), at the first time of a grid, and lets a stepper
take it down level by level. Steppers differ in how they go from t to s < t.

**The last step is always the denoising step**, x = E[x_0 given x_t]. At the clean point every sound formula reduces
to that: the posterior variance is zero, DDIM's noise scale is zero, an exponential integrator keeps nothing but x0.
Doing it here means that no stepper ever divides by sigma = 0 and that nothing returns residual noise.

Noise is a function of the sample's seed and of how many draws came before (`numerics.normal`), so a sample does not
depend on the batch it was drawn in. A stepper may instead ask for the increment, over its step, of one Brownian path
per seed (`ornstein.core.brownian`): the sample then stays the same, better resolved, as the grid is refined.
"""

import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ornstein.core.brownian import BrownianPath
from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser
from ornstein.core.grids import times
from ornstein.core.numerics import normal, uniform
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.core.walk import Asked, State, walk
from ornstein.errors import InputError

#: numbers that a walk may draw ahead of their use
_AHEAD = 2**13


class Ask(Asked[Tensor, Level, Prediction]):
    """What a stepper calls: a denoiser with its condition bound, that counts and remembers for the walk.

    `ask(x, level)` gives the Prediction; `ask.process` is the clock, for a stepper that needs levels of its own, and
    `ask.steps` the number of steps of the walk, for one whose order depends on it (0: not known). Noise is large or
    small beside the data: `ask.unit` is what it is measured in (`Scaled.unit`), and a stepper that compares sigma/alpha
    with a number divides it by that first.
    """

    def __init__(self, denoiser: Denoiser, condition: Condition, steps: int = 0) -> None:
        super().__init__(lambda x, level: denoiser.predict(x, level, condition), steps)
        self.process: Process = denoiser.process
        self.sigma_data = denoiser.sigma_data
        self.unit = denoiser.unit


class Noise:
    """What a stepper draws from: `noise()` is fresh standard normal noise like x, at each call."""

    def __init__(
        self, seeds: Tensor, shape: tuple[int, ...], dtype: torch.dtype, draws: int = 0, unit: float = 1.0
    ) -> None:
        self._seeds, self._shape, self._dtype, self._draws, self._unit = seeds, shape, dtype, draws, unit
        self._path: BrownianPath | None = None
        self._most = max(1, _AHEAD // max(1, len(seeds) * math.prod(shape)))
        self._ahead: list[Tensor] = []
        self._made = 0

    def __call__(self) -> Tensor:
        if not self._ahead:
            # what small noise costs is the operations, not the numbers: some draws ahead, each time four times as many
            self._made = min(max(1, 4 * self._made), self._most)
            self._ahead = list(self._draw(range(self._draws, self._draws + self._made)))[::-1]
        self._draws += 1
        return self._ahead.pop()

    def between(self, t: Level[float], s: Level[float], power: float = 1.0) -> Tensor:
        """Standard normal noise like x: the increment from level t to s of the seed's one Brownian path, normalised.

        Args:
            t, s: levels, log-SNR rising.
            power: the clock that the path runs on is the signal-to-noise ratio, of data of the walk's unit, to this
                power.
        """
        if self._path is None:
            self._path = BrownianPath(self._draw)
        shift = 2 * math.log(self._unit)
        a, b = (math.exp(power * (level.log_snr + shift)) for level in (t, s))
        return self._path.increment(a, b)

    def _draw(self, draws: Sequence[int]) -> Tensor:
        return normal(self._seeds, self._shape, draws, self._dtype)


class Stepper(ABC):
    """Goes from t down to s < t. A stepper is a frozen dataclass of its settings; its memory is passed explicitly.

    Facts, each held by a test:
        order: the measured order of convergence of the deterministic (or, in law, of the stochastic) method; None
            where it has none, because a finer grid alone does not make it exact.
        calls: network calls per step; None where it depends on the data.
        last_calls: those of the last step, to the clean point: the denoising step's one, and what is done before it.
        stochastic: whether it draws noise.
    """

    @property
    @abstractmethod
    def order(self) -> int | None: ...

    @property
    def usual_grid(self) -> str:
        """The grid in continuous time where none is named."""
        return "flow"

    @property
    def calls(self) -> int | None:
        return 1

    @property
    def last_calls(self) -> int | None:
        return 1

    @property
    def stochastic(self) -> bool:
        return False

    @abstractmethod
    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """One step.

        Args:
            denoiser: call it as `denoiser(x, t)`; the first call of a step tells `State.x0`.
            x: (B, ...) at level t.
            t, s: levels, coefficients as floats; s.t < t.t and s.sigma > 0.
            memory: what the last step returned; None at the first.
            noise: `noise()` gives fresh standard normal noise like x; `noise.between(t, s)` that of the seed's path.

        Returns:
            x at level s, and what to remember.
        """

    def finish(self, denoiser: Ask, x: Tensor, t: Level[float], memory: Any, noise: Noise) -> Tensor:
        """The last step, from level t to the clean point: E[x_0 given x_t].

        A method that has remembered earlier predictions may correct it by their differences; one that has work to do at
        each level, this one too, does it here first.
        """
        return denoiser(x, t).x0


#: between the seeds of two turns; odd, so that none comes twice
_NEXT = 0x9E3779B1


def sample_seeds(count: int, seed: int | None, seeds: Any, generator: torch.Generator | None) -> Tensor:
    """One 64-bit seed per sample: sample i of `seed` has seed * 2^32 + i, whatever batch it is drawn in.

    Raises:
        InputError: more than one source named, or seeds that are not `count` whole numbers.
    """
    if sum(source is not None for source in (seed, seeds, generator)) > 1:
        raise InputError("give one of seed=, seeds= and generator=, not several.")
    if seeds is not None:
        given = torch.as_tensor(seeds)
        if given.shape != (count,) or given.is_floating_point():
            raise InputError(f"seeds has shape {tuple(given.shape)}; it must be {count} whole numbers, one per sample.")
        return given.long().cpu()
    if generator is not None:
        return torch.randint(2**62, (count,), generator=generator, device=generator.device).cpu()
    if seed is None:
        seed = secrets.randbelow(2**31)  # torch.seed() would seed torch's own generators anew
    if not (isinstance(seed, int) and 0 <= seed < 2**31):
        raise InputError(f"seed={seed!r} must be a whole number in [0, 2^31).")
    return (seed << 32) + torch.arange(count)


def other_seeds(seeds: Tensor, counter: int) -> Tensor:
    """Seeds (B,) of another walk of the same samples: else its noise would be that of the first, number for number.

    Args:
        seeds: (B,).
        counter: of which walk; beyond what the walks themselves draw by, as 2^34.
    """
    return (uniform(seeds, 1, counter)[:, 0].double() * 2**53).long()


def another_seed(seed: int, turn: int) -> int:
    """The seed of another draw of the same: itself in turn 0, and a different one in each turn after.

    Raises:
        InputError: as `sample_seeds`.
    """
    sample_seeds(0, seed, None, None)
    return (seed + turn * _NEXT) % 2**31


def trajectory(
    denoiser: Denoiser,
    shape: Sequence[int],
    stepper: Stepper,
    *,
    steps: int = 50,
    grid: "str | Sequence[float] | Tensor | None" = None,
    seed: int | None = None,
    seeds: "Sequence[int] | Tensor | None" = None,
    generator: torch.Generator | None = None,
    condition: Given = None,
    x: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[State[Tensor]]:
    """Walk from noise to data, yielding each state: `steps + 1` of them, the noise first, the samples last.

    Args:
        denoiser: whose distribution to draw from.
        shape: (B, ...) of what to draw, in model space.
        stepper: how to step.
        steps, grid: where to step; see `grids.times`.
        seed, seeds, generator: one source of randomness: a number for all, (B,) numbers, or a torch generator. None:
            fresh.
        condition: what to draw given, with B rows; see `Condition.of`.
        x: start from this noisy data at the grid's first time, instead of from noise. For what lies at another level
            give the grid as the times from that level down.
        dtype: of the samples, float32 or float64.

    Raises:
        InputError: shapes, grid or seeds that do not fit; x with more noise than a named grid starts with.
    """
    if not hasattr(denoiser, "process"):
        raise InputError(
            f"denoiser={type(denoiser).__name__} is none: it has no process; of a network, make one with "
            "NetDenoiser(net, process)."
        )
    shape = tuple(shape)
    if len(shape) < 2 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise InputError(f"shape={shape} must be (number of samples, *shape of one sample), all positive.")
    device = denoiser.device
    condition = Condition.of(condition).matches(shape[0], f"shape={shape}").to(device)
    if x is not None and tuple(x.shape) != shape:
        raise InputError(f"x has shape {tuple(x.shape)} but shape={shape}.")
    if grid is None and denoiser.process.chain is None:
        grid = stepper.usual_grid
    if grid is None or isinstance(grid, str):
        levels = _levels(denoiser.process, steps, grid, denoiser.unit)
        # where the clock goes on beyond the grid, noisy data may lie there
        if x is not None and levels[0].t < denoiser.process.t_max:
            _fits(x, levels[0], denoiser.sigma_data)
    else:
        levels = denoiser.process.levels(times(denoiser.process, steps, grid))
    # draw 0 is the starting noise, whether or not it is wanted
    keys = sample_seeds(shape[0], seed, seeds, generator).to(device)
    noise = Noise(keys, shape[1:], dtype, draws=0 if x is None else 1, unit=denoiser.unit)
    if x is None:
        x = start(levels[0], denoiser.sigma_data, noise)
    return walk(
        Ask(denoiser, condition, len(levels) - 1),
        x.to(device, dtype),
        levels,
        drawing(stepper, noise),
        lambda ask, x, t, memory: stepper.finish(ask, x, t, memory, noise),
    )


def start(level: Level[float], sigma_data: float, noise: Callable[[], Tensor]) -> Tensor:
    """Where a walk begins at a level: x ~ N(0, alpha^2 sigma_data^2 + sigma^2), from one draw of the noise."""
    spread: float = ((level.alpha * sigma_data) ** 2 + level.sigma**2) ** 0.5
    return spread * noise()


def drawing(stepper: Stepper, noise: Noise) -> Callable[..., tuple[Tensor, Any]]:
    """A stepper's step as `walk` takes it: with what it draws from bound."""
    return lambda ask, x, t, s, memory: stepper.step(ask, x, t, s, memory, noise)


def _fits(x: Tensor, first: Level[float], sigma_data: float) -> None:
    """Refuse noisy data whose size tells that they lie beyond a grid's first level."""
    wanted = math.hypot(first.alpha * sigma_data, first.sigma)
    size = float(x.detach().float().square().mean().sqrt())
    # somewhat larger may be meant, as a start that is to be corrected; few numbers may be larger by chance
    if not size <= wanted * math.sqrt(6.25 + 40 / x.numel()):
        raise InputError(
            f"x has a root mean square of {size:.4g}, but the grid starts at t={first.t:g}, sigma/alpha="
            f"{first.noise_ratio:.4g}, where it is about {wanted:.4g}: for noisy data of another level give grid= as "
            "the falling times from that level on."
        )


@lru_cache(maxsize=256, typed=True)
def _levels(process: Process, steps: int, grid: str | None, sigma_data: float) -> list[Level[float]]:
    """The levels of a named grid: found by search, and so kept."""
    return process.levels(times(process, steps, grid, sigma_data))
