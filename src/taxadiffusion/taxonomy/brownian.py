"""What an ancestor was like, if traits wandered along the tree by Brownian motion: mean and variance in closed form.

Letters: S descendants (tips), N nodes of the tree below the ancestor, itself included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage, Rank

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Descent:
    """The tree below an ancestor, node 0. `parents` (N,) are smaller than the node (-1 for node 0); `lengths` (N,) lead
    to each node from its parent; `tips` name the nodes in `tip_nodes`."""

    parents: tuple[int, ...]
    lengths: tuple[float, ...]
    tip_nodes: tuple[int, ...]
    tips: tuple[Lineage, ...]


@dataclass(frozen=True)
class Posterior:
    """Of the ancestor's value x, given values y (S,) of the tips and a flat prior: the mean is `weights · y`, and the
    variance `variance` times the rate of the motion, which `(contrasts @ y)²`, averaged, estimates without bias."""

    weights: Floats  # (S,), which add up to 1
    variance: float  # in units of branch length
    contrasts: Floats  # (S − 1, S), each row adds up to 0

    def draw(self, rng: np.random.Generator) -> Floats:
        """Weights (S,) of one ancestor that may have been: `weights · y` is a draw, of all columns of y (S, D) at once.

        The covariance of the columns is the one that the contrasts show. With one tip there are none: it is the mean.
        """
        number = len(self.contrasts)
        if not number:
            return self.weights
        noise = rng.normal(0.0, 1.0, number) / np.sqrt(number)
        drawn: Floats = self.weights + np.sqrt(self.variance) * (noise @ self.contrasts)
        return drawn


def posterior(descent: Descent) -> Posterior:
    """By pruning (Felsenstein 1973, American Journal of Human Genetics 25:471): the tips' generalised least squares.

    Memory grows with S². Raises `DataError` for two tips at no distance from each other, or a length that is negative
    or no number.
    """
    if not all(np.isfinite(length) and length >= 0 for length in descent.lengths[1:]):
        raise DataError("a branch of the tree has a length that is negative or no number")
    size = len(descent.tip_nodes)
    unit = max(descent.lengths[1:], default=0.0) or 1.0  # lengths of any size are told apart
    place = {node: tip for tip, node in enumerate(descent.tip_nodes)}
    children: list[list[int]] = [[] for _ in descent.parents]
    for node, parent in enumerate(descent.parents[1:], 1):
        children[parent].append(node)
    known: dict[int, tuple[Floats, float]] = {}
    contrasts: list[Floats] = []
    for node in reversed(range(len(descent.parents))):
        if node in place:
            own = np.zeros(size)
            own[place[node]] = 1.0
            known[node] = own, 0.0
            continue
        below = [(*known.pop(child), descent.lengths[child] / unit) for child in children[node]]
        weights, variance = below[0][0], below[0][1] + below[0][2]
        for other, above, length in below[1:]:
            spread = above + length
            total = variance + spread
            if not total > 0:
                raise DataError("two branches of the tree have no length: nothing tells how far their tips may differ")
            contrasts.append((weights - other) / np.sqrt(total))
            weights, variance = (weights * spread + other * variance) / total, variance * spread / total
        known[node] = weights, variance
    weights, variance = known[0]
    return Posterior(weights, variance * unit, np.array(contrasts).reshape(-1, size) / np.sqrt(unit))


def ends_below(taxon: Lineage, lineages: Sequence[Lineage]) -> tuple[Lineage, ...]:
    """Those of the lineages at or below a taxon (of the empty lineage: all) with no other below them, by name."""
    depth = len(taxon.names)
    below = {one.names for one in lineages if one.names and one.names[:depth] == taxon.names}
    inner = {names[:length] for names in below for length in range(1, len(names))}
    return tuple(Lineage(names) for names in sorted(below - inner))


def descendants(ancestor: Lineage, lineages: Sequence[Lineage]) -> tuple[Lineage, ...]:
    """`ends_below` an ancestor, itself not among them. Raises `DataError` where there is none."""
    found = tuple(one for one in ends_below(ancestor, lineages) if one.names != ancestor.names)
    if not found:
        raise DataError(f"{ancestor.label} has no descendants that the model knows, so nothing tells of its ancestor")
    return found


def unit_descent(ancestor: Lineage, lineages: Sequence[Lineage], ranks: Sequence[Rank]) -> Descent:
    """The ancestor's descendants among the lineages at their finest names, a branch as long as the ranks it crosses.

    Raises `DataError` where it has none.
    """
    tips = [one.names for one in descendants(ancestor, lineages)]
    depth = len(ancestor.names)
    nodes = sorted(
        {names[:length] for names in tips for length in range(depth, len(names) + 1)}, key=lambda n: (len(n), n)
    )
    number = {names: index for index, names in enumerate(nodes)}
    level = {rank: index for index, rank in enumerate(ranks, 1)}

    def length_to(names: tuple[tuple[Rank, str], ...]) -> float:
        above = level[names[-2][0]] if len(names) > 1 else 0
        return float(level[names[-1][0]] - above)

    return Descent(
        parents=(-1, *(number[names[:-1]] for names in nodes[1:])),
        lengths=(0.0, *(length_to(names) for names in nodes[1:])),
        tip_nodes=tuple(number[names] for names in tips),
        tips=tuple(Lineage(names) for names in tips),
    )


Weighted = tuple[tuple[Lineage, float], ...]


def between(one: Lineage, other: Lineage, ancestor: Weighted, number: int) -> list[Weighted]:
    """Weights of `number` conditions on the way from one taxon to the other, through their common ancestor's.

    The way is straight from the first to the ancestor, which lies in its middle, and straight on to the second.
    """
    found = []
    for place in np.linspace(0.0, 2.0, number):
        ends = {one: max(0.0, 1.0 - place), other: max(0.0, place - 1.0)}
        middle = 1.0 - abs(1.0 - float(place))
        weights = {lineage: middle * weight for lineage, weight in ancestor}
        for lineage, weight in ends.items():
            weights[lineage] = weights.get(lineage, 0.0) + weight
        found.append(tuple((lineage, float(weight)) for lineage, weight in weights.items() if weight))
    return found
