"""`taxadiffusion review`: an expert judges generated pictures on an offline page; a filter is learnt from that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taxadiffusion.cli import options

if TYPE_CHECKING:
    from taxadiffusion.evaluate.pictures import Pictures
    from taxadiffusion.features import Extractor as Network

Pairs = Annotated[
    Path | None, typer.Option(help="A prepared set: each picture beside a photograph of its taxon, which is which?")
]


def review(
    folder: Annotated[Path, typer.Argument(help="A folder of pictures that `generate` wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="The page, or with --learn the filter; none: review.html, filter.json.")
    ] = None,
    pairs: Pairs = None,
    root: options.Root = None,
    num_pictures: Annotated[int, typer.Option(min=1, help="Pictures of the page, drawn evenly over taxa.")] = 200,
    seed: Annotated[int, typer.Option(min=0, max=options.MAX_SEED, help="Of what the page shows.")] = 0,
    learn: Annotated[Path | None, typer.Option(help="The table that the page saved: fit a filter on it.")] = None,
    extractor: options.Extractor = None,
    weights: options.Weights = None,
    size_px: options.OwnSizePx = None,
    device: options.Device = "auto",
) -> None:
    """Write a page on which an expert judges pictures by keyboard; with --learn, fit a filter on the judgements.

    The page is one file, needs no network and sends nothing. The filter is for `generate --accept`.
    """
    from taxadiffusion.errors import SettingsError
    from taxadiffusion.evaluate.pictures import generated_folder, side_px
    from taxadiffusion.names import RANKS

    if learn is None and (extractor or weights):
        raise SettingsError("--extractor and --weights are for --learn JUDGEMENTS.csv")
    if learn is not None and pairs is not None:
        raise SettingsError("--pairs is for the page, and --learn reads what it saved: give one of them")
    pictures = generated_folder(folder, RANKS)
    if learn is not None:
        network = one_extractor(extractor, weights, device)
        _learnt(folder, pictures, learn, network, size_px or side_px(pictures), out or Path("filter.json"))
        return
    from taxadiffusion.report.review import write_review

    path = out or Path("review.html")
    page = write_review(path, folder, pictures, num_pictures, _photographs(pairs, root), seed)
    typer.echo(f"{page.num_pictures} pictures to judge: {path}")
    if page.left_out:
        typer.echo(f"left out: {page.left_out} pictures (no photograph of their taxon)")
    if pairs is not None:
        typer.echo("note: the page holds photographs of the data set; their licences say who may see it")


def one_extractor(names: list[str] | None, weights: list[Path] | None, device: str) -> Network:
    """The one network that is asked for. Raises `SettingsError` for several."""
    from taxadiffusion.base.device import chosen_device
    from taxadiffusion.errors import SettingsError
    from taxadiffusion.features import open_extractor

    if len(names or []) > 1 or len(weights or []) > 1:
        raise SettingsError("a filter reads the features of one network: give one --extractor")
    return open_extractor((names or ["inception"])[0], weights[0] if weights else None, str(chosen_device(device)))


def _photographs(prepared: Path | None, root: Path | None) -> Pictures | None:
    if prepared is None:
        return None
    from taxadiffusion.dataset import PreparedDataset
    from taxadiffusion.evaluate.pictures import photographs, unseen_split

    dataset = PreparedDataset.open(prepared, root)
    return photographs(dataset, unseen_split(dataset), dataset.ranks)


def _learnt(folder: Path, pictures: Pictures, table: Path, network: Network, size_px: int, out: Path) -> None:
    from taxadiffusion.cli.shown import counted
    from taxadiffusion.evaluate.filter import fit_filter
    from taxadiffusion.evaluate.judgements import read_judgements

    judged = read_judgements(table, pictures, folder)
    chosen = pictures.select(judged.positions)
    with counted("judged pictures looked at", len(chosen)) as told:
        features = chosen.features(network, size_px, told)
    found = fit_filter(features, judged.passed, chosen.lineages, network, size_px)
    found.write(out)
    agreement = found.agreement
    what = "taken for photographs" if judged.fooled else "passed"
    typer.echo(f"{found.num_passed} pictures {what}, {found.num_failed} did not, {judged.undecided} left undecided")
    typer.echo(
        f"agrees with the expert on {agreement.share:.0%} [{agreement.low:.0%}, {agreement.high:.0%}] of pictures that "
        f"it did not see; always saying the commoner would on {agreement.commoner:.0%}"
    )
    if agreement.low <= agreement.commoner:
        typer.echo("note: that is not surely better than knowing nothing; judge more pictures before you rely on it")
    typer.echo(f"filter: {out}")
