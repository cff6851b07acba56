"""Laws of the search: own names, other names and misspelt ones lead to the taxon."""

from __future__ import annotations

import pytest

from taxadiffusion.taxonomy import OtherName
from taxadiffusion.web.find import Finder
from tests.site_taxa import CLARKII, CORNUTUS, OCELLARIS, served_model

MODEL = served_model()
ID = MODEL.ids
IDOL, NOBODY = OtherName(ID[CORNUTUS], "Moorish idol", "common name"), OtherName(999, "idol", "")
FINDER = Finder(served_model().called([IDOL, NOBODY]))


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
