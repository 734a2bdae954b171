"""What the nearest known values say of a missing one, feature by feature: simple kriging along time.

In a stationary series with mean 0 and variance 1, what two values say of each other depends on their correlation
rho(d) at their distance d in time. If the series is Gaussian, then given the nearest known value p steps before and the
nearest q steps after, a missing one has

    mean    a x_before + b x_after,     (a, b) = R^-1 r,     R = [1 rho(p + q); rho(p + q) 1],  r = (rho(p), rho(q))
    spread  sqrt(1 - r R^-1 r)

and whatever its distribution, no other linear combination of the two comes closer (Wiener 1949; Matheron 1963). With
known values on one side only these are rho(p) x_before and sqrt(1 - rho(p)^2); without any, 0 and 1. For
rho(d) = e^(-d/tau), which is the Ornstein-Uhlenbeck process, the two nearest say all that there is to know: it is
Markov, and this is its bridge.

A network that fills gaps is given both, and learns what is left: how far each cell lies from that mean, in units of
that spread. So what it learns has the same scale next to a known value as far from any, and a feature that moves
little from hour to hour counts as much as one that jumps.
"""

import torch
from torch import Tensor

from ornstein.core.copies import beside

#: the least spread, in standard deviations of the feature: what is written down is rounded
LEAST = 0.03


def correlation(x: Tensor) -> Tensor:
    """rho (C, L): the correlation of each feature of windows with itself d steps later, over cells that were both seen.

    Args:
        x: (N, C, L), of mean 0; NaN where not seen.
    """
    length, found = x.shape[-1], []
    for d in range(length):
        now, later = x[..., : length - d], x[..., d:]
        both = ~(now.isnan() | later.isnan())
        now, later = (torch.where(both, part, 0.0).double() for part in (now, later))
        power = ((now * now).sum((0, 2)) * (later * later).sum((0, 2))).sqrt()
        found.append((now * later).sum((0, 2)) / torch.where(power > 0, power, 1.0))
    # short of 1, so that two known values never say the same thing
    return torch.stack(found, 1).clamp(-0.9999, 0.9999)


def nearest(values: Tensor, known: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each cell given the nearest known ones of its own feature; the value itself and 0 where known.

    Args:
        values: (B, C, L), anything where not known.
        known: (B, C, L) bool.
        rho: (C, K) correlations at the distances 0 to K - 1; beyond it is 0.
    """
    length = values.shape[-1]
    place = torch.arange(length, device=values.device)
    before = torch.where(known, place, -length).cummax(-1).values
    after = torch.where(known, place, 2 * length).flip(-1).cummin(-1).values.flip(-1)
    far = torch.nn.functional.pad(beside(rho, values), (0, 1))  # the last: whatever is farther
    feature = torch.arange(len(far), device=values.device)[:, None]

    def at(distance: Tensor) -> Tensor:
        return far[feature, distance.clamp(max=rho.shape[1])]

    left, right = before >= 0, after < length
    p, q = torch.where(left, at(place - before), 0.0), torch.where(right, at(after - place), 0.0)
    both = torch.where(left & right, at(after - before), 0.0)
    a, b = ((one - both * other) / (1 - both * both) for one, other in ((p, q), (q, p)))
    clean = torch.where(known, values, 0.0)
    mean = a * clean.gather(-1, before.clamp(min=0)) + b * clean.gather(-1, after.clamp(max=length - 1))
    spread = (1 - a * p - b * q).clamp(min=LEAST**2).sqrt()
    return torch.where(known, clean, mean), torch.where(known, 0.0, spread)
