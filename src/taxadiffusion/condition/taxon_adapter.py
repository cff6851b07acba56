"""The taxon-embedding adapter: one embedding of the lineage → extra tokens beside the base's null (TaxaAdapter)."""

# Letters: U unique lineages, T tokens, K extra tokens, D width, E width of the embedding.
from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from taxadiffusion.condition.conditioner import Conditioner, single_holes
from taxadiffusion.condition.prompt import prompt
from taxadiffusion.condition.settings import TaxonAdapterSettings
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.text import TokenStates


class TaxonAdapterConditioner(Conditioner):
    """(T + K) tokens: the base's null states, then K tokens made from one embedding of the lineage's prompt.

    The embedding is the mean of the token states, whichever text model gives them. The null is the embedding zero, so
    its tokens are learned as well.
    """

    settings: TaxonAdapterSettings

    def __init__(
        self, ranks: Sequence[Rank], states: TokenStates, settings: TaxonAdapterSettings, *, seed: int = 0
    ) -> None:
        super().__init__(ranks, states, settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projection = nn.Linear(states.width, settings.num_tokens * states.width)
            self.norm = nn.LayerNorm(states.width)

    def encode(self, lineages: Sequence[Lineage]) -> Tensor:
        """(U, T + K, D)."""
        device = self.projection.weight.device
        null = self.states([""]).to(device)  # (1, T, D)
        states = self.states([prompt(lineage) for lineage in lineages]).to(device)
        named = torch.tensor([bool(lineage) for lineage in lineages], device=device)
        embedding = states.mean(1) * named[:, None]  # (U, E)
        extra = self.projection(embedding).reshape(len(lineages), self.settings.num_tokens, -1)
        return torch.cat([null.expand(len(lineages), -1, -1), self.norm(extra)], dim=1)

    def texts(self, lineages: Iterable[Lineage]) -> list[str]:
        """The prompts of every truncation and single hole."""
        known = (lineage.only(self.ranks) for lineage in lineages)
        return list(dict.fromkeys(["", *(prompt(part) for lineage in known for part in single_holes(lineage))]))

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """One group: "taxon_tokens"."""
        return {"taxon_tokens": dict(self.named_parameters())}
