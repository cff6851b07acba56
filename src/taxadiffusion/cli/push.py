"""`taxadiffusion push`: a model, or a folder of generated pictures, to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taxadiffusion.cli import options
from taxadiffusion.cli.paths import text_argument

if TYPE_CHECKING:
    from taxadiffusion.sharing.hub import Destination, Files

Source = Annotated[
    str, typer.Argument(parser=text_argument, help="A model, or a folder of pictures that `generate` made.")
]


def push(
    model: Source,
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the hub.")],
    license_id: options.LicenseId,
    data: Annotated[
        Path | None, typer.Option(help="The prepared data of the training: photographs and licences are counted.")
    ] = None,
    root: options.Root = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="What `evaluate` wrote; left out: evaluation/ beside the model, if there.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Which of the evaluation's methods is this model.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="A folder of this model's pictures for the gallery; left out: some are drawn.")
    ] = None,
    num_pictures: Annotated[int, typer.Option(min=0, max=24, help="Of the gallery, each of another taxon.")] = 4,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Hub id of a data set that it learnt from; repeatable.")
    ] = None,
    with_base: Annotated[bool, typer.Option("--with-base", help="Send the base along too.")] = False,
    private: Annotated[bool, typer.Option("--private", help="A repository that only you see.")] = False,
    update: Annotated[bool, typer.Option("--update", help="The repository is there: add a commit to it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")] = False,
    save: Annotated[Path | None, typer.Option(help="Write it to this new folder; send nothing.")] = None,
    base: options.Base = None,
    device: options.Device = "auto",
) -> None:
    """Share a model or generated pictures on the hub, with the card that it reads. No photograph is ever sent."""
    from rich.console import Console

    from taxadiffusion.sharing.generated_set import is_generated
    from taxadiffusion.sharing.hub import Destination, check_destination

    is_set = is_generated(Path(model))
    to = Destination(repo, "dataset" if is_set else "model", private, update)
    sends = not dry_run and save is None
    if sends:
        check_destination(to)
    console = Console(stderr=True, highlight=False)
    if is_set:
        files = _of_set(Path(model), repo, license_id)
    else:
        from taxadiffusion.sharing.shared_files import Choices, model_files

        chosen = Choices(
            repo, license_id, data, root, evaluation, method, pictures, num_pictures, tuple(dataset or ()), with_base
        )
        with console.status("reading the model") as status:
            files = model_files(model, chosen, base=base, device=device, draw=not dry_run, tell=status.update)
    if sends:
        _send(files, to)
    else:
        _tell(files, to, save)


def _of_set(folder: Path, repo: str, license_id: str) -> Files:
    from datetime import datetime, timezone

    from taxadiffusion.sharing.generated_set import read_generated, set_files

    found = read_generated(folder)
    if found.left_out:
        typer.echo(f"note: {found.left_out} files that the table does not list stay here", err=True)
    return set_files(found, repo=repo, licence=license_id, published=datetime.now(timezone.utc).date())


def _send(files: Files, to: Destination) -> None:
    from taxadiffusion.sharing.hub import size_of, upload

    total = sum(map(size_of, files.values())) / 1e6
    typer.echo(f"sending {len(files)} files, {total:.1f} MB, to the {to.kind} {to.repo}", err=True)
    typer.echo(upload(files, to, f"Upload {len(files)} files with taxadiffusion"))


def _tell(files: Files, to: Destination, save: Path | None) -> None:
    from taxadiffusion.sharing.hub import save_files, size_of

    for name, content in sorted(files.items()):
        typer.echo(f"{size_of(content):>12,}  {name}")
    total = sum(map(size_of, files.values())) / 1e6
    if save is not None:
        save_files(files, save)
    where = f"written to {save}" if save is not None else "nothing was sent"
    typer.echo(f"{len(files)} files, {total:.1f} MB for the {to.kind} {to.repo}; {where}")
