"""A tiny denoiser to sample with."""

from __future__ import annotations

from pathlib import Path

import torch

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings, lora_parameters
from taxadiffusion.condition import TaxonomyConditioner, TaxonomySettings
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.names import Lineage

RANKS = ("order", "family", "genus", "species")


CLARKII = Lineage.of({"order": "Perciformes", "family": "Pomacentridae", "genus": "Amphiprion", "species": "clarkii"})


CORNUTUS = Lineage.of({"order": "Perciformes", "family": "Zanclidae", "genus": "Zanclus", "species": "cornutus"})


def make(base: Path) -> Denoiser:
    backbone = Backbone.load(str(base))
    backbone.add_lora(LoRASettings())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in lora_parameters(backbone.unet).values():
            parameter.data.normal_(std=0.1)
    conditioner = TaxonomyConditioner(RANKS, backbone.text, TaxonomySettings(num_heads=2, feed_forward=32))
    return Denoiser(backbone, conditioner).eval()
