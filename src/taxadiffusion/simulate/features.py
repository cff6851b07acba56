"""Plain, fixed features of pictures of fish: colour layout, edges and colour counts, computed by numpy alone.

Letters: N pictures, F features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError

FEATURE_PX = 64  # pictures are reduced to this side first
_CELLS = 16  # colour layout
_BLOCKS = 8  # edge layout
_DIRECTIONS = 6
_LEVELS = 5  # of each colour channel in the colour counts
_CHUNK = 256  # pictures at a time

Array = NDArray[np.float32]


def features(pixels: Array) -> Array:
    """Features (N, F) of pictures (N, 3, 64, 64) in 0 … 1, as `reduced` gives them."""
    chunks = [pixels[start : start + _CHUNK] for start in range(0, len(pixels), _CHUNK)]
    return np.concatenate([np.concatenate([_layout(c), _edges(c), _counts(c)], axis=1) for c in chunks])


def reduced(images: NDArray[np.uint8]) -> Array:
    """Pictures uint8 (N, 3, H, H) → float32 (N, 3, 64, 64) in 0 … 1 by block means.

    Raises `DataError` for no pictures, another shape, or an H that is no multiple of 64.
    """
    shape = images.shape
    if (
        len(shape) != 4
        or not shape[0]
        or shape[1] != 3
        or shape[2] != shape[3]
        or not shape[2]
        or shape[2] % FEATURE_PX
    ):
        raise DataError(f"pictures to measure are uint8 (N, 3, H, H) with H a multiple of {FEATURE_PX}, got {shape}")
    step = shape[2] // FEATURE_PX
    cells = images.reshape(shape[0], 3, FEATURE_PX, step, FEATURE_PX, step)
    pixels: Array = cells.mean(axis=(3, 5), dtype=np.float32) / np.float32(255.0)
    return pixels


def straightened(pixels: Array, poses: NDArray[np.float64]) -> Array:
    """Each picture moved, turned and scaled so that the fish lies level and fills 0.88 of the width (N, 3, 64, 64).

    `poses` (N, 4): centre x and y (shares of the width from the middle, y upwards), rotation (degrees
    counter-clockwise), log of the length / width.
    """
    size = pixels.shape[-1]
    centres = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    out = np.empty_like(pixels)
    for picture, target, (centre_x, centre_y, rotation, log_length) in zip(pixels, out, poses, strict=True):
        zoom = np.exp(log_length) / 0.88
        cos, sin = zoom * np.cos(np.deg2rad(rotation)), zoom * np.sin(np.deg2rad(rotation))
        x = centre_x + cos * centres[None] + sin * centres[:, None]
        y = -centre_y - sin * centres[None] + cos * centres[:, None]
        columns = np.clip((x + 0.5) * size - 0.5, 0.0, size - 1.001).astype(np.float32)
        rows = np.clip((y + 0.5) * size - 0.5, 0.0, size - 1.001).astype(np.float32)
        left, top = columns.astype(np.int64), rows.astype(np.int64)
        right_share, low_share = columns - left, rows - top
        corner = top * size + left
        flat = picture.reshape(3, -1)
        upper = flat[:, corner] * (1.0 - right_share) + flat[:, corner + 1] * right_share
        lower = flat[:, corner + size] * (1.0 - right_share) + flat[:, corner + size + 1] * right_share
        target[:] = upper * (1.0 - low_share) + lower * low_share
    return out


def _blocks(pixels: Array, count: int) -> Array:
    """Means over count × count blocks: (N, C, count, count)."""
    step = pixels.shape[-1] // count
    means: Array = pixels.reshape(*pixels.shape[:2], count, step, count, step).mean(axis=(3, 5))
    return means


def _layout(pixels: Array) -> Array:
    return _blocks(pixels, _CELLS).reshape(len(pixels), -1)


def _edges(pixels: Array) -> Array:
    """How strong the edges of each direction are in each block: (N, directions · blocks²)."""
    down, right = np.gradient(pixels.mean(axis=1), axis=(1, 2))  # (N, 64, 64)
    strength = np.hypot(down, right)
    angle = np.mod(np.arctan2(down, right), np.float32(np.pi)) * np.float32(_DIRECTIONS / np.pi)
    lower = angle.astype(np.int64) % _DIRECTIONS
    share = angle % np.float32(1.0)  # of the next direction; the rest belongs to the lower one
    layers = np.zeros((len(pixels), _DIRECTIONS, *angle.shape[1:]), dtype=np.float32)
    np.put_along_axis(layers, lower[:, None], (strength * (1.0 - share))[:, None], axis=1)
    np.put_along_axis(layers, ((lower + 1) % _DIRECTIONS)[:, None], (strength * share)[:, None], axis=1)
    edges: Array = np.sqrt(_blocks(layers, _BLOCKS) + np.float32(1e-4)).reshape(len(pixels), -1)
    return edges


def _counts(pixels: Array) -> Array:
    """Square roots of the shares of coarse colours in the middle of the picture: (N, levels³)."""
    level = np.clip((pixels[:, :, 12:52, 6:58] * _LEVELS).astype(np.int64), 0, _LEVELS - 1)
    code = ((level[:, 0] * _LEVELS + level[:, 1]) * _LEVELS + level[:, 2]).reshape(len(pixels), -1)
    kinds = _LEVELS**3
    counts = np.bincount((np.arange(len(pixels))[:, None] * kinds + code).ravel(), minlength=len(pixels) * kinds)
    shares: Array = np.sqrt(counts.reshape(-1, kinds) / code.shape[1]).astype(np.float32)
    return shares
