"""The noise level and the condition, as one vector for each sample.

The level u = ln(noise / signal), divided by 4 (Karras et al. 2022, arXiv:2206.00364, table 1), is read by cosines and
sines. Fourier features sqrt(2) cos(2 pi f u / 4 + phase) with f from N(0, 1) span a Gaussian kernel in u (Rahimi &
Recht 2007; Tancik et al. 2020, arXiv:2006.10739), here of width 4 / (2 pi) = 0.64 nat. In one dimension nothing is
gained by drawing f at random: the quantiles Phi^-1(1/2 + (k + 1/2) / 2n) cover the half-normal evenly, in every run.

Class labels are rows of a table whose row 0 means "no label"; features enter through a linear map, or as a learned
vector where they are missing. So one network serves with and without condition, as classifier-free guidance needs
(Ho & Salimans 2022, arXiv:2207.12598).
"""

import math
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import InputError

WAVES = 32  # frequencies, each as cosine and sine


class Embedding(nn.Module):
    """(noise_level (B,), cond) -> (B, width), already passed through SiLU.

    Args:
        width: of the result.
        classes: number of labels, or 0. Labels are int64 in [-1, classes). One outside is refused by the table
            itself: an IndexError on a CPU, a device-side assertion on CUDA, where looking first would stall the stream.
        features: length of the conditioning vector, or 0.
    """

    frequency: Tensor
    phase: Tensor

    def __init__(self, width: int, classes: int, features: int) -> None:
        super().__init__()
        quantiles = [NormalDist().inv_cdf(0.5 + (k + 0.5) / (2 * WAVES)) for k in range(WAVES)]
        self.register_buffer("frequency", torch.tensor(2 * quantiles) * (2 * math.pi / 4), persistent=False)
        self.register_buffer("phase", torch.tensor([0.0] * WAVES + [-math.pi / 2] * WAVES), persistent=False)
        self.classes = classes
        self.features = features
        self.noise = nn.Linear(2 * WAVES, width)
        if classes:
            self.label = nn.Embedding(classes + 1, width)
        if features:
            self.feature = nn.Linear(features, width)
            self.missing = nn.Parameter(torch.zeros(width))
        self.mix = nn.Linear(width, width)

    def forward(self, noise_level: Tensor, cond: Tensor | None) -> Tensor:
        level = noise_level.to(self.frequency.dtype).unsqueeze(1)
        waves = torch.addcmul(self.phase, level, self.frequency).cos() * math.sqrt(2)
        h = self.noise(waves)
        if self.classes or self.features or cond is not None:
            h = h + self._condition(cond, noise_level.shape[0])
        return F.silu(self.mix(F.silu(h)))

    def _condition(self, cond: Tensor | None, batch: int) -> Tensor:
        if self.classes:
            if cond is None:
                return self.label.weight[:1]
            if cond.dtype != torch.int64 or cond.dim() != 1 or cond.shape[0] != batch:
                raise InputError(
                    f"cond is {cond.dtype} {tuple(cond.shape)} but must be int64 labels of shape ({batch},)."
                )
            return self.label(cond + 1)
        if self.features:
            if cond is None:
                return self.missing
            table = cond.dim() == 2 and cond.shape[0] == batch and cond.shape[1] == self.features
            if not table or not cond.is_floating_point():
                raise InputError(
                    f"cond is {cond.dtype} {tuple(cond.shape)} but must be floats of shape ({batch}, {self.features})."
                )
            missing = cond.isnan().any(dim=1, keepdim=True)
            return torch.where(missing, self.missing, self.feature(cond.masked_fill(missing, 0.0)))
        raise InputError("cond was given but this network was built without classes and features; pass cond=None.")
