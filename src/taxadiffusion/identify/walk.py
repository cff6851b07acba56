"""Down the tree from the root: at each node the children compete, each through taxa at the end of its branches."""

# Letters: N taxa asked, K draws.
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

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

    separation: a taxon leaves once its loss exceeds the best one's by so many standard errors of their paired
    difference. draws: the fewest, and the most, of one taxon. beam: of children that are not separated when the budget
    ends, so many are followed. most_asked: taxa that stand for the children of one node, together.
    """

    separation: float = 2.0
    draws: tuple[int, int] = (8, 32)
    beam: int = 3
    most_asked: int = 128

    def __post_init__(self) -> None:
        fewest, most = self.draws
        if not 2 <= fewest <= most:
            raise SettingsError(f"draws must satisfy 2 <= fewest <= most, got {fewest} and {most}")
        if not (self.separation > 0 and math.isfinite(self.separation)):
            raise SettingsError(f"separation must be a number above 0, got {self.separation}")
        if self.beam < 1 or self.most_asked < 1:
            raise SettingsError(f"beam and most_asked must be at least 1, got {self.beam} and {self.most_asked}")


AS_USUAL = WalkSettings()


@dataclass(frozen=True, slots=True)
class Evidence:
    """How far one taxon is ahead of its nearest rival, over the draws that both have seen.

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
    """One comparison. asked: taxa at the ends of branches. losses (N, K): their logarithms; not a number where a taxon
    had left."""

    asked: tuple[int, ...]
    losses: Floats
    kept: tuple[int, ...]
    """Children that are followed, best first; where all taxa below were asked, the best of these."""

    def evidence(self, ours: Iterable[int], rivals: Iterable[int], num_candidates: int) -> Evidence:
        """Of the taxon of `ours` that stayed longest, and of these the best, against the rival that comes nearest in
        standard errors; without a rival, infinite."""
        rows = {taxon: row for row, taxon in enumerate(self.asked)}
        mine = max((rows[taxon] for taxon in ours), key=lambda row: self._standing(row))
        found = Evidence(None, math.inf, math.inf, 0, num_candidates)
        for other in rivals:
            both = np.isfinite(self.losses[mine]) & np.isfinite(self.losses[rows[other]])
            gap = (self.losses[rows[other]] - self.losses[mine])[both]
            mean, deviation = float(gap.mean()), float(gap.std(ddof=1))
            errors = _ratio(mean, deviation / math.sqrt(len(gap)))
            if errors < found.standard_errors:
                found = Evidence(other, errors, _ratio(mean, deviation), len(gap), num_candidates)
        return found

    def _standing(self, row: int) -> tuple[int, float]:
        """The greater, the better it stood."""
        seen = self.losses[row][np.isfinite(self.losses[row])]
        return len(seen), -float(seen.mean()) if len(seen) else 0.0


@dataclass(frozen=True, slots=True)
class Walk:
    """Steps from the root, and the way to the best taxon at the end, coarsest first."""

    tree: KnownTree
    steps: tuple[Step, ...]
    path: tuple[int, ...]

    def evidence(self, taxon: int) -> Evidence:
        """Of a taxon against its sisters, where they were compared last."""
        *above, _ = self.tree.path(taxon)
        sisters = self.tree.children(above[-1] if above else None)
        for step in reversed(self.steps):
            of_sister = {one: sister for one in step.asked for sister in sisters if sister in self.tree.path(one)}
            ours = [one for one, sister in of_sister.items() if sister == taxon]
            rivals = [one for one, sister in of_sister.items() if sister != taxon]
            if ours and rivals:
                found = step.evidence(ours, rivals, len(sisters))
                return replace(found, rival=None if found.rival is None else of_sister[found.rival])
        return Evidence(None, math.inf, math.inf, 0, len(sisters))

    def against_all(self, taxon: int) -> Evidence | None:
        """Of a taxon, or all that is below it, against what else was asked with it last; None: nothing.

        Only rivals that stayed longest: of many that left after a few draws, one is far ahead by chance.
        """
        for step in reversed(self.steps):
            ours = [one for one in step.asked if taxon in self.tree.path(one)]
            seen = {
                one: int(np.isfinite(losses).sum())
                for one, losses in zip(step.asked, step.losses, strict=True)
                if taxon not in self.tree.path(one)
            }
            if ours and seen:
                longest = max(seen.values())
                return step.evidence(ours, [one for one in seen if seen[one] == longest], len(step.asked))
        return None


