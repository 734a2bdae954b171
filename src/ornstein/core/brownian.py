"""One Brownian path per seed, read wherever a walk stops on it.

A stochastic sampler with n steps draws n increments of a Brownian motion. Draw them afresh for 2n steps and the sample
is another one; read them off the same path and it is the same sample, better resolved. So the path must exist between
the points at which it was read, without being stored. Levy (1948) built Brownian motion that way: given its values at
two times, its value midway is their mean plus independent noise of a quarter of the time between. With counter-based
noise (`numerics.normal`) each midpoint is a pure function of the seed and of its place in the tree of halvings.

The noise of the reverse-time equation integrates exactly in the clock c = (alpha/sigma)^2 (to the power eta^2), which
runs from 0 to infinity. The path on (0, inf) is a forest: each octave [2^k, 2^(k+1)] has an increment of its own and a
tree of halvings within. It depends on no grid and no process: the same seed is the same path on every clock. Each tree
ends with leaves of 1/256 of its octave; within one, the path is drawn as it is read, so that increments are exactly
Gaussian and independent however fine the walk is.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

#: halvings within an octave
DEPTH = 8
#: octaves below which nothing can be seen of the path
_LOWEST = 50
#: where the path's own draws begin, far from the 0, 1, 2, ... of fresh noise
_TREE, _READ = 2**30, 2**29


class BrownianPath:
    """A standard Brownian motion B on (0, inf), read from left to right.

    Args:
        draw: standard normal noise as a pure function of whole numbers in [2^29, 2^31): (n, ...) for n of them.
    """

    def __init__(self, draw: Callable[[Sequence[int]], Tensor]) -> None:
        self._draw = draw
        self._reads = 0
        self._octave: int | None = None
        #: the intervals that hold the last place read, from the octave down to a leaf: (index, left, right, middle)
        self._stack: list[tuple[int, Tensor, Tensor, Tensor | None]] = []
        self._last: tuple[float, Tensor] | None = None  # the last place read in this octave, and B there

    def increment(self, a: float, b: float) -> Tensor:
        """(B(b) - B(a))/sqrt(b - a), for 0 <= a < b: standard normal."""
        k = math.frexp(b)[1] - 1
        first = math.frexp(a)[1] - 1 if a > 0 else k - _LOWEST
        if b == math.ldexp(1.0, k):
            k -= 1
        if first >= k:
            left = self._within(k, a)
            return (self._within(k, b) - left) / math.sqrt(b - a)
        total = self._whole(first)
        if a > 0:
            total = total - self._within(first, a)
        for octave in range(max(first + 1, k - _LOWEST), k):
            total = total + self._whole(octave)
        return (total + self._within(k, b)) / math.sqrt(b - a)

    def _nodes(self, octave: int, indices: Sequence[int]) -> Tensor:
        return self._draw([_TREE + ((octave + 2**15) << (DEPTH + 1)) + index for index in indices])

    def _whole(self, octave: int) -> Tensor:
        """The increment over an octave."""
        return math.sqrt(math.ldexp(1.0, octave)) * self._nodes(octave, [0])[0]

    def _within(self, octave: int, c: float) -> Tensor:
        """B(c) - B(2^octave), for c within the octave."""
        length = math.ldexp(1.0, octave)
        place = c / length - 1
        if octave != self._octave:
            whole = self._whole(octave)
            self._octave, self._last = octave, (0.0, 0 * whole)
            self._stack = [(1, 0 * whole, whole, None)]
        assert self._last is not None
        if place == self._last[0]:
            return self._last[1]
        left, right = self._ends(self._stack[-1][0])
        while not left <= place <= right:
            self._stack.pop()
            left, right = self._ends(self._stack[-1][0])
        below = [self._stack[-1][0]]
        while len(below) + len(self._stack) <= DEPTH + 1:
            below.append(2 * below[-1] + (place > sum(self._ends(below[-1])) / 2))
        known = self._stack[-1][3] is not None
        nodes = iter(self._nodes(octave, below[known:-1]) if below[known:-1] else ())
        for index, child in pairwise(below):
            _, low, high, middle = self._stack[-1]
            if middle is None:
                width = math.sqrt((right - left) * length)
                middle = (low + high) / 2 + 0.5 * width * next(nodes)
                self._stack[-1] = (index, low, high, middle)
            self._stack.append((child, middle, high, None) if child % 2 else (child, low, middle, None))
            left, right = self._ends(child)
        _, low, high, _ = self._stack[-1]
        if left < self._last[0] < place:
            left, low = self._last
        # a bridge from what is known on the left to the right end of the leaf
        share = (place - left) / (right - left)
        value = low + share * (high - low)
        if 0 < share < 1:
            self._reads += 1
            value = (
                value
                + math.sqrt((place - left) * (right - place) / (right - left) * length)
                * self._draw([_READ + self._reads])[0]
            )
        self._last = (place, value)
        return value

    @staticmethod
    def _ends(index: int) -> tuple[float, float]:
        """Where an interval of the tree lies within its octave; 1 is the root, 2i and 2i + 1 the halves of i."""
        level = index.bit_length() - 1
        width = 2.0**-level
        return (index - 2**level) * width, (index - 2**level + 1) * width
