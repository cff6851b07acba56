"""Features and names of two sides → the scores of a method at one rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.naming import Namer
from taxadiffusion.evaluate.scores import (
    BUCKETS,
    FIRST_JUDGE,
    SECOND_JUDGE,
    SHARES,
    ConfusionPair,
    NearPair,
    RankScores,
    TaxonScores,
    bucket_of,
)
from taxadiffusion.evaluate.side import Floats, Rows, Side, at_most, spread, truncated
from taxadiffusion.metrics.distribution import FrechetReference, KernelReference
from taxadiffusion.metrics.intervals import (
    MAX_GROUPS,
    Interval,
    Replicates,
    groups_of_taxa,
    mean_over_taxa,
    of_replicates,
)
from taxadiffusion.metrics.naming import Confusion, confusions, correct_at, error_height
from taxadiffusion.metrics.neighbours import NearestSearch, Nearness, overlap, radius
from taxadiffusion.names import Lineage, Rank

# N images, D feature width, G groups of taxa

NUM_NEIGHBOURS = 5  # Naeem et al. 2020
NUM_WORST_PAIRS = 24
MAX_PAIRED = 20_000
"""Images of each side of which all pairs are formed (kernel distance, precision, recall, density, coverage); of more,
so many are drawn, evenly over the taxa."""

CellTable = Mapping[Lineage, Sequence[Rows]]
"""By taxon, the positions of its images in each run."""


class RankJudge:
    """Photographs seen as taxa of one rank, ready to judge the images of any method at that rank."""

    def __init__(
        self,
        rank: Rank,
        ranks: Sequence[Rank],
        namers: Mapping[str, Namer],
        train: Side,
        nearest: NearestSearch,
        *,
        max_reference_per_taxon: int,
        seed: int,
        shown: Collection[Lineage] | None = None,
    ) -> None:
        """namers: by the metric that tells how often each finds images right. nearest: the search among all training
        photographs.

        shown: the taxa of the images that are to be judged, where those are not all. Distances, precision, recall,
        density and coverage are then to the photographs of these taxa: images of three species are no bad images of
        twenty-two. What names an image still knows every taxon. Where these taxa have too few photographs to look for
        neighbours among, the scores of sets are absent.
        """
        self._rank = rank
        self._ranks = tuple(ranks)
        self._namers = dict(namers)
        self._photographs = train
        self._nearest = nearest
        self._train = train.at(rank)
        self._seed = seed
        groups = self._train.groups()
        if not groups:
            raise DataError(f"no training photograph names a taxon at rank {rank}; leave it out of --ranks")
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
        further: Mapping[str, NDArray[np.floating]],
        seen: tuple[Side, NearestSearch] | None = None,
        *,
        few: bool = False,
    ) -> RankScores:
        """Scores of images of taxa of this rank; `further` holds more scores of each (N,), by metric (LPIPS …).

        seen: the training photographs that the method learnt from, and the search among them, where those are not all:
        nearest photographs are sought among these, and a taxon counts as common or rare by these. few: of too few
        images for a metric of sets it is left out. Raises `DataError` where there are too few, or for a taxon that
        training lacks.
        """
        counts: Mapping[Lineage, int] = self._counts
        photographs, search = seen or (self._photographs, self._nearest)
        if seen:
            counts = Counter(truncated((one for one in photographs.lineages if one.get(self._rank)), self._rank))
        strange = sorted({str(taxon) for taxon in side.lineages if taxon not in counts})
        if strange:
            raise DataError(f"{name}: no training photograph shows {strange[0]} at rank {self._rank}; leave it out")
        named = self._named(side)
        near = search(side.features)
        cells = side.cells()
        per_image = self._per_image(side, cells, named, near) | dict(further)
        metrics = _intervals(per_image, cells)
        frechet = None
        if self._comparable and not (few and len(side.files) <= NUM_NEIGHBOURS):
            of_sets, frechet = self._of_sets(side, cells, name)
            metrics |= of_sets
        return RankScores(
            rank=self._rank,
            num_images=len(side.lineages),
            metrics=metrics,
            buckets=_by_bucket(cells, per_image, counts),
            taxa=_by_taxon(cells, per_image, counts),
            confusions=tuple(
                ConfusionPair(c.true, c.predicted, c.count, c.of) for c in self._confusions(side, named[FIRST_JUDGE])
            ),
            nearest=_nearest(side, near, photographs),
            right=_by_taxon_and_run(per_image[FIRST_JUDGE], cells),
            right_second=_by_taxon_and_run(per_image[SECOND_JUDGE], cells) if SECOND_JUDGE in per_image else {},
            frechet=frechet,
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

    def _per_image(
        self, side: Side, cells: CellTable, named: Mapping[str, Sequence[Lineage]], near: Nearness
    ) -> dict[str, Floats]:
        """Metrics that are means over images: their values (N,), not a number where a judge does not know the taxon."""
        judged = self._judged(side)
        heights = [error_height(p, t, self._ranks) for p, t in zip(named[FIRST_JUDGE], side.lineages, strict=True)]
        right = {
            metric: np.where(judged, correct_at(self._rank, predicted, side.lineages), np.nan)
            for metric, predicted in named.items()
        }
        values: dict[str, NDArray[np.floating]] = {
            **right,
            "error_height": np.where(judged, np.array(heights, dtype=np.float64), np.nan),
            "distance_to_real": _distance_to_taxon(side, self._train),
            "nearer_than_real": near.nearer,
        }
        diversity = _distance_within_taxon(side, cells)
        if diversity is not None:
            values["diversity"] = diversity
        return {name: np.asarray(v, dtype=np.float32) for name, v in values.items()}

    def _of_sets(self, side: Side, cells: CellTable, name: str) -> tuple[dict[str, Interval], Replicates]:
        """Metrics of all images together: distances of each run's images to the reference, and overlap."""
        runs = side.rows_of_runs()
        if min(map(len, runs)) <= NUM_NEIGHBOURS:
            raise DataError(
                f"{name}: {min(map(len, runs))} images at rank {self._rank} are too few for coverage with "
                f"{NUM_NEIGHBOURS} neighbours; generate {NUM_NEIGHBOURS + 1} or more, or leave the rank out of --ranks"
            )
        paired = spread(MAX_PAIRED, cells, np.random.default_rng(self._seed))
        frechet = self._groups.replicates(self._frechet.replicates, side, runs)
        kernel = self._groups.replicates(self._kernel.replicates, side, paired)
        found = {"frechet_distance": of_replicates(frechet, least=0.0), "kernel_distance": of_replicates(kernel)}
        return found | self._overlap(side, cells, paired), frechet

    def _overlap(self, side: Side, cells: CellTable, paired: Sequence[Rows]) -> dict[str, Interval]:
        """Precision, density, recall, coverage of the `paired` images of each run and of the reference."""
        if self._radius is None:
            self._radius = radius(self._paired, NUM_NEIGHBOURS)
        overlaps = [overlap(self._paired, side.features[rows], NUM_NEIGHBOURS, self._radius) for rows in paired]
        density = np.full(len(side.lineages), np.nan)
        for rows, found in zip(paired, overlaps, strict=True):
            density[rows] = found.densities
        kept = np.isfinite(density)
        cells = {taxon: tuple(rows[kept[rows]] for rows in mine) for taxon, mine in cells.items()}
        cells = {taxon: rows for taxon, rows in cells.items() if any(map(len, rows))}
        taxa = self._paired_taxa.values()
        return {
            **_intervals({"precision": (density > 0).astype(np.float32), "density": density}, cells),
            "recall": mean_over_taxa([[o.recalled[rows] for o in overlaps] for rows in taxa], share=True),
            "coverage": mean_over_taxa([[o.covered[rows] for o in overlaps] for rows in taxa], share=True),
        }


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


