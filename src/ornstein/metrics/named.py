"""Metrics by their names: the table."""

from collections.abc import Callable

from ornstein.metrics.classifier_test import C2ST
from ornstein.metrics.frechet import Frechet
from ornstein.metrics.kernels import MMD, EnergyDistance, Kernel
from ornstein.metrics.metric import Metric
from ornstein.metrics.neighbours import Coverage, Density, Memorisation, Precision, Recall
from ornstein.metrics.transport import SlicedWasserstein

#: every metric by name
METRICS: dict[str, Callable[..., Metric]] = {
    "sliced-wasserstein": SlicedWasserstein,
    "energy-distance": EnergyDistance,
    "mmd": MMD,
    "frechet": Frechet,
    "kernel": Kernel,
    "c2st": C2ST,
    "precision": Precision,
    "recall": Recall,
    "density": Density,
    "coverage": Coverage,
    "memorisation": Memorisation,
}
