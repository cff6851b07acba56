"""Features of both sides → scores of every rank; no network, no file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.measure import RankJudge
from taxadiffusion.evaluate.naming import Namer
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.evaluate.side import Side, at_most
from taxadiffusion.metrics.neighbours import CopySearch
from taxadiffusion.names import Rank

# N images

Progress = Callable[[str], None]
"""Told what is being done, in words."""

Further = Callable[[Side], Mapping[str, NDArray[np.floating]]]
"""More scores of each of the N images of a side, by metric."""

Finish = Callable[[RankScores, Side], RankScores]
"""Adds to the scores of a side what needs its pictures."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to evaluate. `ranks` run coarse to fine."""

    ranks: tuple[Rank, ...]
    size_px: int = 64
    max_reference_per_taxon: int = 20
    """Training photographs of each taxon in the reference of distances. Generated images show every taxon equally
    often; so should the reference, as far as rare taxa allow, or distances would measure the mixture of taxa."""
    copy_quantile: float = 0.01
    """A generated image is flagged where it is nearer to training than all but this share of unseen photographs."""
    seed: int = 0


class Judges:
    """Training and unseen photographs, and what is made of them once: the namer, the search for copies, a judge a rank.

    Memory: the features of all sides, and of each rank's photographs where not all of them name it; beside these about
    0.6 GB a rank at width 2048, whatever the number of images.
    """

    def __init__(self, train: Side, unseen: Side, settings: Settings, progress: Progress = lambda _: None) -> None:
        self._train, self._unseen, self._settings, self._progress = train, unseen, settings, progress
        progress("fitting the probe that names images")
        self.namer = Namer.fit(train.features, train.lineages)
        progress("searching copies among unseen photographs")
        copies = CopySearch(train.features, unseen.features, settings.copy_quantile)
        self._judges: dict[Rank, RankJudge] = {}
        for rank in settings.ranks:
            progress(f"preparing rank {rank}")
            self._judges[rank] = RankJudge(
                rank,
                settings.ranks,
                self.namer,
                train,
                copies,
                max_reference_per_taxon=settings.max_reference_per_taxon,
                seed=settings.seed,
            )

    def of_method(
        self,
        name: str,
        side: Side,
        further: Further = lambda _: {},
        trained_on: Collection[str] | None = None,
        finish: Finish = lambda scores, _: scores,
    ) -> tuple[RankScores, ...]:
        """Scores of the ranks that `side` shows, coarse to fine; an image belongs to the rank of its finest name.

        trained_on: the files of the photographs that the method learnt from, where those are not all. Raises
        `DataError` as `RankJudge` does, and where no image is of a rank.
        """
        seen = None
        if trained_on is not None:
            photographs = self._train.select([i for i, file in enumerate(self._train.files) if file in trained_on])
            search = CopySearch(photographs.features, self._unseen.features, self._settings.copy_quantile)
            seen = photographs, search
        scored = []
        for rank, judge in self._judges.items():
            part = side.select([i for i, lineage in enumerate(side.lineages) if lineage.rank == rank])
            if part.files:
                self._progress(f"measuring {name} at rank {rank}: {len(part.files)} images")
                scored.append(finish(judge(part, name, further(part), seen), part))
        if not scored:
            raise DataError(f"{name}: no image shows a taxon of a rank in {', '.join(self._settings.ranks)}")
        return tuple(scored)

    def of_unseen(
        self, name: str, further: Further = lambda _: {}, finish: Finish = lambda scores, _: scores
    ) -> tuple[RankScores, ...]:
        """Scores of the unseen photographs at every rank, as many of each taxon as the reference holds at most.

        name: what they are, for messages.
        """
        scored = []
        for rank, judge in self._judges.items():
            part = self._unseen.at(rank)
            rng = np.random.default_rng(self._settings.seed)
            part = part.select(at_most(self._settings.max_reference_per_taxon, part.groups(), rng))
            self._progress(f"measuring {name} at rank {rank}: {len(part.files)} images")
            scored.append(finish(judge(part, name, further(part)), part))
        return tuple(scored)
