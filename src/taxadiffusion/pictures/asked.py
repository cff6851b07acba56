"""Which taxa a model is asked for."""

from __future__ import annotations

from taxadiffusion.adapter import Adapter
from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.taxonomy import called, find_taxon, names_beside, read_other_names


def requested_lineage(adapter: Adapter, taxon: str, rank: Rank | None = None) -> tuple[Lineage, str | None]:
    """The lineage that a person's words name, cut at `rank`, and a note where it is not simply what was typed.

    Raises `DataError` for homonyms, misspellings, unknown names, common ones (saying whose they are, where a table
    beside the model knows them), and a rank that the taxon or the model lacks.
    """
    try:
        found = find_taxon(adapter.taxonomy, taxon)
    except DataError as error:
        if whose := _whose(adapter, taxon):
            raise DataError(whose) from error
        raise
    lineage = found.lineage.only(adapter.card.ranks)
    return lineage if rank is None else cut_at(adapter, lineage, rank), found.note


def _whose(adapter: Adapter, taxon: str) -> str:
    """Of what taxa it is another name, in words; "" where of none, or where there is no table of them."""
    path = names_beside(adapter.path)
    if path is None:
        return ""
    others = called(read_other_names(path, adapter.taxonomy)[0], taxon)
    taxa = dict.fromkeys(f"{adapter.taxonomy.lineage(other.taxon).label!r}" for other in others)
    return f"{taxon!r} is a {others[0].kind}; ask for {' or '.join(taxa)}" if taxa else ""


def cut_at(adapter: Adapter, lineage: Lineage, rank: Rank) -> Lineage:
    """The taxon's ancestor at `rank`. Raises `DataError` for a rank that the taxon or the model lacks."""
    if rank not in adapter.card.ranks:
        raise DataError(f"rank {rank!r} is not one of this model's ranks: {', '.join(adapter.card.ranks)}")
    if rank not in lineage.ranks:
        raise DataError(f"{lineage.label} has no {rank}; its lineage is {lineage}")
    return lineage.truncated(rank)


def species_of(adapter: Adapter) -> tuple[Lineage, ...]:
    """Every lineage at the model's finest rank, in the order of their names."""
    taxonomy, finest = adapter.taxonomy, adapter.card.ranks[-1]
    lineages = {taxonomy.lineage(taxon).only(adapter.card.ranks) for taxon in taxonomy.at_rank(finest)}
    return tuple(sorted(lineages, key=lambda lineage: lineage.label))
