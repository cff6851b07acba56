"""A vector of its own for each taxon, learned beside what its names say."""

# Letters: U lineages, R ranks, T tokens, D width, N_r taxa of rank r.
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from taxadiffusion.base.transfer import moved
from taxadiffusion.condition.taxa import TaxonRows
from taxadiffusion.errors import CheckpointError, SettingsError
from taxadiffusion.names import Lineage, Rank


class OwnVectors(nn.ParameterDict):
    """Rank r → (N_r, D), all zero until training: a taxon that no photograph showed has its names alone.

    A lineage with a hole has the vectors of the only taxa that it could be; below two holes, and where several taxa
    would fit, it has none.
    """

    def __init__(self, taxa: Iterable[Lineage], ranks: Sequence[Rank], width: int, num_tokens: int) -> None:
        """Raises `SettingsError` for fewer tokens than ranks."""
        if num_tokens < len(ranks):
            raise SettingsError(
                f"conditioner.vector_gain needs a token for each of {len(ranks)} ranks, and there are {num_tokens}: "
                "raise base.num_tokens"
            )
        rows = TaxonRows(taxa, ranks)
        of_rank: dict[Rank, list[int]] = {rank: [] for rank in ranks}
        for row, lineage in enumerate(rows.lineages):
            of_rank[lineage.names[-1][0]].append(row)
        super().__init__({rank: nn.Parameter(torch.zeros(len(mine), width)) for rank, mine in of_rank.items()})
        self._ranks = tuple(ranks)  # the dictionary has an order of its own
        self._num_tokens = num_tokens
        self._rows = rows
        self._place = {row: place for mine in of_rank.values() for place, row in enumerate(mine)}

    def summed(self, lineages: Sequence[Lineage]) -> Tensor:
        """(U, T, D): token i is the vector of the lineage's taxon of the i-th rank, zero where it has none."""
        found = []
        for rank in self._ranks:
            table = self[rank]
            rows = {at: row for at, one in enumerate(lineages) if (row := self._row(one, rank)) is not None}
            places, taken = (
                moved(torch.tensor([*numbers], dtype=torch.long), table.device) for numbers in (rows, rows.values())
            )
            # Of no row nothing is taken, and still the table belongs to the graph, with gradient zero.
            found.append(
                table.new_zeros(len(lineages), table.shape[1]).index_add(0, places, table.index_select(0, taken))
            )
        tokens = torch.stack(found, dim=1)  # (U, R, D)
        return nn.functional.pad(tokens, (0, 0, 0, self._num_tokens - len(found)))

    def _row(self, lineage: Lineage, rank: Rank) -> int | None:
        if lineage.get(rank) is None:
            return None
        row = self._rows.certain(lineage.truncated(rank))
        return None if row is None else self._place[row]

    def carried(self, state: Mapping[str, Tensor], taxa: Iterable[Lineage]) -> dict[str, Tensor]:
        """The tables of a model of fewer taxa, `taxa`, as those of this one: a new taxon's vector stays as it is.

        state: rank → table. Raises `CheckpointError` for tables that are not of those taxa.
        """
        theirs = OwnVectors(taxa, self._ranks, next(iter(self.values())).shape[1], self._num_tokens)
        found = {}
        for rank, table in self.items():
            mine = [lineage for lineage in theirs._rows.lineages if lineage.rank == rank]
            if rank not in state or state[rank].shape != theirs[rank].shape:
                there = f"one of shape {[*state[rank].shape]}" if rank in state else "none"
                raise CheckpointError(
                    f"a table of {len(mine)} taxa of width {table.shape[1]} is needed to go on, there is {there}"
                )
            found[rank] = table.detach().clone()
            found[rank][[self._place[self._rows[lineage]] for lineage in mine]] = state[rank].to(table)
        return found
