"""Confidence intervals by the bootstrap, over taxa and over the images (seeds) of a taxon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError

# K taxa, N images
Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its confidence interval."""

    mean: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether the two intervals share a value."""
        return self.low <= other.high and other.low <= self.high


def mean_over_taxa(
    values: Sequence[Floats], rng: np.random.Generator, *, num_draws: int = 2000, confidence: float = 0.95
) -> Interval:
    """The mean over K taxa of the mean of each taxon's values (images, seeds), with a percentile interval.

    Both levels are drawn with replacement: taxa, then the images of each drawn taxon (the two-level bootstrap of
    Davison and Hinkley 1997, section 3.8). So the interval speaks of other taxa and other seeds, not of these alone.
    `values[k]` holds the values of taxon k. Raises `DataError` where a taxon has none.
    """
    if not values or not all(len(taxon) for taxon in values):
        raise DataError("a mean over taxa needs one or more values for every taxon")
    num_taxa = len(values)
    resampled = np.empty((num_draws, num_taxa))  # mean of a redraw of each taxon's images
    for k, taxon in enumerate(values):
        draws = rng.integers(len(taxon), size=(num_draws, len(taxon)))
        resampled[:, k] = np.asarray(taxon, dtype=np.float64)[draws].mean(1)
    drawn = rng.integers(num_taxa, size=(num_draws, num_taxa))
    means = np.take_along_axis(resampled, drawn, axis=1).mean(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(np.mean([np.mean(taxon) for taxon in values])), float(low), float(high))


def statistic_within_taxa(
    statistic: Callable[[NDArray[np.intp]], float],
    groups: Sequence[NDArray[np.intp]],
    rng: np.random.Generator,
    *,
    num_draws: int = 40,
    normal_quantile: float = 1.96,
) -> Interval:
    """A statistic of all images (a Fréchet or kernel distance) ± 1.96 bootstrap standard errors.

    `groups[k]` holds the positions of taxon k's images; each taxon's images are redrawn, so every draw keeps the
    mixture of taxa. The interval is centred on the statistic of all images because redrawn sets repeat images, which biases
    such distances upwards: their percentiles would miss the estimate itself.
    """
    estimate = statistic(np.concatenate(groups))
    redrawn = [
        statistic(np.concatenate([group[rng.integers(len(group), size=len(group))] for group in groups]))
        for _ in range(num_draws)
    ]
    margin = normal_quantile * float(np.std(redrawn, ddof=1))
    return Interval(estimate, estimate - margin, estimate + margin)
