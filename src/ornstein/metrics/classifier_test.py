"""The classifier two-sample test: can a small network learn to tell samples from real data?

Label the points of x with 1 and those of y with 0, train a classifier on some, and count how often it is right on the
others. Between densities p and q the best possible classifier says "x" where p > q and is right with probability

    1/2 + TV(p, q) / 2,

TV being the total variation distance, so the accuracy is a lower bound of a proper distance, and 0.5 means that this
classifier found nothing to tell the sets apart. Unlike a kernel it learns *where to look*.

Reading the sign: well above 0.5 is bad, the samples give themselves away. 0.5 within the noise is best. Below 0.5 by
more than the noise is not better than best: it happens when x holds copies of points of y, since the classifier has
then met the test point under the other label and answers wrongly.

Cross-validation tests every point once, on the fold whose classifier has not seen it. Each class makes up half of
each batch and half of the score, so that sets of different sizes still have 0.5 as the value of chance. The
classifiers of all folds, and of all subsets that a floor is measured on, train at once, as one batched matrix product:
of networks as small as these the calls take longer than the arithmetic.

Reference: Lopez-Paz, Oquab, "Revisiting classifier two-sample tests" (2017, arXiv:1610.06545).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F

from ornstein.errors import InputError
from ornstein.metrics.metric import Metric, choose, vectors
from ornstein.optimisers import eager

#: weights of first layers that train at once, at most: beyond, the arithmetic takes longer than the calls
_AT_ONCE = 2**20


@final
@dataclass(frozen=True)
class C2ST(Metric):
    """Cross-validated accuracy of a classifier that tells samples from real data (0.5 = cannot, 1 = always).

    `folds`: of the cross-validation, at least 2. `steps`, `batch`, `width`, `learning_rate`: of a network with two
    hidden layers, trained with AdamW on coordinates standardised by y. Below 0.5 beyond the noise points to copies, see
    the module.

    Lopez-Paz, Oquab (2017), arXiv:1610.06545.
    """

    folds: int = 5
    steps: int = 200
    batch: int = 128
    width: int = 64
    learning_rate: float = 3e-3
    close: ClassVar[float] = 1.1
    reads: ClassVar[Literal["data", "features", "marks"]] = "marks"

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise InputError(f"folds={self.folds} must be at least 2.")
        if min(self.steps, self.batch // 2, self.width) < 1 or not self.learning_rate > 0:
            raise InputError(
                f"steps={self.steps}, batch={self.batch}, width={self.width}, learning_rate={self.learning_rate} "
                "must be positive, and batch at least 2."
            )

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
        return float(self._right(*self.scores(x, y, generator)))

    def on_subsets(self, x: Tensor, y: Tensor, size: int, repeats: int, generator: torch.Generator) -> Tensor:
        """See `Metric.on_subsets`; here the classifiers of many subsets are trained at once."""
        together = max(1, _AT_ONCE // (self.folds * x[0].numel() * self.width))
        subsets = [x[choose(len(x), size, generator, x)] for _ in range(repeats)]
        groups = [subsets[start : start + together] for start in range(0, repeats, together)]
        return torch.cat([self._right(*self._scores(group, y, generator)) for group in groups]).cpu()

    @staticmethod
    def _right(of_x: Tensor, of_y: Tensor) -> Tensor:
        """How often the classifiers are right, float64: from scores of shape (..., N) and (..., M), (...)."""
        return ((of_x > 0).double().mean(-1) + (of_y <= 0).double().mean(-1)) / 2

    def scores(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """How sure the classifier is that a point is from x, as logits: for the points of x, (N,), and of y, (M,).

        In a random order. Each by the fold that has not seen it.
        """
        of_x, of_y = self._scores([x], y, generator)
        return of_x[0], of_y[0]

    def _scores(self, subsets: Sequence[Tensor], y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`scores` of several sets of one size against y: (sets, N) and (sets, M)."""
        pairs = [self._prepared(x, y, generator) for x in subsets]
        xs, ys = (torch.stack(sets) for sets in zip(*pairs, strict=True))
        layers = self.train(xs, ys, generator)
        with torch.no_grad():
            every = (z.repeat_interleave(self.folds, 0) for z in (xs, ys))
            of_x, of_y = (held_out(logits(layers, z).unflatten(0, (-1, self.folds))) for z in every)
        return of_x, of_y

    def _prepared(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Both sets (N, d) in a random order, and in the unit of y."""
        x, y = vectors(x, y)
        if min(len(x), len(y)) < 2 * self.folds:
            raise InputError(
                f"folds={self.folds} needs at least {2 * self.folds} points a set; given {len(x)} and {len(y)}."
            )
        # the unit is that of the real data: one outlier among the samples must not hide all others. A coordinate that
        # never moves in y takes that of both, since it would otherwise be divided by zero
        unit = torch.where(y.amin(dim=0) < y.amax(dim=0), y.std(dim=0), torch.cat([x, y]).std(dim=0))
        centre = y.mean(dim=0)
        x, y = (torch.asinh((z - centre) / unit.clamp(min=1e-12)) for z in (x, y))
        return x[choose(len(x), len(x), generator, x)], y[choose(len(y), len(y), generator, y)]

    def train(self, x: Tensor, y: Tensor, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """A network for each pair of sets, x (sets, N, d) and y (sets, M, d), and each fold of it.

        Fold f never meets the points i with i % folds == f. Weights (sets * folds, in, out), and biases.
        """
        sizes, nets = [x.shape[2], self.width, self.width, 1], len(x) * self.folds
        layers = []
        for fan_in, fan_out in pairwise(sizes):
            weight = torch.randn(nets, fan_in, fan_out, generator=generator, device=generator.device).to(x)
            weight = weight * (2 / fan_in) ** 0.5 if fan_out > 1 else weight * 0
            layers.append((weight.requires_grad_(), x.new_zeros(nets, 1, fan_out).requires_grad_()))
        parameters = [tensor for layer in layers for tensor in layer]
        optimiser = eager(torch.optim.AdamW)(parameters, lr=self.learning_rate, weight_decay=0.1, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.learning_rate, total_steps=self.steps + 1)
        half = self.batch // 2
        target = torch.cat([x.new_ones(half), x.new_zeros(half)]).expand(nets, -1)
        owner = torch.arange(len(x), device=x.device).repeat_interleave(self.folds)[:, None]
        allowed = [training_indices(z.shape[1], self.folds, z.device).repeat(len(x), 1) for z in (x, y)]
        for _ in range(self.steps):
            drawn = []
            for points, rows in zip((x, y), allowed, strict=True):
                pick = torch.randint(rows.shape[1], (nets, half), generator=generator, device=generator.device)
                drawn.append(points[owner, rows.gather(1, pick.to(rows.device))])
            loss = F.binary_cross_entropy_with_logits(logits(layers, torch.cat(drawn, dim=1)), target)
            optimiser.zero_grad()
            (loss * nets).backward()
            optimiser.step()
            schedule.step()
        return layers


def logits(layers: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """(nets, n, d) to (nets, n): each network on its own points."""
    for weight, bias in layers[:-1]:
        x = F.silu(torch.baddbmm(bias, x, weight))
    return torch.baddbmm(layers[-1][1], x, layers[-1][0]).squeeze(-1)


def training_indices(count: int, folds: int, device: torch.device) -> Tensor:
    """(folds, n): row f holds indices i < count with i % folds != f, all rows cut to the shortest."""
    index = torch.arange(count, device=device)
    rows = [index[index % folds != f] for f in range(folds)]
    return torch.stack([row[: min(map(len, rows))] for row in rows])


def held_out(scores: Tensor) -> Tensor:
    """From (..., folds, n) the score of each point under the one fold that did not train on it: (..., n)."""
    index = torch.arange(scores.shape[-1], device=scores.device)
    return scores[..., index % scores.shape[-2], index]
