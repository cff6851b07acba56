"""Is an image named as its taxon at every rank? One probe over the deepest taxa, fitted on real training features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.discriminant import Discriminant, fit_discriminant
from taxadiffusion.metrics.naming import correct_at, mean_by_taxon
from taxadiffusion.metrics.probe import Probe, fit_probe
from taxadiffusion.names import Lineage, Rank

# N images, D feature width, K taxa

LARGEST_REGRESSION = 5 * 10**9
"""N · K · D up to which the probe is a logistic regression (about a minute of one core); beyond, a discriminant."""


@dataclass(frozen=True, slots=True)
class Namer:
    """A linear probe whose classes are the deepest known taxa of the training photographs."""

    taxa: tuple[Lineage, ...]
    counts: tuple[int, ...]
    """Training photographs of each taxon."""
    probe: Probe | Discriminant

    @classmethod
    def fit(cls, features: NDArray[np.float32], lineages: Sequence[Lineage]) -> Namer:
        """Fit on (N, D) features of training photographs and what they show.

        A logistic regression up to `LARGEST_REGRESSION`. Its cost grows with photographs times taxa: with ten thousand
        taxa it would take days, so there a linear discriminant names the images; `kind` says which.
        """
        taxa = tuple(sorted(set(lineages), key=lambda lineage: lineage.names))
        position = {taxon: i for i, taxon in enumerate(taxa)}
        labels = np.array([position[lineage] for lineage in lineages])
        counts = tuple(int(n) for n in np.bincount(labels))
        fit = fit_probe if features.size * len(taxa) <= LARGEST_REGRESSION else fit_discriminant
        return cls(taxa, counts, fit(features, labels, tuple(map(str, taxa))))

    @property
    def kind(self) -> str:
        """What the probe is, in words."""
        return "logistic regression" if isinstance(self.probe, Probe) else "linear discriminant"

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
