"""Guidance by any differentiable log-likelihood: x0 + scale (sigma^2/alpha) grad log p(y given x_t).

If log p(y given x_t) is known as a function of the noisy data (a classifier trained on them), its gradient is all
that is needed. If only log p(y given x_0) is known (a classifier, a physical law, a loss on clean data), it is often
evaluated at the denoiser's x0 in place of x_0, and the gradient goes through the denoiser (Chung et al. 2022,
2209.14687; Song et al. 2023, "Loss-guided diffusion models"). This is an approximation: it ignores the spread of x_0
given x_t, and is overconfident at high noise. For y = A x_0 + noise, `ornstein.guidance.inverse` does better.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ornstein.core.condition import Condition
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Number
from ornstein.errors import InputError
from ornstein.guidance.contract import Guidance, check_scale, scale_at

#: (x, level) -> log p(y given x), (B,), in nats, each sample for itself
LogLikelihood = Callable[[Tensor, Level], Tensor]


@dataclass(frozen=True, eq=False)
class LikelihoodGuidance(Guidance):
    """Guidance by the gradient of a log-likelihood that is given as a function.

    Args:
        base: the denoiser to guide.
        log_likelihood: (x, level) -> (B,), differentiable in x; `of` says what x is.
        scale: a factor on the gradient; 1 is Bayes' rule.
        of: "xt": of the noisy data; "x0": of the denoiser's x0, with the gradient taken through the denoiser.
        interval: noise ratios sigma/alpha between which to guide; outside them it is the base.

    Raises:
        InputError: numbers out of range, an unknown `of`.
    """

    log_likelihood: LogLikelihood
    scale: float = 1.0
    of: str = "xt"
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_scale(self.scale, self.interval)
        if self.of not in ("xt", "x0"):
            raise InputError(f"of={self.of!r} must be 'xt' or 'x0': what log_likelihood is a function of.")

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        scale = scale_at(level, self.scale, self.interval, 0.0)
        if self.of == "xt":
            base = self.base.predict(x, level, condition)
            moved = base.x0 + pull(x, level, scale, lambda leaf: self.log_likelihood(leaf, level))
            return Prediction(moved, x, level, base.log_var)
        with Graph(x, condition) as graph:
            base = self.base.predict(graph.x, level, graph.condition)
            moved = base.x0 + graph.gradient(self.log_likelihood(base.x0, level)) * (scale * gain(level))
        return graph.prediction(moved, base, x, level)


class Graph:
    """A context in which gradients by the noisy data can be taken, even inside no_grad or inference mode.

    Inside another gradient the graph is kept, so that guidance can be guided: gradients of gradients.
    """

    def __init__(self, x: Tensor, condition: Condition) -> None:
        self.nested = torch.is_grad_enabled() and x.requires_grad
        self._given = x, condition
        self._modes = ExitStack()

    def __enter__(self) -> "Graph":
        self._modes.enter_context(torch.inference_mode(False))
        self._modes.enter_context(torch.enable_grad())
        if self.nested:  # the fused kernels of attention have one derivative and not two
            self._modes.enter_context(sdpa_kernel(SDPBackend.MATH))
        x, condition = self._given
        self.x = x if self.nested else x.detach().clone().requires_grad_()
        self.condition = condition.map(lambda part: part.clone() if part.is_inference() else part)
        return self

    def __exit__(self, *error: object) -> None:
        self._modes.close()

    def gradient(self, of: Tensor, along: Tensor | None = None) -> Tensor:
        """The gradient by x of sum(of * along), like x; may be called again."""
        if not of.requires_grad:  # a constant
            return torch.zeros_like(self.x)
        return torch.autograd.grad(
            of, self.x, torch.ones_like(of) if along is None else along.to(of),
            retain_graph=True, create_graph=self.nested, materialize_grads=True,
        )[0]  # fmt: skip

    def prediction(self, x0: Tensor, base: Prediction, x: Tensor, level: Level) -> Prediction:
        """x0 in place of the base's, without its graph unless it is wanted."""
        log_var = base.log_var
        if not self.nested:
            x0, log_var = x0.detach(), None if log_var is None else log_var.detach()
        return Prediction(x0, x, level, log_var)


def pull(x: Tensor, level: Level, scale: Number, log_likelihood: Callable[[Tensor], Tensor]) -> Tensor:
    """scale (sigma^2/alpha) grad log p(y given x_t = x), like x."""
    with Graph(x, Condition()) as graph:
        found = graph.gradient(log_likelihood(graph.x)) * (scale * gain(level))
    return found if graph.nested else found.detach()


def gain(level: Level) -> Number:
    """sigma^2/alpha, by which a score moves x0; zero where no signal is left and the score says nothing of x_0."""
    found = level.sigma * level.noise_ratio
    if isinstance(found, Tensor):
        return torch.where(found.isfinite(), found, 0.0)
    return found if found < float("inf") else 0.0
