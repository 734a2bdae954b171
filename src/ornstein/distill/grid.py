"""Learned step schedules: the best few levels of many, by dynamic programming.

Which K of N noise levels should a sampler visit? If a walk costs the sum of its steps, and the cost of a step depends
only on its two ends, no search is needed: the cheapest way to level j in k steps ends with a step from some level i,
and before that step it is the cheapest way to i in k - 1,

    best_k[j] = min over i < j of best_{k-1}[i] + cost[i, j],

which takes K passes over an N x N table (Bellman 1957). Watson et al. 2021 (2106.03802) noticed that the variational
bound of a chain is such a sum, and that one evaluation of the network at each of N levels gives the cost of every step
between them: `ornstein.objectives.measured.x0_errors` and `step_costs` make the table. The likelihood is then as good
as K steps allow; how samples look is another question, on which the bound is silent.

A longer walk is not always cheaper: with a fixed variance, or a network with large errors near the data, some levels
cost more than they save. So the programme finds the best walk of *at most* K steps, whose cost never rises with K.
"""

import math

import torch
from torch import Tensor

from ornstein.errors import InputError


def best_grid(costs: Tensor, steps: int, free_start: bool = False) -> tuple[Tensor, Tensor]:
    """The cheapest walk of at most `steps` steps through a table of costs, and the least costs with fewer steps.

    Args:
        costs: (N + 1, N + 1). costs[i, j], for i < j, is the cost of the step from level i to level j; costs[i, i] is
            the cost of starting at level i; level N is the clean point, where walks end. Other entries are ignored.
        steps: in [1, N].
        free_start: let the walk start at any level, at its cost, and not only at level 0 as in Watson et al.

    Returns:
        The levels visited, (k + 1,) int64, rising to N, with the fewest steps k that reach the least cost:
        `times[levels]` is a grid to sample with. And the least cost of at most 1, 2, ..., `steps` steps, (steps,)
        float64.

    Raises:
        InputError: a table that is not square or has NaN, or in which every walk has infinite cost.
    """
    if costs.ndim != 2 or costs.shape[0] != costs.shape[1] or len(costs) < 2:
        raise InputError(f"costs has shape {tuple(costs.shape)}; it must be (N + 1, N + 1) for N >= 1 levels.")
    n = len(costs) - 1
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= n:
        raise InputError(f"steps={steps!r} must be a whole number in [1, {n}], the levels of the table.")
    costs = costs.detach().to("cpu", torch.float64)
    if bool(costs.triu().isnan().any()):
        raise InputError("costs has NaN among its entries.")
    best = torch.full((n + 1,), math.inf, dtype=torch.float64)
    starts = n if free_start else 1
    best[:starts] = costs.diagonal()[:starts]
    above = torch.ones_like(costs, dtype=torch.bool).triu(1)
    arriving = torch.where(above, costs, math.inf).T.contiguous()  # [j, i]: the minimum runs over contiguous memory
    totals, before = [], []
    for k in range(1, steps + 1):
        # after k steps a walk is at level k or later, and was at level k - 1 or later before the last
        least, i = (arriving[k:, k - 1 :] + best[k - 1 :]).min(1)
        best = torch.cat([best.new_full((k,), math.inf), least])
        before.append(i + k - 1)
        totals.append(best[n])
    exactly = torch.stack(totals)
    if not bool(torch.isfinite(exactly).any()):
        raise InputError(f"steps={steps}: every walk through the table of costs has an infinite cost.")
    level = torch.tensor(n)
    levels = [level]
    for k in range(int(exactly.argmin()), -1, -1):
        level = before[k][level - k - 1]
        levels.append(level)
    return torch.stack(levels[::-1]), exactly.cummin(0).values
