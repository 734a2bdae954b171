"""The divergence of a vector field, exactly or by probes, cheaply enough to train by and in bounded memory.

The divergence of a field s on R^d is the trace of its Jacobian J. One backward pass through s gives one product
v^T J, whose inner product with v is the *quadratic form* v^T J v. Two ways lead from there to the trace:

- exactly: v runs through the d basis vectors, d backward passes;
- by probes (Hutchinson 1989; Skilling 1989): for random v with E[v v^T] = I, E[v^T J v] = tr J, so that the mean over
  a few v is an unbiased estimate at the price of a few backward passes. Rademacher probes (signs) have the smallest
  variance among independent entries: of one probe, the sum over i != j of (J_ij^2 + J_ij J_ji), nothing for a diagonal
  J. Gaussian ones add 2 sum_i J_ii^2.

Sums over a batch stand for one sample's derivative: sample i of s(x) may depend on sample i of x alone. Every denoiser
of this house keeps that.

Derivatives are taken backwards over backwards, by plain autograd, one pass after another. Forward-mode products in a
batch (`torch.func.jvp` under `vmap`) would do as well, but only for fields that torch.func can transform, which one
that takes gradients of its own (the score of an energy) or writes in place is not. On a CPU they are no faster: for a
small convolutional network with attention on 8x8 pictures, 64 products took 1.6 to 1.9 times as long, and to train by
them 0.8 to 1.1 times.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from ornstein.errors import InputError, lookup

#: laws of probes with E[v v^T] = I: (shape, generator) -> v
PROBES: dict[str, Callable[[tuple[int, ...], Generator], Tensor]] = {
    "rademacher": lambda shape, g: 2.0 * torch.randint(2, shape, generator=g, device=g.device) - 1,
    "gaussian": lambda shape, g: torch.randn(shape, generator=g, device=g.device),
}


def draw_probes(x: Tensor, count: int, law: str, generator: Generator | None) -> Tensor:
    """`count` probes for each sample of x (B, *shape): (count, B, *shape).

    Raises:
        InputError: an unknown law, a count below 1, or no generator.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"probes={count!r} must be a whole number, at least 1.")
    if generator is None:
        raise InputError("generator=None cannot draw probes: give a torch.Generator.")
    return lookup(PROBES, law, "law")((count, *x.shape), generator).to(x)


def divergence(
    field: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor | None = None, *, keep: int = 16
) -> tuple[Tensor, Tensor]:
    """A field and its divergence at each sample.

    Where gradients are enabled the result can be trained by: it carries its graph, to the parameters of the field and
    to x where x asks for it. That graph grows with the number of backward passes. Beyond `keep` of them, each is
    thrown away and computed again when the gradient is taken: about twice the time, and the memory of one.

    Args:
        field: (B, *shape) -> (B, *shape), each sample for itself.
        x: (B, *shape).
        probes: (K, B, *shape) as from `draw_probes`: the estimate that they give; None: the exact trace.
        keep: see above; 0 always computes again.

    Returns:
        field(x), (B, *shape), and its divergence, (B,).
    """
    learning = torch.is_grad_enabled()
    passes = x[0].numel() if probes is None else len(probes)
    if not (learning and x.requires_grad):
        x = x.detach().requires_grad_()

    def forms(x: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        # the fused kernels of attention have one derivative and not two
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if learning else nullcontext():
            value = field(x)
            total = value.new_zeros(len(x))
            for k in range(first, last):
                if not value.requires_grad:
                    break  # a constant
                seen = value.flatten(1)[:, k] if probes is None else value * probes[k]
                (back,) = torch.autograd.grad(
                    seen.sum(), x, retain_graph=True, create_graph=learning, materialize_grads=True
                )
                total = total + (back.flatten(1)[:, k] if probes is None else (back * probes[k]).flatten(1).sum(1))
            return value, total

    if learning and passes > keep:
        value, total = checkpoint(forms, x, 0, 1, use_reentrant=False)
        for k in range(1, passes):
            total = total + checkpoint(forms, x, k, k + 1, use_reentrant=False)[1]
    else:
        value, total = forms(x, 0, passes)
    total = total if probes is None else total / passes
    return (value, total) if learning else (value.detach(), total)
