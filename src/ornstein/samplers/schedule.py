"""Learned step schedules: the best few levels of many, by dynamic programming.

Which K of N noise levels should a sampler visit? If a walk costs the sum of its steps, and a step's cost depends on
its two ends alone, the answer needs no search: the cheapest way to the clean point in k steps ends with some step from
level i, before which it was the cheapest way to i in k - 1,

    best_k[j] = min over i < j of best_{k-1}[i] + cost[i, j],

K passes over an N x N table (Bellman 1957). Watson et al. 2021 (2106.03802) noticed that the variational bound of a
chain is such a sum, and that one pass of the network over N levels prices every step between them:
`ornstein.objectives.bound.x0_errors` and `step_costs` make the table. Likelihood is then as good as K steps allow;
what samples look like is another question, which the bound does not ask.
"""

import math

import torch
from torch import Tensor

from ornstein.errors import InputError


def best_grid(costs: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The cheapest walk of `steps` steps through a table of costs, and what the cheapest walks of fewer would cost.

    Args:
        costs: (N + 1, N + 1). costs[i, j], for i < j, is the price of the step from level i to level j; costs[i, i]
            the price of starting at level i, infinite where a walk may not; level N is the clean point, where walks
            end. The rest is not looked at.
        steps: in [1, N].

    Returns:
        The levels visited, (steps + 1,) int64, rising to N: `times[levels]` is a grid to sample with. And the least
        cost in 1, 2, ..., `steps` steps, (steps,) float64.

    Raises:
        InputError: a table that is not square, has NaN, or where no walk of so many steps is finite.
    """
    if costs.ndim != 2 or costs.shape[0] != costs.shape[1] or len(costs) < 2:
        raise InputError(f"costs has shape {tuple(costs.shape)}; it must be (N + 1, N + 1) for N >= 1 levels.")
    n = len(costs) - 1
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= n:
        raise InputError(f"steps={steps!r} must be a whole number in [1, {n}], the levels of the table.")
    costs = costs.detach().to("cpu", torch.float64)
    if bool(costs.triu().isnan().any()):
        raise InputError("costs has NaN among its prices.")
    start = costs.diagonal().clone()
    start[n] = math.inf
    above = torch.ones_like(costs, dtype=torch.bool).triu(1)
    arriving = torch.where(above, costs, math.inf).T.contiguous()  # [j, i], so that the minimum runs along memory
    best, totals, before = start, [], []
    for k in range(1, steps + 1):
        # after k steps one has come from level k - 1 or later, and is at level k or later
        least, i = (arriving[k:, k - 1 :] + best[k - 1 :]).min(1)
        best = torch.cat([best.new_full((k,), math.inf), least])
        before.append(i + k - 1)
        totals.append(best[n])
    if not bool(torch.isfinite(totals[-1])):
        raise InputError(f"steps={steps} cannot be walked: every way through the table of costs is infinite.")
    level = torch.tensor(n)
    levels = [level]
    for k in range(steps, 0, -1):
        level = before[k - 1][level - k]
        levels.append(level)
    return torch.stack(levels[::-1]), torch.stack(totals)
