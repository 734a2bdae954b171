"""Diffusion over categories: tokens that are masked, and models that tell what they were.

`KERNELS` names how categories dissolve. Of a table's columns, which are masked: `UNMASKERS` names how they are drawn,
`MASKED_OBJECTIVES` what teaches a model of them. Of tokens of one size, by any kernel: `TOKEN_STEPPERS`,
`TOKEN_OBJECTIVES`, and `TOKEN_READINGS`, what a network may say of them.
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
