"""`taxadiffusion serve`: a model as a page in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taxadiffusion.cli import options
from taxadiffusion.cli.paths import text_argument

Model = Annotated[
    str,
    typer.Argument(
        parser=text_argument,
        help="An adapter's or run's directory, a hub id, or a shipped one: `reef-fish`, `butterflies`.",
    ),
]
Evaluation = Annotated[
    Path | None, typer.Option(help="What `evaluate` wrote of this model: the folder, or its results.json.")
]
OtherNames = Annotated[
    Path | None,
    typer.Option(help="CSV of taxon,name,kind: names to be found by, beside those of the model's names.csv."),
]
Extractor = Annotated[
    str | None, typer.Option(help="Look for copies of --data's photographs with it: inception, bioclip or onnx:FILE.")
]


def serve(
    model: Model = "reef-fish",
    data: Annotated[Path | None, typer.Option("--data", help="The prepared data set that taught the model.")] = None,
    root: options.Root = None,
    evaluation: Evaluation = None,
    other_names: OtherNames = None,
    extractor: Extractor = None,
    weights: Annotated[Path | None, typer.Option(help="The extractor's weights, for use without network.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen; as it is, only this machine can look.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name by which others call this machine. May be repeated.")
    ] = None,
    store: Annotated[Path, typer.Option(help="Folder for the pictures that are made; bounded.")] = Path("served"),
    base: options.Base = None,
    device: options.Device = "auto",
    in_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show a model in the browser: find a taxon, see its photographs and pictures, have pictures made."""
    from taxadiffusion.errors import SettingsError

    try:
        from taxadiffusion.web.serve import Address, Beside
        from taxadiffusion.web.serve import serve as run
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("taxadiffusion"):
            raise
        raise SettingsError(f"serve needs {error.name}: pip install 'taxadiffusion[web]'") from error
    from taxadiffusion.web.worker import Opening

    run(
        Opening(model, base, device, store),
        Beside(data, root, evaluation, other_names, extractor, weights),
        Address(host, port, tuple(allow_host or ())),
        tell=lambda words: typer.echo(words, err=True),
        in_browser=in_browser,
    )
