"""Distances between two sets of features: Fréchet, and the kernel distance that does not depend on their size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError

# M, N images of the two sides, D feature width
Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean (D,) and covariance (D, D) of a set of features, and from how many images they come."""

    mean: Floats
    covariance: Floats
    num_images: int

    @classmethod
    def of(cls, features: Floats) -> Moments:
        """Of (N, D) features, N ≥ 2; the covariance divides by N - 1. Raises `DataError` for fewer images."""
        _needs(features, 2, "a Fréchet distance")
        features = features.astype(np.float64)
        return cls(features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)), len(features))


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
    _needs(x, 2, "a kernel distance")
    _needs(y, 2, "a kernel distance")
    x, y = x.astype(np.float64), y.astype(np.float64)
    within_x, within_y = _kernel(x, x), _kernel(y, y)
    m, n = len(x), len(y)
    mean_x = (within_x.sum() - np.trace(within_x)) / (m * (m - 1))
    mean_y = (within_y.sum() - np.trace(within_y)) / (n * (n - 1))
    return float(mean_x + mean_y - 2 * _kernel(x, y).mean())


class Reference:
    """Real features (M, D) to which many sets are compared: both distances, the real side's part computed once."""

    def __init__(self, real: Floats) -> None:
        self._moments = Moments.of(real)
        self._root = _root(self._moments.covariance)
        self._real = real.astype(np.float64)
        within = _kernel(self._real, self._real)
        self._within = (within.sum() - np.trace(within)) / (len(real) * (len(real) - 1))

    def frechet(self, features: Floats) -> float:
        """`frechet_distance` of (N, D) features to the real ones, by N × N matrices only."""
        _needs(features, 2, "a Fréchet distance")
        mean = features.astype(np.float64).mean(0)
        centred = (features - mean) / np.sqrt(len(features) - 1)  # Σ = centredᵀ centred
        turned = centred @ self._root  # its Gram matrix has the eigenvalues of Σ_r^½ Σ Σ_r^½
        cross = np.sqrt(np.linalg.eigvalsh(turned @ turned.T).clip(0)).sum()
        squared = ((mean - self._moments.mean) ** 2).sum()
        return float(max(0.0, squared + np.trace(self._moments.covariance) + (centred**2).sum() - 2 * cross))

    def kernel(self, features: Floats) -> float:
        """`kernel_distance` of (N, D) features to the real ones."""
        _needs(features, 2, "a kernel distance")
        features = features.astype(np.float64)
        within, n = _kernel(features, features), len(features)
        mean = (within.sum() - np.trace(within)) / (n * (n - 1))
        return float(self._within + mean - 2 * _kernel(self._real, features).mean())


def _root(covariance: Floats) -> Floats:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)


def _kernel(x: Floats, y: Floats) -> Floats:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def _needs(features: Floats, number: int, what: str) -> None:
    if len(features) < number:
        raise DataError(f"{what} needs {number} or more images on each side, got {len(features)}")
