"""`train --dry-run`: settings filled in, plan, parameters, memory and time, measured on a few trial steps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from taxadiffusion.config import Settings, to_yaml

if TYPE_CHECKING:
    from taxadiffusion.trainer.memory import StepMemory


def show_plan(settings: Settings, device: str = "auto", allow_change: Sequence[str] = ()) -> None:
    """Print it. Nothing is written; the data set and the base are read, and what the run would find wrong is found."""
    from taxadiffusion.base.device import chosen_device, described
    from taxadiffusion.run import trial
    from taxadiffusion.trainer.world import World

    console = Console(highlight=False)
    console.print(to_yaml(settings), markup=False, soft_wrap=True)
    world = World.join(settings.timeout_s, chosen_device(device))
    result = trial(settings, world, allow_change=allow_change, memories=True)
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
        f"device: {described(world.device)}\n"
        f"memory: {result.peak_bytes / 2**30:.1f} GiB at the highest of the trial steps\n"
        f"time: {timedelta(seconds=round(sum(cost.seconds for cost in result.costs)))} for all stages on this machine, "
        "without computing latents, validation and previews",
        markup=False,
        soft_wrap=True,
    )
    _show_memories(console, result.memories, settings)


def _show_memories(console: Console, memories: Sequence[StepMemory], settings: Settings) -> None:
    """What fits which card, and whether compiling pays."""
    from taxadiffusion.trainer.memory import CARDS_GB

    heads = (f"{card} GB" for card in CARDS_GB)
    table = Table("latents", "base.dtype", "training.gradient_checkpointing", "a sample", "the rest", *heads)
    for memory in memories:
        table.add_row(
            "×".join(map(str, memory.latent_shape)),
            memory.precision,
            str(memory.checkpointed).lower(),
            f"{memory.per_sample / 1e6:,.1f} MB",
            f"{memory.of(0) / 1e9:,.2f} GB",
            *(f"{memory.fits(card):,}" for card in CARDS_GB),
        )
    console.print(table)
    console.print(
        "the largest training.micro_batch_size that each card takes, estimated; 1 GB of it is left to other things\n"
        f"base.compile is {'on' if settings.base.compile else 'off'}: building takes minutes in every stage, less "
        "after a restart, and pays from about 1,000 steps a stage on",
        markup=False,
        soft_wrap=True,
    )
