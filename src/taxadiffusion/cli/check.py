"""`taxadiffusion check`: what a data set holds and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taxadiffusion.cli import options
from taxadiffusion.cli.check_doubts import Asked, list_doubts, require_labels_alone
from taxadiffusion.cli.names_option import Names, catalogue_progress, split_names
from taxadiffusion.cli.paths import text_argument

if TYPE_CHECKING:
    from taxadiffusion.dataset.check import CheckReport

WithModel = Annotated[
    str | None,
    typer.Option("--with", parser=text_argument, help="A model: list the photographs whose label it doubts."),
]
Doubts = Annotated[Path, typer.Option(help="The table of --with; the same command again goes on.")]


def check(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A source as published, or a prepared data set.")],
    format: options.Format = None,  # noqa: A002
    tables_only: Annotated[
        bool, typer.Option("--tables-only", help="Read the tables; look for no photograph.")
    ] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the whole report to this file.")] = None,
    synonyms: Annotated[Path | None, typer.Option(help="A table with the columns synonym and accepted.")] = None,
    fix: options.Fix = None,
    follow_links: options.FollowLinks = False,
    names: Names = None,
    rules: Annotated[
        Path | None, typer.Option(help="Write rules for --fix that give synonyms of the --names catalogue their names.")
    ] = None,
    with_model: WithModel = None,
    doubts: Doubts = Path("doubts.csv"),
    split: options.HeldOutSplit = None,
    limit: options.Limit = None,
    root: options.Root = None,
    base: options.Base = None,
    device: options.Device = "auto",
) -> None:
    """Report what a taxonomist should know before training: taxa, contradictions, homonyms, spellings, gaps, licences.

    With --names, every name is read against the Catalogue of Life: accepted, synonym, doubtful or unknown.

    With --with MODEL, SOURCE is a prepared set, and its labels are compared with what the model sees, nothing else.

    A format's own options follow as --name value (FishNet: --order-column, --box-policy …). Contradictions: exit 3.
    """
    from taxadiffusion.dataset.inspect import CheckSettings, inspect_source
    from taxadiffusion.errors import SettingsError

    if with_model is not None:
        require_labels_alone(context.args, format, synonyms, fix, names, rules, json_path)
        list_doubts(with_model, source, doubts, Asked(split, limit, root, base, device))
        return
    given = _source_options(context.args, root, split, limit, base)
    catalogue, table = split_names(names)
    if rules is not None and catalogue is None:
        raise SettingsError("--rules are made of what a catalogue says: give its archive with --names")
    with catalogue_progress(catalogue) as on_bytes:
        report = inspect_source(
            source,
            CheckSettings(
                format=format,
                options={**given, **table},
                tables_only=tables_only,
                synonyms=synonyms,
                fix=fix,
                follow_links=follow_links,
                catalogue=catalogue,
            ),
            on_bytes=on_bytes,
        )
    _tell(report, rules, json_path)


def _source_options(
    words: Sequence[str], root: Path | None, split: str | None, limit: int | None, base: str | None
) -> dict[str, str]:
    """Those of the source's format; one of them is called as the folder of a prepared set's photographs is."""
    from taxadiffusion.errors import SettingsError

    if split or limit or base:
        raise SettingsError("--split, --limit and --base are for --with MODEL")
    return format_options(words) | ({"root": str(root)} if root else {})


def _tell(report: CheckReport, rules: Path | None, json_path: Path | None) -> None:
    """Print it, and write what was asked for. Exit 3 with contradictions."""
    from rich.console import Console

    from taxadiffusion.cli.check_report import show
    from taxadiffusion.dataset.catalogue import rules_of

    if rules is not None and report.catalogue is not None:
        rules.write_text(rules_of(report.catalogue), encoding="utf-8")
    if json_path is not None:
        json_path.write_text(json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    console = Console(highlight=False)
    show(console, report)
    if report.contradictions:
        console.print(
            f"\n[bold]{report.contradictions} contradictions.[/] Repair the source, or write rules for --fix."
        )
        raise typer.Exit(3)


def format_options(arguments: Sequence[str]) -> dict[str, str]:
    """["--order-column", "Order"] and ["--order-column=Order"] → {"order_column": "Order"}."""
    from taxadiffusion.errors import SettingsError

    options = {}
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for key, value in zip(words[::2], words[1::2], strict=False):
        if not key.startswith("--"):
            break
        options[key.removeprefix("--").replace("-", "_")] = text_argument(value)
    if len(options) * 2 != len(words):
        raise SettingsError(f"cannot read {' '.join(arguments)!r}: a format's options are written --name value")
    return options
