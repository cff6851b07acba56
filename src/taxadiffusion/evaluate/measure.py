"""Features and names of two sides → the scores of a method at one rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.naming import Namer
from taxadiffusion.evaluate.scores import BUCKETS, ConfusionPair, CopyPair, RankScores, TaxonScores, bucket_of
from taxadiffusion.metrics.distribution import Reference
from taxadiffusion.metrics.intervals import Interval, mean_over_taxa, statistic_within_taxa
from taxadiffusion.metrics.naming import confusions, correct_at, error_height
from taxadiffusion.metrics.neighbours import Memorisation, memorisation, overlap
from taxadiffusion.names import Lineage, Rank

# N images, D feature width
Floats = NDArray[np.float32]

NUM_NEIGHBOURS = 5  # Naeem et al. 2020
NUM_WORST_PAIRS = 24
NUM_DISTANCE_DRAWS = 20  # bootstrap draws of a distance; its standard error needs no more


@dataclass(frozen=True, slots=True)
class Side:
    """N images: their features (N, D), what each shows or was asked to show, where it lies, and which run made it."""

    features: Floats
    lineages: tuple[Lineage, ...]
    files: tuple[str, ...]
    runs: tuple[int, ...]
    """0 … R-1: models trained with their own seeds; all 0 for photographs."""
    load: Callable[[int, int], NDArray[np.uint8]]
    """(position, size_px) → uint8 (3, size_px, size_px)."""

    def select(self, positions: Sequence[int] | NDArray[np.integer]) -> Side:
        """Only the images at `positions`."""
        kept = [int(i) for i in positions]
        return Side(
            self.features[kept],
            tuple(self.lineages[i] for i in kept),
            tuple(self.files[i] for i in kept),
            tuple(self.runs[i] for i in kept),
            lambda i, size_px: self.load(kept[i], size_px),
        )

    def at(self, rank: Rank) -> Side:
        """The images that name a taxon at `rank`, as images of that taxon."""
        kept = [i for i, lineage in enumerate(self.lineages) if lineage.get(rank)]
        side = self.select(kept)
        return replace(side, lineages=tuple(lineage.truncated(rank) for lineage in side.lineages))

    def groups(self) -> dict[Lineage, NDArray[np.intp]]:
        """The positions of each taxon's images, in order of first appearance."""
        found: dict[Lineage, list[int]] = {}
        for i, taxon in enumerate(self.lineages):
            found.setdefault(taxon, []).append(i)
        return {taxon: np.array(rows) for taxon, rows in found.items()}


