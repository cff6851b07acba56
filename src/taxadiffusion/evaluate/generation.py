"""Images of every taxon from a trained model, kept on disk: what is there already is not made again."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from taxadiffusion.adapter import CARD, Adapter
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.sampler import NO_GUIDANCE, Request, Sampler

Progress = Callable[[int, int], None]
"""Images done, images asked for."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Which images to make of each taxon: seeds `seed` … `seed + per_taxon - 1`, the same for every method."""

    per_taxon: int = 10
    seed: int = 0
    num_steps: int = 25
    guidance: Guidance = NO_GUIDANCE
    batch_size: int = 16


def taxa_to_show(dataset: PreparedDataset, ranks: Sequence[Rank]) -> tuple[Lineage, ...]:
    """Every taxon at each of `ranks` that has a training photograph, coarse to fine."""
    ids = dataset.taxon_ids(dataset.rows("train"))
    lineages = {dataset.taxonomy.lineage(int(taxon_id)).only(ranks) for taxon_id in np.unique(ids)}
    return tuple(
        sorted(
            {lineage.truncated(rank) for rank in ranks for lineage in lineages if lineage.get(rank)},
            key=lambda lineage: (len(lineage.names), lineage.names),
        )
    )


def generate_folder(
    model: Adapter, taxa: Sequence[Lineage], settings: Generation, out: Path, progress: Progress = lambda *_: None
) -> Path:
    """An image folder below `out` with `settings.per_taxon` images of each taxon; returns it.

    Its name is the hash of model, taxa and settings, so an interrupted call goes on where it was, and a changed model
    makes a new folder. `metadata.csv` is written when all images are there. Images carry their recipe and the IPTC
    digital source type in PNG text. Raises what `Sampler` raises.
    """
    recipe: dict[str, object] = {
        "model": hashlib.sha256((model.path / CARD).read_bytes()).hexdigest(),
        "taxa": [list(map(list, taxon.names)) for taxon in taxa],
        "settings": asdict(settings),
    }
    folder = out / hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    if (folder / "metadata.csv").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        (Request(taxon, settings.seed + i, settings.guidance), f"{t:05d}-{settings.seed + i}.png")
        for t, taxon in enumerate(taxa)
        for i in range(settings.per_taxon)
    ]
    missing = [(request, name) for request, name in wanted if not (folder / name).is_file()]
    samples = Sampler(model.denoiser, size_px=model.card.image_size_px)(
        [request for request, _ in missing], num_steps=settings.num_steps, batch_size=settings.batch_size
    )
    for done, ((request, name), sample) in enumerate(zip(missing, samples, strict=True), 1):
        _write(folder / name, _png(sample.image, request, recipe))
        progress(len(wanted) - len(missing) + done, len(wanted))
    _write(folder / "recipe.json", json.dumps(recipe, indent=1).encode())
    _write(folder / "metadata.csv", _table([(request, name) for request, name in wanted], model.card.ranks))
    return folder


def _png(image: NDArray[np.uint8], request: Request, recipe: dict[str, object]) -> bytes:
    words = PngInfo()
    words.add_text("Description", f"synthetic image of {request.lineage.label}")
    words.add_text("DigitalSourceType", "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia")
    words.add_text("taxadiffusion", json.dumps({**recipe, "taxa": str(request.lineage), "seed": request.seed}))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, "PNG", pnginfo=words)
    return buffer.getvalue()


def _table(wanted: Sequence[tuple[Request, str]], ranks: Sequence[Rank]) -> bytes:
    """`metadata.csv`: an image folder's table, names by rank, the binomial, and the seed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file_name", *ranks, "scientific_name", "rank", "seed"])
    for request, name in wanted:
        lineage = request.lineage
        names = [lineage.get(rank) or "" for rank in ranks]
        writer.writerow([name, *names, lineage.binomial or "", lineage.rank or "", request.seed])
    return text.getvalue().encode()


def _write(path: Path, data: bytes) -> None:
    aside = path.with_name(f".tmp-{uuid.uuid4().hex}")
    aside.write_bytes(data)
    aside.replace(path)
