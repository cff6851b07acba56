"""Laws of plans: who gets how many, and a table that says so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Lineage
from taxadiffusion.synthetic.plan import BALANCE, TOP_UP, plan_of_counts, read_plan
from tests.coloured_pictures import RANKS, SPECIES

COUNTS = Counter(dict(zip(SPECIES, (30, 8, 12, 4), strict=True)))


def pictures(rule: str, to: int | None) -> dict[Lineage, int]:
    return {one.taxon: one.pictures for one in plan_of_counts(COUNTS, RANKS, rule, to).wanted}


@pytest.mark.parametrize("to", [None, 30, 40])
def test_a_balance_makes_all_species_equal(to: int | None) -> None:
    sums = {COUNTS[taxon] + number for taxon, number in pictures(BALANCE, to).items()}
    assert sums == {to or 30}


def test_top_up_fills_the_rare_and_leaves_the_common() -> None:
    assert list(pictures(TOP_UP, 10).values()) == [max(0, 10 - COUNTS[t]) for t in sorted(COUNTS, key=str)]
    assert plan_of_counts(COUNTS, RANKS, TOP_UP, 10).total == 2 + 6


@pytest.mark.parametrize(
    ("rule", "to", "why"),
    [(BALANCE, 29, "the commonest species has 30"), (TOP_UP, None, "needs --to N"), (TOP_UP, 4, "ask for more")],
)
def test_a_plan_that_cannot_be_is_refused(rule: str, to: int | None, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        plan_of_counts(COUNTS, RANKS, rule, to)


def test_a_written_plan_is_read_as_the_same_plan(tmp_path: Path) -> None:
    plan = plan_of_counts(COUNTS, RANKS, TOP_UP, 10)
    plan.write(tmp_path / "plan.csv")
    again = read_plan(tmp_path / "plan.csv", COUNTS, RANKS)
    assert again.wanted == plan.wanted
    assert again.content_hash == plan.content_hash
    assert plan_of_counts(COUNTS, RANKS, TOP_UP, 11).content_hash != plan.content_hash


def test_a_table_names_species_by_as_many_ranks_as_tell_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("species,genus,pictures\nobscurus,Ruber,7\n")
    plan = read_plan(path, COUNTS, RANKS)
    assert {one.taxon.label: one.pictures for one in plan.wanted if one.pictures} == {"Ruber obscurus": 7}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("genus,species\nRuber,clarus\n", "needs the columns species and pictures"),
        ("species,pictures\nclarus,3\n", r"row 2: species: clarus is family: .* add the columns of coarser ranks"),
        (
            "genus,species,pictures\nRuber,niger,3\n",
            "row 2: no training photograph shows genus: Ruber > species: niger",
        ),
        ("genus,species,pictures\nRuber,clarus,-3\n", r"row 2: pictures is '-3'; write a whole number"),
        ("genus,species,pictures\nRuber,clarus,1\nRuber,clarus,2\n", "row 3: Ruber clarus stands there twice"),
        ("genus,species,pictures\nRuber,clarus,0\n", "asks for no picture"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_row(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=why):
        read_plan(path, COUNTS, RANKS)


def test_a_plan_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes balance, top-up or a table"):
        read_plan(tmp_path / "none.csv", COUNTS, RANKS)
