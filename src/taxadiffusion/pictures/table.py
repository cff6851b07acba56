"""`metadata.csv`: a row for each picture of a folder."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from taxadiffusion.files import whole
from taxadiffusion.pictures.png import is_whole


def rows_of(table: Path) -> list[dict[str, str]]:
    """The whole rows of an earlier call's table; none where there is none."""
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as stream:
        return [row for row in csv.DictReader(stream) if row.get("file_name") and None not in row.values()]


def known_rows(table: Path) -> dict[str, dict[str, str]]:
    """Rows of an earlier call whose files still lie there and are whole."""
    return {row["file_name"]: row for row in rows_of(table) if is_whole(table.parent / row["file_name"])}


def write_table(path: Path, columns: Sequence[str], rows: Iterable[dict[str, str]]) -> None:
    """Aside and renamed: another process, or one that is killed here, finds the old table or the new."""
    with whole(path) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, columns)
        table.writeheader()
        table.writerows(rows)
