"""A convolutional autoencoder: from a grid to a coarser one with a few channels, and back.

    x -> stem - blocks - halve - blocks - out -> mean, log variance     z -> stem - blocks - double - blocks - out -> x

(Kingma & Welling 2014, arXiv:1312.6114; for latents that a diffusion model is trained on, Rombach et al. 2022,
arXiv:2112.10752.) A block is h + conv(silu(norm(conv(silu(norm(h)))))), whose last convolution starts at zero. The
finest level works on squares of 2^d positions, whose values are stacked as channels, as in `ornstein.nets.unet`; finer
detail is left to the first and the last convolution. Halving is a convolution of stride 2 (n becomes ceil(n / 2));
doubling repeats each value and cuts to the size before halving, so every size passes through.

With a `codebook` the latent at each place is one of a fixed number of vectors (van den Oord et al. 2017,
arXiv:1711.00937): the encoder outputs a vector, and the decoder is given the nearest one in the book.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import InputError, must_be_whole

from .contract import NetConfig, Part, Shape
from .norm import group_norm, groups_of
from .unet import CONV, _into_channels, _out_of_channels

#: a log variance beyond these limits has no use, and its exponential can overflow
_LEAST, _MOST = -20.0, 10.0


@dataclass(frozen=True)
class Autoencoder(NetConfig):
    """Convolutional encoder and decoder, for signals, images and volumes.

    Args:
        factor: how many times shorter each side of the latent is: a power of two.
        latent: channels of the latent.
        channels: of the finest level; each level of half the sides has twice as many, up to four times.
        blocks: residual blocks of each level, on the way down and again on the way up.
        codebook: the number of vectors that a place of the latent can take; 0 for any vector.
    """

    factor: int = 4
    latent: int = 4
    channels: int = 32
    blocks: int = 1
    codebook: int = 0

    def __post_init__(self) -> None:
        for field in ("latent", "channels", "blocks"):
            must_be_whole(field, getattr(self, field), 1, 4096)
        must_be_whole("factor", self.factor, 2, 64)
        must_be_whole("codebook", self.codebook, 0, 2**16)
        if self.factor & (self.factor - 1):
            raise InputError(f"factor={self.factor!r} must be a power of two, such as 2, 4 or 8.")
        if self.codebook == 1:
            raise InputError("codebook=1 has one vector, which carries no information; take 2 or more, or 0 for none.")

    def _module(self, shape: Shape, conditions: Mapping[str, Part], out_multiple: int) -> nn.Module:
        if len(shape) - 1 not in CONV:
            raise InputError(
                f"shape={shape} has no positions: an autoencoder takes signals (C, L), images (C, H, W) or volumes."
            )
        if conditions or out_multiple != 1:
            raise InputError("an autoencoder takes nothing but x, and returns as many channels.")
        return AutoencoderModule(self, shape)


class _Block(nn.Module):
    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        conv = CONV[dims]
        self.norms = nn.ModuleList(nn.GroupNorm(groups_of(width), width) for _ in range(2))
        self.convs = nn.ModuleList(conv(width, width, 3, padding=1) for _ in range(2))
        with torch.no_grad():
            self.convs[1].weight.zero_()  # type: ignore[operator]
            self.convs[1].bias.zero_()  # type: ignore[operator]

    def forward(self, h: Tensor) -> Tensor:
        found = h
        for norm, conv in zip(self.norms, self.convs, strict=True):
            found = conv(group_norm(found, norm.weight, norm.bias, silu=True))  # type: ignore[arg-type]
        return h + found


class AutoencoderModule(nn.Module):
    """`encode`, `decode`, and both in sequence.

    Attributes:
        shape, latent: the shapes of a sample and of its latent.
        book: (codebook, channels of the latent), or None.
        judge: what says of patches whether they are real, while it is taught beside a judge; else None.
    """

    def __init__(self, config: Autoencoder, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        dims, levels = len(shape) - 1, config.factor.bit_length() - 1
        conv, cells = CONV[dims], 2**dims
        widths = [config.channels * min(2**level, 4) for level in range(levels)]
        #: sides of each level, finest first
        self.sides = [tuple(math.ceil(n / 2 ** (level + 1)) for n in shape[1:]) for level in range(levels)]
        self.latent = (config.latent, *self.sides[-1])
        coarse = widths[-1]

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(nn.Sequential(*(_Block(dims, w) for _ in range(config.blocks))) for w in widths)

        pairs = list(pairwise(widths))
        self.stem = conv(shape[0] * cells, widths[0], 3, padding=1)
        self.down, self.up = blocks(), blocks()
        self.coarser = nn.ModuleList(conv(fine, wide, 3, stride=2, padding=1) for fine, wide in pairs)
        self.finer = nn.ModuleList(conv(wide, fine, 3, padding=1) for fine, wide in pairs)
        self.told = conv(coarse, config.latent * (1 if config.codebook else 2), 1)
        self.read = conv(config.latent, coarse, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(groups_of(w), w) for w in (coarse, widths[0]))
        self.out = conv(widths[0], shape[0] * cells, 3, padding=1)
        self.judge: nn.Module | None = None
        self.book: nn.Parameter | None = None
        if config.codebook:
            self.book = nn.Parameter(torch.randn(config.codebook, config.latent))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (B, *shape) -> mean and log variance of its latent, (B, *latent); with a book the second is None."""
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(f"x has shape {tuple(x.shape)} but this autoencoder was built for (B, *{self.shape}).")
        h = self.stem(_into_channels(x, 2))
        for level, blocks in enumerate(self.down):
            h = blocks(self.coarser[level - 1](h) if level else h)
        h = self.told(_normed(h, self.norms[0]))
        if self.book is not None:
            return h, None
        mean, log_var = h.chunk(2, dim=1)
        return mean, log_var.clamp(_LEAST, _MOST)

    def decode(self, z: Tensor) -> Tensor:
        """z (B, *latent), used as it is, without the book -> (B, *shape)."""
        h = self.read(z)
        for level in reversed(range(len(self.up))):
            h = self.up[level](h)
            if level:
                h = self.finer[level - 1](F.interpolate(h, size=self.sides[level - 1], mode="nearest"))
        return _out_of_channels(self.out(_normed(h, self.norms[1])), 2, torch.Size(self.shape[1:]))

    def nearest(self, z: Tensor) -> Tensor:
        """The vector of the book that is nearest at each place, (B, *latent); z itself without a book."""
        if self.book is None:
            return z
        flat = z.movedim(1, -1)
        with torch.no_grad():  # |z - e|^2 without |z|^2, which is the same for all e
            apart = self.book.square().sum(1) - 2 * flat.to(self.book.dtype) @ self.book.T
        return self.book[apart.argmin(-1)].movedim(-1, 1)

    def forward(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What training needs: x reconstructed from a latent drawn with the standard normal `eps` (B, *latent).

        Returns:
            x as decoded; the mean of the latent; and the log of its variance, or with a codebook the vector of the book
            that replaced it, through which gradients reach the encoder as if it had output that vector itself.
        """
        mean, log_var = self.encode(x)
        if log_var is None:
            chosen = self.nearest(mean)
            return self.decode(mean + (chosen - mean).detach()), mean, chosen
        return self.decode(mean + (0.5 * log_var).exp() * eps), mean, log_var


def _normed(h: Tensor, norm: nn.Module) -> Tensor:
    return group_norm(h, norm.weight, norm.bias, silu=True)  # type: ignore[arg-type]
