"""`taxadiffusion reproduce`: the paper's tables for a data set: train what is missing, generate, measure, report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from taxadiffusion.cli.options import Device

if TYPE_CHECKING:
    from taxadiffusion.tables.reproduction import Reproduction, Work


def reproduce(
    experiment: Annotated[str, typer.Argument(help="table1, guidance, strategies, rare or all.")],
    config: Annotated[Path, typer.Option(help="Settings of training (YAML), the same for every method.")],
    out: Annotated[Path, typer.Option(help="Models, images, results and report; the same command goes on.")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value over the file, e.g. stages.steps=500. May be repeated.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Where the photographs are now, if they were moved.")] = None,
    set_for: Annotated[
        list[str] | None,
        typer.Option(help="STRATEGY:key=value, for one strategy alone, e.g. full:optimiser.learning_rate=0.0002."),
    ] = None,
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
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Trainings of every method, each with its own seed.")] = 3,
    per_taxon: Annotated[int, typer.Option(min=1, help="Images of each taxon from each training.")] = 10,
    guidance_scale: Annotated[float, typer.Option(help="The same for every method.")] = 6.0,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 25,
    engine: Annotated[
        Literal["torch", "onnxruntime", "compiled"],
        typer.Option(help="What predicts while images are made; see generate."),
    ] = "torch",
    size_px: Annotated[int, typer.Option(min=16, help="Both sides are compared at this size.")] = 64,
    method: Annotated[
        list[str] | None, typer.Option(help="Only this row, e.g. lora. May be repeated; none: all rows.")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="rare: a species to thin out. May be repeated; none: chosen.")
    ] = None,
    keep: Annotated[
        list[int] | None,
        typer.Option(min=1, help="rare: training images that they keep. May be repeated; none: 1, 2, 5, 10, 20."),
    ] = None,
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="First try some learning rates and name gains for every method (`search` of the settings), short "
            "trainings of one seed, and take those with the lowest loss on validation photographs.",
        ),
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print what there is to do and its cost; do nothing.")] = False,
) -> None:
    """Compare methods, strategies, guidance and rarity on a data set; one report, with intervals."""
    from taxadiffusion.trainer.signals import StopSignal

    stop = StopSignal()
    stop.install()  # before the slow imports below
    from taxadiffusion.base.device import chosen_device, described
    from taxadiffusion.base.onnx import only_on_cpu
    from taxadiffusion.config import given, load
    from taxadiffusion.report.command import Extractors, command_line
    from taxadiffusion.tables.experiments import experiments_named, settings_by_strategy
    from taxadiffusion.tables.leave_out import NUM_IMAGES
    from taxadiffusion.tables.reproduction import Options, Reproduction
    from taxadiffusion.tables.tables_page import write_story

    experiments = experiments_named(experiment)
    settings = load(config, [*(assignments or ()), *given(**{"data.root": root})])
    where = chosen_device(device, cpu_only=only_on_cpu(engine))
    stderr = Console(stderr=True, highlight=False)
    stderr.print(f"on {described(where)}", markup=False)
    options = Options(
        seeds=tuple(range(seeds)),
        per_taxon=per_taxon,
        guidance_scale=guidance_scale,
        num_steps=steps,
        size_px=size_px,
        engine=engine,
        device=str(where),
        settings_for=settings_by_strategy(set_for or ()),
        methods=tuple(method or ()),
        leave_out=tuple(leave_out or ()),
        keep=tuple(sorted(set(keep or NUM_IMAGES))),
        search=search,
    )
    reproduction = Reproduction(settings, out, options)
    if plan:
        _show_plan(reproduction, reproduction.plan(experiments))
        return
    networks = Extractors(extractor or ["inception"], weights or (), lpips, str(where), clade).open(out / "features")
    with stderr.status("starting") as status:
        story = reproduction.run(experiments, networks, stop, status.update)
        command = command_line(sys.argv[1:])
        report = write_story(story, out, command=command, config=settings, size_px=size_px)
    Console().print(f"{report}, results.json, and tables of each experiment beside it", highlight=False, soft_wrap=True)


def _show_plan(reproduction: Reproduction, work: Work) -> None:
    from rich.table import Table

    console = Console(highlight=False)
    with Console(stderr=True).status("measuring a few steps of each strategy"):
        seconds = reproduction.seconds(work)
    shown = Table(
        "training", "steps", "minutes", title_justify="left", title="to train; done already is not done again"
    )
    trainings = [candidate.model for candidate in work.search if candidate.num_samples] + list(work.models)
    for model in trainings:
        name = model.run_dir.relative_to(reproduction.out).as_posix().removeprefix("models/")
        done = (model.run_dir / "adapter" / "adapter.json").is_file()
        minutes = "done" if done else f"{seconds[model.run_dir.name] / 60:.1f}"
        shown.add_row(name, str(model.settings.stages.steps), minutes)
    console.print(shown)
    total = sum(seconds.values())
    if work.search:
        samples = sum(candidate.num_samples for candidate in work.search)
        console.print(
            f"of these {len(trainings) - len(work.models)} for the search, {samples:,} samples; {len(work.search)} "
            "settings are tried, and the models' are not known before it is done"
        )
    console.print(
        f"{len(trainings)} trainings, about {total / 3600:.1f} hours; {work.num_images:,} images to generate."
    )


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(reproduce)
