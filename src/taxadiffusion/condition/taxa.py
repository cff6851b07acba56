"""Which row of a table belongs to a taxon, by its whole lineage: homonyms have rows of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from taxadiffusion.condition.conditioner import single_holes
from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage, Rank


class TaxonRows:
    """Rows of all taxa and their ancestors over the given ranks, in the order of their names.

    A lineage with one hole is found as well: it is the first taxon that it could be. A hole below its finest name says
    nothing of its taxon.
    """

    def __init__(self, taxa: Iterable[Lineage], ranks: Sequence[Rank]) -> None:
        known = (lineage.only(ranks) for lineage in taxa)
        parts = {lineage.truncated(rank) for lineage in known for rank in lineage.ranks}
        self.lineages = sorted(parts, key=lambda lineage: lineage.names)
        self._rows = {lineage: row for row, lineage in enumerate(self.lineages)}
        for row, lineage in enumerate(self.lineages):
            for holed in single_holes(lineage):
                if holed.rank == lineage.rank:
                    self._rows.setdefault(holed, row)

    def __len__(self) -> int:
        return len(self.lineages)

    def __getitem__(self, lineage: Lineage) -> int:
        """Raises `DataError` for a taxon that has no row."""
        lineage = Lineage(lineage.names)
        if lineage not in self._rows:
            raise DataError(f"this model has nothing learned for {lineage}: it knows only the taxa it was trained on")
        return self._rows[lineage]
