"""Common names and synonyms of a tree's taxa, from a table of `taxon,name,kind`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from taxadiffusion.errors import DataError
from taxadiffusion.names import folded_spelling
from taxadiffusion.taxonomy.find import find_taxon
from taxadiffusion.taxonomy.tree import Taxonomy

NAMES = "names.csv"
"""The table beside a model, where there is one."""
COLUMNS = ("taxon", "name", "kind")
_MAX_BYTES = 1 << 26
_MAX_LETTERS = 200
"""Of a name: a stranger's table may hold anything."""


@dataclass(frozen=True, slots=True)
class OtherName:
    """A common name or a synonym of a taxon, by its number in the tree; kind: "common name", "synonym" …"""

    taxon: int
    name: str
    kind: str


def read_other_names(path: Path, taxonomy: Taxonomy) -> tuple[tuple[OtherName, ...], int]:
    """The names of taxa of the tree in a CSV table, and how many rows name other taxa.

    Raises `DataError` for a table without these columns, that is too large, or with a row that lacks a name.
    """
    found, elsewhere = [], 0
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: has more than {_MAX_BYTES >> 20} MB, which is no table of names")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for taxon, name, kind in _rows(path, stream):
                number = _number(taxonomy, taxon)
                if number is None:
                    elsewhere += 1
                else:
                    found.append(OtherName(number, name, kind or "other name"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is no readable CSV table: {error}") from error
    return tuple(found), elsewhere


def names_beside(folder: Path) -> Path | None:
    """`names.csv` in an adapter's folder or its run's, where there is one."""
    folders = [folder, *([folder.parent] if folder.name == "adapter" else [])]
    return next((path for one in folders if (path := one / NAMES).is_file()), None)


def called(names: Sequence[OtherName], text: str) -> list[OtherName]:
    """Those that are spelt like `text`, whatever its case."""
    asked = folded_spelling(" ".join(text.split()))
    return [other for other in names if asked and folded_spelling(other.name) == asked]


def _rows(path: Path, stream: TextIO) -> Iterator[tuple[str, str, str]]:
    table = csv.DictReader(stream)
    if missing := [column for column in COLUMNS if column not in (table.fieldnames or ())]:
        raise DataError(f"{path}: has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
    for number, row in enumerate(table, 2):
        taxon, name, kind = (" ".join((row[column] or "").split()) for column in COLUMNS)
        if not taxon or not name:
            raise DataError(f"{path}: row {number} has no {'name' if taxon else 'taxon'}; fill it or take it out")
        if max(map(len, (name, kind))) > _MAX_LETTERS:
            raise DataError(f"{path}: row {number} has a name of more than {_MAX_LETTERS} letters; shorten it")
        yield taxon, name, kind


def _number(taxonomy: Taxonomy, taxon: str) -> int | None:
    """None for what is no name of a taxon, or only leads to one."""
    try:
        known = find_taxon(taxonomy, taxon)
    except DataError:
        return None
    return known.taxon_id if known.note is None else None
