"""Pictures and their conditions as unit vectors, which are close for a picture and a condition that belong together.

Two networks, one of pictures and one of conditions, end in vectors of length 1. They are trained on which picture of a
batch goes with which condition (`ornstein.mixed.embedding`; Radford et al. 2021, arXiv:2103.00020). So a picture's
vector holds what a condition could have said, its subject and its colours, and forgets where each pixel lies.

    x -> (conv - norm - silu - halve) until a side is below 4 -> linear -> picture
    condition -> the embedding that networks get of it (`ornstein.nets.embedding`) -> linear -> words
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import InputError, must_be_whole

from .contract import NetConfig, Part, Picture, Shape, require_fraction
from .dropout import dropout
from .embedding import Embedding
from .norm import group_norm, groups_of
from .unet import CONV, MEAN


@dataclass(frozen=True)
class Matcher(NetConfig):
    """Convolutions for signals, images or volumes beside a network of conditions, both ending in a unit vector.

    Args:
        size: length of the vectors.
        channels: of the finest level; each level of half the sides has twice as many, up to four times.
        dropout: share of the last features that is left out in training.
    """

    size: int = 64
    channels: int = 32
    dropout: float = 0.3

    def __post_init__(self) -> None:
        for field in ("size", "channels"):
            must_be_whole(field, getattr(self, field), 2, 4096)
        require_fraction("dropout", self.dropout)

    def _module(self, shape: Shape, conditions: Mapping[str, Part], out_multiple: int) -> nn.Module:
        if len(shape) - 1 not in CONV:
            raise InputError(f"shape={shape} must be (C, L), (C, H, W) or (C, D, H, W) to be matched with a condition.")
        if out_multiple != 1 or all(isinstance(part, Picture) for part in conditions.values()):
            raise InputError("a matcher needs labels, numbers, vectors or texts that pictures are matched with.")
        return MatcherModule(self, shape, conditions)


class MatcherModule(nn.Module):
    """(x, condition) -> both vectors; that of x alone without a condition."""

    def __init__(self, config: Matcher, shape: Shape, conditions: Mapping[str, Part]) -> None:
        super().__init__()
        dims, self.dropout = len(shape) - 1, config.dropout
        self.shape, space = shape, list(shape[1:])
        widths: list[int] = []
        while not widths or min(space) >= 4:
            widths.append(config.channels * min(2 ** len(widths), 4))
            space = [side // 2 if min(shape[1:]) > 1 else side for side in space]
        self.halves = min(shape[1:]) > 1
        self.convs = nn.ModuleList(
            CONV[dims](inp, out, 3, padding=1) for inp, out in zip([shape[0], *widths], widths, strict=False)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(groups_of(width), width) for width in widths)
        self.picture = nn.Linear(widths[-1] * torch.Size(space).numel(), config.size)
        self.told = Embedding(2 * config.size, conditions)
        self.words = nn.Linear(2 * config.size, config.size)
        #: log of how sharply pairs are told apart; a vector with one entry, as a scalar cannot be sharded
        self.sharpness = nn.Parameter(torch.tensor([2.3]))

    def forward(self, x: Tensor, condition: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor | None, Tensor]:
        """Unit vectors (B, size) of x (B, *shape); those of the condition, or None; and e^sharpness, at most 100.

        Without a condition there is no dropout.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(f"x has shape {tuple(x.shape)} but this matcher was built for (B, *{self.shape}).")
        h = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = group_norm(conv(h), norm.weight, norm.bias, silu=True)  # type: ignore[arg-type]
            h = MEAN[x.dim() - 2](h, 2) if self.halves else h
        h = dropout(h.flatten(1), self.dropout, self.training and condition is not None)
        seen, sharpness = F.normalize(self.picture(h).float(), dim=1), self.sharpness.clamp(max=4.6).exp()
        if condition is None:
            return seen, None, sharpness
        said = self.words(self.told(x.new_zeros(len(x)), condition))
        return seen, F.normalize(said.float(), dim=1), sharpness
