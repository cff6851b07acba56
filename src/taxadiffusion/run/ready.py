"""What a run stands on, with everything checked that can be found wrong before latents are computed.

`train` and `train --dry-run` both come through `ready`, so that the one finds what the other would.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from taxadiffusion import checkpoint
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.cache import latents_to_come, states_to_come
from taxadiffusion.config import Settings
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import CheckpointError, DataError, SettingsError
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.run.going_on import Known, carry_over, open_known, require_same_model, require_same_names, words
from taxadiffusion.run.held_out import FILE, MIN_PHOTOGRAPHS, HeldOut, hold_out, recorded
from taxadiffusion.run.objects import (
    build_denoiser,
    cache_dir_of,
    identity_of,
    latent_form,
    load_backbone,
    plan_of,
    ranks_of,
)
from taxadiffusion.run.photographs import Photographs, joined, new_ranks, of_one_set
from taxadiffusion.stages import Stage, encoder_group
from taxadiffusion.trainer.history import Identity, require_same_run
from taxadiffusion.trainer.loader import Share
from taxadiffusion.trainer.lock import require_writable
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.trackers import require_installed
from taxadiffusion.trainer.world import World

NAME_OF_DEFAULTS = "recipe"
"""The name of a set of defaults is no part of what a run is: each value is compared by itself."""

_NUM_LOOKED_FOR = 64
_NUM_SAMPLES_COUNTED = 2**62


@dataclass(frozen=True)
class Ready:
    """Data, base and denoiser (its name states are still zeros), checked against the settings and the run directory."""

    dataset: PreparedDataset
    ranks: tuple[Rank, ...]
    plan: tuple[Stage, ...]
    taxa: tuple[Lineage, ...]
    """By taxon id, over the ranks that are trained."""
    photographs: Photographs
    known: Known | None
    """The adapter that the run goes on from; its weights are in the denoiser."""
    held_out: HeldOut | None
    """What is held out of the training split, where the data set has no validation split."""
    notes: tuple[str, ...]
    """What a person should know, a line each."""
    backbone: Backbone
    denoiser: Denoiser
    identity: Identity
    begun: Mapping[str, Mapping[str, Tensor]]
    """The denoiser's state as the run begins, where it goes on from an adapter; else nothing."""


def ready(settings: Settings, world: World, *, stop: StopSignal, allow_change: Sequence[str] = ()) -> Ready:
    """Open and check everything, the cheapest first; nothing is written and nothing encoded.

    Raises `SettingsError`, `DataError`, `CheckpointError`; a stop signal between the parts leaves with its exit code.
    """
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    _check_numbers(settings, world)
    require_installed(settings.output.trackers)
    _check_writable(cache_dir_of(settings))
    known = open_known(settings)
    dataset = PreparedDataset.open(settings.data.path, settings.data.root)
    ranks = known.card.ranks if known else ranks_of(settings, dataset)
    held_out = world.first_does(lambda: _held_out(settings, dataset))
    photographs, notes = _split(settings, dataset, held_out)
    if known:
        photographs, more = _joined(settings, photographs, known, ranks)
        notes += more
    stages = plan_of(settings, ranks, new_ranks(photographs, ranks) if known else None)
    _check_samples(settings, stages)
    taxa = photographs.taxa(ranks)
    _check_rows(photographs, taxa, stages)
    stop.raise_if_set("opening the data")
    backbone = load_backbone(settings, world.device)
    stop.raise_if_set("loading the base")
    _check_sizes(settings, backbone)
    denoiser = build_denoiser(settings, backbone, ranks, taxa)
    begun: Mapping[str, Mapping[str, Tensor]] = {}
    if known:
        require_same_model(known, settings, backbone, denoiser)
        carry_over(known, denoiser)
        begun = denoiser.state()
    texts = denoiser.conditioner.texts(taxa)
    _check_names(texts, backbone)
    _check_space(settings, photographs.sets, denoiser, stages, texts)
    identity = identity_of(settings, photographs, backbone, held_out, known.card.content_hash if known else None)
    allowed = (*allow_change, NAME_OF_DEFAULTS)
    world.first_does(lambda: require_same_run(settings.output.path, identity, allowed))
    return Ready(dataset, ranks, stages, taxa, photographs, known, held_out, notes, backbone, denoiser, identity, begun)


