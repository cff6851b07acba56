"""The order of samples: a function of (seed, epoch), computed where it is needed and never stored.

Sample number n of a run (n = step · batch size + position) is draw n mod N of epoch n div N. An epoch is a keyed
permutation of 0 … N−1 (a Feistel network over the next power of four, walked until it lands inside: Black and Rogaway,
2002), so a batch costs the same at 10³ and at 10⁸ images, any process can compute any part of it, and no epoch repeats
or misses an image. Batches run over the border of two epochs; nothing is padded or dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.trainer.randomness import mixed

_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Part:
    """Images that together get `share` of the draws: their rows (N,), and the taxon of each (N,)."""

    rows: NDArray[np.int64]
    taxon_ids: NDArray[np.int32]
    share: float


@dataclass(frozen=True)
class Order:
    """Which image each sample number is. `rows` are the images; `edges` balances them (see `balanced`)."""

    seed: int
    rows: NDArray[np.int64]  # (N,)
    edges: NDArray[np.float64] | None = None  # (N,) cumulative weights, the last is 1

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise DataError("no image to train on: the training split is empty; prepare a source that has images")

    @classmethod
    def balanced(cls, seed: int, rows: NDArray[np.int64], taxon_ids: NDArray[np.int32], power: float) -> Order:
        """Each taxon is drawn in proportion to (its number of images)^(1 − power).

        `power` 0 shows every image once an epoch, 0.5 goes by the square root, 1 shows every taxon equally often.
        An epoch is N draws by systematic sampling: an image of expected count c comes floor(c) or ceil(c) times.
        """
        if not 0 <= power <= 1:
            raise ValueError(f"power lies in [0, 1], got {power}")
        if power == 0:
            return cls(seed, rows)
        by_taxon, weights = _weighted(taxon_ids, power)
        edges = np.cumsum(weights)
        return cls(seed, rows[by_taxon], edges / edges[-1])

    @classmethod
    def mixed(cls, seed: int, parts: Sequence[Part], power: float) -> Order:
        """Each part gets its share of the draws and is balanced within itself, as by `balanced`."""
        rows, weights = [], []
        for part in parts:
            if len(part.rows):
                by_taxon, own = _weighted(part.taxon_ids, power)
                rows.append(part.rows[by_taxon])
                weights.append(own * (part.share / own.sum()))
        if not rows:
            return cls(seed, np.zeros(0, np.int64))
        edges = np.cumsum(np.concatenate(weights))
        return cls(seed, np.concatenate(rows), edges / edges[-1])

    def rows_at(self, sample_numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The image row of each sample number (≥ 0), any shape."""
        size = len(self.rows)
        epochs, offsets = np.divmod(sample_numbers, size)
        slots = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            slots[here] = permuted(offsets[here], size, key_of(self.seed, int(epoch)))
            if self.edges is not None:
                shift = float(key_of(self.seed, int(epoch), 1)) / 2.0**64
                slots[here] = np.searchsorted(self.edges, (slots[here] + shift) / size, side="right").clip(0, size - 1)
        return self.rows[slots]


def _weighted(taxon_ids: NDArray[np.int32], power: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(N,) images of a taxon side by side, so that their draws spread evenly, and (N,) the weight of each."""
    by_taxon = np.argsort(taxon_ids, kind="stable")
    _, inverse, counts = np.unique(taxon_ids[by_taxon], return_inverse=True, return_counts=True)
    return by_taxon, counts[inverse].astype(np.float64) ** -power


def key_of(seed: int, epoch: int, purpose: int = 0) -> np.uint64:
    words = np.array([seed & (2**64 - 1), epoch, purpose], dtype=np.uint64)
    return np.uint64(mixed(mixed(mixed(words[0:1]) ^ words[1:2]) ^ words[2:3])[0])


def permuted(offsets: NDArray[np.int64], size: int, key: np.uint64) -> NDArray[np.int64]:
    """The image of each offset (0 … size−1) under the permutation of 0 … size−1 that `key` names."""
    half_bits = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    low = np.uint64((1 << int(half_bits)) - 1)
    values = offsets.astype(np.uint64)
    walking = np.ones(values.shape, dtype=bool)
    while walking.any():
        left, right = values[walking] >> half_bits, values[walking] & low
        for number in range(_ROUNDS):
            left, right = right, left ^ (mixed(right ^ mixed(key + np.array([number], dtype=np.uint64))) & low)
        values[walking] = (left << half_bits) | right
        walking = values >= np.uint64(size)
    return values.astype(np.int64)
