"""A taxonomy of a few lineages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from taxadiffusion.names import Lineage, Rank
from taxadiffusion.taxonomy import Taxonomy, TaxonomyBuilder


def taxonomy_of(lineages: Iterable[Lineage], ranks: Sequence[Rank]) -> Taxonomy:
    """All taxa of the lineages and their ancestors."""
    builder = TaxonomyBuilder(ranks)
    for lineage in lineages:
        builder.add(lineage)
    return builder.finish()[0]
