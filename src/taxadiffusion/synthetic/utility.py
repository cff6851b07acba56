"""Does a synthetic set help a classifier? Every row, fold, seed and classifier once, each kept when it is known."""

# M photographs that judge, S species
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from taxadiffusion.cache.files import write_document
from taxadiffusion.cache.parts import Part, build_shared
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.errors import SettingsError
from taxadiffusion.features import Extractor
from taxadiffusion.metrics.probe import choose_penalty
from taxadiffusion.pictures.generate import ALONE
from taxadiffusion.synthetic.classifiers import (
    NETWORK,
    PROBE,
    ClassifierName,
    NetworkSettings,
    Pack,
    named_by_network,
    named_by_probe,
)
from taxadiffusion.synthetic.folds import (
    EVEN,
    FILTERED,
    PASTED,
    REAL,
    RESAMPLED,
    UNFILTERED,
    Chosen,
    Floats,
    Ints,
    deal,
    filtered,
    pasted_anew,
    resampled,
)
from taxadiffusion.synthetic.sources import Sources

_VERSION = 2  # raised when the same settings would give other figures


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the comparison is made. alarms: share of left-out photographs that may be called copies."""

    num_folds: int = 5
    num_seeds: int = 2
    classifiers: tuple[ClassifierName, ...] = (PROBE, NETWORK)
    network: NetworkSettings = NetworkSettings()  # noqa: RUF009  (frozen)
    alarms: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_folds < 2 or self.num_seeds < 1 or not self.classifiers:
            raise SettingsError("a comparison needs two folds, one seed and one classifier, or more")


@dataclass(frozen=True, slots=True)
class Cell:
    """One training: which pictures, which classifier, which fold and seed."""

    row: str
    classifier: ClassifierName
    fold: int
    seed: int


@dataclass(frozen=True, slots=True)
class Named:
    """What a trained classifier named the judging photographs: (M,) true, named, and confidence in what was named."""

    true: Ints
    named: Ints
    confidence: Floats
    num_learnt: int
    """Pictures it learnt from, photographs among them."""


def rows_of(sources: Sources) -> tuple[str, ...]:
    """The rows of a comparison, in the order of a table. `EVEN` learns what `REAL` does and names photographs as if all
    species were equally frequent: what it gains needs no picture."""
    sets = [f"{kind}: {pool.name}" for pool in sources.pools for kind in (UNFILTERED, FILTERED)]
    return (REAL, EVEN, RESAMPLED, PASTED, *sets)


class Trainings:
    """The trainings of a comparison, kept in `folder`: a later call, or another process, makes what is missing."""

    def __init__(self, sources: Sources, comparison: Comparison, extractor: Extractor, folder: Path) -> None:
        """extractor: of the features in `sources`; pasted pictures are looked at with it."""
        self._sources, self._comparison, self._extractor = sources, comparison, extractor
        asked = json.dumps([_VERSION, sources.content_hash, asdict(comparison)], default=str)
        self._folder = folder / hashlib.sha256(asked.encode()).hexdigest()[:16]
        self._fold_of = deal(sources.learnt.labels, sources.groups, comparison.num_folds, comparison.seed)
        self.cells = [
            Cell(row, classifier, fold, seed)
            for fold in range(comparison.num_folds)
            for row in rows_of(sources)
            for classifier in comparison.classifiers
            for seed in range(comparison.num_seeds)
        ]
        self._learnt = lru_cache(1)(self._learnt_of)
        self._chosen = lru_cache(2 * len(sources.pools) or 1)(self._chosen_of)
        self._penalty = lru_cache(1)(self._penalty_of)
        self._training_set = lru_cache(2)(self._training_set_of)

    def run(self, shard: Shard = ALONE, progress: Callable[[int, int], None] = lambda *_: None) -> dict[Cell, Named]:
        """All of them. `progress(done, total)` counts the trainings of all processes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        parts = [Part(i, i + 1, self._folder / f"{i:05d}.json") for i in range(len(self.cells))]

        def build(part: Part, report: Callable[[int], None]) -> None:
            found = self._trained(self.cells[part.start])
            part.write(1, named=found.named.tolist(), confidence=found.confidence.tolist(), num_learnt=found.num_learnt)
            report(1)

        first = shard.number * len(parts) // shard.count
        build_shared(parts, build, lambda: False, lambda done: progress(done, len(parts)), first)
        return {cell: self._read(cell, part.written()) for cell, part in zip(self.cells, parts, strict=True)}

    def refused(self) -> dict[str, list[dict[str, Any]]]:
        """By synthetic set, what the filter of each fold accepted and refused, and its remark."""
        return {
            pool.name: [self._of_filter(number, fold) for fold in range(self._comparison.num_folds)]
            for number, pool in enumerate(self._sources.pools)
        }

    def _of_filter(self, number: int, fold: int) -> dict[str, Any]:
        path = self._folder / f"filter-{number}-{fold}.json"
        if not path.is_file():
            self._keep_filter(number, fold, self._chosen(number, fold))
        return dict(json.loads(path.read_text(encoding="utf-8")))

    def _keep_filter(self, number: int, fold: int, chosen: Chosen) -> None:
        document = {"accepted": len(chosen.pack), "refused": chosen.refused, "remark": chosen.remark}
        write_document(self._folder / f"filter-{number}-{fold}.json", document)

    def _read(self, cell: Cell, document: dict[str, Any]) -> Named:
        confidence = np.array(document["confidence"], dtype=np.float64)
        return Named(
            self._judged(cell.fold).labels, np.array(document["named"]), confidence, int(document["num_learnt"])
        )

    def _trained(self, cell: Cell) -> Named:
        learnt, shown = self._training_set(cell.row, cell.fold, cell.seed), self._judged(cell.fold)
        if cell.classifier == PROBE:
            present = np.unique(learnt.labels)
            local = Pack(learnt.images, learnt.features, np.searchsorted(present, learnt.labels))
            classes = tuple(str(self._sources.taxa[i]) for i in present)
            named, confidence = named_by_probe(local, classes, self._penalty(cell.fold), shown, even=cell.row == EVEN)
            named = present[named]
        else:
            seed = self._comparison.seed + 1000 * cell.seed + cell.fold
            named, confidence = named_by_network(
                learnt, len(self._sources.taxa), self._comparison.network, seed, shown, even=cell.row == EVEN
            )
        return Named(shown.labels, named, confidence, len(learnt))

    def _learnt_of(self, fold: int) -> tuple[Pack, Pack]:
        """What the fold learns from, and what it leaves out."""
        out = self._fold_of == fold
        return self._sources.learnt.select(np.flatnonzero(~out)), self._sources.learnt.select(np.flatnonzero(out))

    def _judged(self, fold: int) -> Pack:
        published = self._sources.judged
        return self._learnt(fold)[1] if published is None else published

    def _penalty_of(self, fold: int) -> float:
        """Of every row's probe: chosen within the photographs of the fold, by no other."""
        learnt = self._learnt(fold)[0]
        return choose_penalty(learnt.features, learnt.labels, seed=self._comparison.seed).inverse_penalty

    def _chosen_of(self, number: int, fold: int) -> Chosen:
        learnt, left_out = self._learnt(fold)
        pool, comparison = self._sources.pools[number], self._comparison
        return filtered(pool, learnt, left_out, self._sources.taxa, comparison.alarms, comparison.seed)

    def _training_set_of(self, row: str, fold: int, seed: int) -> Pack:
        learnt = self._learnt(fold)[0]
        if row in (REAL, EVEN):
            return learnt
        counts = np.max([pool.counts() for pool in self._sources.pools], axis=0)
        drawn = self._comparison.seed + 1000 * seed + fold
        if row == RESAMPLED:
            return learnt.with_(resampled(learnt, counts, drawn))
        if row == PASTED:
            return learnt.with_(pasted_anew(learnt, counts, self._extractor, drawn))
        kind, _, name = row.partition(": ")
        number = [pool.name for pool in self._sources.pools].index(name)
        if kind == UNFILTERED:
            return learnt.with_(self._sources.pools[number].first())
        chosen = self._chosen(number, fold)
        self._keep_filter(number, fold, chosen)
        return learnt.with_(chosen.pack)


def runs_of(found: Mapping[Cell, Named], row: str, classifier: ClassifierName) -> Sequence[Named]:
    """The trainings of a row by a classifier: folds, and within each the seeds."""
    return [named for cell, named in found.items() if (cell.row, cell.classifier) == (row, classifier)]