def _check_numbers(settings: Settings, world: World) -> None:
    training = settings.training
    Share.of(training.batch_size, training.micro_batch_size, world.process_index, world.num_processes)
    if not settings.base.shard:
        return
    # A shared base computes only when all processes do, and its weights cannot be changed in place.
    wrong = []
    if training.merge_lora:
        wrong.append("training.merge_lora = true")
    if settings.base.compile:
        wrong.append("base.compile = true")
    if settings.preview.num_taxa:
        wrong.append(f"preview.num_taxa = {settings.preview.num_taxa}")
    if settings.start.adapter:
        wrong.append("start.adapter")
    if settings.method.trains_unet:
        wrong.append(f"stages.strategy = {settings.stages.strategy}")
    if wrong:
        raise SettingsError(f"base.shard cannot be used with {', '.join(wrong)}; change these, or leave base.shard off")


def _check_writable(cache_dir: Path) -> None:
    try:
        require_writable(cache_dir)
    except OSError as error:
        raise CheckpointError(
            f"{cache_dir}: the cache cannot be written ({error.strerror}); make it writable or set data.cache_dir"
        ) from error


def _check_samples(settings: Settings, stages: Sequence[Stage]) -> None:
    num_samples = sum(stage.num_steps for stage in stages) * settings.training.batch_size
    if num_samples >= _NUM_SAMPLES_COUNTED:
        raise SettingsError(f"stages.steps: {num_samples:,} samples in all are more than can be counted; lower it")


def _held_out(settings: Settings, dataset: PreparedDataset) -> HeldOut | None:
    """What this run holds out: what it recorded; else, at its beginning, what validation needs."""
    run_dir = settings.output.path
    known = recorded(run_dir, dataset)
    if known is not None:
        return known
    if not settings.validation.every_steps or len(dataset.rows("val")) or _began_without(run_dir):
        return None
    found = hold_out(dataset, settings.validation.num_samples, settings.seed)
    return found if len(found.rows) else None


def _began_without(run_dir: Path) -> bool:
    """Whether there are commits of a run that held nothing out; what it trains on must not change."""
    return bool(checkpoint.candidates(run_dir)) and not (run_dir / FILE).exists()


def _joined(
    settings: Settings, own: Photographs, known: Known, ranks: Sequence[Rank]
) -> tuple[Photographs, tuple[str, ...]]:
    """With what the adapter knows, and what a person should know of it."""
    start = settings.start
    replay = PreparedDataset.open(start.replay, start.replay_root) if start.replay else None
    photographs = joined(own, known.taxonomy, ranks, replay, settings.seed)
    require_same_names(known, photographs)
    return photographs, words(known, photographs, ranks)


def _split(
    settings: Settings, dataset: PreparedDataset, held_out: HeldOut | None
) -> tuple[Photographs, tuple[str, ...]]:
    """Training and validation rows, and a line where the data set has no validation split of its own."""
    train, validation = dataset.rows("train"), dataset.rows("val")
    if held_out is not None:
        note = held_out.words(dataset, settings.output.path)
        return of_one_set(dataset, np.setdiff1d(train, held_out.rows), held_out.rows), (note,)
    if not settings.validation.every_steps or len(validation) or not len(train):
        return of_one_set(dataset, train, validation), ()
    reason = (
        "this run began without held-out photographs"
        if _began_without(settings.output.path)
        else f"no taxon has {MIN_PHOTOGRAPHS} training photographs that are not of one group"
    )
    return of_one_set(dataset, train, validation), (
        f"validation is off: {dataset.path} has no validation split, and {reason}",
    )


