"""Metrics of pairs that a network of their own compares: two images (LPIPS), an image and a name (BioCLIP)."""

from __future__ import annotations

from taxadiffusion.metrics.metric import Floats, Metric, Seen


def _alignment(seen: Seen) -> Floats | None:
    """A hundred cosines of the image and its own taxon's name (Hessel et al. 2021, without their factor of 2.5)."""
    return None if seen.beside.name_cosines is None else 100 * seen.beside.name_cosines


ZERO_SHOT_ACCURACY = Metric(
    key="zero_shot_accuracy",
    label="Named right by BioCLIP",
    decimals=3,
    better="more",
    meaning="Share whose taxon's name is the nearest of the rank's.",
    of=lambda seen: seen.beside.best_named,
    share=True,
)
LPIPS_TO_REAL = Metric(
    key="lpips_to_real",
    label="LPIPS to real",
    decimals=4,
    better="less",
    meaning="To a training photograph of the same taxon.",
    of=lambda seen: seen.beside.lpips_to_real,
    at_once=True,
)
LPIPS_DIVERSITY = Metric(
    key="lpips_diversity",
    label="LPIPS diversity",
    decimals=4,
    better="more",
    meaning="Between images of the same taxon.",
    of=lambda seen: seen.beside.lpips_among,
)
ALIGNMENT = Metric(
    key="alignment",
    label="BioCLIP score",
    decimals=2,
    better="more",
    meaning="100 × cosine of the image and the taxon's name.",
    of=_alignment,
    at_once=True,
)
