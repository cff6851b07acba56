"""Every collected archive loads or gives one named error; where the reference library reads it, both agree."""

from __future__ import annotations

import csv
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.readers import Record, Rejected, detect_format, open_reader
from taxadiffusion.readers.darwincore import taxon_of
from taxadiffusion.readers.darwincore_archive import Archive, ArchiveRow
from taxadiffusion.readers.darwincore_media import PICTURE, addresses, kind_of, picture_names


def archives(shared: Path) -> list[Path]:
    folder = shared / "data/annotations/darwincore"
    collected = [path for path in (folder / "python-dwca-reader").iterdir() if path.suffix != ".rst"]
    return sorted([*collected, folder / "jhpoelen-dwca-event-example", folder / "gbif-download_LibertyCap"])


def test_every_archive_loads_or_gives_one_named_error(shared: Path) -> None:
    loaded, failed = [], []
    for path in archives(shared):
        try:
            items = list(open_reader(path, "darwincore"))
        except DataError as error:
            failed.append(str(error))
        else:
            assert items
            loaded.append(path.name)
    assert len(loaded) == 32
    assert len(failed) == 1  # a multimedia table without its occurrences: no taxon is known
    assert "gbif-download_LibertyCap" in failed[0]


def test_rows_equal_those_of_python_dwca_reader_where_it_reads_the_archive(shared: Path) -> None:
    dwca = pytest.importorskip("dwca.read", reason="needs python-dwca-reader, of the extra [dev]")
    from dwca.exceptions import InvalidArchive

    compared = 0
    for path in archives(shared):
        try:
            reference = dwca.DwCAReader(str(path))
            rows = [(row.id, {k.rsplit("/", 1)[-1]: v for k, v in row.data.items()}) for row in reference]
        except (InvalidArchive, OSError, KeyError, ValueError, AttributeError, IndexError):
            continue
        if reference.descriptor is None or path.name == "dwca-malformed-descriptor":
            continue
        archive = Archive(path)
        ours = [row for row in archive.rows(archive.core) if isinstance(row, ArchiveRow)]
        assert [row.values["id"] for row in ours] == [row_id for row_id, _ in rows], path.name
        for row, (_, data) in zip(ours, rows, strict=True):
            assert {k: v.strip() for k, v in row.values.items() if k != "id"} == {k: v.strip() for k, v in data.items()}
        compared += 1
    assert compared >= 15


