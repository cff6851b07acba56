"""Inputs of the tiny base and LoRA that does something."""

from __future__ import annotations

from pathlib import Path

import torch

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings, lora_parameters


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.tensor([10, 800]),
        torch.randn(2, 77, 16, generator=generator),
    )


def with_lora(base: Path, dtype: torch.dtype = torch.float32, **settings: object) -> Backbone:
    backbone = Backbone.load(str(base), dtype=dtype)
    backbone.add_lora(LoRASettings(**settings))  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in lora_parameters(backbone.unet).values():
            parameter.data.normal_(std=0.2)
    return backbone
