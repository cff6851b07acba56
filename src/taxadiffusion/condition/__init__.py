"""Lineage → (B, T, D): the taxonomy conditioner, and every baseline as another conditioner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from taxadiffusion.condition.classes import ClassEmbeddingConditioner
from taxadiffusion.condition.conditioner import Conditioner
from taxadiffusion.condition.prompt import PromptConditioner, num_parts_needed, prompt
from taxadiffusion.condition.settings import (
    ClassEmbeddingSettings,
    ConditionerSettings,
    PromptSettings,
    TaxonAdapterSettings,
    TaxonomySettings,
)
from taxadiffusion.condition.taxon_adapter import TaxonAdapterConditioner
from taxadiffusion.condition.taxonomy import TaxonomyConditioner
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.text import TokenStates

__all__ = [
    "ClassEmbeddingConditioner",
    "ClassEmbeddingSettings",
    "Conditioner",
    "ConditionerSettings",
    "PromptConditioner",
    "PromptSettings",
    "TaxonAdapterConditioner",
    "TaxonAdapterSettings",
    "TaxonomyConditioner",
    "TaxonomySettings",
    "build_conditioner",
    "num_parts_needed",
    "prompt",
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
