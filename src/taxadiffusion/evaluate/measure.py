"""Features and names of two sides → the scores of a method at one rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.naming import Namer
from taxadiffusion.evaluate.scores import ConfusionPair, NearPair, RankScores, TaxonScores
from taxadiffusion.evaluate.side import Floats, Rows, Side, at_most, spread, truncated
from taxadiffusion.metrics import declared
from taxadiffusion.metrics.distribution import FrechetReference, KernelReference
from taxadiffusion.metrics.frequency import BUCKETS
from taxadiffusion.metrics.intervals import MAX_GROUPS, Interval, Replicates, groups_of_taxa
from taxadiffusion.metrics.metric import Beside, CellTable, Nearness, Seen, Sets, by_taxon_and_run, of_images
from taxadiffusion.metrics.naming import ERROR_HEIGHT, FIRST_JUDGE, SECOND_JUDGE, Confusion, confusions
from taxadiffusion.metrics.neighbours import NearestSearch, overlap, radius
from taxadiffusion.names import Lineage, Rank

# N images, D feature width, G groups of taxa

NUM_NEIGHBOURS = 5  # Naeem et al. 2020
NUM_WORST_PAIRS = 24
MAX_PAIRED = 20_000
"""Images of each side of which all pairs are formed (kernel distance, precision, recall, density, coverage); of more,
so many are drawn, evenly over the taxa."""


@dataclass(frozen=True, slots=True)
class Searched:
    """Photographs, and the search for the nearest among them."""

    side: Side
    nearest: NearestSearch


class RankJudge:
    """Photographs seen as taxa of one rank, ready to judge the images of any method at that rank."""

    def __init__(
        self,
        rank: Rank,
        ranks: Sequence[Rank],
        namers: Mapping[str, Namer],
        train: Searched,
        *,
        max_reference_per_taxon: int,
        seed: int,
        shown: Collection[Lineage] | None = None,
    ) -> None:
        """namers: by the metric that tells how often each finds images right. train: all training photographs.

        shown: the taxa of the images that are to be judged, where those are not all. Distances, precision, recall,
        density and coverage are then to the photographs of these taxa: images of three species are no bad images of
        twenty-two. What names an image still knows every taxon. Where these taxa have too few photographs to look for
        neighbours among, the scores of sets are absent.
        """
        self._rank = rank
        self._ranks = tuple(ranks)
        self._namers = dict(namers)
        self._photographs = train
        self._train = train.side.at(rank)
        self._seed = seed
        groups = self._train.groups()
        if not groups:
            raise DataError(f"no training photograph names a taxon at rank {rank}; leave it out of --ranks")
        self._train_rows = groups
        self._counts = {taxon: len(rows) for taxon, rows in groups.items()}
        reference = self._train.select(at_most(max_reference_per_taxon, groups, np.random.default_rng(seed)))
        if shown is not None:
            reference = reference.select([i for i, taxon in enumerate(reference.lineages) if taxon in shown])
        self._comparable = len(reference.files) > NUM_NEIGHBOURS
        if not self._comparable:
            return
        self._groups = TaxonGroups.of(reference, seed)
        self._frechet = FrechetReference(reference.features, self._groups(reference))
        (paired,) = spread(MAX_PAIRED, reference.cells(), np.random.default_rng(seed))
        paired_side = reference.select(paired)
        self._paired = paired_side.features
        self._paired_taxa = paired_side.groups()
        self._kernel = KernelReference(self._paired, self._groups(paired_side))
        self._radius: NDArray[np.floating] | None = None

    def __call__(
        self,
        side: Side,
        name: str,
        beside: Beside,
        seen: Searched | None = None,
        *,
        few: bool = False,
    ) -> RankScores:
        """Every metric of images of taxa of this rank; `beside` is what further networks say of them.

        seen: the training photographs that the method learnt from, where those are not all: nearest photographs are
        sought among these, and a taxon counts as common or rare by these; it may be one that none of them shows. few:
        of too few images for a metric of sets it is left out. Raises `DataError` where there are too few, or for a
        taxon that the reference lacks.
        """
        counts: Mapping[Lineage, int] = self._counts
        photographs = seen or self._photographs
        if seen:
            counts = Counter(truncated((one for one in seen.side.lineages if one.get(self._rank)), self._rank))
        strange = sorted({str(taxon) for taxon in side.lineages if taxon not in self._counts})
        if strange:
            raise DataError(f"{name}: no training photograph shows {strange[0]} at rank {self._rank}; leave it out")
        cells = side.cells()
        enough = self._comparable and not (few and len(side.files) <= NUM_NEIGHBOURS)
        looked = Seen(
            rank=self._rank,
            ranks=self._ranks,
            features=side.features,
            lineages=side.lineages,
            cells=cells,
            named=self._named(side),
            judged=self._judged(side),
            train_features=self._train.features,
            train_rows=self._train_rows,
            near=photographs.nearest(side.features),
            sets=self._sets(side, cells, name) if enough else None,
            beside=beside,
        )
        per_image, whole = _figures(looked)
        return RankScores(
            rank=self._rank,
            num_images=len(side.lineages),
            metrics=_in_order({**_intervals(per_image, cells), **whole}),
            buckets=_by_bucket(cells, per_image, counts),
            taxa=_by_taxon(cells, per_image, counts),
            confusions=tuple(
                ConfusionPair(c.true, c.predicted, c.count, c.of)
                for c in self._confusions(side, looked.named[FIRST_JUDGE])
            ),
            nearest=_nearest(side, looked.near, photographs.side),
            traits=beside.of_species or {},
            right=by_taxon_and_run(per_image[FIRST_JUDGE], cells),
            right_second=by_taxon_and_run(per_image[SECOND_JUDGE], cells) if SECOND_JUDGE in per_image else {},
            frechet=looked.sets.frechet if looked.sets else None,
        )

    def _named(self, side: Side) -> dict[str, Sequence[Lineage]]:
        """What each judge names the images as, at this rank."""
        seen = {FIRST_JUDGE: side.features, SECOND_JUDGE: side.second}
        found: dict[str, Sequence[Lineage]] = {}
        for metric, namer in self._namers.items():
            features = seen[metric]
            if features is None:
                raise ValueError(f"{metric}: no features of its network are given")
            found[metric] = truncated(namer(features), self._rank)
        return found

    def _judged(self, side: Side) -> NDArray[np.bool_]:
        """(N,) whether the taxon that an image was to show is known to the judges, all fitted on the same images."""
        known = self._namers[FIRST_JUDGE].known
        return np.array([taxon in known for taxon in side.lineages], dtype=bool)

    def _confusions(self, side: Side, predicted: Sequence[Lineage]) -> list[Confusion]:
        rows = np.flatnonzero(self._judged(side)).tolist()
        return confusions([predicted[i] for i in rows], [side.lineages[i] for i in rows])

    def _sets(self, side: Side, cells: CellTable, name: str) -> Sets:
        """Each run's images against the reference: distances, and overlap of those of which pairs are formed."""
        runs = side.rows_of_runs()
        if min(map(len, runs)) <= NUM_NEIGHBOURS:
            raise DataError(
                f"{name}: {min(map(len, runs))} images at rank {self._rank} are too few for coverage with "
                f"{NUM_NEIGHBOURS} neighbours; generate {NUM_NEIGHBOURS + 1} or more, or leave the rank out of --ranks"
            )
        paired = spread(MAX_PAIRED, cells, np.random.default_rng(self._seed))
        if self._radius is None:
            self._radius = radius(self._paired, NUM_NEIGHBOURS)
        return Sets(
            frechet=self._groups.replicates(self._frechet.replicates, side, runs),
            kernel=self._groups.replicates(self._kernel.replicates, side, paired),
            paired=paired,
            overlaps=[overlap(self._paired, side.features[rows], NUM_NEIGHBOURS, self._radius) for rows in paired],
            real_rows=tuple(self._paired_taxa.values()),
        )