def test_media_join_many_to_one_and_non_images_are_counted(shared: Path, tmp_path: Path) -> None:
    published = shared / "data/annotations/darwincore/gbif-download_LibertyCap/multimedia.txt"
    with published.open(encoding="utf-8", newline="\n") as file:
        media = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    ids = sorted({row["gbifID"] for row in media})
    lines = ["gbifID\tkingdom\tgenus\tspecies\tscientificName\ttaxonRank"]
    lines += [
        f"{i}\tFungi\tPsilocybe\tPsilocybe semilanceata\tPsilocybe semilanceata (Fr.) P.Kumm.\tSPECIES" for i in ids
    ]
    (tmp_path / "occurrence.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "multimedia.txt").write_bytes(published.read_bytes())
    assert detect_format(tmp_path) == "darwincore"
    reader = open_reader(tmp_path)
    items = list(reader)
    records = [item for item in items if isinstance(item, Record)]
    images = [row for row in media if row["type"] == "StillImage" and not row["format"].startswith("text")]
    assert len(records) == len(images)
    assert reader.counts["non_images"] == len(media) - len(images) > 0  # type: ignore[attr-defined]
    assert Counter(record.group for record in records) == Counter(row["gbifID"] for row in images)
    addresses = {row["identifier"] or row["references"] for row in images}
    assert len({record.image for record in records}) == len(addresses)
    assert {record.lineage.binomial for record in records} == {"Psilocybe semilanceata"}
    assert {record.authorship for record in records} == {"(Fr.) P.Kumm."}
    assert [record.license for record in records] == [row["license"] or None for row in images]


def test_a_downloaded_picture_is_found_under_any_of_its_names(tmp_path: Path) -> None:
    url = "https://example.org/photos/334972716/original.jpeg"
    for name in picture_names("441", url, "image/jpeg"):
        folder = tmp_path / name.replace("/", "-")
        (folder / "media" / name).parent.mkdir(parents=True)
        (folder / "media" / name).touch()
        (folder / "occurrence.txt").write_text("gbifID\tfamily\tscientificName\n441\tApidae\tApis mellifera\n")
        (folder / "multimedia.txt").write_text(
            f"gbifID\ttype\tformat\tidentifier\n441\tStillImage\timage/jpeg\t{url}\n"
        )
        reader = open_reader(folder)
        (record,) = reader
        assert isinstance(record, Record)
        assert (reader.root / record.image).is_file()


def test_an_event_archive_finds_its_occurrences(shared: Path) -> None:
    (record,) = open_reader(shared / "data/annotations/darwincore/jhpoelen-dwca-event-example")
    assert isinstance(record, Record)
    assert (record.lineage.binomial, record.group) == ("Ctenomys sociabilis", "tuco1")
    assert record.license == "(c) Field Museum of Natural History - CC BY-NC 4.0"


@pytest.mark.parametrize(
    ("values", "lineage"),
    [
        (
            {"scientificName": "Lactoria cornuta (Linnaeus, 1758)", "family": "Ostraciidae"},
            "family: Ostraciidae > genus: Lactoria > species: cornuta",
        ),
        (
            {
                "genus": "Tetraodon",
                "specificEpithet": "Tetraodon fluviatilis",
                "scientificName": "Chelonodon fluviatilis",
            },
            "genus: Tetraodon > species: fluviatilis",
        ),
        (
            {"genus": "Salmo", "specificEpithet": "trutta", "infraspecificEpithet": "fario"},
            "genus: Salmo > species: trutta > subspecies: fario",
        ),
        (
            {"scientificName": "Formicidae", "taxonRank": "FAMILY", "order": "Hymenoptera"},
            "order: Hymenoptera > family: Formicidae",
        ),
        ({"scientificName": "Formicidae", "order": "Hymenoptera"}, "order: Hymenoptera"),
        ({"scientificName": "BOLD:AAA1234", "taxonRank": "UNRANKED", "family": "Apidae"}, "family: Apidae"),
        ({"scientificName": "betta splendens"}, "genus: Betta > species: splendens"),
        ({"genus": "Aus", "scientificName": "Bus cus"}, "genus: Aus"),
    ],
)
def test_terms_give_the_taxon_at_its_depth(values: dict[str, str], lineage: str) -> None:
    assert str(taxon_of(values).lineage) == lineage


def test_entities_and_missing_core_files_are_refused(tmp_path: Path) -> None:
    files = "<files><location>o.txt</location></files>"
    meta = f'<archive><core rowType="x/Occurrence">{files}<id index="0"/></core></archive>'
    (tmp_path / "meta.xml").write_text(meta)
    with pytest.raises(DataError, match=r"o\.txt"):
        open_reader(tmp_path)
    (tmp_path / "meta.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]>' + meta)
    with pytest.raises(DataError, match="document type or defines entities"):
        open_reader(tmp_path)
    (tmp_path / "meta.xml").write_text("<archive>")
    with pytest.raises(DataError, match="not XML"):
        open_reader(tmp_path)


def test_short_rows_and_undecodable_bytes_are_rejected_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "occurrence.txt").write_bytes(
        b"gbifID\tfamily\tscientificName\n1\tApidae\tApis mellifera\n"
        b"2\tApidae\n3\tApid\xe6\tApis cerana\n4\tApidae\tApis\x00 dorsata\n"
    )
    items = list(open_reader(tmp_path))
    assert [type(item) for item in items] == [Record, Rejected, Rejected, Rejected]


def test_a_damaged_zip_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("occurrence.txt", "gbifID\tscientificName\n" + "1\tApis mellifera\n" * 500)
    data = bytearray(path.read_bytes())
    data[60:70] = b"\0" * 10
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a\.zip"):
        list(open_reader(path, "darwincore"))


@pytest.mark.parametrize(
    ("row_type", "type_", "format_", "address", "kind"),
    [
        ("multimedia", "StillImage", "", "https://x.org/1", PICTURE),
        ("multimedia", "http://purl.org/dc/dcmitype/StillImage", "", "", PICTURE),
        ("multimedia", "", "image/jpeg", "https://x.org/1", PICTURE),
        ("multimedia", "image/jpeg", "", "https://x.org/1", PICTURE),
        ("multimedia", "", "", "https://x.org/a.JPG?size=large", PICTURE),
        ("multimedia", "Specimen", "", "https://x.org/a.png", PICTURE),
        ("multimedia", "StillImage", "image/jpeg", "https://x.org/a.html", PICTURE),
        ("image", "", "", "https://x.org/photos/7/original", PICTURE),
        ("multimedia", "MovingImage", "", "https://x.org/a.jpg", "films"),
        ("multimedia", "MovingImage", "video/mp4", "", "films"),
        ("multimedia", "Image", "", "https://x.org/a.mp4", "films"),
        ("image", "", "", "https://x.org/a.mov", "films"),
        ("multimedia", "Sound", "audio/mpeg", "", "sounds"),
        ("multimedia", "StillImage", "text/html", "", "texts"),
        ("multimedia", "", "application/pdf", "", "texts"),
        ("multimedia", "InteractiveResource", "", "", "other_media"),
        ("multimedia", "", "", "https://x.org/photos/7/original", "media_of_unknown_kind"),
    ],
)
def test_which_media_are_pictures(row_type: str, type_: str, format_: str, address: str, kind: str) -> None:
    assert kind_of(row_type, type_, format_, address) == kind


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("https://x.org/a.jpg; https://x.org/b.jpg", ["https://x.org/a.jpg", "https://x.org/b.jpg"]),
        ("https://x.org/a.jpg | https://x.org/b.jpg |", ["https://x.org/a.jpg", "https://x.org/b.jpg"]),
        ("https://x.org/a.jpg, http://x.org/b.jpg", ["https://x.org/a.jpg", "http://x.org/b.jpg"]),
        ("https://x.org/a.jpg https://x.org/b.jpg", ["https://x.org/a.jpg", "https://x.org/b.jpg"]),
        ("https://x.org/a;v=1,2/https://y.org/b.jpg", ["https://x.org/a;v=1,2/https://y.org/b.jpg"]),
        ("a.jpg; b/c.png", ["a.jpg", "b/c.png"]),
        ("one; two.jpg", ["one; two.jpg"]),
        ("", []),
    ],
)
def test_several_addresses_in_one_cell(cell: str, found: list[str]) -> None:
    assert addresses(cell) == found


