"""`taxadiffusion train`: all stages in one command; the same command again goes on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taxadiffusion.cli import options
from taxadiffusion.cli.paths import text_argument
from taxadiffusion.errors import SettingsError
from taxadiffusion.trainer.signals import StopSignal

if TYPE_CHECKING:
    from taxadiffusion.config import Settings


def train(
    config: Annotated[
        Path | None,
        typer.Argument(help="The run's settings (YAML). configs/ holds examples. With --from it may be left out."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            parser=text_argument,
            help="Go on from this model (directory, run, shipped name, hub id): base, method and settings are its own.",
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The prepared photographs to learn from: over data.path.")] = None,
    replay: Annotated[
        Path | None, typer.Option(help="With --from: prepared photographs of taxa it knows, so that they stay.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's directory: over output.path.")] = None,
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

    Few photographs of new species: taxadiffusion train --from MODEL --data PREPARED --out RUN (docs/data.md).

    Several processes or machines: accelerate launch --num_processes N $(command -v taxadiffusion) train CONFIG
    (docs/cluster.md).
    """
    stop = StopSignal()
    stop.install()  # before the slow imports below
    given = {
        "stages.strategy": strategy, "data.root": root, "data.path": data, "output.path": out,
        "start.adapter": start, "start.replay": replay,
    }  # fmt: skip
    settings = _settings(config, assignments or (), given)
    if os.environ.get("RANK", "0") == "0":
        from taxadiffusion.trainer.lock import require_free

        require_free(settings.output.path)  # a directory that is held or read-only is told before the slow imports
    if dry_run:
        from taxadiffusion.cli.train_plan import show_plan

        show_plan(settings, device, allow_change or ())
        return
    stop.raise_if_set("reading the settings")
    _train(settings, stop, device, allow_change or ())


def _settings(config: Path | None, assignments: Sequence[str], given: Mapping[str, str | Path | None]) -> Settings:
    """Of the file, of the model that is gone on from, or of both, under what was given."""
    from taxadiffusion.config import given as assigned
    from taxadiffusion.config import load, parse

    if config is None and given["start.adapter"] is None:
        raise SettingsError("give the run's settings (a YAML file; configs/ holds examples), or --from MODEL to go on")
    changes = [*assignments, *assigned(**given)]
    return load(config, changes) if config else parse({}, changes, source="train --from")


def _train(settings: Settings, stop: StopSignal, device: str, allow_change: Sequence[str]) -> None:
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
            allow_change=allow_change,
            progress=screen.caching,
            begin=screen.begin,
            on_event=screen.show,
        )
