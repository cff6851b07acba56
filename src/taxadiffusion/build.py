"""The one place that turns settings into objects: data, base, denoiser, trainer."""

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

from taxadiffusion.adapter import save_adapter
from taxadiffusion.backbone import Backbone
from taxadiffusion.base import read_json
from taxadiffusion.cache import Latents, cached_latents, cached_states
from taxadiffusion.condition import (
    ClassEmbeddingSettings,
    ConditionerSettings,
    PromptSettings,
    TaxonAdapterSettings,
    TaxonomySettings,
    build_conditioner,
)
from taxadiffusion.config import Settings, flattened
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import SettingsError
from taxadiffusion.lora import LoRASettings
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.stages import Stage, Strategy, plan
from taxadiffusion.text import TextEncoder
from taxadiffusion.trainer.estimate import StageCost, stage_cost
from taxadiffusion.trainer.gradients import TrainingData
from taxadiffusion.trainer.history import Identity
from taxadiffusion.trainer.lock import RunLock
from taxadiffusion.trainer.loop import Trainer
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.world import World

CachesProgress = Callable[[str, int, int], None]
"""What is computed ("latents", "names"), how many are done, how many there are."""

_VERSIONED = ("taxadiffusion", "torch", "diffusers", "transformers", "peft")


@dataclass(frozen=True)
class Run:
    """A training run, ready to begin or to go on."""

    settings: Settings
    trainer: Trainer
    dataset: PreparedDataset
    plan: tuple[Stage, ...]
    taxa: tuple[Lineage, ...]  # by taxon id, over the ranks that are trained


@dataclass(frozen=True)
class Trial:
    """What a run would be and cost."""

    plan: tuple[Stage, ...]
    ranks: tuple[Rank, ...]
    costs: tuple[StageCost, ...]
    num_images: int
    num_taxa: int
    num_frozen: int

    @property
    def peak_bytes(self) -> int:
        return max((cost.peak_bytes for cost in self.costs), default=0)


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
    return plan(stages.strategy, ranks, stages.steps, lora_in_every_stage=stages.lora_in_every_stage)


def taxa_of(dataset: PreparedDataset, ranks: Sequence[Rank]) -> tuple[Lineage, ...]:
    """The lineage of every taxon id, over the ranks that are trained."""
    return tuple(dataset.taxonomy.lineage(taxon_id).only(ranks) for taxon_id in range(len(dataset.taxonomy)))


def conditioner_settings(settings: Settings, width: int) -> ConditionerSettings:
    """The conditioner that the strategy needs, at the base's text width."""
    strategy = settings.stages.strategy
    own = settings.conditioner
    if strategy in ("zero_shot", "lora", "full"):
        return PromptSettings()
    if strategy == "class_embedding":
        return ClassEmbeddingSettings()
    if strategy == "taxon_adapter":
        return TaxonAdapterSettings(num_tokens=own.num_extra_tokens)
    return TaxonomySettings(
        num_layers=own.num_layers,
        num_heads=own.num_heads,
        feed_forward=own.feed_forward or width * 8 // 3,
        dropout=own.dropout,
        zero_init=own.zero_init,
        warm_start=own.warm_start,
    )


def load_backbone(settings: Settings, device: torch.device | str = "cpu") -> Backbone:
    """The base with what the strategy trains inside of its U-Net."""
    strategy: Strategy = settings.stages.strategy
    backbone = Backbone.load(settings.base.path, dtype=getattr(torch, settings.base.dtype), device=device)
    if strategy in ("progressive", "all", "random", "lora", "class_embedding"):
        lora = settings.lora
        backbone.add_lora(LoRASettings(rank=lora.rank, alpha=lora.alpha, targets=lora.targets))
    if strategy == "taxon_adapter":
        backbone.add_decoupled_attention(settings.conditioner.num_extra_tokens)
    return backbone


@dataclass
class _Width:
    """The shape of token states, before there are any: enough to make a conditioner that is asked for its texts."""

    width: int
    num_tokens: int
    content_hash: str = ""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return torch.zeros(len(texts), self.num_tokens, self.width)


