"""`--names` of `check` and `prepare`: an archive of the Catalogue of Life, and the name table of a format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from taxadiffusion.dataset.catalogue_file import OnBytes

Names = Annotated[
    list[Path] | None,
    typer.Option(
        "--names",
        help="An archive of the Catalogue of Life (ColDP or Darwin Core, zip or folder) to read the names against; "
        "or a format's own name table. May be given twice.",
    ),
]


def split_names(names: Sequence[Path] | None) -> tuple[Path | None, dict[str, str]]:
    """(catalogue, options of the format): which of the two each path is, by what it holds. Raises `SettingsError`."""
    from taxadiffusion.dataset.catalogue_file import is_catalogue
    from taxadiffusion.errors import SettingsError

    found = [(path, path.exists() and is_catalogue(path)) for path in names or ()]
    catalogues = [path for path, is_one in found if is_one]
    tables = [path for path, is_one in found if not is_one]
    if len(catalogues) > 1 or len(tables) > 1:
        listed = ", ".join(map(str, catalogues if len(catalogues) > 1 else tables))
        raise SettingsError(f"--names: give one catalogue (NameUsage or Taxon inside) and one table; got {listed}")
    for path in tables:
        if path.is_dir() or path.suffix.lower() == ".zip":
            raise SettingsError(
                f"--names {path}: holds neither NameUsage.tsv (ColDP) nor Taxon.tsv (Darwin Core), by which a "
                "catalogue's archive is known"
            )
    return (catalogues[0] if catalogues else None), ({"names": str(tables[0])} if tables else {})


@contextmanager
def catalogue_progress(catalogue: Path | None) -> Iterator[OnBytes | None]:
    """A bar over the bytes of the archive's table, each time it is read."""
    if catalogue is None:
        yield None
        return
    from taxadiffusion.cli.shown import counted

    with counted(f"reading {catalogue.name}, MB", 0) as told:
        yield lambda done, total: told(done >> 20, total >> 20)
