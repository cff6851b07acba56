"""Is an image named as its taxon at every rank? One probe over the deepest taxa, fitted on real photographs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.metrics.discriminant import Discriminant, fit_discriminant
from taxadiffusion.metrics.probe import PenaltyChoice, Probe, choose_penalty, fit_probe
from taxadiffusion.names import Lineage

# N images, D feature width, K taxa

LARGEST_REGRESSION = 5 * 10**9
"""N · K · D up to which the probe is a logistic regression (about a minute of one core); beyond, a discriminant."""


FEWEST_PHOTOGRAPHS = 10
"""Photographs that a taxon needs for a judge to know it; of fewer, whether a picture is named right says little."""


@dataclass(frozen=True, slots=True)
class Namer:
    """A linear probe whose classes are the deepest known taxa that have `FEWEST_PHOTOGRAPHS` or more (or as many as
    `fit` is told).

    Where fewer than two have so many there is nothing to tell apart: it then knows no taxon and names nothing.
    """

    taxa: tuple[Lineage, ...]
    counts: tuple[int, ...]
    """Photographs of each taxon that the probe was fitted on."""
    probe: Probe | Discriminant | None
    """None: it knows no taxon."""
    known: frozenset[Lineage]
    """The taxa of all ranks in which a class lies: only of these can it be said whether a picture is named right."""
    choice: PenaltyChoice | None = None
    """How the regularisation was chosen; a discriminant has none to choose."""

    @classmethod
    def fit(
        cls,
        features: NDArray[np.float32],
        lineages: Sequence[Lineage],
        groups: Sequence[str] | None = None,
        seed: int = 0,
        fewest: int = FEWEST_PHOTOGRAPHS,
    ) -> Namer:
        """Fit on (N, D) features of photographs and what they show; `groups` (N,) as of `choose_penalty`; `fewest`
        photographs make a taxon known.

        A logistic regression up to `LARGEST_REGRESSION`. Its cost grows with photographs times taxa: with ten thousand
        taxa it would take days, so there a linear discriminant names the images; `kind` says which.
        """
        numbers = Counter(lineages)
        taxa = tuple(sorted((t for t, n in numbers.items() if n >= fewest), key=lambda t: t.names))
        if len(taxa) < 2:
            return cls((), (), None, frozenset())
        position = {taxon: i for i, taxon in enumerate(taxa)}
        rows = [i for i, lineage in enumerate(lineages) if lineage in position]
        labels = np.array([position[lineages[i]] for i in rows])
        if len(rows) < len(lineages):
            features = features[rows]
            groups = groups and [groups[i] for i in rows]
        names = tuple(map(str, taxa))
        counts = tuple(numbers[taxon] for taxon in taxa)
        known = frozenset(taxon.truncated(rank) for taxon in taxa for rank in taxon.ranks)
        if features.size * len(taxa) > LARGEST_REGRESSION:
            return cls(taxa, counts, fit_discriminant(features, labels, names), known)
        choice = choose_penalty(features, labels, groups, seed=seed)
        probe = fit_probe(features, labels, names, inverse_penalty=choice.inverse_penalty)
        return cls(taxa, counts, probe, known, choice)

    @property
    def kind(self) -> str:
        """What the probe is, in words."""
        if self.probe is None:
            return "nothing"
        return "logistic regression" if isinstance(self.probe, Probe) else "linear discriminant"

    def __call__(self, features: NDArray[np.float32], *, even: bool = False) -> list[Lineage]:
        """(N, D) features → the N deepest taxa they are named as; empty lineages where it knows no taxon.

        even: as if all taxa were equally frequent, which a discriminant always takes them to be.
        """
        if self.probe is None:
            return [Lineage()] * len(features)
        if even and isinstance(self.probe, Probe):
            return [self.taxa[i] for i in self.probe.predict(features, np.array(self.counts))]
        return [self.taxa[i] for i in self.probe.predict(features)]