def walk(tree: KnownTree, losses: Losses, settings: WalkSettings = AS_USUAL, *, label: int | None = None) -> Walk:
    """Walk the tree by a photograph's losses. Costs the comparison of `most_asked` taxa a rank, however many there are.

    A child is asked through taxa at the ends of its branches, evenly over them, for what looks like any of its species
    is a worse description of a photograph than the species next to it. Where they all fit, the walk is one comparison.

    label: a taxon that must not be lost on the way: taxa that stand for it are asked in every step, and stay.
    """
    seen = _Seen(tree, losses, settings.draws[1])
    followed: tuple[int | None, ...] = (None,)
    steps: list[Step] = []
    while candidates := _below(tree, followed):
        share = max(1, settings.most_asked // len(candidates))
        stand = {child: tree.tips(child, share) for child in candidates}
        whole = all(len(stand[child]) == len(tree.tips(child)) for child in candidates)
        if len(candidates) == 1 and not whole:
            followed = candidates
            continue
        forced = frozenset(tree.tips(label, share)) if label is not None else frozenset()
        child_of = {tip: child for child, tips in stand.items() for tip in tips}
        child_of |= {tip: child for tip in forced for child in candidates if child in tree.path(tip)}
        step = _compared(seen, child_of, settings, forced, whole=whole)
        steps.append(step)
        followed = step.kept
        if whole:
            break
    return Walk(tree, tuple(steps), tree.path(steps[-1].kept[0]) if steps else ())


class _Seen:
    """The losses of one photograph; what was computed at one node is known at the next."""

    def __init__(self, tree: KnownTree, losses: Losses, most: int) -> None:
        self._tree, self._losses, self._most = tree, losses, most
        self._found: dict[int, Floats] = {}

    def __call__(self, taxa: Sequence[int], draws: range) -> Floats:
        """(N, K) logarithms: a noise level at which all conditions err more counts no more than another."""
        for taxon in taxa:
            self._found.setdefault(taxon, np.full(self._most, np.nan))
        missing = [taxon for taxon in taxa if np.isnan(self._found[taxon][draws.start])]
        if missing:
            values = self._losses([self._tree.lineage(taxon) for taxon in missing], draws)
            for taxon, row in zip(missing, np.log(np.maximum(values, np.finfo(np.float64).tiny)), strict=True):
                self._found[taxon][draws.start : draws.stop] = row
        return np.stack([self._found[taxon][draws.start : draws.stop] for taxon in taxa])


def _below(tree: KnownTree, followed: Sequence[int | None]) -> tuple[int, ...]:
    """The children of all, and what has none itself."""
    found: list[int] = []
    for taxon in followed:
        found += tree.children(taxon) or ([] if taxon is None else [taxon])
    return tuple(found)


def _compared(
    seen: _Seen, child_of: dict[int, int], settings: WalkSettings, forced: frozenset[int], *, whole: bool
) -> Step:
    """Draws are added until what is left is one child (`whole`: one taxon), those of `forced` apart, or the budget
    ends."""
    taxa = tuple(child_of)
    if len(taxa) == 1:
        return Step(taxa, np.zeros((1, 0)), taxa)
    fewest, most = settings.draws
    is_forced = np.array([taxon in forced for taxon in taxa])
    alive, found, done = np.arange(len(taxa)), np.full((len(taxa), most), np.nan), 0
    while done < most:
        draws = range(done, min(done + fewest, most))
        found[alive, draws.start : draws.stop] = seen([taxa[i] for i in alive], draws)
        done = draws.stop
        gaps = found[alive, :done] - found[alive[int(found[alive, :done].mean(1).argmin())], :done]  # (n, done)
        errors = gaps.std(1, ddof=1) / math.sqrt(done)
        contested = gaps.mean(1) <= settings.separation * errors
        left = {i if whole else child_of[taxa[i]] for i in alive[contested]}
        alive = alive[contested | is_forced[alive]]
        if len(left) == 1:
            break
    order = [taxa[i] for i in alive[np.argsort(found[alive, :done].mean(1), kind="stable")]]
    if whole:
        return Step(taxa, found[:, :done], tuple(order))
    children = tuple(dict.fromkeys(child_of[taxon] for taxon in order))
    must = {child_of[taxon] for taxon in forced}
    beam = 1 if len(left) == 1 else settings.beam
    kept = tuple(child for place, child in enumerate(children) if place < beam or child in must)
    return Step(taxa, found[:, :done], kept)


def _ratio(mean: float, error: float) -> float:
    """Infinite where draws do not differ at all; 0 where there is no difference either."""
    if error > 0:
        return mean / error
    return 0.0 if mean == 0 else math.copysign(math.inf, mean)
