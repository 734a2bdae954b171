"""A U-Net on grids of one, two or three dimensions.

    fine   stem - blocks ----------------------------- + - blocks - out
                     \\ halve                           / double
    coarser          blocks ------------- + - blocks --
                        \\ halve          / double
    coarsest              blocks - blocks

(Ronneberger et al. 2015, arXiv:1505.04597; Ho et al. 2020, arXiv:2006.11239.) Each block is

    h <- x + conv(dropout(silu(scale * norm(conv(silu(norm(x)))) + shift)))

with scale and shift from the noise level and the condition (Dhariwal & Nichol 2021, arXiv:2105.05233). On levels with
attention, positions then attend to each other after each block, and to the tokens of texts if there are any. The last
convolution of every branch and of the network starts at zero (Karras et al. 2022, arXiv:2206.00364), so at first the
branches add nothing. Dropout drops whole channels (Tompson et al. 2015, arXiv:1411.4280): single dropped values could
be inferred from neighbouring positions, and one random number for each channel costs next to nothing.

Halving takes the mean of 2^d neighbours, at the edge of an odd side the mean of those that exist (n becomes
ceil(n / 2)); doubling repeats each value and cuts to the size before halving, so every size from 1 up passes through.
On the way up the kept features are *added*, as in a stacked hourglass (Newell et al. 2016, arXiv:1603.06937), so a
block costs the same on both sides.

With `patch` p the finest level works on squares of p^d positions, which are moved into the channels before the stem and
out of them after the last convolution (pixel shuffle: Shi et al. 2016, arXiv:1609.05158; for diffusion Hoogeboom et al.
2023, arXiv:2301.11093). A level of half the sides costs a quarter for as many weights, and wide layers run efficiently.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import InputError, must_be_whole

from .attention import CrossAttention, Keys, SelfAttention, heads_of
from .contract import MOST_LAYERS, NOTHING, NetConfig, Part, Shape, check_input, require_fraction
from .embedding import Beside, Embedding
from .norm import group_norm, groups_of

CONV: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class UNet(NetConfig):
    """U-Net with adaptive group norm and attention on its coarse levels, for signals, images and volumes of any size.

    Args:
        channels: of the finest level.
        multipliers: channels of each level as a multiple of `channels`, finest first; each level has half the sides of
            the one before.
        blocks: residual blocks of a level on the way down, and again on the way up.
        attention: side lengths; a level has attention if its longest side, for the shape that the net is built for, is
            at most the largest of them. `()` means nowhere.
        patch: side of the squares that the finest level works on; sides are padded with zeros to a multiple of it.
        dropout: probability that a channel is dropped inside a block in training, in [0, 1).
        heads_width: least number of channels of an attention head.
        embedding: width of the vector that carries noise level and condition.
    """

    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (8,)
    patch: int = 1
    dropout: float = 0.0
    heads_width: int = 64
    embedding: int = 256

    def __post_init__(self) -> None:
        for field in ("channels", "blocks", "patch", "heads_width", "embedding"):
            must_be_whole(field, getattr(self, field), 1)
        for field in ("multipliers", "attention"):
            value = getattr(self, field)
            if not isinstance(value, tuple | list):
                raise InputError(f"{field}={value!r} must be a tuple of whole numbers.")
            for entry in value:
                must_be_whole(f"each entry of {field}", entry, 1)
            object.__setattr__(self, field, tuple(value))  # a list, as files hold it, would not be hashable
        if not self.multipliers:
            raise InputError("multipliers=() must have one entry for each level, at least one.")
        must_be_whole("blocks * len(multipliers)", self.blocks * len(self.multipliers), 1, MOST_LAYERS)
        require_fraction("dropout", self.dropout)

    def _module(self, shape: Shape, conditions: Mapping[str, Part], out_multiple: int) -> nn.Module:
        if len(shape) - 1 not in CONV:
            raise InputError(
                f"shape={shape} must be (C, L), (C, H, W) or (C, D, H, W) for a U-Net; for vectors take the net 'mlp'."
            )
        return _UNetModule(self, shape, Embedding(self.embedding, conditions), Beside(conditions), out_multiple)


UNET_SIZES: dict[str, UNet] = {
    "tiny": UNet(channels=48, multipliers=(1, 2), blocks=1, attention=(), dropout=0.2, embedding=128),
    "small": UNet(channels=32, multipliers=(1, 2, 4), blocks=1, attention=()),
    "base": UNet(channels=64, multipliers=(1, 2, 3), blocks=2, attention=(8,), dropout=0.1),
}
"""Sizes chosen by measurement: "tiny" for 8x8 digits, "small" for 28x28 grey images, "base" for 32x32 colour images."""


class _Block(nn.Module):
    def __init__(self, dims: int, inp: int, out: int, config: UNet, attends: bool, reads: bool) -> None:
        super().__init__()
        conv = CONV[dims]
        self.norm = nn.GroupNorm(groups_of(inp), inp)
        self.first = conv(inp, out, 3, padding=1)
        self.modulation = nn.Linear(config.embedding, 2 * out)
        self.second = conv(out, out, 3, padding=1)
        self.skip = nn.Identity() if inp == out else conv(inp, out, 1)
        self.attention = SelfAttention(out, config.heads_width) if attends else nn.Identity()
        self.text = _Reading(out, config) if attends and reads else None
        self.dropout = config.dropout
        with torch.no_grad():
            self.modulation.bias[:out] = 1.0
            self.modulation.bias[out:] = 0.0
            self.second.weight.zero_()
            self.second.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor, embedded: Tensor, keys: Keys | None) -> Tensor:
        scale, shift = self.modulation(embedded).chunk(2, dim=1)
        h = self.first(group_norm(x, self.norm.weight, self.norm.bias, silu=True))
        h = group_norm(h, scale, shift, silu=True)
        if self.dropout and self.training:
            h = torch.feature_dropout(h, self.dropout, True)
        mixed: Tensor = self.attention(self.skip(x) + self.second(h))
        return mixed if self.text is None or keys is None else mixed + self.text(mixed, keys)


class _Reading(nn.Module):
    """Cross-attention of norm(x) (B, C, *space) to a text; at first it is 0."""

    def __init__(self, channels: int, config: UNet) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups_of(channels), channels)
        self.attention = CrossAttention(channels, heads_of(channels, config.heads_width), config.embedding)

    def forward(self, x: Tensor, keys: Keys) -> Tensor:
        positions = group_norm(x, self.norm.weight, self.norm.bias).flatten(2).transpose(1, 2)
        found: Tensor = self.attention(positions, keys)
        return found.transpose(1, 2).reshape(x.shape)


class _UNetModule(nn.Module):
    def __init__(self, config: UNet, shape: Shape, embedding: Embedding, beside: Beside, out_multiple: int) -> None:
        super().__init__()
        self.shape = shape
        self.expected = f"(B, {shape[0]}{', *' * (len(shape) - 1)})"
        dims, conv = len(shape) - 1, CONV[len(shape) - 1]
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        self.patch = config.patch
        cells = config.patch**dims
        side = -(-max(shape[1:]) // config.patch)
        attends = []
        for _ in widths:
            attends.append(side <= max(config.attention, default=0))
            side = (side + 1) // 2

        def blocks(level: int, inp: int) -> nn.ModuleList:
            inputs = [inp] + [widths[level]] * (config.blocks - 1)
            reads = bool(embedding.texts)
            return nn.ModuleList(_Block(dims, i, widths[level], config, attends[level], reads) for i in inputs)

        fine = range(len(widths) - 1)
        self.embedding, self.beside = embedding, beside
        self.stem = conv((shape[0] + beside.channels) * cells, widths[0], 3, padding=1)
        self.down = nn.ModuleList(blocks(level, widths[max(level - 1, 0)]) for level in range(len(widths)))
        self.up = nn.ModuleList(blocks(level, widths[level]) for level in range(len(widths)))
        self.narrow = nn.ModuleList(conv(widths[level + 1], widths[level], 1) for level in fine)
        self.norm = nn.GroupNorm(groups_of(widths[0]), widths[0])
        self.out = conv(widths[0], shape[0] * out_multiple * cells, 3, padding=1)
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] = NOTHING) -> Tensor:
        # Convolutions work at any size, so a trained net may be given a larger grid than it was built for.
        fits = x.dim() == len(self.shape) + 1 and x.shape[1] == self.shape[0]
        check_input(x, noise_level, self.expected, fits)
        embedded, keys = self.embedding(noise_level, condition), self.embedding.keys(x.shape[0], condition)
        # Neighbours in nearly clean data differ by less than eight bits can resolve, so the stem has full precision.
        kind = x.device.type
        with torch.autocast(kind, enabled=False):
            h = self.stem(_into_channels(self.beside(x, condition), self.patch).to(self.stem.weight.dtype))
        if torch.is_autocast_enabled(kind):
            h = h.to(torch.get_autocast_dtype(kind))
        kept: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            if level:
                kept.append(h)
                window = tuple(min(2, size) for size in h.shape[2:])  # a side of 1 cannot be halved
                h = MEAN[x.dim() - 2](h, window, ceil_mode=True, count_include_pad=False)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, embedded, keys)
        for level, blocks in reversed(list(enumerate(self.up))):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, embedded, keys)
            if level:
                # The 1x1 convolution commutes with the repetition, and costs 2^d times less before it.
                skip = kept.pop()
                h = skip + F.interpolate(self.narrow[level - 1](h), size=skip.shape[2:], mode="nearest")
        h = self.out(group_norm(h, self.norm.weight, self.norm.bias, silu=True))
        return _out_of_channels(h, self.patch, x.shape[2:])


def _into_channels(x: Tensor, patch: int) -> Tensor:
    """(B, C, *space) -> (B, C patch^d, *ceil(space / patch)), on planes with the channels innermost in memory."""
    if patch > 1:
        space = x.shape[2:]
        x = F.pad(x, [n for size in reversed(space) for n in (0, -size % patch)])
        split = x.reshape(*x.shape[:2], *[n for size in x.shape[2:] for n in (size // patch, patch)])
        dims = range(len(space))
        x = split.permute(0, 1, *[3 + 2 * d for d in dims], *[2 + 2 * d for d in dims])
        x = x.reshape(x.shape[0], -1, *x.shape[2 + len(space) :])
    # convolutions are fastest in this layout; vmap does not know contiguous(memory_format=...)
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) if x.dim() == 4 else x


def _out_of_channels(h: Tensor, patch: int, space: torch.Size) -> Tensor:
    """(B, C patch^d, *ceil(space / patch)) -> (B, C, *space), the way back."""
    if patch > 1:
        dims = range(len(space))
        split = h.reshape(h.shape[0], -1, *[patch] * len(space), *h.shape[2:])
        order = [n for d in dims for n in (2 + len(space) + d, 2 + d)]
        h = split.permute(0, 1, *order).reshape(*split.shape[:2], *[size * patch for size in h.shape[2:]])
    return h[(slice(None), slice(None), *map(slice, space))].contiguous()
