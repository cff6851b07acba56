"""A model on a tiny base of Stable Diffusion 1.5's form, as it lies in a folder."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from taxadiffusion.adapter import save_adapter
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.condition import ConditionerSettings, TaxonomySettings
from taxadiffusion.sharing import comfyui_shape
from tests.published_bases import write_published_base
from tests.tiny_adapter import RANKS, TAXA, TAXONOMY, make

__all__ = ["LORA", "RANKS", "TAXA", "tiny_shapes", "write_model"]

SHALLOW = TaxonomySettings(num_layers=1, num_heads=2, feed_forward=32)  # of 768 values wide
LORA = LoRASettings(rank=4, alpha=2, targets=("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1"))


@cache
def shared_base() -> Path:
    """One for all tests of a process."""
    return write_published_base(Path(tempfile.mkdtemp(prefix="tiny-sd15-")), "sd15")


def write_model(
    path: Path, settings: ConditionerSettings = SHALLOW, lora: LoRASettings | None = LORA, *, full_unet: bool = False
) -> tuple[Path, Path]:
    """The adapter's folder and the base's."""
    base = shared_base()
    denoiser = make(base, settings, lora, full_unet=full_unet)
    save_adapter(path / "model", denoiser, TAXONOMY, recipe={"seed": 0}, read_me="x", image_size_px=64)
    return path / "model", base


def tiny_shapes(patch: pytest.MonkeyPatch) -> None:
    """Let the shapes that ComfyUI knows be those of the tiny bases: only widths and depths differ."""
    tiny = [
        replace(
            shape,
            blocks=(32, 64, 64, 64),
            layers=1,
            vae_blocks=(32, 32, 32, 32),
            heads=shape.heads if isinstance(shape.heads, int) else (2, 4, 4, 4),
        )
        for shape in comfyui_shape.SHAPES
    ]
    patch.setattr(comfyui_shape, "SHAPES", tiny)
