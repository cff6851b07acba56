"""Laws of what a sample is conditioned on, at the borders of each share."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from taxadiffusion.names import Lineage
from taxadiffusion.trainer.conditions import conditions, drawn_depth
from taxadiffusion.trainer.randomness import Draws

RANKS = ("order", "family", "genus", "species")
CLARKII = Lineage.of({"order": "O", "family": "F", "genus": "G", "species": "clarkii"})
SHARES = {"condition_dropout": 0.25, "rank_dropout": 0.5, "truncation": 0.5}  # cut: 0.5 ≤ hole < 0.75
JUST_BELOW_ONE = 1 - 2**-53


def chosen(rank: str, *, null: float = 1.0, hole: float = 1.0, hole_rank: float = 0.0) -> Lineage:
    one = np.zeros(1)
    draws = Draws(
        noise=np.zeros((1, 1), np.float32),
        timestep=one,
        null=one + null,
        hole=one + hole,
        hole_rank=one + hole_rank,
        variant=one,
    )
    (condition,) = conditions([CLARKII], rank, draws, **SHARES)
    return condition


def test_below_the_condition_dropout_it_is_the_null() -> None:
    assert chosen("genus", null=0.2499) == Lineage()
    assert chosen("genus", null=0.25) == CLARKII.truncated("genus")
    assert chosen("genus", null=0.0, hole=0.0) == Lineage()  # before all else


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_below_the_rank_dropout_one_rank_is_a_hole_each_as_likely(depth: int) -> None:
    cut = CLARKII.truncated(RANKS[depth - 1])
    for number in range(depth):
        for place in (number / depth, (number + 0.999) / depth):
            assert chosen(RANKS[depth - 1], hole=0.4999, hole_rank=place) == cut.without(RANKS[number])
    assert chosen(RANKS[depth - 1], hole=0.0, hole_rank=JUST_BELOW_ONE) == cut.without(RANKS[depth - 1])


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_of_the_others_a_share_is_cut_above_each_rank_as_likely(depth: int) -> None:
    for number in range(depth - 1):
        for hole in (0.5, 0.7499):
            for place in (number / (depth - 1), (number + 0.999) / (depth - 1)):
                assert chosen(RANKS[depth - 1], hole=hole, hole_rank=place) == CLARKII.truncated(RANKS[number])
    assert chosen(RANKS[depth - 1], hole=0.75) == CLARKII.truncated(RANKS[depth - 1])


def test_nothing_lies_above_the_coarsest_rank() -> None:
    assert chosen("order", hole=0.6) == CLARKII.truncated("order")


def test_depths_are_drawn_alike_and_as_runs_were_begun_with() -> None:
    drawn = [drawn_depth(0, step, RANKS) for step in range(2000)]
    assert all(abs(count - 500) < 80 for count in Counter(drawn).values())
    assert set(drawn) == set(RANKS)
    assert [RANKS.index(rank) for rank in drawn[:8]] == [2, 1, 3, 0, 1, 2, 3, 2]
    assert drawn[:50] != [drawn_depth(1, step, RANKS) for step in range(50)]
