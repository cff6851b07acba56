"""Large matrices a few rows at a time, so that memory does not grow with the number of pairs."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK_BYTES = 1 << 25
"""Bytes of a block of pairs that is held at once: little beside the features, and near to what a processor's cache
holds."""


def row_blocks(num_rows: int, num_columns: int, item_bytes: int = 8, block_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Slices of rows, in order, each so many that a block of all columns takes about `block_bytes`; one at least."""
    rows = max(1, block_bytes // max(1, num_columns * item_bytes))
    for start in range(0, num_rows, rows):
        yield slice(start, min(start + rows, num_rows))
