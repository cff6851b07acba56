"""`taxadiffusion train`: all stages in one command; the same command again goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from taxadiffusion.build import Run
    from taxadiffusion.config import Settings
    from taxadiffusion.trainer.watchers import Watcher


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(train)


def train(
    config: Annotated[Path, typer.Argument(help="The run's settings (YAML). configs/ holds examples.")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value over the file, e.g. lora.rank=8. May be repeated.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="progressive, all, random, or a baseline: over stages.strategy.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print settings, plan, parameters, memory and time; train nothing.")
    ] = False,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(help="Go on although this key (or data, taxonomy, base) changed. May be repeated."),
    ] = None,
) -> None:
    """Train every stage, coarse to fine. Run the same command again to go on after any interruption.

    Several processes or machines: accelerate launch --num_processes N $(command -v taxadiffusion) train CONFIG
    (docs/cluster.md).
    """
    from taxadiffusion.trainer.signals import StopSignal

    stop = StopSignal()
    stop.install()  # before the slow imports below
    from taxadiffusion.config import load

    given = [*(assignments or ()), *([f"stages.strategy={strategy}"] if strategy else ())]
    settings = load(config, given)
    if dry_run:
        from taxadiffusion.cli.train_plan import show_plan

        show_plan(settings)
        return
    stop.raise_if_set("reading the settings")
    from taxadiffusion.cli.train_screen import Screen, Silence
    from taxadiffusion.trainer.world import World

    world = World.join(settings.timeout_s)
    with Screen(settings) if world.is_first else Silence() as screen:
        from taxadiffusion.build import open_run
        from taxadiffusion.trainer.watchers import watched

        stop.raise_if_set("starting")
        with open_run(
            settings, stop=stop, world=world, allow_change=allow_change or (), progress=screen.caching
        ) as run:
            screen.begin(run)
            for event in watched(run.trainer.run(), _watchers(settings, run) if world.is_first else []):
                screen.show(event)


def _watchers(settings: Settings, run: Run) -> list[Watcher]:
    """What the first process writes beside the commits."""
    from taxadiffusion.trainer.previews import preview_sheet, preview_taxa
    from taxadiffusion.trainer.watchers import Curve, MetricsLog, Previews, TensorBoard

    run_dir = settings.output.path
    watchers: list[Watcher] = [MetricsLog(run_dir), Curve(run_dir)]
    if settings.output.tensorboard and TensorBoard.installed():
        watchers.append(TensorBoard(run_dir))
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
    return watchers
