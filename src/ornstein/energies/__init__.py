"""Energy-based models: densities known up to a constant, p = exp(-E)/Z.

`EnergyDenoiser` is a network E(x, t) as a denoiser, so that every objective, stepper and guidance works on it; `Moves`
are Markov chains on an energy; `log_partition` is the constant, with an interval; `LOSSES` learn an energy other than
by its score. An energy is a bare function, (B, *shape) -> (B,), in nats.
"""

from collections.abc import Callable
from typing import Any

from ornstein.energies.denoiser import EnergyDenoiser, energy_denoiser
from ornstein.energies.learning import MaximumLikelihood, NoiseContrastive, RecoveryLangevin, RecoveryLikelihood
from ornstein.energies.moves import Energy, Moves
from ornstein.energies.partition import Partition, log_partition

__all__ = [
    "LOSSES", "Energy", "EnergyDenoiser", "MaximumLikelihood", "Moves", "NoiseContrastive", "Partition",
    "RecoveryLangevin", "RecoveryLikelihood", "energy_denoiser", "log_partition",
]  # fmt: skip

LOSSES: dict[str, Callable[..., Any]] = {
    "maximum-likelihood": MaximumLikelihood,
    "noise-contrastive": NoiseContrastive,
    "recovery": RecoveryLikelihood,
}
