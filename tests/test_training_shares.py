"""Shares of real accuracy are over the same taxa on both sides, and the rarest are those of the fewest photographs."""

from __future__ import annotations

from typing import Any

import pytest
from training.shares import arguments, lines, shares

from taxadiffusion.errors import DataError


def taxon(label: str, number: int, right: float | None, second: float | None = None) -> dict[str, Any]:
    return {
        "label": label,
        "num_photographs": number,
        "num_images": 20,
        "named_right": right,
        "named_right_second": second,
    }


GENERATED = [taxon("common", 100, 0.9), taxon("rare", 7, 0.2), taxon("unseen", 50, 1.0), taxon("unjudged", 3, None)]
REAL = [taxon("common", 100, 1.0), taxon("rare", 7, 0.5), taxon("unjudged", 3, None), taxon("else", 9, 0.0)]


def test_only_taxa_that_both_sides_were_named_of_count() -> None:
    ours, theirs, number = shares(GENERATED, REAL, "named_right")
    assert number == 2
    assert ours.mean == pytest.approx(0.55)
    assert theirs.mean == pytest.approx(0.75)
    assert ours.low < 0.55 < ours.high


def test_the_rarest_are_those_of_the_fewest_photographs() -> None:
    ours, theirs, number = shares(GENERATED, REAL, "named_right", slice(1))
    assert (number, ours.mean, theirs.mean) == (1, pytest.approx(0.2), pytest.approx(0.5))


def test_taxa_that_share_nothing_are_an_error() -> None:
    with pytest.raises(DataError, match="no taxon"):
        shares(GENERATED, [taxon("else", 9, 1.0)], "named_right")


def test_each_judge_has_its_lines_and_they_say_how_many_taxa_count() -> None:
    details = {"mine": {"species": {"taxa": GENERATED}}, "real_test_photographs": {"species": {"taxa": REAL}}}
    first, rarest, others = lines({"details": details}, "species", 1)
    assert "generated 0.550" in first
    assert "0.73 of it, 2 of 4 taxa" in first
    assert "species, 1 rarest  generated 0.200" in rarest
    assert "species, the others  generated 0.900" in others
    assert len(lines({"details": details}, "species", 2)) == 2, "none is left"
    second = [taxon("common", 100, 0.9, 0.8), taxon("rare", 7, 0.2, 0.1)]
    details = {"mine": {"species": {"taxa": second}}, "real_test_photographs": {"species": {"taxa": second}}}
    assert len(lines({"details": details}, "species", 1)) == 6


def test_where_no_photograph_is_right_there_is_no_share_of_it() -> None:
    real = [taxon("common", 100, 0.0), taxon("rare", 7, 0.0)]
    details = {"mine": {"species": {"taxa": GENERATED}}, "real_test_photographs": {"species": {"taxa": real}}}
    assert all("– of it" in line for line in lines({"details": details}, "species", 1))
    with pytest.raises(SystemExit):
        arguments(["results.json", "--rarest", "0"])


@pytest.mark.parametrize(
    ("methods", "rank", "words"),
    [(("mine", "yours"), "species", "one model, not 2: mine, yours"), (("mine",), "genus", "--rank genus.* species")],
)
def test_several_models_or_a_rank_that_was_not_evaluated_are_named(
    methods: tuple[str, ...], rank: str, words: str
) -> None:
    details = {name: {"species": {"taxa": GENERATED}} for name in (*methods, "real_test_photographs")}
    with pytest.raises(DataError, match=words):
        lines({"details": details}, rank, 1)
