"""Objectives: `(denoiser, x0, condition, generator) -> loss per sample, shape (B,)`. `OBJECTIVES` names the presets."""

from collections.abc import Callable

from torch import Generator, Tensor

from ornstein.core.condition import Given
from ornstein.core.denoiser import Denoiser
from ornstein.objectives import continuous, regression, score_matching, variational

#: what training minimises: (denoiser, x0 (B, ...), condition, generator) -> (B,)
Objective = Callable[[Denoiser, Tensor, Given, Generator], Tensor]

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "ddpm": regression.ddpm,
    "score": regression.score,
    "v": regression.v,
    "edm": regression.edm,
    "flow": regression.flow,
    "min-snr": regression.min_snr,
    "bound": variational.bound,
    "hybrid": variational.hybrid,
    "likelihood": continuous.likelihood_weighted,
    "implicit": score_matching.implicit,
    "sliced": score_matching.sliced,
    "denoising": score_matching.denoising,
}
