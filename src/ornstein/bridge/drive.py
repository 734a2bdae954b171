"""Walking a bridge: from a row of one data set to a row of the other.

The walk goes down a path, from x_1 at t_max to x_0 at 0; what goes up is the walk of `bridge.reversed()`. At each stage
the bridge is asked where x comes from, and the equation that needs this end alone is solved up to the next as if the
answer held (`Stage.step_to`):

    x_s = (b_s/b_t) x_t + (a_s - a_t b_s/b_t) x0(x_t) + sqrt(v_s - (b_s/b_t)^2 v_t) z.

On Brownian bridges this is the sampler of I2SB (Liu et al. 2023, 2302.05872, which has DDPM's from it), on paths without
noise DDIM's, or Euler's on straight lines; its last step gives x0 itself. It is exact for ends that are always c,
whatever the steps, and of order 1 in law otherwise.

x_t of a bridge is no function of its noise alone, and so the walk takes no start from a seed: that is a row of data.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ornstein.bridge.model import Bridge
from ornstein.bridge.path import Ends, Stage
from ornstein.core.condition import Condition, Given
from ornstein.core.drive import Noise, sample_seeds
from ornstein.core.walk import Asked, State, end, walk
from ornstein.errors import InputError

Ask = Asked[Tensor, Stage, Ends]


def stages(bridge: Bridge, steps: int, grid: Sequence[float] | Tensor | None = None) -> list[Stage]:
    """The stages that a walk visits: `steps` even ones, or those of falling times that end at 0.

    Raises:
        InputError: no whole number of steps, or times that do not fall to 0 from t_max or below.
    """
    if not (isinstance(steps, int) and steps > 0):
        raise InputError(f"steps={steps!r} must be a positive whole number.")
    path = bridge.path
    even = torch.linspace(path.t_max, 0, steps + 1, dtype=torch.float64)
    times = even if grid is None else torch.as_tensor(grid, dtype=torch.float64)
    if times.ndim != 1 or len(times) < 2 or bool((times.diff() >= 0).any()) or float(times[-1]) != 0:
        raise InputError(f"grid={times.tolist()} must be times that fall, from at most t_max={path.t_max:g}, to 0.")
    return [path.at(t) for t in times.tolist()]


def crossing(
    bridge: Bridge,
    x: Tensor,
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
        steps, grid: how many even steps, or at which falling times.
        seed, seeds, generator: one source of randomness, as for `ornstein.trajectory`; each row has noise of its own.
        condition: with B rows.

    Raises:
        InputError: seeds, times or a condition that do not fit; a bridge that does not know x_0.
    """
    levels = stages(bridge, steps, grid)
    given = Condition.of(condition).matches(len(x), "x").to(x.device)
    dtype = torch.promote_types(x.dtype, torch.float32)
    noise = Noise(sample_seeds(len(x), seed, seeds, generator).to(x.device), tuple(x.shape[1:]), dtype)

    def asked(x: Tensor, stage: Stage) -> Ends:
        ends = bridge.predict(x, stage, given)
        if ends.x0 is None:
            raise InputError("bridge does not know the end that it is walked to; walk it from the other one.")
        return ends

    def step(ask: Ask, x: Tensor, t: Stage, s: Stage, memory: Any) -> tuple[Tensor, Any]:
        from_xt, from_x0, variance = t.step_to(s)
        mean = from_xt * x + from_x0 * ask(x, t).read("x0")
        return (mean + float(variance) ** 0.5 * noise() if variance > 0 else mean), None

    return walk(Ask(asked), x.to(dtype), levels, step, lambda ask, x, t, memory: ask(x, t).read("x0"))


def translate(bridge: Bridge, x: Tensor, **settings: Any) -> Tensor:
    """Rows of the near data set for rows of the far one, (B, ...): the end of `crossing`, whose settings it takes."""
    return end(crossing(bridge, x, **settings)).x
