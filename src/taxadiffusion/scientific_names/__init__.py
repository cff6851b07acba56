"""Scientific names as people write them: what a cell says, and the parts of the name in it. No tensors, no tables."""

from __future__ import annotations

from taxadiffusion.scientific_names.parse import ScientificName, folded_spelling, parse_name
from taxadiffusion.scientific_names.written import (
    Written,
    clean_name,
    is_above_genus,
    kinds,
    says_no_name,
    unquoted,
    usual_capitals,
    written_name,
    written_taxon,
)

__all__ = [
    "ScientificName",
    "Written",
    "clean_name",
    "folded_spelling",
    "is_above_genus",
    "kinds",
    "parse_name",
    "says_no_name",
    "unquoted",
    "usual_capitals",
    "written_name",
    "written_taxon",
]
