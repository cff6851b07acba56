"""`taxadiffusion runs`: the runs below a folder, and in what two of them differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from taxadiffusion.run.overview import RunSummary


def runs(
    folder: Annotated[Path, typer.Argument(help="Where the runs are; folders below it are looked into, four deep.")],
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Two of them, as they are listed (or paths): the settings that differ."),
    ] = None,
) -> None:
    """List runs: stage, step, loss, last commit, size, and whether one is running. Nothing is changed."""
    from rich.console import Console

    from taxadiffusion.run.overview import differences, find_runs

    console = Console(highlight=False)
    if compare is None:
        _show(console, folder, find_runs(folder))
        return
    one, other = (path if path.is_dir() and not (folder / path).is_dir() else folder / path for path in compare)
    found = differences(one, other)
    if not found:
        typer.echo("the settings that decide the weights are equal, and so are data, taxonomy and base")
        return
    for key, (mine, theirs) in found.items():
        typer.echo(f"{key}: {_value(mine)} | {_value(theirs)}")


def _show(console: Console, folder: Path, found: list[RunSummary]) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not found:
        typer.echo(f"no run in {folder} or up to four folders below it")
        return
    table = Table("run", "stage", "step", "loss", "last commit", "size", "now")
    for run in found:
        table.add_row(
            escape(str(run.path.relative_to(folder))),
            escape(run.stage or "–"),
            "–" if run.step is None else f"{run.step:,}",
            "–" if run.loss is None else f"{run.loss:.4f}",
            "–" if run.committed_at is None else f"{run.committed_at.astimezone():%Y-%m-%d %H:%M}",
            f"{run.size_bytes / 1e6:,.1f} MB",
            _state(run),
        )
    console.print(table)
    for run in found:
        for fault in run.faults:
            typer.echo(f"warning: {fault}")


def _state(run: RunSummary) -> str:
    if run.running:
        return "running"
    if run.stage == "finished":
        return "model there" if run.has_adapter else "finished, no model"
    if run.step is None:
        return "damaged" if run.faults else "no commit"
    return "stopped"


def _value(value: Any) -> str:
    import json

    return "–" if value is None else json.dumps(value, ensure_ascii=False)
