"""`taxadiffusion ancestors`: pictures of ancestors, reconstructed from the descendants that the model knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taxadiffusion.cli import options
from taxadiffusion.cli.generate import Model, Seed

Tree = Annotated[
    Path | None,
    typer.Option(help="A phylogeny with branch lengths, Newick or NEXUS, tips named Genus_epithet; none: unit ones."),
]


def ancestors(
    model: Model,
    taxa: Annotated[list[str], typer.Argument(help="Taxa above the species, whose ancestor is drawn.")],
    num_images: Annotated[int, typer.Option("-n", "--num-images", min=1, help="Pictures of each.")] = 8,
    mean: Annotated[bool, typer.Option("--mean", help="All of the most likely ancestor, not each of its own.")] = False,
    way: Annotated[
        bool, typer.Option("--way", help="Of two taxa: the way between them, through their common ancestor.")
    ] = False,
    tree: Tree = None,
    guidance_scale: options.GuidanceScale = options.GUIDANCE_SCALE,
    num_steps: options.Steps = options.NUM_STEPS,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Where the cloud goes; the same command again goes on.")] = Path(
        "ancestors"
    ),
    base: options.Base = None,
    device: options.Device = "auto",
) -> None:
    """Draw what the ancestor of a genus or family may have looked like: a cloud, for nobody has seen it.

    Conditions are taken to wander along the tree by Brownian motion, a branch as long as the ranks it crosses, or as a
    phylogeny says.
    """
    from taxadiffusion.errors import SettingsError

    if way and (len(taxa) != 2 or mean):
        raise SettingsError("--way leads between two taxa: name two, and leave --mean out")
    from rich.console import Console
    from rich.progress import track

    from taxadiffusion.adapter import open_model
    from taxadiffusion.base.device import chosen_device
    from taxadiffusion.guidance import Guidance
    from taxadiffusion.pictures import ancestors as reconstruction
    from taxadiffusion.pictures.asked import requested_lineage
    from taxadiffusion.pictures.generate import Sampling, generate
    from taxadiffusion.taxonomy.phylogeny import read_phylogeny

    phylogeny = read_phylogeny(tree) if tree else None
    adapter = open_model(model, base=base, device=chosen_device(device))
    guidance = Guidance(guidance_scale)
    lineages = list(dict.fromkeys(requested_lineage(adapter, name)[0] for name in taxa))
    if way:
        found = [reconstruction.way(adapter, lineages[0], lineages[-1], num_images, seed, guidance, phylogeny)]
    else:
        seeds = range(seed, seed + num_images)
        found = [
            reconstruction.cloud(adapter, one, seeds, guidance, mean=mean, phylogeny=phylogeny) for one in lineages
        ]
    requests = [request for some, _ in found for request in some]
    notes = {some[0].lineage: note for some, note in found}
    for lineage, note in notes.items():
        typer.echo(f"{lineage.label}: {note}", err=True)
    pictures = generate(adapter, requests, out, Sampling(num_steps), notes=notes)
    made = list(track(pictures, "pictures", total=len(requests), console=Console(stderr=True)))
    typer.echo(f"{sum(picture.made for picture in made)} pictures made, of {len(made)}: {out}/metadata.csv")
