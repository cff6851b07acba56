"""How each metric is called, printed and explained in tables and charts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is shown."""

    key: str
    label: str
    decimals: int
    meaning: str


METRICS: tuple[Metric, ...] = (
    Metric(
        "rank_accuracy", "Named right", 3, "Share named as their taxon by a probe of real photographs; mean of taxa."
    ),
    Metric("zero_shot_accuracy", "Named right by BioCLIP", 3, "Share whose taxon's name is the nearest of the rank's."),
    Metric("error_height", "Height of errors", 2, "Ranks up to the common ancestor of what was asked for and named."),
    Metric("frechet_distance", "Fréchet distance", 2, "To training photographs; biased upwards for few images."),
    Metric("kernel_distance", "Kernel distance", 3, "Unbiased squared MMD to training photographs; may be negative."),
    Metric("precision", "Precision", 3, "Share of generated images within a real image's neighbourhood."),
    Metric("recall", "Recall", 3, "Share of real images within a generated image's neighbourhood."),
    Metric("density", "Density", 3, "Real neighbourhoods around a generated image, over k."),
    Metric("coverage", "Coverage", 3, "Share of real images with a generated one in their neighbourhood."),
    Metric("distance_to_real", "Distance to its taxon", 3, "Mean cosine distance to the taxon's training photographs."),
    Metric("diversity", "Diversity", 3, "Mean cosine distance among the images of one taxon."),
    Metric("lpips_to_real", "LPIPS to real", 4, "To a training photograph of the same taxon."),
    Metric("lpips_diversity", "LPIPS diversity", 4, "Between images of the same taxon."),
    Metric("alignment", "BioCLIP score", 2, "100 × cosine of the image and the taxon's name."),
    Metric("trait_error", "Trait error", 3, "Of the taxon's mean reading, in standard deviations between species."),
    Metric(
        "nearer_than_real",
        "Nearer than unseen",
        3,
        "Chance to be nearer to training than an unseen photograph; 0.5 is par.",
    ),
)
