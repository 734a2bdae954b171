"""The likelihood of data under a model of their latents: a lower bound, through the codec's encoder.

    log p(x) >= E_q[ log p(x given z) + log p(z) - log q(z given x) ]

(Kingma & Welling 2014, 1312.6114), with log p(z) the exact density of the model of latents. With several draws of z the
ratios p(x, z)/q(z given x) are averaged under the logarithm, which is a bound too and rises with their number (Burda,
Grosse & Salakhutdinov 2016, 1509.00519).

p(x given z) is a Laplace distribution around what is decoded from z, with the scale measured on training data. For data
with levels it is the probability of each number's bin, the outermost bins reaching to infinity; so these probabilities
add up to one, and the bound is on the probability of x.
"""

import math

import torch
from torch import Tensor

from ornstein.core.codec import AT_ONCE
from ornstein.data import Coded, Transform
from ornstein.errors import InputError


def loses(transform: Transform | None) -> bool:
    """Whether a transform goes to the latents of a lossy codec."""
    return isinstance(transform, Coded) and transform.own.spread != 0


def drawn_latents(transform: Coded, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """Latents of x (B, *shape) in the data's own units, from standard normal `eps`; and log p(x given z)/q(z given x).

    Raises:
        InputError: the codec gives latents without any spread, or its spread was not measured.
    """
    codec, told = transform.own, transform.base.forward(x)
    if codec.spread is None:
        raise InputError("likelihoods through this codec need its spread, which was not measured.")
    codes = [codec.tell(part) for part in told.split(AT_ONCE)]
    mean, std = (torch.cat([getattr(code, name) for code in codes]).to(eps) for name in ("mean", "std"))
    if not bool((std > 0).all()):
        raise InputError(
            "this codec says one latent for each sample, as one with a codebook does: there is no law of latents, and "
            "no bound through it; train a codec with net.codebook=0."
        )
    z = mean + std * eps
    back = torch.cat([codec.read(part) for part in z.split(AT_ONCE)]).to(told)
    log_q = -0.5 * eps.square() - std.log() - 0.5 * math.log(2 * math.pi)
    return z, _log_laplace(transform.base, x, told, back, codec.spread) - log_q.flatten(1).sum(1)


def _log_laplace(base: Transform, x: Tensor, told: Tensor, back: Tensor, scale: float) -> Tensor:
    """log p(x given z) in the data's own units, (B,); told, back: x and what is read back, in model space."""
    away = (told - back) / scale
    if base.levels is None:
        density = (-away.abs() - math.log(2 * scale)).flatten(1).sum(1)
        return density + base.log_abs_det(x)
    levels, half = base.levels, 0.5 * base.levels.bin_width / scale
    # by symmetry the bin's middle may lie at or above the centre: |away|
    middle = away.abs()
    low, high = middle - half, middle + half
    first, last = x <= levels.low, x >= levels.low + levels.count - 1
    outward = torch.where(away > 0, last, first)  # the bin reaches to infinity on the side where it lies
    inward = torch.where(away > 0, first, last)
    high = torch.where(outward, math.inf, high)
    low = torch.where(inward, -math.inf, low)
    beyond = torch.log1p(-torch.exp(low.clamp(min=0) - high)) - low.clamp(min=0) - math.log(2)
    around = torch.log1p(-0.5 * torch.exp(low.clamp(max=0)) - 0.5 * torch.exp(-high))
    return torch.where(low >= 0, beyond, around).flatten(1).sum(1)
