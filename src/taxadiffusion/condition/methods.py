"""The methods: every conditioner by its settings, told apart by `kind`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field

from taxadiffusion.base.text import TokenStates
from taxadiffusion.condition.class_embedding import ClassEmbeddingConditioner, ClassEmbeddingSettings
from taxadiffusion.condition.conditioner import Conditioner
from taxadiffusion.condition.prompt import PromptConditioner, PromptSettings
from taxadiffusion.condition.taxon_adapter import TaxonAdapterConditioner, TaxonAdapterSettings
from taxadiffusion.condition.taxonomy import TaxonomyConditioner, TaxonomySettings
from taxadiffusion.names import Lineage, Rank

ConditionerSettings = Annotated[
    TaxonomySettings | PromptSettings | ClassEmbeddingSettings | TaxonAdapterSettings, Field(discriminator="kind")
]


def build_conditioner(
    settings: ConditionerSettings,
    ranks: Sequence[Rank],
    states: TokenStates,
    taxa: Iterable[Lineage],
    *,
    seed: int = 0,
) -> Conditioner:
    """The conditioner that the settings describe, freshly initialised from `seed`.

    states: a text encoder, or its states from disk. taxa: every taxon of the taxonomy (for tables of
    taxa).
    """
    if isinstance(settings, TaxonomySettings):
        return TaxonomyConditioner(ranks, states, settings, seed=seed)
    if isinstance(settings, PromptSettings):
        return PromptConditioner(ranks, states, settings)
    if isinstance(settings, ClassEmbeddingSettings):
        return ClassEmbeddingConditioner(ranks, states, settings, taxa, seed=seed)
    return TaxonAdapterConditioner(ranks, states, settings, taxa, seed=seed)
