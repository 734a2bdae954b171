"""Noise levels and Langevin steps that suit a data set: the rules of NCSNv2.

Song & Ermon 2020 (2006.09011) replaced the hand-tuned ladder of NCSN by five rules; the first four are functions of
the data and of the number of corrections that you can afford.

1. *The largest sigma* is the largest distance between two training examples: the noise that lets a chain go from any
   mode to any other.
2. *The ratio of two levels.* Noise of d dimensions lives on a shell, its radius about N(sqrt(d) sigma, sigma^2/2).
   The share of the level sigma/ratio that falls within three deviations of the shell of sigma, where the network has
   been trained, is

       C(ratio) = Phi(sqrt(2d)(ratio - 1) + 3 ratio) - Phi(sqrt(2d)(ratio - 1) - 3 ratio),

   and is to be about one half. In many dimensions that means a ratio near 1 + 3/sqrt(2d), and many levels. Below 18
   dimensions shells are so thick that a ratio of 2 overlaps enough; 2 is then taken. (The ladders published for
   CIFAR-10, CelebA, LSUN and FFHQ all have C near 0.567: overlap=0.5664 finds their 232, 500, 1086 and 2311 levels,
   where one half asks for 220 to 2182.)
3. *Conditioning by 1/sigma*: the score is s(x)/sigma with a network s that is not told the noise, of output about 1
   at all levels. Here `NetDenoiser(predicts="eps")` reads score = -F/sigma off its network, the same factor; the
   network is told the level besides.
4. *The step* brings the noise left from the level above closest to the present level's within the corrections:
   `ornstein.samplers.langevin.best_step`.
5. *Averaged weights*, with which samples are drawn: `training.ema`.

The smallest sigma depends on how much noise the eye, or the metric, tolerates. NCSN's 0.01 on images in [0, 1] is a
twenty-fifth of the standard deviation of CIFAR-10; the same share of the standard deviation is used for other data.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.chains import Tabulated
from ornstein.errors import InputError
from ornstein.samplers.langevin import AnnealedLangevin, best_step

#: the ratio of two levels is never more, however few the dimensions
LARGEST_RATIO = 2.0
#: the smallest sigma, as a share of the data's standard deviation
SMALLEST = 0.04


def shell_overlap(ratio: float, dimensions: int) -> float:
    """C(ratio): the share of one level's noise that lies on the shell of the level `ratio` times higher, in [0, 1]."""
    away = math.sqrt(2 * dimensions) * (ratio - 1)
    # a difference of two upper tails, so that small shares keep their digits
    return 0.5 * (math.erfc((away - 3 * ratio) / math.sqrt(2)) - math.erfc((away + 3 * ratio) / math.sqrt(2)))


def ladder_ratio(dimensions: int, overlap: float = 0.5) -> float:
    """The ratio of neighbouring levels whose shells overlap by this share, at most `LARGEST_RATIO`."""
    if not 0 < overlap < 1:
        raise InputError(f"overlap={overlap!r} must be a share in (0, 1).")
    low, high = 1.0, LARGEST_RATIO
    if shell_overlap(high, dimensions) >= overlap:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if shell_overlap(middle, dimensions) > overlap else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Diameter:
    """The largest distance between two points of a set.

    Attributes:
        distance: between two of the points.
        bound: no two points are further apart; equal to `distance` where that is exact.
        compared: points whose distances were all taken: no other can be an end of the largest.
    """

    distance: float
    bound: float
    compared: int


