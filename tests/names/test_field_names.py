"""Names as people really have them in tables and folders: each gives the right taxon, and `check` says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion.cli import app
from taxadiffusion.dataset.inspect import inspect_source
from taxadiffusion.names import Lineage, parse_name, written_name, written_taxon
from taxadiffusion.readers import Record, Rejected, open_reader
from taxadiffusion.readers.taxon import read_taxon
from tests.named_pictures import Row, pictures, table


def read(source: Path, **options: object) -> list[str]:
    """The lineages of a source's records, a rejected row as its reason."""
    return [str(x.lineage) if isinstance(x, Record) else x.reason for x in open_reader(source, **options)]


# "nan" and "None" joined to a genus


AMPHIPRION = "order: Perciformes > family: Pomacentridae > genus: Amphiprion"


def test_a_species_that_pandas_made_of_an_empty_cell_is_the_genus_alone_and_check_lists_it(tmp_path: Path) -> None:
    source = pictures(
        tmp_path,
        ("Perciformes", "Pomacentridae", "Amphiprion", "Amphiprion clarkii"),
        ("Perciformes", "Pomacentridae", "Amphiprion", "Amphiprion nan"),
        ("Perciformes", "Labridae", "nan", "nan nan"),
        columns=("order", "family", "genus", "species"),
    )
    expected = [f"{AMPHIPRION} > species: clarkii", AMPHIPRION, "order: Perciformes > family: Labridae"]
    assert read(source) == expected
    report = inspect_source(source)
    assert report.reader_counts["placeholder_in_name"] == 2
    assert report.names_put_right == [
        ("placeholder_in_name", "Amphiprion nan → Amphiprion", 1),
        ("placeholder_in_name", "nan nan → (no name)", 1),
    ]
    shown = CliRunner().invoke(app, ["check", str(source)]).output
    assert "Amphiprion nan → Amphiprion" in shown
    assert "“no name” (nan, None …)" in shown


def test_none_in_a_scientific_name_keeps_the_genus(tmp_path: Path) -> None:
    source = pictures(
        tmp_path,
        ("Perciformes", "Pomacentridae", "Amphiprion None"),
        ("Perciformes", "Labridae", "None None"),
        ("Perciformes", "Pomacentridae", "Amphiprion clarkii"),
        columns=("order", "family", "scientific_name"),
    )
    assert read(source) == [AMPHIPRION, "order: Perciformes > family: Labridae", f"{AMPHIPRION} > species: clarkii"]


def test_placeholders_and_capitals_through_the_treeoflife_reader(tmp_path: Path) -> None:
    above = ("Animalia", "Chordata", "Actinopterygii", "Perciformes", "Pomacentridae", "Amphiprion")
    source = table(
        tmp_path,
        ("uuid", "kingdom", "phylum", "class", "order", "family", "genus", "species", "scientific_name"),
        ("u1", *above, "Amphiprion nan", "Amphiprion nan"),
        ("u2", *above, "nan", "Amphiprion nan"),
        ("u3", *above, "clarkii", "Amphiprion clarkii"),
        ("u4", *above, "Clarkii", "Amphiprion Clarkii"),
        name="catalog.csv",
    )
    assert [line.rpartition("genus: ")[2] for line in read(source)] == [
        "Amphiprion", "Amphiprion", "Amphiprion > species: clarkii", "Amphiprion > species: clarkii",
    ]  # fmt: skip


