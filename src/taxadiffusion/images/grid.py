"""Contact sheets: pictures in rows with captions."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_GAP_PX = 4
_SMALLEST_FONT_PX = 9
_INK, _PAPER = (40, 40, 40), (255, 255, 255)
# Pillow's own font draws ASCII and an ellipsis, and an empty box for everything else.
_SPELLED = str.maketrans({"×": "x", "–": "-", "—": "-", "ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "œ": "oe"})


def image_grid(
    images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
    columns: int,
    captions: Sequence[str] | None = None,
    *,
    cell_px: int | None = None,
) -> Image.Image:
    """Pictures, uint8 (B, 3, H, W) or a sequence of (3, H, W) of any sizes, row by row on white, each over its caption.

    `cell_px` is the side of a cell, by default the largest picture's; pictures are scaled to fit with the aspect kept,
    small ones by whole numbers without smoothing. Long captions wrap onto two lines, in letters small enough for their
    longest word, and are cut where that would be too small to read; letters beyond ASCII lose their accents or become
    "?". Raises `ValueError` when there are no pictures or the captions' number differs.
    """
    if not len(images) or columns < 1:
        raise ValueError("a grid needs at least one picture and one column")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} pictures")
    cell_px = cell_px or max(max(picture.shape[1:]) for picture in images)
    drawable = [_drawable(caption) for caption in captions or ()]
    font_px = _font_px(drawable, cell_px)
    font = ImageFont.load_default(size=font_px)
    lines = [_wrapped(caption, font, cell_px) for caption in drawable]
    caption_px = (font_px + 3) * max((len(two) for two in lines), default=0)
    rows, columns = math.ceil(len(images) / columns), min(columns, len(images))
    step_x, step_y = cell_px + _GAP_PX, cell_px + caption_px + _GAP_PX
    sheet = Image.new("RGB", (columns * step_x + _GAP_PX, rows * step_y + _GAP_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, picture in enumerate(images):
        x, y = _GAP_PX + index % columns * step_x, _GAP_PX + index // columns * step_y
        scaled = _scaled(picture, cell_px)
        sheet.paste(scaled, (x + (cell_px - scaled.width) // 2, y + (cell_px - scaled.height) // 2))
        for number, line in enumerate(lines[index] if lines else ()):
            draw.text((x, y + cell_px + 1 + number * (font_px + 3)), line, fill=_INK, font=font)
    return sheet


def _drawable(caption: str) -> str:
    """The caption in letters that the font has."""
    decomposed = unicodedata.normalize("NFKD", caption.translate(_SPELLED))
    bare = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return bare.encode("ascii", "replace").decode("ascii")


def _font_px(captions: Sequence[str], cell_px: int) -> int:
    largest = min(16, max(_SMALLEST_FONT_PX, cell_px // 9))
    words = {word for caption in captions for word in caption.split()}
    for font_px in range(largest, _SMALLEST_FONT_PX, -1):
        font = ImageFont.load_default(size=font_px)
        if all(font.getlength(word) <= cell_px for word in words):
            return font_px
    return _SMALLEST_FONT_PX


def _scaled(picture: npt.NDArray[np.uint8], cell_px: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    scale = cell_px / max(image.size)
    if scale >= 2:
        whole = int(scale)
        return image.resize((image.width * whole, image.height * whole), Image.Resampling.NEAREST)
    if scale == 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _wrapped(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> list[str]:
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    kept = lines[:2] if len(lines) <= 2 else [lines[0], " ".join(lines[1:])]
    return [_cut(line, font, width_px) for line in kept]


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    if font.getlength(line) <= width_px:
        return line
    while line and font.getlength(line + "…") > width_px:
        line = line[:-1]
    return line + "…"
