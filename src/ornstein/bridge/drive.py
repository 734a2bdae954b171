"""Walking a bridge: from a row of one data set to a row of the other.

The walk goes down a path, from x_1 at t_max to x_0 at 0; to go up, walk `bridge.reversed()`. The equation that needs
the near end alone is linear except for that end, E[x_0 given x_t], so each step solves it exactly for a constant x0
(`Stage.step_to`):

    x_s = (b_s/b_t) x_t + (a_s - a_t b_s/b_t) x0 + sqrt(v_s - (b_s/b_t)^2 v_t) z.

With x0 taken at (x_t, t) this is the sampler of I2SB on Brownian bridges (Liu et al. 2023, 2302.05872), DDIM on paths
without noise, and Euler's rule if these are straight lines. It is of order 1, since x0 changes within a step, also with
the noise of that step. If x0 is also taken at the step's end, and the two are averaged (Heun's rule, which for noise
that does not depend on x is of order 2 in law; Kloeden & Platen 1992, section 15.1), it is of order 2. Both are exact
in any number of steps for a near end that is always the same point.

*Spacing.* The last step goes to x0 itself and so leaves out the variance that x_0 still has at the last stage, about
g^2 t. So on paths with noise the stages are spaced as t_max (i/n)^p. The i-th step from the end is p/i of its own time
long; Heun's rule makes an error of the cube of that, times the variance left there, i^p/n^p. With p = 5/2 these errors
and that of the last step sum to order 1/n^2; with p = 2 there is an additional logarithm.

*Weights.* These last steps are long beside their own time, r = b_t/b_s = (i/(i - 1))^p on a Brownian bridge, so it
matters how the two x0 are weighted. Where little noise is left, a near end that has a density moves with x_t,
E[x_0 given x_t] = x_t + const., and x_s given x_t has r times the variance of a step that holds x0. With a share w for
the later x0, the noise z of a step moves x_s by (1 + w (1 - 1/r)) z. So the variance comes out right if

    (1 + w (1 - 1/r))^2 = r,        w = r/(1 + sqrt(r)),

which is 1/2 for short steps. Without noise w is 1/2.
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

#: p, the power by which stages are denser towards the near end, on paths with noise
_POWER = 2.5

Ask = Asked[Tensor, Stage, Ends]


class BridgeStepper(ABC):
    """Goes from stage t down to s < t. A frozen dataclass of its settings.

    Facts, each checked by a test: `order`, as measured, in law if the path has noise; `calls` of the bridge in a step.
    The last step, to the near end, is one call, E[x_0 given x_t].
    """

    order: ClassVar[int]
    calls: ClassVar[int]

    @abstractmethod
    def step(self, ask: Ask, x: Tensor, t: Stage, s: Stage, noise: Callable[[], Tensor]) -> Tensor:
        """x (B, ...) at stage s, from x at t; coefficients are floats, `noise()` is standard normal, of x's shape."""


@dataclass(frozen=True)
class Ancestral(BridgeStepper):
    """The near end as predicted at the start of a step, held for the step: I2SB's sampler; without noise, DDIM.

    Order 1. One call a step. Stochastic if the path is.
    """

    order: ClassVar[int] = 1
    calls: ClassVar[int] = 1

    def step(self, ask: Ask, x: Tensor, t: Stage, s: Stage, noise: Callable[[], Tensor]) -> Tensor:
        from_xt, from_x0, variance = t.step_to(s)
        mean = from_xt * x + from_x0 * ask(x, t).read("x0")
        return mean + float(variance) ** 0.5 * noise() if variance > 0 else mean


@dataclass(frozen=True)
class Heun(BridgeStepper):
    """The near end as predicted at both ends of a step, averaged by weights that keep the variance of the walk.

    Order 2. Two calls a step. Stochastic if the path is.
    """

    order: ClassVar[int] = 2
    calls: ClassVar[int] = 2

    def step(self, ask: Ask, x: Tensor, t: Stage, s: Stage, noise: Callable[[], Tensor]) -> Tensor:
        from_xt, from_x0, variance = t.step_to(s)
        here = ask(x, t).read("x0")
        rest = from_xt * x + (float(variance) ** 0.5 * noise() if variance > 0 else 0.0)
        there = ask(rest + from_x0 * here, s).read("x0")
        later = 1 / (from_xt + float(from_xt) ** 0.5) if variance > 0 else 0.5  # from_xt is 1/r
        return rest + from_x0 * (here + later * (there - here))


#: how a bridge is walked, by name
BRIDGE_STEPPERS: dict[str, Callable[..., BridgeStepper]] = {"bridge-ancestral": Ancestral, "bridge-heun": Heun}


def stages(path: Path, steps: int, grid: Sequence[float] | Tensor | None = None) -> list[Stage]:
    """The `steps` + 1 stages that a walk visits: even in time without noise, else denser towards the end; or `grid`.

    Raises:
        InputError: steps that are not a whole number, or times that do not fall to 0 from t_max or below.
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
    """Walk from rows of the far data set to rows of the near one, yielding every state; x itself comes first.

    Args:
        bridge: a bridge that knows x_0, `Ends.x0`. For the other direction, `bridge.reversed()`.
        x: (B, ...) in model space: rows of the far data set, or x_t at the first time of `grid`.
        stepper: a stepper, or its name in `BRIDGE_STEPPERS`.
        steps, grid: the number of steps, or falling times; see `stages`.
        seed, seeds, generator: one source of randomness, as for `ornstein.trajectory`; each row has its own noise.
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
            raise InputError("bridge does not know the end that it is walked to; walk it from the other end.")
        return ends

    def step(ask: Ask, x: Tensor, t: Stage, s: Stage, memory: Any) -> tuple[Tensor, Any]:
        return way.step(ask, x, t, s, noise), None

    return walk(Ask(asked), x.to(dtype), levels, step, lambda ask, x, t, memory: ask(x, t).read("x0"))


def translate(bridge: Bridge, x: Tensor, **settings: Any) -> Tensor:
    """Rows of the near data set for rows of the far one, (B, ...): the last state of `crossing`, with its settings."""
    return end(crossing(bridge, x, **settings)).x


@torch.no_grad()
def path_energy(
    bridge: Bridge, x: Tensor, *, steps: int = 100, seed: int = 0, stepper: BridgeStepper | str = "bridge-heun"
) -> Tensor:
    """The integral of |velocity|^2 dt over the way down of each row, (B,), in squared units of x over units of time.

    The velocity is that of the ODE with the path's marginals, whether the walk has noise or not. The integral's mean
    over rows is never below the squared 2-Wasserstein distance of the ends, divided by t_max (Benamou & Brenier 2000).

    Args:
        bridge: a bridge that knows both ends.
        x: (B, ...) rows of the far data set.
        steps: of the walk, at least 2; the integral is a sum over the states between its ends.
        seed: of the noise.
        stepper: a stepper, or its name.
    """
    levels, total = stages(bridge.path, steps), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    walked = list(crossing(bridge, x, stepper, steps=steps, seed=seed))[1:-1]
    edges = [levels[0].t, *((t.t + s.t) / 2 for t, s in pairwise(levels[1:-1])), levels[-1].t]
    for state, level, (above, below) in zip(walked, levels[1:-1], pairwise(edges), strict=True):
        velocity = bridge(state.x, level).read("velocity")
        total += float(above - below) * velocity.double().flatten(1).square().sum(1)
    return total
