"""`taxadiffusion simulate`: draw a clade that does not exist, with its true traits, as an image folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from taxadiffusion.cli import options
from taxadiffusion.cli.shown import counted

DEFAULT_RANKS = "order,family,genus,species"


def simulate(
    out: Annotated[Path, typer.Argument(help="A new folder for the pictures and tables.")],
    seed: Annotated[
        int, typer.Option(min=0, max=options.MAX_SEED, help="The same seed draws the same clade and pictures.")
    ] = 0,
    num_species: Annotated[int, typer.Option(min=2, help="Living species.")] = 24,
    num_images: Annotated[
        int, typer.Option(min=1, help="Pictures in all; their number per species is long-tailed.")
    ] = 2400,
    size_px: Annotated[int, typer.Option(min=16, help="Side of a picture in pixels.")] = 64,
    ranks: Annotated[str, typer.Option(help="Ranks, comma-separated, ending in genus,species.")] = DEFAULT_RANKS,
) -> None:
    """Simulate a clade: a birth-death tree, traits evolved along it, pictures of every species, and the true traits."""
    from taxadiffusion.simulate import simulate as run

    with counted("drawing", num_images) as told:
        result = run(
            out,
            seed=seed,
            num_species=num_species,
            num_images=num_images,
            size_px=size_px,
            ranks=[rank.strip() for rank in ranks.split(",")],
            on_image=told,
        )
    numbers = ", ".join(f"{len(result.clade.taxa(rank))} {rank}" for rank in result.clade.ranks)
    console = Console()
    console.print(f"{sum(result.num_images)} pictures in {result.path}: {numbers}", highlight=False, soft_wrap=True)
