"""Walking a bridge: from a row of one data set to a row of the other.

The walk goes down a path, from x_1 at t_max to x_0 at 0; what goes up is the walk of `bridge.reversed()`. The equation
that needs the near end alone is linear but for that end, E[x_0 given x_t], so it is solved up to the next stage as if
the answer held (`Stage.step_to`):

    x_s = (b_s/b_t) x_t + (a_s - a_t b_s/b_t) x0 + sqrt(v_s - (b_s/b_t)^2 v_t) z.

With x0 asked at (x_t, t) that is the sampler of I2SB on Brownian bridges (Liu et al. 2023, 2302.05872), on paths
without noise DDIM's, or Euler's where they are straight lines. It is of order 1: within a step the answer moves, with
the noise of that step too. Asked at the step's end as well, and averaged (Heun's rule, which for noise that does not
depend on x is of order 2 in law; Kloeden & Platen 1992, section 15.1), it is of order 2. Either is exact for ends that
are always c, whatever the steps.

*The last step* goes to x0 itself and so leaves out what is still open at the last stage, a variance of about g^2 t. So
where there is noise the stages are spread as t_max (i/n)^p. The i-th from the end is p/i of its own time long; Heun's
rule errs by the cube of that, of what is open there, i^p/n^p. p = 5/2 sums this, and the last step, to 1/n^2; p = 2 has
a logarithm more.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from ornstein.bridge.model import Bridge
from ornstein.bridge.path import Ends, Path, Stage
from ornstein.core.condition import Condition, Given
from ornstein.core.drive import Noise, sample_seeds
from ornstein.core.walk import Asked, State, end, walk
from ornstein.errors import InputError, lookup

#: how much denser stages lie towards the near end, where the path has noise
_POWER = 2.5

Ask = Asked[Tensor, Stage, Ends]


class BridgeStepper(ABC):
    """Goes from stage t down to s < t. A frozen dataclass of its settings.

    Facts, each held by a test: `order`, measured, in law where the path has noise; `calls` of the bridge a step. The
    last step, to the near end, is one call, E[x_0 given x_t].
    """

    order: ClassVar[int]
    calls: ClassVar[int]

    @abstractmethod
    def step(self, ask: Ask, x: Tensor, t: Stage, s: Stage, noise: Callable[[], Tensor]) -> Tensor:
        """x (B, ...) at stage s, from that at t; coefficients are floats, `noise()` is standard normal and like x."""


@dataclass(frozen=True)
class Ancestral(BridgeStepper):
    """The near end as it is seen from here, held for a step: I2SB's sampler, DDIM's without noise.

    Order 1. One call a step. As stochastic as the path.
    """

    order: ClassVar[int] = 1
    calls: ClassVar[int] = 1

    def step(self, ask: Ask, x: Tensor, t: Stage, s: Stage, noise: Callable[[], Tensor]) -> Tensor:
        from_xt, from_x0, variance = t.step_to(s)
        mean = from_xt * x + from_x0 * ask(x, t).read("x0")
        return mean + float(variance) ** 0.5 * noise() if variance > 0 else mean


@dataclass(frozen=True)
class Heun(BridgeStepper):
    """The near end as it is seen from both ends of a step, averaged, with one noise.

    Order 2. Two calls a step. As stochastic as the path.
    """

    order: ClassVar[int] = 2
    calls: ClassVar[int] = 2

    def step(self, ask: Ask, x: Tensor, t: Stage, s: Stage, noise: Callable[[], Tensor]) -> Tensor:
        from_xt, from_x0, variance = t.step_to(s)
        here = ask(x, t).read("x0")
        rest = from_xt * x + (float(variance) ** 0.5 * noise() if variance > 0 else 0.0)
        there = ask(rest + from_x0 * here, s).read("x0")
        return rest + from_x0 * 0.5 * (here + there)


#: how a bridge is walked, by name
BRIDGE_STEPPERS: dict[str, Callable[..., BridgeStepper]] = {"bridge-ancestral": Ancestral, "bridge-heun": Heun}


def stages(path: Path, steps: int, grid: Sequence[float] | Tensor | None = None) -> list[Stage]:
    """The stages that a walk visits, `steps` + 1: even in time without noise, else denser to the end; or given ones.

    Raises:
        InputError: no whole number of steps, or times that do not fall to 0 from t_max or below.
    """
    if not (isinstance(steps, int) and steps > 0):
        raise InputError(f"steps={steps!r} must be a positive whole number.")
    even = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    times = path.t_max * (even if path.noiseless else even**_POWER)
    if grid is not None:
        times = torch.as_tensor(grid, dtype=torch.float64)
    if times.ndim != 1 or len(times) < 2 or bool((times.diff() >= 0).any()) or float(times[-1]) != 0:
        raise InputError(f"grid={times.tolist()} must be times that fall, from at most t_max={path.t_max:g}, to 0.")
    return [path.at(t) for t in times.tolist()]


def crossing(
    bridge: Bridge,
    x: Tensor,
    stepper: BridgeStepper | str = "bridge-heun",
    *,
    steps: int = 50,
    grid: Sequence[float] | Tensor | None = None,
    seed: int | None = None,
    seeds: Sequence[int] | Tensor | None = None,
    generator: torch.Generator | None = None,
    condition: Given = None,
) -> Iterator[State[Tensor]]:
    """Walk from rows of the far data set to rows of the near one, yielding each moment; x itself comes first.

    Args:
        bridge: which knows x_0, `Ends.x0`. For the other direction, `bridge.reversed()`.
        x: (B, ...) in model space: rows of the far data set, or x_t at the first time of `grid`.
        stepper: how to step, or its name in `BRIDGE_STEPPERS`.
        steps, grid: how many steps, or at which falling times; see `stages`.
        seed, seeds, generator: one source of randomness, as for `ornstein.trajectory`; each row has noise of its own.
        condition: with B rows.

    Raises:
        InputError: seeds, times or a condition that do not fit; a bridge that does not know x_0.
    """
    way = lookup(BRIDGE_STEPPERS, stepper, "stepper")() if isinstance(stepper, str) else stepper
    levels = stages(bridge.path, steps, grid)
    given = Condition.of(condition).matches(len(x), "x").to(x.device)
    dtype = torch.promote_types(x.dtype, torch.float32)
    noise = Noise(sample_seeds(len(x), seed, seeds, generator).to(x.device), tuple(x.shape[1:]), dtype)

    def asked(x: Tensor, stage: Stage) -> Ends:
        ends = bridge.predict(x, stage, given)
        if ends.x0 is None:
            raise InputError("bridge does not know the end that it is walked to; walk it from the other one.")
        return ends

    def step(ask: Ask, x: Tensor, t: Stage, s: Stage, memory: Any) -> tuple[Tensor, Any]:
        return way.step(ask, x, t, s, noise), None

    return walk(Ask(asked), x.to(dtype), levels, step, lambda ask, x, t, memory: ask(x, t).read("x0"))


def translate(bridge: Bridge, x: Tensor, **settings: Any) -> Tensor:
    """Rows of the near data set for rows of the far one, (B, ...): the end of `crossing`, whose settings it takes."""
    return end(crossing(bridge, x, **settings)).x


@torch.no_grad()
def path_energy(
    bridge: Bridge, x: Tensor, *, steps: int = 100, seed: int = 0, stepper: BridgeStepper | str = "bridge-heun"
) -> Tensor:
    """The integral of |velocity|^2 dt over the way down of each row, (B,), in squared units of x over units of time.

    The velocity is that of the ODE with the path's marginals, whether the walk has noise or not. Its mean over rows is
    never below the squared 2-Wasserstein distance of the ends, over t_max (Benamou & Brenier 2000).

    Args:
        bridge: which knows both ends.
        x: (B, ...) rows of the far data set.
        steps: of the walk, at least 2; the integral is a sum over the moments between its ends.
        seed: of the noise.
        stepper: how to step.
    """
    levels, total = stages(bridge.path, steps), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    walked = list(crossing(bridge, x, stepper, steps=steps, seed=seed))[1:-1]
    edges = [levels[0].t, *((t.t + s.t) / 2 for t, s in pairwise(levels[1:-1])), levels[-1].t]
    for state, level, (above, below) in zip(walked, levels[1:-1], pairwise(edges), strict=True):
        velocity = bridge(state.x, level).read("velocity")
        total += float(above - below) * velocity.double().flatten(1).square().sum(1)
    return total
