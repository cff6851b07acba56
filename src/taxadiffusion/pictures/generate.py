"""Pictures on disk: every file carries its recipe, the folder is an image folder, and an interrupted one goes on."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from taxadiffusion import __version__
from taxadiffusion.adapter import Adapter
from taxadiffusion.base.noise import SamplerName
from taxadiffusion.base.onnx import EngineName
from taxadiffusion.dataset.shards import PATIENCE_S, Shard
from taxadiffusion.errors import DataError
from taxadiffusion.images.shelves import shelf
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.png import DIGITAL_SOURCE_TYPE, SOURCE, is_whole, save_picture
from taxadiffusion.pictures.recipe import TABLE, require_one_recipe
from taxadiffusion.pictures.sign import Signer
from taxadiffusion.pictures.table import known_rows, rows_of, write_table
from taxadiffusion.pictures.weaker import WeakerModel
from taxadiffusion.sampler import Request, Sampler

ALONE = Shard()

_MAY_BE_ABSENT = ("note", "source_taxon_id", "sister", "blend", "weaker_sha256", "context", "context_scale")
"""Entries of a recipe that earlier versions did not write: empty, they change no file's name."""

_MOST_BLENDED = 64  # taxa that a recipe names; more are thousands

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Generated:
    """A picture that lies on disk. `made` is False where an earlier, interrupted call had made it already."""

    request: Request
    path: Path
    made: bool


@dataclass(frozen=True, slots=True)
class Sampling:
    """How pictures are made: solver steps, pictures a batch, the diffusers scheduler (None: DPM-Solver++), what
    predicts: torch, or ONNX Runtime on a CPU; and the weaker model that guidance is away from, where it is."""

    num_steps: int = 25
    batch_size: int = 16
    scheduler: SamplerName | None = None
    engine: EngineName = "torch"
    weaker: WeakerModel | None = None


def generate(
    adapter: Adapter,
    requests: Sequence[Request],
    out: Path,
    sampling: Sampling = Sampling(),
    shard: Shard = ALONE,
    notes: Mapping[Lineage, str] = MappingProxyType({}),
    signer: Signer | None = None,
) -> Iterator[Generated]:
    """Make the pictures and write them below `out`, batch by batch, in the order of the requests.

    Of several processes (`shard`, one file system) each makes every so many batches; the first yields every picture and
    writes the table, and makes what another leaves undone; the others yield their own. The batches are those of the
    requests, whoever makes them and whatever lies there already, so the files do not depend on processes or
    interruptions.

    A file is `<taxon>/<taxon>-<seed>-<recipe>.png`; `<recipe>` is a hash of all that decides its pixels, so a second
    call makes only what is missing and never passes off an old picture for a new one. Of more than a thousand requests
    they are `shard-<xx>/…`, so that no folder holds more than some thousands; what a table lists stays where it lies.
    `out/metadata.csv` has a row for each picture and makes `out` an image folder that `prepare` and Hugging Face's
    `datasets` read. `notes` says of a lineage how it came to be drawn where it is not simply what was asked for; its
    pictures keep that in their recipe.

    signer: puts content credentials into each, also into what lay there without; they decide no pixel and no name.

    A folder holds one recipe (`pictures.recipe.SHARED`): other taxa and seeds may join it, other settings are a
    `SettingsError` before anything is drawn. Raises `DataError` if `out` cannot be written, `NonFiniteError` if blank.
    """
    folder = _Folder(adapter, requests, out, sampling, shard, recipes_of(adapter, requests, sampling, notes))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for picture in folder.own() if shard.number else folder.all():
            if signer is not None:
                signer.sign(picture.path)
            yield picture
    except OSError as error:
        raise DataError(f"{out}: the pictures cannot be written: {error.strerror}") from error


