"""Images of every taxon from a trained model, as one side of a comparison; those that lie there are not made again."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taxadiffusion.adapter import Adapter
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.measure import NUM_NEIGHBOURS
from taxadiffusion.evaluate.pictures import OnPicture, Pictures
from taxadiffusion.guidance import Guidance
from taxadiffusion.images import load_image
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.pictures.generate import ALONE, Sampling, generate, listed, paths_of
from taxadiffusion.pictures.sisters import with_sisters
from taxadiffusion.sampler import NO_GUIDANCE, Request

_POLL_S = 2.0
_PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """Which images to make of each taxon, the same for every method; their seeds are those of `picture_seed`."""

    per_taxon: int = 10
    seed: int = 0
    """Of the whole set: another one gives every taxon other pictures."""
    guidance: Guidance = NO_GUIDANCE
    sampling: Sampling = Sampling()  # noqa: RUF009  (frozen)


def picture_seed(seed: int, taxon: Lineage, number: int) -> int:
    """The seed of a taxon's picture `number` in the set `seed`: 63 bits of a hash of the three.

    Every taxon has noise of its own. With seeds common to all taxa, pictures of one seed resemble each other whatever
    they show, and a mean over taxa scatters more than intervals for independent pictures say. The same taxon has the
    same seeds for every method, however many others are drawn and in whichever order.
    """
    text = json.dumps([seed, [list(name) for name in taxon.names], number], ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def taxa_to_show(dataset: PreparedDataset, ranks: Sequence[Rank]) -> tuple[Lineage, ...]:
    """Every taxon at each of `ranks` that has a training photograph, coarse to fine."""
    ids = dataset.taxon_ids(dataset.rows("train"))
    lineages = {dataset.taxonomy.lineage(int(taxon_id)) for taxon_id in np.unique(ids)}
    found = {lineage.truncated(rank).only(dataset.ranks) for rank in ranks for lineage in lineages if lineage.get(rank)}
    return tuple(sorted(found, key=lambda lineage: (len(lineage.names), lineage.names)))


def check_enough(dataset: PreparedDataset, taxa: Sequence[Lineage], per_taxon: int) -> None:
    """Before anything is drawn: raises `DataError` where so many images of the taxa of a rank are too few to measure.

    A rank of which training shows too few photographs is not measured by sets, however many images there are.
    """
    counts = dataset.counts("train")
    for rank, number in Counter(taxon.names[-1][0] for taxon in taxa).items():
        shown = sum(int(counts[taxon]) for taxon in dataset.taxonomy.at_rank(rank))
        if number * per_taxon <= NUM_NEIGHBOURS < shown:
            raise DataError(
                f"{number} taxa of rank {rank} with {per_taxon} images each are too few for coverage with "
                f"{NUM_NEIGHBOURS} neighbours; give --per-taxon {NUM_NEIGHBOURS // number + 1} or more, or leave the "
                "rank out"
            )


def generated_pictures(
    model: Adapter,
    taxa: Sequence[Lineage],
    plan: ImagePlan,
    out: Path,
    progress: OnPicture = lambda *_: None,
    shard: Shard = ALONE,
) -> Pictures:
    """`plan.per_taxon` images of each taxon, kept in `out`; an interrupted call goes on where it was.

    Of several processes (`shard`) each makes its share, and all return when all images are there.
    """
    requests = [
        Request(taxon.only(model.card.ranks), picture_seed(plan.seed, taxon, i), plan.guidance)
        for taxon in taxa
        for i in range(plan.per_taxon)
    ]
    requests, _ = with_sisters(model, requests)
    paths = {}
    for done, picture in enumerate(generate(model, requests, out, plan.sampling, shard), 1):
        paths[picture.request] = picture.path
        progress(done, len(requests))
    if shard.number:
        files = paths_of(model, requests, out, plan.sampling)
        _await(files, out, progress)
    else:
        files = [paths[request] for request in requests]
    return Pictures(
        str(out),
        tuple(map(str, files)),
        tuple(request.lineage for request in requests),
        lambda i, size_px: load_image(files[i], size_px),
        model_sha256=model.card.content_hash,
    )


def _await(files: Sequence[Path], out: Path, progress: OnPicture) -> None:
    """Until the first process has listed all of them. Raises `DataError` where none has been added for ten minutes."""
    wanted, last = set(files), time.monotonic()
    missing = len(wanted)
    while left := len(wanted - listed(out)):
        if left < missing:
            missing, last = left, time.monotonic()
        if time.monotonic() - last > _PATIENCE_S:
            raise DataError(f"{out}: process 0 of this run is not at work; start all processes again")
        progress(len(wanted) - left, len(wanted))
        time.sleep(_POLL_S)
