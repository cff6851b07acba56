"""iNaturalist's JSON, its folders and its dumps give the same taxa; ids of either type join."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.readers import Record, Rejected, detect_format, open_reader
from taxadiffusion.readers.inaturalist import taxon_of_folder
from taxadiffusion.readers.json_stream import stream_arrays
from tests.inaturalist_sources import write_json


def test_the_published_records_equal_their_folders(shared: Path) -> None:
    items = list(open_reader(shared / "data/annotations/inaturalist/inat2021_tfds_train.json"))
    assert len(items) == 3
    for record in items:
        assert isinstance(record, Record)
        assert record.lineage == taxon_of_folder(record.image.split("/")[1]).lineage
        assert record.lineage.ranks == ("kingdom", "phylum", "class", "order", "family", "genus", "species")
        assert record.split == "train"


def test_images_without_annotation_are_rejected_not_guessed(shared: Path) -> None:
    items = list(open_reader(shared / "data/annotations/inaturalist/rdmpage_test-lep.json"))
    assert len(items) == 3_702
    assert all(isinstance(item, Rejected) for item in items)


@pytest.mark.parametrize("category_id", ["7", 7])
@pytest.mark.parametrize("image_id", ["12", 12])
def test_ids_join_whether_text_or_number(tmp_path: Path, category_id: object, image_id: object) -> None:
    category = {
        "id": "7",
        "name": "Viola x-notata",
        "genus": "Viola",
        "specific_epithet": "x-notata",
        "kingdom": "Plantae",
    }
    image = {"id": 12, "file_name": "train_mini/a/b.jpg", "latitude": None, "license": 1, "rights_holder": "N. N."}
    path = write_json(tmp_path / "train_mini.json", [category], [image], [(image_id, category_id)])
    (record,) = open_reader(path)
    assert isinstance(record, Record)
    assert (record.lineage.binomial, record.split, record.rights_holder) == ("Viola x-notata", "train", "N. N.")


def test_names_of_2017_give_trinomials_hybrids_and_a_supercategory_that_is_a_taxon(tmp_path: Path) -> None:
    names = ["Ceratotherium simum simum", "Malus ×domestica", "Larus glaucescens × occidentalis"]
    supers = ["Mammalia", "Plantae", "Aves"]
    categories = [{"id": i, "name": n, "supercategory": s} for i, (n, s) in enumerate(zip(names, supers, strict=True))]
    images = [{"id": i, "file_name": f"train_val_images/{i}.jpg"} for i in range(3)]
    path = write_json(tmp_path / "train2017.json", categories, images, [(i, i) for i in range(3)])
    trinomial, hybrid, formula = open_reader(path, ranks="kingdom,class,genus,species,subspecies")
    assert isinstance(trinomial, Record)
    assert isinstance(hybrid, Record)
    assert isinstance(formula, Record)
    assert str(trinomial.lineage) == "class: Mammalia > genus: Ceratotherium > species: simum > subspecies: simum"
    assert (hybrid.lineage.binomial, hybrid.lineage.get("kingdom")) == ("Malus domestica", "Plantae")
    assert (str(formula.lineage), formula.qualifier) == ("class: Aves > genus: Larus", "× occidentalis")


def test_real_names_replace_obfuscated_ones(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "train_val2018/Plantae/5/a.jpg"}
    path = write_json(
        tmp_path / "train2018.json", [{"id": 5, "name": "5", "supercategory": "Plantae"}], [image], [(1, 5)]
    )
    names = tmp_path / "names/categories.json"
    names.parent.mkdir()
    names.write_text(json.dumps([{"id": 5, "name": "Betula lenta", "kingdom": "Plantae", "genus": "Betula"}]))
    (record,) = open_reader(path, categories=names)
    assert isinstance(record, Record)
    assert record.lineage.binomial == "Betula lenta"


def test_class_folders_alone(tmp_path: Path) -> None:
    folder = tmp_path / "val/02912_Animalia_Chordata_Actinopterygii_Siluriformes_Ictaluridae_Ameiurus_v-nigrum"
    folder.mkdir(parents=True)
    (folder / "b.jpg").touch()
    (folder / "a.jpg").touch()
    assert detect_format(tmp_path) == "inaturalist"
    first, second = open_reader(tmp_path)
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert [first.source_id, second.source_id] == ["a", "b"]
    assert (first.split, first.lineage.binomial) == ("val", "Ameiurus v-nigrum")


def test_dumps_are_joined_and_observations_are_groups(tmp_path: Path) -> None:
    (tmp_path / "taxa.csv").write_text(
        "taxon_id\tancestry\trank_level\trank\tname\tactive\n1\t48460\t70\tkingdom\tAnimalia\ttrue\n"
        '2\t48460/1\t60\tphylum\tChord"ata\ttrue\n10\t48460/1/2/9\t10\tspecies\tSciurus niger\ttrue\n'
        "11\t48460\\1\\2\\9\\10\t5\tsubspecies\tSciurus niger avicennia\ttrue\n"
    )
    (tmp_path / "observations.csv").write_text(
        "observation_uuid\tobserver_id\tlatitude\tlongitude\tpositional_accuracy\ttaxon_id\tquality_grade\tobserved_on\n"
        "o1\t5\t\t\t\t10\tresearch\t2020-01-01\no2\t5\t\t\t\t11\tneeds_id\t2020-01-01\n"
        "broken\trow\n"
    )
    rows = [
        "p1\t71\to1\t5\tjpg\tCC-BY\t10\t10\t0",
        "p2\t72\to1\t5\tpng\tCC0\t10\t10\t1",
        "p3\t73\to2\t6\tjpg\tCC0\t1\t1\t0",
        "p4\t74\to9\t6\tjpg\tCC0\t1\t1\t0",
    ]
    header = "photo_uuid\tphoto_id\tobservation_uuid\tobserver_id\textension\tlicense\twidth\theight\tposition"
    (tmp_path / "photos.csv").write_text("\n".join([header, *rows]) + "\n")
    assert detect_format(tmp_path) == "inaturalist"
    reader = open_reader(tmp_path, size="original")
    broken, first, second, third, orphan = reader
    assert isinstance(broken, Rejected)
    assert (broken.source, broken.row) == ("observations.csv", 4)
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert isinstance(third, Record)
    assert isinstance(orphan, Rejected)
    assert (first.image, first.group, second.group) == ("photos/71/original.jpg", "o1", "o1")
    assert str(first.lineage) == 'kingdom: Animalia > phylum: Chord"ata > genus: Sciurus > species: niger'
    assert (third.lineage.binomial, third.qualifier) == ("Sciurus niger", "needs_id")
    assert orphan.value == "o9"


def test_the_published_sample_of_the_dumps_is_accounted_for_row_by_row(shared: Path) -> None:
    reader = open_reader(shared / "data/annotations/inaturalist/open_data/inaturalist-open-data")
    items = list(reader)
    assert sum(item.source == "photos.csv" for item in items) == 50
    cut_off = [item for item in items if item.source != "photos.csv"]  # lines without all their cells
    assert [(item.source, type(item)) for item in cut_off] == [("observations.csv", Rejected)] * 2


@pytest.mark.parametrize("text", ["", "[]", "{", '{"images": [{"id": 1', '{"images": [1, 2}', '{"images" [1]}', "\xff"])
def test_damaged_json_is_one_named_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.json"):
        list(stream_arrays(path, ("images",)))


def test_streamed_arrays_equal_the_json_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taxadiffusion.readers.json_stream._CHUNK_BYTES", 7)
    value = {
        "a": [],
        "images": [{"n": i, "text": 'é"]},' * i, "deep": [[1.5, None], {"x": True}]} for i in range(20)],
        "z": -12.5,
    }
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    assert [element for _, element in stream_arrays(path, ("images",))] == value["images"]
