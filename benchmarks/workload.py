"""What is measured: a base, its data and its batch; the same for both sides of every ratio."""

# Letters: B batch, C latent channels, H W latent size.
from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.timing import timed
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.base.weights import SHIPPED_BASE, resolve_base
from taxadiffusion.condition import TaxonomySettings
from taxadiffusion.condition.methods import method_named
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.sampler import Request
from taxadiffusion.stages import Stage, plan

RANKS = ("class", "order", "family", "genus", "species")  # FishNet's, as the paper trains

SEED = 0


@dataclass(frozen=True)
class Workload:
    """A size to measure at. `precision` is ours; the published code computes in float32 whatever the size."""

    suffix: str  # of the ratios' names: "" or "_sd15"
    base: str
    size_px: int
    batch_size: int
    precision: torch.dtype
    encoders: TaxonomySettings
    num_pictures: int
    num_steps: int
    num_taxa_sampled: int
    sampling_batch: int
    device: str = "cpu"
    end_to_end_share: float = 0.0
    """Of the end-to-end row's size, at which it is run; 0: the row is composed of the others."""

    def stages(self) -> tuple[Stage, ...]:
        return plan(method_named("progressive"), RANKS, 1)

    def plain(self, dtype: torch.dtype = torch.float32, num_tokens: int | None = None) -> Backbone:
        """The base as it is, the same weights for every call."""
        return Backbone.load(self.base, dtype=dtype, device=self.device, num_text_tokens=num_tokens)

    def backbone(self, dtype: torch.dtype, num_tokens: int | None = None) -> Backbone:
        """The base with a LoRA whose effect is not zero, the same for every call."""
        backbone = self.plain(dtype, num_tokens)
        backbone.add_lora(LoRASettings())
        generator = torch.Generator().manual_seed(SEED)
        for name, parameter in sorted(backbone.unet.named_parameters()):
            if ".lora_B." in name:
                parameter.data.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
        return backbone

    def images(self) -> NDArray[np.uint8]:
        """(B, 3, h, w): noise. No cost depends on what a picture shows."""
        shape = (self.batch_size, 3, self.size_px, self.size_px)
        return np.random.default_rng(SEED).integers(0, 256, shape, np.uint8)

    def requests(self, guidance: Guidance) -> list[Request]:
        """Pictures in turn of every sampled taxon, each of its own seed."""
        chosen = TAXA[:: len(TAXA) // self.num_taxa_sampled][: self.num_taxa_sampled]
        return [Request(chosen[number % len(chosen)], number, guidance) for number in range(self.num_pictures)]

    def lineages(self) -> list[Lineage]:
        """Of the batch: drawn from `taxa`, as training draws them."""
        chosen = np.random.default_rng(SEED).integers(0, len(TAXA), self.batch_size)
        return [TAXA[index] for index in chosen]


def _taxa() -> list[Lineage]:
    """108 species of one class: 3 orders × 4 families × 3 genera × 3 species, with names of the usual length."""
    orders = ("Perciformes", "Siluriformes", "Cypriniformes")
    families = ("Pomacentridae", "Labridae", "Serranidae", "Gobiidae")
    genera = ("Amphiprion", "Chromis", "Dascyllus")
    species = ("ocellaris", "viridis", "trimaculatus")
    return [
        Lineage.of(
            {"class": "Actinopterygii", "order": o, "family": f"{f}{o[:2]}", "genus": f"{g}{f[:2]}", "species": s}
        )
        for o, f, g, s in itertools.product(orders, families, genera, species)
    ]


TAXA = _taxa()


def shipped(*, quick: bool = False, device: str = "cpu") -> Workload:
    """The shipped base at 64 px."""
    return Workload(
        "", SHIPPED_BASE, 64, 32, torch.float32, TaxonomySettings(feed_forward=683),
        num_pictures=8 if quick else 64, num_steps=5 if quick else 25, num_taxa_sampled=4 if quick else 16,
        sampling_batch=8 if quick else 16, device=device, end_to_end_share=1 / 400 if quick else 1 / 20,
    )  # fmt: skip


def faster_precision(device: str = "cpu", num_runs: int = 3) -> torch.dtype:
    """bfloat16 where this device multiplies faster in it than in float32; a CPU without such arithmetic does not."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left = torch.ones(512, 512, dtype=dtype, device=device)
        seconds[dtype] = min(timed(lambda a=left: a @ a, time.perf_counter) for _ in range(num_runs + 1))
    return min(seconds, key=lambda dtype: seconds[dtype])


def full_size(folder: Path, *, device: str = "cpu", precision: torch.dtype) -> Workload:
    """Stable Diffusion 1.5's shapes with random weights, written to `folder` if they are not there.

    Two pictures of two steps: the time of a picture is that of its steps and its decoding, both of which scale.
    """
    if not (folder / "model_index.json").exists():
        write_full_size_base(folder)
    return Workload(
        "_sd15", str(folder), 256, 2, precision, TaxonomySettings(),
        num_pictures=2, num_steps=2, num_taxa_sampled=1, sampling_batch=2, device=device,
    )  # fmt: skip


def write_full_size_base(folder: Path) -> None:
    """Shapes of Stable Diffusion 1.5 (`unet`, `vae`, `text_encoder` of its repository); the shipped tokenizer."""
    torch.manual_seed(SEED)
    tokenizer = CLIPTokenizer.from_pretrained(resolve_base(SHIPPED_BASE) / "tokenizer", model_max_length=77)
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=4, sample_size=512,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                num_attention_heads=12, hidden_act="quick_gelu", eos_token_id=tokenizer.eos_token_id,
            )
        ),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def noise_and_timesteps(workload: Workload, backbone: Backbone) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) and (B,), the same for every call."""
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(workload.batch_size, *backbone.latent_shape_at(workload.size_px), generator=generator)
    uniform = (torch.arange(workload.batch_size) + 0.5) / workload.batch_size
    return noise.to(workload.device), backbone.schedule.timesteps_of(uniform).to(workload.device)


@contextmanager
def without_dropout(module: torch.nn.Module) -> Iterator[None]:
    """Within: evaluation mode. After: every module as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
