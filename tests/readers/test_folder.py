"""Image folders in every shape: the same photographs give the same records, and every row is used or reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Lineage
from taxadiffusion.readers import Box, Record, Rejected, clean_name, detect_format, open_reader, path_fault

ROWS = [
    {
        "file_name": "a/1.jpg",
        "family": "Pomacentridae",
        "genus": "Amphiprion",
        "species": "clarkii",
        "trajectory": "t1",
    },
    {"file_name": "a/2.jpg", "family": "Pomacentridae", "genus": "Amphiprion", "species": "", "trajectory": "t1"},
    {"file_name": "b/3.jpg", "family": "Scaridae", "genus": "", "species": "", "trajectory": ""},
]
LINEAGES = [
    Lineage.of({"family": "Pomacentridae", "genus": "Amphiprion", "species": "clarkii"}),
    Lineage.of({"family": "Pomacentridae", "genus": "Amphiprion"}),
    Lineage.of({"family": "Scaridae"}),
]


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"metadata.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        mark = "\t" if kind == "tsv" else ","
        lines = [mark.join(rows[0]), *(mark.join(str(cell) for cell in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def csv(folder: Path, text: str | bytes) -> list[Record | Rejected]:
    (folder / "metadata.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return list(open_reader(folder))


def one(folder: Path, header: str, row: str) -> Record | Rejected:
    (item,) = csv(folder, f"file_name,{header}\nx.jpg,{row}\n")
    return item


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_gives_the_same_records(tmp_path: Path, kind: str) -> None:
    write(tmp_path, kind, ROWS)
    assert detect_format(tmp_path) == "folder"
    reader = open_reader(tmp_path)
    records = list(reader)
    assert [record.lineage for record in records if isinstance(record, Record)] == LINEAGES
    assert [record.group for record in records if isinstance(record, Record)] == ["t1", "t1", None]
    assert reader.ranks == ("family", "genus", "species")
    assert list(reader) == records


def test_a_table_with_an_image_root(tmp_path: Path) -> None:
    table = write(tmp_path, "csv", ROWS)
    reader = open_reader(table, root=str(tmp_path / "photos"))
    assert reader.root == tmp_path / "photos"
    assert [r.lineage for r in reader if isinstance(r, Record)] == LINEAGES


def test_metadata_in_each_split_folder(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        write(tmp_path / split, "csv", ROWS[:1])
    found = [(r.image, r.split) for r in open_reader(tmp_path) if isinstance(r, Record)]
    assert found == [("train/a/1.jpg", "train"), ("validation/a/1.jpg", "val")]


def test_species_folders_with_and_without_a_name_table(tmp_path: Path) -> None:
    for name in ("train/Amphiprion_clarkii", "train/Amphiprion_sp", "train/Scaridae_sp", "test/amphiprion"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.jpg").touch()
    plain = list(open_reader(tmp_path))
    found = [(r.lineage.label, r.split) for r in plain if isinstance(r, Record)]
    assert found == [("Amphiprion clarkii", "train"), ("Amphiprion", "train")]
    assert [r.value for r in plain if isinstance(r, Rejected)] == ["test/amphiprion/1.jpg", "train/Scaridae_sp/1.jpg"]
    names = tmp_path.parent / "names.csv"
    names.write_text(
        "folder,family,genus,species\nAmphiprion_clarkii,Pomacentridae,Amphiprion,clarkii\n"
        "Amphiprion_sp,Pomacentridae,Amphiprion,\nScaridae_sp,Scaridae,,\namphiprion,Pomacentridae,Amphiprion,\n"
    )
    named = [r for r in open_reader(tmp_path, names=names) if isinstance(r, Record)]
    assert {r.lineage for r in named} == set(LINEAGES)
    assert len(named) == 4


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("genus,species", "Amphiprion,clarkii"),
        ("genus,species", "Amphiprion,Amphiprion clarkii"),
        ("genus,specific_epithet", "Amphiprion,clarkii"),
        ("genus,specific_epithet", "Amphiprion,Amphiprion clarkii"),
        ("species", "Amphiprion clarkii"),
        ("scientific_name", "Amphiprion clarkii"),
        ("scientific_name", "Amphiprion clarkii (Bennett)"),
        ("genus,specific_epithet,scientific_name", "Amphiprion,clarkii,Amphiprion clarkii"),
        ("Genus,Species", "Amphiprion,clarkii"),
    ],
)
def test_epithet_and_binomial_conventions_mean_the_same(tmp_path: Path, header: str, row: str) -> None:
    record = one(tmp_path, header, row)
    assert isinstance(record, Record)
    assert record.lineage == Lineage.of({"genus": "Amphiprion", "species": "clarkii"})


@pytest.mark.parametrize(
    ("header", "row", "reason"),
    [
        ("genus,species", "Amphiprion,Dascyllus aruanus", "genus"),
        ("genus,specific_epithet,scientific_name", "Amphiprion,clarkii,Amphiprion ocellaris", "names 2 species"),
        ("family,species", "Pomacentridae,clarkii", "without a genus"),
        ("family,split", "Pomacentridae,holdout", "unknown split"),
        ("family", "unknown", "no rank has a name"),
        ("family,bbox", 'Scaridae,"[1, 2, 3]"', "not a list"),
        ("family,bbox", 'Scaridae,"[1, 2, 0, 9]"', "no area"),
        ("family,box_x,box_y,box_width,box_height", "Scaridae,1,2,nan,4", "no area"),
    ],
)
def test_rows_that_contradict_themselves_are_reported(tmp_path: Path, header: str, row: str, reason: str) -> None:
    rejected = one(tmp_path, header, row)
    assert isinstance(rejected, Rejected)
    assert rejected.row == 2
    assert reason in rejected.reason


@pytest.mark.parametrize("text", ["", "nan", "None", "NULL", "na", "N/A", "unknown", "Unidentified", "not_classified"])
def test_placeholders_are_missing_ranks(tmp_path: Path, text: str) -> None:
    record = one(tmp_path, "family,genus,species", f"Scaridae,{text},{text}")
    assert isinstance(record, Record)
    assert record.lineage == Lineage.of({"family": "Scaridae"})


@pytest.mark.parametrize(
    "name", ["unassigned Formicinae", "incertae sedis", "Aves incertae sedis", "unclassified Aves"]
)
def test_placeholder_phrases_are_missing(name: str) -> None:
    assert clean_name(name) is None


@pytest.mark.parametrize("name", ["Nannacara", "Nonea", "Unionidae", "Nasua", "Eupercaria/misc", "Noneus"])
def test_names_that_look_like_placeholders_stay(name: str) -> None:
    assert clean_name(f" {name} ") == name


def test_bom_carriage_returns_and_numbers_are_text(tmp_path: Path) -> None:
    (record,) = csv(tmp_path, b"\xef\xbb\xbffile_name,family,id\r\n007.jpg,Scaridae,007\r\n")
    assert isinstance(record, Record)
    assert (record.image, record.source_id) == ("007.jpg", "007")


def test_faulty_rows_are_reported_and_the_others_used(tmp_path: Path) -> None:
    items = csv(
        tmp_path,
        b"file_name,family\n1.jpg,Scaridae\n2.jpg\n3.jpg,Scar\0idae\n4.jpg,\xff\n5.jpg,a,b\n6.jpg,Scaridae,\n\n7.jpg,Scaridae\n",
    )
    assert [r.image for r in items if isinstance(r, Record)] == ["1.jpg", "6.jpg", "7.jpg"]
    assert [r.row for r in items if isinstance(r, Rejected)] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"file_name,genus,genus\n", "'genus' appears twice"),
        (b"file_name,label\n1.jpg,x\n", "no column names a rank"),
        (b"name,family\n1.jpg,Scaridae\n", "no file_name column"),
        ("file_name,family\n".encode("utf-16"), "UTF-16"),
        (b"file_name,fam\xff\n", "not UTF-8"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_error(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        csv(tmp_path, content)
    assert "metadata.csv" in str(caught.value)


def test_boxes_splits_and_rights_are_read(tmp_path: Path) -> None:
    header = "family,split,bbox,license,rights_holder,observation"
    record = one(tmp_path, header, 'Scaridae,Validation,"[1.5, 2, 30, 40]",CC-BY-4.0,A. Person,o9')
    assert isinstance(record, Record)
    assert record.box == Box(1.5, 2, 30, 40)
    assert (record.split, record.license, record.rights_holder, record.group) == ("val", "CC-BY-4.0", "A. Person", "o9")


@pytest.mark.parametrize(
    "path",
    ["../x.jpg", "a/../../x.jpg", "/etc/passwd", "~/x.jpg", "http://x.org/a.jpg", "file:///etc/passwd", "C:\\x.jpg",
     "\\\\host\\share\\x.jpg", "a\x00.jpg", "a\nb.jpg", "", " ", "x" * 300, "a/" * 3000],
)  # fmt: skip
def test_paths_that_lead_outside_are_refused(path: str) -> None:
    assert path_fault(path) is not None


@pytest.mark.parametrize("path", ["a/b.jpg", "..a/b..jpg", "Ünïcode/é.jpg", "a b;touch X.jpg", "-rf.jpg", "a..b/c.jpg"])
def test_odd_but_honest_paths_are_accepted(path: str) -> None:
    assert path_fault(path) is None


def test_unknown_formats_options_and_ranks_are_settings_errors(tmp_path: Path) -> None:
    write(tmp_path, "csv", ROWS)
    for options in ({"format": "floder"}, {"order_column": "Order"}, {"ranks": "tribe"}):
        with pytest.raises(SettingsError):
            open_reader(tmp_path, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no such file"):
        open_reader(tmp_path / "none")
    with pytest.raises(DataError, match="no column 'x'"):
        open_reader(tmp_path, group_column="x")


def test_reef_fish_as_published(shared: Path) -> None:
    records = list(open_reader(shared / "data" / "reef-fish", ranks="order,family,genus,species"))
    assert len(records) == 6_585
    assert all(isinstance(record, Record) for record in records)
    taxa = {record.lineage for record in records if isinstance(record, Record)}
    assert sum(taxon.rank == "species" for taxon in taxa) == 22
    assert [taxon.label for taxon in taxa if taxon.rank != "species"] == ["Scaridae"]
