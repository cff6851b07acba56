"""True traits of the taxa of a simulated clade, and how far pictures are from them.

Letters: N pictures, M measurands.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.traits import trait_errors
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.simulate.clade import Clade
from taxadiffusion.simulate.measurands import MEASURANDS, Values, measurands
from taxadiffusion.simulate.meter import TraitMeter

MIN_SPREAD = 0.3
"""A measurand counts where a clade's species differ by at least this share of what all simulated fish differ by."""


def taxon_truth(clade: Clade, rank: Rank) -> dict[Lineage, Values]:
    """The true measurands (M,) of each taxon of `rank`: the mean over its species."""
    values = np.stack([measurands(traits) for traits in clade.traits])
    return {taxon: values[list(species)].mean(axis=0) for taxon, species in clade.taxa(rank).items()}


def ancestor_truth(clade: Clade, known: Container[Lineage] | None = None) -> dict[Lineage, Values]:
    """The true measurands (M,) of each ancestor that `Clade.ancestors` names."""
    return {taxon: measurands(clade.node_traits[node]) for taxon, node in clade.ancestors(known).items()}


def species_spread(clade: Clade) -> Values:
    """Standard deviation of each measurand between the species of a clade, (M,)."""
    spread: Values = np.stack([measurands(traits) for traits in clade.traits]).std(axis=0, ddof=1)
    return spread


def legible(meter: TraitMeter, spread: Values) -> list[int]:
    """The measurands that the instrument reads well enough and in which the clade's species differ, as columns.

    Raises `DataError` where there is none.
    """
    varied = spread >= MIN_SPREAD * meter.spread
    columns = [MEASURANDS.index(name) for name in meter.usable if varied[MEASURANDS.index(name)]]
    if not columns:
        raise DataError("no measurand is both legible and varied: calibrate on more pictures or grow more species")
    return columns


@dataclass(frozen=True, slots=True)
class TraitError:
    """How far pictures are from true traits, in standard deviations between species.

    `per_measurand` is |mean reading of a taxon's pictures - truth| averaged over taxa, for the measurands that the
    instrument reads well enough and in which the clade's species differ; `mean` is their mean. The instrument has an
    error of its own: compare with the `trait_error` of as many real pictures of the same taxa.
    """

    per_measurand: dict[str, float]
    mean: float
    num_taxa: int
    num_images: int


def trait_error(
    meter: TraitMeter,
    images: NDArray[np.uint8],
    taxa: Sequence[Lineage],
    truth: Mapping[Lineage, Values],
    spread: Values,
) -> TraitError:
    """The trait error of `images` (N, 3, H, H); picture i was made to show `taxa[i]`, its true values stand in `truth`.

    `truth` comes from `taxon_truth` at any rank, `spread` from `species_spread`. Pictures of
    `species.truncated(r)` scored against the truth of the species show what the ranks down to r already tell of it.
    Raises `DataError` where a taxon has no truth, the numbers of pictures and taxa differ, or no measurand is left.
    """
    if len(images) != len(taxa):
        raise DataError(f"{len(images)} pictures but {len(taxa)} taxa: name one taxon per picture")
    unknown = sorted({str(taxon) for taxon in taxa if taxon not in truth})
    if unknown:
        raise DataError(f"no true traits of {unknown[0]}; they are known of {', '.join(str(taxon) for taxon in truth)}")
    columns = legible(meter, spread)
    readings = meter.read(images)  # (N, M)
    members: dict[Lineage, list[int]] = {}
    for index, taxon in enumerate(taxa):
        members.setdefault(taxon, []).append(index)
    errors = trait_errors(readings, members, truth, spread, columns)
    per_measurand = {MEASURANDS[column]: float(error) for column, error in zip(columns, errors, strict=True)}
    return TraitError(per_measurand, float(errors.mean()), len(members), len(images))
