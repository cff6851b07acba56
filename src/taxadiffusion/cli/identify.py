"""`taxadiffusion identify`: what a photograph shows, by the loss of a model under each taxon's condition."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taxadiffusion.cli import options
from taxadiffusion.cli.paths import text_argument

if TYPE_CHECKING:
    from taxadiffusion.identify.calibration import Calibration
    from taxadiffusion.identify.identifier import Answer, Identifier
    from taxadiffusion.identify.placements import Preference

Model = Annotated[
    str,
    typer.Argument(
        parser=text_argument, help="What is asked: a model's directory, a hub id, `reef-fish` or `butterflies`."
    ),
]
Photographs = Annotated[list[Path] | None, typer.Argument(help="Files of photographs.")]
Calibrate = Annotated[
    Path | None, typer.Option(help="A prepared set: learn from its photographs what evidence is worth.")
]
Compare = Annotated[
    Path | None,
    typer.Option(help="Another classification (prepared set or CSV): which place explains --data's photographs?"),
]
Data = Annotated[Path | None, typer.Option("--data", help="The prepared set whose photographs --compare looks at.")]
CalibrationFile = Annotated[Path | None, typer.Option(help="Where the calibration is; none: beside the model.")]
Least = Annotated[float, typer.Option(min=0, max=1, help="Probability down to which a name is carried.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write every name with its evidence to this file.")]


def identify(
    model: Model,
    photographs: Photographs = None,
    calibrate: Calibrate = None,
    compare: Compare = None,
    data: Data = None,
    split: options.HeldOutSplit = None,
    limit: options.Limit = None,
    root: options.Root = None,
    least: Least = 0.8,
    max_draws: options.MaxDraws = options.MAX_DRAWS,
    beam: options.Beam = options.BEAM,
    separation: options.Separation = options.SEPARATION,
    calibration: CalibrationFile = None,
    json_path: JsonFile = None,
    base: options.Base = None,
    batch_size: options.Predictions = options.PREDICTIONS,
    device: options.Device = "auto",
) -> None:
    """Name photographs with a model that makes them, down to the rank that the evidence carries.

    --calibrate and --compare look at a prepared set instead; an interrupted --calibrate goes on.
    """
    from taxadiffusion.errors import SettingsError

    if sum(map(bool, (photographs, calibrate, compare))) != 1:
        raise SettingsError("give photographs, or --calibrate PREPARED, or --compare OTHER with --data PREPARED")
    if (compare is None) != (data is None):
        raise SettingsError("--compare OTHER and --data PREPARED go together: give both, or neither")
    if photographs and (split or limit or root):
        raise SettingsError("--split, --limit and --root are of a prepared set: for --calibrate and --compare")
    if calibration is not None and compare is not None:
        raise SettingsError("--compare gives no probability, so it takes no --calibration")
    identifier = opened(model, base, device, (separation, max_draws, beam), batch_size)
    if compare is not None and data is not None:
        _compared(identifier, compare, data, root, split, limit)
        return
    from taxadiffusion.identify.calibration import CALIBRATION

    file = calibration or identifier.adapter.path / CALIBRATION
    if calibrate is not None:
        _calibrated(identifier, calibrate, root, split, limit, file)
    else:
        _named(identifier, photographs or [], file, calibration is not None, least, json_path)


def opened(model: str, base: str | None, device: str, way: tuple[float, int, int], batch_size: int) -> Identifier:
    """The model, ready to name photographs. way: separation, most draws, beam."""
    from taxadiffusion.adapter import open_model
    from taxadiffusion.base.device import chosen_device, described
    from taxadiffusion.identify.identifier import Identifier
    from taxadiffusion.identify.walk import WalkSettings

    where = chosen_device(device)
    separation, most, beam = way
    settings = WalkSettings(separation, (min(8, most), most), beam)
    adapter = open_model(model, base=base, device=where)
    typer.echo(f"on {described(where)}", err=True)
    return Identifier(adapter, settings, batch_size=batch_size)


def _calibrated(
    identifier: Identifier, prepared: Path, root: Path | None, split: str | None, limit: int | None, file: Path
) -> None:
    from taxadiffusion.cli.shown import counted
    from taxadiffusion.dataset import PreparedDataset
    from taxadiffusion.evaluate.pictures import unseen_split
    from taxadiffusion.identify.held_out import calibrated, drawn_rows, judged

    dataset = PreparedDataset.open(prepared, root)
    chosen = split or ("val" if len(dataset.rows("val")) else unseen_split(dataset))
    rows = drawn_rows(dataset, chosen, limit)
    left_out: Counter[str] = Counter()
    with counted("photographs", len(rows)) as told:
        found = list(judged(identifier, dataset, rows, file.with_suffix(".jsonl"), told, left_out))
    words = f"{len(found)} of {dataset.path.name}, split {chosen}"
    fitted = calibrated(identifier, found, words)
    fitted.write(file)
    for rank, one in fitted.ranks.items():
        typer.echo(f"{rank}: {one.num_right} of {one.num_images} right where the name above is")
    tell_left_out(left_out)
    typer.echo(f"calibration: {file}")


def _named(
    identifier: Identifier, files: list[Path], calibration: Path, asked: bool, least: float, json_path: Path | None
) -> None:
    identifier.calibration = _calibration(identifier, calibration, asked)
    if identifier.calibration is None:
        typer.echo(
            "uncalibrated: no probabilities, names go down while each is separated; fit them with --calibrate PREPARED",
            err=True,
        )
    images = [(file, identifier.load(file)) for file in files]  # a file that cannot be read fails before any work
    entries = []
    with identifier.at_work():
        for file, image in images:
            answer = identifier(image)
            carried = answer.carried(least, identifier.settings.separation)
            typer.echo(f"{file}: {carried if carried else 'no rank is carried'}")
            for line in _lines(answer, len(carried.ranks)):
                typer.echo(line)
            entries.append({"file": str(file), "carried": dict(carried.names), **_document(answer)})
    if json_path is not None:
        json_path.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _calibration(identifier: Identifier, file: Path, asked: bool) -> Calibration | None:
    """The one that was asked for, or lies beside the model. That one, made with other options, is said and left."""
    from taxadiffusion.errors import CheckpointError
    from taxadiffusion.identify.calibration import Calibration

    if not asked and not file.is_file():
        return None
    known = Calibration.read(file)
    try:
        known.require(file, identifier.adapter.card.content_hash, identifier.way)
    except CheckpointError as error:
        if asked:
            raise
        typer.echo(f"note: {error}", err=True)
        return None
    return known


def _lines(answer: Answer, num_carried: int) -> list[str]:
    lines = []
    for number, named in enumerate(answer.names):
        sure = "uncalibrated" if named.probability is None else f"probability {named.probability:.2f}"
        found = named.evidence
        ahead = "no rival" if found.rival is None else (
            f"{found.standard_errors:+.1f} standard errors ahead of the next of {found.num_candidates}, "
            f"{found.num_draws} noises"
        )  # fmt: skip
        lines.append(f"  {named.rank} {named.name}{'' if number < num_carried else '?'}: {sure}; {ahead}")
    lines.append(f"  {answer.num_predictions} predictions, {answer.seconds:.1f} s")
    return lines


def _document(answer: Answer) -> dict[str, Any]:
    return {
        "names": [
            {
                "rank": named.rank,
                "name": named.name,
                "probability": named.probability,
                "standard_errors": named.evidence.standard_errors if named.evidence.rival is not None else None,
                "candidates": named.evidence.num_candidates,
                "draws": named.evidence.num_draws,
            }
            for named in answer.names
        ],
        "predictions": answer.num_predictions,
        "seconds": answer.seconds,
    }


def _compared(
    identifier: Identifier, other: Path, data: Path, root: Path | None, split: str | None, limit: int | None
) -> None:
    from taxadiffusion.cli.shown import counted
    from taxadiffusion.dataset import PreparedDataset
    from taxadiffusion.errors import DataError
    from taxadiffusion.evaluate.pictures import unseen_split
    from taxadiffusion.identify.held_out import drawn_rows
    from taxadiffusion.identify.placements import moves, preferences, read_classification

    dataset = PreparedDataset.open(data, root)
    classification = read_classification(other)
    rows = drawn_rows(dataset, split or unseen_split(dataset), limit)
    moved = moves((dataset.lineage(row) for row in rows), classification, identifier.tree.ranks)
    if not moved:
        raise DataError(f"{other}: places no taxon of these photographs otherwise than {data}; nothing to compare")
    asked = [row for row in rows if dataset.lineage(row) in moved]
    left_out: Counter[str] = Counter()
    with counted("photographs", len(asked)) as told:
        found = preferences(identifier, dataset, asked, moved, told, left_out)
    for one in found:
        _tell_preference(one)
    tell_left_out(left_out)


def _tell_preference(found: Preference) -> None:
    move, gain = found.move, found.gain
    verdict = {"own": move.own.label, "other": move.other.label}.get(found.verdict, "undecided")
    typer.echo(f"{move.taxon}, {move.own} or {move.other}: {verdict}")
    typer.echo(
        f"  loss smaller by {gain.mean:+.2%} [{gain.low:+.2%}, {gain.high:+.2%}] under {move.own.label}; "
        f"{found.num_images} photographs of {found.num_species} species"
    )
    if found.learnt:
        typer.echo(
            f"  note: the model learnt {move.taxon} under {move.own.label}, which favours that place; ask one trained "
            f"without {move.taxon}"
        )


def tell_left_out(left_out: Counter[str]) -> None:
    """How many photographs were not judged, by reason."""
    for reason, number in sorted(left_out.items()):
        typer.echo(f"left out: {number} photographs ({reason})")
