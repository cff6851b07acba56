"""An expert's judgements of generated pictures, as the review page saves them."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.pictures import Pictures

FEATURES = ("shape", "colour", "marks", "posture", "artefact")
"""What is judged of a picture; `artefact` fails where there is one."""

COLUMNS = ("file", "sha256", "taxon", *FEATURES, "verdict")
PAIR_COLUMNS = ("file", "sha256", "taxon", "photograph", "left", "chosen", "verdict")
VERDICTS = ("pass", "fail")


@dataclass(frozen=True, slots=True)
class Judgements:
    """Which pictures were judged, by position among the folder's, and whether each passed."""

    positions: tuple[int, ...]
    passed: tuple[bool, ...]
    undecided: int
    """Pictures that the expert could not judge."""
    fooled: bool
    """Of pairs: a picture passed where it was taken for the photograph."""


def read_judgements(path: Path, pictures: Pictures, folder: Path) -> Judgements:
    """Judgements of the folder's pictures. Of a picture judged twice the last row counts.

    Raises `DataError` for another table, a file that is not among the pictures, or one that has changed since.
    """
    rows, fooled = _rows(path)
    position = {Path(file).resolve(): i for i, file in enumerate(pictures.files)}
    found: dict[int, bool] = {}
    undecided = Counter[str]()
    for number, row in enumerate(rows, 2):
        file = (folder / row["file"]).resolve()
        if file not in position:
            raise DataError(f"{path} row {number}: {row['file']!r} is no picture of {folder}")
        if row["sha256"] != sha256_of_file(file):
            raise DataError(f"{path} row {number}: {row['file']!r} has changed since it was judged")
        if row["verdict"] in VERDICTS:
            found[position[file]] = row["verdict"] == "pass"
        elif row["verdict"] == "undecided":
            undecided[row["file"]] += 1
        else:
            raise DataError(f"{path} row {number}: verdict {row['verdict']!r} is none of pass, fail, undecided")
    if not found:
        raise DataError(f"{path}: holds no judgement of pass or fail")
    return Judgements(tuple(found), tuple(found.values()), len(undecided), fooled)


def sha256_of_file(path: Path) -> str:
    """Of a picture's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _rows(path: Path) -> tuple[list[dict[str, str]], bool]:
    """The table's rows, and whether they are of pairs."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, strict=True)
            rows = [dict(row) for row in table]
            columns = tuple(table.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table of judgements: {error}") from error
    if columns not in (COLUMNS, PAIR_COLUMNS):
        raise DataError(f"{path}: its columns are not those of the review page; save the table there anew")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise DataError(f"{path} row {number}: has not {len(columns)} values")
    return rows, columns == PAIR_COLUMNS
