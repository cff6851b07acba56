"""Ranks, lineages, and scientific names as people write them. No tensors, no tables."""

from __future__ import annotations

from taxadiffusion.names.lineage import RANKS, Lineage, Rank, ordered_ranks, rank_index
from taxadiffusion.names.scientific import ScientificName, parse_name
from taxadiffusion.names.written import (
    Written,
    clean_name,
    folded_spelling,
    is_above_genus,
    kinds,
    says_no_name,
    unquoted,
    usual_capitals,
    written_name,
    written_taxon,
)

__all__ = [
    "RANKS",
    "Lineage",
    "Rank",
    "ScientificName",
    "Written",
    "clean_name",
    "folded_spelling",
    "is_above_genus",
    "kinds",
    "ordered_ranks",
    "parse_name",
    "rank_index",
    "says_no_name",
    "unquoted",
    "usual_capitals",
    "written_name",
    "written_taxon",
]
