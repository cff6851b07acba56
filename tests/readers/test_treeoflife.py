"""TreeOfLife catalogues, shards and TaxonoPy's tables; the Rare Species table gives its published counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.readers import Record, Rejected, detect_format, open_reader
from taxadiffusion.readers.package import read_member
from taxadiffusion.readers.treeoflife import open_source
from tests.treeoflife_sources import write_catalog, write_shard

UUID = "85b96dc2-70ab-446e-afb5-6a4b92b0a450"


def test_the_rare_species_table(shared: Path) -> None:
    items = list(open_reader(shared / "data/annotations/treeoflife/rare_species"))
    records = [item for item in items if isinstance(item, Record)]
    assert (len(items), len(records)) == (11_983, 11_983)
    assert len({record.lineage for record in records}) == 400
    assert {record.lineage.get("class") for record in records} >= {"Mammalia", "Aves", "Bivalvia"}
    assert all(record.lineage.rank == "species" for record in records)


def test_taxonopy_homonyms_stay_apart(shared: Path) -> None:
    folder = shared / "data/annotations/treeoflife/TaxonoPy/examples"
    for table in (
        folder / "resolved/sample.resolved.parquet",
        folder / "input/sample.csv",
        folder / "input/sample.parquet",
    ):
        records = [item for item in open_reader(table) if isinstance(item, Record)]
        laelia = {record.lineage for record in records if record.lineage.binomial == "Laelia rosea"}
        assert {lineage.get("kingdom") for lineage in laelia} == {"Animalia", "Plantae"}


def test_a_row_without_any_name_is_rejected(shared: Path) -> None:
    table = shared / "data/annotations/treeoflife/TaxonoPy/examples/resolved/sample.unsolved.parquet"
    (rejected,) = open_reader(table)
    assert isinstance(rejected, Rejected)


def test_kingdoms_are_united_markup_dropped_and_provisional_species_stop_at_the_genus(tmp_path: Path) -> None:
    write_catalog(
        tmp_path,
        "train,a,,,,,,,,Metazoa,Chordata,Aves,Passeriformes,Corvidae,<i>Corvus</i>,corax,raven",
        "val,b,,,,,,,,Chloroplastida,,,,,Rosa,sp. ___,",
        "train,c,,,,,,,,Animalia,Chordata,Aves,,,Corvus (unidentified),,",
        "train_small,a,,,,,,,,Metazoa,Chordata,Aves,Passeriformes,Corvidae,Corvus,corax,raven",
    )
    reader = open_source(tmp_path)
    first, second, third = reader
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert isinstance(third, Record)
    assert (first.image, first.lineage.get("kingdom"), first.lineage.binomial) == ("a.jpg", "Animalia", "Corvus corax")
    assert (str(second.lineage), second.qualifier, second.split) == ("kingdom: Plantae > genus: Rosa", "sp. ___", "val")
    assert third.lineage.label == "Corvus"
    assert reader.counts["train_small_rows_left_out"] == 1


def test_shards_split_keys_at_the_first_dot(tmp_path: Path) -> None:
    tag = "a photo of kingdom Animalia phylum Chordata class Aves order Passeriformes family Corvidae genus Corvus "
    tag += "species corax."
    names = "Animalia Chordata Aves Passeriformes Corvidae Corvus corone"
    samples = {
        UUID: {"jpg": "JPEG", "taxonTag.txt": tag, "com.txt": "raven. x"},
        f"{UUID[:-1]}1": {"jpg": "J2", "taxonomic_name.txt": names},
    }
    samples["lonely"] = {"sci.txt": "Corvus corax"}
    write_shard(tmp_path / "train/shard-000000.tar", samples)
    assert detect_format(tmp_path) == "treeoflife"
    reader = open_reader(tmp_path)
    first, second, third = reader
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert isinstance(third, Rejected)
    assert (first.source_id, first.lineage.binomial, first.split) == (UUID, "Corvus corax", "train")
    assert second.lineage.binomial == "Corvus corone"
    assert first.lineage.get("kingdom") == "Animalia"
    assert first.member
    assert read_member(reader.root / first.image, first.member) == b"JPEG"


def test_a_catalogue_finds_its_pictures_in_the_shards_beside_it(tmp_path: Path) -> None:
    write_shard(tmp_path / "shards/shard-000000.tar", {UUID: {"jpg": "JPEG", "x.y.txt": "?"}})
    write_catalog(
        tmp_path, f"train,{UUID},,,,,,,,Animalia,,,,,Corvus,corax,", "train,missing,,,,,,,,Animalia,,,,,Corvus,corax,"
    )
    reader = open_reader(tmp_path)
    found, missing = reader
    assert isinstance(found, Record)
    assert found.member
    assert read_member(reader.root / found.image, found.member) == b"JPEG"
    assert isinstance(missing, Rejected)


def test_an_image_folder_with_a_uuid_column_stays_an_image_folder(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,uuid,kingdom,phylum,class,order,family,genus,species\n")
    assert detect_format(tmp_path) == "folder"


def test_a_damaged_shard_is_one_named_error(tmp_path: Path) -> None:
    path = tmp_path / "shard-000000.tar"
    write_shard(path, {UUID: {"jpg": "J" * 5000, "sci.txt": "Corvus corax"}})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="shard-000000"):
        list(open_reader(path))