def test_placeholders_and_capitals_through_the_darwin_core_reader(tmp_path: Path) -> None:
    source = table(
        tmp_path,
        ("gbifID", "scientificName", "genus", "species", "family", "taxonRank"),
        ("1", "Amphiprion nan", "Amphiprion", "Amphiprion nan", "Pomacentridae", ""),
        ("2", "Amphiprion clarkii", "Amphiprion", "Amphiprion clarkii", "Pomacentridae", ""),
        ("3", "Amphiprion None", "Amphiprion", "", "Pomacentridae", ""),
        ("4", "AMPHIPRION CLARKII", "AMPHIPRION", "AMPHIPRION CLARKII", "POMACENTRIDAE", ""),
        ("5", "Amphiprion Clarkii", "", "", "Pomacentridae", "species"),
        ("6", "Zanclus Pavona", "", "", "Zanclidae", "genus"),  # here the second word is the genus' author
        name="occurrence.txt",
        delimiter="\t",
    )
    genus = "family: Pomacentridae > genus: Amphiprion"
    species = f"{genus} > species: clarkii"
    assert read(source) == [genus, species, genus, species, species, "family: Zanclidae > genus: Zanclus"]
    assert [x.authorship for x in open_reader(source) if isinstance(x, Record)][2] is None


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("Amphiprion nan", "Amphiprion"),
        ("Amphiprion NaN", "Amphiprion"),
        ("Amphiprion None", "Amphiprion"),
        ("Amphiprion NA", "Amphiprion"),
        ("Amphiprion <NA>", "Amphiprion"),
        ("Amphiprion unknown", "Amphiprion"),
        ("Canis lupus nan", "Canis lupus"),
        ("Canis nan familiaris", "Canis"),
        ("nan clarkii", None),
        # and what only looks like it
        ("Nana nana", "Nana nana"),
        ("Ipomoea nil", "Ipomoea nil"),
        ("Nonea pulla", "Nonea pulla"),
        ("Nannopterum auritum", "Nannopterum auritum"),
        ("Trichoplusia ni", "Trichoplusia ni"),
        ("Xus albus Nan, 2001", "Xus albus"),
        ("Xus Nan 2001", "Xus"),
    ],
)
def test_only_words_that_no_epithet_is_spelt_as_end_a_name(text: str, read_as: str | None) -> None:
    assert parse_name(written_name(text).text).canonical == read_as


def test_a_real_epithet_that_is_spelt_like_no_name_stays_under_its_genus(tmp_path: Path) -> None:
    assert read_taxon((("genus", "Ipomoea"),), "nil", "epithet").lineage.binomial == "Ipomoea nil"
    assert read_taxon((("genus", "Amphiprion"),), "nil", "epithet").lineage.binomial is None
    source = pictures(tmp_path, ("Ipomoea", "nil"), ("Amphiprion", "nil"), columns=("genus", "species"))
    assert read(source) == ["genus: Ipomoea > species: nil", "genus: Amphiprion"]


def test_a_certain_genus_is_kept_where_no_column_names_it(tmp_path: Path) -> None:
    source = pictures(
        tmp_path, ("Chromis cf. viridis",), ("Labridae sp.",), ("Chromis sp. 1",), columns=("scientific_name",)
    )
    assert read(source) == ["genus: Chromis", "no rank has a name", "genus: Chromis"]


# Quotation marks


def test_quotation_marks_around_a_name_are_taken_off_and_others_are_reported(tmp_path: Path) -> None:
    source = pictures(
        tmp_path,
        ('"Labridae"', "“Thalassoma”", '"lunare"'),
        ("Labridae", "Thalassoma", "lunare"),
        ('Lab"ridae', "Hemigymnus", "fasciatus"),
        columns=("family", "genus", "species"),
    )
    good = "family: Labridae > genus: Thalassoma > species: lunare"
    assert read(source)[:2] == [good, good]
    report = inspect_source(source)
    assert report.reader_counts["quotation_marks"] == 1
    assert ("family", 'Lab"ridae', 1) in report.odd_names


# Capitals


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        (("family", "genus", "species"), [("Labridae", "Thalassoma", "Lunare"), ("Labridae", "Thalassoma", "lunare")]),
        (("family", "genus", "species"), [("LABRIDAE", "THALASSOMA", "LUNARE"), ("labridae", "thalassoma", "lunare")]),
        (("family", "scientific_name"), [("Labridae", "Thalassoma Lunare"), ("Labridae", "thalassoma lunare")]),
        (("family", "scientific_name"), [("LABRIDAE", "THALASSOMA LUNARE"), ("Labridae", "Thalassoma LUNARE")]),
        (("family", "genus", "species"), [("LABRIDAE", "THALASSOMA", "THALASSOMA LUNARE"),
                                          ("Labridae", "Thalassoma", "Thalassoma lunare")]),
    ],
)  # fmt: skip
def test_capitals_are_normalised_to_one_tree_and_counted(tmp_path: Path, columns: Row, rows: list[Row]) -> None:
    source = pictures(tmp_path, *rows, columns=columns)
    assert read(source) == ["family: Labridae > genus: Thalassoma > species: lunare"] * 2
    usual = ("Labridae Thalassoma lunare", "Labridae Thalassoma Thalassoma lunare")
    unusual = sum(" ".join(row) not in usual for row in rows)
    # A small first letter in the column of scientific names is no finding: Darwin Core's tables write it so.
    unusual -= ("Labridae", "thalassoma lunare") in rows
    report = inspect_source(source)
    assert report.reader_counts["capitals"] == unusual
    assert sum(rows for kind, _, rows in report.names_put_right if kind == "capitals") == unusual


