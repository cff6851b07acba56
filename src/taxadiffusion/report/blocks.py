"""Blocks of a report page: text, key figures, tables and grids of pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taxadiffusion.report.page import Html, escaped

JPEG_QUALITY = 90  # a 64 px picture takes about 2 kB


def text(words: str) -> Html:
    """A paragraph."""
    return Html(f"<p>{escaped(words)}</p>")


def note(words: str) -> Html:
    """A paragraph of small print."""
    return Html(f'<p class="note">{escaped(words)}</p>')


def heading(words: str) -> Html:
    """A heading within a section."""
    return Html(f"<h3>{escaped(words)}</h3>")


def code(words: str) -> Html:
    """Commands or a configuration, as they are."""
    return Html(f"<pre>{escaped(words)}</pre>")


def folded(title: str, blocks: Sequence[Html]) -> Html:
    """Blocks that open when the title is clicked."""
    return Html(f"<details><summary>{escaped(title)}</summary>{''.join(blocks)}</details>")


def facts(figures: Mapping[str, str]) -> Html:
    """Key figures as cards: what it is → the figure."""
    cards = "".join(
        f"<div><b>{escaped(value)}</b><span>{escaped(name)}</span></div>" for name, value in figures.items()
    )
    return Html(f'<div class="facts">{cards}</div>')


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell: `value`, small print under it, and whether it is the best of its column."""

    value: str
    small: str = ""
    best: bool = False


def table(header: Sequence[str], rows: Sequence[Sequence[Cell | str]], caption: str = "") -> Html:
    """A table; the first column is text, the others figures. Rows must be as long as the header (`ValueError`)."""
    head = "".join(f"<th>{escaped(name)}</th>" for name in header)
    body = []
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under a header of {len(header)}: {row}")
        body.append("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>")
    return Html(
        f'<figure><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        f"{_caption(caption)}</figure>"
    )


def _cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return f"<td>{escaped(cell)}</td>"
    small = f"<small>{escaped(cell.small)}</small>" if cell.small else ""
    return f"<td{' class=best' if cell.best else ''}>{escaped(cell.value)}{small}</td>"


def _caption(words: str) -> str:
    return f"<figcaption>{escaped(words)}</figcaption>" if words else ""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, uint8 (3, H, W), with words under it."""

    image: NDArray[np.uint8]
    caption: str = ""


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
    lines = ["<thead><tr><th></th>" + "".join(f"<th>{escaped(head)}</th>" for head in heads) + "</tr></thead>"]
    for row in rows:
        if heads and len(row.groups) != len(heads):
            raise ValueError(f"{row.name}: {len(row.groups)} groups of pictures under {len(heads)} heads")
        small = f"<small>{escaped(row.small)}</small>" if row.small else ""
        groups = "".join(
            '<td><div class="group">' + "".join(_picture(picture, shown_px) for picture in group) + "</div></td>"
            for group in row.groups
        )
        lines.append(f"<tr><td><i>{escaped(row.name)}</i>{small}</td>{groups}</tr>")
    body = "".join(lines if heads else lines[1:])
    return Html(f'<figure><div class="scroll"><table class="pictures">{body}</table></div>{_caption(caption)}</figure>')


def _picture(picture: Picture, shown_px: int) -> str:
    words = f"<div>{escaped(picture.caption)}</div>" if picture.caption else ""
    return (
        f'<div class="cell"><img src="{data_uri(picture.image)}" width="{shown_px}" alt="{escaped(picture.caption)}" '
        f'loading="lazy">{words}</div>'
    )


def data_uri(image: NDArray[np.uint8]) -> str:
    """A uint8 (3, H, W) image as a `data:` address that holds it as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
