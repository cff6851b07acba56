"""Which row of a table belongs to a taxon, by its whole lineage: homonyms have rows of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from taxadiffusion.condition.conditioner import single_holes
from taxadiffusion.errors import CheckpointError, DataError
from taxadiffusion.names import Lineage, Rank


class TaxonRows:
    """Rows of all taxa and their ancestors over the given ranks, in the order of their names.

    A lineage with one hole is found as well: it is the first taxon that it could be. A hole below its finest name says
    nothing of its taxon.
    """

    def __init__(self, taxa: Iterable[Lineage], ranks: Sequence[Rank], at: Rank | None = None) -> None:
        """at: of this rank alone."""
        self._at = at
        known = (lineage.only(ranks) for lineage in taxa)
        parts = {lineage.truncated(rank) for lineage in known for rank in lineage.ranks if at in (None, rank)}
        self.lineages = sorted(parts, key=lambda lineage: lineage.names)
        self._rows = {lineage: row for row, lineage in enumerate(self.lineages)}
        whole = dict(self._rows)
        self._ambiguous: set[Lineage] = set()
        for row, lineage in enumerate(self.lineages):
            for holed in single_holes(lineage):
                if holed.rank == lineage.rank and self._rows.setdefault(holed, row) not in (row, whole.get(holed)):
                    self._ambiguous.add(holed)

    def __len__(self) -> int:
        return len(self.lineages)

    def __getitem__(self, lineage: Lineage) -> int:
        """Raises `DataError` for a taxon that has no row."""
        row = self._rows.get(Lineage(lineage.names))
        if row is None:
            raise DataError(f"this model has nothing learned for {lineage}: it knows only the taxa it was trained on")
        return row

    def certain(self, lineage: Lineage) -> int | None:
        """None for a taxon that has no row, and for a lineage with a hole that several taxa would fit."""
        lineage = Lineage(lineage.names)
        return None if lineage in self._ambiguous else self._rows.get(lineage)

    def carried(self, own: Tensor, theirs: Tensor | None, taxa: Iterable[Lineage], ranks: Sequence[Rank]) -> Tensor:
        """A copy of the table `own` (rows, D), with the rows of `taxa` from `theirs`, the table of those taxa alone.

        Raises `CheckpointError` where it is not.
        """
        known = TaxonRows(taxa, ranks, self._at).lineages
        table = own.detach().clone()
        if theirs is None or theirs.shape != (len(known), own.shape[1]):
            found = "none" if theirs is None else f"one of shape {[*theirs.shape]}"
            raise CheckpointError(
                f"a table of {len(known)} taxa of width {own.shape[1]} is needed to go on, there is {found}"
            )
        table[[self[lineage] for lineage in known]] = theirs.to(table)
        return table
