"""`taxadiffusion evaluate`: generated images against real ones, at every rank, with intervals and a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxadiffusion.cli.options import Device
from taxadiffusion.cli.paths import MAX_SEED, text_argument


def evaluate(
    generated: Annotated[
        list[str],
        typer.Argument(help="Folders with images and metadata.csv, or trained models. NAME=PATH names the method."),
    ],
    data: Annotated[Path, typer.Option("--data", help="The prepared data set that the models were trained on.")],
    root: Annotated[Path | None, typer.Option(help="Where its photographs are now, if they were moved.")] = None,
    out: Annotated[Path, typer.Option(help="Where results.json, tables and report.html go.")] = Path("evaluation"),
    ranks: Annotated[str | None, typer.Option(help="Comma-separated; none: all of the data set.")] = None,
    extractor: Annotated[
        list[str] | None,
        typer.Option(
            help="What looks at the images: inception (if none is given), bioclip or onnx:FILE. A second one is a "
            "second judge of how often they are named right."
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None, typer.Option(help="Each extractor's weights, in their order, for use without network.")
    ] = None,
    lpips: Annotated[Path | None, typer.Option(help="AlexNet weights: also measure LPIPS.")] = None,
    device: Device = "auto",
    clade: Annotated[
        Path | None, typer.Option(help="Folder that `simulate` wrote, of this data: also measure trait error.")
    ] = None,
    size_px: Annotated[int, typer.Option(min=16, help="Both sides are compared at this size.")] = 64,
    per_taxon: Annotated[int, typer.Option(min=1, help="Images of each taxon to generate with a model.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps, with a model.")] = 25,
    guidance_scale: Annotated[float, typer.Option(help="With a model; 1: none.")] = 6.0,
    guidance_interval: Annotated[
        tuple[float, float], typer.Option(help="With a model: where guidance acts, 0 = clean … 1 = pure noise.")
    ] = (0.0, 1.0),
    engine: Annotated[
        Literal["torch", "onnxruntime", "compiled"],
        typer.Option(help="What predicts, with a model; see generate."),
    ] = "torch",
    base: Annotated[
        str | None, typer.Option(parser=text_argument, help="Where a model's base lies, if not where the model says.")
    ] = None,
    guidance_rank: Annotated[str | None, typer.Option(help="Ancestor to guide from; none: the empty lineage.")] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, max=MAX_SEED, help="Of the images that a model draws; also of what is drawn to measure."),
    ] = 0,
) -> None:
    """Measure generated images, or a model's, against real photographs, rank by rank.

    Under accelerate launch the processes share the drawing and the features; the first measures.
    """
    from taxadiffusion.base.device import chosen_device, described
    from taxadiffusion.base.onnx import only_on_cpu
    from taxadiffusion.dataset.shards import Shard
    from taxadiffusion.evaluate.image_plan import ImagePlan
    from taxadiffusion.guidance import Guidance
    from taxadiffusion.pictures.generate import Sampling
    from taxadiffusion.report.command import Extractors, command_line, evaluate_command
    from taxadiffusion.report.evaluation import method_tables, told_with_results

    where = chosen_device(device, cpu_only=only_on_cpu(engine))
    stderr = Console(stderr=True, highlight=False)
    stderr.print(f"on {described(where)}", markup=False)
    with stderr.status("starting") as status:
        results = evaluate_command(
            generated,
            data,
            out,
            root=root,
            extractors=Extractors(extractor or ["inception"], weights or (), lpips, str(where), clade),
            ranks=[rank.strip() for rank in ranks.split(",")] if ranks else None,
            images=ImagePlan(
                per_taxon,
                seed,
                Guidance(guidance_scale, guidance_rank, guidance_interval),
                Sampling(steps, engine=engine),
            ),
            base=base,
            size_px=size_px,
            command=command_line(sys.argv[1:]),
            progress=status.update,
            shard=Shard.of_environment(),
        )
    if results is None:
        return  # the first process measures and tells
    console = Console()
    tables = method_tables(results)
    if "rank_accuracy" in tables:
        header, rows = tables["rank_accuracy"]
        shown = Table(*header, title="share of images named right", title_justify="left")
        for row in rows:
            shown.add_row(
                *(
                    f"{escape(cell.value)}  [dim]{cell.small}[/dim]" if cell.small else escape(cell.value)
                    for cell in row
                )
            )
        console.print(shown)
    for words in told_with_results(results):
        console.print(words, highlight=False, markup=False)
    console.print(f"{out / 'report.html'}, results.json, tables.md, tables.tex", highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(evaluate)