def build_denoiser(
    settings: Settings,
    backbone: Backbone,
    ranks: Sequence[Rank],
    taxa: Sequence[Lineage],
    cache_dir: Path | None,
    progress: CachesProgress | None = None,
) -> Denoiser:
    """Backbone and conditioner; its name states come from `cache_dir`, computed where they are missing.

    `cache_dir` None: states of zeros, for trials of shape, memory and time alone.
    """
    text_config = read_json(backbone.path / "text_encoder" / "config.json")
    num_tokens = settings.base.num_tokens or int(text_config["max_position_embeddings"])
    shape = _Width(int(text_config["hidden_size"]), num_tokens)
    conditioner = build_conditioner(
        conditioner_settings(settings, shape.width), ranks, shape, taxa, seed=settings.seed
    ).to(backbone.device)
    if cache_dir is not None:
        conditioner.states = cached_states(
            cache_dir,
            backbone.text_hash,
            num_tokens,
            shape.width,
            conditioner.texts(taxa),
            lambda: TextEncoder.load(backbone.path, device=backbone.device, num_tokens=num_tokens),
            progress=partial(progress, "names") if progress else None,
        )
    training = settings.training
    full_unet = settings.stages.strategy == "full"
    return Denoiser(backbone, conditioner, full_unet=full_unet, min_snr_gamma=training.min_snr_gamma)


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


def identity_of(settings: Settings, dataset: PreparedDataset, backbone: Backbone) -> Identity:
    """What a resumed run must share with the run that it resumes."""
    values = flattened(settings, trajectory_only=True)
    return Identity(
        hashes={
            "data": dataset.content_hash,
            "taxonomy": dataset.taxonomy.content_hash,
            "base": backbone.content_hash,
        },
        settings=values,
        settings_hash=hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest(),
        versions={name: version(name) for name in _VERSIONED},
    )


def build_run(
    settings: Settings,
    *,
    stop: StopSignal,
    world: World,
    allow_change: Sequence[str] = (),
    progress: CachesProgress | None = None,
) -> Run:
    """Everything of a run, in the order in which it can fail cheaply: directory and lock, data, base, caches.

    Raises `SettingsError`, `DataError`, `CheckpointError`; a stop signal between the parts leaves with its exit code.
    """
    run_dir = settings.output.path
    lock = _lock(run_dir, world)
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    dataset = PreparedDataset.open(settings.data.path)
    ranks = ranks_of(settings, dataset)
    stages = plan_of(settings, ranks)
    stop.raise_if_set("opening the data")
    backbone = load_backbone(settings, world.device)
    stop.raise_if_set("loading the base")
    report = _watched(progress if world.is_first else None, stop)
    latents = build_latents(settings, dataset, backbone, report)  # the first to come computes, the others wait for it
    taxa = taxa_of(dataset, ranks)
    denoiser = build_denoiser(settings, backbone, ranks, taxa, cache_dir_of(settings), report)
    backbone.release()
    data = TrainingData(
        source=latents,
        train_rows=dataset.rows("train"),
        validation_rows=dataset.rows("val"),
        taxon_ids=dataset.taxon_ids(),
        lineage_of=taxa.__getitem__,
        ranks=ranks,
    )
    trainer = Trainer(
        denoiser,
        stages,
        data,
        settings.loop(),
        run_dir,
        identity_of(settings, dataset, backbone),
        export=lambda path: save_adapter(path, denoiser, dataset.taxonomy),
        world=world,
        stop=stop,
        in_worker=lock.release if lock else None,
        allow_change=allow_change,
    )
    return Run(settings, trainer, dataset, stages, taxa)


def trial(settings: Settings, world: World) -> Trial:
    """Measure a few steps of every stage on random latents; nothing is written."""
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    dataset = PreparedDataset.open(settings.data.path)
    ranks = ranks_of(settings, dataset)
    taxa = taxa_of(dataset, ranks)
    backbone = load_backbone(settings, world.device)
    denoiser = build_denoiser(settings, backbone, ranks, taxa, cache_dir=None)
    shape = backbone.latent_shape_at(settings.base.image_size_px or backbone.image_size_px)
    stages = plan_of(settings, ranks)
    named = [lineage for lineage in taxa if lineage]
    return Trial(
        plan=stages,
        ranks=ranks,
        costs=tuple(
            stage_cost(denoiser, stage, settings.loop(), named, shape, world.num_processes) for stage in stages
        ),
        num_images=len(dataset.rows("train")),
        num_taxa=len(taxa),
        num_frozen=sum(p.numel() for name, p in backbone.unet.named_parameters() if "lora_" not in name),
    )


def _lock(run_dir: Path, world: World) -> RunLock | None:
    """The first process holds the lock; all fail together where it cannot."""
    held: list[RunLock] = []
    world.first_does(lambda: held.append(RunLock(run_dir)))
    return held[0] if held else None


def _watched(progress: CachesProgress | None, stop: StopSignal) -> CachesProgress:
    """Also leaves between two batches of a cache when a stop was asked for; what is computed stays."""

    def report(what: str, done: int, total: int) -> None:
        if progress:
            progress(what, done, total)
        stop.raise_if_set(f"computing {what}")

    return report
