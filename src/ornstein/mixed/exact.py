"""A product in closed form, for tests: a class, and numbers that are normal given the class."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.condition import Condition
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.discrete import Kernel
from ornstein.discrete.kernels import share
from ornstein.errors import InputError
from ornstein.mixed.parts import Joint, Part, Said


@dataclass(frozen=True, eq=False)
class NumbersOfAClass(Joint):
    """A class c with probability p_c, and d numbers N(mean_c, diag(variance_c)) given it.

    With w_c = p(c given x_t) ~ p_c q(c_t given c) N(x_t; alpha mean_c, alpha^2 variance_c + sigma^2), the posterior of
    the class is w, and the posterior mean of the numbers is the average, under w, of those given each class.

    Args:
        shares: (K,) p_c.
        mean, variance: (K, d).
        numbers: how the numbers dissolve.
        label: how the class dissolves.

    Raises:
        InputError: shares that do not sum to one, means and variances of different shapes.
    """

    shares: Tensor
    mean: Tensor
    variance: Tensor
    numbers: Process
    label: Kernel

    def __post_init__(self) -> None:
        if abs(float(self.shares.sum()) - 1) > 1e-6 or self.mean.shape != self.variance.shape:
            raise InputError("shares must sum to 1; mean and variance must have one shape, a row for each share.")

    @property
    def parts(self) -> Mapping[str, Part]:  # type: ignore[override]
        """ "numbers" and "label"."""
        total = self.shares @ self.mean
        spread = self.shares @ (self.variance + (self.mean - total).square())
        sigma = math.sqrt(float(spread.mean() + total.square().mean()))
        return {
            "numbers": Part(self.numbers, (self.mean.shape[1],), sigma),
            "label": Part(self.label, categories=Categories((len(self.shares),))),
        }

    def predict(self, x: Mapping[str, Tensor], levels: Mapping[str, Level], condition: Condition) -> dict[str, Said]:
        z, level = x["numbers"].double()[:, None], levels["numbers"]
        alpha, sigma = (_column(v) for v in (level.alpha, level.sigma))
        mean, variance = self.mean.double(), self.variance.double()
        spread = alpha**2 * variance + sigma**2
        off = z - alpha * mean
        log_w = self.shares.double().log() - 0.5 * (off.square() / spread + spread.log()).sum(-1)
        categories = self.parts["label"].categories
        assert categories is not None
        codes = categories.codes(x["label"])
        codes = torch.where(codes < 0, len(self.shares), codes)
        seen = self.label.log_columns(codes, len(self.shares), share(levels["label"]))[:, 0, : len(self.shares)]
        log_p = (log_w + seen).log_softmax(-1)
        own = mean + alpha * variance / spread * off
        x0 = (log_p.exp()[..., None] * own).sum(1).to(x["numbers"])
        return {"numbers": Prediction(x0, x["numbers"], level), "label": log_p[:, None]}


def _column(value: "float | Tensor") -> "float | Tensor":
    """A coefficient for each row, (B, 1), or one for all, reshaped to multiply (B, K, d)."""
    return value.double().reshape(-1, 1, 1) if isinstance(value, Tensor) else value
