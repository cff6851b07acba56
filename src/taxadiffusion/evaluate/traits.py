"""Images of a simulated clade against its true traits, which no other data has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.side import Side
from taxadiffusion.metrics.intervals import Interval, mean_of_means
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.simulate import MEASURANDS, Clade, TraitMeter, legible, read_clade, species_spread, taxon_truth

# N images, M measurands
Values = NDArray[np.float64]

_SIZE_PX = 64  # the instrument's
_BATCH = 256


@dataclass(frozen=True, slots=True)
class TraitScores:
    """How far a method's images of the taxa of one rank are from true traits, in standard deviations between species.

    `error`: against the mean traits of the taxon asked for. `of_species`: for each measurand, what images of a species'
    ancestor at this rank tell of the species itself: falling from rank to rank where the rank taught it.
    """

    error: Interval
    of_species: dict[str, float]


@dataclass(frozen=True)
class TraitJudge:
    """A clade and the instrument that reads its traits off pictures."""

    clade: Clade
    meter: TraitMeter

    @classmethod
    def of(cls, folder: Path) -> TraitJudge:
        """For the clade in a folder that `simulate` wrote. Raises `DataError`."""
        return cls(read_clade(folder), TraitMeter.calibrated())

    def __call__(self, side: Side, rank: Rank, ranks: tuple[Rank, ...]) -> TraitScores:
        """Scores of images (N) of taxa of `rank`. Raises `DataError` for a taxon that the clade lacks."""
        truth = {taxon.only(ranks): values for taxon, values in taxon_truth(self.clade, rank).items()}
        strange = sorted({str(taxon) for taxon in side.lineages if taxon not in truth})
        if strange:
            raise DataError(
                f"--clade: {strange[0]} is no {rank} of the simulated clade; give the clade of this data set"
            )
        spread = species_spread(self.clade)
        columns = legible(self.meter, spread)
        readings = self._read(side)
        groups, cells = side.groups(), side.cells()

        def error(rows: NDArray[np.intp], taxon: Lineage) -> float:
            gaps = np.abs(readings[rows].mean(axis=0) - truth[taxon])
            return float((gaps[columns] / spread[columns]).mean())

        errors = np.array([[error(rows, taxon) for rows in runs] for taxon, runs in cells.items()])  # (taxa, R)
        interval = mean_of_means(errors, len(side.files))
        return TraitScores(interval, self._of_species(readings, groups, rank, ranks, columns, spread))

    def _of_species(
        self,
        readings: Values,
        groups: dict[Lineage, NDArray[np.intp]],
        rank: Rank,
        ranks: tuple[Rank, ...],
        columns: list[int],
        spread: Values,
    ) -> dict[str, float]:
        gaps = []
        for species, values in taxon_truth(self.clade, "species").items():
            rows = groups.get(species.only(ranks).truncated(rank))
            if rows is not None:
                gaps.append(np.abs(readings[rows].mean(axis=0) - values))
        errors = np.mean(gaps, axis=0)
        return {MEASURANDS[column]: float(errors[column] / spread[column]) for column in columns}

    def _read(self, side: Side) -> Values:
        """(N, M)"""
        parts = []
        for start in range(0, len(side.files), _BATCH):
            rows = range(start, min(start + _BATCH, len(side.files)))
            parts.append(self.meter.read(np.stack([side.load(i, _SIZE_PX) for i in rows])))
        return np.concatenate(parts)