def test_films_among_associated_media_are_counted_and_take_no_other_picture(tmp_path: Path) -> None:
    rows = "1\tApis mellifera\thttps://x.org/a.mp4\n2\tApis mellifera\thttps://x.org/b.jpg; https://x.org/b.wav\n"
    (tmp_path / "occurrence.txt").write_text(f"id\tscientificName\tassociatedMedia\n{rows}3\tApis mellifera\t\n")
    reader = open_reader(tmp_path)
    assert [(item.row, isinstance(item, Record)) for item in reader] == [(3, True), (4, True)]
    counts = reader.counts  # type: ignore[attr-defined]
    assert (counts["films_left_out"], counts["sounds_left_out"], counts["non_images"]) == (1, 1, 2)


def meta(rows: str, *, core: str = "", extensions: str = "") -> str:
    terms = ("id", "scientificName", "genus")
    fields = "".join(f'<field index="{i}" term="x/{term}"/>' for i, term in enumerate(terms) if i)
    files = f"<files><location>{rows}</location></files>"
    attributes = f'rowType="x/Occurrence" ignoreHeaderLines="1" {core}'
    return f'<archive><core {attributes}>{files}<id index="0"/>{fields}</core>{extensions}</archive>'


def test_a_row_may_end_before_terms_that_nothing_hangs_on(tmp_path: Path) -> None:
    (tmp_path / "meta.xml").write_text(meta("o.txt", core='fieldsTerminatedBy="\\t"'))
    (tmp_path / "o.txt").write_text("id\tname\tgenus\n1\tApis mellifera\n2\n3\tApis cerana\tApis\n4\tApis dors")
    reader = open_reader(tmp_path)
    assert [(item.row, type(item)) for item in reader] == [(2, Record), (3, Rejected), (4, Record), (5, Rejected)]
    assert reader.counts["rows_with_trailing_cells_missing"] == 1  # type: ignore[attr-defined]


def test_all_media_tables_are_read(tmp_path: Path) -> None:
    files = "<files><location>{0}.csv</location></files>"
    fields = '<coreid index="0"/><field index="1" term="x/identifier"/>'
    extension = f'<extension rowType="x/{{0}}" fieldsTerminatedBy=",">{files}{fields}</extension>'
    media = extension.format("Image") + extension.format("Multimedia")
    (tmp_path / "meta.xml").write_text(meta("o.txt", core='fieldsTerminatedBy=","', extensions=media))
    (tmp_path / "o.txt").write_text("id,name,genus\n1,Apis mellifera,Apis\n")
    (tmp_path / "Image.csv").write_text("1,a.jpg\n")
    (tmp_path / "Multimedia.csv").write_text("1,b.jpg\n")
    assert [item.image for item in open_reader(tmp_path) if isinstance(item, Record)] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("written", ["\t", " ", "&#9;", "\\t"])
def test_a_tab_that_xml_made_a_blank_is_still_a_tab(tmp_path: Path, written: str) -> None:
    (tmp_path / "meta.xml").write_text(meta("o.txt", core=f'fieldsTerminatedBy="{written}"'))
    (tmp_path / "o.txt").write_text("id\tname\tgenus\n1\tApis mellifera\tApis\n")
    (record,) = open_reader(tmp_path)
    assert isinstance(record, Record)


def test_line_ends_that_no_text_has_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "meta.xml").write_text(meta("o.txt", core='linesTerminatedBy="~"'))
    (tmp_path / "o.txt").write_text("id,name,genus~1,Apis mellifera,Apis~")
    with pytest.raises(DataError, match="lines end in '~'"):
        open_reader(tmp_path)


def test_occurrences_that_run_together_are_bad_rows_also_where_media_stand_apart(tmp_path: Path) -> None:
    (tmp_path / "occurrence.txt").write_text(
        'id,scientificName,locality\n1,Apis mellifera,"reef\n2,Apis cerana,"cave\n3,Apis dorsata,ok\n'
    )
    (tmp_path / "multimedia.txt").write_text("id,identifier\n" + "".join(f"{i},{i}.jpg\n" for i in (1, 2, 3)))
    items = list(open_reader(tmp_path))
    assert [(item.source, item.row) for item in items if isinstance(item, Rejected)] == [
        ("occurrence.txt", 2),
        ("occurrence.txt", 3),
        ("multimedia.txt", 2),
        ("multimedia.txt", 3),
    ]
    assert [item.image for item in items if isinstance(item, Record)] == ["3.jpg"]
