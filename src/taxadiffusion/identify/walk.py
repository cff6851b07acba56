"""Down the tree from the root: at each node the children compete, and noises are added until one is separated."""

# Letters: N candidates, K draws.
from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import SettingsError
from taxadiffusion.identify.known_tree import KnownTree
from taxadiffusion.names import Lineage

Floats = NDArray[np.float64]

Losses = Callable[[Sequence[Lineage], range], Floats]
"""(N, K) losses of one photograph under N conditions, by draws of these numbers."""


@dataclass(frozen=True, slots=True)
class WalkSettings:
    """How long is looked, and how many ways are followed.

    separation: a candidate leaves once its loss exceeds the best one's by so many standard errors of their paired
    difference. draws: the fewest, and the most, at one node. beam: of candidates that are not separated when the budget
    ends, so many are followed.
    """

    separation: float = 3.0
    draws: tuple[int, int] = (8, 64)
    beam: int = 3

    def __post_init__(self) -> None:
        fewest, most = self.draws
        if not 2 <= fewest <= most:
            raise SettingsError(f"draws must satisfy 2 <= fewest <= most, got {fewest} and {most}")
        if not (self.separation > 0 and math.isfinite(self.separation)):
            raise SettingsError(f"separation must be a number above 0, got {self.separation}")
        if self.beam < 1:
            raise SettingsError(f"beam must be at least 1, got {self.beam}")


AS_USUAL = WalkSettings()


@dataclass(frozen=True, slots=True)
class Evidence:
    """How far one candidate is ahead of its nearest rival, over the draws that both have seen.

    standard_errors: the paired difference in standard errors, below 0 where the rival is ahead; infinite without a
    rival. effect: the same in standard deviations of one draw. num_candidates: among how many.
    """

    rival: int | None
    standard_errors: float
    effect: float
    num_draws: int
    num_candidates: int


@dataclass(frozen=True, slots=True)
class Step:
    """One comparison. losses (N, K): not a number where a candidate had left."""

    candidates: tuple[int, ...]
    losses: Floats
    kept: tuple[int, ...]
    """Candidates that are followed, best first."""

    def difference(self, taxon: int, other: int) -> tuple[float, float, int]:
        """Mean and standard deviation of the loss under `other` minus that under `taxon`, and of how many draws."""
        ours, theirs = (self.losses[self.candidates.index(one)] for one in (taxon, other))
        both = np.isfinite(ours) & np.isfinite(theirs)
        gap = (theirs - ours)[both]
        return float(gap.mean()), float(gap.std(ddof=1)), len(gap)

    def evidence(self, taxon: int) -> Evidence:
        """Against the rival that comes nearest in standard errors."""
        found = Evidence(None, math.inf, math.inf, 0, len(self.candidates))
        for other in self.candidates:
            if other == taxon:
                continue
            mean, deviation, number = self.difference(taxon, other)
            errors, effect = _ratio(mean, deviation / math.sqrt(number)), _ratio(mean, deviation)
            if errors < found.standard_errors:
                found = Evidence(other, errors, effect, number, len(self.candidates))
        return found


@dataclass(frozen=True, slots=True)
class Walk:
    """Steps from the root, and the way to the best taxon at the end, coarsest first: one taxon a step at most."""

    steps: tuple[Step, ...]
    path: tuple[int, ...]

    def evidence(self, taxon: int) -> Evidence:
        """Of a taxon of the path, or of any that was a candidate: where it was compared last."""
        step = next(step for step in reversed(self.steps) if taxon in step.candidates)
        return step.evidence(taxon)


def walk(tree: KnownTree, losses: Losses, settings: WalkSettings = AS_USUAL, *, label: int | None = None) -> Walk:
    """Walk the tree by a photograph's losses. Costs one comparison of some children a rank, whatever the taxa.

    label: a taxon that must not be lost on the way: it and its ancestors stay candidates, and the walk ends where the
    label has been compared.
    """
    forced = frozenset(tree.path(label)) if label is not None else frozenset()
    followed: tuple[int | None, ...] = (None,)
    steps: list[Step] = []
    while True:
        candidates: list[int] = []
        for taxon in followed:
            children = tree.children(taxon)
            candidates += children or ([] if taxon is None else [taxon])
        if not candidates or tuple(candidates) == followed:
            break
        step = _compared(tree, losses, tuple(candidates), settings, forced)
        steps.append(step)
        followed = step.kept
        if label in candidates:
            break
    best = steps[-1].kept[0] if steps else None
    return Walk(tuple(steps), () if best is None else tree.path(best))


def _compared(
    tree: KnownTree, losses: Losses, candidates: tuple[int, ...], settings: WalkSettings, forced: Collection[int]
) -> Step:
    """Draws are added until one candidate is left, those of `forced` apart, or the budget ends."""
    if len(candidates) == 1:
        return Step(candidates, np.zeros((1, 0)), candidates)
    fewest, most = settings.draws
    lineages = [tree.lineage(taxon) for taxon in candidates]
    is_forced = np.array([taxon in forced for taxon in candidates])
    alive = np.arange(len(candidates))
    found = np.full((len(candidates), most), np.nan)
    done = 0
    while done < most:
        draws = range(done, min(done + fewest, most))
        found[alive, draws.start : draws.stop] = losses([lineages[i] for i in alive], draws)
        done = draws.stop
        seen = found[alive, :done]
        best = int(seen.mean(1).argmin())
        gaps = seen - seen[best]  # (n, done)
        errors = gaps.std(1, ddof=1) / math.sqrt(done)
        left = gaps.mean(1) > settings.separation * errors
        contested = ~left
        alive = alive[contested | is_forced[alive]]
        if contested.sum() == 1:
            break
    order = alive[np.argsort(found[alive, :done].mean(1), kind="stable")]
    kept = [int(i) for place, i in enumerate(order) if place < settings.beam or is_forced[i]]
    if contested.sum() == 1:
        kept = [i for place, i in enumerate(kept) if not place or is_forced[i]]
    return Step(candidates, found[:, :done], tuple(candidates[i] for i in kept))


def _ratio(mean: float, error: float) -> float:
    """Infinite where draws do not differ at all; 0 where there is no difference either."""
    if error > 0:
        return mean / error
    return 0.0 if mean == 0 else math.copysign(math.inf, mean)
