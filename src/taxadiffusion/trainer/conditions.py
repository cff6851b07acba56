"""Which lineage a sample is conditioned on: its own, cut at the stage's rank, at times with a hole or empty."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from taxadiffusion.names import Lineage, Rank
from taxadiffusion.trainer.randomness import Draws, generator


def conditions(
    lineages: Sequence[Lineage],
    rank: Rank,
    ranks: Sequence[Rank],
    draws: Draws,
    *,
    condition_dropout: float,
    rank_dropout: float,
    truncation: float,
) -> tuple[Lineage, ...]:
    """One condition per sample.

    With probability `condition_dropout` the empty lineage (it trains the null). Otherwise the lineage cut at `rank`;
    with probability `rank_dropout` one of the data's `ranks` is drawn, and if it stands above the finest one left, it
    becomes a hole. A drawn rank at or below the finest one changes nothing: leaving that out would be a truncation,
    which is the condition of another stage (METHOD: "a hole, not a truncation"). Of the samples that draw no rank to
    drop, the share `truncation` is cut at one of the ranks above: a LoRA that goes on learning in later stages would
    otherwise forget what coarser conditions look like.
    """
    chosen = []
    for index, lineage in enumerate(lineages):
        cut = _cut(lineage, rank)
        if draws.null[index] < condition_dropout:
            cut = Lineage()
        elif draws.hole[index] < rank_dropout:
            drawn = ranks[int(draws.hole_rank[index] * len(ranks))]
            if drawn != cut.rank:
                cut = _with_hole(cut, drawn)
        elif draws.hole[index] < rank_dropout + truncation * (1 - rank_dropout) and len(cut.ranks) > 1:
            above = cut.ranks[:-1]
            cut = _cut(cut, above[int(draws.hole_rank[index] * len(above))])
        chosen.append(cut)
    return tuple(chosen)


def drawn_depth(seed: int, step: int, ranks: Sequence[Rank]) -> Rank:
    """Strategy random: the depth of a step, the same for all of its samples."""
    return ranks[int(generator(seed, "depth", step).random() * len(ranks))]


@lru_cache(maxsize=65536)
def _cut(lineage: Lineage, rank: Rank) -> Lineage:
    return lineage.truncated(rank)


@lru_cache(maxsize=65536)
def _with_hole(lineage: Lineage, rank: Rank) -> Lineage:
    return lineage.without(rank)
