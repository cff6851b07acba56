"""The tree of a prepared data set as Newick and as a table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from taxadiffusion.dataset.columns import SPLITS
from taxadiffusion.dataset.prepared import PreparedDataset
from taxadiffusion.taxonomy import Taxonomy


def write_newick(dataset: PreparedDataset, out: Path) -> None:
    """One tree; several roots are joined below an unnamed one. Labels are quoted: binomials at rank species."""
    with out.open("w", encoding="utf-8") as file:
        file.writelines(newick(dataset.taxonomy))
        file.write("\n")


def newick(taxonomy: Taxonomy) -> Iterator[str]:
    """The pieces of the Newick text, in order."""
    roots = taxonomy.roots()
    if len(roots) == 1:
        yield from _subtree(taxonomy, roots[0])
    else:
        yield "("
        for i, root in enumerate(roots):
            yield "," if i else ""
            yield from _subtree(taxonomy, root)
        yield ")"
    yield ";"


def _subtree(taxonomy: Taxonomy, taxon_id: int) -> Iterator[str]:
    children = taxonomy.children(taxon_id)
    if children:
        yield "("
        for i, child in enumerate(children):
            yield "," if i else ""
            yield from _subtree(taxonomy, child)
        yield ")"
    yield "'" + taxonomy.lineage(taxon_id).label.replace("'", "''") + "'"


def write_csv(dataset: PreparedDataset, out: Path) -> None:
    """A row per taxon: id, parent, rank, name, label, images of each split (subtree included), name at each rank."""
    with out.open("w", encoding="utf-8", newline="") as file:
        write_taxa(dataset, file)


def write_taxa(dataset: PreparedDataset, file: IO[str]) -> None:
    taxonomy = dataset.taxonomy
    shown = [split for split in SPLITS if split != "judge" or len(dataset.rows(split))]
    counts = {split: dataset.counts(split) for split in shown}
    writer = csv.writer(file)
    identity_columns = ("taxon_id", "parent_id", "rank", "name", "label", "source_taxon_id")
    writer.writerow([*identity_columns, *(f"images_{s}" for s in counts), *dataset.ranks])
    of_source = dataset.source_taxon_ids()
    for taxon_id in range(len(taxonomy)):
        lineage, parent = taxonomy.lineage(taxon_id), taxonomy.parent(taxon_id)
        names = (lineage.get(rank) or "" for rank in dataset.ranks)
        images = (int(number[taxon_id]) for number in counts.values())
        called = (taxonomy.rank(taxon_id), taxonomy.name(taxon_id), lineage.label, of_source.get(taxon_id, ""))
        identity = ("" if parent is None else parent, *called)
        writer.writerow([taxon_id, *identity, *images, *names])
