"""Six pieces of numerical analysis that everything else relies on.

*A monotone cubic.* A chain tabulates its coefficients at k = 0, 1, ..., N. Between the knots runs the cubic Hermite
curve whose slopes follow Fritsch & Carlson (1980): it passes through every knot, has a continuous derivative, and rises
or falls only where the table does, so that a tabulated process is as good a clock as a formula.

*An inverse.* The signal-to-noise ratio falls strictly with time, so its inverse exists. Secants find it in a few
turns; keeping what encloses it, so that they cannot lead astray, needs no derivative either.

*Counter-based noise.* A sequential generator makes sample 7 depend on samples 0..6. Philox (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3") is instead a function: (key, counter) -> random bits. With the
sample's seed as the key, and (element, draw) as the counter, a sample is the same whatever batch, order or device
it is drawn in, and there is no state to store.

*Strata.* n uniform numbers of which one lies in each n-th of (0, 1) average a smooth function with an error that falls
as n^-3/2 rather than n^-1/2.

*An estimate.* A mean over random samples is a number with an error; the two are kept together.

*Student's t.* An error found from few samples is itself uncertain, and 1.96 of it cover less than 95 %. Widened by the
ratio of t's quantile to the normal one they cover it.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ornstein.core.copies import beside


def monotone_slopes(y: Tensor) -> Tensor:
    """Slopes at the knots of the monotone cubic through `y` at 0, 1, ..., N. Shapes (N+1,) -> (N+1,)."""
    d = y.diff()
    if d.numel() == 1:
        return d.repeat(2)
    left, right = d[:-1], d[1:]
    # the harmonic mean of two slopes of one sign never overshoots; at an extremum the curve is flat
    product = left * right
    inner = torch.where(product > 0, 2 * product / (left + right), torch.zeros_like(product))

    def end(first: Tensor, second: Tensor) -> Tensor:
        # the parabola's slope, kept where the curve is monotone and, so that a clock never stands still, off zero
        slope, least, most = (3 * first - second) / 2, first / 4, 3 * first
        return torch.where(first > 0, slope.clamp(least, most), slope.clamp(most, least))

    return torch.cat([end(d[0], d[1])[None], inner, end(d[-1], d[-2])[None]])


def cubics(y: Tensor, slopes: Tensor) -> Tensor:
    """The cubic Hermite curve with values `y` and `slopes` at 0, 1, ..., N, ready to be read by `hermite`. (5, 2N).

    Each half of an interval is a column: its own knot, and the polynomial about it, constant first. Since it is written
    from the nearer knot, the curve and its slope are exact there.
    """
    y0, y1, m0, m1 = y[:-1], y[1:], slopes[:-1], slopes[1:]
    rise = y1 - y0
    bend = m0 + m1 - 2 * rise
    knots = torch.arange(len(y), dtype=y.dtype, device=y.device)
    left = torch.stack([knots[:-1], y0, m0, 3 * rise - 2 * m0 - m1, bend])
    right = torch.stack([knots[1:], y1, m1, -(3 * rise - 2 * m1 - m0), bend])
    return torch.stack([left, right], dim=2).flatten(1)


def hermite(curve: Tensor, t: Tensor) -> Tensor:
    """The curve that `cubics` made, read at `t` in [0, N] (any shape)."""
    half = (2 * t.detach()).ceil().sub_(1).clamp_(0, curve.shape[1] - 1).long()
    knot, c0, c1, c2, c3 = curve[:, half].unbind()
    u = t - knot
    return c0 + u * (c1 + u * (c2 + u * c3))


#: turns of `Inverse` that follow secants, of which smooth functions need half
_SECANTS = 12


class Inverse:
    """Where a falling function takes given values, to float64 resolution. Made once for a function, then asked.

    A table of the function at places that crowd towards both ends, where logarithms run off, encloses each answer.
    Within it runs Dekker's method (1969): the secant through the last two points, or the middle where that leads out of
    what is known to enclose the answer. What secants have not found, halving finds; only on the CPU, where to ask
    whether all is found costs nothing.

    Args:
        falling: the function, which takes tensors of any shape; it may be infinite at the ends.
        low, high: the ends.
    """

    def __init__(self, falling: Callable[[Tensor], Tensor], low: float, high: float) -> None:
        self._falling = falling
        near = 2.0 ** -torch.arange(1.0, 64.125, 0.125, dtype=torch.float64)
        # shares of the interval, each half an eighth of an octave finer than the one before
        shares = torch.cat([near.new_zeros(1), near.flip(0), 1 - near[1:400], near.new_ones(1)])
        with torch.no_grad():
            self._places = low + (high - low) * shares
            self._values = falling(self._places)

    def __call__(self, target: Tensor) -> Tensor:
        """Where the function takes the values `target` (any shape); of values beyond those at the ends, the ends."""
        with torch.no_grad():
            places, values = beside(self._places, target), beside(self._values, target)
            beyond = target >= values[0], target <= values[-1]
            right = torch.searchsorted(-values, -target).clamp(1, len(values) - 1)
            a, b = places[right - 1], places[right]
            old, x, y_old, y = a, b, values[right - 1] - target, values[right] - target
            found, asks = beyond[0] | beyond[1], target.device.type == "cpu"
            near = 2**-51 * target.abs()
            for turn in range(64 if asks else _SECANTS):
                new = (a + b) / 2
                if turn < _SECANTS:
                    secant = x - y * (x - old) / (y - y_old)
                    new = torch.where((a <= secant) & (secant <= b), secant, new)
                found = found | ((new - x).abs() <= 2**-50 * x.abs()) | (y.abs() <= near)
                old, y_old, x = x, y, torch.where(found, x, new)
                if asks and bool(found.all()):
                    break
                y = self._falling(x) - target
                above = y > 0
                a, b = torch.where(above, x, a), torch.where(above, b, x)
            return torch.where(beyond[0], places[0], torch.where(beyond[1], places[-1], x))

    def one(self, target: float) -> float:
        """The same for one value, in Python's own numbers: on a single one, most of what tensors cost is their making.

        Two or three times as fast as a tensor of one element, to the same resolution.
        """
        places, values = self._listed
        if target >= values[0]:
            return places[0]
        if target <= values[-1]:
            return places[-1]
        right = bisect_left(values, -target, 1, len(values) - 1, key=float.__neg__)
        a, b = places[right - 1], places[right]
        old, x, y_old, y = a, b, values[right - 1] - target, values[right] - target
        for turn in range(64):
            new = (a + b) / 2
            if turn < _SECANTS and y != y_old:
                secant = x - y * (x - old) / (y - y_old)
                new = secant if a <= secant <= b else new
            if abs(new - x) <= 2**-50 * abs(x) or abs(y) <= 2**-51 * abs(target):
                break
            old, y_old, x = x, y, new
            y = self._falling(torch.tensor([x], dtype=torch.float64)).item() - target
            a, b = (x, b) if y > 0 else (a, x)
        return x

    @cached_property
    def _listed(self) -> tuple[list[float], list[float]]:
        return self._places.tolist(), self._values.tolist()


_MASK = 0xFFFFFFFF


#: arrays of int64 that hold 32 bits each, of torch or of numpy
Words = Sequence[Any]


def philox(counter: Words, key: Words) -> Words:
    """Philox4x32-10: four words of counter, all of one shape, and two of key, which fit it, to four random words."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        # int64 wraps modulo 2^64: the bits are those of the unsigned product
        left, right = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c2 = right >> 32, left >> 32
        for word, other, by in ((c0, c1, k0), (c2, c3, k1)):
            word &= _MASK  # in place
            word ^= other
            word ^= by
        left &= _MASK
        right &= _MASK
        c1, c3 = right, left
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def normal(
    seeds: Tensor, shape: tuple[int, ...], draw: int | Sequence[int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Standard normal noise that is a pure function of (seed, draw, element).

    Args:
        seeds: (B,) int64, one per sample.
        shape: the shape of one sample.
        draw: which draw of the sample's life this is (0, 1, 2, ...); or n of them, in any order.
        dtype: of the result; the values themselves carry 32 random bits through Box & Muller (1958).

    Returns:
        (B, *shape), or (n, B, *shape), on the device of `seeds`.
    """
    elements = math.prod(shape)
    u = _quarters(seeds, elements, draw, 0).clamp_(min=2.0**-33, max=1 - 2.0**-25)
    r, phi = u[0::2].log_().mul_(-2).sqrt_(), u[1::2].mul_(2 * math.pi)
    found = u.new_empty(*u.shape[1:], 2, 2, dtype=dtype)  # ([n,] B, blocks, pair, which of it)
    found[..., 0], found[..., 1] = phi.cos().mul_(r).movedim(0, -1), phi.sin_().mul_(r).movedim(0, -1)
    rows = found.flatten(-3)[..., :elements]
    return rows.reshape(*rows.shape[:-1], *shape).contiguous()


def uniform(seeds: Tensor, count: int, draw: int) -> Tensor:
    """Uniform numbers in (0, 1) that are a pure function of (seed, draw, place); not those that `normal` is made of.

    Args:
        seeds, draw: as for `normal`.
        count: how many for each seed.

    Returns:
        (B, count), float64 where the device has it.
    """
    return _quarters(seeds, count, draw, 1).permute(1, 2, 0).flatten(1)[:, :count]


def keyed(codes: Tensor) -> Tensor:
    """A seed for each row of whole numbers, (B, T) -> (B,) int64: the same for equal rows, wherever they stand."""
    key = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
    for code in codes.unbind(1):
        key = (key ^ (code + 2)) * 0x2545F4914F6CDD1D  # wraps
        key = key ^ (key >> 29)
    return key


def _quarters(seeds: Tensor, count: int, draw: int | Sequence[int], stream: int) -> Tensor:
    """(4, B, blocks), or (4, n, B, blocks), uniform numbers in (0, 1), which hold `count` for each seed."""
    here = seeds.device.type == "cpu"
    blocks = torch.arange((count + 3) // 4, device=seeds.device)[None]
    zero = torch.zeros_like(blocks)
    if isinstance(draw, int):
        draws = zero + draw
    elif here:
        draws = zero + torch.tensor(list(draw))[:, None, None]
    else:  # number by number: a list made into a tensor would wait for the device
        draws = torch.stack([zero + k for k in draw])
    key = (seeds[:, None] & _MASK, (seeds[:, None] >> 32) & _MASK)
    *counter, _ = torch.broadcast_tensors(blocks, draws, zero + stream, zero, key[0])
    # float64 where the device has it: u in (0, 1) then never rounds to 0 or 1
    wide = torch.float32 if seeds.device.type == "mps" else torch.float64
    found = torch.empty(4, *counter[0].shape, dtype=wide, device=seeds.device)
    if here:  # numpy's operations on few numbers take half as long as torch's, and there are 140
        words: Iterable[Tensor] = map(
            torch.from_numpy, philox([word.numpy() for word in counter], [word.numpy() for word in key])
        )
    else:
        words = philox(counter, key)
    for row, word in zip(found, words, strict=True):
        row.copy_(word)
    return found.add_(0.5).mul_(2.0**-32)


def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of x's shape and type, drawn on the generator's device and brought to x's device."""
    return torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)


def strata(n: int, generator: torch.Generator, stratified: bool = True, dtype: torch.dtype = torch.float64) -> Tensor:
    """n uniform numbers in (0, 1), (n,): one in each n-th, in order, or independent if not stratified.

    A generator may carry `piece = (i, k, total)`: it then belongs to the i-th of k pieces of a batch of `total` (see
    `ornstein.training.pieces.Piece`). The strata are those of the whole batch, of which this piece takes every k-th
    from the i-th on. So each piece is spread over (0, 1), and all together are as if drawn in one.
    """
    if generator.device.type == "mps":
        dtype = torch.float32
    u = torch.rand(n, generator=generator, device=generator.device, dtype=dtype)
    if not stratified:
        return u
    first, stride, total = getattr(generator, "piece", (0, 1, n))
    which = torch.arange(first, total, stride, device=u.device)
    if len(which) != n:  # numbers for something else than the rows of the piece
        which, total = torch.arange(n, device=u.device), n
    return (which + u) / total


def blurring(size: int, width: float) -> Tensor:
    """The matrix (size, size), float64, of a Gaussian blur of a row of values, the edges mirrored.

    Args:
        size: how many values.
        width: standard deviation of the kernel, in values.
    """
    reach = math.ceil(4 * width)
    steps = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (steps.double() / width) ** 2)
    # mirrored with the edge repeated, d c b a | a b c d | d c b a, as often as the kernel reaches
    place = (torch.arange(size)[:, None] + steps) % (2 * size)
    place = torch.where(place < size, place, 2 * size - 1 - place)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(
        1, place, (weights / weights.sum()).expand(size, -1).contiguous()
    )


