"""Pictures to squares of one size with their aspect kept: shape is a character of a species."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from taxadiffusion.errors import SettingsError
from taxadiffusion.images.decode import Seen, decode_image, read_image_file
from taxadiffusion.readers.record import Box

Fit = Literal["crop", "pad", "box"]
FITS: tuple[str, ...] = get_args(Fit)
BOX_MARGIN = 0.1  # of the box's longer side, on each side


def load_image(
    path: Path,
    size_px: int,
    fit: Fit = "crop",
    box: Box | None = None,
    content: Box | None = None,
    seen: Seen | None = None,
) -> npt.NDArray[np.uint8]:
    """The file as uint8 (3, size_px, size_px). Raises `ImageError`, also for a file that is not as it was `seen`.

    `content` (a prepared set's content box) is the part that counts as the picture. `crop` takes its centre square,
    `pad` all of it on a square of its border's mean colour, `box` a square around `box` with a margin (a picture
    without a box is cropped). `box` and `content` are in pixels of the upright, full-size picture.
    """
    if fit not in FITS:
        raise SettingsError(f"unknown fit {fit!r}; use {', '.join(FITS)}")
    region = box if fit == "box" and box is not None else content
    at_least_px = 2 * size_px if region is None else None
    decoded = decode_image(read_image_file(path, seen), path, at_least_px=at_least_px)
    return fit_image(decoded.picture, size_px, fit, _scaled(box, decoded.scale), _scaled(content, decoded.scale))


def fit_image(
    image: Image.Image, size_px: int, fit: Fit = "crop", box: Box | None = None, content: Box | None = None
) -> npt.NDArray[np.uint8]:
    """An RGB picture as uint8 (3, size_px, size_px), its aspect kept (F7); see `load_image`."""
    left, top, right, bottom = _inside(content, image) or (0.0, 0.0, float(image.width), float(image.height))
    target = _inside(box, image) if fit == "box" else None
    if target is not None:
        side = max(target[2] - target[0], target[3] - target[1]) * (1 + 2 * BOX_MARGIN)
        left, right = _interval((target[0] + target[2]) / 2, side, left, right)
        top, bottom = _interval((target[1] + target[3]) / 2, side, top, bottom)
    elif fit != "pad":
        side = min(right - left, bottom - top)
        left, right = _interval((left + right) / 2, side, left, right)
        top, bottom = _interval((top + bottom) / 2, side, top, bottom)
    scale = size_px / max(right - left, bottom - top)
    width = min(size_px, max(1, round((right - left) * scale)))
    height = min(size_px, max(1, round((bottom - top) * scale)))
    small = image.resize((width, height), Image.Resampling.LANCZOS, (left, top, right, bottom), reducing_gap=3.0)
    pixels = np.asarray(small)  # (h, w, 3)
    if (width, height) != (size_px, size_px):
        pixels = _padded(pixels, size_px)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _interval(centre: float, side: float, low: float, high: float) -> tuple[float, float]:
    """`side` long around `centre`, moved and if need be shortened to lie within [low, high]."""
    side = min(side, high - low)
    start = min(max(centre - side / 2, low), high - side)
    return start, start + side


def _padded(pixels: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    square = np.empty((size_px, size_px, 3), np.uint8)
    square[:] = np.round(border.mean(axis=0)).astype(np.uint8)
    top, left = (size_px - height) // 2, (size_px - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def _scaled(box: Box | None, scale: float) -> Box | None:
    if box is None or scale == 1:
        return box
    return Box(box.x * scale, box.y * scale, box.width * scale, box.height * scale)


def _inside(box: Box | None, image: Image.Image) -> tuple[float, float, float, float] | None:
    """The box's part within the picture; None without a part of at least one pixel."""
    if box is None:
        return None
    left, top = max(0.0, box.x), max(0.0, box.y)
    right, bottom = min(float(image.width), box.x + box.width), min(float(image.height), box.y + box.height)
    return (left, top, right, bottom) if right - left >= 1 and bottom - top >= 1 else None
