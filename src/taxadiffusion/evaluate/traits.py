"""Images of a simulated clade against its true traits, which no other data has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.side import Side
from taxadiffusion.metrics.intervals import Interval, statistic_within_taxa
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.simulate import MEASURANDS, Clade, TraitMeter, legible, read_clade, species_spread, taxon_truth

# N images, M measurands
Values = NDArray[np.float64]

_SIZE_PX = 64  # the instrument's
_BATCH = 256
_NUM_DRAWS = 40


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

    def __call__(self, side: Side, rank: Rank, ranks: tuple[Rank, ...], seed: int) -> TraitScores:
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
        wanted = np.stack([truth[taxon] for taxon in side.lineages])
        groups = side.groups()
        number = {taxon: index for index, taxon in enumerate(groups)}
        taxon_of = np.array([number[taxon] for taxon in side.lineages])

        def error(_run: int, rows: NDArray[np.intp]) -> float:
            gaps = [
                np.abs(readings[mine].mean(axis=0) - wanted[mine[0]])
                for taxon in set(taxon_of[rows].tolist())
                if len(mine := rows[taxon_of[rows] == taxon])
            ]
            return float((np.mean(gaps, axis=0)[columns] / spread[columns]).mean())

        runs = np.array(side.runs)
        by_run = [[rows[runs[rows] == run] for rows in groups.values()] for run in sorted(set(side.runs))]
        interval = statistic_within_taxa(
            lambda run, sets: [error(run, rows) for rows in sets],
            by_run,
            np.random.default_rng(seed),
            num_draws=_NUM_DRAWS,
        )
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
