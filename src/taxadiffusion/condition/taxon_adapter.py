"""The taxon-embedding adapter: one embedding of the lineage → extra tokens beside the base's null (TaxaAdapter)."""

# Letters: U unique lineages, N taxa, T tokens, K extra tokens, D width, E width of the embedding.
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from taxadiffusion.base.text import TokenStates
from taxadiffusion.base.transfer import moved
from taxadiffusion.condition.conditioner import Conditioner, NameGain, RunFacts, WithGain
from taxadiffusion.condition.prompt import PromptSection, num_parts_for, prompt_states, prompt_texts
from taxadiffusion.condition.taxa import TaxonRows
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.sections import UserText

_NAMES = 256  # embedded together


_NumTokens = Annotated[int, Field(ge=1, le=256)]


class TaxonAdapterSection(PromptSection):
    """What a user may set of the taxon-embedding adapter."""

    taxon_encoder: UserText | None = Field(
        default=None,
        description="strategy taxon_adapter: bioclip, bioclip-2, bioclip-2.5, a folder, a file; none: the base's text",
    )
    num_extra_tokens: _NumTokens = Field(default=4, description="strategy taxon_adapter: its tokens")


class TaxonAdapterSettings(WithGain):
    """Number of extra tokens, which have a cross-attention of their own (`base.extra_attention`).

    embedding_width: of an embedding per taxon that is kept in a table; None = the base's text states are the embedding,
    with `num_parts` and `name_gain` as for prompts.
    """

    kind: Literal["taxon_adapter"] = "taxon_adapter"
    num_tokens: _NumTokens = 4
    embedding_width: int | None = Field(default=None, ge=1, le=16384)
    num_parts: int = Field(default=1, ge=1, le=32)
    name_gain: NameGain = 1.0

    @property
    def extra_tokens(self) -> int:
        return self.num_tokens

    @classmethod
    def of_run(cls, section: TaxonAdapterSection, facts: RunFacts) -> Self:
        """Prompts in as many parts as the longest asks; another model's embeddings are not enlarged."""
        gain = 1.0 if facts.embedding_width else section.prompt_name_gain
        return cls(
            num_tokens=section.num_extra_tokens,
            num_parts=num_parts_for(facts, gain),
            name_gain=gain,
            embedding_width=facts.embedding_width,
        )

    @classmethod
    def gain_key(cls, section: TaxonAdapterSection) -> str | None:
        return None if section.taxon_encoder else "prompt_name_gain"

    @classmethod
    def name_encoder(cls, section: TaxonAdapterSection) -> str | None:
        return section.taxon_encoder


class TaxonAdapterConditioner(Conditioner):
    """(T + K) tokens: the base's null states, then K tokens made from one embedding of the lineage.

    Without `embedding_width` the embedding is the mean of the base's token states of the lineage's prompt. With it, a
    table holds one for every taxon: `fill` writes it once from any model of names (BioCLIP's text side), and it is
    saved with the adapter. The null is the embedding zero, so its tokens are learned as well.
    """

    settings_class = TaxonAdapterSettings
    settings: TaxonAdapterSettings

    def __init__(
        self,
        ranks: Sequence[Rank],
        states: TokenStates,
        settings: TaxonAdapterSettings,
        taxa: Iterable[Lineage] = (),
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(ranks, states, settings)
        width = settings.embedding_width
        self._rows = TaxonRows(taxa if width else (), ranks)
        self.table = nn.Parameter(torch.zeros(len(self._rows), width), requires_grad=False) if width else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projection = nn.Linear(width or states.width, settings.num_tokens * states.width)
            self.norm = nn.LayerNorm(states.width)

    def fill(self, embed: Callable[[Sequence[Lineage]], NDArray[np.float32]]) -> None:
        """Write the table: `embed` gives (N, E) for the lineages of all taxa and their ancestors."""
        assert self.table is not None, "this adapter reads the base's text states and has no table"
        lineages = self._rows.lineages
        with torch.no_grad():
            for start in range(0, len(lineages), _NAMES):
                rows = embed(lineages[start : start + _NAMES])
                self.table[start : start + len(rows)] = torch.from_numpy(rows).to(self.table)

    def encode(self, lineages: Sequence[Lineage]) -> Tensor:
        """(U, T + K, D). Raises `DataError` for a taxon that a table does not hold."""
        device = self.projection.weight.device
        null = moved(self.states([""]), device)  # (1, T, D)
        named = moved(torch.tensor([bool(lineage.names) for lineage in lineages]), device)
        embedding = moved(self._embedding(lineages), device) * named[:, None]  # (U, E)
        extra = self.projection(embedding).reshape(len(lineages), self.settings.num_tokens, -1)
        return torch.cat([null.expand(len(lineages), -1, -1), self.norm(extra)], dim=1)

    def _embedding(self, lineages: Sequence[Lineage]) -> Tensor:
        """(U, E); that of a lineage without a name is anything."""
        if self.table is not None:
            rows = [self._rows[lineage] if lineage.names else 0 for lineage in lineages]
            return self.table.index_select(0, moved(torch.tensor(rows), self.table.device))
        own = self.settings
        parts = prompt_states(lineages, self.ranks, self.states, own.num_parts, own.name_gain)
        return torch.stack([states.mean(1) for states in parts]).mean(0)

    def texts(self, lineages: Iterable[Lineage]) -> list[str]:
        """The null's text; without a table the prompts of every truncation and single hole as well."""
        own = self.settings
        if self.table is not None:
            return [""]
        return prompt_texts(lineages, self.ranks, own.num_parts, nameless=own.name_gain != 1.0)

    def carried(self, state: Mapping[str, Tensor], taxa: Iterable[Lineage]) -> dict[str, Tensor]:
        """The embeddings of new taxa are those that `fill` wrote."""
        if self.table is None:
            return dict(state)
        return {**state, "table": self._rows.carried(self.table, state.get("table"), taxa, self.ranks)}

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """One group: "taxon_tokens". The table is never trained."""
        return {"taxon_tokens": {name: p for name, p in self.named_parameters() if name != "table"}}
