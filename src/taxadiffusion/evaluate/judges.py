"""Features of both sides → scores of every rank; no network, no file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.measure import RankJudge, Searched
from taxadiffusion.evaluate.naming import Namer
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.evaluate.side import Side, at_most
from taxadiffusion.metrics.metric import Beside
from taxadiffusion.metrics.naming import FIRST_JUDGE, SECOND_JUDGE
from taxadiffusion.metrics.neighbours import NearestSearch
from taxadiffusion.names import Lineage, Rank

# N images

Tell = Callable[[str], None]
"""Told what is being done, in words."""

Further = Callable[[Side], Beside]
"""What further networks say of the images of a side."""

Finish = Callable[[RankScores, Side], RankScores]
"""Adds to the scores of a side what needs its pictures."""


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How to evaluate. `ranks` run coarse to fine."""

    ranks: tuple[Rank, ...]
    size_px: int = 64
    max_reference_per_taxon: int = 20
    """Training photographs of each taxon in the reference of distances. Generated images show every taxon equally
    often; so should the reference, as far as rare taxa allow, or distances would measure the mixture of taxa."""
    copy_quantile: float = 0.01
    """Share of unseen photographs that the search for copies may flag: its false alarms."""
    seed: int = 0


def fit_namers(
    train: Side, extra: Side | None, groups: Sequence[str] | None, seed: int, progress: Tell = lambda _: None
) -> dict[str, Namer]:
    """By its metric, what names images in the features of each network: one, or two where `train` has second ones.

    extra: photographs of the split for judges, where the data set has one. groups: of the photographs of `train`, then
    of `extra`, what stays on one side of a split; None: each is alone.
    """
    lineages = train.lineages + (extra.lineages if extra else ())
    found = {}
    for metric, ours, theirs in (
        (FIRST_JUDGE, train.features, extra.features if extra else None),
        (SECOND_JUDGE, train.second, extra.second if extra else None),
    ):
        if ours is not None:
            progress(f"fitting the probe that names images ({'first' if metric == FIRST_JUDGE else 'second'} judge)")
            features = ours if theirs is None else np.concatenate([ours, theirs])
            found[metric] = Namer.fit(features, lineages, groups, seed)
    return found


class Judges:
    """Training and unseen photographs, and what is made of them once: the search for the nearest, a judge a rank.

    Memory: the features of all sides, and of each rank's photographs where not all of them name it; beside these about
    0.6 GB a rank at width 2048, whatever the number of images.
    """

    def __init__(
        self,
        train: Side,
        unseen: Side,
        namers: Mapping[str, Namer],
        settings: JudgeSettings,
        progress: Tell = lambda _: None,
    ) -> None:
        """namers: by their metric, as of `fit_namers`."""
        self._train, self._unseen, self._settings, self._progress = train, unseen, settings, progress
        self._namers = namers
        progress("searching the training photographs nearest to unseen ones")
        self._photographs = Searched(train, NearestSearch(train.features, unseen.features))
        self._taxa = {rank: frozenset(train.at(rank).lineages) for rank in settings.ranks}
        self._judges: dict[Rank, tuple[frozenset[Lineage], RankJudge]] = {}
        self._shown: dict[Rank, set[Lineage]] = {rank: set() for rank in settings.ranks}

    def _judge(self, rank: Rank, shown: AbstractSet[Lineage]) -> RankJudge:
        """The judge of images of these taxa, the last one of each rank kept; a taxon that training lacks it refuses."""
        mine = self._taxa[rank] & shown
        if rank not in self._judges or self._judges[rank][0] != mine:
            every = mine == self._taxa[rank]
            self._progress(f"preparing rank {rank}" + ("" if every else f", {len(mine)} taxa"))
            judge = RankJudge(
                rank,
                self._settings.ranks,
                self._namers,
                self._photographs,
                max_reference_per_taxon=self._settings.max_reference_per_taxon,
                seed=self._settings.seed,
                shown=None if every else mine,
            )
            self._judges[rank] = (mine, judge)
        return self._judges[rank][1]

    def of_method(
        self,
        name: str,
        side: Side,
        further: Further = lambda _: Beside(),
        trained_on: Collection[str] | None = None,
        finish: Finish = lambda scores, _: scores,
    ) -> tuple[RankScores, ...]:
        """Scores of the ranks that `side` shows, coarse to fine; an image belongs to the rank of its finest name.

        Sets of images are compared with photographs of the taxa that they show, however many others there are.
        trained_on: the files of the photographs that the method learnt from, where those are not all. Raises
        `DataError` as `RankJudge` does, and where no image is of a rank.
        """
        seen = None
        if trained_on is not None:
            photographs = self._train.select([i for i, file in enumerate(self._train.files) if file in trained_on])
            seen = Searched(photographs, NearestSearch(photographs.features, self._unseen.features))
        scored = []
        for rank in self._settings.ranks:
            part = side.select([i for i, lineage in enumerate(side.lineages) if lineage.rank == rank])
            if part.files:
                judge = self._judge(rank, set(part.lineages))
                self._shown[rank] |= set(part.lineages)
                self._progress(f"measuring {name} at rank {rank}: {len(part.files)} images")
                scored.append(finish(judge(part, name, further(part), seen), part))
        if not scored:
            raise DataError(f"{name}: no image shows a taxon of a rank in {', '.join(self._settings.ranks)}")
        return tuple(scored)

    def of_unseen(
        self, name: str, further: Further = lambda _: Beside(), finish: Finish = lambda scores, _: scores
    ) -> tuple[RankScores, ...]:
        """Scores of the unseen photographs at every rank, as many of each taxon as the reference holds at most.

        Where the methods judged so far show only some taxa of a rank, of these taxa only: the figures beside which
        theirs are read.
        name: what they are, for messages.
        """
        scored = []
        for rank in self._settings.ranks:
            part = self._unseen.at(rank)
            if asked := self._shown[rank]:
                unasked = self._taxa[rank] - asked
                part = part.select([i for i, taxon in enumerate(part.lineages) if taxon not in unasked])
            if not part.files:
                continue
            judge = self._judge(rank, set(part.lineages))
            rng = np.random.default_rng(self._settings.seed)
            part = part.select(at_most(self._settings.max_reference_per_taxon, part.groups(), rng))
            self._progress(f"measuring {name} at rank {rank}: {len(part.files)} images")
            scored.append(finish(judge(part, name, further(part), few=True), part))
        return tuple(scored)
