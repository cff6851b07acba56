"""Images of a simulated clade against its true traits, which no other data has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.side import Side
from taxadiffusion.metrics.metric import TraitReadings
from taxadiffusion.metrics.traits import trait_errors
from taxadiffusion.names import Rank
from taxadiffusion.simulate import MEASURANDS, Clade, TraitMeter, legible, read_clade, species_spread, taxon_truth

# N images, M measurands
Values = NDArray[np.float64]

_SIZE_PX = 64  # the instrument's
_BATCH = 256


@dataclass(frozen=True)
class TraitJudge:
    """A clade and the instrument that reads its traits off pictures."""

    clade: Clade
    meter: TraitMeter

    @classmethod
    def of(cls, folder: Path) -> TraitJudge:
        """For the clade in a folder that `simulate` wrote. Raises `DataError`."""
        return cls(read_clade(folder), TraitMeter.calibrated())

    def __call__(self, side: Side, rank: Rank, ranks: tuple[Rank, ...]) -> tuple[TraitReadings, dict[str, float]]:
        """Readings of images (N) of taxa of `rank`, and for each measurand what they tell of each species itself.

        What images of a species' ancestor tell of it falls from rank to rank where the rank taught it. Raises
        `DataError` for a taxon that the clade lacks.
        """
        truth = {taxon.only(ranks): values for taxon, values in taxon_truth(self.clade, rank).items()}
        strange = sorted({str(taxon) for taxon in side.lineages if taxon not in truth})
        if strange:
            raise DataError(
                f"--clade: {strange[0]} is no {rank} of the simulated clade; give the clade of this data set"
            )
        spread = species_spread(self.clade)
        read = TraitReadings(self._read(side), truth, spread, legible(self.meter, spread))
        groups, of_species = side.groups(), taxon_truth(self.clade, "species")
        shown = {species: groups.get(species.only(ranks).truncated(rank)) for species in of_species}
        rows_of = {species: rows for species, rows in shown.items() if rows is not None}
        errors = trait_errors(read.values, rows_of, of_species, spread, read.columns)
        names = (MEASURANDS[column] for column in read.columns)
        return read, dict(zip(names, errors.tolist(), strict=True))

    def _read(self, side: Side) -> Values:
        """(N, M)"""
        parts = []
        for start in range(0, len(side.files), _BATCH):
            rows = range(start, min(start + _BATCH, len(side.files)))
            parts.append(self.meter.read(np.stack([side.load(i, _SIZE_PX) for i in rows])))
        return np.concatenate(parts)
