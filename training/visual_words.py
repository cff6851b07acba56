"""Visual words: residual clusters of a network's features, four words a picture, coarse to fine.

They say what pixel measurements cannot, "what it looks like", as CLIP's encoder does for Stable Diffusion. A base that
learnt with them is to be judged by another network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# N pictures, D feature width, A axes, L levels, K codes a level

LEVELS, CODES, NUM_AXES = 4, 64, 48
FILE = "visual_words.npz"
_MOST_FOR_AXES = 8000
_LETTERS = "abcdefghijklmnop"


def word(level: int, code: int) -> str:
    """A visual word, letters alone, so that it stays one token: qxaaf."""
    return "qx" + "abcd"[level] + _LETTERS[code // 16] + _LETTERS[code % 16]


def all_words() -> list[str]:
    return [word(level, code) for level in range(LEVELS) for code in range(CODES)]


@dataclass(frozen=True)
class VisualWords:
    """mean, std (D,); axes (D, A); centres (L, K, A)."""

    mean: NDArray[np.floating]
    std: NDArray[np.floating]
    axes: NDArray[np.floating]
    centres: NDArray[np.floating]

    @classmethod
    def fit(cls, features: NDArray[np.floating], num_codes: int = CODES) -> VisualWords:
        """Of (N, D) features: k-means of what the coarser levels leave over, on the leading principal axes."""
        from sklearn.cluster import MiniBatchKMeans

        mean, std = features.mean(0), features.std(0) + 1e-4
        some = np.random.default_rng(0).permutation(len(features))[:_MOST_FOR_AXES]
        axes = np.linalg.svd((features[some] - mean) / std, full_matrices=False)[2][:NUM_AXES].T
        rest, centres = _projected(features, mean, std, axes), []
        for level in range(LEVELS):
            book = MiniBatchKMeans(num_codes, random_state=level, n_init=4, batch_size=4096, max_iter=200).fit(rest)
            centres.append(book.cluster_centers_)
            rest = rest - book.cluster_centers_[book.predict(rest)]
        return cls(mean, std, axes, np.stack(centres))

    def __call__(self, features: NDArray[np.floating]) -> NDArray[np.intp]:
        """(N, D) → codes (N, L)."""
        rest, found = _projected(features, self.mean, self.std, self.axes), []
        for centres in self.centres:
            code = ((rest[:, None] - centres[None]) ** 2).sum(2).argmin(1)
            rest = rest - centres[code]
            found.append(code)
        return np.stack(found, 1)

    @classmethod
    def read(cls, folder: Path) -> VisualWords:
        with np.load(folder / FILE, allow_pickle=False) as found:
            return cls(found["mean"], found["std"], found["axes"], found["centres"])

    def write(self, folder: Path) -> None:
        np.savez_compressed(folder / FILE, mean=self.mean, std=self.std, axes=self.axes, centres=self.centres)


def _projected(
    features: NDArray[np.floating],
    mean: NDArray[np.floating],
    std: NDArray[np.floating],
    axes: NDArray[np.floating],
) -> NDArray[np.floating]:
    """(N, A), of length 1."""
    found = ((features - mean) / std) @ axes
    return np.asarray(found / (np.linalg.norm(found, axis=1, keepdims=True) + 1e-6))