class RankJudge:
    """Photographs seen as taxa of one rank, ready to judge the images of any method at that rank."""

    def __init__(
        self,
        rank: Rank,
        ranks: Sequence[Rank],
        namer: Namer,
        train: Side,
        unseen: Side,
        *,
        max_reference_per_taxon: int,
        copy_quantile: float,
        seed: int,
    ) -> None:
        self._rank = rank
        self._ranks = tuple(ranks)
        self._namer = namer
        self._photographs = train
        self._train = train.at(rank)
        self._unseen = unseen
        self._copy_quantile = copy_quantile
        self._seed = seed
        groups = self._train.groups()
        if not groups:
            raise DataError(f"no training photograph names a taxon at rank {rank}; leave it out of --ranks")
        self._counts = {taxon: len(rows) for taxon, rows in groups.items()}
        self._reference = self._train.select(at_most(max_reference_per_taxon, groups, np.random.default_rng(seed)))
        self._distances = Reference(self._reference.features)

    def __call__(
        self, side: Side, name: str, further: Mapping[str, NDArray[np.floating]], seen: Side | None = None
    ) -> RankScores:
        """Scores of images of taxa of this rank; `further` holds more scores of each (N,), by metric (LPIPS …).

        seen: the training photographs that the method learnt from, where those are not all: images are compared with
        these to find copies, and a taxon counts as common or rare by these. Raises `DataError` where there are too few
        images for a metric, or a taxon that training lacks.
        """
        counts = self._counts
        if seen is None:
            seen = self._photographs
        else:
            counts = Counter(lineage.truncated(self._rank) for lineage in seen.lineages if lineage.get(self._rank))
        strange = sorted({str(taxon) for taxon in side.lineages if taxon not in counts})
        if strange:
            raise DataError(f"{name}: no training photograph shows {strange[0]} at rank {self._rank}; leave it out")
        predicted = [lineage.truncated(self._rank) for lineage in self._namer(side.features)]
        copied = memorisation(side.features, seen.features, self._unseen.features, self._copy_quantile)
        per_image = self._per_image(side, predicted, copied) | dict(further)
        rng = np.random.default_rng(self._seed)
        metrics = {metric: _interval(values, side, rng) for metric, values in per_image.items()}
        metrics |= self._of_sets(side, name, rng)
        return RankScores(
            rank=self._rank,
            num_images=len(side.lineages),
            metrics=metrics,
            buckets=self._by_bucket(side, per_image, counts, rng),
            taxa=self._by_taxon(side, per_image, counts),
            confusions=tuple(
                ConfusionPair(c.true, c.predicted, c.count, c.of) for c in confusions(predicted, side.lineages)
            ),
            nearest=_nearest(side, copied, seen),
            right=_by_taxon_and_run(per_image["rank_accuracy"], side),
        )

    def _per_image(self, side: Side, predicted: Sequence[Lineage], copied: Memorisation) -> dict[str, Floats]:
        """Metrics that are means over images: their values (N,)."""
        heights = [error_height(p, t, self._ranks) for p, t in zip(predicted, side.lineages, strict=True)]
        values: dict[str, NDArray[np.floating]] = {
            "rank_accuracy": correct_at(self._rank, predicted, side.lineages).astype(np.float64),
            "error_height": np.array(heights, dtype=np.float64),
            "distance_to_real": _distance_to_taxon(side, self._train),
            "copies": copied.copies.astype(np.float64),
            "nearer_than_real": copied.nearer,
        }
        diversity = _distance_within_taxon(side)
        if diversity is not None:
            values["diversity"] = diversity
        return {name: np.asarray(v, dtype=np.float32) for name, v in values.items()}

    def _of_sets(self, side: Side, name: str, rng: np.random.Generator) -> dict[str, Interval]:
        """Metrics of all images together: distances of each run's images to the reference, and overlap."""
        runs = [np.flatnonzero(np.array(side.runs) == run) for run in sorted(set(side.runs))]
        groups = [[rows[taxon] for taxon in side.select(rows).groups().values()] for rows in runs]
        found: dict[str, Interval] = {}
        distances: dict[str, Callable[[Floats], float]] = {
            "frechet_distance": self._distances.frechet,
            "kernel_distance": self._distances.kernel,
        }
        for metric, distance in distances.items():
            found[metric] = statistic_within_taxa(
                lambda _, rows, distance=distance: distance(side.features[rows]),  # type: ignore[misc]
                groups,
                rng,
                num_draws=NUM_DISTANCE_DRAWS,
            )
        if min(map(len, runs)) <= NUM_NEIGHBOURS:
            raise DataError(
                f"{name}: {min(map(len, runs))} images at rank {self._rank} are too few for coverage with "
                f"{NUM_NEIGHBOURS} neighbours; generate {NUM_NEIGHBOURS + 1} or more, or leave the rank out of --ranks"
            )
        overlaps = [overlap(self._reference.features, side.features[rows], NUM_NEIGHBOURS) for rows in runs]
        density = np.empty(len(side.lineages))
        for rows, found_overlap in zip(runs, overlaps, strict=True):
            density[rows] = found_overlap.densities
        found["precision"] = _interval(density > 0, side, rng)
        found["density"] = _interval(density, side, rng)
        taxa = self._reference.groups()
        found["recall"] = mean_over_taxa([[o.recalled[rows] for o in overlaps] for rows in taxa.values()], rng)
        found["coverage"] = mean_over_taxa([[o.covered[rows] for o in overlaps] for rows in taxa.values()], rng)
        return found

    def _by_bucket(
        self, side: Side, per_image: dict[str, Floats], counts: Mapping[Lineage, int], rng: np.random.Generator
    ) -> dict[str, dict[str, Interval]]:
        buckets = np.array([bucket_of(counts[taxon]) for taxon in side.lineages])
        found = {}
        for bucket, _, _ in BUCKETS:
            rows = np.flatnonzero(buckets == bucket)
            if len(rows):
                part = side.select(rows)
                found[bucket] = {name: _interval(values[rows], part, rng) for name, values in per_image.items()}
        return found

    def _by_taxon(
        self, side: Side, per_image: dict[str, Floats], counts: Mapping[Lineage, int]
    ) -> tuple[TaxonScores, ...]:
        groups = side.groups()
        scores = [
            TaxonScores(
                taxon=taxon,
                num_photographs=counts[taxon],
                num_images=len(rows),
                named_right=float(per_image["rank_accuracy"][rows].mean()),
                error_height=float(per_image["error_height"][rows].mean()),
                copies=float(per_image["copies"][rows].mean()),
            )
            for taxon, rows in groups.items()
        ]
        return tuple(sorted(scores, key=lambda s: (s.num_photographs, s.taxon.names)))


