"""The divergence of a vector field, exactly or by probes, cheaply enough to train by and in bounded memory.

The divergence of a field s on R^d is the trace of its Jacobian J. One backward pass through s gives one product
v^T J, whose inner product with v is the *quadratic form* v^T J v. Three ways lead from there to the trace:

- exactly: v runs through the d basis vectors, d backward passes;
- by probes (Hutchinson 1989; Skilling 1989): for random v with E[v v^T] = I, E[v^T J v] = tr J, so that the mean over
  a few v is an unbiased estimate at the price of a few backward passes. Rademacher probes (signs) have the smallest
  variance among independent entries: of one probe, the sum over i != j of (J_ij^2 + J_ij J_ji), nothing for a diagonal
  J. Gaussian ones add 2 sum_i J_ii^2;
- by deflation (Hutch++; Meyer et al. 2021, 2010.09649): with Q an orthonormal basis of a few directions, k of them,
  tr J = tr Q^T J Q + tr (I - QQ^T) J (I - QQ^T). The first is k products; only the second is left to the probes, and if
  Q holds the directions in which J is large there is little left. Any Q that does not depend on the probes keeps the
  estimate unbiased, which makes the first term a control variate of the second. Gaussian probes of the second, put to
  the length that they have on average, are even directions in what is left, still unbiased, and have no error for a
  multiple of the identity (Epperly, Tropp & Webber 2024, 2301.07825).

Sums over a batch stand for one sample's derivative: sample i of s(x) may depend on sample i of x alone. Every denoiser
of this house keeps that.

Derivatives to train by are taken backwards over backwards, by plain autograd, one pass after another. Forward-mode
products in a batch (`torch.func.jvp` under `vmap`) would do as well, but only for fields that torch.func can transform,
which one that takes gradients of its own (the score of an energy) or writes in place is not. On a CPU they are no
faster: for a small convolutional network with attention on 8x8 pictures, 64 products took 1.6 to 1.9 times as long, and
to train by them 0.8 to 1.1 times. Where nothing is trained, one forward pass serves all products, and these go back
through it many at a time (`linearised`): 5 to 30 times as fast in 64 dimensions.
"""

from collections.abc import Callable

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

#: numbers that go back through a network at a time: enough to keep a CPU busy, few enough for a U-Net's memory
AT_ONCE = 2**17


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