@dataclass(frozen=True, slots=True)
class TaxonGroups:
    """The groups of taxa that a distance's jackknife leaves out in turn, on both sides."""

    group_of: Mapping[Lineage, int]
    shares: NDArray[np.floating]
    """(G,) of all taxa; where there is one taxon alone, groups are of its images instead."""

    @classmethod
    def of(cls, reference: Side, seed: int) -> TaxonGroups:
        """Of the taxa of the real side."""
        taxa = sorted(set(reference.lineages), key=lambda taxon: taxon.names)
        if len(taxa) == 1:
            return cls({}, np.full(MAX_GROUPS, 1 / MAX_GROUPS))
        group = groups_of_taxa(len(taxa), seed)
        return cls(dict(zip(taxa, group.tolist(), strict=True)), np.bincount(group) / len(taxa))

    def __call__(self, side: Side) -> NDArray[np.intp]:
        """(N,) the group of each image."""
        if not self.group_of:
            return np.arange(len(side.lineages)) % MAX_GROUPS
        return np.array([self.group_of[taxon] for taxon in side.lineages], dtype=np.intp)

    def replicates(
        self,
        distance: Callable[[Floats, NDArray[np.intp]], tuple[float, NDArray[np.float64]]],
        side: Side,
        runs: Sequence[Rows],
    ) -> Replicates:
        """The distance of the images at `runs`, whole and without each group."""
        parts = [side.select(rows) for rows in runs]
        found = [distance(part.features, self(part)) for part in parts]
        return Replicates(np.array([whole for whole, _ in found]), np.stack([w for _, w in found]), self.shares)


