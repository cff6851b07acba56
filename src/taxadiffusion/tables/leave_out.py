"""Data sets in which chosen species have only so many training images: what would rarity have done to them?"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taxadiffusion.dataset import PreparedDataset, PrepareSettings, prepare
from taxadiffusion.errors import DataError
from taxadiffusion.files import whole
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.taxonomy import find_taxon

NUM_IMAGES = (1, 2, 5, 10, 20)


def species_to_leave_out(dataset: PreparedDataset, labels: Sequence[str]) -> tuple[Lineage, ...]:
    """The species by name; without names, the three rarest with 15 or more training images. Raises `DataError`."""
    finest = dataset.ranks[-1]
    if labels:
        found = tuple(find_taxon(dataset.taxonomy, label).lineage for label in labels)
        for label, lineage in zip(labels, found, strict=True):
            if lineage.rank != finest:
                raise DataError(f"--leave-out {label!r} is of rank {lineage.rank}; name a {finest} of {dataset.path}")
        return found
    counts = dataset.counts("train")
    candidates = [taxon for taxon in dataset.taxonomy.at_rank(finest) if counts[taxon] >= 15]
    if not candidates:
        raise DataError(f"{dataset.path}: no species has 15 training images; name the species to leave out")
    rarest = sorted(candidates, key=lambda taxon: (int(counts[taxon]), taxon))[:3]
    return tuple(dataset.taxonomy.lineage(taxon) for taxon in rarest)


def thinned(
    dataset: PreparedDataset, species: Sequence[Lineage], num_images: int, ranks: Sequence[Rank], seed: int, out: Path
) -> None:
    """Prepare a data set in `out` like `dataset`, with at most `num_images` training images of each of `species`.

    Which stay is drawn by `seed`, and fewer are always a part of more. A species that has no more than that keeps all
    of its images. Other species and other splits are unchanged.
    """
    dropped: set[int] = set()
    rows = dataset.rows("train")
    taxa = [dataset.lineage(int(row)) for row in rows]
    for lineage in species:
        mine = [int(row) for row, taxon in zip(rows, taxa, strict=True) if taxon == lineage]
        order = np.random.default_rng(seed).permutation(len(mine))
        dropped |= {mine[i] for i in order[num_images:]}
    table = out.with_name(f"{out.name}.csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    with whole(table) as aside, aside.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["file_name", "split", *ranks])
        for row in map(int, dataset.rows()):
            if row not in dropped:
                record, names = dataset.record(row), dataset.lineage(row)
                file_name = record.path.relative_to(dataset.root).as_posix()
                writer.writerow([file_name, record.split, *(names.get(rank) or "" for rank in ranks)])

    options, follow_links = {"root": dataset.root}, dataset.follows_links
    prepare(table, out, PrepareSettings(format="folder", options=options, ranks=ranks, follow_links=follow_links))


def training_photographs(path: Path, root: Path | None) -> frozenset[str]:
    """The files of a prepared set's split `train`."""
    prepared = PreparedDataset.open(path, root)
    return frozenset(str(prepared.record(int(row)).path) for row in prepared.rows("train"))
