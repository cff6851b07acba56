"""A linear discriminant: the classifier of many thousand classes, in closed form and one pass over the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.blocks import row_blocks

# N images, D feature width, K classes
Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

SHRINKAGE = 0.1
"""How far the covariance within classes is drawn towards a multiple of the identity."""


@dataclass(frozen=True, slots=True)
class Discriminant:
    """A fitted discriminant. `predict` answers with positions in `classes`."""

    classes: tuple[str, ...]
    weight: NDArray[np.float32]  # (D, K), for standardised features
    bias: NDArray[np.float32]  # (K,)
    mean: Floats  # (D,)
    scale: Floats  # (D,)

    def predict(self, features: Floats) -> Ints:
        """(N, D) features → (N,) most likely class, as a position in `classes`."""
        found = np.empty(len(features), dtype=np.intp)
        for block in row_blocks(len(features), len(self.classes), 4, block_bytes=1 << 27):
            standard = ((features[block] - self.mean) / self.scale).astype(np.float32)
            scores = standard @ self.weight
            scores += self.bias
            found[block] = scores.argmax(1)
        return found


def fit_discriminant(features: Floats, labels: Ints, classes: tuple[str, ...]) -> Discriminant:
    """Fit on (N, D) features and (N,) labels, positions in `classes`.

    Linear discriminant analysis (Fisher 1936) on standardised features: each class a Gaussian about its mean, all of
    one covariance S, each as likely as another; S is the scatter within classes over N - K, (1 - `SHRINKAGE`) of it,
    the rest tr(S)/D · I. Costs N·D² + K·D², whatever the classes' number of images. Raises `DataError` where fewer than
    two classes, a class without an image, or no class with two different images is given.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if len(classes) < 2 or not counts.all():
        raise DataError(f"a discriminant needs two or more classes with images, got {len(classes)} classes")
    mean = features.mean(0, dtype=np.float64)
    scale = features.std(0, dtype=np.float64)
    constant = scale <= 1e-9 * np.maximum(1.0, np.abs(mean))  # its deviation is seldom exactly 0
    scale[constant] = 1.0  # it says nothing; leave it at zero
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(counts)
    centres = np.stack(
        [features[order[end - n : end]].mean(0, dtype=np.float64) for n, end in zip(counts, ends, strict=True)]
    )
    scatter = np.zeros((len(mean), len(mean)))
    for block in row_blocks(len(features), len(mean), block_bytes=1 << 27):
        within = (features[block] - centres[labels[block]]) / scale
        scatter += within.T @ within
    spread = np.trace(scatter) / len(mean)
    if not spread > 0:
        raise DataError("a discriminant needs a class with two different images, to see how images of one class differ")
    covariance = (1 - SHRINKAGE) * scatter + SHRINKAGE * spread * np.eye(len(mean))
    covariance /= max(1, len(labels) - len(classes))
    standard = (centres - mean) / scale  # (K, D)
    weight = np.linalg.solve(covariance, standard.T)
    bias = -0.5 * np.einsum("kd,dk->k", standard, weight)
    return Discriminant(classes, weight.astype(np.float32), bias.astype(np.float32), mean, scale)