@dataclass(frozen=True)
class Estimate:
    """A mean over independent samples, and its standard error (NaN for a single one)."""

    value: float
    standard_error: float

    @staticmethod
    def of(samples: Tensor) -> "Estimate":
        """From (N,) numbers."""
        wide = samples.detach().cpu().double()
        error = wide.std().item() / math.sqrt(len(wide)) if len(wide) > 1 else math.nan
        return Estimate(wide.mean().item(), error)

    def __str__(self) -> str:
        return f"{self.value:.4g}" + ("" if math.isnan(self.standard_error) else f" ± {self.standard_error:.2g}")


#: Student's t: degrees of freedom, and the 97.5 % quantile at each
_DEGREES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 30.0, math.inf)
_STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3060, 2.2281, 2.1314, 2.0423, 1.95996)


def widening(degrees: Tensor) -> Tensor:
    """The factor for a standard error with so many degrees of freedom, after which 1.96 of it cover 95 %.

    The ratio of Student's quantile to the normal one, to within half a per cent from three degrees on (6 % between one
    and two); fewer than one count as one.
    """
    at = 1 / torch.tensor(_DEGREES, dtype=degrees.dtype, device=degrees.device).flip(0)
    ratio = (torch.tensor(_STUDENT, dtype=degrees.dtype, device=degrees.device).flip(0) / _STUDENT[-1]).log()
    x = (1 / degrees).clamp(max=1.0)
    k = torch.searchsorted(at, x).clamp(1, len(at) - 1)
    return (ratio[k - 1] + (x - at[k - 1]) / (at[k] - at[k - 1]) * (ratio[k] - ratio[k - 1])).exp()
