"""Nearest neighbours: memorisation; precision and recall; density and coverage.

**Memorisation.** A diffusion model that has learned its training set by heart is a perfect model of it (the exact
denoiser of a finite data set returns training examples and nothing else), and every distance between samples and data
calls it excellent. What tells it apart is how close the samples lie to the *training* examples. Held-out data, which
the model cannot have copied, say how close an honest draw lies: with r(z) the distance from z to its nearest training
example,

    ratio = median r(samples) / median r(held-out).

About 1: the samples are as new as held-out data. Below 1: they lie nearer to the training set than fresh data do. Above
1: they stray from the data, which the other metrics show. A median does not see a few; hence also the share of samples
that lie closer than all but 1 % of the held-out data, which is about 1 % for an honest model.

Near is not yet copied: blurred images, and samples that keep to the middle of the data, lie nearer to *all* training
examples than data do. A copy is near to a single one. So a sample counts as a *copy* if its nearest training example is
less than a third as far as the next one at another place (Yoon et al. 2023; Gu et al. 2023). Honest draws do this too,
often in few dimensions: if training data lie evenly, a share of 3^-d of them, whatever their density; blurring does
not raise it. Held-out data say how many honest draws do, and what exceeds that by three standard errors is copying.

**Precision and recall** (Kynkäänniemi et al. 2019). Around each real point draw a ball reaching to its k-th nearest
real neighbour; the union of the balls stands for where real data live. Precision is the share of samples inside it
(are the samples plausible?), recall the same with the two sets exchanged (is every kind of data made?). To a single
distance different failures look alike; these two tell noise from dropped modes.

References: Meehan, Chaudhuri, Dasgupta, "A non-parametric test to detect data-copying in generative models" (2020,
arXiv:2004.05675); Yoon, Choi, Kwon, Ryu, "Diffusion probabilistic models generalize when they fail to memorize" (2023,
ICML workshop SPIGM); Gu, Du, Pang, Li, Lin, Wang, "On memorization in diffusion models" (2023, arXiv:2310.02664);
Kynkäänniemi, Karras, Laine, Lehtinen, Aila, "Improved precision and recall metric for assessing generative models"
(2019, arXiv:1904.06991); Naeem, Oh, Uh, Choi, Yoo, "Reliable fidelity and diversity metrics for generative models"
(2020, arXiv:2002.09797).
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from ornstein.errors import InputError
from ornstein.metrics.metric import Metric, choose, vectors

ENTRIES = 2**24  # of the largest block of distances: 64 MiB in float32
EXACT_UP_TO = 32  # dimensions; above, |x|^2 + |y|^2 - 2 x·y is far quicker and loses no more than it gains


def row_blocks(x: Tensor, columns: int) -> Iterator[tuple[int, Tensor]]:
    """(first row, rows) of x (N, d), in blocks for which rows x columns stays within 2^24 entries."""
    step = max(1, ENTRIES // columns)
    for start in range(0, len(x), step):
        yield start, x[start : start + step]


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances between x (N, d) and y (M, d), shape (N, M); all at once, so give it blocks."""
    if x.shape[1] <= EXACT_UP_TO:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    centre = y.mean(dim=0)  # a common offset would cost the product form its digits
    return torch.cdist(x - centre, y - centre, compute_mode="use_mm_for_euclid_dist")


