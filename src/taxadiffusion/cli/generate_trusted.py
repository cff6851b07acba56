"""What `taxadiffusion generate` says of trust, and how `--trusted` backs off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from taxadiffusion.adapter import Adapter
    from taxadiffusion.names import Lineage, Rank

_NUM_SHOWN = 10


def trusted_lineages(
    adapter: Adapter, lineages: Sequence[Lineage], notes: dict[Lineage, str], asked: float | None
) -> list[Lineage]:
    """What is drawn: as it was asked for, or with --trusted cut at the rank that carries it, which its pictures note.

    Without the model's file nothing is known, and with --trusted that is a `CheckpointError`. Raises `DataError` for a
    taxon that is trusted at no rank.
    """
    from taxadiffusion.errors import CheckpointError, DataError
    from taxadiffusion.pictures.trusted import TRUSTED, USUAL_ERROR, Trusted

    path = Path(adapter.path) / TRUSTED
    if asked is None and not path.is_file():
        return list(lineages)
    known = Trusted.read(path)
    if known.model_sha256 != adapter.card.content_hash:
        if asked is not None:
            raise CheckpointError(f"{path}: was made for another model; make it anew with `taxadiffusion trust`")
        typer.echo(f"note: {path} was made for another model, so nothing is said of trust", err=True)
        return list(lineages)
    if asked is None:
        _tell(lineages, known.depths(USUAL_ERROR), f"{1 - USUAL_ERROR:.0%}")
        return list(lineages)
    depths = known.depths(1 - asked)
    drawn = []
    for lineage in lineages:
        if lineage not in depths:
            typer.echo(f"note: {lineage.label} was not judged; it is drawn as asked", err=True)
            drawn.append(lineage)
            continue
        rank = depths[lineage]
        if rank is None:
            raise DataError(f"{lineage.label}: its pictures are trusted at no rank at {asked:.0%}; ask for less")
        cut = lineage.truncated(rank)
        if cut != lineage:
            note = f"{lineage.label} is trusted to {rank} at {asked:.0%}"
            typer.echo(f"note: {note}; {cut.label} is drawn", err=True)
            notes[cut] = "; ".join([*([notes[cut]] if cut in notes else []), note])
        drawn.append(cut)
    return list(dict.fromkeys(drawn))


def _tell(lineages: Sequence[Lineage], depths: Mapping[Lineage, Rank | None], level: str) -> None:
    """Of a few taxa each, of many the numbers."""
    judged = [lineage for lineage in lineages if lineage in depths]
    if len(judged) <= _NUM_SHOWN:
        for lineage in judged:
            typer.echo(f"{lineage.label}: trusted to {depths[lineage] or 'no rank'} at {level}", err=True)
        return
    for rank, number in Counter(depths[lineage] for lineage in judged).items():
        typer.echo(f"{number} taxa: trusted to {rank or 'no rank'} at {level}", err=True)
