"""One self-contained HTML page of sections: no script, no font and no picture from elsewhere."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NewType

Html = NewType("Html", str)
"""Markup in which every foreign text is already escaped. Only functions of this package make it."""


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of a page: blocks made by `blocks`, `charts` and `tree`, in order."""

    title: str
    blocks: tuple[Html, ...]

    @property
    def anchor(self) -> str:
        """The section's id in the page: letters, digits and hyphens."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"


def escaped(text: str) -> Html:
    """Text that may hold anything, as markup that shows it."""
    return Html(html.escape(text, quote=True))


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole document. Section titles become the contents; their anchors must differ (`ValueError`)."""
    anchors = [section.anchor for section in sections]
    if len(set(anchors)) < len(anchors):
        raise ValueError(f"two sections share an anchor: {anchors}")
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    contents = "".join(f'<a href="#{section.anchor}">{escaped(section.title)}</a>' for section in sections)
    body = "".join(
        f'<section id="{section.anchor}"><h2>{escaped(section.title)}</h2>{"".join(section.blocks)}</section>'
        for section in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(title)}</title><style>{style}</style></head><body>"
        f"<header><h1>{escaped(title)}</h1><p>{escaped(subtitle)}</p></header>"
        f"<nav>{contents}</nav><main>{body}</main></body></html>\n"
    )
