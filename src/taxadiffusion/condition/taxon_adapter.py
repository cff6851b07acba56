"""The taxon-embedding adapter: one embedding of the lineage → extra tokens beside the base's null (TaxaAdapter)."""

# Letters: U unique lineages, T tokens, K extra tokens, D width, E width of the embedding.
from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from taxadiffusion.condition.conditioner import Conditioner
from taxadiffusion.condition.prompt import prompt_parts, prompt_texts
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
        named = torch.tensor([bool(lineage) for lineage in lineages], device=device)
        embedding = self._embedding(lineages).to(device) * named[:, None]  # (U, E)
        extra = self.projection(embedding).reshape(len(lineages), self.settings.num_tokens, -1)
        return torch.cat([null.expand(len(lineages), -1, -1), self.norm(extra)], dim=1)

    def _embedding(self, lineages: Sequence[Lineage]) -> Tensor:
        """Mean state of the prompt's tokens, (U, E)."""
        parts = [prompt_parts(lineage, self.ranks, self.settings.num_parts) for lineage in lineages]
        return torch.stack([self.states(column).mean(1) for column in zip(*parts, strict=True)]).mean(0)

    def texts(self, lineages: Iterable[Lineage]) -> list[str]:
        """The prompts of every truncation and single hole."""
        return prompt_texts(lineages, self.ranks, self.settings.num_parts)

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """One group: "taxon_tokens"."""
        return {"taxon_tokens": dict(self.named_parameters())}
