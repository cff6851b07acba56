"""BIOSCAN tables, built here from the documented columns (shape only: no published row was available)."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.readers import Box, Reader, Record, Rejected, detect_format, open_reader
from taxadiffusion.readers.bioscan_5m import picture_path
from taxadiffusion.readers.package import read_member
from tests.bioscan_sources import write_1m

COLUMNS_5M = (
    "processid", "sampleid", "taxon", "phylum", "class", "order", "family", "subfamily", "genus", "species", "dna_bin",
    "dna_barcode", "country", "province_state", "coord-lat", "coord-lon", "image_measurement_value", "area_fraction",
    "scale_factor", "inferred_ranks", "split", "index_bioscan_1M_insect", "chunk",
)  # fmt: skip


def write_5m(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "bioscan5m/metadata/csv/BIOSCAN_5M_Insect_Dataset_metadata.csv"
    path.parent.mkdir(parents=True)
    defaults = {"phylum": "Arthropoda", "class": "Insecta", "order": "Diptera"}
    lines = [",".join(COLUMNS_5M)]
    lines += [",".join({**defaults, **row}.get(column, "") for column in COLUMNS_5M) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def records(reader: Reader) -> list[Record]:
    items = list(reader)
    assert not [item for item in items if isinstance(item, Rejected)], items
    return [item for item in items if isinstance(item, Record)]


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "green").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("stem", ["BIOSCAN_Insect_Dataset_metadata", "BIOSCAN_1M_Insect_Dataset_metadata"])
def test_either_published_name_is_detected(tmp_path: Path, stem: str) -> None:
    write_1m(tmp_path, [{"image_file": "5351601.jpg"}], stem)
    assert detect_format(tmp_path) == "bioscan-1m"


def test_not_classified_is_no_name_and_the_bin_stays_a_qualifier(tmp_path: Path) -> None:
    write_1m(
        tmp_path,
        [
            {"image_file": "1.jpg", "family": "Chironomidae", "uri": "BOLD:AER5166"},
            {"image_file": "2.jpg", "family": "Muscidae", "genus": "not_classified", "species": "Musca domestica"},
            {"image_file": "3.jpg", "family": "Formicidae", "subfamily": "unassigned Formicidae", "genus": "Lasius"},
        ],
    )
    first, second, third = records(open_reader(tmp_path, ranks="family,subfamily,genus,species"))
    assert (str(first.lineage), first.qualifier) == ("family: Chironomidae", "BOLD:AER5166")
    assert second.lineage.binomial == "Musca domestica"
    assert str(third.lineage) == "family: Formicidae > genus: Lasius"


def test_default_ranks_are_the_papers_and_others_can_be_asked_for(tmp_path: Path) -> None:
    write_1m(tmp_path, [{"image_file": "1.jpg", "family": "Formicidae", "subfamily": "Formicinae", "tribe": "Lasiini"}])
    assert open_reader(tmp_path).ranks == ("class", "order", "family", "genus", "species")
    (record,) = records(open_reader(tmp_path, ranks=["family", "subfamily", "tribe"]))
    assert str(record.lineage) == "family: Formicidae > subfamily: Formicinae > tribe: Lasiini"


def test_experiment_columns_and_partition_files_give_the_split(tmp_path: Path) -> None:
    rows = [
        {"image_file": f"{i}.jpg", "sampleid": f"s{i}", "large_insect_order": split}
        for i, split in enumerate(("train", "validation", "test", "no_split"))
    ]
    write_1m(tmp_path, rows)
    assert [r.split for r in records(open_reader(tmp_path, experiment="large_insect_order"))] == [
        "train",
        "val",
        "test",
        None,
    ]
    (tmp_path / "CLIBD").mkdir()
    (tmp_path / "CLIBD/train_seen.txt").write_text("s0\ns2\n")
    (tmp_path / "CLIBD/test_unseen.txt").write_text("s1\n")
    assert [r.split for r in records(open_reader(tmp_path, partition=tmp_path / "CLIBD"))] == [
        "train",
        "test",
        "train",
        None,
    ]
    with pytest.raises(SettingsError, match="large_insect_order"):
        open_reader(tmp_path, experiment="orders")


@pytest.mark.parametrize("layout", ["bioscan/images/cropped_256", "bioscan1m/images/original_256", "cropped_256", "."])
def test_pictures_in_folders(tmp_path: Path, layout: str) -> None:
    write_1m(tmp_path, [{"image_file": "5351601.jpg"}])
    picture = tmp_path / layout / "part18/5351601.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(jpeg())
    reader = open_reader(tmp_path)
    (record,) = records(reader)
    assert (reader.root / record.image).resolve() == picture.resolve()
    assert record.member is None


def test_pictures_in_a_zip_package(tmp_path: Path) -> None:
    write_1m(tmp_path, [{"image_file": "5351601.jpg"}, {"image_file": "BIOUG73231-D12.jpg", "chunk_number": "93"}])
    with zipfile.ZipFile(tmp_path / "cropped_256.zip", "w") as archive:
        for name in ("part18/5351601.jpg", "part93/BIOUG73231-D12.jpg"):
            archive.writestr(f"bioscan/images/cropped_256/{name}", jpeg())
    reader = open_reader(tmp_path)
    for record in records(reader):
        assert record.member
        assert read_member(reader.root / record.image, record.member) == jpeg()


def test_pictures_in_zip_parts(tmp_path: Path) -> None:
    write_1m(tmp_path, [{"image_file": "a.jpg", "chunk_number": "3"}, {"image_file": "b.jpg", "chunk_number": "21"}])
    for span, part in (("1-20", "part3/a.jpg"), ("21-40", "part21/b.jpg")):
        with zipfile.ZipFile(tmp_path / f"bioscan_images_cropped_full_part{span}.zip", "w") as archive:
            archive.writestr(f"bioscan/images/cropped/{part}", jpeg())
    reader = open_reader(tmp_path)
    for record in records(reader):
        assert record.member
        assert read_member(reader.root / record.image, record.member) == jpeg()


@pytest.mark.parametrize("group", ["", "bioscan_dataset/"])
def test_pictures_in_hdf5_at_the_root_or_in_a_group(tmp_path: Path, group: str) -> None:
    h5py = pytest.importorskip("h5py", reason="needs the extra [data]")
    write_1m(tmp_path, [{"image_file": "5351601.jpg"}])
    with h5py.File(tmp_path / "cropped_256.hdf5", "w") as file:
        file[f"{group}5351601.jpg"] = np.frombuffer(jpeg(), np.uint8)
    reader = open_reader(tmp_path)
    (record,) = records(reader)
    assert record.member == "5351601.jpg"
    assert read_member(reader.root / record.image, record.member) == jpeg()


def test_hdf5_without_its_extra_is_one_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_1m(tmp_path, [{"image_file": "5351601.jpg"}])
    (tmp_path / "cropped_256.hdf5").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'taxadiffusion\[data\]'"):
        open_reader(tmp_path)


def test_placeholders_are_counted(tmp_path: Path) -> None:
    write_1m(
        tmp_path, [{"image_file": "1.jpg"}, {"image_file": "2.jpg", "species": "Musca domestica", "genus": "Musca"}]
    )
    reader = open_reader(tmp_path)
    records(reader)
    assert reader.counts == {"placeholder_family": 2, "placeholder_genus": 1, "placeholder_species": 1}  # type: ignore[attr-defined]


def test_a_row_without_a_chunk_number_is_rejected(tmp_path: Path) -> None:
    write_1m(tmp_path, [{"image_file": "1.jpg", "chunk_number": ""}])
    (rejected,) = open_reader(tmp_path)
    assert isinstance(rejected, Rejected)
    assert "chunk_number" in rejected.reason


def test_5m_chunks_follow_the_md5_of_the_processid() -> None:
    digest = hashlib.md5(b"ABC123-21", usedforsecurity=False).hexdigest()
    assert picture_path("ABC123-21", "pretrain") == f"pretrain/{digest[:2]}/ABC123-21.jpg"
    assert picture_path("ABC123-21", "train") == f"train/{digest[:1]}/ABC123-21.jpg"
    assert picture_path("ABC123-21", "val") == "val/ABC123-21.jpg"
    assert picture_path("ABC123-21", "train", "f") == "train/f/ABC123-21.jpg"


def test_5m_layout_splits_boxes_and_empty_cells(tmp_path: Path) -> None:
    rows = [
        {"processid": "A-1", "split": "pretrain", "chunk": "0a", "family": "Cecidomyiidae", "dna_bin": "BOLD:AAA1234"},
        {"processid": "B-2", "split": "test_unseen", "genus": "Musca", "species": "Musca domestica"},
        {"processid": "C-3", "split": "other_heldout", "chunk": "3", "genus": "Musca"},
    ]
    write_5m(tmp_path, rows)
    (tmp_path / "bioscan5m/images/cropped_256").mkdir(parents=True)
    boxes = tmp_path / "BIOSCAN_5M_Insect_bbox.tsv"
    boxes.write_text(
        "processid\twidth_original\theight_original\tx0\ty0\tx1\ty1\tscale_factor\tarea_fraction\n"
        "A-1\t1024\t512\t100\t50\t300\t250\t1\t0.1\n"
    )
    assert detect_format(tmp_path) == "bioscan-5m"
    first, second, third = records(open_reader(tmp_path, boxes=boxes))
    assert first.image == "bioscan5m/images/cropped_256/pretrain/0a/A-1.jpg"
    assert (first.qualifier, first.split, first.lineage.label) == ("BOLD:AAA1234", "train", "Cecidomyiidae")
    assert first.box == Box(50, 25, 100, 100)
    assert (second.split, second.lineage.binomial, second.box) == ("test", "Musca domestica", None)
    assert third.split is None


def test_a_missing_picture_package_is_named(tmp_path: Path) -> None:
    write_1m(tmp_path, [{"image_file": "1.jpg"}])
    with pytest.raises(DataError, match="nowhere"):
        open_reader(tmp_path, images=tmp_path / "nowhere")
