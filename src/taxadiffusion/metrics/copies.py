"""Is a picture a copy of a photograph? Compared place by place, over mirrors and crops, whatever became of colours."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.blocks import row_blocks

# M pictures, N photographs, K candidates, V windows, S cells along a side, P = Σ 3·S² values of a picture's maps
Floats = NDArray[np.floating]
Maps = NDArray[np.float32]
PicturePart = Literal["picture", "animal", "scene"]

PARTS: tuple[PicturePart, ...] = ("picture", "animal", "scene")
"""What is compared: all of it, its middle (prepared photographs are cut about the animal), or what surrounds that."""

_LEVELS = ((32, 4), (16, 16))
"""Cells along a side, and the radius in cells within which contrast is taken: fine structure of its surroundings, and
coarse structure of all of the picture. The coarse one survives more noise, the fine one tells more pictures apart."""
_FAINT = 5.0  # of 255 levels: structure fainter than this is not made as strong as any other
_NEARLY = 0.9999  # of a likeness: equal pictures differ by rounding
_MANY = 20  # photographs of one moment: more that are alike make a picture no copy of any
_SCALES = (0.95, 0.9, 0.85)  # of a crop's side; 0.9 is a crop by a tenth
_ANIMAL_RADIUS, _SCENE_RADIUS = 0.6, 0.8  # of half a frame: what lies between counts little for either

_Window = tuple[float, float, float]
"""Scale, top and left of a crop, in sides of the frame."""


def contrast_maps(images: NDArray[np.uint8]) -> Maps:
    """uint8 (N, 3, h, w) → (N, P): each channel less its local mean, over its local spread, at both levels.

    A gain or an offset of a channel, over all of the picture or slowly varying, leaves them nearly as they were.
    """
    return np.concatenate([_at_level(images, *level).reshape(len(images), -1) for level in _LEVELS], axis=1)


def likeness(pictures: Maps, photographs: Maps, candidates: NDArray[np.integer]) -> dict[PicturePart, Floats]:
    """How like (M, P) pictures are to their (M, K) candidates among (N, P) photographs: (M, K) by part.

    Of each level and part the largest cosine of contrast over all alignments: the picture or its mirror image laid on
    the whole photograph or on a crop of it (28 windows). 1: the same; about 0: nothing in common. Levels are joined by
    the mean of Fisher's z; so are, for `picture`, the frame and the animal, which is what matters. A picture's values
    depend on it and its candidates alone.
    """
    if candidates.shape[:1] != pictures.shape[:1]:
        raise ValueError("a row of candidates for each picture")
    found: dict[PicturePart, Floats] = {part: np.empty(candidates.shape, dtype=np.float32) for part in PARTS}
    for i, picture in enumerate(pictures):
        shown = photographs[candidates[i]]  # (K, P)
        z = {part: np.zeros(candidates.shape[1]) for part in PARTS}
        start = 0
        for side, _ in _LEVELS:
            cells = slice(start, start + 3 * side * side)
            start = cells.stop
            best = _best_laid(picture[cells].reshape(3, side, side), shown[:, cells].reshape(-1, 3, side, side))
            for part in PARTS:
                z[part] += _fisher(best[part]) / len(_LEVELS)
        z["picture"] = (z["picture"] + z["animal"]) / 2
        for part in PARTS:
            found[part][i] = np.tanh(z[part])
    return found


def middle_of(size_px: int, radius: float = _ANIMAL_RADIUS) -> Floats:
    """(size_px, size_px): how much of each place belongs to the animal, 1 in the middle, falling as a Gaussian."""
    along = (np.arange(size_px) + 0.5) / size_px * 2 - 1
    return np.asarray(np.exp(-((np.hypot(along[:, None], along) / radius) ** 2)))


def candidates(queries: Floats, photographs: Floats, number: int) -> NDArray[np.intp]:
    """For each of (M, D) features the `number` nearest of (N, D) by cosine, nearest first: (M, min(number, N))."""
    number = min(number, len(photographs))
    if not number:
        raise DataError("no photograph to look for copies of")
    lengths = np.sqrt(np.einsum("nd,nd->n", photographs, photographs)).clip(1e-12)
    found = np.empty((len(queries), number), dtype=np.intp)
    for block in row_blocks(len(queries), len(photographs), 4):
        cosine = queries[block] @ photographs.T / lengths  # times the query's length, which orders nothing
        some = np.argpartition(-cosine, number - 1, axis=1)[:, :number] if number < len(photographs) else None
        if some is None:
            some = np.broadcast_to(np.arange(number), cosine.shape)
        order = np.argsort(-np.take_along_axis(cosine, some, 1), axis=1, kind="stable")
        found[block] = np.take_along_axis(some, order, 1)
    return found


def standing(likenesses: Floats) -> Floats:
    """How far the best of a picture's candidates stands above the others: (M, K) → (M,).

    Fisher's z of the largest likeness less that of the 21st, or of the least where there are fewer. Blurred
    pictures and plain water are like everything; a copy is like one photograph, or the few that were taken with it.
    """
    others = min(_MANY, likenesses.shape[1] - 1)
    ordered = np.sort(_fisher(likenesses), axis=1)[:, ::-1]
    return np.asarray(ordered[:, 0] - ordered[:, others])


def threshold_at(unseen: Floats, expected: float) -> float | None:
    """The value above which at most `expected` of further unseen photographs come, given those of (N,) unseen ones.

    The k-th largest with k = ⌊expected · (N + 1)⌋: of photographs drawn alike, another one lies above it with
    probability k / (N + 1), whatever the distribution. None where k = 0: too few, 99 are needed for 1 %.
    """
    rank = int(np.floor(expected * (len(unseen) + 1) + 1e-9))
    return float(np.sort(unseen)[-rank]) if rank else None


def _best_laid(picture: Maps, shown: Maps) -> dict[PicturePart, Floats]:
    """(3, S, S) picture, (K, 3, S, S) photographs → largest cosine (K,) over all windows and the mirror, by part."""
    side = picture.shape[-1]
    laid = _laid(np.stack([picture, picture[..., ::-1]]))  # (2, V, 3, S, S)
    energy = (laid**2).sum(2).reshape(*laid.shape[:2], -1)  # (2, V, S·S)
    shown_energy = (shown**2).sum(1).reshape(len(shown), -1)  # (K, S·S)
    flat = shown.reshape(len(shown), -1)
    best: dict[PicturePart, Floats] = {}
    for part in PARTS:
        weight = _weights(part, side)  # (V, S·S)
        products = (laid * weight.reshape(-1, 1, side, side)).reshape(-1, flat.shape[1]) @ flat.T  # (2·V, K)
        own = np.sqrt(np.einsum("mvp,vp->mv", energy, weight)).reshape(-1, 1)  # (2·V, 1)
        theirs = np.sqrt(shown_energy @ weight.T).T  # (V, K)
        best[part] = (products / (own * np.concatenate([theirs, theirs])).clip(1e-6)).max(0)
    return best


def _at_level(images: NDArray[np.uint8], side: int, radius: int) -> Maps:
    """(N, 3, S, S)."""
    rows, columns = (_resampling(size, side) for size in images.shape[2:])
    small = rows @ images.astype(np.float32) @ columns.T
    near = np.abs(np.subtract.outer(np.arange(side), np.arange(side))) <= radius
    box = (near / near.sum(1, keepdims=True)).astype(np.float32)
    mean = box @ small @ box.T
    spread = np.sqrt((box @ small**2 @ box.T - mean**2).clip(0) + _FAINT**2)
    return np.asarray((small - mean) / spread, dtype=np.float32)


def _laid(pictures: Maps) -> Maps:
    """(M, 3, S, S) → (M, V, 3, S, S): each picture scaled into each window of a frame, 0 outside it."""
    rows, columns = _window_matrices(pictures.shape[-1])
    return np.asarray(rows[:, None] @ pictures[:, None] @ columns[:, None].transpose(0, 1, 3, 2))


def _fisher(likenesses: Floats) -> Floats:
    return np.asarray(np.arctanh(likenesses.clip(-_NEARLY, _NEARLY)))


def _windows() -> tuple[_Window, ...]:
    crops = product(_SCALES, (0.0, 0.5, 1.0), (0.0, 0.5, 1.0))
    return ((1.0, 0.0, 0.0), *((scale, top * (1 - scale), left * (1 - scale)) for scale, top, left in crops))


@lru_cache(len(_LEVELS))
def _window_matrices(side: int) -> tuple[Maps, Maps]:
    """(V, S, S) each: rows and columns of a frame from those of a picture that is laid into its window."""
    rows = [_placing(side, scale, top) for scale, top, _ in _windows()]
    columns = [_placing(side, scale, left) for scale, _, left in _windows()]
    return np.stack(rows), np.stack(columns)


@lru_cache(len(PARTS) * len(_LEVELS))
def _weights(part: PicturePart, side: int) -> Maps:
    """(V, S·S): how much each cell of a frame counts, by window; 0 outside it."""
    middle = middle_of(side)
    weight = {"picture": np.ones_like(middle), "animal": middle, "scene": 1 - middle_of(side, _SCENE_RADIUS)}[part]
    rows, columns = _window_matrices(side)
    inside = (rows.sum(2) > 0)[:, :, None] & (columns.sum(2) > 0)[:, None]  # (V, S, S)
    return np.asarray((inside * weight).reshape(len(inside), -1), dtype=np.float32)


def _placing(side: int, scale: float, start: float) -> Maps:
    """(S, S): a line of a frame from a picture's, laid into [start, start + scale); rows outside are 0."""
    cells = (np.arange(side) + 0.5) / side
    at = (cells - start) / scale * side - 0.5  # in cells of the picture
    inside = (at >= -0.5) & (at <= side - 0.5)
    return np.asarray(_tent(at.clip(0, side - 1), side, 1.0) * inside[:, None], dtype=np.float32)


def _resampling(size: int, side: int) -> Maps:
    """(side, size): averages of the pixels about the centres of `side` cells."""
    step = size / side
    return np.asarray(_tent((np.arange(side) + 0.5) * step - 0.5, size, max(step, 1.0)), dtype=np.float32)


def _tent(at: Floats, size: int, reach: float) -> Floats:
    """(len(at), size): linear weights of the pixels within `reach` of each place; each row adds up to 1."""
    weights = (1 - np.abs(np.arange(size) - at[:, None]) / reach).clip(0)
    return np.asarray(weights / weights.sum(1, keepdims=True))