class _Folder:
    """The pictures of the requests below `out`; `i` is a request's place among them."""

    def __init__(
        self,
        adapter: Adapter,
        requests: Sequence[Request],
        out: Path,
        sampling: Sampling,
        shard: Shard,
        recipes: list[dict[str, str]],
    ) -> None:
        self.requests, self.sampling, self.shard, self.recipes = requests, sampling, shard, recipes
        self.table, self.columns = out / TABLE, _columns(adapter)
        listed_there = (row for row in rows_of(self.table) if (out / row["file_name"]).is_file())
        require_one_recipe(out, listed_there, recipes)
        self.names = _file_names(requests, recipes, self.table)
        self.paths = [out / name for name in self.names]
        self.sampler = Sampler(
            adapter.denoiser,
            scheduler=sampling.scheduler,
            size_px=adapter.card.image_size_px,
            engine=sampling.engine,
            weaker=sampling.weaker.weaker if sampling.weaker else None,
        )

    def maker(self, i: int) -> int:
        """Which process makes it."""
        return i // self.sampling.batch_size % self.shard.count

    def make(self, chosen: Iterable[int]) -> Iterator[int]:
        """Whole batches of the requests, for the same pixels; only what was chosen of them is kept."""
        wanted, size = set(chosen), self.sampling.batch_size
        batches = sorted({i // size for i in wanted})
        rows = [i for batch in batches for i in range(batch * size, min((batch + 1) * size, len(self.requests)))]
        if not rows:
            return
        todo = [self.requests[i] for i in rows]
        samples = self.sampler(todo, num_steps=self.sampling.num_steps, batch_size=size)
        for i, sample in zip(rows, samples, strict=True):
            if i in wanted:
                save_picture(sample.image, self.paths[i], self.recipes[i])
                yield i

    def own(self) -> Iterator[Generated]:
        """Of a process that is not the first: what it makes."""
        missing = [i for i, path in enumerate(self.paths) if self.maker(i) == self.shard.number and not is_whole(path)]
        yield from (Generated(self.requests[i], self.paths[i], made=True) for i in self.make(missing))

    def all(self) -> Iterator[Generated]:
        """Of the first process: every picture, each with its row in the table."""
        known = known_rows(self.table)
        # The recipe is part of a file's name: a whole file is the picture asked for, whichever process made it.
        there = [i for i, path in enumerate(self.paths) if self.names[i] in known or is_whole(path)]
        missing = sorted({*range(len(self.paths))} - {*there})
        write_table(self.table, self.columns, known.values())
        with self.table.open("a", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, self.columns)

            def noted(i: int, made: bool) -> Generated:
                if self.names[i] not in known:
                    known[self.names[i]] = {"file_name": self.names[i], **self.recipes[i]}
                    table.writerow(known[self.names[i]])
                    stream.flush()
                return Generated(self.requests[i], self.paths[i], made)

            yield from (noted(i, made=False) for i in there)
            yield from (noted(i, made=True) for i in self.missing(missing))

    def missing(self, missing: Sequence[int]) -> Iterator[int]:
        """Its own share made, those of others as they appear, and in the end what another has left undone."""
        shares: list[list[int]] = [[] for _ in range(self.shard.count)]
        for i in missing:
            shares[self.maker(i)].append(i)
        mine, *others = shares
        yield from self.make(mine)
        undone = {i for share in others for i in share}
        for i in _appearing(self.paths, others):
            undone.discard(i)
            yield i
        late = [i for i in sorted(undone) if is_whole(self.paths[i])]
        yield from late
        yield from self.make(undone - {*late})


def paths_of(adapter: Adapter, requests: Sequence[Request], out: Path, sampling: Sampling) -> list[Path]:
    """Where `generate` leaves the picture of each request."""
    return [out / name for name in _file_names(requests, recipes_of(adapter, requests, sampling, {}), out / TABLE)]


def listed(out: Path) -> set[Path]:
    """The pictures that the folder's table names."""
    return {out / row["file_name"] for row in rows_of(out / TABLE)}


def _appearing(paths: Sequence[Path], awaited: Sequence[Sequence[int]]) -> Iterator[int]:
    """Those of the awaited files that other processes write, until none has appeared for `PATIENCE_S`.

    awaited: of each process, in the order in which it makes them; so only the next of each need be looked for.
    """
    waiting = [deque(mine) for mine in awaited]
    last = time.monotonic()
    while any(waiting) and time.monotonic() - last < PATIENCE_S:
        found = False
        for mine in waiting:
            while mine and is_whole(paths[mine[0]]):
                found = True
                yield mine.popleft()
        if found:
            last = time.monotonic()
        elif any(waiting):
            time.sleep(_POLL_S)


def recipes_of(
    adapter: Adapter, requests: Sequence[Request], sampling: Sampling, notes: Mapping[Lineage, str]
) -> list[dict[str, str]]:
    """The recipe of each request, as its file and the folder's table hold it."""
    model_hash = adapter.card.content_hash
    ids = _taxon_ids(adapter)
    return [
        _recipe(adapter, model_hash, request, sampling, notes.get(request.lineage, ""), ids.get(request.lineage, ""))
        for request in requests
    ]


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
        "guidance_rank": guidance.rank or ("unconditional" if guidance.base == "ancestor" else guidance.base),
        "guidance_interval": f"{guidance.interval[0]:g}-{guidance.interval[1]:g}",
        "guidance_rank_scales": rank_scales,
        "towards": str(request.towards) if request.towards else "",
        "fraction": f"{request.fraction:g}",
        "sister": str(request.sister) if request.sister else "",
        "blend": _blend_words(request),
        "context": request.context.caption if request.context else "",
        "context_scale": f"{request.context.scale:g}" if request.context else "",
        "weaker_sha256": sampling.weaker.sha256 if sampling.weaker and guidance.base == "weaker model" else "",
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


def _blend_words(request: Request) -> str:
    """The weights and taxa; of very many, how many there are and a hash of them."""
    words = " + ".join(f"{weight!r} × ({lineage})" for lineage, weight in request.blend)
    if len(request.blend) <= _MOST_BLENDED:
        return words
    return f"{len(request.blend)} taxa, sha256 {hashlib.sha256(words.encode()).hexdigest()}"


def _taxon_ids(adapter: Adapter) -> dict[Lineage, str]:
    """What the training data's source calls each taxon."""
    ranks, taxonomy = adapter.card.ranks, adapter.taxonomy
    return {taxonomy.lineage(number).only(ranks): text for number, text in adapter.card.taxon_ids.items()}


def _columns(adapter: Adapter) -> list[str]:
    blank = _recipe(adapter, "", Request(Lineage(), 0), Sampling())
    return ["file_name", *blank]


def _file_names(requests: Sequence[Request], recipes: Sequence[dict[str, str]], table: Path) -> list[str]:
    """Below the folder; a picture that the table lists stays where it is, whatever the number of requests now."""
    listed = {name.rpartition("/")[2]: name for name in (row["file_name"] for row in rows_of(table))}
    names = (file_name(request, recipe, len(requests)) for request, recipe in zip(requests, recipes, strict=True))
    return [listed.get(name.rpartition("/")[2], name) for name in names]


def file_name(request: Request, recipe: dict[str, str], num_requests: int = 1) -> str:
    """Below the folder: shelf, taxon, seed and a hash of the recipe."""
    decides = {key: value for key, value in recipe.items() if value or key not in _MAY_BE_ABSENT}
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:10]
    # Names hold "/" (Ovalentaria/misc) and worse; a folder's name keeps letters, digits, hyphens.
    name = re.sub(r"[^\w-]+", "_", request.lineage.label or "unconditional").strip("_")[:80] or "taxon"
    return f"{shelf(num_requests, name, digest)}/{name}-{request.seed}-{digest}.png"
