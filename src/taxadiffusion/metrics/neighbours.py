"""What nearest neighbours in feature space say: fidelity, coverage, and nearness to training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.blocks import row_blocks
from taxadiffusion.metrics.intervals import Interval, mean_over_taxa
from taxadiffusion.metrics.metric import Metric, Nearness, Overlap, Seen, of_images

# M, N images of the two sides, D feature width
Floats = NDArray[np.floating]

_ROUNDING = 4e-6  # of a float32 product of two features, relative to their squared lengths; measured errors stay below
_TILE = (1024, 4096)  # queries and references whose distances are held at once: they stay in a processor's cache


def overlap(real: Floats, generated: Floats, num_neighbours: int = 5, real_radius: Floats | None = None) -> Overlap:
    """Precision, recall, density and coverage of (M, D) real and (N, D) generated features.

    A neighbourhood is the ball to an image's `num_neighbours`-th neighbour of its own side. real_radius: (M,) from
    `radius`, where it is known already. Time grows with (M + N)², memory does not. Raises `DataError` where a side has
    not more images than `num_neighbours`.
    """
    for side, features in (("real", real), ("generated", generated)):
        if len(features) <= num_neighbours:
            raise DataError(
                f"precision, recall, density and coverage with {num_neighbours} neighbours need "
                f"{num_neighbours + 1} or more {side} images, got {len(features)}"
            )
    if real_radius is None:
        real_radius = radius(real, num_neighbours)
    real, generated = real.astype(np.float64), generated.astype(np.float64)
    generated_radius = radius(generated, num_neighbours)  # (N,)
    inside_real = np.zeros(len(generated))  # (N,) number of real balls around each generated image
    recalled, covered = np.zeros(len(real), dtype=bool), np.zeros(len(real), dtype=bool)
    for block in row_blocks(len(real), len(generated)):
        distances = _distances(real[block], generated)  # (block, N)
        inside_real += (distances < real_radius[block, None]).sum(0)
        recalled[block] = (distances < generated_radius).any(1)
        covered[block] = distances.min(1) < real_radius[block]
    return Overlap(inside_real / num_neighbours, recalled, covered)


def radius(features: Floats, num_neighbours: int) -> Floats:
    """(N,) distance of each of (N, D) images to its `num_neighbours`-th neighbour, itself not counted."""
    found = np.empty(len(features))
    features = features.astype(np.float64)
    for block in row_blocks(len(features), len(features)):
        distances = _distances(features[block], features)
        rows = np.arange(len(distances))
        distances[rows, rows + block.start] = -1  # itself comes first, exactly
        found[block] = np.partition(distances, num_neighbours, axis=1)[:, num_neighbours]
    return found


def nearest(queries: Floats, references: Floats) -> tuple[NDArray[np.intp], Floats]:
    """For each of (M, D) queries its nearest of (N, D) references: position and Euclidean distance, both (M,).

    Features of float32 are searched in float32. Where its rounding leaves more than one reference in question, and for
    the distance itself, float64 decides: the answer is float64's, in half the time.
    """
    if not len(references):
        raise DataError("no reference image to find a nearest neighbour in")
    if queries.dtype == references.dtype == np.float32:
        positions, unsure = _nearest_in_float32(queries, references)
    else:
        positions, unsure = np.empty(len(queries), dtype=np.intp), np.arange(len(queries))
    if len(unsure):
        exact = references.astype(np.float64)
        for block in row_blocks(len(unsure), len(references)):
            positions[unsure[block]] = _distances(queries[unsure[block]].astype(np.float64), exact).argmin(1)
    return positions, _row_distances(queries, references, positions)


def _nearest_in_float32(queries: Floats, references: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(M,) nearest references, and the queries for which rounding leaves more than one in question."""
    squares = np.einsum("nd,nd->n", references, references)
    positions = np.empty(len(queries), dtype=np.intp)
    unsure = []
    for start in range(0, len(queries), _TILE[0]):
        mine = queries[start : start + _TILE[0]]
        rows = np.arange(len(mine))
        slack = _ROUNDING * (np.einsum("nd,nd->n", mine, mine) + squares.max())
        least, second = np.full(len(mine), np.inf), np.full(len(mine), np.inf)
        crowded = np.zeros(len(mine), dtype=bool)  # whether the tile of the least holds another within `slack`
        doubled = mine * np.float32(-2)
        for first in range(0, len(references), _TILE[1]):
            gaps = doubled @ references[first : first + _TILE[1]].T
            gaps += squares[first : first + _TILE[1]]  # squared distances, less the query's own squared length
            at = gaps.argmin(1)
            low = gaps[rows, at]
            better = low < least
            second = np.where(better, least, np.minimum(second, low))
            crowded = np.where(better, np.count_nonzero(gaps <= (low + slack)[:, None], axis=1) > 1, crowded)
            positions[start : start + len(mine)][better] = first + at[better]
            least = np.where(better, low, least)
        unsure.append(start + np.flatnonzero(crowded | (second <= least + slack)))
    return positions, np.concatenate(unsure) if unsure else np.empty(0, dtype=np.intp)


