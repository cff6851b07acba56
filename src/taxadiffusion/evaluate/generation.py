"""Images of every taxon from a trained model, as one side of a comparison; those that lie there are not made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taxadiffusion.adapter import Adapter
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.evaluate.pictures import Pictures
from taxadiffusion.generation import Sampling, generate
from taxadiffusion.guidance import Guidance
from taxadiffusion.images import load_image
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.sampler import NO_GUIDANCE, Request

Progress = Callable[[int, int], None]
"""Images done, images asked for."""


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """Which images to make of each taxon: seeds `seed` … `seed + per_taxon - 1`, the same for every method."""

    per_taxon: int = 10
    seed: int = 0
    guidance: Guidance = NO_GUIDANCE
    sampling: Sampling = Sampling()  # noqa: RUF009  (frozen)


def taxa_to_show(dataset: PreparedDataset, ranks: Sequence[Rank]) -> tuple[Lineage, ...]:
    """Every taxon at each of `ranks` that has a training photograph, coarse to fine."""
    ids = dataset.taxon_ids(dataset.rows("train"))
    lineages = {dataset.taxonomy.lineage(int(taxon_id)) for taxon_id in np.unique(ids)}
    found = {lineage.truncated(rank).only(dataset.ranks) for rank in ranks for lineage in lineages if lineage.get(rank)}
    return tuple(sorted(found, key=lambda lineage: (len(lineage.names), lineage.names)))


def generated_pictures(
    model: Adapter, taxa: Sequence[Lineage], plan: ImagePlan, out: Path, progress: Progress = lambda *_: None
) -> Pictures:
    """`plan.per_taxon` images of each taxon, kept in `out`; an interrupted call goes on where it was."""
    requests = [
        Request(taxon.only(model.card.ranks), plan.seed + i, plan.guidance)
        for taxon in taxa
        for i in range(plan.per_taxon)
    ]
    paths = {}
    for done, picture in enumerate(generate(model, requests, out, plan.sampling), 1):
        paths[picture.request] = picture.path
        progress(done, len(requests))
    files = [paths[request] for request in requests]
    return Pictures(
        str(out),
        tuple(map(str, files)),
        tuple(request.lineage for request in requests),
        lambda i, size_px: load_image(files[i], size_px),
    )
