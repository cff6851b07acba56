"""Perceptual hashes: equal or nearly equal for copies of one picture that differ in size or compression."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

_MIN_CONTRAST = 4.0  # grey levels; a flatter picture has no gradient worth comparing
_BITS_SET = np.array([value.bit_count() for value in range(256)], dtype=np.uint8)


def perceptual_hash(image: Image.Image) -> int | None:
    """64 bits: whether each of 8×8 cells is darker than its right neighbour (difference hash); None when flat."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)  # (8, 9)
    if grey.std() < _MIN_CONTRAST:
        return None
    bits = (grey[:, :-1] < grey[:, 1:]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hamming(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Number of differing bits, elementwise."""
    differing = np.ascontiguousarray(np.bitwise_xor(a, b))
    counts: npt.NDArray[np.int64] = (
        _BITS_SET[differing.view(np.uint8)].reshape(*differing.shape, 8).sum(-1, dtype=np.int64)
    )
    return counts
