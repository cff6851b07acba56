"""Is an image named as its taxon at every rank? One probe over the deepest taxa, fitted on real training features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.naming import correct_at, mean_by_taxon
from taxadiffusion.metrics.probe import Probe, fit_probe
from taxadiffusion.names import Lineage, Rank

# N images, D feature width


@dataclass(frozen=True, slots=True)
class Namer:
    """A probe whose classes are the deepest known taxa of the training photographs."""

    taxa: tuple[Lineage, ...]
    counts: tuple[int, ...]
    """Training photographs of each taxon."""
    probe: Probe

    @classmethod
    def fit(cls, features: NDArray[np.float32], lineages: Sequence[Lineage]) -> Namer:
        """Fit on (N, D) features of training photographs and what they show."""
        taxa = tuple(sorted(set(lineages), key=lambda lineage: lineage.names))
        position = {taxon: i for i, taxon in enumerate(taxa)}
        labels = np.array([position[lineage] for lineage in lineages])
        counts = tuple(int(n) for n in np.bincount(labels))
        return cls(taxa, counts, fit_probe(features, labels, tuple(map(str, taxa))))

    def __call__(self, features: NDArray[np.float32]) -> list[Lineage]:
        """(N, D) features → the N deepest taxa they are named as."""
        return [self.taxa[i] for i in self.probe.predict(features)]

    def rarest(self, rank: Rank, number: int) -> list[Lineage]:
        """The `number` taxa at `rank` with the fewest training photographs, rarest first."""
        order = np.argsort(self.counts, kind="stable")
        return [self.taxa[i] for i in order if self.taxa[i].rank == rank][:number]


def balanced_accuracy(rank: Rank, predicted: Sequence[Lineage], true: Sequence[Lineage]) -> float:
    """Share named correctly at `rank`, averaged within each deepest taxon of `true` first, then over taxa.

    The images that name no taxon at `rank` are judged at their own deepest rank (an image known only to its family must
    be named as that family, and as none of its species). Raises `DataError` without images.
    """
    if not true:
        raise DataError(f"no image to judge at rank {rank}")
    per_taxon = mean_by_taxon(correct_at(rank, predicted, true), true)
    return float(np.mean(list(per_taxon.values())))