def linearised(field: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A field at x, and the products of its Jacobian's transpose with any vectors; not to be trained by.

    One forward pass is kept for all products. As many go back through it at a time as fit in `AT_ONCE` numbers.

    Args:
        field: (B, *shape) -> (B, *shape), each sample for itself.
        x: (B, *shape).

    Returns:
        field(x), (B, *shape), and `pull`: v (K, B, *shape) -> J^T v of each sample, the same shape.
    """
    at = x.detach().requires_grad_()
    with torch.enable_grad():
        value = field(at)
    together = max(1, AT_ONCE // x.numel())

    def back(v: Tensor, batched: bool) -> Tensor:
        (found,) = torch.autograd.grad(value, at, v, retain_graph=True, allow_unused=True, is_grads_batched=batched)
        return torch.zeros_like(v) if found is None else found

    def pull(v: Tensor) -> Tensor:
        nonlocal together
        if not value.requires_grad:
            return torch.zeros_like(v)  # a constant
        if together > 1 and len(v) > 1:
            try:
                return torch.cat([back(part, True) for part in v.split(together)])
            except RuntimeError:  # an operation that cannot be batched: the same, one at a time
                together = 1
        return torch.stack([back(each, False) for each in v])

    return value.detach(), pull


def exact_trace(pull: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The trace of each sample's Jacobian, (B,), from the products of `linearised` at x (B, *shape): one an element."""
    d, total = x[0].numel(), x.new_zeros(len(x))
    for part in torch.arange(d, device=x.device).split(max(1, AT_ONCE // x.numel())):
        basis = x.new_zeros(len(part), len(x), d)
        basis[torch.arange(len(part)), :, part] = 1
        columns = pull(basis.reshape(len(part), *x.shape)).reshape(basis.shape)
        total += (columns * basis).sum((0, 2))
    return total


def deflated_forms(pull: Callable[[Tensor], Tensor], basis: Tensor, probes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hutch++ with a given basis: the trace within it, exactly, and the quadratic forms of probes outside it.

    Their sum estimates the trace without bias as long as the probes were drawn independently of the basis. len(basis) +
    len(probes) products.

    Args:
        pull: as from `linearised`.
        basis: (k, B, *shape), orthonormal within each sample, from `orthonormal`.
        probes: (m, B, *shape), standard normal.

    Returns:
        The trace within the basis, (B,); the forms outside, (m, B); and J^T basis, (k, B, *shape), of which
        `orthonormal` makes the basis of a better subspace (a step of the power iteration) for a Jacobian nearby.
    """
    q, v = basis.flatten(2), probes.flatten(2)
    outside = v - _within(q, v)
    length = outside.norm(dim=2, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
    outside = outside * ((q.shape[2] - len(q)) ** 0.5 / length)
    image = pull(torch.cat([q, outside]).reshape(-1, *basis.shape[1:])).flatten(2)
    along = (image[: len(q)] * q).sum((0, 2))
    forms = (image[len(q) :] * outside).sum(2)
    return along, forms, image[: len(q)].reshape(basis.shape)


def orthonormal(vectors: Tensor) -> Tensor:
    """An orthonormal basis of the span of each sample's vectors, (k, B, *shape) -> the same shape, k at most d."""
    columns = vectors.flatten(2).permute(1, 2, 0)  # (B, d, k)
    q, _ = torch.linalg.qr(columns)
    rows: Tensor = q.permute(2, 0, 1)
    return rows.reshape(vectors.shape)


def _within(basis: Tensor, v: Tensor) -> Tensor:
    """The part of v (m, B, d) that lies in the span of an orthonormal basis (k, B, d)."""
    return torch.einsum("kbd,mkb->mbd", basis, torch.einsum("kbd,mbd->mkb", basis, v))


def divergence(
    field: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor | None = None, *, keep: int = 16
) -> tuple[Tensor, Tensor]:
    """A field and its divergence at each sample.

    Where gradients are enabled the result can be trained by: it carries its graph, to the parameters of the field and
    to x where x asks for it. That graph grows with the number of backward passes. Beyond `keep` of them, each is
    thrown away and computed again when the gradient is taken, field and all, since none shares another's forward pass:
    3.2 to 3.3 times as long as measured, and the memory of one.

    Args:
        field: (B, *shape) -> (B, *shape), each sample for itself.
        x: (B, *shape).
        probes: (K, B, *shape) as from `draw_probes`: the estimate that they give; None: the exact trace.
        keep: see above; 0 always computes again.

    Returns:
        field(x), (B, *shape), and its divergence, (B,).
    """
    if not torch.is_grad_enabled():
        value, pull = linearised(field, x)
        if probes is None:
            return value, exact_trace(pull, x)
        return value, (pull(probes) * probes).flatten(2).sum((0, 2)) / len(probes)
    passes = x[0].numel() if probes is None else len(probes)
    if not x.requires_grad:
        x = x.detach().requires_grad_()

    def forms(x: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        # the fused kernels of attention have one derivative and not two
        with sdpa_kernel(SDPBackend.MATH):
            value = field(x)
            total = value.new_zeros(len(x))
            for k in range(first, last):
                if not value.requires_grad:
                    break  # a constant
                seen = value.flatten(1)[:, k] if probes is None else value * probes[k]
                (back,) = torch.autograd.grad(
                    seen.sum(), x, retain_graph=True, create_graph=True, materialize_grads=True
                )
                total = total + (back.flatten(1)[:, k] if probes is None else (back * probes[k]).flatten(1).sum(1))
            return value, total

    if passes > keep:
        value, total = checkpoint(forms, x, 0, 1, use_reentrant=False)
        for k in range(1, passes):
            total = total + checkpoint(forms, x, k, k + 1, use_reentrant=False)[1]
    else:
        value, total = forms(x, 0, passes)
    return value, total if probes is None else total / passes
