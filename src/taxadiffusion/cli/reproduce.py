"""`taxadiffusion reproduce`: the paper's tables for a data set: train what is missing, generate, measure, report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from taxadiffusion.cli import options
from taxadiffusion.trainer.signals import StopSignal

if TYPE_CHECKING:
    from taxadiffusion.evaluate.networks import Networks
    from taxadiffusion.tables.experiments import Experiment
    from taxadiffusion.tables.reproduction import Reproduction, Work


SetFor = Annotated[
    list[str] | None,
    typer.Option(help="STRATEGY:key=value, for one strategy alone, e.g. full:optimiser.learning_rate=0.0002."),
]
OnlyMethod = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this row, e.g. lora. May be repeated; none: all rows. rare: also a method whose models are thinned "
        "out, e.g. class_embedding; none: taxadiffusion."
    ),
]
LeaveOut = Annotated[list[str] | None, typer.Option(help="rare: a species to thin out. May be repeated; none: chosen.")]
Keep = Annotated[
    list[int] | None,
    typer.Option(min=0, help="rare: training images that they keep, 0 too. May be repeated; none: 1, 2, 5, 10, 20."),
]
Search = Annotated[
    bool,
    typer.Option(
        "--search",
        help="First try some learning rates and name gains for every method (`search` of the settings), short "
        "trainings of one seed, and take those with the lowest loss on validation photographs.",
    ),
]


def reproduce(
    experiment: Annotated[str, typer.Argument(help="table1, guidance, strategies, rare or all.")],
    config: Annotated[Path, typer.Option(help="Settings of training (YAML), the same for every method.")],
    out: Annotated[Path, typer.Option(help="Models, images, results and report; the same command goes on.")],
    assignments: options.Assignments = None,
    root: options.Root = None,
    set_for: SetFor = None,
    extractor: options.Extractor = None,
    weights: options.Weights = None,
    lpips: options.Lpips = None,
    device: options.Device = "auto",
    clade: options.TrueTraits = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Trainings of every method, each with its own seed.")] = 3,
    per_taxon: options.PerTaxon = options.PER_TAXON,
    guidance_scale: options.GuidanceScale = options.GUIDANCE_SCALE,
    steps: options.Steps = options.NUM_STEPS,
    engine: options.Engine = "torch",
    size_px: options.OwnSizePx = None,
    method: OnlyMethod = None,
    leave_out: LeaveOut = None,
    keep: Keep = None,
    search: Search = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print what there is to do and its cost; do nothing.")] = False,
) -> None:
    """Compare methods, strategies, guidance and rarity on a data set; one report, with intervals."""
    stop = StopSignal()
    stop.install()  # before the slow imports below
    from taxadiffusion.base.device import chosen_device, described
    from taxadiffusion.base.onnx import only_on_cpu
    from taxadiffusion.config import given, load
    from taxadiffusion.report.command import Extractors
    from taxadiffusion.tables.experiments import experiments_named, settings_by_strategy
    from taxadiffusion.tables.leave_out import NUM_IMAGES
    from taxadiffusion.tables.reproduction import Options, Reproduction

    experiments = experiments_named(experiment)
    settings = load(config, [*(assignments or ()), *given(**{"data.root": root})])
    where = chosen_device(device, cpu_only=only_on_cpu(engine))
    Console(stderr=True, highlight=False).print(f"on {described(where)}", markup=False)
    common = Options(
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
    reproduction = Reproduction(settings, out, common)
    _tell_left_out(reproduction, experiments)
    if plan:
        _show_plan(reproduction, reproduction.plan(experiments))
    else:
        extractors = Extractors(extractor or ["inception"], weights or (), lpips, str(where), clade)
        _run(reproduction, experiments, extractors.open(out / "features"), stop)


def _tell_left_out(reproduction: Reproduction, experiments: Sequence[Experiment]) -> None:
    """Before anything is done; the tables say it too."""
    from taxadiffusion.tables.earlier import left_out_words

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for experiment in experiments:
        if words := left_out_words(reproduction.left_out(experiment)):
            console.print(f"{experiment}: {words}", markup=False)


def _run(reproduction: Reproduction, experiments: Sequence[Experiment], networks: Networks, stop: StopSignal) -> None:
    from taxadiffusion.cli.shown import working
    from taxadiffusion.report.command import command_line
    from taxadiffusion.tables.tables_page import write_story

    with working() as told:
        story = reproduction.run(experiments, networks, stop, told)
        report = write_story(
            story,
            reproduction.out,
            command=command_line(sys.argv[1:]),
            config=reproduction.config,
        )
    Console().print(f"{report}, results.json, and tables of each experiment beside it", highlight=False, soft_wrap=True)


def _show_plan(reproduction: Reproduction, work: Work) -> None:
    from rich.table import Table

    from taxadiffusion.cli.shown import working

    console = Console(highlight=False)
    with working() as told:
        told("measuring a few steps of each strategy")
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
