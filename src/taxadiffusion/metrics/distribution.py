"""Distances between two sets of features: Fréchet, and the kernel distance that does not depend on their size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.blocks import row_blocks
from taxadiffusion.metrics.intervals import of_replicates
from taxadiffusion.metrics.metric import Metric

# M, N images of the two sides, D feature width, G groups of taxa
Floats = NDArray[np.floating]
Groups = NDArray[np.intp]


class FrechetReference:
    """Real features (M, D) to which many sets are compared by the Fréchet distance, whole and without groups of taxa.

    ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2(Σ_a Σ_b)^½) (Heusel et al. 2017, eq. 6). Biased upwards for few images, most of all
    where a side has fewer images than D: report it with their number, and beside a kernel distance.
    Each side is a factor F of its covariance F Fᵀ: its centred images where they are no more than D, a D × D triangle
    where they are more. tr (Σ_a Σ_b)^½ is the sum of the singular values of F_aᵀ F_b. So a set costs time linear in its
    images, and no memory that grows with their square.

    group: (M,) of each image the group of its taxon, 0 … G−1.
    """

    def __init__(self, real: Floats, group: Groups | None = None) -> None:
        self._real = _Grouped(real, _one_group(real) if group is None else group)

    def __call__(self, features: Floats) -> float:
        """The distance of (N, D) features to the real ones."""
        return self._distance(_Grouped(features, _one_group(features)), None)

    def replicates(self, features: Floats, group: Groups) -> tuple[float, NDArray[np.float64]]:
        """The distance of (N, D) features, and (G,) the distances without each group on both sides.

        Raises `DataError` where fewer than two images are left on a side.
        """
        mine = _Grouped(features, group)
        return self._distance(mine, None), np.array([self._distance(mine, g) for g in range(self._real.num_groups)])

    def _distance(self, mine: _Grouped, without: int | None) -> float:
        (mean, factor), (real_mean, real_factor) = mine.without(without), self._real.without(without)
        product = real_factor.T @ factor
        small = product @ product.T if len(product) <= product.shape[1] else product.T @ product
        cross = np.sqrt(np.linalg.eigvalsh(small).clip(0)).sum()
        squared = ((mean - real_mean) ** 2).sum()
        return float(max(0.0, squared + (real_factor**2).sum() + (factor**2).sum() - 2 * cross))


class _Grouped:
    """Features (N, D) by group: as they are where N is no more than D, else as sums and scatters of each group."""

    def __init__(self, features: Floats, group: Groups) -> None:
        _needs(features, 2, "a Fréchet distance")
        self.num_groups = int(group.max()) + 1
        self._group = group
        self._centre = features.mean(0, dtype=np.float64)
        self._features = features if len(features) <= len(self._centre) else None
        if self._features is None:
            width = len(self._centre)
            self._sums, self._scatters = np.zeros((self.num_groups, width)), np.zeros((self.num_groups, width, width))
            for block in row_blocks(len(features), width, block_bytes=1 << 27):
                centred, of = features[block] - self._centre, group[block]
                for g in np.unique(of):
                    mine = centred[of == g]
                    self._sums[g] += mine.sum(0)
                    self._scatters[g] += mine.T @ mine
            self._sum, self._scatter = self._sums.sum(0), self._scatters.sum(0)

    def without(self, group: int | None) -> tuple[Floats, Floats]:
        """Mean (D,) and factor (D, k) of the images that are not of `group`; None: of all."""
        number = int((self._group != group).sum()) if group is not None else len(self._group)
        _needs_images(number, 2, "a Fréchet distance")
        if self._features is not None:
            rows = self._features if group is None else self._features[self._group != group]
            mean = rows.mean(0, dtype=np.float64)
            return mean, np.asarray((rows - mean).T / np.sqrt(number - 1))
        known = group is not None and group < self.num_groups
        total = self._sum - self._sums[group] if known else self._sum
        scatter = self._scatter - self._scatters[group] if known else self._scatter
        shift = total / number  # of the mean from the common centre
        covariance = (scatter - number * np.outer(shift, shift)) / (number - 1)
        return self._centre + shift, _factor(covariance)


class KernelReference:
    """Real features (M, D) to which many sets are compared by the kernel distance, whole and without groups of taxa.

    The unbiased squared MMD with the kernel (x·y/D + 1)³ (Bińkowski et al. 2018): its expectation does not depend on
    the numbers of images and is 0 for two draws from one distribution, so it can be negative.

    Pairs are formed block by block and summed by group: time grows with M · N and N², memory does not.

    group: (M,) of each image the group of its taxon, 0 … G−1.
    """

    def __init__(self, real: Floats, group: Groups | None = None) -> None:
        _needs(real, 2, "a kernel distance")
        self._real = real.astype(np.float64)
        self._weights = _one_hot(_one_group(real) if group is None else group)
        self._within = _within(self._real, self._weights)

    def __call__(self, features: Floats) -> float:
        """The distance of (N, D) features to the real ones."""
        return self._whole(features, np.ones((len(features), 1)))[0]

    def replicates(self, features: Floats, group: Groups) -> tuple[float, NDArray[np.float64]]:
        """The distance of (N, D) features, and (G,) the distances without each group on both sides.

        Raises `DataError` where fewer than two images are left on a side.
        """
        weights = _one_hot(group, self._weights.shape[1])
        whole, within, across = self._whole(features, weights)
        real_numbers, numbers = self._weights.sum(0), weights.sum(0)
        without = [
            _squared_mmd(
                _left(self._within, g), _left(within, g), _left(across, g),
                real_numbers.sum() - real_numbers[g], numbers.sum() - numbers[g],
            )
            for g in range(weights.shape[1])
        ]  # fmt: skip
        return whole, np.array(without)

    def _whole(self, features: Floats, weights: Floats) -> tuple[float, Floats, Floats]:
        """The distance, and sums of the kernel by groups: within (G, G) and across (real groups, G)."""
        _needs(features, 2, "a kernel distance")
        features = features.astype(np.float64)
        across = np.zeros((self._weights.shape[1], weights.shape[1]))
        for block in row_blocks(len(self._real), len(features)):
            across += self._weights[block].T @ (_kernel(self._real[block], features) @ weights)
        within = _within(features, weights)
        whole = _squared_mmd(self._within.sum(), within.sum(), across.sum(), len(self._real), len(features))
        return whole, within, across


def _squared_mmd(within_real: float, within: float, across: float, num_real: float, number: float) -> float:
    for images in (num_real, number):
        _needs_images(int(images), 2, "a kernel distance")
    mean_real, mean = within_real / (num_real * (num_real - 1)), within / (number * (number - 1))
    return float(mean_real + mean - 2 * across / (num_real * number))


def _left(sums: Floats, group: int) -> float:
    """The sum over pairs of groups of which none is `group`."""
    return float(sums.sum() - sums[group].sum() - sums[:, group].sum() + sums[group, group])


def _within(features: Floats, weights: Floats) -> NDArray[np.float64]:
    """(G, G) sums of the kernel over ordered pairs of two images by group; each pair of blocks is formed once."""
    found = np.zeros((weights.shape[1], weights.shape[1]))
    for block in row_blocks(len(features), len(features)):
        pairs = _kernel(features[block], features[block.start :])  # the blocks before have met this one
        size = block.stop - block.start
        own, later = pairs[:, :size], pairs[:, size:]
        np.fill_diagonal(own, 0.0)
        mine = weights[block]
        found += mine.T @ (own @ mine)
        further = mine.T @ (later @ weights[block.stop :])
        found += further + further.T
    return found


def _one_group(features: Floats) -> Groups:
    return np.zeros(len(features), dtype=np.intp)


def _one_hot(group: Groups, num_groups: int | None = None) -> NDArray[np.float64]:
    return np.eye(int(group.max()) + 1 if num_groups is None else num_groups)[group]


def _factor(covariance: Floats) -> Floats:
    """F (D, D) with F Fᵀ the covariance: a triangle, or where rounding forbids it the symmetric root."""
    try:
        return np.asarray(np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:
        return _root(covariance)


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


FRECHET_DISTANCE = Metric(
    key="frechet_distance",
    label="Fréchet distance",
    decimals=2,
    better="less",
    meaning="To training photographs; biased upwards for few images.",
    of=lambda seen: of_replicates(seen.sets.frechet, least=0.0) if seen.sets else None,
    at_once=True,
)
KERNEL_DISTANCE = Metric(
    key="kernel_distance",
    label="Kernel distance",
    decimals=3,
    better="less",
    meaning="Unbiased squared MMD to training photographs; may be negative.",
    of=lambda seen: of_replicates(seen.sets.kernel) if seen.sets else None,
    at_once=True,
)
