"""Adapters on the tiny base."""

from __future__ import annotations

from pathlib import Path

import torch

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.condition import (
    ConditionerSettings,
    TaxonAdapterSettings,
    TaxonomySettings,
)
from taxadiffusion.condition.methods import build_conditioner
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.names import Lineage
from taxadiffusion.taxonomy import Taxonomy
from tests.taxa import taxonomy_of

RANKS = ("order", "family", "species")


TAXA = [
    Lineage.of({"order": "Perciformes", "family": family, "species": species})
    for family, species in (("Pomacentridae", "clarkii"), ("Zanclidae", "cornutus"))
]


TAXONOMY = taxonomy_of(TAXA, RANKS)


SMALL = TaxonomySettings(num_heads=2, feed_forward=32)


def make(
    base: Path,
    settings: ConditionerSettings = SMALL,
    lora: LoRASettings | None = None,
    *,
    full_unet: bool = False,
    ranks: tuple[str, ...] = RANKS,
    taxonomy: Taxonomy = TAXONOMY,
) -> Denoiser:
    backbone = Backbone.load(str(base))
    if lora:
        backbone.add_lora(lora)
    if isinstance(settings, TaxonAdapterSettings):
        backbone.add_decoupled_attention(settings.num_tokens)
    taxa = [taxonomy.lineage(number) for number in range(len(taxonomy))]
    denoiser = Denoiser(backbone, build_conditioner(settings, ranks, backbone.text, taxa), full_unet=full_unet)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        state = {k: {n: t + 0.05 * torch.randn(t.shape) for n, t in v.items()} for k, v in denoiser.state().items()}
    denoiser.load_state(state, "test")
    return denoiser.eval()
