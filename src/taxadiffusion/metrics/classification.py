"""How well a classifier names photographs: F1 of each class, and whether its confidence is what it gets right."""

# N photographs, K classes
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from taxadiffusion.errors import DataError

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

NUM_BINS = 15


def f1_of_classes(true: Ints, named: Ints, num_classes: int) -> Floats:
    """(K,) scikit-learn's F1 of each class; NaN where no photograph shows it, 0 where none of its own is found.

    Photographs are weighted so that all classes count as equally frequent. Else F1 would depend on how many photographs
    of each class happen to judge: the few of one would be swamped by those of another that are named as it.
    """
    counts = np.bincount(true, minlength=num_classes)
    weights = 1.0 / counts[true]
    found = f1_score(true, named, labels=np.arange(num_classes), average=None, zero_division=0, sample_weight=weights)
    return np.where(counts > 0, np.asarray(found, dtype=np.float64), np.nan)


def calibration_error(right: NDArray[np.bool_], confidence: Floats, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error (Guo et al. 2017): |share right − mean confidence| by bins of equal width of the
    confidence (N,) in what was named, weighed by their numbers of photographs. 0: it is as often right as it says."""
    if not len(right):
        raise DataError("no photograph to take the calibration of")
    bins = np.minimum((confidence * num_bins).astype(np.intp), num_bins - 1)
    gaps = np.bincount(bins, weights=right.astype(np.float64) - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(right))
