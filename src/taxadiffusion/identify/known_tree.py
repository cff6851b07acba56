"""The taxa that a model can be conditioned on, as a tree to walk."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest

from taxadiffusion.names import Lineage, Rank
from taxadiffusion.taxonomy import Taxonomy


class KnownTree:
    """A taxonomy seen through the ranks that a model knows: a taxon of another rank is passed through."""

    def __init__(self, taxonomy: Taxonomy, ranks: Sequence[Rank]) -> None:
        self.taxonomy = taxonomy
        self.ranks = tuple(ranks)
        self._lineages: dict[int, Lineage] = {}
        self._paths: dict[int, tuple[int, ...]] = {}
        self._tips: dict[int, tuple[int, ...]] = {}

    def children(self, taxon_id: int | None) -> tuple[int, ...]:
        """Of known ranks, the nearest below the taxon; below the root for None."""
        below = self.taxonomy.roots() if taxon_id is None else self.taxonomy.children(taxon_id)
        found: list[int] = []
        for child in below:
            found += [child] if self.taxonomy.rank(child) in self.ranks else self.children(child)
        return tuple(found)

    def lineage(self, taxon_id: int) -> Lineage:
        """What the model is conditioned on."""
        if taxon_id not in self._lineages:
            self._lineages[taxon_id] = self.taxonomy.lineage(taxon_id).only(self.ranks)
        return self._lineages[taxon_id]

    def rank(self, taxon_id: int) -> Rank:
        return self.taxonomy.rank(taxon_id)

    def path(self, taxon_id: int) -> tuple[int, ...]:
        """The taxon and its ancestors of known ranks, coarsest first."""
        if taxon_id not in self._paths:
            above = self.taxonomy.ancestors(taxon_id)[::-1]
            self._paths[taxon_id] = tuple(taxon for taxon in above if self.taxonomy.rank(taxon) in self.ranks)
        return self._paths[taxon_id]

    def tips(self, taxon_id: int, most: int | None = None) -> tuple[int, ...]:
        """The taxa at the ends of its branches, itself if it has none below; `most`: so many, evenly over the branches.

        They are in turn of every child, so that few are of as many children as can be.
        """
        if taxon_id not in self._tips:
            below = [self.tips(child) for child in self.children(taxon_id)]
            turns = chain.from_iterable(zip_longest(*below))
            self._tips[taxon_id] = tuple(tip for tip in turns if tip is not None) or (taxon_id,)
        return self._tips[taxon_id][:most]

    def deepest(self, lineage: Lineage) -> int | None:
        """The finest taxon of known rank that the lineage names and the tree holds; None where it holds none."""
        node, found = None, None
        for rank, name in lineage.names:
            below = self.taxonomy.roots() if node is None else self.taxonomy.children(node)
            here = [t for t in below if self.taxonomy.rank(t) == rank and self.taxonomy.name(t) == name]
            if not here:
                if rank in self.ranks:
                    return found
                continue  # a rank that this taxonomy does not have
            node = here[0]
            found = node if rank in self.ranks else found
        return found