def _figures(seen: Seen) -> tuple[dict[str, Floats], dict[str, Interval]]:
    """Every metric that can be told of these images: those of each image (N,), and those of all together."""
    per_image, whole = {}, {}
    for metric in declared.METRICS:
        found = metric.of(seen)
        if isinstance(found, Interval):
            whole[metric.key] = found
        elif found is not None:
            per_image[metric.key] = np.asarray(found, dtype=np.float32)
    return per_image, whole


def _in_order(found: Mapping[str, Interval]) -> dict[str, Interval]:
    return {metric.key: found[metric.key] for metric in declared.METRICS if metric.key in found}


def _by_bucket(
    cells: CellTable, per_image: Mapping[str, Floats], counts: Mapping[Lineage, int]
) -> dict[str, dict[str, Interval]]:
    found = {}
    for bucket in BUCKETS:
        mine = {taxon: rows for taxon, rows in cells.items() if bucket.holds(counts[taxon])}
        if mine:
            found[bucket.name] = _intervals(per_image, mine)
    return found


def _by_taxon(
    cells: CellTable, per_image: Mapping[str, Floats], counts: Mapping[Lineage, int]
) -> tuple[TaxonScores, ...]:
    scores = []
    for taxon, runs in cells.items():
        rows = np.sort(np.concatenate(runs))
        scores.append(
            TaxonScores(
                taxon=taxon,
                num_photographs=counts[taxon],
                num_images=len(rows),
                named_right=_mean(per_image[FIRST_JUDGE][rows]),
                named_right_second=_mean(per_image[SECOND_JUDGE][rows]) if SECOND_JUDGE in per_image else None,
                error_height=_mean(per_image[ERROR_HEIGHT.key][rows]),
            )
        )
    return tuple(sorted(scores, key=lambda s: (s.num_photographs, s.taxon.names)))


def _nearest(side: Side, near: Nearness, seen: Side) -> tuple[NearPair, ...]:
    order = np.argsort(near.distances, kind="stable")[:NUM_WORST_PAIRS]
    return tuple(
        NearPair(
            generated=side.files[i],
            photograph=seen.files[near.positions[i]],
            taxon=side.lineages[i],
            distance=float(near.distances[i]),
        )
        for i in order
    )


def _intervals(per_image: Mapping[str, Floats], cells: CellTable) -> dict[str, Interval]:
    """By metric; without those of judges where they know none of the taxa."""
    found = {
        metric: of_images(values, cells, share=declared.declared(metric).share) for metric, values in per_image.items()
    }
    return {metric: interval for metric, interval in found.items() if interval is not None}


def _mean(values: Floats) -> float | None:
    """None of a taxon that is not judged."""
    return None if np.isnan(values).any() else float(values.mean())
