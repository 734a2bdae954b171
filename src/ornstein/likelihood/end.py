"""The distribution of noisy data where the flow ends, measured through the denoiser's own score.

At high noise q_T is effectively Gaussian, and a density by the flow needs nothing more. But a clock may end with signal
left: a ladder at the data's own scale, a chain whose last alpha is 0.07. There q_T is the blurred distribution of the
data, for which there is no formula. Its score is known, since the denoiser gives it: grad log q(z) in the flow's own
coordinates. Against a Gaussian g of mean m,

    log q(z) = log g(z) + L(z) - log E_g[exp(L)],
    L(z) = integral of (grad log q - grad log g)(m + t (z - m)) . (z - m) over t in [0, 1]:

along a straight line the difference of the scores integrates to that of the logarithms, and the constant makes q a
density. The line integral is taken by Gauss & Legendre's rule, whose points are doubled until the draws of g agree; the
expectation by quasi-random draws of g in `_REPLICAS` independent scramblings, doubled until their spread is small (Owen
1997, Annals of Statistics 25:1541). If q is nearly g, as at high noise, two points and sixteen draws are more than
enough.

g is centred where the score is zero, found by iterating x0 (m <- E[x_0 given x_t = alpha m]). Its variance is the
data's own per dimension; if that is not enough, and the dimension allows, it has the shape that the denoiser's Jacobian
J gives, cov(x_0) = u^2 J (1 - J)^-1, which is exact for Gaussian data.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser
from ornstein.core.divergence import linearised
from ornstein.core.numerics import normal
from ornstein.core.process import Level
from ornstein.errors import InputError

#: independent sets of draws, whose spread is the constant's error; draws of each, at first and at most
_REPLICAS, _DRAWS, _MOST = 8, 2, 512
#: points of the rule along a line, at first and at most
_POINTS, _LONGEST = 2, 32
#: where less than this share of the draws carry the constant, g has not found all of q, and its error is not known
_SHARE = 0.05
#: dimensions up to which g takes the shape of the Jacobian, and is drawn quasi-randomly
_SHAPED_UP_TO = 128
#: how many standard errors of the constant are stated: Student's t of seven degrees of freedom at 95 %
_STATED = 2.36
#: numbers worked on at a time
_AT_ONCE = 2**20

Field = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class _Bell:
    """A Gaussian in the flow's coordinates: mean (1, *shape), principal axes (d, d) or none, variances (d,) or (1,)."""

    mean: Tensor
    axes: Tensor | None
    variance: Tensor

    def along(self, delta: Tensor) -> Tensor:
        """(B, *shape) -> (B, d), in the axes."""
        flat = delta.flatten(1)
        return flat if self.axes is None else flat @ self.axes

    def log_prob(self, z: Tensor) -> Tensor:
        inside, d = self.along(z - self.mean), self.mean.numel()
        log_det = self.variance.log().sum() * (d / len(self.variance))
        return -0.5 * ((inside**2 / self.variance).sum(1) + log_det + d * math.log(2 * math.pi))

    def draws(self, count: int) -> Tensor:
        """(replicas * count, *shape): the sets one after another. More of them begin with those there were."""
        d, sets = self.mean.numel(), []
        for replica in range(_REPLICAS):
            if d <= _SHAPED_UP_TO:
                u = torch.quasirandom.SobolEngine(d, scramble=True, seed=replica).draw(count, dtype=torch.float64)
                z = torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12))
            else:
                keys = replica * _MOST + torch.arange(count)
                z = normal(keys, (d,), 0, torch.float64)
            sets.append(z)
        z = torch.cat(sets).to(self.mean) * self.variance.sqrt()
        z = z if self.axes is None else z @ self.axes.T
        return self.mean + z.reshape(-1, *self.mean.shape[1:])


@dataclass(frozen=True, eq=False)
class _Measured:
    """What was found for one condition: g, the constant and its error in nats, and the points that a line needs."""

    bell: _Bell
    constant: float
    error: float
    points: int


