"""One self-contained HTML page of sections: no script, no font and no picture from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

Html = Markup
"""Markup in which every foreign text is already escaped. Only functions of this package make it."""

_BLOCKS = (
    Environment(loader=PackageLoader(__package__, ""), autoescape=True, undefined=StrictUndefined)
    .get_template("blocks.html.jinja")
    .module
)


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
    return escape(text)


def rendered(macro: str, *values: object) -> Html:
    """What a macro of `blocks.html.jinja` makes of values; all that is not `Html` is escaped there."""
    return Html(getattr(_BLOCKS, macro)(*values)).strip()


def svg_figure(
    parts: Sequence[str], width: int, height: float, caption: str, legend: Sequence[tuple[int, str]] = ()
) -> Html:
    """A drawing with its caption and a legend of colours (0 … 5 of the style) and names. parts: SVG, escaped."""
    drawing = rendered("svg", Html("".join(parts)), width, f"{height:.0f}")
    return rendered("figure", drawing, caption, legend)


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole document. Section titles become the contents; their anchors must differ (`ValueError`)."""
    anchors = [section.anchor for section in sections]
    if len(set(anchors)) < len(anchors):
        raise ValueError(f"two sections share an anchor: {anchors}")
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    return f"{rendered('page', title, subtitle, sections, Html(style))}\n"
