"""Metrics: numbers from two sets of points, each read beside what real data score.

`METRICS` names them; `report` computes them all, with their floors, `table_report` those of tables; `fit_classifier`
gives features and class agreement.
"""

from ornstein.metrics.classifier_test import C2ST
from ornstein.metrics.features import Classifier, class_agreement, fit_classifier
from ornstein.metrics.floor import Report, Score, compare, report
from ornstein.metrics.frechet import Frechet, gaussian_frechet
from ornstein.metrics.kernels import MMD, EnergyDistance, Kernel
from ornstein.metrics.margins import columns_apart, related
from ornstein.metrics.metric import Metric
from ornstein.metrics.named import METRICS
from ornstein.metrics.neighbours import (
    Copying,
    Coverage,
    Density,
    Memorisation,
    Precision,
    Recall,
    clusters,
    memorisation,
    nearest,
)
from ornstein.metrics.records import Records, closest_records
from ornstein.metrics.ruler import Ruler
from ornstein.metrics.table import TableReport, table_report
from ornstein.metrics.transport import SlicedWasserstein, Wasserstein

__all__ = [
    "C2ST",
    "METRICS",
    "MMD",
    "Classifier",
    "Copying",
    "Coverage",
    "Density",
    "EnergyDistance",
    "Frechet",
    "Kernel",
    "Memorisation",
    "Metric",
    "Precision",
    "Recall",
    "Records",
    "Report",
    "Ruler",
    "Score",
    "SlicedWasserstein",
    "TableReport",
    "Wasserstein",
    "class_agreement",
    "closest_records",
    "clusters",
    "columns_apart",
    "compare",
    "fit_classifier",
    "gaussian_frechet",
    "memorisation",
    "nearest",
    "related",
    "report",
    "table_report",
]
