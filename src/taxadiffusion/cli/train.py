"""`taxadiffusion train`: all stages in one command; the same command again goes on where it stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from taxadiffusion.cli import options
from taxadiffusion.trainer.signals import StopSignal


def train(
    config: Annotated[Path, typer.Argument(help="The run's settings (YAML). configs/ holds examples.")],
    assignments: options.Assignments = None,
    strategy: Annotated[
        str | None, typer.Option(help="progressive, all, random, or a baseline: over stages.strategy.")
    ] = None,
    root: options.Root = None,
    device: options.Device = "auto",
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
    stop = StopSignal()
    stop.install()  # before the slow imports below
    from taxadiffusion.config import given, load

    settings = load(config, [*(assignments or ()), *given(**{"stages.strategy": strategy, "data.root": root})])
    if os.environ.get("RANK", "0") == "0":
        from taxadiffusion.trainer.lock import require_free

        require_free(settings.output.path)  # a directory that is held or read-only is told before the slow imports
    if dry_run:
        from taxadiffusion.cli.train_plan import show_plan

        show_plan(settings, device, allow_change or ())
        return
    stop.raise_if_set("reading the settings")
    from taxadiffusion.base.device import chosen_device
    from taxadiffusion.cli.train_screen import Screen, Silence
    from taxadiffusion.trainer.world import World

    world = World.join(settings.timeout_s, chosen_device(device))
    with Screen(settings) if world.is_first else Silence() as screen:
        from taxadiffusion.run import train as train_model

        stop.raise_if_set("starting")
        train_model(
            settings,
            stop=stop,
            world=world,
            allow_change=allow_change or (),
            progress=screen.caching,
            begin=screen.begin,
            on_event=screen.show,
        )