def _check_rows(photographs: Photographs, taxa: Sequence[Lineage], stages: Sequence[Stage]) -> None:
    dataset, train_rows = photographs.sets[0], photographs.train_rows
    train_rows = train_rows[train_rows < len(dataset)]
    if not len(train_rows):
        counts = ", ".join(f"{len(dataset.rows(split))} {split}" for split in ("val", "test"))
        raise DataError(
            f"{dataset.path}: no image to train on: its training split is empty ({counts}); mark images as split "
            "“train” in the source and prepare it again"
        )
    shown = [taxa[taxon] for taxon in np.unique(photographs.taxon_ids[photographs.train_rows]).tolist()]
    for rank in dataset.ranks:
        learns = any(encoder_group(rank) in stage.trains for stage in stages)
        if learns and not any(lineage.get(rank) for lineage in shown):
            raise SettingsError(
                f"data.ranks: no training image of {dataset.path} has a name at rank {rank!r}, so its encoder would "
                "learn nothing: leave the rank out of data.ranks"
            )
    looked_for = train_rows[np.linspace(0, len(train_rows) - 1, min(_NUM_LOOKED_FOR, len(train_rows))).astype(int)]
    if not any(dataset.record(int(row)).path.exists() for row in looked_for):
        first = dataset.record(int(looked_for[0])).path
        raise DataError(
            f"{dataset.path}: none of {len(looked_for)} images looked for is there, e.g. {first}; say where the "
            "pictures are now with --root FOLDER (data.root in the settings of a run)"
        )


def _check_sizes(settings: Settings, backbone: Backbone) -> None:
    backbone.latent_shape_at(settings.base.image_size_px or backbone.image_size_px)
    limit = backbone.schedule.num_timesteps
    if settings.preview.num_taxa and settings.preview.num_steps > limit:
        raise SettingsError(f"preview.num_steps = {settings.preview.num_steps}: the base has {limit} timesteps")


def _check_names(texts: Sequence[str], backbone: Backbone) -> None:
    """Every text must fit the text encoder. A token holds at least one byte of the text in its normal form, which is
    at most three times as long as the text, so most texts need not be cut into tokens to know it."""
    limit = backbone.num_text_tokens
    doubtful = [text for text in texts if 3 * len(text.encode("utf-8", "surrogatepass")) + 2 > limit]
    lengths = {text: backbone.text.length(text) for text in doubtful}
    too_long = [text for text, length in lengths.items() if length > limit]
    if too_long:
        longest = max(too_long, key=lengths.__getitem__)
        raise SettingsError(
            f"{len(too_long)} names have more tokens than base.num_tokens allows ({limit}), the longest is "
            f"{longest!r} with {lengths[longest]}: raise base.num_tokens (none: all of the base's), or give shorter "
            "names (prepare --fix)"
        )


def _check_space(
    settings: Settings,
    sets: Sequence[PreparedDataset],
    denoiser: Denoiser,
    stages: Sequence[Stage],
    texts: Sequence[str],
) -> None:
    """The caches and one commit must fit on their disks."""
    backbone = denoiser.backbone
    cache_dir = cache_dir_of(settings)
    latents = sum(latents_to_come(cache_dir, one, backbone, latent_form(settings))[1] for one in sets)
    _, names = states_to_come(cache_dir, backbone.text_hash, backbone.num_text_tokens, backbone.width, texts)
    commit = _commit_bytes(settings, denoiser, stages)
    wanted = [(cache_dir, "latents", latents), (cache_dir, "names", names), (settings.output.path, "a commit", commit)]
    for disk in dict.fromkeys(_disk(path) for path, _, _ in wanted):
        parts = [(path, what, num_bytes) for path, what, num_bytes in wanted if _disk(path) == disk and num_bytes]
        needed, free = sum(num_bytes for _, _, num_bytes in parts), shutil.disk_usage(disk[1]).free
        if needed > free:
            listed = ", ".join(f"{what} {num_bytes / 1e6:,.1f} MB" for _, what, num_bytes in parts)
            raise CheckpointError(
                f"{parts[0][0]}: disk full: {listed} are to be written, {free / 1e6:,.1f} MB are free; make room, or "
                "set data.cache_dir or output.path to another disk"
            )


def _commit_bytes(settings: Settings, denoiser: Denoiser, stages: Sequence[Stage]) -> int:
    """Parameters, and of the largest stage its two moments and its average, float32."""
    groups = {
        group: sum(parameter.numel() for parameter in parameters.values())
        for group, parameters in denoiser.groups().items()
    }
    copies = 2 + (settings.optimiser.ema_decay is not None)
    trained = {group for stage in stages for group in stage.trains}
    largest = max((sum(groups[group] for group in stage.trains) for stage in stages), default=0)
    return 4 * (sum(groups[group] for group in trained) + copies * largest)


def _disk(path: Path) -> tuple[int, Path]:
    """The file system that a path is on or will be on, and a folder of it that exists."""
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    return existing.stat().st_dev, existing
