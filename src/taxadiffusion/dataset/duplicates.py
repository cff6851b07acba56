"""Pictures that are the same or nearly the same: repeated rows, equal files, and look-alikes across splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taxadiffusion.images import hamming

UInts = npt.NDArray[np.uint64]
MAX_DISTANCE = 3  # differing bits of 64; four bands of 16 bits then share at least one
MAX_LAYOUT_DISTANCE = 1.6  # different photographs of the reef-fish set differ by more; copies by less than 1.5 in 99 %
_BANDS = 4
_MAX_PER_BAND = 20_000  # pictures with one band value; more say nothing about likeness


@dataclass(frozen=True)
class Repeats:
    """`repeated` (N,): the row repeats an earlier one. `contradicting`: pairs of rows, one key but two taxa."""

    repeated: npt.NDArray[np.bool_]
    contradicting: list[tuple[int, int]]


def find_repeats(keys: UInts, taxon_ids: npt.NDArray[np.int32], usable: npt.NDArray[np.bool_]) -> Repeats:
    """Among the `usable` of N rows, those whose key an earlier usable row has."""
    rows = np.flatnonzero(usable)
    _, first, inverse = np.unique(keys[rows], return_index=True, return_inverse=True)
    first_row = rows[first[inverse]]
    repeated = np.zeros(len(keys), np.bool_)
    repeated[rows] = first_row != rows
    differs = taxon_ids[rows] != taxon_ids[first_row]
    contradicting = list(zip(first_row[differs].tolist(), rows[differs].tolist(), strict=True))
    return Repeats(repeated, contradicting)


def near_duplicates(hashes: UInts, splits: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """Pairs (P, 2) of rows in different splits whose hashes differ in at most `MAX_DISTANCE` bits, sorted.

    Candidates only: plain pictures of different things share hashes too. `MAX_LAYOUT_DISTANCE` tells them apart.
    """
    found = [np.zeros((0, 2), np.int64)]
    for band in range(_BANDS):
        values = ((hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)).astype(np.uint16)
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0]) if len(order) else np.zeros(0, np.int64)
        for rows in np.split(order, starts[1:]):
            if 1 < len(rows) <= _MAX_PER_BAND and len(np.unique(splits[rows])) > 1:
                found.append(_pairs_within(rows, hashes, splits))
    return np.unique(np.concatenate(found), axis=0)


def _pairs_within(rows: npt.NDArray[np.int64], hashes: UInts, splits: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    training = rows[splits[rows] == 0]
    pairs = [np.zeros((0, 2), np.int64)]
    for row in rows[splits[rows] != 0]:  # held-out rows are few; each meets the bucket in one vector operation
        others = np.concatenate([training, rows[splits[rows] > splits[row]]])
        near = others[hamming(hashes[others], hashes[row]) <= MAX_DISTANCE]
        pairs.append(np.stack([np.minimum(near, row), np.maximum(near, row)], axis=1))
    return np.concatenate(pairs)
