"""Group normalisation with scale and shift from a condition, and the activation after it, as one operation.

    y = act(scale * (x - mean_g) / sqrt(var_g + 1e-5) + shift)

with mean and variance over one sample's positions and the channels of one group g (Wu & He 2018, arXiv:1803.08494),
scale and shift per sample and channel (Perez et al. 2017, arXiv:1709.07871; Dhariwal & Nichol 2021, arXiv:2105.05233),
and act the identity or SiLU.

*Why a CPU gets an implementation of its own.* Convolutions are fastest with the channels innermost in memory, and in
that layout torch's group norm takes ten times as long as in the other (benchmarks/ablation.py). But per sample and
channel the map is affine,

    y = act(a * x + b),      a = scale * r,   b = shift - a * mean,   r = 1 / sqrt(var + 1e-5),

and a and b need two sums over the positions, which are quick in that layout. The derivative has the same form: with
h = act'(u) * dL/dy the gradient of the group's input is affine in h and x,

    dL/dx = a * h - r * (m_1 + n * m_2),    n = (x - mean) * r,   m_1 = mean_g(scale * h),  m_2 = mean_g(scale * h * n),

so it costs two more sums. Sums and activation are computed in float32 whatever the type of x. Of the tensors of x's
size, only x is kept for the backward pass. Each pass over memory overwrites the result of the pass before, if nothing
else needs it, since what a processor has just written is still in its cache.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def groups_of(channels: int) -> int:
    """A number of groups that divides `channels`: at most 32, of at least four channels each if there are four."""
    return math.gcd(channels, min(32, max(1, channels // 4)))


def group_norm(x: Tensor, scale: Tensor, shift: Tensor, silu: bool = False) -> Tensor:
    """act(scale * normalised(x) + shift) for x (B, C, *space), scale and shift (B, C), (1, C) or (C,).

    Args:
        x: of any floating type; the result has its type and layout.
        scale: for each sample and channel, or for each channel.
        shift: likewise.
        silu: whether act is SiLU; if not, it is the identity.
    """
    innermost = x.dim() == 4 and x.stride(1) == 1
    if innermost and x.device.type == "cpu" and not torch.compiler.is_compiling():
        found: Tensor = _ChannelsLast.apply(x, scale, shift, silu)[0]  # type: ignore[no-untyped-call]
        return found
    y = F.group_norm(x, groups_of(x.shape[1])) * _spread(scale, x) + _spread(shift, x)
    return F.silu(y).to(x.dtype) if silu else y.to(x.dtype)


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """(B, C), (1, C) or (C,) -> the same with dimensions of size 1 for the positions of x."""
    return values[(..., *[None] * (x.dim() - 2))]


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def _group_mean(means: Tensor) -> Tensor:
    """Means of channels (B, C, 1, 1) -> the mean of the group, at each of its channels."""
    batch, channels = means.shape[:2]
    grouped = means.view(batch, groups_of(channels), -1).mean(2, keepdim=True)
    return grouped.expand(-1, -1, channels // grouped.shape[1]).reshape(means.shape)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _statistics(wide: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each group, and one over its standard deviation, at each of its channels."""
    mean = _group_mean(_mean(wide))
    variance = _group_mean(_mean(wide.square())) - mean.square()
    return mean, (variance.clamp(min=0) + 1e-5).rsqrt()


def _plain(*tensors: Tensor) -> bool:
    """Whether results of these may be overwritten: not if they are differentiated further, or under vmap."""
    known = torch._C._functorch
    wrapped = any(known.is_functorch_wrapped_tensor(t) or known.is_legacy_batchedtensor(t) for t in tensors)
    return not torch.is_grad_enabled() and not wrapped


def _through_silu(gradient: Tensor, u: Tensor, out: Tensor | None = None) -> Tensor:
    """gradient * silu'(u)."""
    if out is not None:
        filled: Tensor = torch.ops.aten.silu_backward.grad_input(gradient, u, grad_input=out)
        return filled
    if not torch.is_grad_enabled():
        found: Tensor = torch.ops.aten.silu_backward(gradient, u)
        return found
    gate = torch.sigmoid(u)  # torch's own silu_backward has no derivative
    return gradient * gate * (1 + u * (1 - gate))


class _ChannelsLast(torch.autograd.Function):
    """The module's formulas, differentiable to any order: backward and `jvp` consist of differentiable operations."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor, silu: bool) -> tuple[Tensor, Tensor, Tensor]:
        wide = _at_least_float32(x)
        mean, r = _statistics(wide)
        a = _spread(scale, x) * r
        own = wide is not x and _plain(x, scale, shift)
        u = torch.addcmul(_spread(shift, x) - a * mean, wide, a, out=wide if own else None)
        return (F.silu(u, inplace=True) if silu else u).to(x.dtype), mean, r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, scale, shift, ctx.silu = inputs
        _, mean, r = output
        ctx.mark_non_differentiable(mean, r)
        ctx.save_for_backward(x, scale, shift, mean, r)
        ctx.save_for_forward(x, scale, shift)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, scale, shift, mean, r = ctx.saved_tensors
        wide = _at_least_float32(x)
        if torch.is_grad_enabled():  # a second derivative needs mean and r as functions of x
            mean, r = _statistics(wide)
        a = _spread(scale, x) * r
        h = gradient.to(wide.dtype)
        plain, spare = _plain(x, scale, shift, gradient), None
        if ctx.silu:
            u = torch.addcmul(_spread(shift, x) - a * mean, wide, a)
            h = _through_silu(h, u, h if plain and h is not gradient else None)
            spare = u if plain else None
        over_shift = _mean(h)
        over_scale = r * (_mean(torch.mul(h, wide, out=spare)) - mean * over_shift)
        m1, m2 = (_group_mean(_spread(scale, x) * part) for part in (over_shift, over_scale))
        b = r.square() * m2
        over_x = torch.addcmul(b * mean - r * m1, wide, -b, out=wide if plain and wide is not x else None)
        over_x = torch.addcmul(over_x, h, a, out=over_x if plain else None)
        parts = [(x.shape[2] * x.shape[3] * part)[:, :, 0, 0] for part in (over_scale, over_shift)]
        parts = [part.sum_to_size(scale.shape) for part in parts]
        return over_x.to(x.dtype), parts[0].to(scale.dtype), parts[1].to(shift.dtype), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dscale: Tensor, dshift: Tensor, _: None) -> tuple[Tensor, None, None]:
        x, scale, shift = ctx.saved_tensors
        wide = _at_least_float32(x)
        mean, r = _statistics(wide)
        n = (wide - mean) * r
        dn = r * (dx - _group_mean(_mean(_at_least_float32(dx))) - n * _group_mean(_mean(n * dx)))
        du = _spread(scale, x) * dn + _spread(dscale, x) * n + _spread(dshift, x)
        if ctx.silu:
            du = _through_silu(du, n * _spread(scale, x) + _spread(shift, x))
        return du.to(x.dtype), None, None
