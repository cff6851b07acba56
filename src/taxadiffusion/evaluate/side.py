"""Images of one side with what each shows: chosen, cut at a rank, grouped by taxon and run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.names import Lineage, Rank

# N images, D feature width, R runs
Floats = NDArray[np.float32]
Rows = NDArray[np.intp]


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
    second: Floats | None = None
    """(N, D') features by the second judge's network, where there is one."""

    def select(self, positions: Sequence[int] | NDArray[np.integer]) -> Side:
        """Only the images at `positions`; all of them in their order are this side itself, without a copy."""
        rows = np.asarray(positions, dtype=np.intp)
        if np.array_equal(rows, np.arange(len(self.files))):
            return self
        kept = rows.tolist()
        return Side(
            self.features[rows],
            tuple(self.lineages[i] for i in kept),
            tuple(self.files[i] for i in kept),
            tuple(self.runs[i] for i in kept),
            lambda i, size_px: self.load(kept[i], size_px),
            None if self.second is None else self.second[rows],
        )

    def at(self, rank: Rank) -> Side:
        """The images that name a taxon at `rank`, as images of that taxon."""
        kept = [i for i, lineage in enumerate(self.lineages) if lineage.get(rank)]
        side = self.select(kept)
        return replace(side, lineages=truncated(side.lineages, rank))

    def groups(self) -> dict[Lineage, Rows]:
        """The positions of each taxon's images, in order of first appearance."""
        return by_taxon(self.lineages, range(len(self.lineages)))

    def rows_of_runs(self) -> list[Rows]:
        """The positions of each run's images, runs in order."""
        runs = np.array(self.runs)
        return [np.flatnonzero(runs == run) for run in np.unique(runs)]

    def cells(self) -> dict[Lineage, tuple[Rows, ...]]:
        """The positions of each taxon's images in each run, taxa in order of first appearance."""
        runs = np.array(self.runs)
        numbers = np.unique(runs)
        return {taxon: tuple(rows[runs[rows] == number] for number in numbers) for taxon, rows in self.groups().items()}


def by_taxon(lineages: Sequence[Lineage], rows: Iterable[int]) -> dict[Lineage, Rows]:
    """Those of `rows` that show each taxon, in order of first appearance."""
    found: dict[Lineage, list[int]] = {}
    for row in rows:
        found.setdefault(lineages[row], []).append(row)
    return {taxon: np.array(mine, dtype=np.intp) for taxon, mine in found.items()}


def truncated(lineages: Iterable[Lineage], rank: Rank) -> tuple[Lineage, ...]:
    """Each lineage cut at `rank`; equal ones are cut once."""
    cut: dict[Lineage, Lineage] = {}
    return tuple(cut[one] if one in cut else cut.setdefault(one, one.truncated(rank)) for one in lineages)


def at_most(number: int, groups: Mapping[Lineage, Rows], rng: np.random.Generator) -> Rows:
    """Positions of `number` images of each taxon, drawn without replacement, or all of a taxon that has fewer."""
    drawn = [
        rows if len(rows) <= number else np.sort(rng.choice(rows, number, replace=False)) for rows in groups.values()
    ]
    return np.concatenate(drawn)


def spread(number: int, cells: Mapping[Lineage, Sequence[Rows]], rng: np.random.Generator) -> list[Rows]:
    """Sorted positions of at most `number` images of each run, spread over the taxa as evenly as their numbers allow.

    cells: as of `Side.cells`. Every taxon keeps an image in every run, or the same taxa in all runs where there are
    more than `number`. All images, where those are no more than `number`.
    """
    taxa = list(cells)
    sizes = np.array([[len(rows) for rows in cells[taxon]] for taxon in taxa])  # (taxa, R)
    if sizes.sum(0).max() <= number:
        most = int(sizes.max())
    else:
        if len(taxa) > number:
            taxa = [taxa[i] for i in np.sort(rng.choice(len(taxa), number, replace=False))]
            sizes = np.ones((len(taxa), 1), dtype=np.intp)
        most = 1
        while most < sizes.max() and np.minimum(sizes, most + 1).sum(0).max() <= number:
            most += 1
    runs = zip(*(cells[taxon] for taxon in taxa), strict=True)
    return [np.sort(at_most(most, dict(zip(taxa, rows, strict=True)), rng)) for rows in runs]
