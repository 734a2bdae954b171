"""Group normalisation whose scale and shift come from a condition.

    y = scale * (x - mean_g) / sqrt(var_g + 1e-5) + shift

with mean and variance over one sample's positions and the channels of one group g (Wu & He 2018, arXiv:1803.08494), and
scale and shift per sample and channel (Perez et al. 2017, arXiv:1709.07871; Dhariwal & Nichol 2021, arXiv:2105.05233).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def groups_of(channels: int) -> int:
    """A number of groups that divides `channels`: at most 32, with at least four channels in each if there are four."""
    return math.gcd(channels, min(32, max(1, channels // 4)))


def adaptive_group_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Group norm of x (B, C, *space) with scale and shift of shape (B, C).

    The samples are laid side by side as if they were channels of one, so that the affine map of the fused operation
    is each sample's own: half the time of normalising first and modulating after. A compiler fuses the plain form by
    itself, and would take the number of groups, here a multiple of the batch, for a constant.
    """
    batch, channels = x.shape[:2]
    if torch.compiler.is_compiling():
        space = (..., *[None] * (x.dim() - 2))
        return F.group_norm(x, groups_of(channels)) * scale[space] + shift[space]
    row = x.reshape(1, batch * channels, *x.shape[2:])
    normed = F.group_norm(row, batch * groups_of(channels), scale.reshape(-1), shift.reshape(-1))
    return normed.reshape(x.shape)
