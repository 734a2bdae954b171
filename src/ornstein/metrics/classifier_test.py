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
classifiers of all folds train at once, as one batched matrix product.

Reference: Lopez-Paz, Oquab, "Revisiting classifier two-sample tests" (2017, arXiv:1610.06545).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F

from ornstein.errors import InputError
from ornstein.metrics.metric import Metric, choose, vectors


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
        of_x, of_y = self.scores(x, y, generator)
        return float(((of_x > 0).double().mean() + (of_y <= 0).double().mean()) / 2)

    def scores(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """How sure the classifier is that a point is from x, as logits: for the points of x, (N,), and of y, (M,).

        In a random order. Each by the fold that has not seen it.
        """
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
        x, y = x[choose(len(x), len(x), generator, x)], y[choose(len(y), len(y), generator, y)]
        layers = self.train(x, y, generator)
        with torch.no_grad():
            of_x, of_y = (held_out(logits(layers, z.expand(self.folds, -1, -1))) for z in (x, y))
        return of_x, of_y

    def train(self, x: Tensor, y: Tensor, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """One network a fold; fold f never meets the points i with i % folds == f. Weights (folds, in, out), biases."""
        sizes = [x.shape[1], self.width, self.width, 1]
        layers = []
        for fan_in, fan_out in pairwise(sizes):
            weight = torch.randn(self.folds, fan_in, fan_out, generator=generator, device=generator.device).to(x)
            weight = weight * (2 / fan_in) ** 0.5 if fan_out > 1 else weight * 0
            layers.append((weight.requires_grad_(), x.new_zeros(self.folds, 1, fan_out).requires_grad_()))
        parameters = [tensor for layer in layers for tensor in layer]
        optimiser = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.learning_rate, total_steps=self.steps + 1)
        half = self.batch // 2
        target = torch.cat([x.new_ones(half), x.new_zeros(half)]).expand(self.folds, -1)
        allowed = [training_indices(len(z), self.folds, z.device) for z in (x, y)]
        for _ in range(self.steps):
            drawn = []
            for points, rows in zip((x, y), allowed, strict=True):
                pick = torch.randint(rows.shape[1], (self.folds, half), generator=generator, device=generator.device)
                drawn.append(points[rows.gather(1, pick.to(rows.device))])
            loss = F.binary_cross_entropy_with_logits(logits(layers, torch.cat(drawn, dim=1)), target)
            optimiser.zero_grad()
            (loss * self.folds).backward()
            optimiser.step()
            schedule.step()
        return layers


def logits(layers: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """(folds, n, d) to (folds, n): each fold's network on its own points."""
    for weight, bias in layers[:-1]:
        x = F.silu(torch.baddbmm(bias, x, weight))
    return torch.baddbmm(layers[-1][1], x, layers[-1][0]).squeeze(-1)


def training_indices(count: int, folds: int, device: torch.device) -> Tensor:
    """(folds, n): row f holds indices i < count with i % folds != f, all rows cut to the shortest."""
    index = torch.arange(count, device=device)
    rows = [index[index % folds != f] for f in range(folds)]
    return torch.stack([row[: min(map(len, rows))] for row in rows])


def held_out(scores: Tensor) -> Tensor:
    """From (folds, n) the score of each point under the one fold that did not train on it: (n,)."""
    index = torch.arange(scores.shape[1], device=scores.device)
    return scores[index % len(scores), index]
