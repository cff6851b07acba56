"""A taxonomic tree as inline SVG: ranks in columns from left to right, pictures at the tips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.names import Lineage, Rank
from taxadiffusion.report.blocks import data_uri
from taxadiffusion.report.page import Html, escaped, svg_figure

_COLUMN_PX, _TOP_PX, _THUMB_GAP_PX = 168, 30, 6


@dataclass(frozen=True, slots=True)
class Tip:
    """A leaf of the tree: what it is, small print (a count), and its pictures, uint8 (3, H, W)."""

    lineage: Lineage
    small: str = ""
    images: tuple[NDArray[np.uint8], ...] = ()


def tree(tips: Sequence[Tip], ranks: Sequence[Rank], *, caption: str = "", thumb_px: int = 44) -> Html:
    """The tree that the tips' lineages span at `ranks` (coarse to fine), siblings together, in order of names.

    A tip that stops above the finest rank ends there. Raises `ValueError` without tips.
    """
    if not tips:
        raise ValueError("a tree needs one or more tips")
    ordered = sorted(tips, key=lambda tip: tip.lineage.names)
    pictured = any(tip.images for tip in ordered)
    row_px = thumb_px + 4 if pictured else 22
    heights = {tip.lineage: _TOP_PX + row_px * (i + 0.5) for i, tip in enumerate(ordered)}
    centres = _centres(heights, ranks)
    parts = [f'<text x="{c * _COLUMN_PX + 6}" y="14">{escaped(rank)}</text>' for c, rank in enumerate(ranks)]
    for node, y in centres.items():
        parts += _node(node, y, centres, ranks)
    thumbs_px = _COLUMN_PX * len(ranks) + 30
    for tip in ordered:
        y = heights[tip.lineage]
        if tip.small:
            parts.append(
                f'<text class="small" x="{thumbs_px - 8}" y="{y + 4:.1f}" text-anchor="end">{escaped(tip.small)}</text>'
            )
        for i, image in enumerate(tip.images):
            x = thumbs_px + i * (thumb_px + _THUMB_GAP_PX)
            parts.append(
                f'<image href="{data_uri(image)}" x="{x}" y="{y - thumb_px / 2:.1f}" width="{thumb_px}" '
                f'height="{thumb_px}"><title>{escaped(tip.lineage.label)}</title></image>'
            )
    width = thumbs_px + max(len(tip.images) for tip in ordered) * (thumb_px + _THUMB_GAP_PX)
    height = _TOP_PX + row_px * len(ordered) + 6
    return svg_figure(parts, width, height, caption)


def _centres(heights: Mapping[Lineage, float], ranks: Sequence[Rank]) -> dict[Lineage, float]:
    """The height of every node: midway between its outermost tips."""
    below: dict[Lineage, list[float]] = {}
    for tip, height in heights.items():
        for rank in ranks:
            if tip.get(rank) is not None:
                below.setdefault(tip.only(ranks).truncated(rank), []).append(height)
    return {node: (min(found) + max(found)) / 2 for node, found in below.items()}


def _node(node: Lineage, y: float, centres: Mapping[Lineage, float], ranks: Sequence[Rank]) -> list[str]:
    """The branch from a node's nearest named ancestor, and its name above the branch."""
    rank = node.rank
    if rank is None:
        return []
    column = list(ranks).index(rank)
    x = column * _COLUMN_PX
    parent = Lineage(node.names[:-1])
    species = " species" if rank in ("genus", "species") else ""
    parts = [f'<text class="taxon{species}" x="{x + 6}" y="{y - 3:.1f}">{escaped(node.names[-1][1])}</text>']
    start = x
    if parent.rank is not None:
        start = (list(ranks).index(parent.rank) + 1) * _COLUMN_PX - 14
        parts.append(f'<path class="branch" d="M{start},{centres[parent]:.1f} V{y:.1f} H{x}"/>')
    parts.append(f'<path class="branch" d="M{x},{y:.1f} H{x + _COLUMN_PX - 14}"/>')
    return parts
