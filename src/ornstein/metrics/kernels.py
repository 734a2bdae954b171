"""Energy distance, MMD and the kernel distance: one statistic, three kernels.

Let k(x, y) say how alike two points are. With X, X' drawn from P and Y, Y' from Q, all independent,

    D(P, Q) = E k(X, X') + E k(Y, Y') - 2 E k(X, Y)

compares how alike points are within a distribution with how alike they are across. If k is positive definite, D is the
squared distance between the mean embeddings of P and Q in the space of k, the squared *maximum mean discrepancy*
(Gretton et al. 2012), and if k is characteristic, D = 0 only for P = Q. Three choices:

    k(x, y) = -|x - y|                      energy distance (Székely and Rizzo 2013): no bandwidth to choose
    k(x, y) = exp(-|x - y|^2 / (2 h^2))     MMD: looks at the scale h
    k(x, y) = (x·y/d + 1)^3                 kernel distance, KID (Bińkowski et al. 2018): moments up to the third

That the first belongs here, being an MMD of a distance-induced kernel, is from Sejdinovic et al. (2013).

The estimates leave out the pairs (x_i, x_i), which makes them *unbiased*: between two sets from one distribution they
are zero on average, hence often a little negative, at every N. (The Fréchet distance has no such estimate.) All three
are squares: a model twice as far off scores four times as high.

References: Gretton, Borgwardt, Rasch, Schölkopf, Smola, "A kernel two-sample test" (2012); Székely, Rizzo, "Energy
statistics" (2013); Sejdinovic, Sriperumbudur, Gretton, Fukumizu (2013, arXiv:1207.6076); Bińkowski, Sutherland, Arbel,
Gretton, "Demystifying MMD GANs" (2018, arXiv:1801.01401).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from ornstein.errors import InputError
from ornstein.metrics.metric import Metric, choose, vectors
from ornstein.metrics.neighbours import distances, row_blocks


def discrepancy(kernel: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """The unbiased estimate of E k(X, X') + E k(Y, Y') - 2 E k(X, Y) from x (N, d) and y (M, d).

    `kernel` takes (n, d) and (m, d) to (n, m) and is evaluated in blocks of rows, so that no block has more than
    max(2^24, N, M) entries, 64 MiB in float32; a few such blocks live at once, under 300 MiB at N = 50,000. Sums are
    kept in float64.
    """

    def within(points: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=points.device)
        for start, rows in row_blocks(points, len(points)):
            block = kernel(rows, points)
            block.diagonal(offset=start).zero_()  # the pairs (x_i, x_i)
            total += block.sum(dtype=torch.float64)
        return total / (len(points) * (len(points) - 1))

    across = torch.zeros((), dtype=torch.float64, device=x.device)
    for _, rows in row_blocks(x, len(y)):
        across += kernel(rows, y).sum(dtype=torch.float64)
    return float(within(x) + within(y) - 2 * across / (len(x) * len(y)))


@final
@dataclass(frozen=True)
class EnergyDistance(Metric):
    """Twice the mean distance across the two sets less the mean distances within each (0 = same distribution).

    2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased, in the units of the data. Nothing to tune, and zero only for equal
    distributions. Time O((N + M)^2 d); memory bounded, whatever N, by a few blocks of max(2^24, N, M) numbers: under
    300 MiB.

    Székely, Rizzo (2013).
    """

    close: ClassVar[float] = 1.5**2

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        x, y = vectors(x, y)
        return discrepancy(lambda a, b: -distances(a, b), x, y)


@final
@dataclass(frozen=True)
class MMD(Metric):
    """Squared maximum mean discrepancy with Gaussian kernels of several widths, unbiased (0 = same distribution).

    The kernel is the mean over s in `scales` of exp(-|x - y|^2 / (2 (s h)^2)), with h = `bandwidth` in the units of the
    data or, if that is None, the median distance between points of y (the median heuristic, from at most 1,000
    points; between those that differ, if more than half coincide). The median is taken from y alone so that samples
    and real data are measured with one kernel.
    No unit, at most 2. Time and memory as for the energy distance.

    Gretton, Borgwardt, Rasch, Schölkopf, Smola (2012).
    """

    scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    bandwidth: float | None = None
    close: ClassVar[float] = 1.5**2

    def __post_init__(self) -> None:
        if not self.scales or not all(s > 0 for s in self.scales):
            raise InputError(f"scales={self.scales} must be one or more positive numbers.")
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise InputError(f"bandwidth={self.bandwidth} must be positive, or None for the median heuristic.")

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        x, y = vectors(x, y)
        width = self.bandwidth
        if width is None:
            some = y[choose(len(y), 1000, generator, y)]
            i, j = torch.triu_indices(len(some), len(some), offset=1, device=y.device)
            apart = distances(some, some)[i, j]
            width = float(apart.median())
            if width == 0:  # a column of zeros, or of few categories
                if not bool((apart > 0).any()):
                    raise InputError("y has all of its points in one place, so they are 0 apart; give a bandwidth.")
                width = float(apart[apart > 0].median())

        def kernel(a: Tensor, b: Tensor) -> Tensor:
            squares = distances(a, b).square_()
            total = torch.zeros_like(squares)
            for s in self.scales:
                total += (squares * (-0.5 / (s * width) ** 2)).exp_()
            return total.div_(len(self.scales))

        return discrepancy(kernel, x, y)


@final
@dataclass(frozen=True)
class Kernel(Metric):
    """Kernel distance (KID): how far the first three moments of the features differ, unbiased (0 = not at all).

    The squared discrepancy under the kernel (x·y/d + 1)^3: the mean of unbiased estimates from `subsets` random subsets
    of `size` points of either set (fewer where there are fewer; the paper takes 100 of 1,000). Meant for features of
    order one. `estimate` also gives the standard error.

    Bińkowski, Sutherland, Arbel, Gretton (2018), arXiv:1801.01401.
    """

    subsets: int = 10
    size: int = 1000
    close: ClassVar[float] = 1.5**2
    reads: ClassVar[Literal["data", "features", "marks"]] = "features"

    def __post_init__(self) -> None:
        if self.subsets < 1 or self.size < 2:
            raise InputError(f"subsets={self.subsets}, size={self.size} must be at least 1 and 2.")

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        return self.estimate(x, y, generator)[0]

    def estimate(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[float, float]:
        """(mean over the subsets, its standard error).

        The error is that of choosing subsets from the given sets; it holds for the *distributions* only if the subsets
        are a small part of the sets, and is NaN if one subset is the whole.
        """
        x, y = vectors(x, y)
        size = min(self.size, len(x), len(y))
        subsets = 1 if size == len(x) == len(y) else self.subsets

        def kernel(a: Tensor, b: Tensor) -> Tensor:
            return (a @ b.T / a.shape[1] + 1) ** 3

        values = torch.tensor(
            [
                discrepancy(kernel, x[choose(len(x), size, generator, x)], y[choose(len(y), size, generator, y)])
                for _ in range(subsets)
            ],
            dtype=torch.float64,
        )
        return float(values.mean()), float(values.std()) / math.sqrt(subsets) if subsets > 1 else math.nan
