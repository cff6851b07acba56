"""A base that is drawn on the device from a seed, in seconds: its settings are files, its weights never are."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.workload import SEED, Workload
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.noise import NoiseSchedule
from taxadiffusion.base.text import TextEncoder
from taxadiffusion.base.weights import SHIPPED_BASE, read_json, resolve_base
from taxadiffusion.condition import TaxonomySettings

UNET_FORWARD_FLOP = 0.803e12
"""Of Stable Diffusion 1.5's U-Net for one image of 512 px (MosaicML's figure; two per multiply-add)."""


@dataclass(frozen=True)
class Shapes:
    """Settings of a base's parts, as diffusers and transformers name them."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]


SD15 = Shapes(
    unet={"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    vae={
        "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "sample_size": 512,
        "scaling_factor": 0.18215,
    },
    text={
        "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "hidden_act": "quick_gelu",
    },
)  # fmt: skip

TINY = Shapes(
    unet={
        "sample_size": 8, "cross_attention_dim": 32, "attention_head_dim": 4, "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "layers_per_block": 1, "norm_num_groups": 8,
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    vae={
        "block_out_channels": (8, 16), "down_block_types": ("DownEncoderBlock2D",) * 2, "norm_num_groups": 4,
        "up_block_types": ("UpDecoderBlock2D",) * 2, "layers_per_block": 1, "sample_size": 16, "scaling_factor": 0.7,
    },
    text={
        "vocab_size": 49408, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
)  # fmt: skip
"""To try the benchmark, not to measure anything."""


def write_settings(folder: Path, shapes: Shapes) -> Path:
    """The files of a base but for its weights; the shipped tokenizer."""
    shutil.copytree(resolve_base(SHIPPED_BASE) / "tokenizer", folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=77)
    tokenizer.save_pretrained(folder / "tokenizer")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    text = CLIPTextConfig(**shapes.text, eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id)
    text.save_pretrained(folder / "text_encoder")
    for name, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        with torch.device("meta"):
            kind(**getattr(shapes, name)).save_config(folder / name)
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **parts}))
    return folder


class DrawnBackbone(Backbone):
    """A backbone whose VAE and text encoder are drawn when they are first used, and again after `release`."""

    @property
    def vae(self) -> Any:
        if "_vae" not in self.__dict__:
            settings = AutoencoderKL.load_config(self.path, subfolder="vae")
            self.__dict__["_vae"] = _drawn(lambda: AutoencoderKL.from_config(settings), self.device)
        return self.__dict__["_vae"]

    @property
    def text(self) -> TextEncoder:
        if "_text" not in self.__dict__:
            config = CLIPTextConfig.from_pretrained(self.path / "text_encoder")
            model = _drawn(lambda: CLIPTextModel(config), self.device)
            tokenizer = CLIPTokenizer.from_pretrained(self.path / "tokenizer")
            self.__dict__["_text"] = TextEncoder(model, tokenizer, "drawn", self.num_text_tokens)
        return self.__dict__["_text"]  # type: ignore[no-any-return]


def _drawn(make: Any, device: torch.device) -> Any:
    """Made on the device, from the seed: the same each time there."""
    torch.manual_seed(SEED)
    with torch.device(device):
        return make().eval().requires_grad_(False)


@dataclass(frozen=True)
class DrawnWorkload(Workload):
    """A workload whose base is drawn; `base` holds settings alone."""

    def plain(self, dtype: torch.dtype = torch.float32, num_tokens: int | None = None) -> Backbone:
        path, device = Path(self.base), torch.device(self.device)
        settings = UNet2DConditionModel.load_config(path, subfolder="unet")
        unet = _drawn(lambda: UNet2DConditionModel.from_config(settings), device).to(dtype)
        schedule = NoiseSchedule(read_json(path / "scheduler" / "scheduler_config.json"))
        backbone = DrawnBackbone(path, str(path), unet, schedule, num_tokens)
        backbone.__dict__ |= {"text_hash": "drawn", "vae_hash": "drawn"}  # no file holds the weights
        return backbone


def sd15(folder: Path, device: str, precision: torch.dtype) -> DrawnWorkload:
    """Stable Diffusion 1.5's shapes at 512 px, batch 8; 8 guided pictures of 25 steps in one batch."""
    return DrawnWorkload(
        "_sd15", str(write_settings(folder, SD15)), 512, 8, precision, TaxonomySettings(),
        num_pictures=8, num_steps=25, num_taxa_sampled=4, sampling_batch=8, device=device,
    )  # fmt: skip


def tiny(folder: Path, device: str, precision: torch.dtype) -> DrawnWorkload:
    return DrawnWorkload(
        "_tiny", str(write_settings(folder, TINY)), 16, 4, precision,
        TaxonomySettings(num_layers=1, num_heads=2, feed_forward=32),
        num_pictures=2, num_steps=2, num_taxa_sampled=2, sampling_batch=2, device=device,
    )  # fmt: skip


def larger_batch(workload: Workload, batch_size: int, suffix: str) -> Workload:
    return replace(workload, batch_size=batch_size, suffix=suffix)
