"""How well images are named: correct at a rank, height of the error in the tree, confusion pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
