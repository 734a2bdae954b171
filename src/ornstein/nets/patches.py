"""A discriminator of patches: it says of each neighbourhood of a grid whether it looks real.

    x -> conv, stride 2 - leaky - conv, stride 2 - norm - leaky - conv -> a score for each place of a coarser grid

A judge of whole pictures may look at what they show; a judge of patches alone can only say whether edges and textures
look real, which is what a mean error leaves out (PatchGAN: Isola et al. 2017, arXiv:1611.07004).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import must_be_whole

from .contract import NetConfig, Part, Shape
from .norm import groups_of
from .unet import CONV


@dataclass(frozen=True)
class Patches(NetConfig):
    """x (B, C, *space) -> scores (B, places), higher where a patch with sides of 18 positions looks real.

    Args:
        width: channels of the first level; the second has twice as many.
    """

    width: int = 32

    def __post_init__(self) -> None:
        must_be_whole("width", self.width, 1, 4096)

    def _module(self, shape: Shape, conditions: Mapping[str, Part], out_multiple: int) -> nn.Module:
        return _Judge(shape, self.width)


class _Judge(nn.Module):
    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        conv = CONV[len(shape) - 1]
        self.first = conv(shape[0], width, 4, stride=2, padding=2)
        self.second = conv(width, 2 * width, 4, stride=2, padding=2)
        self.norm = nn.GroupNorm(groups_of(2 * width), 2 * width)
        self.out = conv(2 * width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.first(x), 0.2)
        h = F.leaky_relu(self.norm(self.second(h)), 0.2)
        scores: Tensor = self.out(h).flatten(1)
        return scores
