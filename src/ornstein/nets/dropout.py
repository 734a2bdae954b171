"""Dropout that draws four decisions from one random number.

Each unit is dropped with probability p in training, and the others are divided by 1 - p (Srivastava et al. 2014). On a
CPU torch draws a random number for every unit, one after the other, which takes as long as a matrix product of a small
network. Sixteen bits decide as well, so here a number of 64 bits decides for four units: p is a multiple of 2^-16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

#: what sixteen bits tell apart
_STEPS = 2**16


def dropout(h: Tensor, p: float, training: bool) -> Tensor:
    """h, each entry zero with probability p, in [0, 1), or divided by 1 - p; h itself outside of training.

    Decisions come from torch's global generator of h's device.
    """
    if not training or not p:
        return h
    if h.device.type != "cpu" or torch.compiler.is_compiling():  # one kernel does it all there
        return F.dropout(h, p)
    dropped = min(round(p * _STEPS), _STEPS - 1)
    numbers = torch.empty(-(-h.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = numbers.view(torch.int16)[: h.numel()].view(h.shape) >= dropped - _STEPS // 2
    return h * (kept * (_STEPS / (_STEPS - dropped))).to(h.dtype)
