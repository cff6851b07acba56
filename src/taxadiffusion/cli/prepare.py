"""`taxadiffusion prepare`: a source as published becomes a prepared data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taxadiffusion.cli import options
from taxadiffusion.cli.check_report import NAMES_TO_LOOK_AT, WORDS
from taxadiffusion.cli.names_option import Names, split_names

if TYPE_CHECKING:
    from rich.console import Console

    from taxadiffusion.dataset import PrepareProgress, PrepareReport
    from taxadiffusion.dataset.preparation import OnPrepared

_PHASES = {"list": "reading rows", "verify": "checking pictures", "write": "writing"}
_NUM_REASONS_SHOWN = 8


def prepare(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A folder of photographs with metadata, or a source as published.")],
    out: Annotated[Path, typer.Argument(help="Folder to make for the prepared data set.")],
    format: options.Format = None,  # noqa: A002
    ranks: Annotated[str | None, typer.Option(help="Ranks to keep, such as order,family,genus,species.")] = None,
    val_fraction: Annotated[float, typer.Option(help="Share of each taxon's training groups for validation.")] = 0.0,
    max_bad_fraction: Annotated[float, typer.Option(help="Share of rows that may be unusable.")] = 0.01,
    limit: Annotated[int | None, typer.Option(help="Take only the first rows.")] = None,
    fix: options.Fix = None,
    allow_contradictions: Annotated[
        bool, typer.Option("--allow-contradictions", help="Keep contradicting taxa apart instead of stopping.")
    ] = False,
    verify: Annotated[bool, typer.Option(help="Look at every picture.")] = True,
    follow_links: options.FollowLinks = False,
    names: Names = None,
    workers: Annotated[int | None, typer.Option(help="Processes that check pictures; all cores without.")] = None,
) -> None:
    """Check, hash and count every photograph and write a prepared data set. Run again to go on after an interruption.

    Under accelerate launch or torchrun, the processes share the checking of the photographs.

    A format's own options follow as --name value (FishNet: --order-column; folders: --root, --names, --group-column …).
    """
    from rich.console import Console

    from taxadiffusion.cli.check import format_options
    from taxadiffusion.dataset import PrepareSettings, Shard
    from taxadiffusion.dataset import prepare as prepare_dataset

    catalogue, table = split_names(names)
    shard = Shard.of_environment()
    console = Console(stderr=True, highlight=False, quiet=shard.number > 0)
    with _shown(console) as show:
        report = prepare_dataset(
            source,
            out,
            PrepareSettings(
                format=format,
                options={**format_options(context.args), **table},
                ranks=ranks,
                val_fraction=val_fraction,
                max_bad_fraction=max_bad_fraction,
                limit=limit,
                fix=fix,
                allow_contradictions=allow_contradictions,
                verify=verify,
                follow_links=follow_links,
                catalogue=catalogue,
            ),
            num_workers=workers,
            shard=shard,
            on_progress=show,
        )
    show_report(Console(highlight=False, quiet=shard.number > 0), report, out)


@contextmanager
def _shown(console: Console) -> Iterator[OnPrepared]:
    """A bar for each part of the work, from its first news on."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=console) as bars:
        tasks = {
            phase: bars.add_task(words, total=None, start=False, visible=False) for phase, words in _PHASES.items()
        }

        def show(progress: PrepareProgress) -> None:
            task = tasks[progress.phase]
            bars.start_task(task)
            bars.update(task, visible=True, completed=progress.done, total=progress.total)

        yield show


def show_report(console: Console, report: PrepareReport, out: Path) -> None:
    """Print what was prepared and what was left out."""
    from taxadiffusion.readers import left_out
    from taxadiffusion.readers.table import SHORT_ROWS

    splits = ", ".join(f"{count} {split}" for split, count in report.images_per_split.items() if count)
    taxa = ", ".join(f"{count} {rank}" for rank, count in report.taxa_per_rank.items())
    console.print(f"[bold]{out}[/]: {report.images} images ({splits}), taxa: {taxa}", soft_wrap=True)
    facts = {
        "identified only above species": report.images - report.images_at_rank.get("species", report.images),
        "rows that repeat another": report.repeated_rows,
        "files equal to another": report.duplicate_images,
        "black bands or time stamp left out of": report.images_with_content_box,
        **{f"damaged {kind} passed over, pixels whole": n for kind, n in report.damaged_metadata.items()},
        "near-duplicates across splits": report.near_duplicates_across_splits,
        "groups on both sides of a split": report.groups_across_splits,
        "contradictions allowed": report.contradictions_allowed,
        **{WORDS[kind]: count for kind, count in report.reader_counts.items() if kind in NAMES_TO_LOOK_AT},
    }
    short = report.reader_counts.get(SHORT_ROWS, 0)
    for words, count in {**facts, SHORT_ROWS.replace("_", " "): short, **left_out(report.reader_counts)}.items():
        if count:
            console.print(f"  {words}: {count}")
    if report.quarantined:
        console.print(f"  [yellow]quarantined: {report.quarantined} of {report.rows} rows[/] (quarantine.csv)")
        for reason, count in list(report.reasons.items())[:_NUM_REASONS_SHOWN]:
            console.print(f"    {count} × {reason}", markup=False)
