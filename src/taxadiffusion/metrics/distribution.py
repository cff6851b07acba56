"""Distances between two sets of features: Fréchet, and the kernel distance that does not depend on their size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.blocks import row_blocks

# M, N images of the two sides, D feature width, B weightings of one side's images (redrawn sets)
Floats = NDArray[np.floating]
Counts = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean (D,) and covariance (D, D) of a set of features, and from how many images they come."""

    mean: Floats
    covariance: Floats
    num_images: int

    @classmethod
    def of(cls, features: Floats) -> Moments:
        """Of (N, D) features, N ≥ 2; the covariance divides by N - 1. Raises `DataError` for fewer images.

        D × D numbers are held beside a block of images, whatever N.
        """
        _needs(features, 2, "a Fréchet distance")
        mean = features.mean(0, dtype=np.float64)
        scatter = np.zeros((len(mean), len(mean)))
        for block in row_blocks(len(features), len(mean), block_bytes=1 << 27):
            centred = features[block] - mean
            scatter += centred.T @ centred
        return cls(mean, scatter / (len(features) - 1), len(features))


def frechet_distance(a: Moments, b: Moments) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2(Σ_a Σ_b)^½) (Heusel et al. 2017, eq. 6).

    Biased upwards for few images, most of all where a side has fewer images than D: report it with their number, and
    beside a kernel distance. tr (Σ_a Σ_b)^½ is taken as Σ √λ of the symmetric Σ_a^½ Σ_b Σ_a^½, so nothing is complex.
    """
    root = _root(a.covariance)
    product = np.linalg.eigvalsh(root @ b.covariance @ root)
    cross = np.sqrt(product.clip(0)).sum()
    squared = ((a.mean - b.mean) ** 2).sum()
    return float(max(0.0, squared + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross))


def kernel_distance(x: Floats, y: Floats) -> float:
    """The unbiased squared MMD of (M, D) and (N, D) features with the kernel (x·y/D + 1)³ (Bińkowski et al. 2018).

    Its expectation does not depend on M and N, and is 0 for two draws from one distribution; so it can be negative.
    Raises `DataError` where a side has fewer than two images.
    """
    return KernelReference(x)(y)


class FrechetReference:
    """Real features (M, D) to which many sets are compared by `frechet_distance`, the real side's part computed once.

    A set of more than D images is reduced to its D × D covariance; one of fewer to its N × N Gram matrix, which has the
    same eigenvalues. So a set costs time linear in its images, and no memory that grows with their square.
    """

    def __init__(self, real: Floats) -> None:
        self._moments = Moments.of(real)
        self._root = _root(self._moments.covariance)

    def __call__(self, features: Floats) -> float:
        """`frechet_distance` of (N, D) features to the real ones."""
        return float(self.of_sets(features, np.ones((1, len(features)), dtype=np.int64))[0])

    def of_sets(self, features: Floats, counts: Counts) -> NDArray[np.float64]:
        """(B,) distances of B sets: set b holds image n of (N, D) features `counts[b, n]` times.

        Raises `DataError` for a set of fewer than two images.
        """
        for number in counts.sum(1):
            _needs_images(int(number), 2, "a Fréchet distance")
        if len(features) <= len(self._moments.mean):
            return np.array([self._of_few(features, weights) for weights in counts])
        sets = _moments_of_sets(features, counts)
        return np.array([self._distance(s.mean, float(np.trace(s.covariance)), self._turned(s)) for s in sets])

    def _of_few(self, features: Floats, weights: Counts) -> float:
        rows = np.flatnonzero(weights)
        weight = weights[rows, None].astype(np.float64)
        number = weight.sum()
        mean = (features[rows] * weight).sum(0) / number
        centred = (features[rows] - mean) * np.sqrt(weight / (number - 1))  # Σ = centredᵀ centred
        turned = centred @ self._root  # its Gram matrix has the eigenvalues of Σ_r^½ Σ Σ_r^½
        return self._distance(mean, float((centred**2).sum()), turned @ turned.T)

    def _turned(self, moments: Moments) -> Floats:
        return np.asarray(self._root @ moments.covariance @ self._root)

    def _distance(self, mean: Floats, trace: float, product: Floats) -> float:
        cross = np.sqrt(np.linalg.eigvalsh(product).clip(0)).sum()
        squared = ((mean - self._moments.mean) ** 2).sum()
        return float(max(0.0, squared + np.trace(self._moments.covariance) + trace - 2 * cross))


class KernelReference:
    """Real features (M, D) to which many sets are compared by `kernel_distance`, the real side's part computed once.

    Pairs are formed block by block: time grows with M · N and N², memory does not.
    """

    def __init__(self, real: Floats) -> None:
        _needs(real, 2, "a kernel distance")
        self._real = real.astype(np.float64)
        within = _within(self._real, np.ones((1, len(real)), dtype=np.int64))[0]
        self._within = within / (len(real) * (len(real) - 1))

    def __call__(self, features: Floats) -> float:
        """`kernel_distance` of (N, D) features to the real ones."""
        return float(self.of_sets(features, np.ones((1, len(features)), dtype=np.int64))[0])

    def of_sets(self, features: Floats, counts: Counts) -> NDArray[np.float64]:
        """(B,) distances of B sets: set b holds image n of (N, D) features `counts[b, n]` times.

        The pairs are formed once for all sets. Raises `DataError` for a set of fewer than two images.
        """
        numbers = counts.sum(1)
        for number in numbers:
            _needs_images(int(number), 2, "a kernel distance")
        features = features.astype(np.float64)
        across = np.zeros(len(counts))
        for block in row_blocks(len(self._real), len(features)):
            across += (_kernel(self._real[block], features) @ counts.T).sum(0)
        within = _within(features, counts) / (numbers * (numbers - 1))
        return np.asarray(self._within + within - 2 * across / (len(self._real) * numbers))


def _moments_of_sets(features: Floats, counts: Counts) -> list[Moments]:
    """The moments of B sets, by two passes over the images for all of them."""
    centre = features.mean(0, dtype=np.float64)
    numbers = counts.sum(1)
    width = len(centre)
    sums, scatters = np.zeros((len(counts), width)), np.zeros((len(counts), width, width))
    for block in row_blocks(len(features), width, block_bytes=1 << 27):
        centred = features[block] - centre
        sums += counts[:, block] @ centred
        for weights, scatter in zip(counts[:, block], scatters, strict=True):
            rows = np.flatnonzero(weights)
            scaled = centred[rows] * np.sqrt(weights[rows])[:, None]
            scatter += scaled.T @ scaled
    found = []
    for number, total, scatter in zip(numbers, sums, scatters, strict=True):
        shift = total / number  # of the set's mean from the common centre
        scatter -= number * np.outer(shift, shift)
        scatter /= number - 1
        found.append(Moments(centre + shift, scatter, int(number)))
    return found


def _within(features: Floats, counts: Counts) -> NDArray[np.float64]:
    """(B,) sums of the kernel over all ordered pairs of two places of a set; each pair of blocks is formed once."""
    found = np.zeros(len(counts))
    weights = counts.T.astype(np.float64)  # (N, B)
    for block in row_blocks(len(features), len(features)):
        pairs = _kernel(features[block], features[block.start :])  # the blocks before have met this one
        size = block.stop - block.start
        own, later = pairs[:, :size], pairs[:, size:]
        found += (weights[block] * (own @ weights[block] + 2 * later @ weights[block.stop :])).sum(0)
        found -= np.diagonal(own) @ weights[block]
    return found


def _root(covariance: Floats) -> Floats:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)


def _kernel(x: Floats, y: Floats) -> Floats:
    product = x @ y.T
    product /= x.shape[1]
    product += 1
    cubed = product * product
    cubed *= product
    return np.asarray(cubed)


def _needs(features: Floats, number: int, what: str) -> None:
    _needs_images(len(features), number, what)


def _needs_images(given: int, number: int, what: str) -> None:
    if given < number:
        raise DataError(f"{what} needs {number} or more images on each side, got {given}")
