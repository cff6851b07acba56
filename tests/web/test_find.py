"""Laws of the search: own names, other names and misspelt ones lead to the taxon."""

from __future__ import annotations

from pathlib import Path

import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.web.find import Finder, OtherName, read_other_names
from tests.site_taxa import CLARKII, CORNUTUS, OCELLARIS, served_model

MODEL = served_model()
ID = MODEL.ids
FINDER = Finder(MODEL, (OtherName(ID[CORNUTUS], "Moorish idol", "common name"),))


@pytest.mark.parametrize(
    ("typed", "first", "how"),
    [
        ("Zanclus cornutus", CORNUTUS, ""),
        ("  zanclus   CORN", CORNUTUS, ""),
        ("cornut", CORNUTUS, ""),
        ("zanklus cornutis", CORNUTUS, "spelt nearly so"),
        ("zanclis cor", CORNUTUS, "spelt nearly so"),
        ("moorish", CORNUTUS, "common name"),
        ("morish idle", CORNUTUS, "common name, spelt nearly so"),
        ("Zanclus cornutus (Linnaeus, 1758)", CORNUTUS, ""),
        ("Amphiprion", CLARKII.truncated("genus"), ""),
        ("Amphiprion percula", CLARKII.truncated("genus"), "unknown species"),
    ],
)
def test_the_first_taxon_found_is_the_one_that_is_meant(typed: str, first: object, how: str) -> None:
    hit = FINDER(typed)[0]
    assert MODEL.lineages[hit.taxon] == first
    assert hit.how.startswith(how)
    assert bool(hit.how) == bool(how)


def test_what_begins_so_comes_before_what_is_spelt_nearly_so_and_each_taxon_once() -> None:
    found = [hit.taxon for hit in FINDER("Amphiprion")]
    assert found[0] == ID[CLARKII.truncated("genus")]
    assert set(found[1:3]) == {ID[CLARKII], ID[OCELLARIS]}
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("typed", ["", "   ", "qqqqqqqqqq", "\0", "%", "\ud800"])
def test_nothing_is_found_for_what_is_nothing(typed: str) -> None:
    assert FINDER(typed) == ()


def test_other_names_are_read_from_a_table_and_those_of_other_taxa_counted(tmp_path: Path) -> None:
    table = tmp_path / "names.csv"
    table.write_text("taxon,name,kind\nZanclus cornutus,Moorish idol,common name\nPasser domesticus,house sparrow,\n")
    names, elsewhere = read_other_names(table, MODEL)
    assert names == (OtherName(ID[CORNUTUS], "Moorish idol", "common name"),)
    assert elsewhere == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("taxon,name\nZanclus,x\n", "no column 'kind'"),
        ("taxon,name,kind\nZanclus cornutus,,common name\n", "row 2 has no name"),
        ("taxon,name,kind\n,Moorish idol,common name\n", "row 2 has no taxon"),
    ],
)
def test_a_table_that_says_too_little_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "names.csv").write_text(text)
    with pytest.raises(DataError, match=fault):
        read_other_names(tmp_path / "names.csv", MODEL)
