"""FishNet's table gives the counts that were taken from it by other means, and its boxes go where they belong."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.readers import Box, Record, Rejected, detect_format, open_reader
from taxadiffusion.readers.fishnet import FishNet, open_source
from tests.fishnet_sources import make_row, write_table


@pytest.fixture(scope="module")
def published(shared: Path) -> tuple[FishNet, list[Record]]:
    reader = open_source(shared / "data/annotations/fishnet")
    items = list(reader)
    assert not [item for item in items if isinstance(item, Rejected)]
    return reader, [item for item in items if isinstance(item, Record)]


def test_the_published_table_gives_its_counts(published: tuple[FishNet, list[Record]]) -> None:
    reader, records = published
    assert len(records) == 18_901
    assert sum(record.lineage.get("species") is None for record in records) == 10_406
    assert reader.counts["urls_reduced"] == 8_495
    assert reader.counts["genus_filled"] == 90
    assert {record.image.count("/") for record in records} == {1}  # <Folder>/<file>: no name's slash gets into a path
    assert {record.split for record in records} == {"test"}


def test_boxes_of_three_families(published: tuple[FishNet, list[Record]]) -> None:
    reader, records = published
    families = {"Acanthuridae", "Carchariidae", "Squalidae"}
    given = [record for record in records if record.lineage.get("family") in families]
    assert (len(given), sum(record.box is not None for record in given)) == (373, 353)
    assert reader.counts["boxes_missing"] == 20
    assert reader.counts["box_folders_missing"] == 18_901 - 373


@pytest.mark.parametrize(("order_column", "conflicts"), [("Order", 31), ("NewOrder", 0)])
def test_families_in_two_orders(shared: Path, order_column: str, conflicts: int) -> None:
    orders = defaultdict(set)
    for record in open_reader(shared / "data/annotations/fishnet", order_column=order_column):
        assert isinstance(record, Record)
        orders[record.lineage.get("family")].add(record.lineage.get("order"))
    assert sum(len(found) > 1 for found in orders.values()) == conflicts


def test_a_checkout_is_detected_and_split_by_its_tables(tmp_path: Path) -> None:
    write_table(tmp_path, make_row("a.jpg", genus="Diplodus"), name="train.csv")
    write_table(tmp_path, make_row("https://x.org/b.jpg?v=1", "Sparus aurata"))
    assert detect_format(tmp_path) == "fishnet"
    first, second = open_reader(tmp_path)
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert (first.image, first.split, first.lineage.label) == ("Sparidae/a.jpg", "train", "Diplodus")
    assert (second.image, second.split, second.lineage.label) == ("Sparidae/b.jpg", "test", "Sparus aurata")


def test_the_box_policy_decides_between_several_boxes(tmp_path: Path) -> None:
    write_table(tmp_path, make_row("a.jpg", genus="Diplodus"))
    (tmp_path / "boxes/Sparidae").mkdir(parents=True)
    (tmp_path / "boxes/Sparidae/a.txt").write_text("Sparidae 10 10 20 20 \nSparidae 15 0 40 30 \n")
    boxes = {}
    for policy in ("largest", "union", "none"):
        (record,) = open_reader(tmp_path, box_policy=policy)
        assert isinstance(record, Record)
        boxes[policy] = record.box
    assert boxes == {"largest": Box(15, 0, 25, 30), "union": Box(10, 0, 30, 30), "none": None}


def test_boxes_as_json(tmp_path: Path) -> None:
    write_table(tmp_path, make_row("a.jpg", genus="Diplodus"), make_row("b.jpg", genus="Diplodus"))
    (tmp_path / "boxes.json").write_text(json.dumps({"a": {"x": 1, "y": 2, "w": 3, "h": 4}}))
    reader = open_source(tmp_path, boxes=tmp_path / "boxes.json")
    assert [record.box for record in reader if isinstance(record, Record)] == [Box(1, 2, 3, 4), None]
    assert reader.counts["boxes_missing"] == 1


@pytest.mark.parametrize("content", ["Sparidae 10 10 5 20\n", "Sparidae ten 10 20 20\n", "", "Sparidae nan 1 2 3\n"])
def test_a_box_file_without_a_box_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    write_table(tmp_path, make_row("a.jpg", genus="Diplodus"))
    (tmp_path / "boxes/Sparidae").mkdir(parents=True)
    (tmp_path / "boxes/Sparidae/a.txt").write_text(content)
    with pytest.raises(DataError, match=r"Sparidae/a\.txt"):
        list(open_reader(tmp_path))


def test_a_species_of_another_genus_is_rejected_and_named(tmp_path: Path) -> None:
    write_table(tmp_path, make_row("https://x/a.jpg", "Sparus aurata", "Diplodus"))
    (rejected,) = open_reader(tmp_path)
    assert isinstance(rejected, Rejected)
    assert (rejected.source, rejected.row, rejected.value) == ("test.csv", 2, "Sparus aurata")
    assert "genus column" in rejected.reason


def test_options_are_checked(tmp_path: Path) -> None:
    write_table(tmp_path, make_row("a.jpg", genus="Diplodus"))
    for options in ({"order_column": "Ordnung"}, {"box_policy": "best"}, {"ranks": "tribe"}, {"colour": "red"}):
        with pytest.raises(SettingsError):
            open_reader(tmp_path, **options)
