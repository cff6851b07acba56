"""The tree of a prepared data set as one interactive page: an icicle of taxa with a photograph of each."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from taxadiffusion.dataset.columns import SPLITS
from taxadiffusion.dataset.prepared import PreparedDataset
from taxadiffusion.errors import DataError, SettingsError

THUMBNAIL_PX = 96
MAX_TAXA = 50_000
MAX_THUMBNAILS = 5_000
"""About 4 kB each; taxa beyond it, the rarest, show the photograph of an ancestor."""


def write_html(dataset: PreparedDataset, out: Path) -> None:
    """Write the page; it holds everything it shows and asks the network for nothing.

    Raises `SettingsError` without plotly, `DataError` for a tree too large to draw in a browser.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise SettingsError("--to html needs plotly: pip install 'taxadiffusion[viz]'") from error
    taxonomy = dataset.taxonomy
    if len(taxonomy) > MAX_TAXA:
        raise DataError(
            f"{dataset.path}: {len(taxonomy)} taxa are too many for one page (at most {MAX_TAXA}); use --to csv"
        )
    images = sum(dataset.counts(split) for split in SPLITS)
    assert isinstance(images, np.ndarray)
    plot = _icicle(go, dataset, images)
    title = html.escape(f"{dataset.path.name}: {len(taxonomy)} taxa, {len(dataset)} images")
    pictures = json.dumps(_thumbnails(dataset, images), separators=(",", ":"))
    shown_for = json.dumps(_picture_of(dataset, images).tolist(), separators=(",", ":"))
    out.write_text(
        _PAGE.replace("@TITLE@", title)
        .replace("@SIZE@", str(2 * THUMBNAIL_PX))
        .replace("@SHOWN@", shown_for)
        .replace("@PICTURES@", pictures)
        .replace("@PLOT@", plot),
        encoding="utf-8",
    )


def _icicle(go: Any, dataset: PreparedDataset, images: npt.NDArray[np.int64]) -> str:
    """The drawing as HTML, plotly's script within it. Several roots hang from one that stands for the data set."""
    taxonomy = dataset.taxonomy
    taxa = range(len(taxonomy))
    parents = [taxonomy.parent(t) for t in taxa]
    figure = go.Figure(
        go.Icicle(
            ids=[*(str(t) for t in taxa), "all"],
            labels=[*(html.escape(taxonomy.lineage(t).label) for t in taxa), html.escape(dataset.path.name)],
            parents=[*("all" if parent is None else str(parent) for parent in parents), ""],
            values=[*images.tolist(), len(dataset)],
            branchvalues="total",
            customdata=[*(taxonomy.rank(t) for t in taxa), "data set"],
            hovertemplate="%{customdata} <b>%{label}</b><br>%{value} images<extra></extra>",
            tiling={"orientation": "h"},
            maxdepth=5,
        )
    )
    figure.update_layout(margin={"t": 10, "l": 10, "r": 10, "b": 10}, height=900)
    config = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=True, div_id="tree", config=config))


def _first_rows(dataset: PreparedDataset) -> npt.NDArray[np.int64]:
    """(N,) a row that shows each taxon (the first identified at or below it), -1 without."""
    taxonomy = dataset.taxonomy
    first = np.full(len(taxonomy), -1, dtype=np.int64)
    ids, rows = np.unique(dataset.taxon_ids(), return_index=True)
    first[ids] = rows
    for taxon_id in range(len(taxonomy) - 1, -1, -1):
        parent = taxonomy.parent(taxon_id)
        if parent is not None and first[taxon_id] >= 0 and not 0 <= first[parent] <= first[taxon_id]:
            first[parent] = first[taxon_id]
    return first


def _picture_of(dataset: PreparedDataset, images: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(N,) the row whose thumbnail stands for each taxon: its own, else that of the nearest ancestor that has one."""
    first = _first_rows(dataset)
    shown = first.copy()
    kept = set(_rows_with_thumbnail(first, images))
    for taxon_id in range(len(shown)):
        parent = dataset.taxonomy.parent(taxon_id)
        if int(first[taxon_id]) not in kept:
            shown[taxon_id] = shown[parent] if parent is not None else -1
    return shown


def _rows_with_thumbnail(first: npt.NDArray[np.int64], images: npt.NDArray[np.int64]) -> list[int]:
    rows = dict.fromkeys(int(first[t]) for t in np.argsort(-images, kind="stable") if first[t] >= 0)
    return list(rows)[:MAX_THUMBNAILS]


def _thumbnails(dataset: PreparedDataset, images: npt.NDArray[np.int64]) -> dict[str, str]:
    """Row → JPEG as a data address."""
    pictures = {}
    for row in _rows_with_thumbnail(_first_rows(dataset), images):
        pixels = dataset.image(row, THUMBNAIL_PX, "pad")  # (3, H, W)
        buffer = io.BytesIO()
        Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "JPEG", quality=70)
        pictures[str(row)] = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return pictures


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>@TITLE@</title>
<style>
body { font-family: system-ui, sans-serif; margin: 1rem; color: #222; background: #fff; }
main { display: grid; grid-template-columns: minmax(0, 1fr) @SIZE@px; gap: 1rem; align-items: start; }
#plot { grid-column: 1; grid-row: 1; } aside { grid-column: 2; grid-row: 1; position: sticky; top: 1rem; }
aside img { width: @SIZE@px; height: @SIZE@px; background: #eee; }
</style></head><body>
<h1>@TITLE@</h1>
<p>Click a taxon to open it, the one at the left to go back. The photograph is of the taxon under the pointer.</p>
<main><aside><img id="photograph" alt=""><p id="caption"></p></aside><div id="plot">@PLOT@</div></main>
<script>
const shownFor = @SHOWN@, pictures = @PICTURES@;
document.getElementById("tree").on("plotly_hover", event => {
  const point = event.points[0], picture = pictures[shownFor[Number(point.id)]];
  const image = document.getElementById("photograph");
  image.src = picture || ""; image.alt = point.label;
  document.getElementById("caption").textContent = point.customdata + " " + point.label;
});
</script></body></html>
"""
