"""Settings → a training run: lock, data, caches, denoiser and trainer, or a trial of what it would cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from taxadiffusion.adapter import CardNotes, Learned, save_adapter
from taxadiffusion.cache import JoinedLatents
from taxadiffusion.config import Settings, flattened
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.run.card import model_card
from taxadiffusion.run.held_out import record
from taxadiffusion.run.kept import measure
from taxadiffusion.run.kept import record as record_kept
from taxadiffusion.run.objects import CachesProgress, build_latents, read_names
from taxadiffusion.run.ready import NAME_OF_DEFAULTS, Ready, ready
from taxadiffusion.stages import Stage
from taxadiffusion.trainer.estimate import StageCost, stage_cost
from taxadiffusion.trainer.gradients import Replay, TrainingData
from taxadiffusion.trainer.history import RunFolder
from taxadiffusion.trainer.lock import RunLock
from taxadiffusion.trainer.loop import Trainer
from taxadiffusion.trainer.memory import Precision, StepForm, StepMemory, step_memory
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
    notes: tuple[str, ...] = ()  # what a person should know before it begins, a line each


@dataclass(frozen=True)
class Trial:
    """What a run would be and cost."""

    plan: tuple[Stage, ...]
    ranks: tuple[Rank, ...]
    costs: tuple[StageCost, ...]
    num_images: int
    num_taxa: int
    num_frozen: int
    notes: tuple[str, ...] = ()
    memories: tuple[StepMemory, ...] = ()

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
    parts = ready(settings, world, stop=stop, allow_change=allow_change)
    dataset, backbone, denoiser, held_out = parts.dataset, parts.backbone, parts.denoiser, parts.held_out
    if held_out is not None:
        world.first_does(lambda: record(held_out, settings.output.path, dataset))
    report = _watched(progress if world.is_first else None, stop)
    photographs = parts.photographs
    # The first process to come computes, the others wait for it.
    latents = [build_latents(settings, dataset, backbone, report)]
    latents += [build_latents(settings, one, backbone, report, "latents to replay") for one in photographs.sets[1:]]
    read_names(settings, denoiser, parts.taxa, report)
    backbone.release()
    data = TrainingData(
        source=latents[0] if len(latents) == 1 else JoinedLatents(latents),
        train_rows=photographs.train_rows,
        validation_rows=photographs.validation_rows,
        taxon_ids=photographs.taxon_ids,
        lineage_of=parts.taxa.__getitem__,
        ranks=parts.ranks,
        in_worker=release_lock,
        replay=Replay(photographs.replay_rows, settings.start.replay_share) if len(photographs.replay_rows) else None,
    )
    if settings.base.compile:
        backbone.compile()
    if settings.base.shard:
        trained = {p for parameters in denoiser.groups().values() for p in parameters.values()}
        shard_frozen(backbone.unet, trained, world)

    def export(path: Path) -> None:
        _export(path, settings, parts, data)

    trainer = Trainer(
        denoiser,
        parts.plan,
        data,
        settings,
        RunFolder(settings.output.path, parts.identity, export, (*allow_change, NAME_OF_DEFAULTS)),
        world=world,
        stop=stop,
    )
    return Run(settings, trainer, dataset, parts.plan, parts.taxa, parts.notes)


def _export(path: Path, settings: Settings, parts: Ready, data: TrainingData) -> None:
    """Write the adapter; where the run went on from one, also what old taxa lost."""
    known, photographs, denoiser = parts.known, parts.photographs, parts.denoiser
    kept = None
    if known:
        kept = measure(denoiser, parts.begun, data, photographs.num_known, settings.seed)
        record_kept(kept, settings.output.path)
    learned = Learned(
        from_adapter=known.name if known else None,
        from_hash=known.card.content_hash if known else None,
        sets=photographs.learned_sets(),
    )
    past = (*(known.learned() if known else ()), learned)
    save_adapter(
        path,
        denoiser,
        photographs.taxonomy,
        recipe=flattened(settings, trajectory_only=True),
        read_me=model_card(settings, parts, data, past, kept),
        image_size_px=settings.base.image_size_px,
        notes=CardNotes(photographs.source_taxon_ids(known.card.taxon_ids if known else {}), past),
    )


def trial(settings: Settings, world: World, *, allow_change: Sequence[str] = (), memories: bool = False) -> Trial:
    """Measure a few steps of every stage on random latents; nothing is written.

    memories: also simulate what the heaviest stage needs in other precisions and at half the size. Raises what
    `open_run` would raise before it computes latents, but for the directory's lock.
    """
    parts = ready(settings, world, stop=StopSignal(), allow_change=allow_change)
    parts.backbone.release()
    shape = parts.backbone.latent_shape_at(settings.base.image_size_px or parts.backbone.image_size_px)
    named = [lineage for lineage in parts.taxa if lineage]
    return Trial(
        plan=parts.plan,
        ranks=parts.ranks,
        costs=tuple(
            stage_cost(parts.denoiser, stage, settings, named, shape, world.num_processes) for stage in parts.plan
        ),
        num_images=len(parts.photographs.train_rows),
        num_taxa=len(parts.taxa),
        num_frozen=sum(p.numel() for name, p in parts.backbone.unet.named_parameters() if "lora_" not in name),
        notes=parts.notes,
        memories=_memories(settings, parts.denoiser, parts.plan, named) if memories else (),
    )


def _memories(
    settings: Settings, denoiser: Denoiser, stages: Sequence[Stage], taxa: Sequence[Lineage]
) -> tuple[StepMemory, ...]:
    """Of the stage with the most parameters: at the run's size in both precisions, and at half of it in bfloat16."""
    groups, backbone = denoiser.groups(), denoiser.backbone
    heaviest = max(stages, key=lambda stage: sum(p.numel() for g in stage.trains for p in groups[g].values()))
    size_px = settings.base.image_size_px or backbone.image_size_px
    chosen: list[tuple[int, Precision]] = [(size_px, "float32"), (size_px, "bfloat16")]
    with suppress(SettingsError):  # the base cannot make every size
        backbone.latent_shape_at(size_px // 2)
        chosen.append((size_px // 2, "bfloat16"))
    return tuple(
        step_memory(
            denoiser,
            heaviest,
            taxa,
            backbone.latent_shape_at(size),
            StepForm(precision, checkpointed, settings.optimiser.ema_decay is not None, settings.training.merge_lora),
        )
        for size, precision in chosen
        for checkpointed in (False, True)
    )


def _watched(progress: CachesProgress | None, stop: StopSignal) -> CachesProgress:
    """Also leaves between two batches of a cache when a stop was asked for; what is computed stays."""

    def report(what: str, done: int, total: int) -> None:
        if progress:
            progress(what, done, total)
        stop.raise_if_set(f"computing {what}")

    return report
