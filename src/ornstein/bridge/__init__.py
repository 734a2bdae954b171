"""Bridges between two data sets: paths, couplings, models of what lies between, and how they are learned and walked.

`PATHS` names the paths that join a pair of ends, `COUPLINGS` the ways to choose the pairs, and `BRIDGE_STEPPERS` the
ways to walk a bridge.
"""

from collections.abc import Callable

from ornstein.bridge.coupling import Coupling, Entropic, Independent, Optimal, Paired, sinkhorn
from ornstein.bridge.drive import BRIDGE_STEPPERS, Ancestral, BridgeStepper, Heun, crossing, path_energy, translate
from ornstein.bridge.gaussian import GaussianBridge, GaussianCoupling
from ornstein.bridge.learner import Bridging
from ornstein.bridge.matching import BridgeMatching, Turn, markovian_fitting
from ornstein.bridge.model import Bridge, FunctionBridge, Guess, NetBridge
from ornstein.bridge.path import Ends, Path, Stage
from ornstein.bridge.paths import Brownian, Held, Linear, Trigonometric
from ornstein.bridge.reversal import Half, held_diffusion, proportional_fitting
from ornstein.bridge.teaching import BRIDGE_OBJECTIVES, Fitting, Matching

PATHS: dict[str, Callable[..., Path]] = {
    "linear": Linear,
    "brownian": Brownian,
    "quarter-circle": Trigonometric,
    "held": Held,
}
COUPLINGS: dict[str, Callable[..., Coupling]] = {
    "paired": Paired,
    "independent": Independent,
    "optimal": Optimal,
    "entropic": Entropic,
}

__all__ = [
    "BRIDGE_OBJECTIVES",
    "BRIDGE_STEPPERS",
    "COUPLINGS",
    "PATHS",
    "Ancestral",
    "Bridge",
    "BridgeMatching",
    "BridgeStepper",
    "Bridging",
    "Brownian",
    "Coupling",
    "Ends",
    "Entropic",
    "Fitting",
    "FunctionBridge",
    "GaussianBridge",
    "GaussianCoupling",
    "Guess",
    "Half",
    "Held",
    "Heun",
    "Independent",
    "Linear",
    "Matching",
    "NetBridge",
    "Optimal",
    "Paired",
    "Path",
    "Stage",
    "Trigonometric",
    "Turn",
    "crossing",
    "held_diffusion",
    "markovian_fitting",
    "path_energy",
    "proportional_fitting",
    "sinkhorn",
    "translate",
]