def _row_distances(queries: Floats, references: Floats, positions: NDArray[np.intp]) -> Floats:
    """(M,) distance of each query to one reference; exactly 0 for an equal one."""
    found = np.empty(len(queries))
    for block in row_blocks(len(queries), queries.shape[1]):
        apart = queries[block].astype(np.float64) - references[positions[block]]
        found[block] = np.sqrt(np.einsum("nd,nd->n", apart, apart))
    return found


class NearestSearch:
    """Training photographs among which the nearest are sought, beside unseen photographs' nearest, for many sets.

    Distances are Euclidean between features scaled to length 1, so brightness of a network's response does not matter.
    Near is not copied: `copies` looks for that.
    """

    def __init__(self, train: Floats, unseen: Floats) -> None:
        """Of (N, D) and (M, D) features. Raises `DataError` where a side is empty."""
        if not len(unseen):
            raise DataError("nearness to training needs unseen images to compare with, got 0")
        self._train = _unit(train)
        self._real_distances = np.sort(self._nearest(unseen)[1])

    def __call__(self, generated: Floats) -> Nearness:
        """Of (N, D) features. Raises `DataError` without images."""
        if not len(generated):
            raise DataError("nearness to training needs generated images, got 0")
        positions, distances = self._nearest(generated)
        real = self._real_distances
        below = np.searchsorted(real, distances, side="left")
        ties = np.searchsorted(real, distances, side="right") - below
        nearer = 1 - (below + ties / 2) / len(real)  # (N,) share of unseen photographs farther than this image
        return Nearness(positions, distances, nearer)

    def _nearest(self, features: Floats) -> tuple[NDArray[np.intp], Floats]:
        parts = [nearest(_unit(features[block]), self._train) for block in row_blocks(len(features), features.shape[1])]
        return np.concatenate([p for p, _ in parts]), np.concatenate([d for _, d in parts])


def _unit(features: Floats) -> Floats:
    """Features scaled to length 1, in their own precision."""
    lengths = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64)).clip(1e-12)
    return np.asarray(features / lengths[:, None].astype(features.dtype))


def _distances(x: Floats, y: Floats) -> Floats:
    """Euclidean distances of (M, D) and (N, D) features: (M, N)."""
    squared = x @ y.T
    squared *= -2
    squared += np.einsum("nd,nd->n", x, x)[:, None]
    squared += np.einsum("nd,nd->n", y, y)
    np.maximum(squared, 0, out=squared)
    return np.asarray(np.sqrt(squared, out=squared))


def _of_generated(seen: Seen, value: Callable[[Floats], Floats], *, share: bool) -> Interval | None:
    """The mean of a value of the densities of those generated images of which pairs are formed."""
    if seen.sets is None:
        return None
    density = np.full(len(seen.lineages), np.nan)
    for rows, found in zip(seen.sets.paired, seen.sets.overlaps, strict=True):
        density[rows] = found.densities
    kept = np.isfinite(density)
    cells = {taxon: tuple(rows[kept[rows]] for rows in mine) for taxon, mine in seen.cells.items()}
    cells = {taxon: rows for taxon, rows in cells.items() if any(map(len, rows))}
    return of_images(value(density), cells, share=share)


def _of_real(seen: Seen, value: Callable[[Overlap], NDArray[np.bool_]]) -> Interval | None:
    """The share of the reference's photographs, over taxa and runs."""
    if seen.sets is None:
        return None
    return mean_over_taxa([[value(o)[rows] for o in seen.sets.overlaps] for rows in seen.sets.real_rows], share=True)


PRECISION = Metric(
    key="precision",
    label="Precision",
    decimals=3,
    better="more",
    meaning="Share of generated images within a real image's neighbourhood.",
    of=lambda seen: _of_generated(seen, lambda density: (density > 0).astype(np.float32), share=True),
)
RECALL = Metric(
    key="recall",
    label="Recall",
    decimals=3,
    better="more",
    meaning="Share of real images within a generated image's neighbourhood.",
    of=lambda seen: _of_real(seen, lambda overlap: overlap.recalled),
)
DENSITY = Metric(
    key="density",
    label="Density",
    decimals=3,
    better="more",
    meaning="Real neighbourhoods around a generated image, over k.",
    of=lambda seen: _of_generated(seen, lambda density: density, share=False),
)
COVERAGE = Metric(
    key="coverage",
    label="Coverage",
    decimals=3,
    better="more",
    meaning="Share of real images with a generated one in their neighbourhood.",
    of=lambda seen: _of_real(seen, lambda overlap: overlap.covered),
)
NEARER_THAN_REAL = Metric(
    key="nearer_than_real",
    label="Nearer than unseen",
    decimals=3,
    better="neither",
    meaning="Chance to be nearer to training than an unseen photograph; 0.5 is par.",
    of=lambda seen: seen.near.nearer,
)
