"""Diffusion over categories: tokens that are masked or otherwise dissolved, and models that restore them.

`KERNELS` names how categories dissolve. For a table's columns, which are masked, `UNMASKERS` names how they are drawn
and `MASKED_OBJECTIVES` what trains a model of them. For tokens with equal numbers of classes, under any kernel, these
are `TOKEN_STEPPERS` and `TOKEN_OBJECTIVES`; `TOKEN_READINGS` names what the output of a network may mean.
"""

from ornstein.discrete.bounds import TOKEN_OBJECTIVES, Measured, TokenObjective, measured
from ornstein.discrete.classes import TokenClasses
from ornstein.discrete.denoiser import JointTable, MaskedDenoiser, MaskedNet
from ornstein.discrete.drawing import TokenStepper, draw_tokens
from ornstein.discrete.drive import Unmasker, bound, constrained, unmask
from ornstein.discrete.guided import Tilted, TiltedByClassifier, TokenClassifier
from ornstein.discrete.jumps import TOKEN_STEPPERS
from ornstein.discrete.kernels import Absorbing, Kernel
from ornstein.discrete.learner import MASKED_OBJECTIVES, UNMASKERS, MaskedColumns
from ornstein.discrete.objective import MaskedCrossEntropy
from ornstein.discrete.reading import CountedNet, TokenReader
from ornstein.discrete.readings import TOKEN_READINGS, TokenReading
from ornstein.discrete.sequences import Read, Sequences
from ornstein.discrete.spectral import KERNELS
from ornstein.discrete.steppers import AnyOrder
from ornstein.discrete.tokens import TokenDenoiser, TokenNet, TokenTable

__all__ = [
    "KERNELS",
    "MASKED_OBJECTIVES",
    "TOKEN_OBJECTIVES",
    "TOKEN_READINGS",
    "TOKEN_STEPPERS",
    "UNMASKERS",
    "Absorbing",
    "AnyOrder",
    "CountedNet",
    "JointTable",
    "Kernel",
    "MaskedColumns",
    "MaskedCrossEntropy",
    "MaskedDenoiser",
    "MaskedNet",
    "Measured",
    "Read",
    "Sequences",
    "Tilted",
    "TiltedByClassifier",
    "TokenClasses",
    "TokenClassifier",
    "TokenDenoiser",
    "TokenNet",
    "TokenObjective",
    "TokenReader",
    "TokenReading",
    "TokenStepper",
    "TokenTable",
    "Unmasker",
    "bound",
    "constrained",
    "draw_tokens",
    "measured",
    "unmask",
]
