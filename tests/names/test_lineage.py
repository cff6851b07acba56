"""Laws of lineages: ordered, frozen, and truncated, thinned and joined without loss."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxadiffusion.errors import DataError
from taxadiffusion.names import RANKS, Lineage, ordered_ranks, rank_index

LINEAGES = st.dictionaries(st.sampled_from(RANKS), st.text("abcé ×-", min_size=1, max_size=6)).map(Lineage.of)


@given(LINEAGES, st.sampled_from(RANKS))
def test_truncation_keeps_the_coarser_ranks_and_is_idempotent(lineage: Lineage, rank: str) -> None:
    cut = lineage.truncated(rank)
    assert cut.names == tuple(pair for pair in lineage.names if rank_index(pair[0]) <= rank_index(rank))
    assert cut.truncated(rank) == cut


@given(LINEAGES, st.sampled_from(RANKS))
def test_a_hole_takes_one_rank_leaves_the_others_and_keeps_the_depth(lineage: Lineage, rank: str) -> None:
    hole = lineage.without(rank)
    assert hole.get(rank) is None
    assert {*hole.names} | ({(rank, lineage.get(rank))} if lineage.get(rank) else set()) == {*lineage.names}
    assert hole.depth == lineage.depth
    assert bool(hole) == bool(lineage)


@given(LINEAGES, st.sampled_from(RANKS), st.sampled_from(RANKS))
def test_a_hole_and_a_cut_may_come_in_either_order(lineage: Lineage, rank: str, other: str) -> None:
    assert lineage.without(rank).without(other) == lineage.without(other).without(rank)
    if lineage.get(rank) and rank_index(rank) <= rank_index(other):
        assert lineage.without(rank).truncated(other).names == lineage.truncated(other).without(rank).names


def test_a_hole_at_the_finest_rank_is_not_a_truncation() -> None:
    lineage = Lineage.of({"order": "O", "family": "F", "species": "s"})
    hole = lineage.without("species")
    assert hole != lineage.truncated("family")
    assert (hole.rank, hole.depth, str(hole)) == ("family", "species", "order: O > family: F > species: none")
    assert hole.truncated("genus") == Lineage(hole.names, "genus")
    assert hole.truncated("family") == lineage.truncated("family")
    assert hole.only(["order", "family", "genus"]) == Lineage(hole.names, "genus")
    assert hole.only(["order", "family"]) == lineage.truncated("family")
    assert lineage.without("family") == lineage.only(["order", "species"])  # a finer name says it
    alone = Lineage.of({"family": "F"}).without("family")
    assert alone
    assert alone.names == ()
    with pytest.raises(DataError, match="a hole at 'order'"):
        Lineage((("family", "F"),), "order")


@given(st.permutations(RANKS))
def test_order_of_mention_does_not_matter(ranks: list[str]) -> None:
    assert Lineage.of([(rank, rank.title()) for rank in ranks]).ranks == RANKS
    assert ordered_ranks(ranks) == RANKS


def test_composed_and_decomposed_spellings_are_one_name() -> None:
    forms = [Lineage.of({"genus": unicodedata.normalize(form, " Éric ")}) for form in ("NFC", "NFD")]
    assert forms[0] == forms[1]
    assert forms[0].get("genus") == unicodedata.normalize("NFC", "Éric")


def test_a_species_is_called_by_its_binomial() -> None:
    lineage = Lineage.of({"family": "Pomacentridae", "genus": "Amphiprion", "species": "clarkii"})
    assert (lineage.label, lineage.binomial) == ("Amphiprion clarkii", "Amphiprion clarkii")
    assert lineage.truncated("family").label == "Pomacentridae"
    assert not Lineage()
    assert str(Lineage()) == "(unconditional)"


@pytest.mark.parametrize(
    "names", [(("genus", "A"), ("family", "B")), (("genus", "A"), ("genus", "B")), (("tribus", "A"),)]
)
def test_wrong_order_repeats_and_unknown_ranks_are_refused(names: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(DataError):
        Lineage(names)
