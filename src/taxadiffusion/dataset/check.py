"""The report on a source or a prepared data set that a taxonomist can act on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from taxadiffusion.dataset import findings
from taxadiffusion.dataset.catalogue import CatalogueReport, read_against
from taxadiffusion.dataset.catalogue_file import OnBytes
from taxadiffusion.dataset.census import Census
from taxadiffusion.dataset.findings import Conflict, TaxonPair, Tree
from taxadiffusion.dataset.verify import MISSING
from taxadiffusion.errors import DataError
from taxadiffusion.names import Rank
from taxadiffusion.readers import Rejected, left_out
from taxadiffusion.readers.table import Table

SCHEMA = 1


@dataclass(frozen=True)
class CheckReport:
    """Everything `check` found. `contradictions` are what stops with exit 3; the rest is for judgement."""

    source: str
    format: str
    ranks: tuple[Rank, ...]
    rows: int
    rows_rejected: int
    rows_without_species: int
    genus_filled: int
    taxa: int
    taxa_per_rank: Mapping[Rank, int]
    images_per_rank: Mapping[Rank, int]
    family_order_conflicts: int
    conflicts: list[Conflict]
    synonyms: list[TaxonPair]
    mixed_spellings: list[TaxonPair]
    misspellings: list[TaxonPair]
    homonyms_across_kingdoms: Mapping[str, tuple[str, ...]]
    epithets_in_several_genera: Mapping[str, int]
    missing_ranks: Mapping[Rank, int]
    monotypic: Mapping[Rank, int]
    long_tail: Mapping[Rank, Mapping[str, int]]
    odd_names: list[tuple[Rank, str, int]]
    licenses: Mapping[str, int]
    restricted_license_images: int
    qualifiers: Mapping[str, int]
    splits: Mapping[str, int]
    pictures_missing: int
    picture_faults: Mapping[str, int]
    """Pictures that cannot be used, by reason, the missing ones among them."""
    faulty_pictures: list[Rejected]
    reader_counts: Mapping[str, int]
    rejected: list[Rejected]
    rejected_reasons: Mapping[str, int]
    names_put_right: list[tuple[str, str, int]] = field(default_factory=list)
    catalogue: CatalogueReport | None = None
    fixes_applied: Mapping[str, int] = field(default_factory=dict)
    fixes_unused: tuple[str, ...] = ()

    @property
    def contradictions(self) -> int:
        """Children under two parents, and synonyms that are both in use."""
        return len(self.conflicts) + len(self.synonyms)

    def to_json(self) -> dict[str, Any]:
        """Plain values, the same names; `contradictions` included."""
        return {"schema": SCHEMA, **dataclasses.asdict(self), "contradictions": self.contradictions}


def check(
    census: Census, *, synonyms: Path | None = None, catalogue: Path | None = None, on_bytes: OnBytes | None = None
) -> CheckReport:
    """Judge a census. Raises `DataError` when the source has no usable row or the synonym table cannot be read.

    `catalogue` is an archive of the Catalogue of Life; a synonym in it counts as a contradiction only beside its
    accepted name, like one of the table `synonyms`. `on_bytes` hears how much of the archive has been read.
    """
    if census.rows == census.num_rejected:
        listed = "".join(f"\n  {rejected}" for rejected in census.rejected[:5])
        listed += "".join(f"\n  {words}: {count}" for words, count in left_out(census.reader_counts).items())
        raise DataError(f"{census.source}: none of its {census.rows} rows can be used{listed}")
    tree = Tree(census.taxonomy, census.images, census.first_row)
    conflicts = findings.all_conflicts(tree)
    in_catalogue = read_against(census.taxonomy, tree.images, catalogue, on_bytes) if catalogue else None
    both = both_in_use(tree, in_catalogue) if in_catalogue else []
    return CheckReport(
        source=census.source,
        format=census.format,
        ranks=census.ranks,
        rows=census.rows,
        rows_rejected=census.num_rejected,
        rows_without_species=findings.without_species(tree),
        genus_filled=int(census.reader_counts.get("genus_filled", 0)),
        taxa=len(census.taxonomy),
        taxa_per_rank={rank: len(tree.at(rank)) for rank in tree.ranks},
        images_per_rank={rank: int(tree.images[tree.at(rank)].sum()) for rank in tree.ranks},
        family_order_conflicts=sum(c.rank == "family" and c.parent_rank == "order" for c in conflicts),
        conflicts=conflicts,
        synonyms=[*(find_synonyms(tree, synonyms) if synonyms else []), *both],
        mixed_spellings=findings.mixed_spellings(tree, conflicts),
        misspellings=findings.misspellings(tree),
        homonyms_across_kingdoms=findings.homonyms_across_kingdoms(tree),
        epithets_in_several_genera=findings.shared_epithets(tree),
        missing_ranks=findings.missing_ranks(tree),
        monotypic=findings.monotypic(tree),
        long_tail=findings.long_tail(tree),
        odd_names=findings.odd_names(tree),
        licenses=dict(census.licenses.most_common()),
        restricted_license_images=sum(n for text, n in census.licenses.items() if is_restricted(text)),
        qualifiers=dict(census.qualifiers.most_common()),
        splits=dict(census.splits.most_common()),
        pictures_missing=census.picture_faults[MISSING],
        picture_faults=dict(census.picture_faults.most_common()),
        faulty_pictures=census.faulty_pictures,
        reader_counts=dict(census.reader_counts),
        names_put_right=census.names_put_right,
        catalogue=in_catalogue,
        rejected=census.rejected,
        rejected_reasons=dict(census.reasons.most_common()),
    )


def find_synonyms(tree: Tree, path: Path) -> list[TaxonPair]:
    """Pairs of the table (columns `synonym`, `accepted`) of which both names are in the tree, at the same rank."""
    table = Table(path)
    if not {"synonym", "accepted"} <= set(table.columns):
        raise DataError(f"{path}: needs the columns synonym and accepted; has {', '.join(table.columns)}")
    by_label: dict[str, list[int]] = {}
    for taxon_id in range(len(tree.taxonomy)):
        by_label.setdefault(tree.label(taxon_id).casefold(), []).append(taxon_id)
    found = []
    for row in table:
        if isinstance(row, Rejected):
            raise DataError(str(row))
        synonym, accepted = row.get("synonym"), row.get("accepted")
        taxa = by_label.get(synonym.casefold(), []), by_label.get(accepted.casefold(), [])
        ranks = {tree.taxonomy.rank(t) for t in taxa[0]} & {tree.taxonomy.rank(t) for t in taxa[1]}
        for rank in sorted(ranks) if synonym.casefold() != accepted.casefold() else ():
            images = [int(np.sum([tree.images[t] for t in ids if tree.taxonomy.rank(t) == rank])) for ids in taxa]
            found.append(TaxonPair(rank, accepted, synonym, images[1], images[0], f"{path.name}:{row.number}"))
    return found


def both_in_use(tree: Tree, report: CatalogueReport) -> list[TaxonPair]:
    """The synonyms of a catalogue whose accepted names are in the tree as well, at the same rank."""
    images = {(tree.taxonomy.rank(t), tree.label(t)): int(tree.images[t]) for t in range(len(tree.taxonomy))}
    where = Path(report.archive).name
    return [
        TaxonPair(j.rank, j.accepted, j.name, images[j.rank, j.accepted], j.images, where)
        for j in report.synonyms
        if (j.rank, j.accepted) in images
    ]


def is_restricted(license_: str) -> bool:
    """Whether a licence's text forbids commercial use or derivatives ("CC-BY-NC", "…/by-nd/4.0/")."""
    words = re.split(r"[^a-z]+", license_.casefold())
    return any(word in ("nc", "nd") or word.startswith(("noncommercial", "noderiv")) for word in words)