def nearest(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """For each point of x (N, *shape) the nearest of y (M, *shape): distances (N,) in the data's unit, indices (N,)."""
    x, y = vectors(x, y)
    index = torch.cat([distances(rows, y).argmin(dim=1) for _, rows in row_blocks(x, len(y))])
    # measured afresh: the product form leaves a copy some 1e-3 away from its original
    return torch.cat([(x[i] - y[index[i]]).norm(dim=1) for i in torch.arange(len(x)).split(4096)]), index


def lone(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """The distance (N,) from each of x (N, *shape) to the nearest of y (M, *shape) at another place than y[index].

    Infinite if there is none among the eight nearest: all of these are then one example, many times.
    """
    x, y = vectors(x, y)
    k = min(_NEXT, len(y))
    near = torch.cat([distances(rows, y).topk(k, largest=False).indices for _, rows in row_blocks(x, len(y))])
    found = []
    for i in torch.arange(len(x)).split(512):
        others = y[near[i]]
        apart = (others != y[index[i], None]).any(dim=2)
        found.append((others - x[i, None]).norm(dim=2).masked_fill(~apart, torch.inf).amin(dim=1))
    return torch.cat(found)


_NEXT = 8
#: how many times farther the next training example lies than the nearest one to a copy
COPY = 3.0


@final
@dataclass(frozen=True)
class Memorisation(Metric):
    """Median distance from a sample to its nearest training example, beside that of held-out data.

    Here y is the *training* set and the floor is what held-out data get in place of the samples, so the ratio is
    the one above: about 1 = as new as held-out data, below = too near to the training data. `memorisation` says whether
    they are copied. In the units of the data. The sets need not be of equal size, since a median of x does not depend
    on how many there are.

    Meehan, Chaudhuri, Dasgupta (2020), arXiv:2004.05675.
    """

    better: ClassVar[Literal["lower", "higher"]] = "higher"
    close: ClassVar[float] = 0.9
    words: ClassVar[tuple[str, str, str]] = ("fresh", "near", "too near")
    fixed: ClassVar[Literal["heldout", "train"]] = "train"

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        return float(nearest(x, y)[0].median())

    def on_subsets(self, x: Tensor, y: Tensor, size: int, repeats: int, generator: torch.Generator) -> Tensor:
        reach = nearest(x, y)[0].double().cpu()  # one search serves every subset
        return torch.stack([reach[choose(len(x), size, generator, reach)].median() for _ in range(repeats)])


@final
@dataclass(frozen=True)
class Copying:
    """How close samples lie to the training set, against held-out data.

    `ratio`: of the median distances to the nearest training example. `share`: of samples that lie closer than all but
    `quantile` of the held-out data. `copies`: the share of samples whose nearest training example is less than a third
    as far as the next at another place; `honest`: the share of held-out data of which that holds. `copied`: whether
    there are more such samples than chance allows, by three standard errors.
    """

    ratio: float
    share: float
    quantile: float
    copies: float
    honest: float
    copied: bool


def memorisation(samples: Tensor, train: Tensor, heldout: Tensor, *, quantile: float = 0.01) -> Copying:
    """Are the samples (N, *shape) copies of the training set? Held-out data say how close an honest draw lies.

    An honest model has `ratio` about 1, `share` about `quantile` and `copies` about `honest`. Copies have `ratio` near
    0, `share` and `copies` near 1. Blurred samples have a small `ratio` and a large `share`, and no more `copies`.
    """
    if not 0 < quantile < 1:
        raise InputError(f"quantile={quantile} must lie between 0 and 1.")
    reaches, shares = [], []
    for points in (samples, heldout):
        reach, index = nearest(points, train)
        reaches.append(reach.double())
        shares.append(float((COPY * reach < lone(points, train, index)).double().mean()))
    ours, honest = reaches
    threshold = honest.quantile(quantile)
    either = (shares[0] * len(samples) + shares[1] * len(heldout)) / (len(samples) + len(heldout))
    error = (either * (1 - either) * (1 / len(samples) + 1 / len(heldout))) ** 0.5
    return Copying(
        ratio(float(ours.median()), float(honest.median())),
        float((ours < threshold).double().mean()),
        quantile,
        shares[0],
        shares[1],
        # and one sample: shares of few are skewed; so an honest set is called copied once in a thousand
        shares[0] - shares[1] > 3 * error + 1 / len(samples),
    )


def ratio(value: float, floor: float) -> float:
    """value / floor, with 0/0 = 1 (both perfect) and infinity for a positive value over a floor of zero."""
    if floor == 0:
        return 1.0 if value == 0 else float("inf")
    return value / floor


def radii(y: Tensor, k: int) -> Tensor:
    """How far the k-th nearest other point of y (N, d) is from each: the radius of its ball, (N,)."""
    if k >= len(y):
        raise InputError(f"k={k} needs more than {k} points, and there are {len(y)}.")
    found = []
    for start, rows in row_blocks(y, len(y)):
        block = distances(rows, y)
        block.diagonal(offset=start).fill_(torch.inf)
        found.append(block.kthvalue(k, dim=1).values)
    return torch.cat(found)


@dataclass(frozen=True)
class _Balls(Metric):
    """A number from which points lie in which balls around others, each reaching to the k-th nearest neighbour."""

    k: int = 3
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    close: ClassVar[float] = 0.9
    reads: ClassVar[Literal["data", "features", "marks"]] = "features"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"k={self.k} must be at least 1.")


class _RealBalls(_Balls):
    """A number from which samples lie in which balls around real points, which are found once for all subsets."""

    @abstractmethod
    def read(self, x: Tensor, y: Tensor, radius: Tensor) -> float:
        """The number from points x (N, d) and balls around y (M, d) of these radii (M,)."""

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        x, y = vectors(x, y)
        return self.read(x, y, radii(y, self.k))

    def on_subsets(self, x: Tensor, y: Tensor, size: int, repeats: int, generator: torch.Generator) -> Tensor:
        x, y = vectors(x, y)
        radius = radii(y, self.k)
        some = (x[choose(len(x), size, generator, x)] for _ in range(repeats))
        return torch.tensor([self.read(part, y, radius) for part in some], dtype=torch.float64)


def _within(x: Tensor, y: Tensor, radius: Tensor) -> Iterator[Tensor]:
    """Which of x (N, d) lie in which of the balls around y (M, d): bool (rows, M), block by block of rows of x."""
    for _, rows in row_blocks(x, len(y)):
        yield distances(rows, y) <= radius


@final
@dataclass(frozen=True)
class Precision(_RealBalls):
    """Share of the samples that lie where real data live: low means implausible samples (between 0 and 1).

    `k`: the balls reach to the k-th nearest neighbour. It grows with k and depends on N, so read it beside its floor.

    Kynkäänniemi, Karras, Laine, Lehtinen, Aila (2019), arXiv:1904.06991.
    """

    def read(self, x: Tensor, y: Tensor, radius: Tensor) -> float:
        return float(torch.cat([inside.any(1) for inside in _within(x, y, radius)]).double().mean())


@final
@dataclass(frozen=True)
class Recall(_Balls):
    """Share of the real data that lie where samples live: low means kinds that are not made (between 0 and 1).

    `k`: the balls reach to the k-th nearest neighbour. Precision with the two sets exchanged.

    Kynkäänniemi, Karras, Laine, Lehtinen, Aila (2019), arXiv:1904.06991.
    """

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        x, y = vectors(x, y)
        return Precision(self.k)(y, x, generator)


@final
@dataclass(frozen=True)
class Density(_RealBalls):
    """In how many balls of real points a sample lies, over k: 1 for honest samples, low for implausible ones.

    `k`: the balls reach to the k-th nearest neighbour. Like precision, but one real outlier weighs little. Samples that
    keep to where real data are dense have more than 1.

    Naeem, Oh, Uh, Choi, Yoo (2020), arXiv:2002.09797.
    """

    k: int = 5

    def read(self, x: Tensor, y: Tensor, radius: Tensor) -> float:
        inside = sum(int(block.sum()) for block in _within(x, y, radius))
        return inside / (self.k * len(x))


@final
@dataclass(frozen=True)
class Coverage(_RealBalls):
    """Share of the real points that have a sample in their ball: low means kinds that are not made (between 0 and 1).

    `k`: the balls reach to the k-th nearest neighbour. Like recall, but samples without sense add nothing to it.

    Naeem, Oh, Uh, Choi, Yoo (2020), arXiv:2002.09797.
    """

    k: int = 5

    def read(self, x: Tensor, y: Tensor, radius: Tensor) -> float:
        held = torch.zeros(len(y), dtype=torch.bool, device=y.device)
        for inside in _within(x, y, radius):
            held |= inside.any(0)
        return float(held.double().mean())


def clusters(x: Tensor, count: int, generator: torch.Generator, *, rounds: int = 20) -> Tensor:
    """Which of at most `count` clusters each of x (N, *shape) is in, (N,) int64: k-means from k-means++'s start.

    Lloyd (1982); Arthur & Vassilvitskii (2007).
    """
    points = x.reshape(len(x), -1)
    square = torch.full((len(points),), torch.inf, dtype=torch.float64)
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    for _ in range(1, count):
        square = torch.minimum(square, (points - points[chosen[-1]]).double().square().sum(1).cpu())
        if not float(square.sum()) > 0:
            break  # fewer different points than clusters
        chosen.append(int(torch.multinomial(square, 1, generator=generator)))
    centres = points[chosen]
    for _ in range(rounds):
        kind = distances(points, centres).argmin(1)
        sizes = kind.bincount(minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, kind, points)
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres)
    return distances(points, centres).argmin(1)
