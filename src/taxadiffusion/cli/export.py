"""`taxadiffusion export`: a prepared data set in other forms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taxadiffusion.cli import options


def export(
    dataset: Annotated[Path, typer.Argument(help="A prepared data set.")],
    out: Annotated[Path, typer.Argument(help="A new folder or file.")],
    to: Annotated[str, typer.Option(help="imagefolder, webdataset, newick, csv or html.")],
    root: options.Root = None,
) -> None:
    """Write a prepared data set as an image folder or shards, or its tree as Newick, CSV or an interactive page."""
    from rich.console import Console

    from taxadiffusion.dataset.export import export as run
    from taxadiffusion.dataset.prepared import PreparedDataset

    written = run(PreparedDataset.open(dataset, root), out, to)
    things = "images" if to in ("imagefolder", "webdataset") else "taxa"
    Console(highlight=False, soft_wrap=True).print(f"{written.num_items} {things} in {written.path}")
