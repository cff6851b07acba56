"""CUB's English names become taxa through a user's table and in no other way."""

from __future__ import annotations

from pathlib import Path

import pytest

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.readers import Box, Record, detect_format, open_reader


def write_names(path: Path, classes: list[str]) -> Path:
    lines = [
        "name,family,genus,species",
        *(f"{name},Aves{i},Genus,epithet{chr(97 + i % 26)}{chr(97 + i // 26)}" for i, name in enumerate(classes)),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def english_names(shared: Path) -> list[str]:
    lines = (shared / "data/annotations/cub/classes.txt").read_text().splitlines()
    return [line.split(".", 1)[1].replace("_", " ") for line in lines]


def test_every_published_image_gets_its_class_box_and_split(shared: Path, tmp_path: Path) -> None:
    names = english_names(shared)
    source = shared / "data/annotations/cub"
    assert detect_format(source) == "cub"
    items = list(open_reader(source, names=write_names(tmp_path / "names.csv", names)))
    records = [item for item in items if isinstance(item, Record)]
    assert (len(items), len(records)) == (11_788, 11_788)
    assert sum(record.split == "train" for record in records) == 5_994
    assert records[0].box == Box(60, 27, 325, 304)
    assert records[0].lineage.get("family") == "Aves0"
    for record in records[::500]:
        english = record.image.split("/")[0].split(".", 1)[1].replace("_", " ")
        assert record.lineage.get("family") == f"Aves{names.index(english)}"


def test_without_a_name_table_it_says_what_is_needed(shared: Path) -> None:
    with pytest.raises(SettingsError, match="name, order, family"):
        open_reader(shared / "data/annotations/cub")


def test_classes_that_the_table_lacks_are_all_listed(shared: Path, tmp_path: Path) -> None:
    table = write_names(tmp_path / "names.csv", english_names(shared)[2:])
    with pytest.raises(DataError, match=r"2 of 200 classes.*black footed albatross, laysan albatross"):
        open_reader(shared / "data/annotations/cub", names=table)
