"""What nearest neighbours in feature space say: fidelity, coverage, and whether a training image was copied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError

# M, N images of the two sides, D feature width
Floats = NDArray[np.floating]

_BLOCK = 1024  # rows of a distance matrix held at once


@dataclass(frozen=True, slots=True)
class Overlap:
    """How M real and N generated images overlap, image by image; the four figures are their means.

    `precision`: share of generated images within a real image's neighbourhood; `recall`: share of real images within a
    generated one's (Kynkäänniemi et al. 2019). `density`: how many real neighbourhoods a generated image lies in, over
    k; `coverage`: share of real images with a generated image in their neighbourhood (Naeem et al. 2020).
    """

    densities: Floats
    """(N,) number of real neighbourhoods around each generated image, over k."""
    recalled: NDArray[np.bool_]
    """(M,) whether each real image lies in a generated neighbourhood."""
    covered: NDArray[np.bool_]
    """(M,) whether a generated image lies in each real image's neighbourhood."""

    @property
    def precision(self) -> float:
        return float((self.densities > 0).mean())

    @property
    def recall(self) -> float:
        return float(self.recalled.mean())

    @property
    def density(self) -> float:
        return float(self.densities.mean())

    @property
    def coverage(self) -> float:
        return float(self.covered.mean())


def overlap(real: Floats, generated: Floats, num_neighbours: int = 5) -> Overlap:
    """Precision, recall, density and coverage of (M, D) real and (N, D) generated features.

    A neighbourhood is the ball to an image's `num_neighbours`-th neighbour of its own side. Raises `DataError` where a
    side has not more images than `num_neighbours`.
    """
    for side, features in (("real", real), ("generated", generated)):
        if len(features) <= num_neighbours:
            raise DataError(
                f"precision, recall, density and coverage with {num_neighbours} neighbours need "
                f"{num_neighbours + 1} or more {side} images, got {len(features)}"
            )
    real_radius = _radius(real, num_neighbours)  # (M,)
    generated_radius = _radius(generated, num_neighbours)  # (N,)
    inside_real = np.zeros(len(generated))  # (N,) number of real balls around each generated image
    recalled, covered = np.zeros(len(real), dtype=bool), np.zeros(len(real), dtype=bool)
    for start in range(0, len(real), _BLOCK):
        block = slice(start, start + _BLOCK)
        distances = _distances(real[block], generated)  # (block, N)
        inside_real += (distances < real_radius[block, None]).sum(0)
        recalled[block] = (distances < generated_radius).any(1)
        covered[block] = distances.min(1) < real_radius[block]
    return Overlap(inside_real / num_neighbours, recalled, covered)


def nearest(queries: Floats, references: Floats) -> tuple[NDArray[np.intp], Floats]:
    """For each of (M, D) queries its nearest of (N, D) references: position and Euclidean distance, both (M,)."""
    if not len(references):
        raise DataError("no reference image to find a nearest neighbour in")
    positions = np.empty(len(queries), dtype=np.intp)
    distances = np.empty(len(queries))
    for start in range(0, len(queries), _BLOCK):
        block = _distances(queries[start : start + _BLOCK], references)
        positions[start : start + _BLOCK] = block.argmin(1)
        distances[start : start + _BLOCK] = block.min(1)
    return positions, distances


@dataclass(frozen=True, slots=True)
class Memorisation:
    """Nearest training images of N generated ones, judged by how near unseen photographs come to the training set."""

    positions: NDArray[np.intp]
    """(N,) nearest training image."""
    distances: Floats
    """(N,) its distance, features scaled to length 1."""
    threshold: float
    """Nearer than all but `expected` of the unseen photographs."""
    expected: float
    """Share of unseen photographs nearer than `threshold`: what a model that copies nothing would show."""
    nearer: Floats
    """(N,) share of unseen photographs that lie farther from training than each image."""

    @property
    def copies(self) -> NDArray[np.bool_]:
        """(N,) whether each image is flagged as a copy."""
        return np.asarray(self.distances < self.threshold)

    @property
    def nearer_than_real(self) -> float:
        """P(a generated image is nearer to training than an unseen photograph); 0.5 is par (Meehan et al. 2020)."""
        return float(self.nearer.mean())

    @property
    def share(self) -> float:
        """Share of images flagged."""
        return float(self.copies.mean())


def memorisation(generated: Floats, train: Floats, unseen: Floats, expected: float = 0.01) -> Memorisation:
    """Nearest training neighbours of (N, D) generated features, calibrated by (M, D) features of unseen photographs.

    Distances are Euclidean between features scaled to length 1, so brightness of a network's response does not matter.
    An image is flagged where it is nearer to its nearest training photograph than the `expected` quantile of unseen
    photographs is to theirs. Raises `DataError` where a side is empty.
    """
    if not len(generated) or not len(unseen):
        raise DataError(f"memorisation needs generated and unseen images, got {len(generated)} and {len(unseen)}")
    positions, distances = nearest(_unit(generated), _unit(train))
    _, real_distances = nearest(_unit(unseen), _unit(train))
    below = np.searchsorted(np.sort(real_distances), distances, side="left")
    ties = np.searchsorted(np.sort(real_distances), distances, side="right") - below
    nearer = 1 - (below + ties / 2) / len(real_distances)  # (N,) share of unseen photographs farther than this image
    threshold = float(np.quantile(real_distances, expected))
    return Memorisation(positions, distances, threshold, expected, nearer)


def _unit(features: Floats) -> Floats:
    features = features.astype(np.float64)
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12))


def _distances(x: Floats, y: Floats) -> Floats:
    """Euclidean distances of (M, D) and (N, D) features: (M, N)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    return np.asarray(np.sqrt(squared.clip(0)))


def _radius(features: Floats, num_neighbours: int) -> Floats:
    """(N,) distance of each image to its `num_neighbours`-th neighbour, itself not counted."""
    radius = np.empty(len(features))
    for start in range(0, len(features), _BLOCK):
        block = _distances(features[start : start + _BLOCK], features)
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -1  # itself comes first, exactly
        radius[start : start + _BLOCK] = np.partition(block, num_neighbours, axis=1)[:, num_neighbours]
    return radius