def at_most(number: int, groups: Mapping[Lineage, NDArray[np.intp]], rng: np.random.Generator) -> NDArray[np.intp]:
    """Positions of `number` images of each taxon, drawn without replacement, or all of a taxon that has fewer."""
    drawn = [
        rows if len(rows) <= number else np.sort(rng.choice(rows, number, replace=False)) for rows in groups.values()
    ]
    return np.concatenate(drawn)


def _nearest(side: Side, copied: Memorisation, seen: Side) -> tuple[CopyPair, ...]:
    order = np.argsort(copied.distances, kind="stable")[:NUM_WORST_PAIRS]
    return tuple(
        CopyPair(
            generated=side.files[i],
            photograph=seen.files[copied.positions[i]],
            taxon=side.lineages[i],
            distance=float(copied.distances[i]),
            flagged=bool(copied.copies[i]),
        )
        for i in order
    )


def _interval(values: NDArray[np.generic], side: Side, rng: np.random.Generator) -> Interval:
    """The mean over taxa and runs of (N,) values. A taxon that a run lacks makes it a `DataError`."""
    return mean_over_taxa(list(_by_taxon_and_run(values, side).values()), rng)


def _by_taxon_and_run(values: NDArray[np.generic], side: Side) -> dict[Lineage, tuple[NDArray[np.floating], ...]]:
    """(N,) values by taxon, then by run."""
    runs = np.array(side.runs)
    numbers = np.asarray(values, dtype=np.float64)
    return {
        taxon: tuple(numbers[rows[runs[rows] == run]] for run in sorted(set(side.runs)))
        for taxon, rows in side.groups().items()
    }


def _unit(features: Floats) -> NDArray[np.floating]:
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12))


def _distance_to_taxon(side: Side, train: Side) -> NDArray[np.floating]:
    """(N,) mean cosine distance of each image to all training photographs of its taxon."""
    centres = {taxon: _unit(train.features[rows]).mean(0) for taxon, rows in train.groups().items()}
    means = np.stack([centres[taxon] for taxon in side.lineages])
    return np.asarray(1 - (_unit(side.features) * means).sum(1))


def _distance_within_taxon(side: Side) -> NDArray[np.floating] | None:
    """(N,) mean cosine distance of each image to the other images of its taxon and run.

    None where a taxon has a single image: there is nothing to compare it with.
    """
    unit, found = _unit(side.features), np.zeros(len(side.lineages))
    runs = np.array(side.runs)
    for taxon in side.groups().values():
        for run in set(side.runs):
            rows = taxon[runs[taxon] == run]
            if len(rows) == 1:
                return None
            similarity = unit[rows] @ unit[rows].sum(0) - (unit[rows] ** 2).sum(1)
            found[rows] = 1 - similarity / (len(rows) - 1)
    return found
