"""Names are taken apart as a taxonomist would: certain part, authorship, qualifier; no text crashes the parser."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxadiffusion.names import ScientificName, folded_spelling, parse_name
from taxadiffusion.readers.taxon import read_taxon


@pytest.mark.parametrize(
    ("text", "genus", "epithet", "infraspecific"),
    [
        ("Danaus plexippus", "Danaus", "plexippus", ()),
        ("Salmo trutta fario Linnaeus, 1758", "Salmo", "trutta", ("fario",)),
        ("Agalinis purpurea (L.) Briton var. borealis (Berg.) Peterson 1987", "Agalinis", "purpurea", ("borealis",)),
        ("Carabus (Tanaocarabus) hendrichsi Bolvar y Pieltain, Rotger & Coronado-G 1967", "Carabus", "hendrichsi", ()),
        ("Hyacinthoides non-scripta (L.) Chouard ex Rothm.", "Hyacinthoides", "non-scripta", ()),
        ("Malus ×domestica", "Malus", "domestica", ()),
        ("Ia io", "Ia", "io", ()),
        ("Lamium_galeobdolon", "Lamium", "galeobdolon", ()),
        ("<i>Velutina halioides</i> (Linnaeus, 1758)", "Velutina", "halioides", ()),
        ("Sphyrna lewini", "Sphyrna", "lewini", ()),
        ("Opsarius barna", "Opsarius", "barna", ()),
    ],
)
def test_a_certain_name_keeps_genus_epithet_and_third_name(
    text: str, genus: str, epithet: str, infraspecific: tuple[str, ...]
) -> None:
    name = parse_name(text)
    assert (name.genus, name.epithet, name.infraspecific, name.qualifier) == (genus, epithet, infraspecific, None)


@pytest.mark.parametrize(
    ("text", "genus"),
    [
        ("Calidris cf. cooperi", "Calidris"),
        ("Acarinina aff pentacamerata", "Acarinina"),
        ("Sphingomonas sp. 37", "Sphingomonas"),
        ("Cecidomyiidae sp. BOLD:AER5166", "Cecidomyiidae"),
        ("Coleoptera Bold:AAV0432", "Coleoptera"),
        ("Anas superciliosa × platyrhynchos", "Anas"),
        ("Lacanobia nr. subjuncta Bold:Aab, 0925", "Lacanobia"),
    ],
)
def test_an_uncertain_name_stops_at_its_certain_part_and_keeps_the_rest_as_qualifier(text: str, genus: str) -> None:
    name = parse_name(text)
    assert (name.genus, name.epithet) == (genus, None)
    assert name.qualifier is not None
    assert name.qualifier.split()[-1] in text


@pytest.mark.parametrize(
    "text",
    ["", "incertae sedis", "not_classified", "Unidentified", "None recorded", "unassigned Formicinae", "BOLD:AAA1234",
     "Drosophila sturtevanti rhabdovirus", "Gen. et n. sp. Kaimatira", "12345", "�", "×", "()"],
)  # fmt: skip
def test_what_is_no_name_is_no_taxon(text: str) -> None:
    assert parse_name(text).canonical is None


def test_authorship_stands_apart() -> None:
    assert parse_name("Lactoria cornuta (Linnaeus, 1758)").authorship == "(Linnaeus, 1758)"
    assert parse_name("Amanita excelsa Gonn. & Rabenh.").authorship == "Gonn. & Rabenh."


def test_an_aggregate_keeps_its_species() -> None:
    name = parse_name("Parus caeruleus species complex")
    assert (name.canonical, name.qualifier) == ("Parus caeruleus", "complex")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_no_text_crashes_and_every_epithet_has_a_genus(text: str) -> None:
    name = parse_name(text)
    assert name.genus or not (name.epithet or name.infraspecific or name.qualifier)


def _published_cases(path: Path) -> list[tuple[str, str | None]]:
    """(name, expected canonical form or None) of the parser test suite in ../shared."""
    text = path.read_text(encoding="utf-8")
    documents = [json.loads(line) for line in re.findall(r"^(\{.*\})$", text, re.MULTILINE)]
    return [(d["verbatim"], (d.get("canonical") or {}).get("simple")) for d in documents]


def _finest(name: ScientificName) -> str | None:
    """The published form of an infrageneric name is the subgenus or section alone."""
    return name.subgenus if name.subgenus and not name.epithet and not name.qualifier else name.canonical


def _same_name(found: str | None, expected: str | None) -> bool:
    return (found and folded_spelling(found)) == (expected and folded_spelling(expected))


def test_the_published_names_never_crash_and_most_parse_as_published(shared: Path) -> None:
    folder = shared / "data/annotations/names"
    names = re.findall(r"^Name: (.*)$", (folder / "gnparser_test_data.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) == 770
    for name in names:
        parse_name(name)
    cases = _published_cases(folder / "gnparser_test_data.md")
    right = sum(_same_name(_finest(parse_name(name)), expected) for name, expected in cases)
    # By design not among them: `cf.` and hybrid formulae, which stop at the genus here, and numerals put into Latin.
    assert len(cases) == 771  # one name is followed by two documents
    assert right >= 714


def test_every_name_of_the_real_lists_is_a_binomial_or_a_known_exception(shared: Path) -> None:
    folder = shared / "data/annotations"
    names = {
        line.strip()
        for year in ("2017", "2018")
        for line in (folder / f"inaturalist/inat{year}_labels.txt").read_text(encoding="utf-8").splitlines()
    }
    with (folder / "fishnet/test.csv").open(encoding="utf-8") as file:
        names |= {row["species"] for row in csv.DictReader(file) if row["species"]}
    with (folder / "treeoflife/rare_species/metadata.csv").open(encoding="utf-8") as file:
        names |= {row["class"] for row in csv.DictReader(file)}
    different = {name for name in names if parse_name(name).canonical != name}
    assert len(names) == 17_562
    assert all("×" in name for name in different), different


@pytest.mark.parametrize(("cell", "convention"), [("clarkii", "epithet"), ("Amphiprion clarkii", "binomial")])
def test_both_conventions_give_the_same_taxon(cell: str, convention: str) -> None:
    taxon = read_taxon((("family", "Pomacentridae"), ("genus", "Amphiprion")), cell, convention)  # type: ignore[arg-type]
    assert taxon.lineage.binomial == "Amphiprion clarkii"
    assert taxon.notes == ()


def test_the_other_convention_is_recognised_and_noted() -> None:
    above = (("genus", "Amphiprion"),)
    assert read_taxon(above, "Amphiprion clarkii", "epithet").notes == ("species_as_binomial",)
    assert read_taxon(above, "clarkii", "binomial").notes == ("species_as_epithet",)
    assert read_taxon(above, "Amphiprion clarkii", "epithet").lineage == read_taxon(above, "clarkii", "epithet").lineage


def test_a_missing_genus_is_filled_from_the_binomial_and_a_contradicting_one_is_a_fault() -> None:
    filled = read_taxon((("family", "Labridae"),), "Thalassoma lunare", "binomial")
    assert filled.lineage.get("genus") == "Thalassoma"
    assert filled.notes == ("genus_filled",)
    assert "genus" in (read_taxon((("genus", "Homo"),), "Pan troglodytes", "binomial").fault or "")


def test_uncertain_species_leave_the_row_at_its_genus() -> None:
    taxon = read_taxon((("family", "Labridae"), ("genus", "Thalassoma")), "cf. lunare", "epithet")
    assert taxon.lineage.label == "Thalassoma"
    assert taxon.qualifier == "cf. lunare"


def test_spellings_fold_as_the_codes_of_nomenclature_say() -> None:
    assert folded_spelling("mülleri") == folded_spelling("muelleri")
    assert folded_spelling("m'coyi") == folded_spelling("mcoyi")
    assert folded_spelling("albus") != folded_spelling("alba")
