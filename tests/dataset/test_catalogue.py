"""Names read against a catalogue in the shape of the Catalogue of Life's downloads, and taxonID kept to the picture."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion.cli import app
from taxadiffusion.dataset import PreparedDataset, PrepareSettings, prepare
from taxadiffusion.dataset.catalogue import CatalogueReport, read_against
from taxadiffusion.dataset.catalogue_file import is_catalogue, open_names
from taxadiffusion.dataset.columns import IMAGES, IMAGES_MAPPED
from taxadiffusion.dataset.export import export
from taxadiffusion.dataset.inspect import CheckSettings, inspect_source
from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage
from taxadiffusion.readers import Record, open_reader
from taxadiffusion.taxonomy import Taxonomy
from tests.named_pictures import pictures, table
from tests.taxa import taxonomy_of

# id, parent (of a synonym: its accepted taxon), status, rank, name, authorship
USAGES = [
    ("A", "", "accepted", "kingdom", "Animalia", ""),
    ("F", "A", "accepted", "family", "Pomacentridae", "Bonaparte, 1831"),
    ("G", "F", "accepted", "genus", "Amphiprion", 'Bloch & "Schneider", 1801'),
    ("S1", "G", "accepted", "species", "Amphiprion clarkii", "(Bennett, 1830)"),
    ("S2", "S1", "synonym", "species", "Amphiprion xanthurus", "Cuvier, 1830"),
    ("S3", "G", "provisionally accepted", "species", "Amphiprion dubius", "X, 1900"),
    ("S4", "S1", "ambiguous synonym", "species", "Amphiprion ambiguus", "X, 1900"),
    ("S5", "S1", "synonym", "species", "Amphiprion duplex", "X, 1900"),
    ("S6", "S3", "synonym", "species", "Amphiprion duplex", "Y, 1901"),
    ("S7", "S1", "misapplied", "species", "Amphiprion errans", "auct. non X"),
    ("M1", "A", "accepted", "genus", "Morus", "Vieillot, 1816"),
    ("M2", "", "accepted", "genus", "Morus", "L."),
    ("C", "A", "accepted", "species", "Canis lupus", "Linnaeus, 1758"),
    ("C1", "C", "accepted", "subspecies", "Canis lupus familiaris", "Linnaeus, 1758"),
    ("K", "A", "accepted", "species", "Carabus (Archicarabus) nemoralis", "O.F.Müller, 1764"),
    ("H", "", "accepted", "species", "Salix × fragilis", "L."),
]


def coldp(folder: Path) -> Path:
    columns = ("ID", "parentID", "status", "rank", "scientificName", "authorship")
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(f"col:{column}" for column in columns), *("\t".join(row) for row in USAGES)]
    (folder / "NameUsage.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "metadata.yaml").write_text("title: a catalogue\n", encoding="utf-8")
    return folder


def darwin_core(folder: Path) -> Path:
    """As the Catalogue of Life writes it: the author inside scientificName, accepted taxa named by their id."""
    columns = (
        "taxonID", "parentNameUsageID", "acceptedNameUsageID", "taxonomicStatus", "taxonRank", "scientificName",
        "scientificNameAuthorship",
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(f"dwc:{column}" for column in columns)]
    for id_, parent, status, rank, name, author in USAGES:
        is_synonym = "synonym" in status or status == "misapplied"
        links = ("", parent) if is_synonym else (parent, "")
        lines.append("\t".join((id_, *links, status, rank, f"{name} {author}".strip(), author)))
    (folder / "Taxon.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, f"inside/{file.name}")
    return path


def taxonomy(*names: str) -> Taxonomy:
    """Species (and trinomials) without higher ranks but their genera; one word is a family."""
    ranks = ("family", "genus", "species", "subspecies")
    lineages = [
        Lineage.of(zip(ranks[1:], name.split(), strict=False)) if " " in name else Lineage.of({"family": name})
        for name in names
    ]
    return taxonomy_of(lineages, ranks)


def judged(taxa: Taxonomy, archive: Path) -> CatalogueReport:
    return read_against(taxa, np.ones(len(taxa), np.int64), archive)


@pytest.mark.parametrize("make", [coldp, darwin_core])
@pytest.mark.parametrize("packed", [False, True])
def test_every_name_is_accepted_a_synonym_doubtful_or_unknown(tmp_path: Path, make: object, packed: bool) -> None:
    archive = make(tmp_path / "col")  # type: ignore[operator]
    taxa = taxonomy(
        "Pomacentridae", "Amphiprion clarkii", "Amphiprion xanthurus", "Amphiprion dubius", "Amphiprion ambiguus",
        "Amphiprion duplex", "Amphiprion errans", "Amphiprion clarki", "Morus novus", "Canis lupus familiaris",
        "Carabus nemoralis", "Salix fragilis", "Morus",
    )  # fmt: skip
    report = judged(taxa, zipped(archive) if packed else archive)
    label = {t: taxa.lineage(t).label for t in range(len(taxa))}
    assert {label[t]: text for t, text in report.ids.items()} == {
        "Pomacentridae": "F", "Amphiprion": "G", "Amphiprion clarkii": "S1", "Canis lupus": "C",
        "Canis lupus familiaris": "C1", "Carabus nemoralis": "K", "Salix fragilis": "H",
    }  # fmt: skip
    assert [(j.name, j.accepted, j.taxon_id) for j in report.synonyms] == [
        ("Amphiprion xanthurus", "Amphiprion clarkii", "S1")
    ]
    doubtful = {j.name: j.why for j in report.doubtful}
    assert doubtful.keys() == {
        "Amphiprion dubius", "Amphiprion ambiguus", "Amphiprion duplex", "Amphiprion errans", "Morus",
    }  # fmt: skip
    assert "provisionally" in doubtful["Amphiprion dubius"]
    assert "several taxa" in doubtful["Amphiprion ambiguus"]
    assert "Amphiprion clarkii" in doubtful["Amphiprion duplex"]
    assert "by mistake" in doubtful["Amphiprion errans"]
    unknown = {j.name: j.why for j in report.unknown}
    assert unknown["Amphiprion clarki"] == "did you mean Amphiprion clarkii?"
    assert unknown["Morus novus"] == ""
    assert {"Carabus", "Canis", "Salix"} <= unknown.keys()
    assert report.names == len(taxa)
    assert report.accepted + len(report.synonyms) + len(report.doubtful) + len(report.unknown) == report.names


def test_a_kingdom_tells_homonyms_apart_where_the_catalogue_states_it(tmp_path: Path) -> None:
    columns = ("ID", "status", "rank", "scientificName", "kingdom")
    rows = [("1", "accepted", "genus", "Morus", "Animalia"), ("2", "accepted", "genus", "Morus", "Plantae")]
    table(tmp_path, columns, *rows, name="NameUsage.csv")
    lineages = [Lineage.of({"kingdom": kingdom, "genus": "Morus"}) for kingdom in ("Animalia", "Plantae")]
    taxa = taxonomy_of(lineages, ("kingdom", "genus"))
    report = judged(taxa, tmp_path)
    assert {str(taxa.lineage(t)): text for t, text in report.ids.items()} == {
        "kingdom: Animalia > genus: Morus": "1",
        "kingdom: Plantae > genus: Morus": "2",
    }


def test_memory_holds_the_asked_names_only(tmp_path: Path) -> None:
    """The table is read in blocks: more than one batch comes of a file larger than a block."""
    folder = tmp_path / "col"
    folder.mkdir()
    with (folder / "NameUsage.tsv").open("w", encoding="utf-8") as file:
        file.write("col:ID\tcol:status\tcol:rank\tcol:scientificName\tcol:remarks\n")
        filler = "x" * 900
        for number in range(10_000):
            file.write(f"{number}\taccepted\tspecies\tAmphiprion clarkii{'abcdefghij'[number % 10]}\t{filler}\n")
    sizes = [batch.num_rows for batch in open_names(folder).batches(("id", "name"))]
    assert len(sizes) > 1
    assert sum(sizes) == 10_000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("names.csv", "folder,genus\n", "holds no table of names"),
        ("Taxon.tsv", "col:ID\tcol:nameID\tcol:parentID\n", "no column for status, rank, name"),
        ("NameUsage.tsv", "col:ID\tcol:status\tcol:rank\tcol:scientificName\n1\taccepted\n", "cannot be read"),
    ],
)
def test_what_is_no_catalogue_is_refused_with_what_to_get(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        judged(taxonomy("Amphiprion clarkii"), tmp_path)


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    path = zipped(coldp(tmp_path / "col"))
    data = bytearray(path.read_bytes())
    start = data.find(b"NameUsage.tsv") + len("NameUsage.tsv")
    data[start + 20 : start + 40] = bytes(20)
    path.write_bytes(bytes(data))
    assert is_catalogue(path)
    with pytest.raises(DataError, match="download it again"):
        judged(taxonomy("Amphiprion clarkii"), path)


def reef(folder: Path) -> Path:
    return pictures(
        folder,
        ("Pomacentridae", "Amphiprion", "clarkii", "x1"),
        ("Pomacentridae", "Amphiprion", "clarkii", "x1"),
        ("Pomacentridae", "Amphiprion", "xanthurus", "x2"),
        ("Pomacentridae", "Amphiprion", "ocellaris", ""),
        columns=("family", "genus", "species", "taxonID"),
    )


def test_check_names_says_what_to_mend_and_its_rules_mend_it(tmp_path: Path) -> None:
    source, archive, rules = reef(tmp_path / "reef"), coldp(tmp_path / "col"), tmp_path / "rules.yaml"
    run = CliRunner().invoke(app, ["check", str(source), "--names", str(archive), "--rules", str(rules)])
    assert run.exit_code == 3  # the synonym is in use beside its accepted name
    assert "3 of 5 names accepted, 1 synonyms, 0 doubtful, 1 unknown" in run.output
    assert "Amphiprion xanthurus" in run.output
    again = inspect_source(source, CheckSettings(fix=rules, catalogue=archive))
    assert (again.contradictions, again.fixes_applied) == (
        0, {"rename species Amphiprion xanthurus to Amphiprion clarkii": 1},
    )  # fmt: skip
    assert again.catalogue is not None
    assert again.catalogue.synonyms == []
    report = tmp_path / "report.json"
    CliRunner().invoke(app, ["check", str(source), "--names", str(archive), "--json", str(report)])
    assert json.loads(report.read_text(encoding="utf-8"))["catalogue"]["accepted"] == 3


def test_names_of_a_format_and_a_catalogue_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "folders"
    (folder / "clownfish").mkdir(parents=True)
    Image.new("RGB", (12, 12)).save(folder / "clownfish" / "a.png")
    names = tmp_path / "names.csv"
    names.write_text("folder,genus,species\nclownfish,Amphiprion,clarkii\n", encoding="utf-8")
    arguments = ["check", str(folder), "--names", str(names), "--names", str(coldp(tmp_path / "col"))]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    assert "2 of 2 names accepted" in run.output


def test_taxon_id_goes_from_the_table_to_the_data_set_and_its_exports(tmp_path: Path) -> None:
    source, out = reef(tmp_path / "reef"), tmp_path / "prepared"
    prepare(source, out, num_workers=1)
    dataset = PreparedDataset.open(out)
    ids = {dataset.taxonomy.lineage(t).label: text for t, text in dataset.source_taxon_ids().items()}
    assert ids == {"Amphiprion clarkii": "x1", "Amphiprion xanthurus": "x2"}
    assert dataset.record(0).source_taxon_id == "x1"
    for target in ("imagefolder", "webdataset"):
        written = export(dataset, tmp_path / target, target)
        read_back = [item for item in open_reader(written.path) if isinstance(item, Record)]
        assert [item.source_taxon_id for item in read_back] == [
            dataset.record(row).source_taxon_id for row in range(len(dataset))
        ]
    taxa = export(dataset, tmp_path / "taxa.csv", "csv")
    with taxa.path.open(encoding="utf-8", newline="") as file:
        assert [row["source_taxon_id"] for row in csv.DictReader(file) if row["label"] == "Amphiprion clarkii"] == [
            "x1"
        ]


def test_prepare_takes_the_ids_of_the_catalogue(tmp_path: Path) -> None:
    source, out = reef(tmp_path / "reef"), tmp_path / "prepared"
    report = prepare(source, out, PrepareSettings(verify=False, catalogue=coldp(tmp_path / "col")), num_workers=1)
    dataset = PreparedDataset.open(out)
    assert [dataset.record(row).source_taxon_id for row in range(4)] == ["S1", "S1", "x2", None]
    counts = report.reader_counts
    assert (counts["names_accepted"], counts["names_that_are_synonyms"], counts["names_unknown"]) == (3, 1, 1)


def test_the_id_of_a_finer_taxon_than_the_one_kept_is_left_out(tmp_path: Path) -> None:
    rows = [
        ("1", "Canis lupus familiaris", "C1"), ("2", "Canis lupus", "C"), ("3", "Canis cf. lupus", "C"),
    ]  # fmt: skip
    table(tmp_path, ("gbifID", "scientificName", "taxonID"), *rows, name="occurrence.txt", delimiter="\t")
    items = [item for item in open_reader(tmp_path) if isinstance(item, Record)]
    assert [(item.lineage.label, item.source_taxon_id) for item in items] == [
        ("Canis lupus", None), ("Canis lupus", "C"), ("Canis", None),
    ]  # fmt: skip
    whole = [item for item in open_reader(tmp_path, ranks="genus,species,subspecies") if isinstance(item, Record)]
    assert whole[0].source_taxon_id == "C1"


def test_a_data_set_of_an_earlier_version_is_read_and_recognised(tmp_path: Path) -> None:
    """Without ids nothing of a data set but an empty column is new, and that column may be absent."""
    rows = [("Labridae", "Thalassoma", "lunare"), ("Labridae", "Hemigymnus", "fasciatus")]
    source, out = pictures(tmp_path / "reef", *rows, columns=("family", "genus", "species")), tmp_path / "prepared"
    first = prepare(source, out, num_workers=1)
    with pa.OSFile(str(out / IMAGES_MAPPED), "rb") as file:
        images = pa.ipc.open_file(file).read_all().drop_columns(["source_taxon_id"])
    with pa.OSFile(str(out / IMAGES_MAPPED), "wb") as sink, pa.ipc.new_file(sink, images.schema) as writer:
        writer.write_table(images)
    pq.write_table(images, out / IMAGES)
    dataset = PreparedDataset.open(out)
    assert (dataset.record(0).source_taxon_id, dataset.source_taxon_ids()) == (None, {})
    assert inspect_source(out).taxa == 5
    assert prepare(source, out, num_workers=1).content_hash == first.content_hash
    (record, *_) = (item for item in open_reader(source) if isinstance(item, Record))
    assert "source_taxon_id" not in repr(record)  # what a listing's hash is taken of
