"""Settings → data, base, plan and denoiser."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.base.transfer import use_fast_arithmetic
from taxadiffusion.cache import Latents, cached_latents, cached_states
from taxadiffusion.condition import (
    ClassEmbeddingSettings,
    ConditionerSettings,
    PromptSettings,
    TaxonAdapterConditioner,
    TaxonAdapterSettings,
    TaxonomySettings,
    num_parts_needed,
)
from taxadiffusion.condition.methods import build_conditioner
from taxadiffusion.config import Settings, flattened
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import SettingsError
from taxadiffusion.features.bioclip import BioclipExtractor
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.run.held_out import HeldOut
from taxadiffusion.stages import Stage, plan
from taxadiffusion.trainer.conditions import RULES
from taxadiffusion.trainer.history import Identity

CachesProgress = Callable[[str, int, int], None]
"""What is computed ("latents", "names"), how many are done, how many there are."""

_VERSIONED = ("taxadiffusion", "torch", "diffusers", "transformers", "peft")


def ranks_of(settings: Settings, dataset: PreparedDataset) -> tuple[Rank, ...]:
    """The ranks to train: those of the settings, else all of the data set. Raises `SettingsError`."""
    wanted = settings.data.ranks or dataset.ranks
    if unknown := [rank for rank in wanted if rank not in dataset.ranks]:
        raise SettingsError(
            f"data.ranks: {unknown[0]!r} is not in {dataset.path}, whose ranks are {', '.join(dataset.ranks)}"
        )
    return tuple(wanted)


def plan_of(settings: Settings, ranks: Sequence[Rank]) -> tuple[Stage, ...]:
    """The stages. Raises `SettingsError`."""
    stages = settings.stages
    return plan(
        stages.strategy,
        ranks,
        stages.steps,
        lora_in_every_stage=stages.lora_in_every_stage,
        encoders_in_every_stage=stages.encoders_in_every_stage,
    )


def taxa_of(dataset: PreparedDataset, ranks: Sequence[Rank]) -> tuple[Lineage, ...]:
    """The lineage of every taxon id, over the ranks that are trained."""
    return tuple(dataset.taxonomy.lineage(taxon_id).only(ranks) for taxon_id in range(len(dataset.taxonomy)))


def conditioner_settings(
    settings: Settings,
    backbone: Backbone,
    ranks: Sequence[Rank],
    taxa: Sequence[Lineage],
    embedding_width: int | None = None,
) -> ConditionerSettings:
    """The conditioner that the strategy needs; prompts in as many parts as their length asks.

    `embedding_width`: of the taxon encoder, where there is one.
    """
    strategy = settings.stages.strategy
    own = settings.conditioner
    if strategy == "class_embedding":
        return ClassEmbeddingSettings()
    if strategy in ("zero_shot", "lora", "full", "taxon_adapter"):
        gain = 1.0 if embedding_width else own.prompt_name_gain
        num_parts = num_parts_needed(taxa, ranks, backbone.text.length, backbone.num_text_tokens, nameless=gain != 1.0)
        if strategy == "taxon_adapter":
            return TaxonAdapterSettings(
                num_tokens=own.num_extra_tokens, num_parts=num_parts, name_gain=gain, embedding_width=embedding_width
            )
        return PromptSettings(num_parts=num_parts, name_gain=gain)
    return TaxonomySettings(
        num_layers=own.num_layers,
        num_heads=own.num_heads,
        feed_forward=own.feed_forward or backbone.width * 8 // 3,
        dropout=own.dropout,
        name_gain=own.name_gain,
        norm_first=own.norm_first,
    )


def load_backbone(settings: Settings, device: torch.device | str = "cpu") -> Backbone:
    """The base with what the strategy trains inside of its U-Net."""
    strategy = settings.stages.strategy
    base = settings.base
    use_fast_arithmetic(torch.device(device))
    backbone = Backbone.load(
        base.path,
        dtype=getattr(torch, base.dtype),
        device=device,
        num_text_tokens=base.num_tokens,
        trained=strategy == "full",
    )
    if strategy in ("progressive", "all", "random", "lora", "class_embedding"):
        lora = settings.lora
        backbone.add_lora(LoRASettings(rank=lora.rank, alpha=lora.alpha, targets=lora.targets), seed=settings.seed)
    if strategy == "taxon_adapter":
        backbone.add_decoupled_attention(settings.conditioner.num_extra_tokens)
    if settings.training.gradient_checkpointing:
        backbone.checkpoint_gradients()
    return backbone


def _taxon_encoder(settings: Settings, device: torch.device) -> BioclipExtractor | None:
    """What embeds a taxon's name for the taxon-embedding adapter; None: the base's own text encoder does."""
    name = settings.conditioner.taxon_encoder
    if name is None or settings.stages.strategy != "taxon_adapter":
        return None
    return BioclipExtractor(None if name == "hub" else Path(name), str(device))


@dataclass
class _Width:
    """The shape of token states, before there are any: enough to make a conditioner that is asked for its texts."""

    width: int
    num_tokens: int
    content_hash: str = ""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return torch.zeros(len(texts), self.num_tokens, self.width)


def build_denoiser(settings: Settings, backbone: Backbone, ranks: Sequence[Rank], taxa: Sequence[Lineage]) -> Denoiser:
    """Backbone and conditioner. Its name states are zeros, for trials of shape, memory and time: see `read_names`."""
    shape = _Width(backbone.width, backbone.num_text_tokens)
    encoder = _taxon_encoder(settings, backbone.device)
    width = encoder.texts([Lineage()]).shape[1] if encoder else None
    conditioner = build_conditioner(
        conditioner_settings(settings, backbone, ranks, taxa, width), ranks, shape, taxa, seed=settings.seed
    )
    conditioner = conditioner.to(backbone.device)
    if encoder and isinstance(conditioner, TaxonAdapterConditioner):
        conditioner.fill(encoder.texts)
    full_unet = settings.stages.strategy == "full"
    return Denoiser(backbone, conditioner, full_unet=full_unet, min_snr_gamma=settings.training.min_snr_gamma)


def read_names(
    settings: Settings, denoiser: Denoiser, taxa: Sequence[Lineage], progress: CachesProgress | None = None
) -> None:
    """Give the denoiser the states of all names it may be asked for, from the cache or else computed into it."""
    backbone = denoiser.backbone
    denoiser.conditioner.states = cached_states(
        cache_dir_of(settings),
        backbone.text_hash,
        backbone.num_text_tokens,
        backbone.width,
        denoiser.conditioner.texts(taxa),
        lambda: backbone.text,
        progress=partial(progress, "names") if progress else None,
    )


def cache_dir_of(settings: Settings) -> Path:
    return settings.data.cache_dir or settings.output.path / "cache"


def build_latents(
    settings: Settings, dataset: PreparedDataset, backbone: Backbone, progress: CachesProgress | None = None
) -> Latents:
    """The latents of all images, computed where they are missing."""
    return cached_latents(
        cache_dir_of(settings),
        dataset,
        backbone,
        size_px=settings.base.image_size_px,
        fit=settings.data.fit,
        mirror=settings.data.mirror,
        progress=partial(progress, "latents") if progress else None,
    )


def identity_of(
    settings: Settings, dataset: PreparedDataset, backbone: Backbone, held_out: HeldOut | None = None
) -> Identity:
    """What a resumed run must share with the run that it resumes."""
    values = flattened(settings, trajectory_only=True)
    return Identity(
        hashes={
            "data": held_out.identity if held_out else dataset.content_hash,
            "taxonomy": dataset.taxonomy.content_hash,
            "base": backbone.content_hash,
            "conditions": RULES,
        },
        settings=values,
        settings_hash=hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest(),
        versions={name: version(name) for name in _VERSIONED},
    )
