"""Blocks of a report page: text, key figures, tables and grids of pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taxadiffusion.report.page import Html, rendered

JPEG_QUALITY = 90  # a 64 px picture takes about 2 kB


def text(words: str) -> Html:
    """A paragraph."""
    return rendered("text", words)


def note(words: str) -> Html:
    """A paragraph of small print."""
    return rendered("note", words)


def heading(words: str) -> Html:
    """A heading within a section."""
    return rendered("heading", words)


def code(words: str) -> Html:
    """Commands or a configuration, as they are."""
    return rendered("code", words)


def folded(title: str, blocks: Sequence[Html]) -> Html:
    """Blocks that open when the title is clicked."""
    return rendered("folded", title, blocks)


def facts(figures: Mapping[str, str]) -> Html:
    """Key figures as cards: what it is → the figure."""
    return rendered("facts", figures)


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell: `value`, small print under it, and whether it is the best of its column."""

    value: str
    small: str = ""
    best: bool = False


def table(header: Sequence[str], rows: Sequence[Sequence[Cell | str]], caption: str = "") -> Html:
    """A table; the first column is text, the others figures. Rows must be as long as the header (`ValueError`)."""
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under a header of {len(header)}: {row}")
    cells = [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    return rendered("figure", rendered("table", header, cells), caption)


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, uint8 (3, H, W), with words under it."""

    image: NDArray[np.uint8]
    caption: str = ""

    @property
    def uri(self) -> str:
        """`data_uri` of the image."""
        return data_uri(self.image)


@dataclass(frozen=True, slots=True)
class PictureRow:
    """A row of a grid: what it shows, small print, and groups of pictures (say real, generated) set apart by a line."""

    name: str
    groups: tuple[tuple[Picture, ...], ...]
    small: str = ""


def picture_grid(
    rows: Sequence[PictureRow], *, heads: Sequence[str] = (), caption: str = "", shown_px: int = 80
) -> Html:
    """Rows of pictures, each with its name before it, `shown_px` wide; `heads` stand over the groups.

    Rows must have as many groups as there are heads, if there are any (`ValueError`).
    """
    for row in rows:
        if heads and len(row.groups) != len(heads):
            raise ValueError(f"{row.name}: {len(row.groups)} groups of pictures under {len(heads)} heads")
    return rendered("figure", rendered("pictures", rows, heads, shown_px), caption)


def data_uri(image: NDArray[np.uint8]) -> str:
    """A uint8 (3, H, W) image as a `data:` address that holds it as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
