"""Finds what a video left around a picture: black bands where a crop left the frame, and a burnt-in time stamp."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from taxadiffusion.readers.record import Box

# The constants below were set by eye on the 6,585 crops of the Fish4Knowledge recognition set.
_BLACK = 22  # brightest channel of a band's pixels, after lossy compression
_BLACK_SHARE = 0.97  # of a line's pixels that must be black
_LIT_SHARE = 0.6  # of the first lines inside a band that must be lit: a straight edge, not a subject on a dark ground
_EDGE_PX = 2  # blurred lines beside a band
_MIN_AREA_SHARE = 0.25  # a smaller rest is no sensible picture
_MAX_SIDE_EXAMINED = 512
_MAX_SIDE_WITH_STAMP = 480  # video frames; larger pictures are never searched for text
_GLYPH_PX = 11  # height of a stamp's digits
_MAX_STAMP_PX = 14  # how far below the frame's upper edge a stamp reaches
_MAX_SPACE_PX = 12  # between date and time; a crop cuts a stamp at its edge, so a short piece lies no farther from it
_LONG_STAMP_PX = 74  # a piece this long may lie anywhere
_MAX_STAMP_SHARE = 0.35  # of the height; cutting more would lose the subject


def content_box(image: Image.Image) -> Box | None:
    """The rectangle without black border bands and without a time stamp along the upper edge; None: all of the picture.

    A band is a run of near-black border lines that ends in a straight, lit edge. A stamp is a row of thin white,
    dark-edged strokes within 14 px of the upper edge, with nothing like them below. Both rules prefer to leave a
    picture alone.
    """
    stride = math.ceil(max(image.size) / _MAX_SIDE_EXAMINED)
    pixels = np.asarray(image)[::stride, ::stride]  # (h, w, 3)
    left, top, right, bottom = _without_bands(pixels.max(axis=2))
    if (right - left) * (bottom - top) < _MIN_AREA_SHARE * pixels.shape[0] * pixels.shape[1]:
        return None
    if stride == 1 and max(image.size) <= _MAX_SIDE_WITH_STAMP:
        top += _stamp_height(pixels[top:bottom, left:right])
    height, width = pixels.shape[:2]
    if (left, top, right, bottom) == (0, 0, width, height):
        return None
    x, y = left * stride, top * stride
    return Box(x, y, min(right * stride, image.width) - x, min(bottom * stride, image.height) - y)


def _without_bands(brightest: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """left, top, right, bottom of `brightest` (h, w) without bands; a band without a straight lit edge stays."""
    sides = {"left", "top", "right", "bottom"}
    height, width = brightest.shape
    while True:
        left, top, right, bottom = _peeled(brightest <= _BLACK, sides)
        inner = brightest[top:bottom, left:right] > _BLACK
        if inner.size == 0:
            return 0, 0, width, height
        lit = {
            "left": left == 0 or inner[:, _EDGE_PX : _EDGE_PX + 3].mean() >= _LIT_SHARE,
            "right": right == width or inner[:, -_EDGE_PX - 3 :][:, :3].mean() >= _LIT_SHARE,
            "top": top == 0 or inner[_EDGE_PX : _EDGE_PX + 3].mean() >= _LIT_SHARE,
            "bottom": bottom == height or inner[-_EDGE_PX - 3 :][:3].mean() >= _LIT_SHARE,
        }
        if all(lit[side] for side in sides):
            break
        sides = {side for side in sides if lit[side]}
    return (
        left + (_EDGE_PX if left else 0),
        top + (_EDGE_PX if top else 0),
        right - (_EDGE_PX if right < width else 0),
        bottom - (_EDGE_PX if bottom < height else 0),
    )


def _peeled(black: npt.NDArray[np.bool_], sides: set[str]) -> tuple[int, int, int, int]:
    bottom, right = black.shape
    left = top = 0
    while True:
        before = (left, top, right, bottom)
        rows = black[top:bottom, left:right].mean(axis=1) >= _BLACK_SHARE
        if rows.all():
            return left, top, left, top
        if "top" in sides:
            top += int(np.argmin(rows))
        if "bottom" in sides:
            bottom -= int(np.argmin(rows[::-1]))
        columns = black[top:bottom, left:right].mean(axis=0) >= _BLACK_SHARE
        if "left" in sides:
            left += int(np.argmin(columns))
        if "right" in sides:
            right -= int(np.argmin(columns[::-1]))
        if (left, top, right, bottom) == before:
            return before


def _stamp_height(pixels: npt.NDArray[np.uint8]) -> int:
    """Lines that a time stamp takes from the top of `pixels` (h, w, 3); 0 without one."""
    height, width = pixels.shape[:2]
    if height < _MAX_STAMP_PX + 10:
        return 0
    strokes = _strokes(pixels[: _MAX_STAMP_PX + 24])
    best, best_score = 0, 0.0
    for end in range(1, _MAX_STAMP_PX + 1):
        start = max(0, end - _GLYPH_PX)
        first, last, num_strokes = _longest_run(strokes[start:end])
        if not num_strokes:
            continue
        below = strokes[end + 1 : end + 11, first:last]
        score = (num_strokes / (end - start) - 1.5 * below.sum() / len(below)) * math.sqrt(end - start)
        if score > best_score:
            others = int(strokes[:end].sum()) - num_strokes + int(strokes[end + 1 : end + 21].sum())
            at_edge = min(first, width - last) <= _MAX_SPACE_PX or last - first >= _LONG_STAMP_PX
            strong = score >= 12 and others <= num_strokes
            weak = num_strokes >= 4 and others <= 0.35 * num_strokes and score >= 2.5 + 0.25 * others
            best, best_score = (end if at_edge and (strong or weak) else 0), score
    cut = min(best + 2, height) if best else 0
    return cut if cut <= _MAX_STAMP_SHARE * height else 0


def _strokes(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Where `pixels` (h, w, 3) are white, neutral and 60 grey levels above something within 3 px on both sides."""
    values = pixels.astype(np.int16)
    darkest, brightest = values.min(axis=2), values.max(axis=2)
    grey = (3 * values[..., 0] + 6 * values[..., 1] + values[..., 2]) // 10
    padded = np.pad(grey, ((0, 0), (3, 3)), mode="edge")
    width = grey.shape[1]
    left = np.minimum.reduce([padded[:, 3 - d : 3 - d + width] for d in (1, 2, 3)])
    right = np.minimum.reduce([padded[:, 3 + d : 3 + d + width] for d in (1, 2, 3)])
    outlined: npt.NDArray[np.bool_] = (grey - np.maximum(left, right) >= 60) & (darkest >= 130)
    neutral: npt.NDArray[np.bool_] = brightest - darkest <= 70
    return outlined & neutral


def _longest_run(strokes: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    """First and last column (exclusive, 2 px of margin) and number of strokes of the richest run of columns."""
    columns = np.flatnonzero(strokes.any(axis=0))
    if not len(columns):
        return 0, 0, 0
    breaks = np.flatnonzero(np.diff(columns) > _MAX_SPACE_PX + 2)
    starts = np.concatenate([columns[:1], columns[breaks + 1]])
    ends = np.concatenate([columns[breaks], columns[-1:]]) + 1
    per_column = strokes.sum(axis=0)
    counts = [int(per_column[a:b].sum()) for a, b in zip(starts, ends, strict=True)]
    best = int(np.argmax(counts))
    return max(0, int(starts[best]) - 2), min(strokes.shape[1], int(ends[best]) + 2), counts[best]
