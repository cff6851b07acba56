"""How far images of a simulated clade are from its true traits, which no other data has.

Letters: N images, Q measurands, C of them that count, K taxa, R runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.metrics.intervals import Interval, mean_of_means
from taxadiffusion.metrics.metric import CellTable, Floats, Metric, Seen, TraitReadings
from taxadiffusion.names import Lineage


def trait_errors(
    readings: Floats,
    rows_of: Mapping[Lineage, Sequence[int] | NDArray[np.integer]],
    truth: Mapping[Lineage, Floats],
    spread: Floats,
    columns: Sequence[int],
) -> Floats:
    """(C,) |mean reading of a taxon's images − its truth|, averaged over taxa, in standard deviations between species.

    readings: (N, Q); rows_of: the images of each taxon; truth: (Q,) of each; spread: (Q,).
    """
    gaps = [np.abs(readings[rows].mean(axis=0) - truth[taxon]) for taxon, rows in rows_of.items()]
    return np.asarray(np.mean(gaps, axis=0)[list(columns)] / spread[list(columns)])


def trait_error(read: TraitReadings, cells: CellTable) -> Interval:
    """The mean over measurands, taxa and runs, against the truth of the taxon asked for."""

    def error(taxon: Lineage, rows: NDArray[np.intp]) -> float:
        return float(trait_errors(read.values, {taxon: rows}, read.truth, read.spread, read.columns).mean())

    errors = np.array([[error(taxon, rows) for rows in runs] for taxon, runs in cells.items()])  # (K, R)
    return mean_of_means(errors, len(read.values))


def _of(seen: Seen) -> Interval | None:
    return None if seen.beside.traits is None else trait_error(seen.beside.traits, seen.cells)


TRAIT_ERROR = Metric(
    key="trait_error",
    label="Trait error",
    decimals=3,
    better="less",
    meaning="Of the taxon's mean reading, in standard deviations between species.",
    of=_of,
    at_once=True,
)
