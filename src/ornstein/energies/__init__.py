"""Energy-based models: densities known up to a constant, p = exp(-E)/Z.

`EnergyDenoiser` is a network E(x, t) as a denoiser, so that every objective, stepper and guidance works with it;
`Moves` are Markov chains on an energy; `log_partition` estimates the constant, with an interval; `ENERGY_OBJECTIVES`
learn an energy other than by its score. An energy is a plain function, (B, *shape) -> (B,), in nats.
"""

from collections.abc import Callable

from torch import Tensor

from ornstein.energies import levels
from ornstein.energies.denoiser import EnergyDenoiser, energy_denoiser
from ornstein.energies.learning import MaximumLikelihood, NoiseContrastive, RecoveryLikelihood
from ornstein.energies.moves import Energy, Moves
from ornstein.energies.partition import Partition, log_partition

__all__ = [
    "ENERGY_OBJECTIVES", "Energy", "EnergyDenoiser", "MaximumLikelihood", "Moves", "NoiseContrastive", "Partition",
    "RecoveryLikelihood", "energy_denoiser", "log_partition",
]  # fmt: skip

#: objectives that learn an `EnergyDenoiser` other than by its score, by name
ENERGY_OBJECTIVES: dict[str, Callable[..., Callable[..., Tensor]]] = {
    "recovery": levels.recovery,
    "maximum-likelihood": levels.maximum_likelihood,
    "noise-contrastive": levels.noise_contrastive,
}
