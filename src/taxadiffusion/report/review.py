"""A page for an expert: generated pictures judged feature by feature, or told from photographs; offline."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.judgements import COLUMNS, FEATURES, PAIR_COLUMNS, sha256_of_file
from taxadiffusion.evaluate.pictures import Pictures
from taxadiffusion.files import whole
from taxadiffusion.names import Lineage

MAX_PAGE_BYTES = 200 << 20
"""Of pictures in one page; a browser opens no larger one at ease."""

_MIME = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class ReviewPage:
    """What was put into a page. left_out: pictures whose taxon has no photograph (of pairs)."""

    num_pictures: int
    left_out: int


def write_review(
    path: Path, folder: Path, pictures: Pictures, limit: int, photographs: Pictures | None = None, seed: int = 0
) -> ReviewPage:
    """One HTML file with `limit` of the pictures, drawn evenly over taxa by `seed`, each within the page.

    photographs: each picture is shown beside one of its own taxon, sides drawn; else feature by feature. Raises
    `DataError` where nothing can be shown, or the page would hold more than `MAX_PAGE_BYTES`.
    """
    rng = np.random.default_rng(seed)
    partners = None if photographs is None else _by_taxon(photographs)
    usable = [i for i, taxon in enumerate(pictures.lineages) if partners is None or _known(taxon, partners)]
    if not usable:
        raise DataError(f"{folder}: none of its taxa has a photograph in {photographs.name if photographs else ''}")
    items: list[dict[str, Any]] = []
    for i in drawn_evenly([pictures.lineages[i] for i in usable], limit, rng):
        position = usable[i]
        item = _item(Path(pictures.files[position]), folder, pictures.lineages[position])
        if photographs is not None and partners is not None:
            item |= _partner(photographs, partners, pictures.lineages[position], item["size"], rng)
        items.append(item)
    if sum(len(item["image"]) + len(item.get("beside", "")) for item in items) > MAX_PAGE_BYTES:
        raise DataError(f"{folder}: {len(items)} pictures make too large a page; ask for fewer with --limit")
    html = _page(folder.name, items, pairs=photographs is not None)
    with whole(path) as aside:
        aside.write_text(html, encoding="utf-8")
    return ReviewPage(len(items), len(pictures) - len(usable))


def drawn_evenly(taxa: Sequence[Lineage], limit: int, rng: np.random.Generator) -> list[int]:
    """Positions: every taxon's first before any one's second, each taxon's own in drawn order; then shuffled."""
    order = rng.permutation(len(taxa))
    seen: dict[Lineage, int] = {}
    rounds = []
    for i in order.tolist():
        rounds.append((seen.get(taxa[i], 0), i))
        seen[taxa[i]] = seen.get(taxa[i], 0) + 1
    chosen = [i for _, i in sorted(rounds, key=lambda pair: pair[0])[:limit]]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _by_taxon(photographs: Pictures) -> dict[Lineage, list[int]]:
    found: dict[Lineage, list[int]] = {}
    for i, lineage in enumerate(photographs.lineages):
        for rank in lineage.ranks:
            found.setdefault(lineage.truncated(rank), []).append(i)
    return found


def _known(taxon: Lineage, partners: dict[Lineage, list[int]]) -> bool:
    return taxon in partners


def _item(file: Path, folder: Path, taxon: Lineage) -> dict[str, Any]:
    data = file.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        size = image.width
    kind = _MIME.get(file.suffix.lower())
    if kind is None:
        raise DataError(f"{file}: a page shows PNG, JPEG and WebP, not {file.suffix or 'a file without ending'}")
    return {
        "file": file.resolve().relative_to(folder.resolve()).as_posix(),
        "sha256": sha256_of_file(file),
        "taxon": str(taxon),
        "label": taxon.label,
        "rank": taxon.rank or "",
        "size": size,
        "image": f"data:{kind};base64,{base64.b64encode(data).decode()}",
    }


def _partner(
    photographs: Pictures, partners: dict[Lineage, list[int]], taxon: Lineage, size_px: int, rng: np.random.Generator
) -> dict[str, Any]:
    """A photograph of the taxon, at the picture's size, so that neither size nor file gives it away."""
    chosen = int(rng.choice(partners[taxon]))
    stream = io.BytesIO()
    Image.fromarray(photographs.load(chosen, size_px).transpose(1, 2, 0)).save(stream, "PNG")
    return {
        "photograph": Path(photographs.files[chosen]).name,
        "left": "generated" if rng.random() < 0.5 else "photograph",
        "beside": f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}",
    }


def _page(name: str, items: list[dict[str, Any]], *, pairs: bool) -> str:
    files = resources.files(__package__)
    identity = hashlib.sha256(json.dumps([pairs, [item["sha256"] for item in items]]).encode()).hexdigest()[:16]
    document = {
        "name": name,
        "pairs": pairs,
        "key": f"taxadiffusion-review-{identity}",
        "features": list(FEATURES),
        "columns": list(PAIR_COLUMNS if pairs else COLUMNS),
        "items": items,
    }
    template = Environment(
        loader=PackageLoader(__package__, ""), autoescape=True, undefined=StrictUndefined
    ).get_template("review.html.jinja")
    return template.render(
        name=name,
        pairs=pairs,
        features=FEATURES,
        style=Markup(files.joinpath("review.css").read_text(encoding="utf-8")),
        script=Markup(files.joinpath("review.js").read_text(encoding="utf-8")),
        # "<" as an escape: whatever a name holds, it ends no element
        document=Markup(json.dumps(document).replace("<", "\\u003c")),
    )
