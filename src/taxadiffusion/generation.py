"""Pictures on disk: every file carries its recipe, the folder is an image folder, and an interrupted one goes on."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from taxadiffusion import __version__
from taxadiffusion.adapter import Adapter
from taxadiffusion.dataset.shards import PATIENCE_S, Shard
from taxadiffusion.engine import EngineName
from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.sampler import Request, Sampler
from taxadiffusion.schedule import SamplerName

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for a picture made by a trained model, written into every file."""

SOURCE = "synthetic image"

ALONE = Shard()

_MAY_BE_ABSENT = ("note", "source_taxon_id")
"""Entries of a recipe that earlier versions did not write: empty, they change no file's name."""

_POLL_S = 0.5

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dwc="http://rs.tdwg.org/dwc/terms/"
 Iptc4xmpExt:DigitalSourceType={source_type} xmp:CreatorTool={tool} dwc:scientificName={name}{taxon_id}/>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


@dataclass(frozen=True, slots=True)
class Generated:
    """A picture that lies on disk. `made` is False where an earlier, interrupted call had made it already."""

    request: Request
    path: Path
    made: bool


@dataclass(frozen=True, slots=True)
class Sampling:
    """How pictures are made: solver steps, pictures a batch, the diffusers scheduler (None: DPM-Solver++), and what
    predicts: torch, or ONNX Runtime on a CPU."""

    num_steps: int = 25
    batch_size: int = 16
    scheduler: SamplerName | None = None
    engine: EngineName = "torch"


def requested_lineage(adapter: Adapter, taxon: str, rank: Rank | None = None) -> tuple[Lineage, str | None]:
    """The lineage that a person's words name, cut at `rank`, and a note where it is not simply what was typed.

    Raises `DataError` for homonyms, misspellings, unknown names, and a rank that the taxon or the model lacks.
    """
    found = adapter.taxonomy.find(taxon)
    lineage = found.lineage.only(adapter.card.ranks)
    if rank is None:
        return lineage, found.note
    if rank not in adapter.card.ranks:
        raise DataError(f"rank {rank!r} is not one of this model's ranks: {', '.join(adapter.card.ranks)}")
    if rank not in lineage.ranks:
        raise DataError(f"{taxon} has no {rank}; its lineage is {lineage}")
    return lineage.truncated(rank), found.note


def species_of(adapter: Adapter) -> tuple[Lineage, ...]:
    """Every lineage at the model's finest rank, in the order of their names."""
    taxonomy, finest = adapter.taxonomy, adapter.card.ranks[-1]
    lineages = {taxonomy.lineage(taxon).only(adapter.card.ranks) for taxon in taxonomy.at_rank(finest)}
    return tuple(sorted(lineages, key=lambda lineage: lineage.label))


