"""To which rank a taxon's pictures may be trusted, at a stated error: conformal risk control over taxa."""

# Letters: K taxa, R ranks.
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError, SettingsError

Floats = NDArray[np.floating]


def trusted_depths(scores: Floats, threshold: float) -> NDArray[np.intp]:
    """(K, R) scores → (K,) how many ranks, from the coarsest on, are trusted: down to the first below the threshold."""
    return np.asarray((np.logical_and.accumulate(scores >= threshold, axis=1)).sum(1), dtype=np.intp)


def threshold_at(scores: Floats, right: Floats, error: float) -> float:
    """The lowest threshold at which a further taxon's pictures are wrong at most so often, in the mean over taxa.

    scores: (K, R) of taxa, coarse to fine, from one half of their pictures. right: (K, R) shares named right among the
    other half; a picture right at a rank is right at the coarser ones. A taxon's loss is its share wrong at the rank to
    which it is trusted, 0 where that is none, so it never grows with the threshold. Then the threshold with
    `(Σ loss + 1) / (K + 1) ≤ error` holds the expected loss of an exchangeable taxon below `error` (Angelopoulos et al.
    2024, conformal risk control, Theorem 1). Infinite where there are too few taxa to promise anything. Raises
    `DataError` for shares that grow with depth, `SettingsError` for an error that is not within 0 and 1.
    """
    if not 0 < error < 1:
        raise SettingsError(f"the error must lie between 0 and 1, got {error:g}")
    if scores.shape != right.shape or scores.ndim != 2 or not scores.size:
        raise DataError(f"scores and shares must be of the same taxa and ranks, got {scores.shape} and {right.shape}")
    if (np.diff(right, axis=1) > 1e-9).any():
        raise DataError("a picture that is right at a rank is right at the coarser ones, so shares cannot grow")
    number = len(scores)
    for threshold in np.unique(scores).tolist():
        if (losses(scores, right, threshold).sum() + 1) / (number + 1) <= error:
            return float(threshold)
    return math.inf


def losses(scores: Floats, right: Floats, threshold: float) -> Floats:
    """(K,) share of a taxon's pictures that are wrong at the rank to which it is trusted; 0 where that is none."""
    depth = trusted_depths(scores, threshold)
    wrong = np.concatenate([np.zeros((len(right), 1)), 1 - right], axis=1)
    return np.asarray(wrong[np.arange(len(right)), depth])
