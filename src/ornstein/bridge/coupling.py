"""Couplings: which row of one data set each row of the other is joined to.

Two data sets without pairs leave open which rows belong together; a coupling decides it for the rows of a batch. A
coupling may join rows in any way, but it keeps the two distributions, so a path between the pairs leads from one to the
other.

*Optimal transport* takes the pairing with the least mean squared distance: the lines of a path then cross little, and
few steps are enough to walk them (Pooladian et al. 2023, 2304.14772; Tong et al. 2023, 2302.00482). In one dimension it
sorts.

*Entropic transport* draws pairs from the plan P that is nearest, in relative entropy, to a diffusion that joins any two
ends with weight exp(x_0 . x_1/c), c being the `stiffness` of its path (noise^2 for Brownian motion). On a batch of n
and m rows, with cost |x_0 - x_1|^2/2,

    P_ij = exp((f_i + g_j - |x_i - y_j|^2/2)/c)/(n m),      f_i = -c log mean_j exp((g_j - |x_i - y_j|^2/2)/c),

and g likewise: Sinkhorn's iteration, here in log space and from soft plans to hard ones (Cuturi 2013, 1306.0895;
Peyre & Cuturi 2019, 1803.00567). It is the coupling of a Schrodinger bridge (Leonard 2014, 1308.0215), so bridge
matching on such pairs learns that bridge without any simulation, up to the error of using a batch for the whole
distributions.

A coupling is `(x0, x1, generator) -> (B,) int64`: the row of x1 that each row of x0 is joined to. With these indices
whatever else is known about a row can follow it.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.process import check_positive
from ornstein.errors import InputError

#: rounds after which Sinkhorn's iteration gives up
_ROUNDS = 10_000


def squared_distances(x0: Tensor, x1: Tensor) -> Tensor:
    """|x_i - y_j|^2 over all elements of a sample, (n, m) float64, without the rounding of large means."""
    x, y = x0.flatten(1).double(), x1.flatten(1).double()
    if x.shape[1] != y.shape[1]:
        raise InputError(f"x0 has shape {tuple(x0.shape)}, x1 {tuple(x1.shape)}: samples of both must be of one shape.")
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist") ** 2


def sinkhorn(cost: Tensor, stiffness: float, tolerance: float = 1e-9, rounds: int = _ROUNDS) -> Tensor:
    """log P, (n, m) float64, of the entropic plan between uniform weights, the minimum of sum P cost + stiffness KL(P).

    Args:
        cost: (n, m), such as |x - y|^2/2.
        stiffness: c, in the units of the cost.
        tolerance: how far the columns' sums may be from 1/m, as a share of it; the rows' sums are exact.
        rounds: the most rounds of the iteration.

    Raises:
        InputError: a stiffness that is not positive, or one so small beside the cost that `rounds` are not enough.
    """
    check_positive(stiffness=stiffness)
    cost = cost.double()
    n, m = cost.shape
    # log weights of rows and columns: the logarithm of a mean is that of the sum plus these
    rows, columns = -math.log(n), -math.log(m)
    largest = float(cost.max())
    # a hard plan is reached through softer ones, halving c: directly it would take about largest/c times as long
    hardness = [stiffness * 2**k for k in range(max(0, math.ceil(math.log2(max(largest, 1e-300) / stiffness))), -1, -1)]
    potential = cost.amin(0)  # g, in the units of the cost: c passes from one plan to the next
    for c in hardness:
        scaled, g, final = cost / c, potential / c, c == stiffness
        for _ in range(rounds):
            f = -(g - scaled).logsumexp(1) - columns
            new = -(f[:, None] - scaled).logsumexp(0) - rows
            # the columns' sums, times m, are exp(g - new)
            off = float(((g - new).exp() - 1).abs().max())
            if off <= (tolerance if final else max(tolerance, 0.1)):
                break
            g = new
        potential = c * g
    if not off <= tolerance:
        raise InputError(
            f"stiffness={stiffness:g} is small beside the cost, up to {largest:.3g}: {rounds} rounds do not settle the "
            "plan; take a larger one, or optimal transport."
        )
    plan: Tensor = rows + columns + f[:, None] + g - scaled
    return plan


class Coupling(ABC):
    """`(x0, x1, generator) -> (B,)`: which row of x1 each row of x0 is joined to. A frozen dataclass of its settings.

    Args of a call:
        x0: (B, ...) of one data set, x1 (M, ...) of the other, with samples of the same shape.
        generator: the source of randomness, which may be on another device.
    """

    @abstractmethod
    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Paired(Coupling):
    """Row i to row i: pairs that are known, or drawn by a bridge."""

    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator) -> Tensor:
        if len(x0) != len(x1):
            raise InputError(f"x0 has {len(x0)} rows and x1 {len(x1)}: pairs need as many of each.")
        return torch.arange(len(x0), device=x1.device)


@dataclass(frozen=True)
class Independent(Coupling):
    """Each row to a random one, without replacement if there are enough."""

    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator) -> Tensor:
        order = [
            torch.randperm(len(x1), generator=generator, device=generator.device) for _ in range(-(-len(x0) // len(x1)))
        ]
        return torch.cat(order)[: len(x0)].to(x1.device)


@dataclass(frozen=True)
class Optimal(Coupling):
    """The one-to-one pairing of a batch with the least sum of squared distances, exactly; time grows as B^3.

    Tong et al. 2023 (2302.00482); Pooladian et al. 2023 (2304.14772).
    """

    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator) -> Tensor:
        from scipy.optimize import linear_sum_assignment

        if len(x0) != len(x1):
            raise InputError(f"x0 has {len(x0)} rows and x1 {len(x1)}: a one-to-one pairing needs as many of each.")
        _, columns = linear_sum_assignment(squared_distances(x0, x1).cpu().numpy())
        return torch.as_tensor(columns, dtype=torch.int64).to(x1.device)


@dataclass(frozen=True)
class Entropic(Coupling):
    """Each row's partner drawn from that row of the batch's entropic plan.

    Tong et al. 2023 (2302.00482, 2307.03672): simulation-free Schrodinger bridges.

    Args:
        stiffness: c, in data units squared; for a path, `path.stiffness`.

    Raises:
        InputError: a stiffness that is not positive; when called, one too small for the batch.
    """

    stiffness: float = 1.0

    def __post_init__(self) -> None:
        check_positive(stiffness=self.stiffness)

    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator) -> Tensor:
        plan = sinkhorn(squared_distances(x0, x1) / 2, self.stiffness, tolerance=1e-3).softmax(1)
        u = torch.rand(len(plan), 1, generator=generator, device=generator.device, dtype=torch.float64)
        places = torch.searchsorted(plan.cumsum(1), u.to(plan.device))[:, 0]
        return places.clamp(max=len(x1) - 1).to(x1.device)
