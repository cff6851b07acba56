"""What a metric is: how it is called, printed and explained, and its formula over what an evaluation has seen.

A new one is a `Metric` beside its formula and a line in `declared.METRICS`. Nothing else knows the metrics by name
but where a page is about one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.metrics.intervals import Interval, Replicates, mean_over_taxa
from taxadiffusion.names import Lineage, Rank

# N generated images, M photographs, D feature width, R runs, K taxa, Q measurands
Floats = NDArray[np.floating]
Rows = NDArray[np.intp]

CellTable = Mapping[Lineage, Sequence[Rows]]
"""By taxon, the positions of its images in each run."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """How M real and N generated images overlap, image by image; the four figures are their means.

    Precision: share of generated images within a real image's neighbourhood; recall: share of real images within a
    generated one's (Kynkäänniemi et al. 2019). Density: how many real neighbourhoods a generated image lies in, over
    k; coverage: share of real images with a generated image in their neighbourhood (Naeem et al. 2020).
    """

    densities: Floats
    """(N,) number of real neighbourhoods around each generated image, over k."""
    recalled: NDArray[np.bool_]
    """(M,) whether each real image lies in a generated neighbourhood."""
    covered: NDArray[np.bool_]
    """(M,) whether a generated image lies in each real image's neighbourhood."""


@dataclass(frozen=True, slots=True)
class Nearness:
    """Nearest training images of N generated ones, beside how near unseen photographs come to the training set."""

    positions: Rows
    """(N,) nearest training image."""
    distances: Floats
    """(N,) its distance, features scaled to length 1."""
    nearer: Floats
    """(N,) share of unseen photographs that lie farther from training than each image. Their mean is the chance that an
    image is nearer to training than an unseen photograph; 0.5 is par (Meehan et al. 2020)."""


@dataclass(frozen=True, slots=True)
class Sets:
    """The images of each run against the reference of photographs."""

    frechet: Replicates
    kernel: Replicates
    paired: Sequence[Rows]
    """Of each run, the images of which all pairs are formed …"""
    overlaps: Sequence[Overlap]
    """… how they overlap with the reference …"""
    real_rows: Sequence[Rows]
    """… and the reference's positions, by taxon."""


@dataclass(frozen=True, slots=True)
class TraitReadings:
    """Traits read off N images of a simulated clade, beside the true ones."""

    values: Floats
    """(N, Q)"""
    truth: Mapping[Lineage, Floats]
    """(Q,) of each taxon asked for."""
    spread: Floats
    """(Q,) standard deviation between species."""
    columns: Sequence[int]
    """The measurands that count."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What further networks and instruments say of N images; None of those that are absent."""

    lpips_to_real: Floats | None = None
    """(N,) to a training photograph of the same taxon."""
    lpips_among: Floats | None = None
    """(N,) to the next image of the same taxon and run."""
    name_cosines: Floats | None = None
    """(N,) of the image and the name of its taxon, in the features of a network of images and text."""
    best_named: NDArray[np.bool_] | None = None
    """(N,) whether no other taxon's name is nearer."""
    traits: TraitReadings | None = None
    of_species: Mapping[str, float] | None = None
    """What the images tell of each species' true traits, by measurand."""


@dataclass(frozen=True, slots=True)
class Seen:
    """N images of one method at one rank, and all that an evaluation knows of them: what a metric is computed from."""

    rank: Rank
    ranks: Sequence[Rank]
    features: Floats
    """(N, D)"""
    lineages: Sequence[Lineage]
    """(N,) what each was asked to show."""
    cells: CellTable
    named: Mapping[str, Sequence[Lineage]]
    """(N,) by judge (the key of its metric), what each image was named as."""
    judged: NDArray[np.bool_]
    """(N,) whether the judges know the taxon."""
    train_features: Floats
    """(M, D) of the training photographs that name a taxon of the rank …"""
    train_rows: Mapping[Lineage, Rows]
    """… and their positions by taxon."""
    near: Nearness
    sets: Sets | None
    """None: too few photographs, or too few images."""
    beside: Beside


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, whole."""

    key: str
    """In JSON."""
    label: str
    """In tables."""
    decimals: int
    better: Literal["more", "less", "neither"]
    """Which side is the better one; `neither`: it is best at a value in between, which `meaning` names, if at any."""
    meaning: str
    of: Callable[[Seen], Floats | NDArray[np.bool_] | Interval | None]
    """(N,) a value of each image, not a number where it cannot be judged: figures of taxa and frequency buckets and
    their intervals then come by themselves. Or one figure of all images. None: cannot be told of these."""
    share: bool = False
    """Whether each image counts or does not."""
    at_once: bool = False
    """Whether a page shows it at once; the others are folded away."""
    table: bool = True
    """Whether it has a table of its own; the second judge's figures stand beside the first one's."""


def of_images(values: NDArray[np.generic], cells: CellTable, *, share: bool) -> Interval | None:
    """The mean over taxa and runs of (N,) values; None where they are of no taxon.

    A taxon that a run lacks makes it a `DataError`.
    """
    found = by_taxon_and_run(values, cells)
    return mean_over_taxa(list(found.values()), share=share) if found else None


def by_taxon_and_run(values: NDArray[np.generic], cells: CellTable) -> dict[Lineage, tuple[Floats, ...]]:
    """(N,) values by taxon, then by run, without the taxa that are not judged, whose values are not numbers."""
    numbers = np.asarray(values, dtype=np.float64)
    found = {taxon: tuple(numbers[rows] for rows in runs) for taxon, runs in cells.items()}
    return {taxon: runs for taxon, runs in found.items() if not any(np.isnan(run).any() for run in runs)}