@dataclass(frozen=True, eq=False)
class EndLaw:
    """log q_T, measured once for each condition and kept; see the module.

    Args:
        denoiser: of the data.
        level: where the flow ends.
        tolerance: nats; the error is kept below it if draws can do that.
    """

    denoiser: Denoiser
    level: Level[float]
    tolerance: float
    _known: dict[bytes, _Measured] = field(default_factory=dict, repr=False)

    def log_prob(self, z: Tensor, condition: Condition) -> tuple[Tensor, Tensor, Tensor]:
        """log q of z (B, *shape) in the flow's coordinates and its estimated error, (B,) nats; and calls, (B,) int64.

        Raises:
            InputError: a distribution so far from any Gaussian that its constant cannot be measured.
        """
        value, error, calls = z.new_empty(len(z)), z.new_empty(len(z)), torch.empty(len(z), dtype=torch.int64)
        for rows, one in _alike(condition, len(z)):
            slope, key = self._slope(one), b"".join(part.cpu().numpy().tobytes() for part in one.parts.values())
            if key not in self._known:
                self._known[key] = self._measure(slope, z)
            found = self._known[key]
            part = z[rows]
            fine, coarse = (_lines(slope, found.bell, part, n) for n in (found.points, found.points // 2))
            value[rows] = found.bell.log_prob(part) + fine - found.constant
            error[rows] = found.error + (fine - coarse).abs()
            calls[rows] = found.points + found.points // 2
        return value, error, calls.to(z.device)

    def _slope(self, condition: Condition) -> Field:
        """grad log q(z), for one condition."""
        s, u, alpha = self.denoiser.sigma_data, float(self.level.noise_ratio), float(self.level.alpha)
        r = math.hypot(s, u)

        def slope(z: Tensor) -> Tensor:
            given = condition[torch.zeros(len(z), dtype=torch.int64)]
            return r * (self.denoiser.predict(alpha * r * z, self.level, given).x0.to(z) - r * z) / (u * u)

        return slope

    def _measure(self, slope: Field, like: Tensor) -> _Measured:
        s, u, d = self.denoiser.sigma_data, float(self.level.noise_ratio), like[0].numel()
        r = math.hypot(s, u)
        mean = like.new_zeros(1, *like.shape[1:])
        for _ in range(8):
            # x0/r of the mean itself
            mean, before = mean + (u / r) ** 2 * slope(mean), mean
            if float((mean - before).norm()) < 1e-3 * u / r:
                break
        # of the data's second moment s^2 the mean has its share
        variance = 1 - mean.square().mean().clamp(max=(s / r) ** 2)
        found = self._constant(slope, _Bell(mean, None, variance.reshape(1)))
        if found.error > self.tolerance and d <= _SHAPED_UP_TO:
            shaped = self._constant(slope, _shaped(slope, found.bell, (u / r) ** 2))
            found = min(found, shaped, key=lambda each: each.error)
        if found.error == math.inf:
            raise InputError(
                f"{self.denoiser.process} ends at sigma/alpha={u:g} with signal left, and the law of noisy data there "
                "is too far from a Gaussian to be measured: take prior='sampling', the density of what is drawn from "
                "the noise that sampling starts with, or train on a clock that ends with more noise."
            )
        return found

    def _constant(self, slope: Field, bell: _Bell) -> _Measured:
        """log E_g[exp(L)] by more and more draws; an infinite error where g is not near enough."""
        points, count = _POINTS, _DRAWS
        z = bell.draws(count)
        coarse = _lines(slope, bell, z, points // 2)
        while True:
            lines = _lines(slope, bell, z, points)
            if points >= _LONGEST or float((lines - coarse).abs().max()) < self.tolerance:
                break
            coarse, points = lines, 2 * points
        while True:
            shares = lines.softmax(0)
            effective = 1 / float(shares.square().sum())
            sets = lines.reshape(_REPLICAS, count).logsumexp(1) - math.log(count)
            # of the logarithm of the mean over the sets, by what each of them says
            relative = (sets - sets.max()).exp()
            error = float(relative.std() / relative.mean()) / math.sqrt(_REPLICAS)
            if count >= _MOST or (_STATED * error <= 0.5 * self.tolerance and effective >= len(lines) / 4):
                break
            count *= 2
            lines = _lines(slope, bell, bell.draws(count), points)
        constant = float(lines.logsumexp(0)) - math.log(len(lines))
        known = effective >= _SHARE * len(lines)
        return _Measured(bell, constant, _STATED * error if known else math.inf, points)


def _shaped(slope: Field, bell: _Bell, least: float) -> _Bell:
    """The Gaussian whose covariance the Jacobian of the slope tells, on average over a few draws: -H is its inverse."""
    z = bell.draws(1)
    d = z[0].numel()
    _, pull = linearised(slope, z)
    unit = torch.eye(d, dtype=z.dtype, device=z.device).reshape(d, 1, *z.shape[1:]).expand(d, *z.shape)
    bend = -pull(unit).flatten(2).mean(1)
    values, axes = torch.linalg.eigh(0.5 * (bend + bend.T))
    # from no data in that direction, 1/least, to a hundred times the noise
    return _Bell(bell.mean, axes, 1 / values.clamp(0.01 / least, 1 / least))


def _lines(slope: Field, bell: _Bell, z: Tensor, points: int) -> Tensor:
    """L(z) by so many points, (B,)."""
    places, weights = (0.5 * v for v in np.polynomial.legendre.leggauss(points))
    found = []
    for part in z.split(max(1, _AT_ONCE // z[0].numel())):
        delta = part - bell.mean
        inside = bell.along(delta)
        total = 0.5 * (inside**2 / bell.variance).sum(1)  # of g's own slope
        for place, weight in zip(places.tolist(), weights.tolist(), strict=True):
            total = total + weight * (slope(bell.mean + (0.5 + place) * delta) * delta).flatten(1).sum(1)
        found.append(total)
    return torch.cat(found)


def _alike(condition: Condition, count: int) -> list[tuple[Tensor, Condition]]:
    """Rows that are given the same, and that condition, of one row."""
    if not condition:
        return [(torch.arange(count), condition)]
    parts = [part.cpu().double().nan_to_num(nan=math.inf).reshape(count, -1) for part in condition.parts.values()]
    each, which = torch.unique(torch.cat(parts, 1), dim=0, return_inverse=True)
    rows = [(which == k).nonzero().flatten() for k in range(len(each))]
    return [(places, condition[places[:1]]) for places in rows]
