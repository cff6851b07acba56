"""The one tuple of metrics, in the order of tables: a new one is declared beside its formula and named here."""

from __future__ import annotations

from taxadiffusion.metrics.distribution import FRECHET_DISTANCE, KERNEL_DISTANCE
from taxadiffusion.metrics.metric import Metric
from taxadiffusion.metrics.naming import ERROR_HEIGHT, RANK_ACCURACY, RANK_ACCURACY_SECOND
from taxadiffusion.metrics.neighbours import COVERAGE, DENSITY, NEARER_THAN_REAL, PRECISION, RECALL
from taxadiffusion.metrics.pairs import ALIGNMENT, LPIPS_DIVERSITY, LPIPS_TO_REAL, ZERO_SHOT_ACCURACY
from taxadiffusion.metrics.traits import TRAIT_ERROR
from taxadiffusion.metrics.within import DISTANCE_TO_REAL, DIVERSITY

METRICS: tuple[Metric, ...] = (
    RANK_ACCURACY,
    RANK_ACCURACY_SECOND,
    ZERO_SHOT_ACCURACY,
    ERROR_HEIGHT,
    FRECHET_DISTANCE,
    KERNEL_DISTANCE,
    PRECISION,
    RECALL,
    DENSITY,
    COVERAGE,
    DISTANCE_TO_REAL,
    DIVERSITY,
    LPIPS_TO_REAL,
    LPIPS_DIVERSITY,
    ALIGNMENT,
    TRAIT_ERROR,
    NEARER_THAN_REAL,
)


def declared(key: str) -> Metric:
    """The metric of that key. Raises `KeyError`."""
    return {metric.key: metric for metric in METRICS}[key]
