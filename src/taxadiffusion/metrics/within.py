"""Cosine distances within a taxon: of its images to its photographs, and among its images."""

from __future__ import annotations

import numpy as np

from taxadiffusion.metrics.metric import Floats, Metric, Seen


def distance_to_taxon(seen: Seen) -> Floats:
    """(N,) mean cosine distance of each image to all training photographs of its taxon."""
    found = np.empty(len(seen.lineages))
    for taxon, runs in seen.cells.items():
        rows = np.sort(np.concatenate(runs))
        centre = _unit(seen.train_features[seen.train_rows[taxon]]).mean(0)
        found[rows] = 1 - _unit(seen.features[rows]) @ centre
    return found


def distance_within_taxon(seen: Seen) -> Floats | None:
    """(N,) mean cosine distance of each image to the other images of its taxon and run.

    None where a taxon has a single image: there is nothing to compare it with.
    """
    found = np.zeros(len(seen.lineages))
    for runs in seen.cells.values():
        for rows in runs:
            if len(rows) == 1:
                return None
            unit = _unit(seen.features[rows])
            similarity = unit @ unit.sum(0) - (unit**2).sum(1)
            found[rows] = 1 - similarity / (len(rows) - 1)
    return found


def _unit(features: Floats) -> Floats:
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12))


DISTANCE_TO_REAL = Metric(
    key="distance_to_real",
    label="Distance to its taxon",
    decimals=3,
    better="less",
    meaning="Mean cosine distance to the taxon's training photographs.",
    of=distance_to_taxon,
)
DIVERSITY = Metric(
    key="diversity",
    label="Diversity",
    decimals=3,
    better="neither",
    meaning="Mean cosine distance among the images of one taxon.",
    of=distance_within_taxon,
)
