"""Training as one function: the run, its watchers, and the path of the model that comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from taxadiffusion.config import Settings, flattened
from taxadiffusion.run.objects import CachesProgress
from taxadiffusion.run.opened import Run, open_run
from taxadiffusion.trainer import events
from taxadiffusion.trainer.history import ADAPTER_DIR
from taxadiffusion.trainer.previews import preview_sheet, preview_taxa
from taxadiffusion.trainer.settings import TrackerName
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.spent import Held, Spending
from taxadiffusion.trainer.trackers import Tracker, installed
from taxadiffusion.trainer.watchers import Curve, MetricsLog, Previews, Watcher, watched
from taxadiffusion.trainer.world import World


def train(
    settings: Settings,
    *,
    stop: StopSignal | None = None,
    world: World | None = None,
    allow_change: Sequence[str] = (),
    progress: CachesProgress | None = None,
    begin: Callable[[Run], object] | None = None,
    on_event: Callable[[events.Event], object] | None = None,
) -> Path:
    """Train every stage, going on where an earlier call stopped; returns the adapter's directory.

    `progress` counts what the caches compute; `begin` sees the run before its first step; `on_event` sees every event.
    Metrics, cost, loss curve, preview grids and TensorBoard events are written beside the commits by the first process,
    which also tells the trackers (`output.trackers`).
    Raises every `TaxaDiffusionError`; after `PreemptedError` and `InterruptedByUserError` (`stop`) call it again.
    """
    started = time.monotonic()
    world = world or World()
    stop = stop or StopSignal()
    with open_run(settings, stop=stop, world=world, allow_change=allow_change, progress=progress) as run:
        if begin:
            begin(run)
        for event in watched(run.trainer.run(), standard_watchers(run, started=started) if world.is_first else ()):
            if on_event:
                on_event(event)
    return settings.output.path / ADAPTER_DIR


def standard_watchers(run: Run, *, started: float | None = None) -> list[Watcher]:
    """What is written of a run beside its commits. started: by `time.monotonic`, when its cost began; none: now."""
    settings = run.settings
    run_dir = settings.output.path
    num_steps = sum(stage.num_steps for stage in run.plan)
    spending = Spending(
        run_dir, num_steps, Held.by(run.trainer.world), started=time.monotonic() if started is None else started
    )
    watchers: list[Watcher] = [MetricsLog(run_dir), Curve(run_dir), spending]
    preview = settings.preview
    if preview.num_taxa:
        taxa = preview_taxa(run.taxa, preview.num_taxa)
        watchers.append(
            Previews(
                run_dir,
                lambda rank: preview_sheet(
                    run.trainer.denoiser,
                    taxa,
                    rank,
                    num_steps=preview.num_steps,
                    guidance_scale=preview.guidance_scale,
                    size_px=settings.base.image_size_px,
                    give_up=lambda: run.trainer.stop.number != 0,
                ),
            )
        )
    recipe = flattened(settings, trajectory_only=True)
    watchers += [Tracker(name, run_dir, recipe) for name in trackers_of(settings)]  # after the sheets are drawn
    return watchers


def trackers_of(settings: Settings) -> tuple[TrackerName, ...]:
    """Those that are asked for, and TensorBoard by itself where it is installed and not turned off."""
    asked = settings.output.trackers
    by_itself = settings.output.tensorboard and "tensorboard" not in asked and installed("tensorboard")
    return ("tensorboard", *asked) if by_itself else asked
