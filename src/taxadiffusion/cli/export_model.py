"""`taxadiffusion export-model`: a model in the files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from taxadiffusion.cli import options
from taxadiffusion.cli.generate import Model


def export_model(
    model: Model,
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    to: Annotated[Literal["comfyui", "diffusers"], typer.Option(help="Whose files.")],
    taxon: Annotated[
        list[str] | None,
        typer.Option(help="Taxa whose conditions are written; repeatable. None: all species, ≤ 500."),
    ] = None,
    all_species: Annotated[bool, typer.Option("--all-species", help="Of all species, however many.")] = False,
    merged: Annotated[bool, typer.Option("--merged", help="Add the LoRA to the U-Net; else a file beside it.")] = False,
    base: options.Base = None,
) -> None:
    """Write a model for ComfyUI or stock diffusers: weights under their names, conditions of taxa, how to use them."""
    from rich.console import Console

    from taxadiffusion.adapter import open_model
    from taxadiffusion.sharing.exported import chosen_taxa, file_stem

    if out.exists():
        from taxadiffusion.errors import SettingsError

        raise SettingsError(f"{out}: exists already; name a new folder, nothing is overwritten")
    console = Console(stderr=True, highlight=False)
    with console.status("reading the model") as status:
        adapter = open_model(model, base=base)
        taxa = chosen_taxa(adapter, taxon or [], every=all_species)
        status.update(f"writing conditions of {len(taxa)} taxa")
        if to == "comfyui":
            from taxadiffusion.sharing.comfyui import export_comfyui

            written = export_comfyui(adapter, out, taxa, name=file_stem(model), merged=merged)
        else:
            from taxadiffusion.sharing.diffusers_folder import export_diffusers

            written = export_diffusers(adapter, out, taxa, name=file_stem(model), merged=merged)
    Console(highlight=False, soft_wrap=True).print(
        f"{written.num_conditions} conditions and the model in {written.path}: read {written.path}/README.md"
    )
