"""What `taxadiffusion generate --accept FILTER` does: pictures that a filter lets pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from taxadiffusion.adapter import Adapter
    from taxadiffusion.evaluate.accepted import Accepting
    from taxadiffusion.names import Lineage
    from taxadiffusion.pictures.generate import Generated, Sampling
    from taxadiffusion.pictures.sign import Signer
    from taxadiffusion.sampler import Request

_NUM_SHOWN = 10


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn, beside their taxon and seed."""

    adapter: Adapter
    requests: Sequence[Request]
    """Every taxon with every seed, taxon by taxon."""
    sampling: Sampling
    notes: dict[Lineage, str]
    signer: Signer | None

    @cached_property
    def by_taxon(self) -> dict[Lineage, Request]:
        """One request of each taxon."""
        return {request.lineage: request for request in self.requests}

    def request(self, taxon: Lineage, seed: int) -> Request:
        """As the taxon's others, with this seed."""
        return replace(self.by_taxon[taxon], seed=seed)


def opened_filter(
    file: Path | None, extractor: list[str] | None, weights: list[Path] | None, tries: int, device: str
) -> Accepting | None:
    """The filter with its network; one that is not given is the filter's own where that has a name. None without."""
    from taxadiffusion.cli.review import one_extractor
    from taxadiffusion.dataset.shards import Shard
    from taxadiffusion.errors import SettingsError
    from taxadiffusion.evaluate.accepted import Accepting
    from taxadiffusion.evaluate.filter import Filter

    if file is None:
        if extractor or weights:
            raise SettingsError("--extractor and --weights are for --accept FILTER")
        return None
    if Shard.of_environment().count > 1:
        raise SettingsError("--accept judges pictures as they come, so it runs in one process, not under a launcher")
    known = Filter.read(file)
    if extractor is None and known.extractor.startswith("onnx"):
        raise SettingsError(f"{file}: reads features of {known.extractor}; give it with --extractor onnx:FILE")
    return Accepting(known, one_extractor(extractor or [known.extractor], weights, device), tries)


def draw_accepted(drawing: Drawing, seeds: range, out: Path, accepting: Accepting) -> None:
    """Draw, judge, and tell of what was refused."""
    from taxadiffusion.cli.shown import working
    from taxadiffusion.evaluate.accepted import CANDIDATES, accepted
    from taxadiffusion.pictures.generate import generate

    with working() as told:

        def make(requests: Sequence[Request], folder: Path) -> list[Generated]:
            made: list[Generated] = []
            for picture in generate(
                drawing.adapter, requests, folder, drawing.sampling, notes=drawing.notes, signer=drawing.signer
            ):
                made.append(picture)
                told(f"{len(made)} of {len(requests)} candidates of this round")
            return made

        found = accepted(
            make,
            drawing.request,
            list(drawing.by_taxon),
            seeds,
            out,
            accepting,
        )
    passed = {taxon: found.drawn[taxon] - found.refused[taxon] for taxon in drawing.by_taxon}
    short = [taxon for taxon in drawing.by_taxon if passed[taxon] < len(seeds)]
    refused = sum(found.refused.values())
    typer.echo(f"{len(found.pictures)} pictures accepted, {refused} refused by the filter: {out}/metadata.csv")
    typer.echo(f"all that was drawn: {out}{CANDIDATES}")
    for taxon in short[:_NUM_SHOWN]:
        typer.echo(f"too few: {taxon.label} has {passed[taxon]} of {len(seeds)} after {found.drawn[taxon]} drawn")
    if len(short) > _NUM_SHOWN:
        typer.echo(f"too few: {len(short) - _NUM_SHOWN} more taxa")
