"""The tree of a data set: every taxon with its parent, in Arrow arrays; identity is the lineage, ids never change."""

from taxadiffusion.taxonomy.builder import TaxonomyBuilder, extended
from taxadiffusion.taxonomy.find import Found, find_taxon
from taxadiffusion.taxonomy.other_names import NAMES, OtherName, called, names_beside, read_other_names
from taxadiffusion.taxonomy.tree import Taxonomy

__all__ = [
    "NAMES",
    "Found",
    "OtherName",
    "Taxonomy",
    "TaxonomyBuilder",
    "called",
    "extended",
    "find_taxon",
    "names_beside",
    "read_other_names",
]
