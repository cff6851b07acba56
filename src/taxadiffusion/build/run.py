"""Settings → a training run: lock, data, caches, denoiser and trainer, or a trial of what it would cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from taxadiffusion.adapter import save_adapter
from taxadiffusion.build.card import model_card
from taxadiffusion.build.objects import (
    CachesProgress,
    build_denoiser,
    build_latents,
    cache_dir_of,
    identity_of,
    load_backbone,
    plan_of,
    ranks_of,
    taxa_of,
)
from taxadiffusion.config import Settings, flattened
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.stages import Stage
from taxadiffusion.trainer.estimate import StageCost, stage_cost
from taxadiffusion.trainer.gradients import TrainingData
from taxadiffusion.trainer.lock import RunLock
from taxadiffusion.trainer.loop import Trainer
from taxadiffusion.trainer.sharding import shard_frozen
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.world import World


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


@contextmanager
def open_run(
    settings: Settings,
    *,
    stop: StopSignal,
    world: World,
    allow_change: Sequence[str] = (),
    progress: CachesProgress | None = None,
) -> Iterator[Run]:
    """A run with its directory locked (by the first process) for as long as the context lasts.

    Everything is made in the order in which it can fail cheaply: directory and lock, data, base, caches. Raises
    `SettingsError`, `DataError`, `CheckpointError`; a stop signal between the parts leaves with its exit code.
    """
    locks: list[RunLock] = []
    world.first_does(lambda: locks.append(RunLock(settings.output.path)))

    def release() -> None:
        for lock in locks:
            lock.release()

    try:
        yield _build_run(settings, stop, world, allow_change, progress, release)
    finally:
        release()


def _build_run(
    settings: Settings,
    stop: StopSignal,
    world: World,
    allow_change: Sequence[str],
    progress: CachesProgress | None,
    release_lock: Callable[[], None],
) -> Run:
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    dataset = PreparedDataset.open(settings.data.path, settings.data.root)
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
    if settings.base.compile:
        backbone.compile()
    if settings.base.shard:
        _require_shardable(settings)
        trained = {p for parameters in denoiser.groups().values() for p in parameters.values()}
        shard_frozen(backbone.unet, trained, world)
    if settings.validation.every_steps and not len(data.validation_rows):
        raise SettingsError(
            f"validation.every_steps = {settings.validation.every_steps}, but {dataset.path} has no validation images: "
            "prepare it with --val-fraction, or set validation.every_steps=0"
        )
    trainer = Trainer(
        denoiser,
        stages,
        data,
        settings.loop(),
        settings.output.path,
        identity_of(settings, dataset, backbone),
        export=lambda path: save_adapter(
            path,
            denoiser,
            dataset.taxonomy,
            recipe=flattened(settings, trajectory_only=True),
            read_me=model_card(settings, stages, ranks, data, backbone.name),
            image_size_px=settings.base.image_size_px,
            taxon_ids=dataset.source_taxon_ids(),
        ),
        world=world,
        stop=stop,
        in_worker=release_lock,
        allow_change=allow_change,
    )
    return Run(settings, trainer, dataset, stages, taxa)


def trial(settings: Settings, world: World) -> Trial:
    """Measure a few steps of every stage on random latents; nothing is written."""
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    dataset = PreparedDataset.open(settings.data.path, settings.data.root)
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


def _require_shardable(settings: Settings) -> None:
    """A shared base computes only when all processes do, and its weights cannot be changed in place."""
    wrong = []
    if settings.training.merge_lora:
        wrong.append("training.merge_lora = true")
    if settings.base.compile:
        wrong.append("base.compile = true")
    if settings.preview.num_taxa:
        wrong.append(f"preview.num_taxa = {settings.preview.num_taxa}")
    if settings.stages.strategy == "full":
        wrong.append("stages.strategy = full")
    if wrong:
        raise SettingsError(f"base.shard cannot be used with {', '.join(wrong)}; change these, or leave base.shard off")


def _watched(progress: CachesProgress | None, stop: StopSignal) -> CachesProgress:
    """Also leaves between two batches of a cache when a stop was asked for; what is computed stays."""

    def report(what: str, done: int, total: int) -> None:
        if progress:
            progress(what, done, total)
        stop.raise_if_set(f"computing {what}")

    return report
