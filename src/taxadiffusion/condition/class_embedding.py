"""The class-embedding conditioner: one learned vector per taxon and rank (FineDiffusion, Phylo-Diffusion)."""

# Letters: U unique lineages, R ranks (one token each), D width.
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from taxadiffusion.base.text import TokenStates
from taxadiffusion.base.transfer import moved
from taxadiffusion.condition.conditioner import Conditioner, ConditionerSettings
from taxadiffusion.condition.taxa import TaxonRows
from taxadiffusion.names import Lineage, Rank

_INIT_STD = 0.02  # DiT's class embedding


class ClassEmbeddingSettings(ConditionerSettings):
    """A vector per taxon and rank; guidance from an ancestor is then superclass guidance."""

    kind: Literal["class_embedding"] = "class_embedding"


class ClassEmbeddingConditioner(Conditioner):
    """Token r is the vector of the taxon at rank r; a missing rank, and each rank of the null, has a learned one."""

    settings_class = ClassEmbeddingSettings

    def __init__(
        self,
        ranks: Sequence[Rank],
        states: TokenStates,
        settings: ClassEmbeddingSettings,
        taxa: Iterable[Lineage] = (),
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(ranks, states, settings)
        self._rows = TaxonRows(taxa, ranks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.taxa = nn.Parameter(torch.randn(len(self._rows), states.width) * _INIT_STD)
            self.missing = nn.Parameter(torch.randn(len(self.ranks), states.width) * _INIT_STD)
            self.norm = nn.LayerNorm(states.width)

    def encode(self, lineages: Sequence[Lineage]) -> Tensor:
        """(U, R, D). Raises `DataError` for a taxon that has no vector."""
        table = torch.cat([self.taxa, self.missing])
        rows = [
            [
                self._rows[lineage.truncated(rank)] if lineage.get(rank) else len(self.taxa) + position
                for position, rank in enumerate(self.ranks)
            ]
            for lineage in lineages
        ]
        index = moved(torch.tensor(rows).reshape(-1), table.device)
        tokens = table.index_select(0, index).reshape(len(lineages), len(self.ranks), -1)  # (U, R, D)
        return self.norm(tokens)  # type: ignore[no-any-return]

    def texts(self, lineages: Iterable[Lineage]) -> list[str]:  # noqa: ARG002
        return []

    def carried(self, state: Mapping[str, Tensor], taxa: Iterable[Lineage]) -> dict[str, Tensor]:
        """A new taxon's own vector is one that was never trained; those of its ancestors are theirs."""
        return {**state, "taxa": self._rows.carried(self.taxa, state.get("taxa"), taxa, self.ranks)}

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """One group: "classes"."""
        return {"classes": dict(self.named_parameters())}
