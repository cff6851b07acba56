"""The tree of a data set: every taxon with its parent, in Arrow arrays; identity is the lineage, ids never change."""

from taxadiffusion.taxonomy.builder import TaxonomyBuilder, extended
from taxadiffusion.taxonomy.find import Found, find_taxon
from taxadiffusion.taxonomy.tree import Taxonomy

__all__ = ["Found", "Taxonomy", "TaxonomyBuilder", "extended", "find_taxon"]
