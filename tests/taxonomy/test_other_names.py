"""Laws of common names and synonyms: read from a table, of taxa that are there; shipped tables name shipped taxa."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import taxadiffusion
from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage
from taxadiffusion.taxonomy import OtherName, Taxonomy, called, find_taxon, names_beside, read_other_names
from tests.taxa import taxonomy_of

IDOL = Lineage.of({"family": "Zanclidae", "genus": "Zanclus", "species": "cornutus"})
TREE = taxonomy_of([IDOL], ("family", "genus", "species"))
SHIPPED = sorted((Path(taxadiffusion.__file__).parent / "weights").glob("*/names.csv"))


def test_names_of_taxa_that_are_there_are_read_and_the_others_counted(tmp_path: Path) -> None:
    table = tmp_path / "names.csv"
    rows = ("Zanclus cornutus,Moorish  idol,common name", "Zanclus sp.,idol,", "Passer domesticus,house sparrow,", ",,")
    table.write_text("\n".join(("taxon,name,kind", *rows[:3])) + "\n")
    names, elsewhere = read_other_names(table, TREE)
    (taxon,) = (taxon for taxon in range(len(TREE)) if TREE.lineage(taxon) == IDOL)
    assert names == (OtherName(taxon, "Moorish idol", "common name"),)
    assert elsewhere == 2
    assert called(names, " moorish IDOL ") == list(names)
    assert called(names, "idol") == called(names, "") == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("taxon,name\nZanclus,x\n", "no column 'kind'"),
        ("taxon,name,kind\nZanclus cornutus,,common name\n", "row 2 has no name"),
        ("taxon,name,kind\n,Moorish idol,common name\n", "row 2 has no taxon"),
        (f"taxon,name,kind\nZanclus,{'x' * 201},\n", "row 2 has a name of more than 200 letters"),
        (f"taxon,name,kind\nZanclus,{'x' * 200_000},\n", "no readable CSV"),
        ("taxon,name,kind\nZanclus,\udcff,\n", "no readable CSV"),
    ],
)
def test_a_table_that_says_too_little_or_too_much_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "names.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=fault):
        read_other_names(tmp_path / "names.csv", TREE)


def test_the_table_lies_beside_the_adapter_or_in_its_run(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    assert names_beside(adapter) is None
    (tmp_path / "names.csv").touch()
    assert names_beside(adapter) == tmp_path / "names.csv"
    (adapter / "names.csv").touch()
    assert names_beside(adapter) == adapter / "names.csv"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_every_shipped_name_is_of_a_taxon_of_its_model(path: Path) -> None:
    taxonomy = path.parent / "taxonomy.json"
    if not taxonomy.is_file():
        pytest.skip(f"{path.parent.name} is not shipped with this checkout")
    names, elsewhere = read_other_names(path, Taxonomy.from_json(json.loads(taxonomy.read_text())))
    assert names
    assert elsewhere == 0


def test_the_shipped_fish_is_found_by_what_divers_call_it() -> None:
    (path,) = (path for path in SHIPPED if path.parent.name == "reef-fish")
    taxonomy = Taxonomy.from_json(json.loads((path.parent / "taxonomy.json").read_text()))
    (found,) = called(read_other_names(path, taxonomy)[0], "moorish idol")
    assert found.taxon == find_taxon(taxonomy, "Zanclus cornutus").taxon_id
