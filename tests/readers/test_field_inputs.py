"""Every file that people are known to have gives the right labels, or one reason that tells what to mend."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taxadiffusion.cli import app
from taxadiffusion.dataset import PreparedDataset, PrepareSettings, prepare
from taxadiffusion.errors import DataError
from taxadiffusion.readers import Record, Rejected, open_reader
from tests.field_inputs import INPUTS, binomial, downloaded

ALL = tuple(range(8))


@dataclass(frozen=True)
class Expected:
    """`images`: name → number of the fish. The `rejected` rows have the `reason`. `error`: why nothing is read."""

    images: dict[str, int] = field(default_factory=dict)
    rejected: tuple[int, ...] = ()
    reason: str = ""
    error: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    ranks: tuple[str, ...] = ("order", "family", "genus", "species")


def photos(numbers: tuple[int, ...] = ALL) -> dict[str, int]:
    return {f"p{i:03d}.jpg": i for i in numbers}


def by_id(numbers: tuple[int, ...] = ALL) -> dict[str, int]:
    return {f"occ{i}.jpg": i for i in numbers}


DOWNLOADS = {downloaded(i): i for i in ALL}
CORE = ("kingdom", "family", "genus", "species")
EXPECTED = {
    "t-openquote": Expected(photos((0, 1, 10, 11)), tuple(range(4, 12)), "row 4, cell 6, and not closed there"),
    "t-openquote-mid": Expected(photos((0, 1, 10, 11)), tuple(range(4, 12)), "row 4, cell 2, and not closed there"),
    "t-quotedspace": Expected(photos((0, 1, 2, 3))),
    "t-shortrows": Expected(photos(tuple(range(40))), counts={"rows_with_trailing_cells_missing": 24}),
    "t-sepline": Expected(photos()),
    "t-sepcomma": Expected(photos()),
    "t-pipe": Expected(photos()),
    "t-dupcase": Expected(error="columns 'Species' and 'species' both mean species; rename or drop one"),
    "t-inat-export": Expected(photos(), ranks=("kingdom", "phylum", "class", "order", "family", "genus", "species")),
    "t-colon": Expected({f"CAM1:{i:04d}.jpg": i for i in range(4)}),
    "t-tilde": Expected({f"~p{i}.jpg": i for i in range(4)}),
    "t-nfd": Expected({"mu\u0308ller1.jpg": 0, "mu\u0308ller2.jpg": 1, "e\u0301.jpg": 2, "a\u030a.jpg": 3}),
    "t-backslash": Expected(rejected=(2, 3, 4, 5), reason="write it with /"),
    "t-bomsemi": Expected(photos()),
    "t-commahead": Expected(photos()),
    "t-cp1252": Expected(photos((0, 1, 2, 4, 5, 6, 7)), (5,), "not UTF-8"),
    "t-cr": Expected(photos()),
    "t-ids": Expected(photos()),
    "t-placeholders": Expected(photos(), ranks=("order", "genus", "species"), counts={"placeholder_family": 8}),
    "t-semidecimal": Expected(photos()),
    "t-trailspace": Expected(photos((0, 1, 2, 3))),
    "t-utf16": Expected(error="UTF-16 text; save it as UTF-8"),
    "d-openquote": Expected(by_id((0, 7)), tuple(range(3, 9)), "rows 3 to 8 run together", ranks=CORE),
    "d-twofiles": Expected(DOWNLOADS, counts={"occurrences": 8}, ranks=CORE),
    "d-header3": Expected(by_id(), ranks=CORE),
    "d-header3b": Expected(by_id(), ranks=CORE),
    "d-cr": Expected(by_id(), ranks=CORE),
    "d-cr-meta": Expected(by_id(), ranks=CORE),
    "d-cr-meta-quoted": Expected(by_id(), ranks=CORE),
    "d-multichar": Expected(by_id(), ranks=CORE),
    "d-encempty": Expected(error="unknown encoding ''"),
    "d-latin1": Expected(by_id(), ranks=CORE),
    "d-utf16table": Expected(by_id(), ranks=CORE),
    "d-simple-quote": Expected({f"{i}.jpg": i for i in ALL}, ranks=("family", "genus", "species")),
    "d-imageext": Expected(DOWNLOADS, ranks=CORE),
    "d-notype": Expected(DOWNLOADS, ranks=CORE),
    "d-oddformat": Expected(DOWNLOADS, ranks=CORE),
    "d-movingimage": Expected(DOWNLOADS, counts={"films_left_out": 1, "sounds_left_out": 1}, ranks=CORE),
    "d-assocmedia": Expected({downloaded(i): i // 2 for i in ALL}, ranks=("family", "genus", "species")),
    "h-hfparquet": Expected({f"{i:08d}-p{i:03d}.jpg": i for i in range(4)}),
}


def read(source: Path, expected: Expected) -> list[Record]:
    """Compares what the reader gives with what is right; returns the records."""
    if expected.error:
        with pytest.raises(DataError) as caught:
            list(open_reader(source))
        assert expected.error in str(caught.value)
        return []
    reader = open_reader(source)
    items = list(reader)
    records = [item for item in items if isinstance(item, Record)]
    labels = {record.member or record.image: record.lineage.binomial for record in records}
    assert labels == {image: binomial(number) for image, number in expected.images.items()}
    assert len(labels) == len(records)
    assert {record.lineage.ranks for record in records} <= {expected.ranks}
    rejected = [item for item in items if isinstance(item, Rejected)]
    assert tuple(item.row for item in rejected) == expected.rejected
    assert all(expected.reason in item.reason for item in rejected)
    counts = reader.counts  # type: ignore[attr-defined]
    assert {key: counts[key] for key in expected.counts} == expected.counts
    assert expected.counts or not any(key.endswith("_left_out") for key in counts)
    return records


def test_every_input_has_its_expectation() -> None:
    assert set(INPUTS) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_row_is_read_rightly_or_named(tmp_path: Path, name: str) -> None:
    INPUTS[name](tmp_path)
    records = read(tmp_path, EXPECTED[name])
    if not records:
        return
    out = tmp_path / "prepared"
    report = prepare(tmp_path, out, PrepareSettings(max_bad_fraction=0.9), num_workers=1)
    assert (report.images, report.quarantined) == (len(records), len(EXPECTED[name].rejected))
    dataset = PreparedDataset.open(out)
    for row in range(len(dataset)):
        found = dataset.record(row).path.name
        number = next(number for image, number in EXPECTED[name].images.items() if image.rsplit("/", 1)[-1] == found)
        assert dataset.lineage(row).binomial == binomial(number)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_reported_files_themselves(shared: Path, name: str) -> None:
    source = shared / "cases" / "field" / name
    if not source.is_dir():
        pytest.skip("needs ../shared/cases/field, which is not beside this checkout")
    read(source, EXPECTED[name])


@pytest.mark.parametrize("name", [name for name, expected in EXPECTED.items() if expected.rejected or expected.error])
def test_check_and_prepare_tell_what_to_mend(tmp_path: Path, name: str) -> None:
    INPUTS[name](tmp_path)
    expected = EXPECTED[name]
    if expected.error or not expected.images:
        with pytest.raises(DataError, match=r"metadata\.csv|meta\.xml|rows can be used"):
            prepare(tmp_path, tmp_path / "prepared", num_workers=1)
        return
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, tmp_path / "prepared", num_workers=1)
    total = len(expected.rejected) + len(expected.images)
    assert f"{len(expected.rejected)} of {total} rows cannot be used" in str(caught.value)
    assert expected.reason in str(caught.value)
    told = CliRunner().invoke(app, ["check", str(tmp_path), "--json", str(tmp_path / "report.json")])
    assert told.exit_code in (0, 3)
    reasons = json.loads((tmp_path / "report.json").read_text())["rejected_reasons"]
    assert sum(reasons.values()) == len(expected.rejected)
    assert all(expected.reason in reason for reason in reasons)


def test_what_is_left_out_is_counted_by_reason_in_every_message(tmp_path: Path) -> None:
    INPUTS["d-movingimage"](tmp_path)
    told = CliRunner().invoke(app, ["prepare", str(tmp_path), str(tmp_path / "prepared"), "--workers", "1"])
    assert told.exit_code == 0
    assert "films left out: 1" in told.output
    assert "sounds left out: 1" in told.output
    for source in (tmp_path, tmp_path / "prepared"):
        told = CliRunner().invoke(app, ["check", str(source)])
        assert "films left out: 1" in told.output
        assert "sounds left out: 1" in told.output


def test_a_source_of_films_alone_says_so(tmp_path: Path) -> None:
    INPUTS["d-movingimage"](tmp_path)
    text = (tmp_path / "media.txt").read_text().replace("StillImage", "MovingImage")
    (tmp_path / "media.txt").write_text(text)
    with pytest.raises(DataError, match=r"no rows of pictures; films left out: 9; sounds left out: 1"):
        prepare(tmp_path, tmp_path / "prepared", num_workers=1)
    told = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert isinstance(told.exception, DataError) or told.exit_code == 3
    assert "films left out: 9" in f"{told.output}{told.exception}"