def _by_bucket(
    cells: CellTable, per_image: Mapping[str, Floats], counts: Mapping[Lineage, int]
) -> dict[str, dict[str, Interval]]:
    found = {}
    for bucket, _, _ in BUCKETS:
        mine = {taxon: rows for taxon, rows in cells.items() if bucket_of(counts[taxon]) == bucket}
        if mine:
            found[bucket] = _intervals(per_image, mine)
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
                error_height=_mean(per_image["error_height"][rows]),
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
    found = {metric: _interval(metric, values, cells) for metric, values in per_image.items()}
    return {metric: interval for metric, interval in found.items() if interval is not None}


def _interval(metric: str, values: NDArray[np.generic], cells: CellTable) -> Interval | None:
    """The mean over taxa and runs of (N,) values; None where they are of no taxon.

    A taxon that a run lacks makes it a `DataError`.
    """
    found = _by_taxon_and_run(values, cells)
    return mean_over_taxa(list(found.values()), share=metric in SHARES) if found else None


def _by_taxon_and_run(values: NDArray[np.generic], cells: CellTable) -> dict[Lineage, tuple[NDArray[np.floating], ...]]:
    """(N,) values by taxon, then by run, without the taxa that are not judged, whose values are not numbers."""
    numbers = np.asarray(values, dtype=np.float64)
    found = {taxon: tuple(numbers[rows] for rows in runs) for taxon, runs in cells.items()}
    return {taxon: runs for taxon, runs in found.items() if not any(np.isnan(run).any() for run in runs)}


def _mean(values: Floats) -> float | None:
    """None of a taxon that is not judged."""
    return None if np.isnan(values).any() else float(values.mean())


def _unit(features: Floats) -> NDArray[np.floating]:
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12))


def _distance_to_taxon(side: Side, train: Side) -> NDArray[np.floating]:
    """(N,) mean cosine distance of each image to all training photographs of its taxon."""
    photographs, found = train.groups(), np.empty(len(side.lineages))
    for taxon, rows in side.groups().items():
        centre = _unit(train.features[photographs[taxon]]).mean(0)
        found[rows] = 1 - _unit(side.features[rows]) @ centre
    return found


def _distance_within_taxon(side: Side, cells: CellTable) -> NDArray[np.floating] | None:
    """(N,) mean cosine distance of each image to the other images of its taxon and run.

    None where a taxon has a single image: there is nothing to compare it with.
    """
    found = np.zeros(len(side.lineages))
    for runs in cells.values():
        for rows in runs:
            if len(rows) == 1:
                return None
            unit = _unit(side.features[rows])
            similarity = unit @ unit.sum(0) - (unit**2).sum(1)
            found[rows] = 1 - similarity / (len(rows) - 1)
    return found
