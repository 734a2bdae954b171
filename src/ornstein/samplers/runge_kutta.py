"""Runge & Kutta's methods on the probability-flow ODE: classical, and with the step chosen by an error estimate.

Both integrate in the variables of flow matching, in which everything is finite and data at a point give straight lines,

    z = x/(s alpha + sigma),     r = sigma/(s alpha + sigma) in [0, 1],     dz/dr = eps - x0/s,

s = sigma_data: of order one, whatever the data's units are.

The classical method of order 4 (Kutta 1901) takes four slopes a step.

*Error control.* An embedded pair gives two answers from the same slopes, of order 5 and 4 (Dormand & Prince 1980, J.
Comput. Appl. Math. 6:19). Their distance, relative to what is allowed, is err: a step with err <= 1 is taken, and the
next is longer by

    0.9 err^(-0.7/5) err_before^(0.4/5)            within [0.2, 5],

a proportional-integral controller (Gustafsson 1991; Hairer & Wanner II.4), whose second term damps a see-saw of
rejections. Each sample of a batch has its own time and step: a batch shares network calls, not decisions, and a sample
is what it would have been alone. Samples that have arrived wait, with a step of zero.

*When the host looks.* Only the device knows whether all samples have arrived, and asking it stalls its queue. But a
step is at most five times the one before: from a step h the next n cover at most h (5^n - 1)/4, and until that reaches
the end there is no need to ask.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from ornstein.core.copies import beside
from ornstein.core.drive import Ask, Noise, Stepper
from ornstein.core.grids import ends
from ornstein.core.numerics import cubics, hermite, monotone_slopes
from ornstein.core.process import Level, Process
from ornstein.errors import InputError
from ornstein.samplers.single_step import level_at


def _time(level: Level[float], unit: float) -> float:
    """r = sigma/(s alpha + sigma)."""
    return level.sigma / (unit * level.alpha + level.sigma)


def _slope(denoiser: Ask, z: Tensor, level: Level[Any]) -> Tensor:
    """dz/dr."""
    p = denoiser((denoiser.unit * level.alpha + level.sigma) * z, level)
    return p.eps - p.x0 / denoiser.unit


@dataclass(frozen=True)
class RK4(Stepper):
    """The classical Runge-Kutta method on the probability-flow ODE, in the variables of flow matching (Kutta 1901).

    Order 4. Four calls a step. Deterministic.
    """

    order: ClassVar[int] = 4
    calls: ClassVar[int] = 4

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        unit = denoiser.unit
        start, h = _time(t, unit), _time(s, unit) - _time(t, unit)
        middle = start + 0.5 * h
        half = level_at(denoiser.process, 2 * math.log((1 - middle) / (unit * middle)))
        z = x / (unit * t.alpha + t.sigma)
        first = denoiser(x, t)
        k1 = first.eps - first.x0 / unit
        k2 = _slope(denoiser, z + 0.5 * h * k1, half)
        k3 = _slope(denoiser, z + 0.5 * h * k2, half)
        k4 = _slope(denoiser, z + h * k3, s)
        z = z + (h / 6) * (k1 + 2 * (k2 + k3) + k4)
        return (unit * s.alpha + s.sigma) * z, None


@lru_cache(maxsize=1024)
def _table(process: Process, start: float, end: float, unit: float) -> tuple[Tensor, Tensor]:
    """Even values of log(sigma/(s alpha)) from r = start to end, and their times: (257,) float64 each."""
    first, last = (math.log(r / (1 - r)) if r < 1 else 14.0 for r in (start, end))
    odds = torch.linspace(first, last, 257, dtype=torch.float64)
    found = process.time(-2 * (odds + math.log(unit)))
    return odds, found


#: Dormand & Prince's pair: where the slopes are taken, from which earlier ones, and the difference of the two answers
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_DIFFERENCE = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


#: how much longer than the one before a step may be
_GROWTH = 5.0


def _soonest(length: float) -> int:
    """How many steps it takes at least to go `length` times the first, each at most `_GROWTH` times the one before.

    At most eight, so that a step that has shrunk to none is seen in time.
    """
    return next((n for n in range(1, 8) if (_GROWTH**n - 1) / (_GROWTH - 1) >= length), 8)


def _field(denoiser: Ask, x: Tensor, start: float, end: float) -> Callable[[Tensor, Tensor], Tensor]:
    """dz/dr as a function of z, shaped and typed as x, and of r, (B,) between two ends."""
    process, wide = denoiser.process, torch.float32 if x.device.type == "mps" else torch.float64
    odds, table = (beside(column, x, wide) for column in _table(process, start, end, denoiser.unit))
    shift = math.log(denoiser.unit)
    curve, spacing = cubics(table, monotone_slopes(table)), (odds[-1] - odds[0]) / (len(odds) - 1)

    def slope(z: Tensor, r: Tensor) -> Tensor:
        # its time from a table, corrected twice by what r is there: no search
        wanted = (r / (1 - r)).log()
        place = ((wanted - odds[0]) / spacing).clamp(0, len(odds) - 1)
        knot = place.long().clamp(max=len(odds) - 2)
        rate = (table[knot + 1] - table[knot]) / spacing
        time = hermite(curve, place)
        for _ in range(2):
            time = (time + rate * (wanted + shift + 0.5 * process.log_snr(time))).clamp(0, process.t_max)
        return _slope(denoiser, z, process.at(time, like=z))

    return slope


@dataclass(frozen=True)
class Adaptive(Stepper):
    """Dormand & Prince's pair 5(4) with as many sub-steps as a tolerance needs, for each sample by itself.

    The grid does not matter: within a step, and from the last level to the cleanest that may be asked, it takes
    sub-steps as needed. `steps=1` is enough.

    Args:
        tolerance: bound on the error of one sub-step, root mean square over the numbers of a sample, in units of
            sigma_data; absolute for numbers below that, relative for larger ones.

    Raises:
        InputError: a tolerance outside [1e-10, 1), below the rounding of the samples' type, or that cannot be met.

    No order: a finer grid changes nothing, the tolerance does. As many calls as needed. Deterministic.
    """

    tolerance: float = 1e-3
    order: ClassVar[int | None] = None
    calls: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if not 1e-10 <= self.tolerance < 1:
            raise InputError(f"tolerance={self.tolerance!r} must be in [1e-10, 1), the error allowed to a sub-step.")

    def step(
        self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        return self._carry(denoiser, x, t, s, memory)

    def finish(self, denoiser: Ask, x: Tensor, t: Level[float], memory: Any, noise: Noise) -> Tensor:
        # down to the cleanest level that may be asked: the first of a chain, the grids' last in continuous time
        lowest = ends(denoiser.process, denoiser.unit)[0]
        low = denoiser.process.at(lowest if denoiser.process.chain is None else max(lowest, 1.0))
        if low.t < t.t:
            x, _ = self._carry(denoiser, x, t, low, memory)
            t = low
        return denoiser(x, t).x0

    def _carry(self, denoiser: Ask, x: Tensor, t: Level[float], s: Level[float], memory: Any) -> tuple[Tensor, Any]:
        """x at level s, in sub-steps; and the steps that the samples would have taken next, in r."""
        if self.tolerance < 10 * torch.finfo(x.dtype).eps:
            raise InputError(
                f"tolerance={self.tolerance!r} is below the rounding of {x.dtype}: take dtype=torch.float64."
            )
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        each = (len(x), *[1] * (x.ndim - 1))

        unit = denoiser.unit
        first, begin, end = denoiser(x, t), _time(t, unit), _time(s, unit)
        slope = _field(denoiser, x, begin, end)
        z, k1 = x / (unit * t.alpha + t.sigma), first.eps - first.x0 / unit
        r = torch.full((len(x),), begin, dtype=wide, device=x.device)
        h = 0.1 * (end - r) if memory is None else memory[0]
        before = torch.ones_like(r) if memory is None else memory[1]
        between = sorted((begin, end))
        unseen = 0
        while True:
            last = h.abs() >= (end - r).abs()
            step, moving = torch.where(last, end - r, h), r != end
            if not unseen:
                # steps of the present length that the farthest still has to go, 0 if it has arrived
                left = torch.where(moving, ((end - r) / h).abs().clamp(min=1.0), 0.0).amax()
                farthest, stuck = torch.stack([left, (moving & (r + step == r)).any().to(left)]).tolist()
                if not farthest:
                    break
                if stuck:
                    raise InputError(
                        f"tolerance={self.tolerance!r} cannot be met near t={t.t:g}: the step has shrunk to none."
                    )
                unseen = _soonest(farthest)
            unseen -= 1
            slopes = [k1]
            for node, row in zip(_NODES[1:], _STAGES[1:], strict=True):
                push = sum(weight * k for weight, k in zip(row, slopes, strict=True) if weight)
                after = z + step.to(x.dtype).reshape(each) * push
                slopes.append(slope(after, (r + node * step).clamp(*between)))
            error = step.to(x.dtype).reshape(each) * sum(w * k for w, k in zip(_DIFFERENCE, slopes, strict=True) if w)
            allowed = self.tolerance * torch.maximum(z.abs(), after.abs()).clamp(min=1.0)
            err = (
                (error / allowed).flatten(1).to(wide).square().mean(1).sqrt().nan_to_num(nan=torch.inf).clamp(min=1e-6)
            )
            yes = err <= 1
            taken = yes.reshape(each)
            z, k1 = torch.where(taken, after, z), torch.where(taken, slopes[-1], k1)
            factor = (0.9 * err ** (-0.7 / 5) * torch.where(yes, before, 1.0) ** (0.4 / 5)).clamp(0.2, _GROWTH)
            # a step that was cut short to end here says nothing against the length it had
            after_this = torch.where(yes & last & (h.abs() > (factor * step).abs()), h, factor * step)
            h, before = torch.where(moving, after_this, h), torch.where(moving & yes, err, before)
            r = torch.where(yes, torch.where(last, end, r + step), r)
        return (unit * s.alpha + s.sigma) * z, (h, before)
