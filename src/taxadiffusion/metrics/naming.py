"""How well images are named: correct at a rank, height of the error in the tree, confusion pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.metrics.metric import Floats, Metric, Seen
from taxadiffusion.names import Lineage, Rank

# N images


def correct_at(rank: Rank, predicted: Sequence[Lineage], true: Sequence[Lineage]) -> NDArray[np.bool_]:
    """(N,) whether each prediction agrees with the truth in every name down to `rank`."""
    return np.array([p.truncated(rank) == t.truncated(rank) for p, t in zip(predicted, true, strict=True)], dtype=bool)


def error_height(predicted: Lineage, true: Lineage, ranks: Sequence[Rank]) -> int:
    """Ranks to climb from `true` to the lowest common ancestor, in those of `ranks` (coarse to fine) it names.

    0: the right taxon; 1: its parent is right; the number of ranks: not even the coarsest name is right.
    """
    named = [rank for rank in ranks if true.get(rank) is not None]
    if predicted == true:
        return 0
    right = 0
    for rank in named:
        if predicted.truncated(rank) != true.truncated(rank):  # a homonym elsewhere is another taxon
            break
        right += 1
    return len(named) - right


@dataclass(frozen=True, slots=True)
class Confusion:
    """`count` of the `of` images of `true` were taken for `predicted`."""

    true: Lineage
    predicted: Lineage
    count: int
    of: int


def confusions(predicted: Sequence[Lineage], true: Sequence[Lineage]) -> list[Confusion]:
    """All wrong pairs, those that take the largest share of their true taxon first."""
    totals = Counter(true)
    pairs = Counter((t, p) for t, p in zip(true, predicted, strict=True) if t != p)
    wrong = [Confusion(t, p, count, totals[t]) for (t, p), count in pairs.items()]
    return sorted(wrong, key=lambda c: (-c.count / c.of, -c.count, str(c.true), str(c.predicted)))


FIRST_JUDGE, SECOND_JUDGE = "rank_accuracy", "rank_accuracy_second"
"""The metrics of the two judges: share of images named right by a probe in each one's own features."""


def _named_right(seen: Seen, judge: str) -> Floats | None:
    if judge not in seen.named:
        return None
    return np.where(seen.judged, correct_at(seen.rank, seen.named[judge], seen.lineages), np.nan)


def _heights(seen: Seen) -> Floats:
    pairs = zip(seen.named[FIRST_JUDGE], seen.lineages, strict=True)
    heights = np.array([error_height(predicted, true, seen.ranks) for predicted, true in pairs], dtype=np.float64)
    return np.where(seen.judged, heights, np.nan)


RANK_ACCURACY = Metric(
    key=FIRST_JUDGE,
    label="Named right",
    decimals=3,
    better="more",
    meaning="Share named as their taxon by a probe of real photographs; mean of taxa.",
    of=lambda seen: _named_right(seen, FIRST_JUDGE),
    share=True,
    at_once=True,
)
RANK_ACCURACY_SECOND = Metric(
    key=SECOND_JUDGE,
    label="Named right, second judge",
    decimals=3,
    better="more",
    meaning="By a probe in another network's features; beside the first.",
    of=lambda seen: _named_right(seen, SECOND_JUDGE),
    share=True,
    table=False,
)
ERROR_HEIGHT = Metric(
    key="error_height",
    label="Height of errors",
    decimals=2,
    better="less",
    meaning="Ranks up to the common ancestor of what was asked for and named.",
    of=_heights,
)