def generate(
    adapter: Adapter,
    requests: Sequence[Request],
    out: Path,
    sampling: Sampling = Sampling(),
    shard: Shard = ALONE,
    notes: Mapping[Lineage, str] = MappingProxyType({}),
) -> Iterator[Generated]:
    """Make the pictures and write them below `out`, batch by batch, in the order of the requests.

    Of several processes (`shard`, one file system) each makes its share; the first yields every picture and writes the
    table, and makes what another leaves undone; the others yield their own.

    A file is `<taxon>/<taxon>-<seed>-<recipe>.png`; `<recipe>` is a hash of all that decides its pixels, so a second
    call makes only what is missing and never passes off an old picture for a new one. `out/metadata.csv` has a row for
    each picture and makes `out` an image folder that `prepare` and Hugging Face's `datasets` read. `notes` says of a
    lineage how it came to be drawn where it is not simply what was asked for; its pictures keep that in their recipe.
    Raises `DataError` when `out` cannot be written, `NonFiniteError` for a blank picture.
    """
    model_hash = hashlib.sha256(adapter.card.model_dump_json().encode()).hexdigest()
    ids = _taxon_ids(adapter)
    recipes = [
        _recipe(adapter, model_hash, request, sampling, notes.get(request.lineage, ""), ids.get(request.lineage, ""))
        for request in requests
    ]
    paths = [out / _file_name(request, recipe) for request, recipe in zip(requests, recipes, strict=True)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        sampler = Sampler(
            adapter.denoiser,
            scheduler=sampling.scheduler,
            size_px=adapter.card.image_size_px,
            engine=sampling.engine,
        )

        def make(chosen: Sequence[int]) -> Iterator[int]:
            if not chosen:
                return
            todo = [requests[i] for i in chosen]
            samples = sampler(todo, num_steps=sampling.num_steps, batch_size=sampling.batch_size)
            for i, sample in zip(chosen, samples, strict=True):
                _save(sample.image, paths[i], recipes[i])
                yield i

        known = _known_rows(out / "metadata.csv")
        names = [path.relative_to(out).as_posix() for path in paths]
        # The recipe is part of a file's name: a whole file is the picture asked for, whichever process made it.
        there = [i for i, path in enumerate(paths) if names[i] in known or _is_whole(path)]
        missing = sorted({*range(len(paths))} - {*there})
        mine = [i for i in missing if i % shard.count == shard.number]
        if shard.number:
            yield from (Generated(requests[i], paths[i], made=True) for i in make(mine))
            return
        with (out / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, _columns(adapter))
            table.writeheader()
            table.writerows(known.values())

            def listed(i: int, made: bool) -> Generated:
                if names[i] not in known:
                    known[names[i]] = {"file_name": names[i], **recipes[i]}
                    table.writerow(known[names[i]])
                    stream.flush()
                return Generated(requests[i], paths[i], made)

            yield from (listed(i, made=False) for i in there)
            yield from (listed(i, made=True) for i in make(mine))
            undone = set(missing) - set(mine)
            for i in _appearing(paths, undone):
                undone.discard(i)
                yield listed(i, made=True)
            yield from (listed(i, made=True) for i in make(sorted(undone)))
    except OSError as error:
        raise DataError(f"{out}: the pictures cannot be written: {error.strerror}") from error


def _appearing(paths: Sequence[Path], awaited: Iterable[int]) -> Iterator[int]:
    """Those of the awaited files that other processes write, until none has appeared for `PATIENCE_S`."""
    waiting = set(awaited)
    last = time.monotonic()
    while waiting and time.monotonic() - last < PATIENCE_S:
        done = [i for i in sorted(waiting) if _is_whole(paths[i])]
        waiting -= set(done)
        yield from done
        if done:
            last = time.monotonic()
        elif waiting:
            time.sleep(_POLL_S)


def read_picture(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A generated file as uint8 (3, h, w)."""
    with Image.open(path, formats=("PNG",)) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def _recipe(
    adapter: Adapter, model_hash: str, request: Request, sampling: Sampling, note: str = "", taxon_id: str = ""
) -> dict[str, str]:
    """All that decides the pixels, and how the picture is to be called; every value is text."""
    guidance = request.guidance
    lineage = request.lineage
    precision = adapter.denoiser.backbone.precision
    rank_scales = " ".join(f"{rank}={scale:g}" for rank, scale in guidance.rank_scales)
    return {
        **{rank: lineage.get(rank) or "" for rank in adapter.card.ranks},
        "scientific_name": lineage.label,
        "taxon_rank": lineage.rank or "",
        "source_taxon_id": taxon_id,
        "note": note,
        "seed": str(request.seed),
        "guidance_scale": f"{guidance.scale:g}",
        "guidance_rank": guidance.rank or "unconditional",
        "guidance_interval": f"{guidance.interval[0]:g}-{guidance.interval[1]:g}",
        "guidance_rank_scales": rank_scales,
        "towards": str(request.towards) if request.towards else "",
        "fraction": f"{request.fraction:g}",
        "num_steps": str(sampling.num_steps),
        "scheduler": sampling.scheduler or "default",
        "engine": sampling.engine if precision == "float32" else f"{sampling.engine} in {precision}",
        "model_sha256": model_hash,
        "base": adapter.card.base,
        "base_sha256": adapter.card.base_hash,
        "software": f"taxadiffusion {__version__}",
        "source": SOURCE,
        "digital_source_type": DIGITAL_SOURCE_TYPE,
    }


def _taxon_ids(adapter: Adapter) -> dict[Lineage, str]:
    """What the training data's source calls each taxon."""
    ranks, taxonomy = adapter.card.ranks, adapter.taxonomy
    return {taxonomy.lineage(number).only(ranks): text for number, text in adapter.card.taxon_ids.items()}


def _columns(adapter: Adapter) -> list[str]:
    blank = _recipe(adapter, "", Request(Lineage(), 0), Sampling())
    return ["file_name", *blank]


def _file_name(request: Request, recipe: dict[str, str]) -> str:
    decides = {key: value for key, value in recipe.items() if value or key not in _MAY_BE_ABSENT}
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:10]
    # Names hold "/" (Ovalentaria/misc) and worse; a folder's name keeps letters, digits, hyphens.
    name = re.sub(r"[^\w-]+", "_", request.lineage.label or "unconditional").strip("_")[:80] or "taxon"
    return f"{name}/{name}-{request.seed}-{digest}.png"


def _save(image: np.ndarray[Any, np.dtype[np.uint8]], path: Path, recipe: dict[str, str]) -> None:
    info = PngInfo()
    info.add_itxt("Title", f"{recipe['scientific_name']} ({SOURCE})")
    info.add_itxt("Software", recipe["software"])
    info.add_itxt("taxadiffusion", json.dumps(recipe, ensure_ascii=False))
    packet = _XMP.format(
        source_type=quoteattr(DIGITAL_SOURCE_TYPE),
        tool=quoteattr(recipe["software"]),
        name=quoteattr(recipe["scientific_name"]),
        taxon_id=f" dwc:taxonID={quoteattr(recipe['source_taxon_id'])}" if recipe["source_taxon_id"] else "",
    )
    info.add_itxt("XML:com.adobe.xmp", packet)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(aside, format="PNG", pnginfo=info)
    aside.replace(path)


def _known_rows(table: Path) -> dict[str, dict[str, str]]:
    """Rows of an earlier call whose files still lie there and are whole."""
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("file_name") and None not in row.values()]
    return {row["file_name"]: row for row in rows if _is_whole(table.parent / row["file_name"])}


def _is_whole(path: Path) -> bool:
    try:
        read_picture(path)
    except (OSError, SyntaxError):
        return False
    return True
