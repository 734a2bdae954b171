"""Moves that leave exp(-E) unchanged: Langevin, its adjusted form, and Hamiltonian Monte Carlo, in one formula.

Give each x a random velocity p ~ N(0, I), follow Hamilton's equations for E(x) + |p|^2/2 through L leapfrog steps of
length h, and forget p:

    p <- p - h/2 grad E(x),    x <- x + h p,    p <- p - h/2 grad E(x).

The flow keeps E + |p|^2/2 and volume; the leapfrog keeps volume exactly and the sum nearly. Accepting a move with
probability min(1, exp(-change of the sum)), Metropolis' rule, makes up for the difference: exp(-E) is exactly
stationary (Duane et al. 1987; Neal 2011, 1206.1901). One leapfrog step is x - (h^2/2) grad E + h p, a Langevin step of
gamma = h^2/2; with Metropolis' rule it is MALA, without it the unadjusted chain, whose distribution is wrong by a term
of order gamma. So gamma sets the size of steps here too, and is stable below 2 over the largest curvature of E.

Trajectories have periods: in a well of curvature c, after L h sqrt(c) = pi each x has become -x, and a chain of such
moves never forgets its radius. So with L > 1 each chain draws a new step for each move, between h/2 and h; the draw
does not depend on x, so all the above stays true.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ornstein.core.numerics import noise_like
from ornstein.errors import InputError

#: (B, *shape) -> (B,) in nats, each sample by itself
Energy = Callable[[Tensor], Tensor]

#: a chain with a number this many times larger than its start and the noise explain has diverged
FAR = 1e3


def value_and_slope(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
    """E and grad E at x, without a graph: (B,) and (B, *shape).

    Raises:
        InputError: an energy that is not one number for each sample.
    """
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        value = energy(at)
        if value.shape != (len(x),):
            raise InputError(f"energy gives {tuple(value.shape)} for {tuple(x.shape)}; it must be (B,): ({len(x)},).")
        if not value.requires_grad:
            return value, torch.zeros_like(x)  # a constant
        (slope,) = torch.autograd.grad(value.sum(), at)
    return value.detach(), slope


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(B,) reshaped to multiply (B, *shape)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def hamiltonian(
    energy: Energy, x: Tensor, length: "float | Tensor", leapfrogs: int, adjusted: bool, generator: Generator
) -> tuple[Tensor, Tensor]:
    """One move of each x (B, *shape): the new x, and the probability with which it was accepted, (B,).

    Args:
        length: h of the leapfrog, a number or shaped to multiply x; if L > 1, the largest h.
        leapfrogs: L.
        adjusted: whether to accept or reject moves; moves to where the energy is not finite are then rejected.
    """
    before, slope = value_and_slope(energy, x)
    p = noise_like(x, generator)
    kinetic = 0.5 * p.flatten(1).square().sum(1).to(before)
    if leapfrogs > 1:
        u = torch.rand(len(x), generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
        length = length * per_sample(0.5 + 0.5 * u, x)
    y = x
    for _ in range(leapfrogs):
        p = p - 0.5 * length * slope
        y = y + length * p
        after, slope = value_and_slope(energy, y)
        p = p - 0.5 * length * slope
    if not adjusted:
        return y, torch.ones_like(before)
    chance = (before + kinetic - after - 0.5 * p.flatten(1).square().sum(1).to(before)).exp().clamp(max=1)
    chance = torch.where(chance.isfinite(), chance, 0.0)
    u = torch.rand(len(x), generator=generator, device=generator.device).to(chance)
    return torch.where(per_sample(u < chance, x), y, x), chance


@dataclass(frozen=True)
class Moves:
    """A short chain on an energy: it makes the negatives for training an energy, or samples from a trained one.

    Args:
        count: the number of moves, each with `leapfrogs` gradients.
        gamma: h^2/2, the Langevin step, in data units squared: stable below 2 over the largest curvature of E.
        leapfrogs: L; 1 is Langevin.
        adjusted: accept or reject each move, so that exp(-E) is exactly stationary.

    Raises:
        InputError: numbers out of range; when called, a chain that diverges.
    """

    count: int = 20
    gamma: float = 0.01
    leapfrogs: int = 1
    adjusted: bool = False

    def __post_init__(self) -> None:
        for name in ("count", "leapfrogs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value!r} must be a whole number, at least 1.")
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise InputError(f"gamma={self.gamma!r} must be a positive finite number, in data units squared.")

    def __call__(
        self, energy: Energy, x: Tensor, generator: Generator, unit: "float | Tensor" = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Where the chains from x (B, *shape) are after `count` moves, and each one's mean acceptance, (B,).

        Args:
            energy: (B, *shape) -> (B,).
            x: where they start; no gradient flows to it.
            generator: of all randomness.
            unit: of gamma, a number or shaped to multiply x.

        Raises:
            InputError: a chain that diverges, a thousand times further than its start and its noise explain; adjusted
                chains of which none has moved.
        """
        length = (2 * self.gamma * unit) ** 0.5
        x = x.detach()
        home = x.abs().amax().clamp(min=1.0)
        wander = self.count * self.leapfrogs * torch.as_tensor(length).max().to(home)
        taken = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for _ in range(self.count):
            x, chance = hamiltonian(energy, x, length, self.leapfrogs, self.adjusted, generator)
            taken = taken + chance
        inside = x.abs().flatten(1).amax(1) <= FAR * (home + wander)  # NaN compares false
        stayed, moved = torch.stack([inside.all(), taken.any()]).tolist()  # the only synchronisation with the device
        if not stayed:
            raise InputError(
                f"{int((~inside).sum())} of {len(x)} chains left for infinity with gamma={self.gamma:g}: take a "
                "smaller gamma, or adjusted=True; if that does not help, the energy has no bottom and needs a smaller "
                "learning rate or a penalty on its size."
            )
        if not moved:
            raise InputError(
                f"none of {len(x)} chains accepted any of {self.count} moves with gamma={self.gamma:g}: take a smaller "
                "gamma; if that does not help, the energy is not finite where they start."
            )
        return x, taken / self.count
