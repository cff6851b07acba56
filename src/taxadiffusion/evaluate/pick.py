"""Which method the others are compared with: named in advance, or picked on pictures that the comparison leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import SettingsError
from taxadiffusion.metrics.intervals import Interval, difference_of_replicates, difference_over_taxa
from taxadiffusion.names import RANKS, Lineage, Rank

if TYPE_CHECKING:
    from taxadiffusion.evaluate.scores import RankScores

Right = Mapping[Lineage, tuple[NDArray[np.floating], ...]]
"""By taxon and run: 1 for each image named right, 0 for the others."""


@dataclass(frozen=True, slots=True)
class Pick:
    """The method that the others are compared with, and how it came to be that.

    `named`: before anything was measured. `half`: it is named right most often on every other picture of each taxon
    and run; the differences are of the remaining pictures, other seeds. `same`: it is so on the very pictures it is
    compared on, since a taxon has only one, and part of its lead is luck. `first`: no taxon of the finest rank is
    judged, so it is the first that was given.
    """

    name: str
    how: Literal["named", "half", "same", "first"]
    picked_at: float | None
    """Share named right, at the finest rank, on the pictures by which it was picked; None where none is judged."""
    compared_at: float | None
    """The same on those that the differences are of."""

    @property
    def words(self) -> str:
        """How it was picked, as a sentence."""
        if self.how == "named":
            return f"{self.name} was named before anything was measured, so no part of its lead is picked."
        if self.how == "first":
            return f"No judge knows the taxa, so none was picked: {self.name} is the first that was given."
        if self.how == "half":
            return (
                f"{self.name} was picked on every other picture of each taxon, of which {self.picked_at:.3f} are named "
                f"right; the differences are of the remaining pictures, of which {self.compared_at:.3f} are."
            )
        return (
            f"{self.name} was picked on the very pictures that it is compared on (a taxon has only one): part of its "
            "lead is luck."
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Which method the others are compared with; none: the best is picked. against: methods with another one."""

    named: str | None = None
    against: Mapping[str, str] = field(default_factory=dict)


BEST = Comparison()


def pick(methods: Mapping[str, tuple[RankScores, ...]], named: str | None = None) -> Pick:
    """The method `named`, else the one named right most often at the finest rank of any.

    Raises `SettingsError` where there is no method of that name.
    """
    finest = at_finest(methods)
    if named is not None:
        if named not in finest:
            raise SettingsError(f"{named!r} is none of the methods: {', '.join(finest)}")
        share = _share(finest[named].right)
        return Pick(named, "named", share, share)
    halves = _have_halves(methods)
    found = {name: _share(half(scores.right, 1) if halves else scores.right) for name, scores in finest.items()}
    shares = {name: share for name, share in found.items() if share is not None}
    if not shares:
        return Pick(next(iter(finest)), "first", None, None)
    best = max(shares, key=shares.__getitem__)
    right = finest[best].right
    return Pick(best, "half" if halves else "same", shares[best], _share(half(right, 0) if halves else right))


def differences(
    methods: Mapping[str, tuple[RankScores, ...]],
    picked: Pick,
    against: Mapping[str, str] | None = None,
    *,
    second: bool = False,
) -> dict[str, dict[Rank, Interval]]:
    """How much more often the picked method is named right than each other one, where they show the same taxa.

    Where the method was picked on half of the pictures, of the other half. against: methods that are compared with
    another one than the picked. second: by the second judge.
    """

    def compared(scores: RankScores) -> Right:
        right = scores.right_second if second else scores.right
        return half(right, 0) if picked.how == "half" else right

    def named_right(ours: RankScores, theirs: RankScores) -> Interval | None:
        mine, others = compared(ours), compared(theirs)
        if not mine or set(mine) != set(others):
            return None
        return difference_over_taxa([mine[taxon] for taxon in mine], [others[taxon] for taxon in mine], share=True)

    return _from_picked(methods, picked, against, named_right)


def distance_differences(
    methods: Mapping[str, tuple[RankScores, ...]], picked: Pick, against: Mapping[str, str] | None = None
) -> dict[str, dict[Rank, Interval]]:
    """The picked method's Fréchet distance minus each other one's, of all pictures, where they show the same taxa."""

    def distance(ours: RankScores, theirs: RankScores) -> Interval | None:
        if ours.frechet is None or theirs.frechet is None or _taxa(ours) != _taxa(theirs):
            return None
        return difference_of_replicates(ours.frechet, theirs.frechet)

    return _from_picked(methods, picked, against, distance)


def _from_picked(
    methods: Mapping[str, tuple[RankScores, ...]],
    picked: Pick,
    against: Mapping[str, str] | None,
    compare: Callable[[RankScores, RankScores], Interval | None],
) -> dict[str, dict[Rank, Interval]]:
    found: dict[str, dict[Rank, Interval]] = {}
    for name, ranks in methods.items():
        other = (against or {}).get(name, picked.name)
        best = {scores.rank: scores for scores in methods[other]}
        compared = {s.rank: compare(best[s.rank], s) for s in ranks if name != other and s.rank in best}
        found[name] = {rank: interval for rank, interval in compared.items() if interval is not None}
    return {name: intervals for name, intervals in found.items() if intervals}


def half(right: Right, first: Literal[0, 1]) -> Right:
    """Every other picture of each taxon and run, from the first or the second on; the first half is never smaller."""
    return {taxon: tuple(values[first::2] for values in runs) for taxon, runs in right.items()}


def at_finest(methods: Mapping[str, tuple[RankScores, ...]]) -> dict[str, RankScores]:
    """The scores at the finest rank of any method, of those methods that were measured there."""
    finest = max((ranks[-1].rank for ranks in methods.values()), key=RANKS.index)
    return {name: ranks[-1] for name, ranks in methods.items() if ranks[-1].rank == finest}


def _taxa(scores: RankScores) -> set[Lineage]:
    return {one.taxon for one in scores.taxa}


def _share(right: Right) -> float | None:
    """None where no taxon is judged."""
    return None if not right else float(np.mean([[values.mean() for values in runs] for runs in right.values()]))


def _have_halves(methods: Mapping[str, tuple[RankScores, ...]]) -> bool:
    cells = (values for ranks in methods.values() for s in ranks for runs in s.right.values() for values in runs)
    return all(len(values) > 1 for values in cells)
