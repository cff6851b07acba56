"""`taxadiffusion trust`: to which rank each taxon's pictures may be trusted."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taxadiffusion.cli import options
from taxadiffusion.cli.paths import text_argument

if TYPE_CHECKING:
    from taxadiffusion.pictures.trusted import Trusted

Model = Annotated[str, typer.Argument(parser=text_argument, help="The model that made the pictures.")]


def trust(
    model: Model,
    folder: Annotated[Path, typer.Argument(help="Its pictures of every species, as `generate --all-species` writes.")],
    data: Annotated[Path, typer.Option("--data", help="The prepared set whose photographs teach the judge.")],
    root: options.Root = None,
    out: Annotated[Path | None, typer.Option(help="The file; none: trusted.json beside the model.")] = None,
    extractor: options.Extractor = None,
    weights: options.Weights = None,
    size_px: options.OwnSizePx = None,
    device: options.Device = "auto",
) -> None:
    """Judge a model's pictures and say, for every taxon, the finest rank at which they are right at a stated error.

    `generate` then says it of what it draws, and `generate --trusted 0.9` backs off to that rank.
    """
    from taxadiffusion.adapter import find_adapter, read_card
    from taxadiffusion.cli.review import one_extractor
    from taxadiffusion.cli.shown import counted
    from taxadiffusion.dataset import PreparedDataset
    from taxadiffusion.errors import DataError
    from taxadiffusion.evaluate.extraction import FeatureStore
    from taxadiffusion.evaluate.naming import Namer
    from taxadiffusion.evaluate.pictures import generated_folder, photographs
    from taxadiffusion.pictures.trusted import TRUSTED, Trusted, judged_taxa

    path, _ = find_adapter(model)
    card = read_card(path)
    dataset = PreparedDataset.open(data, root)
    pictures = generated_folder(folder, card.ranks)
    _require_made_by(folder, card.content_hash)
    network = one_extractor(extractor, weights, device)
    side = size_px or card.image_size_px
    train = photographs(dataset, "train", card.ranks)
    lineages = [lineage.only(card.ranks) for lineage in train.lineages]
    with counted("photographs looked at", len(train)) as told:
        seen = FeatureStore(None, with_data=True).features(train, network, side, told)
    namer = Namer.fit(seen, lineages, train.groups)
    with counted("pictures looked at", len(pictures)) as told:
        named = namer(pictures.features(network, side, told))
    taxa, left_out = judged_taxa(pictures.lineages, named, namer.known, card.ranks)
    if not taxa:
        raise DataError(f"{folder}: no taxon has two pictures of rank {card.ranks[-1]} that the judge can name")
    judge = f"{namer.kind} on {network.name}, {len(train)} photographs of {dataset.path.name}"
    found = Trusted(model_sha256=card.content_hash, judge=judge, ranks=list(card.ranks), taxa=taxa)
    file = out or path / TRUSTED
    found.write(file)
    _tell(found)
    for reason, number in sorted(left_out.items()):
        typer.echo(f"left out: {number} pictures (each {reason})")
    typer.echo(f"written: {file}")


def _require_made_by(folder: Path, model_sha256: str) -> None:
    from taxadiffusion.errors import SettingsError

    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        makers = {row.get("model_sha256", "") for row in csv.DictReader(stream)}
    if makers != {model_sha256}:
        raise SettingsError(f"{folder}: its pictures were made by another model; give that one, or draw anew")


def _tell(found: Trusted) -> None:
    for trusted in (0.8, 0.9, 0.95):
        depths = Counter(found.depths(1 - trusted).values())
        told = ", ".join(f"{depths[rank]} to {rank}" for rank in reversed(found.ranks) if depths[rank])
        nothing = f"{depths[None]} to none" if depths[None] else ""
        typer.echo(f"trusted at {trusted:.0%}: {', '.join(part for part in (told, nothing) if part)}")
