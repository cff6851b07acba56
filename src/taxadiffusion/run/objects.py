"""Settings → data, base, plan and denoiser."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.transfer import use_fast_arithmetic
from taxadiffusion.cache import LatentForm, Latents, cached_latents, cached_states
from taxadiffusion.condition.conditioner import RunFacts
from taxadiffusion.condition.methods import build_conditioner
from taxadiffusion.config import Settings, flattened
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import SettingsError
from taxadiffusion.features.bioclip import encoder_of_names
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.run.held_out import HeldOut
from taxadiffusion.run.photographs import Photographs
from taxadiffusion.stages import Stage, plan
from taxadiffusion.trainer.conditions import RULES
from taxadiffusion.trainer.history import Identity
from taxadiffusion.versions import versions

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


def plan_of(settings: Settings, ranks: Sequence[Rank], new: Sequence[Rank] | None = None) -> tuple[Stage, ...]:
    """The stages. Raises `SettingsError`.

    new: going on from an adapter, the ranks that have something to learn; one number of steps is that of their stages.
    """
    stages = settings.stages
    steps = stages.steps
    if new is not None and isinstance(steps, int):
        steps = {rank: steps if rank in new else 0 for rank in ranks}
    return plan(
        settings.method,
        ranks,
        steps,
        lora_in_every_stage=stages.lora_in_every_stage,
        encoders_in_every_stage=stages.encoders_in_every_stage,
        may_skip=new is not None,
    )


def load_backbone(settings: Settings, device: torch.device | str = "cpu") -> Backbone:
    """The base with what the strategy trains inside of its U-Net."""
    method, base = settings.method, settings.base
    use_fast_arithmetic(torch.device(device))
    backbone = Backbone.load(
        base.path,
        dtype=getattr(torch, base.dtype),
        device=device,
        num_text_tokens=base.num_tokens,
        trained=method.trains_unet,
    )
    if method.needs_lora:
        backbone.add_lora(settings.lora, seed=settings.seed)
    if method.needs_extra_attention:
        backbone.add_decoupled_attention(settings.conditioner.num_extra_tokens)
    if settings.training.gradient_checkpointing:
        backbone.checkpoint_gradients()
    return backbone


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
    method, section = settings.method, settings.conditioner
    name = method.conditioner.settings_class.name_encoder(section)
    encoder = encoder_of_names(name, str(backbone.device)) if name else None
    width = encoder.texts([Lineage()]).shape[1] if encoder else None
    facts = RunFacts(ranks, taxa, backbone.width, backbone.num_text_tokens, backbone.text.length, width)
    own = method.conditioner.settings_class.of_run(section, facts)
    conditioner = build_conditioner(own, ranks, shape, taxa, seed=settings.seed).to(backbone.device)
    if encoder:
        conditioner.fill(encoder.texts)
    return Denoiser(backbone, conditioner, full_unet=method.trains_unet, min_snr_gamma=settings.training.min_snr_gamma)


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


def latent_form(settings: Settings) -> LatentForm:
    """How the run's pictures are encoded."""
    return LatentForm(settings.base.image_size_px, settings.data.fit, settings.data.mirror)


def build_latents(
    settings: Settings,
    dataset: PreparedDataset,
    backbone: Backbone,
    progress: CachesProgress | None = None,
    what: str = "latents",
) -> Latents:
    """The latents of all images, computed where they are missing; `what` names them to `progress`."""
    return cached_latents(
        cache_dir_of(settings),
        dataset,
        backbone,
        latent_form(settings),
        progress=partial(progress, what) if progress else None,
    )


def identity_of(
    settings: Settings,
    photographs: Photographs,
    backbone: Backbone,
    held_out: HeldOut | None = None,
    adapter_hash: str | None = None,
) -> Identity:
    """What a resumed run must share with the run that it resumes; adapter_hash: of the one it went on from."""
    dataset, *replayed = photographs.sets
    start = {"adapter": adapter_hash} if adapter_hash else {}
    values = flattened(settings, trajectory_only=True)
    return Identity(
        hashes={
            "data": held_out.identity if held_out else dataset.content_hash,
            "taxonomy": photographs.taxonomy.content_hash,
            "base": backbone.content_hash,
            "conditions": RULES,
            **start,
            **({"replay": replayed[0].content_hash} if replayed else {}),
        },
        settings=values,
        settings_hash=hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest(),
        versions=versions(*_VERSIONED),
    )