def test_kingdoms_in_capitals_are_one_tree(tmp_path: Path) -> None:
    rows = [("ANIMALIA", "LABRIDAE"), ("Animalia", "Labridae"), ("animalia", "labridae")]
    report = inspect_source(pictures(tmp_path, *rows, columns=("kingdom", "family")))
    assert report.taxa_per_rank == {"kingdom": 1, "family": 1}
    assert report.reader_counts["capitals"] == 2


@pytest.mark.parametrize(
    "text",
    ["Zanclus Cuvier", "Zanclus Cuvier, 1831", "Quercus L.", "Zanclus Linnaeus", "Amphiprion Bloch & Schneider, 1801",
     "Anthoscopus Cabanis [1851]", "Pagellus Risso & Costa", "ZANCLUS CUVIER, 1831", "House Sparrow"],
)  # fmt: skip
def test_an_author_after_a_genus_is_no_epithet(text: str) -> None:
    assert parse_name(written_name(text).text).epithet is None


@pytest.mark.parametrize("text", ["SAR", "Eupercaria/misc", "BOLD:AAA1234", "incertae sedis A", "McCoya"])
def test_names_with_capitals_of_their_own_stay(text: str) -> None:
    assert written_taxon(text).text == text


# Third names


SUBSPECIES = [
    ("Carnivora", "Canidae", "Canis", "lupus", "familiaris"),
    ("Carnivora", "Canidae", "Canis", "lupus", "lupus"),
    ("Passeriformes", "Motacillidae", "Motacilla", "alba", "alba"),
    ("Passeriformes", "Motacillidae", "Motacilla", "flava", "alba"),
]


def test_a_trinomial_column_and_a_subspecies_column_give_the_same_taxa(tmp_path: Path) -> None:
    columns = ("order", "family", "genus", "species", "subspecies")
    apart = pictures(tmp_path / "apart", *SUBSPECIES, columns=columns)
    whole = [(order, family, " ".join(names)) for order, family, *names in SUBSPECIES]
    joined = pictures(tmp_path / "joined", *whole, columns=("order", "family", "scientific_name"))
    assert read(joined, ranks=",".join(columns)) == read(apart)
    assert read(joined) == [str(Lineage.of(dict(zip(columns[:4], row[:4], strict=True)))) for row in SUBSPECIES]
    cells = [(*row[:4], " ".join(row[2:])) for row in SUBSPECIES]
    assert read(pictures(tmp_path / "cells", *cells, columns=columns)) == read(apart)


def test_holes_stay_holes(tmp_path: Path) -> None:
    rows = [
        ("Perciformes", "", "Amphiprion", "clarkii"), ("", "Labridae", "Thalassoma", "lunare"),
        ("Perciformes", "", "", ""), ("", "", "Zanclus", "cornutus"),
    ]  # fmt: skip
    assert read(pictures(tmp_path, *rows, columns=("order", "family", "genus", "species"))) == [
        "order: Perciformes > genus: Amphiprion > species: clarkii",
        "family: Labridae > genus: Thalassoma > species: lunare",
        "order: Perciformes",
        "genus: Zanclus > species: cornutus",
    ]


# Folder names