def largest_distance(data: Tensor, most: int = 10_000) -> Diameter:
    """The diameter of a data set (N, *shape), by comparing only the points that can be its ends.

    With radii r about the mean, no pair is further apart than the sum of its radii. A distance L found by walking to
    the farthest point a few times therefore rules out all points with r < L - max r. Of those that remain the `most`
    outermost are compared, in blocks; if there were more, the answer says within which bound it holds.

    Raises:
        InputError: fewer than two points, or values that are not finite.
    """
    if len(data) < 2:
        raise InputError(f"data has {len(data)} examples; a distance takes at least two.")
    x = data.reshape(len(data), -1).to(torch.promote_types(data.dtype, torch.float32))
    x = x - x.mean(0)
    radius = torch.linalg.vector_norm(x, dim=1)
    if not bool(radius.isfinite().all()):
        raise InputError("data holds values that are not finite.")
    largest = float(radius.max())
    found, at = 0.0, int(radius.argmax())
    for _ in range(4):
        away = torch.cat([torch.linalg.vector_norm(part - x[at], dim=1) for part in x.split(4096)])
        at = int(away.argmax())
        found = max(found, float(away[at]))
    rounding = 1e-5 * largest
    left = (radius >= found - largest - rounding).nonzero()[:, 0]
    left = left[radius[left].argsort(descending=True)]
    if len(left) > most:
        beyond = float(radius[left[most]]) + largest
        left = left[:most]
    else:
        beyond = 0.0
    points, squares = x[left], radius[left].square()
    best, ends = -1.0, (0, 0)
    for start in range(0, len(points), 1024):
        block = slice(start, start + 1024)
        # |a - b|^2 from inner products, to find the pair; half of them, the matrix being symmetric
        square = squares[block, None] + squares[start:] - 2 * (points[block] @ points[start:].T)
        k = int(square.argmax())
        if float(square.flatten()[k]) > best:
            best = float(square.flatten()[k])
            ends = (start + k // square.shape[1], start + k % square.shape[1])
    exact = float(torch.linalg.vector_norm((points[ends[0]] - points[ends[1]]).double()))
    distance = max(found, exact)
    return Diameter(distance, max(distance, beyond), len(points))


@dataclass(frozen=True)
class LadderAdvice:
    """A ladder of noise levels for a data set, and the Langevin steps to walk it.

    Attributes:
        sigmas: rising, in the units of the data; level 1 is the first.
        corrections: Langevin steps a level.
        step_size: gamma/sigma^2, the same at all levels.
        reasons: why, a sentence for each of sigma_max, sigma_min, ratio, step_size, conditioning, average.
    """

    sigmas: tuple[float, ...]
    corrections: int
    step_size: float
    reasons: dict[str, str]

    @property
    def ratio(self) -> float:
        """The ratio of neighbouring levels."""
        return math.pow(self.sigmas[-1] / self.sigmas[0], 1 / (len(self.sigmas) - 1))

    @property
    def eps(self) -> float:
        """The step at the smallest level in data units squared, as NCSNv2 states it (6.2e-6 for CIFAR-10)."""
        return self.step_size * self.sigmas[0] ** 2

    def process(self) -> Tabulated:
        """The ladder as a process."""
        return Tabulated.from_sigmas(self.sigmas)

    def stepper(self) -> AnnealedLangevin:
        """The sampler; take as many steps as there are levels."""
        return AnnealedLangevin(self.corrections, self.step_size)


@dataclass(frozen=True)
class AdvisedLadder:
    """A ladder of noise levels chosen from the data, as NCSNv2 does (Song & Ermon 2020, 2006.09011).

    Args:
        overlap: share by which the shells of neighbouring levels overlap, in (0, 1).
        sigma_min, sigma_max: the smallest and the largest level in model space; None: chosen from the data.
    """

    overlap: float = 0.5
    sigma_min: float | None = None
    sigma_max: float | None = None

    def advise(self, data: Tensor, corrections: int = 5) -> "LadderAdvice":
        """The ladder for these data: see `advise_ladder`."""
        return advise_ladder(
            data, corrections=corrections, overlap=self.overlap, sigma_min=self.sigma_min, sigma_max=self.sigma_max
        )


def advise_ladder(
    data: Tensor,
    *,
    corrections: int = 5,
    overlap: float = 0.5,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> LadderAdvice:
    """The ladder and the step that NCSNv2 would take for these data.

    Args:
        data: (N, *shape), N >= 2, in model space: the scale that the model is trained in.
        corrections: Langevin steps a level, as many as you can afford; 3 to 5 in the paper.
        overlap: share by which the shells of neighbouring levels overlap.
        sigma_min, sigma_max: to set the ends yourself.

    Raises:
        InputError: data that are all equal or not finite, numbers out of range.
    """
    AnnealedLangevin(corrections)  # refuses what is no number of corrections
    d = data[0].numel() if len(data) else 0
    reasons = {}
    if sigma_max is None:
        diameter = largest_distance(data)
        sigma_max = diameter.distance
        reasons["sigma_max"] = f"{sigma_max:.4g}: the largest distance between two of {len(data):,} examples"
        if diameter.bound > diameter.distance:
            reasons["sigma_max"] += f" ({diameter.compared:,} were compared; none exceeds {diameter.bound:.4g})"
        reasons["sigma_max"] += "."
    else:
        reasons["sigma_max"] = f"{sigma_max:.4g}: as given."
    if sigma_min is None:
        spread = data.to(torch.promote_types(data.dtype, torch.float32)).std().item()
        sigma_min = SMALLEST * spread
        reasons["sigma_min"] = f"{sigma_min:.4g}: {SMALLEST:.0%} of the data's standard deviation, {spread:.4g}."
    else:
        reasons["sigma_min"] = f"{sigma_min:.4g}: as given."
    if not 0 < sigma_min < sigma_max < math.inf:
        raise InputError(
            f"sigma_min={sigma_min:g} and sigma_max={sigma_max:g} must be positive and rising; data all alike have no "
            "ladder."
        )
    most = ladder_ratio(d, overlap)
    levels = max(2, math.ceil(math.log(sigma_max / sigma_min) / math.log(most) - 1e-9) + 1)
    ratio = (sigma_max / sigma_min) ** (1 / (levels - 1))
    shared = f"whose noise overlaps by {shell_overlap(ratio, d):.2f} in {d:,} dimensions"
    reasons["ratio"] = f"{ratio:.4g}: {levels} levels, {shared}" + (
        f" ({overlap:g} asked for)." if most < LARGEST_RATIO else f"; never more than {LARGEST_RATIO:g}."
    )
    step_size, left = best_step(ratio**2, corrections)
    reasons["step_size"] = (
        f"{step_size:.3g} sigma^2: {corrections} corrections then bring the variance of the noise from {ratio**2:.3f} "
        f"to {left:.3f} of its level's."
    )
    reasons["conditioning"] = "the score is the network's output over sigma: predicts 'eps'."
    reasons["average"] = "samples are drawn with averaged weights: training.ema."
    sigmas = (*(sigma_min * ratio**k for k in range(levels - 1)), float(sigma_max))
    return LadderAdvice(sigmas, corrections, step_size, reasons)
