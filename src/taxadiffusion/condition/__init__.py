"""Lineage → (B, T, D): the taxonomy conditioner, and every baseline as another conditioner."""

from __future__ import annotations

from taxadiffusion.condition.class_embedding import ClassEmbeddingConditioner, ClassEmbeddingSettings
from taxadiffusion.condition.conditioner import Conditioner, ConditionerSettings
from taxadiffusion.condition.methods import METHODS, Method, build_conditioner, method_named
from taxadiffusion.condition.prompt import PromptConditioner, PromptSettings, num_parts_needed, prompt
from taxadiffusion.condition.taxon_adapter import TaxonAdapterConditioner, TaxonAdapterSettings
from taxadiffusion.condition.taxonomy import TaxonomyConditioner, TaxonomySettings

__all__ = [
    "METHODS",
    "ClassEmbeddingConditioner",
    "ClassEmbeddingSettings",
    "Conditioner",
    "ConditionerSettings",
    "Method",
    "PromptConditioner",
    "PromptSettings",
    "TaxonAdapterConditioner",
    "TaxonAdapterSettings",
    "TaxonomyConditioner",
    "TaxonomySettings",
    "build_conditioner",
    "method_named",
    "num_parts_needed",
    "prompt",
]
