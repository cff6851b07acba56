"""Builds a taxonomy from a stream of lineages, one dictionary look-up per name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taxadiffusion.names import Lineage, Rank, ordered_ranks, rank_index
from taxadiffusion.taxonomy.tree import Taxonomy


class TaxonomyBuilder:
    """`add` gives each lineage a provisional id; `finish` gives the taxonomy and provisional → final ids."""

    def __init__(self, ranks: Sequence[Rank], base: Taxonomy | None = None) -> None:
        """With `base`, its taxa keep their ids and new ones are appended."""
        self.ranks = ordered_ranks(ranks)
        self._codes = {rank: rank_index(rank) for rank in self.ranks}
        self._ids: dict[tuple[int, int, str], int] = {}
        self._num_kept = len(base) if base else 0
        if base:
            columns = zip(base.parents.tolist(), base.rank_codes.tolist(), base.names.to_pylist(), strict=True)
            self._ids = {key: taxon_id for taxon_id, key in enumerate(columns)}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, lineage: Lineage) -> int:
        """Provisional id of the lineage kept to the builder's ranks; -1 where nothing of it is left."""
        taxon_id = -1
        for rank, name in lineage.names:
            code = self._codes.get(rank)
            if code is None:
                continue
            key = (taxon_id, code, name if name.isascii() else unicodedata.normalize("NFC", name))
            taxon_id = self._ids.setdefault(key, len(self._ids))
        return taxon_id

    def finish(self) -> tuple[Taxonomy, npt.NDArray[np.int32]]:
        """The taxonomy, and (num_added,) final id of each provisional id. New taxa are numbered depth first by name."""
        keys = list(self._ids)
        new_children: dict[int, list[int]] = {}
        for taxon_id in range(self._num_kept, len(keys)):
            new_children.setdefault(keys[taxon_id][0], []).append(taxon_id)
        final = np.arange(len(keys), dtype=np.int32)
        order = list(range(self._num_kept))
        for start in sorted(t for t in new_children if t < self._num_kept):
            stack = sorted(new_children[start], key=lambda t: keys[t][1:], reverse=True)
            while stack:
                taxon_id = stack.pop()
                final[taxon_id] = len(order)
                order.append(taxon_id)
                stack.extend(sorted(new_children.get(taxon_id, ()), key=lambda t: keys[t][1:], reverse=True))
        parents = np.array([keys[t][0] for t in order], dtype=np.int32)
        codes = np.array([keys[t][1] for t in order], dtype=np.int8)
        names = pa.array([keys[t][2] for t in order], pa.string())
        parents = np.where(parents >= 0, final[np.maximum(parents, 0)], -1).astype(np.int32) if len(order) else parents
        return Taxonomy(self.ranks, parents, codes, names), final


def extended(taxonomy: Taxonomy, lineages: Iterable[Lineage]) -> Taxonomy:
    """With the new taxa of `lineages` appended in name order; every existing id keeps its lineage."""
    builder = TaxonomyBuilder(taxonomy.ranks, taxonomy)
    for lineage in lineages:
        builder.add(lineage)
    return builder.finish()[0]
