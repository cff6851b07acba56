"""Which lineage a sample is conditioned on: its own, cut at the stage's rank, at times with a hole or empty."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from taxadiffusion.names import Lineage, Rank
from taxadiffusion.trainer.randomness import Draws, generator

RULES = "rank dropout drops the stage's own rank too"
"""What a run that goes on must have been started with: of the shares below, as the settings do not say them."""


def conditions(
    lineages: Sequence[Lineage],
    rank: Rank,
    draws: Draws,
    *,
    condition_dropout: float,
    rank_dropout: float,
    truncation: float,
) -> tuple[Lineage, ...]:
    """One condition per sample (M4, M5, F2).

    With probability `condition_dropout` the empty lineage (it trains the null). Otherwise the lineage cut at `rank`;
    with probability `rank_dropout` one of its ranks becomes a hole, each as likely, the finest too: so `E_r("none")` is
    trained in the stage of r. Of the samples without a hole, the share `truncation` is cut at one of the ranks above: a
    LoRA that goes on learning in later stages would otherwise forget what coarser conditions look like.
    """
    chosen = []
    for index, lineage in enumerate(lineages):
        cut = _cut(lineage, rank)
        if draws.null[index] < condition_dropout:
            cut = Lineage()
        elif draws.hole[index] < rank_dropout and cut:
            cut = _with_hole(cut, cut.ranks[int(draws.hole_rank[index] * len(cut.ranks))])
        elif draws.hole[index] < rank_dropout + truncation * (1 - rank_dropout) and len(cut.ranks) > 1:
            above = cut.ranks[:-1]
            cut = _cut(cut, above[int(draws.hole_rank[index] * len(above))])
        chosen.append(cut)
    return tuple(chosen)


def drawn_depth(seed: int, step: int, ranks: Sequence[Rank]) -> Rank:
    """Strategy random (M2): the depth of a step, the same for all of its samples."""
    return ranks[int(generator(seed, "depth", step).random() * len(ranks))]


@lru_cache(maxsize=65536)
def _cut(lineage: Lineage, rank: Rank) -> Lineage:
    return lineage.truncated(rank)


@lru_cache(maxsize=65536)
def _with_hole(lineage: Lineage, rank: Rank) -> Lineage:
    return lineage.without(rank)
