"""`taxadiffusion utility`: does a synthetic set help a classifier?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from taxadiffusion.cli import options

if TYPE_CHECKING:
    from taxadiffusion.synthetic.sources import Sources
    from taxadiffusion.synthetic.utility import Comparison

Real = Annotated[Path, typer.Option("--real", help="The prepared data set of the photographs.")]
Synthetic = Annotated[
    list[str],
    typer.Option("--synthetic", help="Folder that augment or generate wrote; NAME=FOLDER names it; repeatable."),
]
Classifier = Annotated[Literal["both", "probe", "network"], typer.Option(help="What is trained, in every row.")]
Out = Annotated[Path, typer.Option(help="Where trainings and report go; the same command again goes on.")]
NetworkSteps = Annotated[int, typer.Option(min=1, help="Training steps of the small network, the same for every row.")]
Rare = Annotated[int, typer.Option(min=1, help="Training photographs up to which a species counts as rare.")]
LeftOutAlarms = Annotated[
    float, typer.Option(min=0.0001, max=0.5, help="Share of left-out photographs that may be taken for copies.")
]


def utility(
    real: Real,
    synthetic: Synthetic,
    root: options.Root = None,
    out: Out = Path("utility"),
    extractor: options.Sight = "inception",
    weights: options.SightWeights = None,
    classifier: Classifier = "both",
    folds: Annotated[int, typer.Option(min=2, help="Parts of the training photographs, each left out in turn.")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each row and fold.")] = 2,
    network_steps: NetworkSteps = 1000,
    rare: Rare = 10,
    size_px: options.SizePx = options.SIZE_PX,
    copy_alarms: LeftOutAlarms = 0.01,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of folds, drawings and trainings.")] = 0,
    device: options.Device = "auto",
) -> None:
    """Train classifiers with and without synthetic pictures, and say whether these help, whom, and whom they hurt.

    Published test and judge splits judge every row. Within a fold, filters see the photographs of that fold alone.
    Under accelerate launch the processes share the trainings.
    """
    from taxadiffusion.base.device import chosen_device
    from taxadiffusion.cli.shown import working
    from taxadiffusion.dataset import PreparedDataset
    from taxadiffusion.errors import SettingsError
    from taxadiffusion.features import CachedExtractor, open_extractor
    from taxadiffusion.synthetic.checks import sight
    from taxadiffusion.synthetic.classifiers import NetworkSettings
    from taxadiffusion.synthetic.sources import read_sources
    from taxadiffusion.synthetic.utility import Comparison

    sets = [_named(entry) for entry in synthetic]
    if len({name for name, _ in sets}) < len(sets):
        raise SettingsError("--synthetic: two sets have one name; write NAME=FOLDER")
    where = str(chosen_device(device))
    comparison = Comparison(
        folds,
        seeds,
        ("probe", "network") if classifier == "both" else (classifier,),
        NetworkSettings(network_steps, device=where),
        copy_alarms,
        seed,
    )
    dataset = PreparedDataset.open(real, root)
    by = sight(CachedExtractor(open_extractor(extractor, weights, where), out / "features"), out / "features", size_px)
    with working() as told:
        sources = read_sources(dataset, sets, by, told)
    _run(sources, comparison, by.extractor, out, rare, {"dataset": dataset.path.name, "extractor": by.extractor.name})


def _run(
    sources: Sources, comparison: Comparison, extractor: Any, out: Path, rare: int, facts_of: dict[str, Any]
) -> None:
    from taxadiffusion.cli.shown import counted
    from taxadiffusion.dataset.shards import Shard
    from taxadiffusion.report.command import command_line
    from taxadiffusion.report.utility import RECOMMENDED, verdict_words, write_utility
    from taxadiffusion.synthetic.gain import gains, recommended
    from taxadiffusion.synthetic.utility import Trainings

    shard = Shard.of_environment()
    trainings = Trainings(sources, comparison, extractor, out / "trainings")
    with counted("trainings", len(trainings.cells)) as told:
        found = trainings.run(shard, told)
    if shard.number:
        return  # the first process tells of all of them
    gained = gains(sources, comparison, found, rare)
    write_utility(gained, sources, comparison, trainings.refused(), out, command_line(sys.argv[1:]), facts_of)
    plan = recommended(gained, sources)
    (out / RECOMMENDED).unlink(missing_ok=True)
    if plan:
        plan.write(out / RECOMMENDED)
    typer.echo(verdict_words(gained, comparison))
    typer.echo(f"{out / 'report.html'}, report.md, results.json" + (f", {RECOMMENDED}" if plan else ""))


def _named(entry: str) -> tuple[str, Path]:
    from taxadiffusion.errors import SettingsError
    from taxadiffusion.files import user_path

    name, separator, path = entry.partition("=")
    if not separator:
        name, path = Path(entry).resolve().name, entry
    if not name or not path:
        raise SettingsError(f"--synthetic {entry!r}: give FOLDER or NAME=FOLDER")
    try:
        return name, user_path(path)
    except ValueError as error:
        raise SettingsError(f"--synthetic {entry!r}: {error}") from error
