"""Laws of the taxonomy: ids follow from the set of lineages, never change, and names lead back to them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage
from taxadiffusion.taxonomy import Taxonomy, extended, find_taxon
from tests.taxa import taxonomy_of

LETTERS = "abcdefghijklmnopqrst"
RANKS = ("kingdom", "family", "genus", "species")
NAME = st.sampled_from(["A", "B", "C", "None", "nan", "a: b", "éa", "× d", "טב", "x\ny"])
LINEAGES = st.lists(st.dictionaries(st.sampled_from(RANKS), NAME, min_size=1).map(Lineage.of), max_size=30)


def lineage(text: str) -> Lineage:
    """ "Animalia Sulidae Morus bassanus"; "-" leaves a hole."""
    return Lineage.of({rank: name for rank, name in zip(RANKS, text.split(), strict=False) if name != "-"})


REEF = [
    lineage("Animalia Pomacentridae Amphiprion clarkii"),
    lineage("Animalia Pomacentridae Amphiprion ocellaris"),
    lineage("Animalia Pomacentridae Abudefduf vaigiensis"),
    lineage("Animalia Sulidae Morus bassanus"),
    lineage("Plantae Moraceae Morus alba"),
    lineage("Animalia Scaridae"),
]


@settings(max_examples=200, deadline=None)
@given(LINEAGES, st.randoms())
def test_ids_do_not_depend_on_row_order_and_lead_back(lineages: list[Lineage], chance: random.Random) -> None:
    taxonomy = taxonomy_of(lineages, RANKS)
    shuffled = lineages * 2
    chance.shuffle(shuffled)
    assert taxonomy_of(shuffled, RANKS) == taxonomy
    for taxon_id in range(len(taxonomy)):
        assert taxonomy.id_of(taxonomy.lineage(taxon_id)) == taxon_id
    for each in lineages:
        assert taxonomy.lineage(taxonomy.id_of(each)) == each


def test_ids_are_equal_over_a_hundred_shuffles() -> None:
    hashes = set()
    for seed in range(100):
        rows = REEF * 3
        random.Random(seed).shuffle(rows)
        hashes.add(taxonomy_of(rows, RANKS).content_hash)
    assert len(hashes) == 1


@settings(max_examples=100, deadline=None)
@given(LINEAGES, LINEAGES)
def test_appending_changes_no_id(first: list[Lineage], later: list[Lineage]) -> None:
    before = taxonomy_of(first, RANKS)
    after = extended(before, later)
    assert [after.lineage(t) for t in range(len(before))] == [before.lineage(t) for t in range(len(before))]
    assert {after.lineage(t) for t in range(len(after))} == {
        t for each in (*first, *later) for t in (each.truncated(rank) for rank in each.ranks)
    }
    assert extended(before, reversed(later)) == after
    assert extended(after, first) == after


@settings(max_examples=60, deadline=None)
@given(LINEAGES)
def test_round_trips_give_the_same_taxonomy(tmp_path_factory: pytest.TempPathFactory, lineages: list[Lineage]) -> None:
    taxonomy = taxonomy_of(lineages, RANKS)
    path = tmp_path_factory.mktemp("taxonomy") / "taxonomy.parquet"
    taxonomy.write(path)
    assert Taxonomy.read(path) == taxonomy
    assert Taxonomy.from_json(taxonomy.to_json()) == taxonomy


@settings(max_examples=60, deadline=None)
@given(LINEAGES)
def test_relations_agree_with_the_lineages(lineages: list[Lineage]) -> None:
    taxonomy = taxonomy_of(lineages, RANKS)
    ids = range(len(taxonomy))
    for taxon_id in ids:
        names = taxonomy.lineage(taxon_id).names
        parent = taxonomy.parent(taxon_id)
        assert (taxonomy.lineage(parent).names if parent is not None else ()) == names[:-1]
        assert taxonomy.subtree(taxon_id) == tuple(t for t in ids if taxonomy.lineage(t).names[: len(names)] == names)
        assert all(taxonomy.parent(child) == taxonomy.id_of(Lineage(names)) for child in taxonomy.children(taxon_id))
    ones = np.ones(len(taxonomy), np.int64)
    assert taxonomy.summed(ones).tolist() == [len(taxonomy.subtree(t)) for t in ids]


def test_lowest_common_ancestor() -> None:
    taxonomy = taxonomy_of(REEF, RANKS)
    clarkii, ocellaris, alba = (taxonomy.id_of(REEF[i]) for i in (0, 1, 4))
    assert taxonomy.lineage(taxonomy.lowest_common_ancestor(clarkii, ocellaris) or 0).label == "Amphiprion"
    assert taxonomy.lowest_common_ancestor(clarkii, clarkii) == clarkii
    assert taxonomy.lowest_common_ancestor(clarkii, alba) is None


@pytest.mark.parametrize(
    ("name", "rank", "label", "note"),
    [
        ("Amphiprion clarkii", None, "Amphiprion clarkii", None),
        ("amphiprion  CLARKII", None, "Amphiprion clarkii", None),
        ("Pomacentridae", None, "Pomacentridae", None),
        ("Amphiprion", "genus", "Amphiprion", None),
        ("Plantae > Morus", None, "Morus", None),
        ("clarkii", None, "Amphiprion clarkii", "epithet"),
        ("Amphiprion percula", None, "Amphiprion", "unknown species"),
    ],
)
def test_find(name: str, rank: str | None, label: str, note: str | None) -> None:
    found = find_taxon(taxonomy_of(REEF, RANKS), name, rank)
    assert found.lineage.label == label
    assert (found.note is None) == (note is None)
    assert note is None or note in str(found.note)


WOLVES = [
    Lineage.of(zip(("order", "family", "genus", "species", "subspecies"), names.split(), strict=False))
    for names in (
        "Carnivora Canidae Canis lupus familiaris",
        "Carnivora Canidae Canis lupus lupus",
        "Passeriformes Motacillidae Motacilla alba alba",
        "Passeriformes Motacillidae Motacilla flava alba",
        "Passeriformes Motacillidae Motacilla flava flava",
        "Coleoptera Carabidae Carabus nemoralis",
    )
] + [
    Lineage.of({"genus": "Brassica", "species": "oleracea", "subspecies": "var. capitata"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Canis lupus Linnaeus, 1758", "Canis lupus"),
        ("Canis lupus (Linnaeus, 1758)", "Canis lupus"),
        ("CANIS LUPUS", "Canis lupus"),
        ("Canis Lupus", "Canis lupus"),
        ("canis lupus Linnaeus, 1758", "Canis lupus"),
        ("CANIS", "Canis"),
        ("CANIDAE", "Canidae"),
        ("Canis Linnaeus, 1758", "Canis"),
        ("Canis_lupus", "Canis lupus"),
        ("Carabus (Archicarabus) nemoralis O.F. Müller, 1764", "Carabus nemoralis"),
        ("Canis lupus familiaris", "Canis lupus familiaris"),
        ("Canis lupus subsp. familiaris Linnaeus, 1758", "Canis lupus familiaris"),
        ("CANIS LUPUS FAMILIARIS", "Canis lupus familiaris"),
        ("Canis Lupus Familiaris", "Canis lupus familiaris"),
        ("Motacilla flava alba", "Motacilla flava alba"),
        ("Brassica oleracea var. capitata L.", "Brassica oleracea var. capitata"),
        ("Brassica oleracea capitata", "Brassica oleracea var. capitata"),
        ("'Canis lupus'", "Canis lupus"),
    ],
)
def test_a_taxon_is_found_by_what_people_write(name: str, label: str) -> None:
    found = find_taxon(taxonomy_of(WOLVES, ("order", "family", "genus", "species", "subspecies")), name)
    assert (found.lineage.label, found.note) == (label, None)


@pytest.mark.parametrize(
    ("name", "label", "words"),
    [
        ("Canis lupus dingo", "Canis lupus", "unknown subspecies 'Canis lupus dingo'; using its species Canis lupus"),
        ("Canis aureus", "Canis", "unknown species 'Canis aureus'; using its genus Canis"),
        ("Canis aureus Linnaeus, 1758", "Canis", "using its genus Canis"),
        ("Canis familiaris", "Canis lupus familiaris", "known here as Canis lupus familiaris"),
        ("Canis cf. lupus", "Canis", "certain of Canis alone"),
        ("Canis sp.", "Canis", "certain of Canis alone"),
        ("Canis nan", "Canis", "certain of Canis alone"),
        ("Canis lupus cf. familiaris", "Canis lupus", "certain of Canis lupus alone"),
        ("Canis lupus × Canis latrans", "Canis", "certain of Canis alone"),
        ("Canis × lupus", "Canis lupus", "hybrid"),
        ("nemoralis", "Carabus nemoralis", "epithet"),
        ("familiaris", "Canis lupus familiaris", "epithet"),
        ("flava", "Motacilla flava", "several ranks"),
    ],
)
def test_what_is_not_simply_the_name_is_said(name: str, label: str, words: str) -> None:
    found = find_taxon(taxonomy_of(WOLVES, ("order", "family", "genus", "species", "subspecies")), name)
    assert found.lineage.label == label
    assert words in str(found.note)


def test_epithets_shared_between_species_are_told_apart_by_what_the_error_advises() -> None:
    taxonomy = taxonomy_of(WOLVES, ("order", "family", "genus", "species", "subspecies"))
    with pytest.raises(DataError, match="'alba' names 3 taxa") as caught:
        find_taxon(taxonomy, "alba")
    assert [line.strip(" '") for line in str(caught.value).splitlines()[1:]] == [
        "Motacilla alba", "Motacilla alba alba", "Motacilla flava alba",
    ]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(("family", "genus", "species", "subspecies")),
                                st.sampled_from(["Alba", "alba", "Beta", "None"]), min_size=1).map(Lineage.of),
                min_size=1, max_size=8))  # fmt: skip
def test_a_lineage_as_it_is_printed_is_its_taxon_and_every_advice_works(lineages: list[Lineage]) -> None:
    taxonomy = taxonomy_of(lineages, ("family", "genus", "species", "subspecies"))
    for taxon_id in range(len(taxonomy)):
        found = find_taxon(taxonomy, str(taxonomy.lineage(taxon_id)))
        assert (found.taxon_id, found.note) == (taxon_id, None)
        try:
            find_taxon(taxonomy, taxonomy.lineage(taxon_id).names[-1][1])
        except DataError as error:
            advised = [line.strip()[1:-1] for line in str(error).splitlines()[1:]]
            meant = {find_taxon(taxonomy, name).taxon_id for name in advised}
            assert taxon_id in meant
            assert len(meant) == len(advised)


def test_a_misspelt_name_is_recognised_among_very_many() -> None:
    """No cap: the nearest name is proposed wherever in the alphabet it stands, and whatever its first letter."""
    genera = (f"{a}{b}{c}us" for a in "BCDFG" for b in ("ara", "eri", "ilo", "omu") for c in ("bit", "cor", "dap"))
    many = [Lineage.of({"genus": g, "species": f"{x}{y}ensis"}) for g in genera for x in LETTERS for y in LETTERS]
    assert len(many) > 20_000
    known = Lineage.of({"genus": "Zanclus", "species": "cornutus"})
    taxonomy = taxonomy_of([*many, known], ("genus", "species"))
    for name in ("Canclus cornutus", "Zancluss cornutus", "zanclas cornutus"):
        with pytest.raises(DataError, match="did you mean 'Zanclus cornutus'"):
            find_taxon(taxonomy, name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Morus", r"(?s)2 taxa.*'\w+ > Morus'\n.*'\w+ > Morus'"),
        ("Amphiprion clarki", "did you mean 'Amphiprion clarkii'"),
        ("Pomacentrida", "did you mean 'Pomacentridae'"),
        ("Quercus robur", "nor a genus 'Quercus'"),
    ],
)
def test_find_refuses_and_says_what_there_is(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_taxon(taxonomy_of(REEF, RANKS), name)


def test_homonyms_are_two_taxa() -> None:
    taxonomy = taxonomy_of(REEF, RANKS)
    genera = [t for t in taxonomy.at_rank("genus") if taxonomy.name(t) == "Morus"]
    assert len(genera) == 2
    found = {find_taxon(taxonomy, f"{kingdom} > Morus").taxon_id for kingdom in ("Animalia", "Plantae")}
    assert found == set(genera)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"names": ["X"]},
        {"parents": [0, 0]},
        {"rank": "genus"},
        {"content_hash": "0" * 64},
        {"ranks": ["genus", "family"]},
        {"__reduce__": "x"},
    ],
)
def test_an_altered_document_is_refused(change: dict[str, object]) -> None:
    document = taxonomy_of(REEF[:1], RANKS).to_json() | change
    with pytest.raises(DataError):
        Taxonomy.from_json(document)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.parquet"
    taxonomy_of(REEF, RANKS).write(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError):
        Taxonomy.read(path)
