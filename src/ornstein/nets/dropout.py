"""Dropout that draws four decisions from one random number.

Each unit is dropped with probability p in training, and the others are divided by 1 - p (Srivastava et al. 2014). On a
CPU torch draws a random number for every unit, one after the other, which takes as long as a matrix product of a small
network. Sixteen bits decide as well, so here a number of 64 bits decides for four units: p is a multiple of 2^-16.

Some rows of a batch are in less danger of being learnt by heart than others: see `ornstein.discrete.waves`. So whoever
calls a network may say, row by row, which share of p its layers are to use.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: what sixteen bits tell apart
_STEPS = 2**16


class Dropout(nn.Module):
    """A layer of a network that drops units in training; see `dropout`.

    Attributes:
        share: (B,) in [0, 1], by which p is multiplied in each row of the next batch; None for all of p.
    """

    share: Tensor | None = None

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, h: Tensor) -> Tensor:
        return dropout(h, self.p, self.training, self.share)


def dropout(h: Tensor, p: float, training: bool, share: Tensor | None = None) -> Tensor:
    """h, each entry zero with probability p, in [0, 1), or divided by 1 - p; h itself outside of training.

    Decisions come from torch's global generator of h's device.

    Args:
        share: (B,) in [0, 1], by which p is multiplied in each row of h (B, ...).
    """
    if not training or not p:
        return h
    if share is not None:
        share = share.reshape(-1, *[1] * (h.dim() - 1))
    if h.device.type != "cpu" or torch.compiler.is_compiling():  # one kernel does it all there
        if share is None:
            return F.dropout(h, p)
        return h * ((torch.rand_like(h, dtype=torch.float32) >= p * share) / (1 - p * share)).to(h.dtype)
    numbers = torch.empty(-(-h.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    decisions = numbers.view(torch.int16)[: h.numel()].view(h.shape)
    if share is None:
        dropped = min(round(p * _STEPS), _STEPS - 1)
        return h * ((decisions >= dropped - _STEPS // 2) * (_STEPS / (_STEPS - dropped))).to(h.dtype)
    each = (p * _STEPS * share).round().clamp(max=_STEPS - 1)
    return h * ((decisions >= (each - _STEPS // 2).to(torch.int16)) * (_STEPS / (_STEPS - each))).to(h.dtype)
