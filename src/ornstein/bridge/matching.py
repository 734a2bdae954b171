"""Learning a bridge: from pairs by regression, and from two data sets without pairs by alternating turns.

*Bridge matching.* The posterior means of the ends minimise a squared error, so a bridge is learned as a denoiser is:
draw a pair, a time and noise, compute x_t from them, and regress. For a reading of the table, whose error combines
those of the ends with its coefficients c_0 and c_1,

    loss = sum over readings of |c_0 (x0_hat - x_0) + c_1 (x1_hat - x_1)|^2/d.

    regress       is                                                         from
    x0, x1        each end by itself                                         I2SB, DDBM (one of the two)
    velocity      flow matching; on coupled batches OT-CFM                   Lipman 2023, Tong 2023
    up, down      the drifts of the diffusion held at both ends              Peluchetti 2022, Shi 2023 (DSBM)

The bridge learns the *Markovian projection* of the pairs joined by the path: a process whose next move depends only on
where it is, with the same distribution at each time. But the ends of its walks form other pairs than those it was
trained on.

*Iterative Markovian fitting* (Shi et al. 2023, 2303.16852; Peluchetti 2023, 2304.00917). Walk the bridge, and train the
next one on the pairs that the walks join; alternate between downward and upward walks, since each keeps exactly the
distribution that it starts from. The Schrodinger bridge is the only process that this leaves unchanged: it is Markov,
and its pairs are joined by the diffusion behind the path. The pairs converge to its coupling. On lines without noise,
always downward, this is *reflow* (Liu et al. 2023, 2209.03003): each turn makes the lines straighter and the pairs
nearer, until one step is enough.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ornstein.bridge.coupling import Coupling, Independent
from ornstein.bridge.drive import translate
from ornstein.bridge.model import Bridge, Guess
from ornstein.bridge.path import READINGS
from ornstein.core.condition import Condition, Given
from ornstein.core.numerics import noise_like, strata
from ornstein.errors import InputError, lookup


@dataclass(frozen=True)
class BridgeMatching:
    """Regress readings of both ends on a coupling's pairs: flow matching, bridge matching and DSBM's loss as one.

    Args:
        coupling: which rows of a batch are joined.
        regress: the readings whose squared errors are averaged; "up" and "down" grow without bound towards the end that
            they look at.
        cut: the share of the clock, or of u, that is left out at each end, where the readings with noise are infinite.
        even: divide the errors of the ends by those of a linear guess (`Guess`, with the bridge's own `near` and
            `far`), so that all times count equally.
        dense: draw times denser towards both ends, by the arcsine law t_max sin^2(pi u/2) of an even u; else evenly.

    Raises:
        InputError: an unknown reading, none, or a share outside [0, 1/2); `even` with readings other than the ends.
    """

    coupling: Coupling = field(default_factory=Independent)
    regress: tuple[str, ...] = ("x0", "x1")
    cut: float = 1e-3
    even: bool = False
    dense: bool = False

    def __post_init__(self) -> None:
        for name in self.regress:
            lookup(READINGS, name, "regress")
        if not self.regress or not 0 <= self.cut < 0.5:
            raise InputError(f"regress={self.regress}, cut={self.cut!r}: at least one reading, and a share below 1/2.")
        if self.even and not set(self.regress) <= {"x0", "x1"}:
            raise InputError(f"regress={self.regress} with even=True: that is for errors of x0 and x1 alone.")

    def __call__(self, bridge: Bridge, x0: Tensor, x1: Tensor, condition: Given, generator: torch.Generator) -> Tensor:
        """The loss of each row of x0, (B,).

        Args:
            bridge: the model, which brings its path.
            x0, x1: (B, ...) and (M, ...), from the near and the far data set, in model space.
            condition: with B rows, which belong to x0.
            generator: of all randomness.
        """
        x1 = x1[self.coupling(x0, x1, generator)]
        shares = self.cut + (1 - 2 * self.cut) * strata(len(x0), generator)
        if self.dense:
            shares = (0.5 * math.pi * shares).sin() ** 2
        t = (bridge.path.t_max * shares).to(x0.device)
        z = noise_like(x0, generator)
        return self.loss_at(bridge, x0, x1, t, z, condition)

    def loss_at(self, bridge: Bridge, x0: Tensor, x1: Tensor, t: Tensor, z: Tensor, condition: Given) -> Tensor:
        """The loss of each pair, (B,), at given times (B,) with given noise."""
        stage = bridge.path.at(t, like=x0)
        ends = bridge(stage.between(x0, x1, z), stage, Condition.of(condition))
        total = x0.new_zeros(len(x0))
        guess = Guess.at(stage, bridge.near, bridge.far)
        unit = {"x0": guess.out0, "x1": guess.out1} if self.even else {}
        for name in self.regress:
            row, error = READINGS[name](stage), torch.zeros_like(x0)
            for end, coefficient, found, true in (("x0", row.x0, ends.x0, x0), ("x1", row.x1, ends.x1, x1)):
                if coefficient is not None:
                    if found is None:
                        raise InputError(f"regress={name!r} looks at {end}, which this bridge does not know.")
                    error = error + coefficient * (found - true)
            error = error / unit.get(name, 1.0)
            total = total + (error**2).flatten(1).mean(1)
        return total


@dataclass(frozen=True, eq=False)
class Turn:
    """One turn of iterative Markovian fitting.

    Attributes:
        bridge: the bridge learned from the pairs of the turn before.
        x0, x1: (B, ...) pairs of rows, which its walk joined; one end is data.
        up: whether the walk went up, from x0 to x1.
    """

    bridge: Bridge
    x0: Tensor
    x1: Tensor
    up: bool


def markovian_fitting(
    x0: Tensor,
    x1: Tensor,
    fit: Callable[[Tensor, Tensor, bool], Bridge],
    *,
    turns: int,
    generator: torch.Generator,
    coupling: Coupling | None = None,
    steps: int = 50,
    both: bool = True,
) -> Iterator[Turn]:
    """Iterative Markovian fitting, a turn at a time: down, up, down, ...; or down alone, which is reflow.

    Args:
        x0, x1: (B, ...) and (M, ...), the data sets; each turn starts from all rows of one of them.
        fit: (x0, x1, up) -> a bridge trained on those pairs, for example by `BridgeMatching` with `Paired`; it is
            walked up or down next, and needs to know only the end that it goes to.
        turns: how many.
        generator: of all randomness here.
        coupling: of the first pairs; independent if none is given.
        steps: of each walk.
        both: whether to alternate between down and up; else always down.

    Raises:
        InputError: fewer than one turn.
    """
    if turns < 1:
        raise InputError(f"turns={turns!r} must be at least 1.")
    near, far = x0, x1[(coupling or Independent())(x0, x1, generator)]
    for turn in range(turns):
        up = both and turn % 2 == 1
        bridge = fit(near, far, up)
        near, far = (
            (x0, translate(bridge.reversed(), x0, steps=steps, generator=generator))
            if up
            else (translate(bridge, x1, steps=steps, generator=generator), x1)
        )
        yield Turn(bridge, near, far, up)
