"""Guidance: a denoiser made from a denoiser, so that it draws what is wanted. `GUIDANCE` names the methods.

Every entry takes the denoiser to guide first, and composes with every stepper and with other guidance. Its other
arguments have the same names everywhere: `measurement` (y = A x_0 + noise), `classifier`, `weaker` (a denoiser),
`log_likelihood` (a function), `scale`. `RePaint` is a stepper around a stepper.
"""

from collections.abc import Callable

from ornstein.guidance.classifier import ClassifierGuidance, NoisyClassifier, NoisyCrossEntropy
from ornstein.guidance.contract import Guidance
from ornstein.guidance.gradient import LikelihoodGuidance
from ornstein.guidance.inverse import DPS, Measurement, MomentMatching, PiGDM, Replacement
from ornstein.guidance.mixing import Autoguidance, ClassifierFree
from ornstein.guidance.operators import OPERATORS, Blur, Downsample, Function, Mask, Matrix, Operator, ReadBack
from ornstein.guidance.posterior import exact_posterior
from ornstein.guidance.repaint import RePaint

GUIDANCE: dict[str, Callable[..., Guidance]] = {
    "classifier-free": ClassifierFree,
    "autoguidance": Autoguidance,
    "classifier": ClassifierGuidance,
    "likelihood": LikelihoodGuidance,
    "replacement": Replacement,
    "dps": DPS,
    "pigdm": PiGDM,
    "moment-matching": MomentMatching,
}

__all__ = [
    "DPS", "GUIDANCE", "OPERATORS", "Autoguidance", "Blur", "ClassifierFree", "ClassifierGuidance", "Downsample",
    "Function", "Guidance", "LikelihoodGuidance", "Mask", "Matrix", "Measurement", "MomentMatching",
    "NoisyClassifier", "NoisyCrossEntropy", "Operator", "PiGDM", "RePaint", "ReadBack", "Replacement",
    "exact_posterior",
]  # fmt: skip
