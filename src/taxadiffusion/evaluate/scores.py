"""What an evaluation found, as plain values that go to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.evaluate.memorisation import CopyFindings, CopyFound
from taxadiffusion.metrics.intervals import Interval, Replicates
from taxadiffusion.names import Lineage, Rank


@dataclass(frozen=True, slots=True)
class TaxonScores:
    """One taxon's images: share named right, how far off the others are, and copies among them."""

    taxon: Lineage
    num_photographs: int
    """In training."""
    num_images: int
    named_right: float | None
    """None where the judges do not know the taxon, like the next two."""
    named_right_second: float | None
    """By the second judge; None also where there is none."""
    error_height: float | None
    copies: CopyFound | None = None
    """Of its images that were looked at; None: cannot tell."""


@dataclass(frozen=True, slots=True)
class NearPair:
    """A generated image and its nearest training photograph by features; near is not copied."""

    generated: str
    photograph: str
    taxon: Lineage
    distance: float


@dataclass(frozen=True, slots=True)
class ConfusionPair:
    """How many of `of` images of `true` were taken for `predicted`."""

    true: Lineage
    predicted: Lineage
    count: int
    of: int


@dataclass(frozen=True, slots=True)
class RankScores:
    """A method at one rank: every metric with its interval, the same by frequency bucket, and what lies behind them."""

    rank: Rank
    num_images: int
    metrics: Mapping[str, Interval]
    buckets: Mapping[str, Mapping[str, Interval]]
    taxa: tuple[TaxonScores, ...]
    confusions: tuple[ConfusionPair, ...]
    nearest: tuple[NearPair, ...]
    """The pairs nearest to each other, nearest first."""
    traits: Mapping[str, float] = field(default_factory=dict)
    """Of a simulated clade: what the images tell of each species' true traits (`TraitScores.of_species`)."""
    copies: CopyFindings | None = None
    """None: nobody looked."""
    right: Mapping[Lineage, tuple[NDArray[np.floating], ...]] = field(default_factory=dict)
    """By taxon and run: 1 for each image named right, 0 for the others; without the taxa that are not judged."""
    right_second: Mapping[Lineage, tuple[NDArray[np.floating], ...]] = field(default_factory=dict)
    """The same by the second judge; {} where there is none."""
    frechet: Replicates | None = None
    """The Fréchet distance of each run, whole and without groups of taxa."""
