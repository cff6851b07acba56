"""Lineage → (B, T, D): the taxonomy conditioner, and every baseline as another conditioner."""

from __future__ import annotations

from taxadiffusion.condition.class_embedding import ClassEmbeddingConditioner, ClassEmbeddingSettings
from taxadiffusion.condition.conditioner import Conditioner
from taxadiffusion.condition.methods import ConditionerSettings, build_conditioner
from taxadiffusion.condition.prompt import PromptConditioner, PromptSettings, num_parts_needed, prompt
from taxadiffusion.condition.taxon_adapter import TaxonAdapterConditioner, TaxonAdapterSettings
from taxadiffusion.condition.taxonomy import TaxonomyConditioner, TaxonomySettings

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
