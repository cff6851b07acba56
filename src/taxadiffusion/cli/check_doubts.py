"""What `taxadiffusion check --with MODEL` does: labels against what a model sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from taxadiffusion.cli import options
from taxadiffusion.cli.identify import opened, tell_left_out

_NUM_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """Which photographs, and where the model computes."""

    split: str | None
    limit: int | None
    root: Path | None
    base: str | None
    device: str


def require_labels_alone(words: Sequence[str], *others: object) -> None:
    """Raises `SettingsError` for anything that would be left aside: options of a source, of names, of the report."""
    from taxadiffusion.errors import SettingsError

    if words or any(others):
        told = f" (unknown here: {' '.join(words)})" if words else ""
        raise SettingsError(
            f"--with MODEL compares the labels of a prepared set with what the model sees, nothing else{told}; run "
            "check without it for the rest"
        )


def list_doubts(model: str, source: Path, out: Path, asked: Asked) -> None:
    """Write the table, the most doubtful first, and tell of the first ones."""
    from taxadiffusion.cli.shown import counted
    from taxadiffusion.dataset import PreparedDataset
    from taxadiffusion.evaluate.pictures import unseen_split
    from taxadiffusion.identify.doubts import DOUBTFUL, doubts, write_doubts
    from taxadiffusion.identify.held_out import drawn_rows

    dataset = PreparedDataset.open(source, asked.root)
    rows = drawn_rows(dataset, asked.split or unseen_split(dataset), asked.limit)
    way = (DOUBTFUL, options.MAX_DRAWS, options.BEAM)  # a rival is followed until that is decided
    identifier = opened(model, asked.base, asked.device, way, options.PREDICTIONS)
    left_out: Counter[str] = Counter()
    with counted("photographs", len(rows)) as told:
        journal = out.with_suffix(".jsonl")
        found = list(doubts(identifier, dataset, rows, journal, progress=told, left_out=left_out))
    write_doubts(out, identifier, dataset, found)
    doubted = sorted((one for one in found if one.standard_errors > DOUBTFUL), key=lambda one: -one.standard_errors)
    for one in doubted[:_NUM_SHOWN]:
        label, rival = (identifier.tree.lineage(taxon).label for taxon in (one.label, one.rival))
        file = dataset.record(one.row).path
        typer.echo(f"{file}: {label}? rather {rival} ({one.standard_errors:.1f} standard errors)")
    tell_left_out(left_out)
    typer.echo(f"{len(doubted)} of {len(found)} labels are doubted by more than {DOUBTFUL:g} standard errors: {out}")
