"""Folders and tables of pictures with names as people write them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

Row = Sequence[str]


def table(folder: Path, columns: Row, *rows: Row, name: str = "metadata.csv", delimiter: str = ",") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL).writerows([columns, *rows])
    return folder


def pictures(folder: Path, *rows: Row, columns: Row) -> Path:
    """A table whose first column, the file name, is made up."""
    numbered = [(f"{i}.png", *row) for i, row in enumerate(rows)]
    table(folder, ("file_name", *columns), *numbered)
    for number, (file_name, *_) in enumerate(numbered):
        Image.effect_noise((16, 16), 60 + number).convert("RGB").save(folder / file_name)
    return folder