FOLDERS: dict[str, tuple[str, str | None]] = {
    "Amphiprion clarkii": ("Amphiprion clarkii", None),
    "Amphiprion__clarkii ": ("Amphiprion clarkii", None),
    "Amphiprion clarkii (Bennett, 1830)": ("Amphiprion clarkii", None),
    "10_Amphiprion clarkii": ("Amphiprion clarkii", None),
    "AMPHIPRION_CLARKII": ("Amphiprion clarkii", None),
    "Zanclus-cornutus": ("Zanclus cornutus", None),
    "Zanclus.cornutus": ("Zanclus cornutus", None),
    "Zanclus_Cornutus": ("Zanclus cornutus", None),
    "Aa_aa": ("Aa aa", None),
    "Œdipoda_cærulescens": ("Œdipoda cærulescens", None),
    "Abudefduf_cf._vaigiensis": ("Abudefduf", "cf. vaigiensis"),
    "Chromis_aff._viridis": ("Chromis", "aff. viridis"),
    "Chromis_sp.": ("Chromis", "sp."),
    "Chromis_sp._1": ("Chromis", "sp. 1"),
    "Bacillus_sp._BIN_BOLD:AAA1234": ("Bacillus", "sp. BIN BOLD:AAA1234"),
    "Salix_×_fragilis": ("Salix fragilis", "hybrid"),
    "Anas_x_platyrhynchos": ("Anas platyrhynchos", "hybrid"),
    "x_Cuprocyparis_leylandii": ("Cuprocyparis leylandii", "hybrid"),
    "Passer domesticus x montanus": ("Passer", "× montanus"),
    "Brassica_oleracea_var._capitata": ("Brassica oleracea var. capitata", None),
    "Quercus_robur_subsp._robur": ("Quercus robur robur", None),
    "Orchis_militaris_f._alba": ("Orchis militaris f. alba", None),
    "Canis_lupus_familiaris": ("Canis lupus familiaris", None),
    "Carabus_(Archicarabus)_nemoralis": ("Carabus nemoralis", None),
    "Ischnura_elegans_female": ("Ischnura elegans", "female"),
    "Rosa_'Peace'": ("Rosa", "'Peace'"),
    "Felis_catus_2": ("Felis catus", None),
    "Homo_sapiens_(1)": ("Homo sapiens", None),
    "Mus_musculus-domesticus": ("Mus musculus-domesticus", None),
    "Amphiprion_nan": ("Amphiprion", None),
    "Thalassoma": ("Thalassoma", None),
}
REFUSED = {
    "Tobacco_mosaic_virus": "names a virus",
    "Influenza_A_virus": "names a virus",
    "panthera_leo": "rename it 'Panthera_leo'",
    "001.Black_footed_Albatross": "not a name such as Genus_species",
    "House_Sparrow": "not a name such as Genus_species",
    "Black-Bear": "not a name such as Genus_species",
    "Labridae": "not a name such as Genus_species",
    "unknown": "says that there is no name",
}


def test_folders_are_read_as_their_names_say_or_refused_by_name(tmp_path: Path) -> None:
    for name in (*FOLDERS, *REFUSED):
        (tmp_path / name).mkdir()
        Image.new("RGB", (12, 12)).save(tmp_path / name / "a.png")
    found: dict[str, tuple[str, str | None]] = {}
    refused: dict[str, str] = {}
    for item in open_reader(tmp_path, "folder", ranks="genus,species,subspecies"):
        if isinstance(item, Rejected):
            refused[item.value.partition("/")[0]] = item.reason
        else:
            found[item.image.partition("/")[0]] = (item.lineage.label, item.qualifier)
    assert found == FOLDERS
    assert refused.keys() == REFUSED.keys()
    for name, words in REFUSED.items():
        assert name in refused[name]
        assert words in refused[name]
    authors = {x.image: x.authorship for x in open_reader(tmp_path, "folder") if isinstance(x, Record)}
    assert {image.partition("/")[0]: a for image, a in authors.items() if a} == {
        "Amphiprion clarkii (Bennett, 1830)": "(Bennett, 1830)"
    }


# The reports' own inputs, where they are at hand


@pytest.mark.parametrize(
    ("case", "binomials"),
    [
        ("n-nanconcat", {"Amphiprion clarkii", "Thalassoma lunare"}),
        ("n-noneconcat", {"Amphiprion clarkii", "Thalassoma lunare"}),
        ("n-titlecase", {"Amphiprion clarkii", "Thalassoma lunare"}),
        ("n-titlecase2", {"Amphiprion clarkii", "Thalassoma lunare"}),
        ("n-upper", {"Thalassoma lunare"}),
        ("k-tol", {"Amphiprion clarkii"}),
        ("k-dwc", {"Amphiprion clarkii"}),
    ],
)
def test_the_reported_inputs_hold_exactly_their_species(shared: Path, case: str, binomials: set[str]) -> None:
    source = shared / "cases/field" / case
    if not source.is_dir():
        pytest.skip("needs the reported inputs in ../shared/cases/field")
    items = list(open_reader(source))
    assert all(isinstance(item, Record) for item in items)
    assert {item.lineage.binomial for item in items if isinstance(item, Record)} - {None} == binomials
