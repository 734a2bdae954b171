"""Chains reversed by regression: Schrodinger bridges by alternating reversals, and a diffusion held at both ends.

A diffusion in N steps is a chain X_{k+1} = F_k(X_k) + sqrt(gamma_k) Z, for dX = f dt + g dB with F_k(x) = x + h f and
gamma_k = h g^2. Its reversal has the drift f - g^2 grad log p, so the mean of the chain that goes back is 2 x - F_k(x)
+ gamma_k grad log p_{k+1}(x), to the order of the steps. The score is the mean of -Z/sqrt(gamma_k) given X_{k+1}
(denoising score matching over one step), which gives a regression with no division by a small number, *mean matching*:

    B_{k+1}(x) = E[ x + F_k(X_k) - F_k(x) given X_{k+1} = x ].

*A diffusion held at both ends* (De Bortoli et al. 2021a, 2111.07243). Draw the chain from X_0 = a and reverse it. The
steps of the reversal do not depend on where it starts; started at b it is the diffusion from a, given that it reaches
b. Unlike Doob's h-transform this needs no transition density.

*Iterative proportional fitting* (De Bortoli et al. 2021b, 2106.01357). The chain starts as Brownian motion from one
data set; each turn reverses it and starts the reversal from the other set. Each turn is a projection in relative
entropy onto the processes with one end right (Sinkhorn's iteration, for processes), and the turns tend to the
Schrodinger bridge of the `Brownian` path with noise^2 = sum of gamma_k.

Like any chain, both are biased by the size of their steps: k steps from an end that is held, by about 1/(2k) of the
variance there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.numerics import noise_like
from ornstein.errors import InputError

#: a chain's step: (x, k) -> the mean of the next x, k being the index of the given x
Step = Callable[[Tensor, int], Tensor]
#: (x, target, up) -> a step: x and target (N, B, ...), the regression of target on x at each k. Entry i belongs to the
#: step from k = i to i + 1 if `up`, else from i + 1 to i
Fit = Callable[[Tensor, Tensor, bool], Step]


@dataclass(frozen=True, eq=False)
class Half:
    """A chain in one direction, with a draw of it.

    Attributes:
        step: if down, the mean of x at k - 1 from x at k = N..1; if up, of x at k + 1 from x at k = 0..N-1.
        chain: (N + 1, B, ...), the draw; index k is its time.
        up: whether it goes up.
    """

    step: Step
    chain: Tensor
    up: bool

    @staticmethod
    def drawn(step: Step, start: Tensor, gammas: Sequence[float], up: bool, generator: torch.Generator) -> "Half":
        """Draw a chain from `start` (B, ...)."""
        chain, n = [start], len(gammas)
        for i in range(n) if up else reversed(range(n)):
            chain.append(step(chain[-1], i if up else i + 1) + gammas[i] ** 0.5 * noise_like(start, generator))
        return Half(step, torch.stack(chain if up else chain[::-1]), up)

    def reversal(self, fit: Fit) -> Step:
        """The step of the chain that goes back, by mean matching."""
        low, high = self.chain[:-1], self.chain[1:]
        (here, there), first = ((low, high), 0) if self.up else ((high, low), 1)
        moved = [
            self.step(a, i + first) - self.step(b, i + first) for i, (a, b) in enumerate(zip(here, there, strict=True))
        ]
        return fit(there, there + torch.stack(moved), not self.up)


def _check(gammas: Sequence[float]) -> None:
    if not gammas or not all(g > 0 for g in gammas):
        raise InputError(f"gammas={list(gammas)} must be positive, and at least one.")


def proportional_fitting(
    x0: Tensor, x1: Tensor, gammas: Sequence[float], fit: Fit, *, turns: int, generator: torch.Generator
) -> Iterator[Half]:
    """Iterative proportional fitting by mean matching, a projection at a time: down, up, down, ...

    Args:
        x0, x1: (B, ...) and (M, ...), the data sets.
        gammas: the variance of the noise in each of the N steps, in data units squared.
        fit: how a step is learned.
        turns: how many projections.
        generator: of all randomness here.

    Raises:
        InputError: no turns, or gammas that are not positive.
    """
    if turns < 1:
        raise InputError(f"turns={turns!r} must be at least 1.")
    _check(gammas)
    half = Half.drawn(lambda x, k: x, x0, gammas, True, generator)
    for _ in range(turns):
        half = Half.drawn(half.reversal(fit), x1 if half.up else x0, gammas, not half.up, generator)
        yield half


def held_diffusion(
    step: Step, a: Tensor, b: Tensor, gammas: Sequence[float], fit: Fit, *, count: int, generator: torch.Generator
) -> Half:
    """A diffusion from a, given that it reaches b: learned from draws that start at a, and drawn downward from b.

    Args:
        step: the diffusion's own step, upward: (x, k) -> x + h f(x, t_k).
        a, b: the ends, one sample (...) each.
        gammas: h g^2 of each of the N steps, in data units squared.
        fit: how the reversal is learned.
        count: how many draws to learn from, and to return.
        generator: of all randomness here.

    Returns:
        The chain downward, with a at index 0 and b at index N. Its step serves any other b.

    Raises:
        InputError: gammas that are not positive, ends of different shapes, no draws.
    """
    _check(gammas)
    if a.shape != b.shape or count < 1:
        raise InputError(f"a has shape {tuple(a.shape)}, b {tuple(b.shape)}, count={count!r}: one shape, and draws.")
    up = Half.drawn(step, a.expand(count, *a.shape), gammas, True, generator)
    down = Half.drawn(up.reversal(fit), b.expand(count, *b.shape), gammas, False, generator)
    down.chain[0] = a  # the last step down has no choice: the diffusion started at a
    return down
