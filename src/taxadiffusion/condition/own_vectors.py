"""A vector of its own for each taxon, learned beside what its names say."""

# Letters: U lineages, R ranks, T tokens, D width, N_r taxa of rank r.
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from taxadiffusion.base.transfer import moved
from taxadiffusion.condition.taxa import TaxonRows
from taxadiffusion.errors import SettingsError
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
        taxa = list(taxa)
        rows = {rank: TaxonRows(taxa, ranks, rank) for rank in ranks}
        super().__init__({rank: nn.Parameter(torch.zeros(len(mine), width)) for rank, mine in rows.items()})
        self._num_tokens = num_tokens
        self._rows = rows  # in the order of the ranks, which the dictionary itself does not keep

    def summed(self, lineages: Sequence[Lineage]) -> Tensor:
        """(U, T, D): token i is the vector of the lineage's taxon of the i-th rank, zero where it has none."""
        found = []
        for rank, known in self._rows.items():
            table = self[rank]
            asked = ((at, one) for at, one in enumerate(lineages) if one.get(rank) is not None)
            rows = {at: row for at, one in asked if (row := known.certain(one.truncated(rank))) is not None}
            places, taken = (
                moved(torch.tensor([*numbers], dtype=torch.long), table.device) for numbers in (rows, rows.values())
            )
            # Of no row nothing is taken, and still the table belongs to the graph, with gradient zero.
            found.append(
                table.new_zeros(len(lineages), table.shape[1]).index_add(0, places, table.index_select(0, taken))
            )
        tokens = torch.stack(found, dim=1)  # (U, R, D)
        return nn.functional.pad(tokens, (0, 0, 0, self._num_tokens - len(found)))

    def carried(self, state: Mapping[str, Tensor], taxa: Iterable[Lineage]) -> dict[str, Tensor]:
        """The tables of a model of fewer taxa, `taxa`, as those of this one: a new taxon's vector stays as it is.

        state: rank → table. Raises `CheckpointError` for tables that are not of those taxa.
        """
        taxa, ranks = list(taxa), list(self._rows)
        return {rank: rows.carried(self[rank], state.get(rank), taxa, ranks) for rank, rows in self._rows.items()}
