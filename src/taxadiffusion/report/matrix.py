"""A confusion matrix as inline SVG: what each taxon is taken for, taxa in the order of the tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from taxadiffusion.names import Lineage
from taxadiffusion.report.page import Html, escaped, svg_figure

_LABEL_PX, _CELL_PX, _HEAD_PX = 190, 22, 150


def confusion_matrix(
    taxa: Sequence[Lineage], shares: Mapping[tuple[Lineage, Lineage], float], *, caption: str = ""
) -> Html:
    """Rows: what was asked for; columns: what it was named as. `shares[asked, named]` in [0, 1]; absent pairs are 0.

    Taxa are sorted by lineage, so that relatives are neighbours and mistakes among them lie near the diagonal; lines
    set groups apart that share all names but the two finest. Raises `ValueError` for a share outside [0, 1].
    """
    ordered = sorted(set(taxa) | {named for _, named in shares}, key=lambda lineage: lineage.names)
    rows = [taxon for taxon in ordered if taxon in set(taxa)]
    parts = []
    for c, taxon in enumerate(ordered):
        x = _LABEL_PX + (c + 0.5) * _CELL_PX + 4
        parts.append(
            f'<text class="taxon" style="font-size:12px" transform="translate({x:.1f} {_HEAD_PX - 6}) rotate(-55)">'
            f"{escaped(taxon.label)}</text>"
        )
    for r, asked in enumerate(rows):
        y = _HEAD_PX + r * _CELL_PX
        parts.append(
            f'<text class="taxon" style="font-size:12px" x="{_LABEL_PX - 8}" y="{y + 15}" text-anchor="end">'
            f"{escaped(asked.label)}</text>"
        )
        for c, named in enumerate(ordered):
            parts.append(_cell(asked, named, shares.get((asked, named), 0.0), _LABEL_PX + c * _CELL_PX, y))
    parts += _lines(rows, ordered)
    width, height = _LABEL_PX + len(ordered) * _CELL_PX + 90, _HEAD_PX + len(rows) * _CELL_PX + 8
    return svg_figure(parts, width, height, caption)


def _cell(asked: Lineage, named: Lineage, share: float, x: float, y: float) -> str:
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share} of {asked} named {named}; shares lie between 0 and 1")
    colour = "var(--c2)" if asked == named else "var(--c1)"
    title = f"<title>{escaped(asked.label)} named {escaped(named.label)}: {share:.0%}</title>"
    return (
        f'<rect x="{x + 1}" y="{y + 1}" width="{_CELL_PX - 2}" height="{_CELL_PX - 2}" rx="2" '
        f'style="fill:{colour};fill-opacity:{share:.2f};stroke:var(--line)">{title}</rect>'
    )


def _lines(rows: Sequence[Lineage], columns: Sequence[Lineage]) -> list[str]:
    """Lines between groups that share all names but the two finest."""
    left, right = _LABEL_PX, _LABEL_PX + len(columns) * _CELL_PX
    top, bottom = _HEAD_PX, _HEAD_PX + len(rows) * _CELL_PX
    lines = [
        f'<line class="axis" x1="{left}" x2="{right}" y1="{top + r * _CELL_PX}" y2="{top + r * _CELL_PX}"/>'
        for r in _borders(rows)
    ]
    return lines + [
        f'<line class="axis" x1="{left + c * _CELL_PX}" x2="{left + c * _CELL_PX}" y1="{top}" y2="{bottom}"/>'
        for c in _borders(columns)
    ]


def _borders(taxa: Sequence[Lineage]) -> list[int]:
    groups = [taxon.names[: max(1, len(taxon.names) - 2)] for taxon in taxa]
    return [i for i in range(1, len(groups)) if groups[i] != groups[i - 1]]
