"""`taxadiffusion evaluate`: generated images against real ones, at every rank, with intervals and a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxadiffusion.cli import options

if TYPE_CHECKING:
    from taxadiffusion.evaluate.results import Results
    from taxadiffusion.guidance import Guidance
    from taxadiffusion.report.command import Extractors, Measured


Generated = Annotated[
    list[str],
    typer.Argument(help="Folders with images and metadata.csv, or trained models. NAME=PATH names the method."),
]


def evaluate(
    generated: Generated,
    data: Annotated[Path, typer.Option("--data", help="The prepared data set that the models were trained on.")],
    root: options.Root = None,
    out: Annotated[Path, typer.Option(help="Where results.json, tables and report.html go.")] = Path("evaluation"),
    ranks: Annotated[str | None, typer.Option(help="Comma-separated; none: all of the data set.")] = None,
    extractor: options.Extractor = None,
    weights: options.Weights = None,
    lpips: options.Lpips = None,
    device: options.Device = "auto",
    clade: options.TrueTraits = None,
    size_px: options.OwnSizePx = None,
    per_taxon: options.PerTaxon = options.PER_TAXON,
    steps: options.Steps = options.NUM_STEPS,
    guidance_scale: options.GuidanceScale = options.GUIDANCE_SCALE,
    guidance_interval: options.GuidanceInterval = options.WHOLE_SCHEDULE,
    engine: options.Engine = "torch",
    base: options.Base = None,
    guidance_rank: Annotated[
        str | None, typer.Option(help="Ancestor to guide from, or sister; none: the null.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="The method that others are compared with; none: the best, picked on half of the pictures."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=options.MAX_SEED, help="Of what a model draws, and of what is drawn to measure.")
    ] = 0,
) -> None:
    """Measure generated images, or a model's, against real photographs, rank by rank.

    The options of sampling are for models, which draw their images first. Under accelerate launch the processes share
    the drawing and the features; the first measures.
    """
    from taxadiffusion.base.device import chosen_device, described
    from taxadiffusion.base.onnx import only_on_cpu
    from taxadiffusion.evaluate.image_plan import ImagePlan
    from taxadiffusion.pictures.generate import Sampling
    from taxadiffusion.report.command import Extractors, Measured

    where = chosen_device(device, cpu_only=only_on_cpu(engine))
    Console(stderr=True, highlight=False).print(f"on {described(where)}", markup=False)
    guidance = _guidance(guidance_scale, guidance_rank, guidance_interval)
    asked = Measured(
        generated,
        data,
        ImagePlan(per_taxon, seed, guidance, Sampling(steps, engine=engine)),
        root=root,
        ranks=[rank.strip() for rank in ranks.split(",")] if ranks else None,
        base=base,
        against=against,
        size_px=size_px,
    )
    _run(asked, out, Extractors(extractor or ["inception"], weights or (), lpips, str(where), clade))


def _guidance(scale: float, rank: str | None, interval: tuple[float, float]) -> Guidance:
    from taxadiffusion.guidance import Guidance

    if rank == "sister":
        return Guidance(scale, interval=interval, base="sister")
    return Guidance(scale, rank, interval)


def _run(asked: Measured, out: Path, extractors: Extractors) -> None:
    from taxadiffusion.cli.shown import working
    from taxadiffusion.dataset.shards import Shard
    from taxadiffusion.report.command import command_line, evaluate_command

    with working() as told:
        results = evaluate_command(
            asked,
            out,
            extractors,
            command=command_line(sys.argv[1:]),
            progress=told,
            shard=Shard.of_environment(),
        )
    if results is not None:  # the first process measures and tells
        _show(results)
        Console().print(f"{out / 'report.html'}, results.json, tables.md, tables.tex", highlight=False, soft_wrap=True)


def _show(results: Results) -> None:
    from taxadiffusion.report.figures import REAL
    from taxadiffusion.report.judges import named_right_by_judge, told_with_results

    console = Console()
    header, rows = named_right_by_judge(results, REAL)
    if rows:
        shown = Table(*header, title="share of images named right", title_justify="left")
        for row in rows:
            words = ((escape(cell.value), cell.small) for cell in row)
            shown.add_row(*(f"{value}  [dim]{small}[/dim]" if small else value for value, small in words))
        console.print(shown)
    for told in told_with_results(results):
        console.print(told, highlight=False, markup=False)
