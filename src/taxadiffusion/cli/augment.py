"""`taxadiffusion augment`: pictures for a classifier's training, judged one by one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from taxadiffusion.cli import context_options, options
from taxadiffusion.cli.generate import Model

if TYPE_CHECKING:
    from taxadiffusion.adapter import Adapter
    from taxadiffusion.synthetic.augment import Asked
    from taxadiffusion.synthetic.plan import Plan

_MOST_LISTED = 20  # species of a plan that are shown

Data = Annotated[Path, typer.Option("--data", help="The prepared data set that is to be augmented.")]
PlanRule = Annotated[
    str, typer.Option("--plan", help="balance, top-up, or a table (CSV) of species and their numbers of pictures.")
]
To = Annotated[
    int | None, typer.Option(min=1, help="Photographs and accepted pictures together that a species is to have.")
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        help="What a picture must be, repeatable: a RANK down to which it is named right, original (no copy), "
        "distinct, an expert's filter (FILE.json); none accepts all. Left out: the finest rank, original, distinct."
    ),
]
Tries = Annotated[int, typer.Option(min=1, help="Pictures drawn, at most, for each that is wanted.")]
SetLayout = Annotated[Literal["folder", "webdataset"], typer.Option("--layout", help="Image folder, or tars.")]
CopyAlarms = Annotated[
    float, typer.Option(min=0.0001, max=0.5, help="Share of unseen photographs that may be taken for copies.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and what it costs; draw nothing.")]
Out = Annotated[Path, typer.Option(help="Folder of the set; the same command again goes on.")]


def augment(
    model: Model,
    data: Data,
    license_id: options.LicenseId,
    plan: PlanRule = "balance",
    to: To = None,
    accept: Accept = None,
    extractor: options.Sight = "inception",
    weights: options.SightWeights = None,
    copy_alarms: CopyAlarms = 0.01,
    tries: Tries = 5,
    layout: SetLayout = "folder",
    out: Out = Path("synthetic"),
    root: options.Root = None,
    guidance_scale: options.GuidanceScale = options.GUIDANCE_SCALE,
    guidance_interval: options.GuidanceInterval = options.WHOLE_SCHEDULE,
    contexts: context_options.Captions = None,
    context_scale: context_options.Scale = None,
    sampler: options.SamplerChoice = None,
    num_steps: options.Steps = options.NUM_STEPS,
    batch_size: options.BatchSize = options.BATCH_SIZE,
    seed: Annotated[int, typer.Option(min=0, max=options.MAX_SEED, help="Of the whole set.")] = 0,
    base: options.Base = None,
    engine: options.Engine = "torch",
    device: options.Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Make pictures of species that have few photographs, and keep those that pass: the plan first, then the cost.

    Every refused picture is counted with its reason. Under accelerate launch the processes share the drawing.
    """
    from taxadiffusion.adapter import open_model
    from taxadiffusion.base.device import chosen_device
    from taxadiffusion.base.onnx import only_on_cpu
    from taxadiffusion.dataset import PreparedDataset
    from taxadiffusion.dataset.shards import Shard
    from taxadiffusion.errors import SettingsError
    from taxadiffusion.guidance import Guidance
    from taxadiffusion.pictures.generate import Sampling
    from taxadiffusion.synthetic.augment import Asked, planned
    from taxadiffusion.synthetic.checks import Accepting
    from taxadiffusion.synthetic.making import Making

    if to is not None and plan not in ("balance", "top-up"):
        raise SettingsError("--to N belongs to --plan balance and --plan top-up; a table says its own numbers")
    captions = context_options.contexts_of(contexts, context_scale)
    dataset = PreparedDataset.open(data, root)
    where = str(chosen_device(device, cpu_only=only_on_cpu(engine)))
    adapter = open_model(model, base=base, device=where)
    sampling = Sampling(num_steps, batch_size, sampler, engine)
    making = Making(tries, seed, Guidance(guidance_scale, None, guidance_interval), sampling, captions)
    accepting = Accepting.of(accept or [], adapter.card.ranks, copy_alarms)
    asked = Asked(planned(adapter, dataset, plan, to), making, accepting, extractor, layout, license_id)
    shard = Shard.of_environment()
    if not shard.number:
        _tell_plan(adapter, asked)
    if not dry_run:
        from taxadiffusion.features import open_extractor

        _run(adapter, dataset, asked, out, lambda: open_extractor(extractor, weights, where))


def _tell_plan(adapter: Adapter, asked: Asked) -> None:
    from rich.console import Console
    from rich.table import Table

    from taxadiffusion.synthetic.making import seconds_a_picture

    plan: Plan = asked.plan
    rows = sorted((one for one in plan.wanted if one.pictures), key=lambda one: -one.pictures)
    shown = Table("species", "photographs", "pictures", title=f"plan: {plan.name}", title_justify="left")
    for one in rows[:_MOST_LISTED]:
        shown.add_row(one.taxon.label, str(one.photographs), str(one.pictures))
    console = Console(highlight=False)
    console.print(shown)
    if len(rows) > _MOST_LISTED:
        console.print(f"… and {len(rows) - _MOST_LISTED} more species")
    each = seconds_a_picture(adapter, plan, asked.making)
    tries = asked.making.tries if asked.accepting else 1
    console.print(
        f"{plan.total} pictures of {len(rows)} species: {plan.total} to {plan.total * tries} are drawn, "
        f"about {each:.2g} s each here: {_duration(plan.total * each)} to {_duration(plan.total * tries * each)} "
        "of one such process",
        soft_wrap=True,
    )


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _run(adapter: Adapter, dataset: Any, asked: Asked, out: Path, open_extractor: Any) -> None:
    from taxadiffusion.cli.shown import moving
    from taxadiffusion.dataset.shards import Shard
    from taxadiffusion.synthetic.augment import Watch
    from taxadiffusion.synthetic.augment import augment as make

    with moving("starting", asked.plan.total) as shown:
        watch = Watch(
            shown.say, lambda drawn, accepted, wanted: shown.count(f"{drawn} drawn, accepted", accepted, wanted)
        )
        manifest = make(adapter, dataset, asked, out, open_extractor, Shard.of_environment(), watch)
    if manifest is None:
        return  # the first process tells of all of them
    _tell(manifest, out)


def _tell(manifest: dict[str, Any], out: Path) -> None:
    refused = ", ".join(f"{number} {reason}" for reason, number in manifest["refused"].items())
    typer.echo(f"{manifest['accepted']} of {manifest['wanted']} pictures, of {manifest['drawn']} drawn: {out}")
    typer.echo(f"refused: {refused or 'none'}; which and why: {out / 'verdicts.csv'}")
    short = [one for one in manifest["species"] if one["accepted"] < one["wanted"]]
    if short:
        typer.echo(
            f"{len(short)} species have fewer than planned: --tries was used up; {out / 'manifest.json'} lists them"
        )
