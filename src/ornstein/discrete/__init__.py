"""Diffusion over categories: tokens that are masked, and models that tell what they were.

`KERNELS` names how categories dissolve, `UNMASKERS` how they are drawn, `MASKED_OBJECTIVES` what teaches a model of
them.
"""

from ornstein.discrete.denoiser import JointTable, MaskedDenoiser, MaskedNet
from ornstein.discrete.drive import Unmasker, bound, constrained, unmask
from ornstein.discrete.kernels import KERNELS, Absorbing
from ornstein.discrete.learner import MASKED_OBJECTIVES, UNMASKERS, MaskedColumns
from ornstein.discrete.objective import MaskedCrossEntropy
from ornstein.discrete.steppers import AnyOrder

__all__ = [
    "KERNELS",
    "MASKED_OBJECTIVES",
    "UNMASKERS",
    "Absorbing",
    "AnyOrder",
    "JointTable",
    "MaskedColumns",
    "MaskedCrossEntropy",
    "MaskedDenoiser",
    "MaskedNet",
    "Unmasker",
    "bound",
    "constrained",
    "unmask",
]
