"""`train --dry-run`: settings filled in, plan, parameters, memory and time, measured on a few trial steps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console
from rich.table import Table

from taxadiffusion.config import Settings, to_yaml


def show_plan(settings: Settings, allow_change: Sequence[str] = ()) -> None:
    """Print it. Nothing is written; the data set and the base are read, and what the run would find wrong is found."""
    from taxadiffusion.build import trial
    from taxadiffusion.trainer.world import World

    console = Console(highlight=False)
    console.print(to_yaml(settings), markup=False, soft_wrap=True)
    result = trial(settings, World.join(settings.timeout_s), allow_change=allow_change)
    for note in result.notes:
        console.print(note, markup=False, soft_wrap=True)
    table = Table("stage", "condition down to", "steps", "learns", "parameters", "s / step", "time")
    for stage, cost in zip(result.plan, result.costs, strict=True):
        table.add_row(
            stage.name,
            stage.rank,
            f"{stage.num_steps:,}",
            ", ".join(stage.trains),
            f"{cost.num_trained:,}",
            f"{cost.seconds_per_step:.3f}",
            str(timedelta(seconds=round(cost.seconds))),
        )
    console.print(table)
    console.print(
        f"data: {result.num_images:,} training images, {result.num_taxa:,} taxa at {', '.join(result.ranks)}\n"
        f"base: {result.num_frozen:,} frozen parameters\n"
        f"memory: {result.peak_bytes / 2**30:.1f} GiB at the highest of the trial steps\n"
        f"time: {timedelta(seconds=round(sum(cost.seconds for cost in result.costs)))} for all stages on this machine, "
        "without computing latents, validation and previews",
        markup=False,
        soft_wrap=True,
    )
