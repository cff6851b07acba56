"""Pictures of ancestors that no photograph shows: their conditions are reconstructed from their descendants'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from taxadiffusion.adapter import Adapter
from taxadiffusion.errors import DataError
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.request import Blend, Request
from taxadiffusion.taxonomy.brownian import Descent, Posterior, between, posterior, unit_descent
from taxadiffusion.taxonomy.phylogeny import Phylogeny, descent_between, placed


def descent_of(adapter: Adapter, ancestor: Lineage, phylogeny: Phylogeny | None = None) -> tuple[Descent, str]:
    """The ancestor's descendants that the model knows, and on which tree, in words.

    Without a phylogeny each branch is as long as the ranks it crosses. Raises `DataError` where it has none.
    """
    if phylogeny is None:
        return unit_descent(ancestor, _known(adapter), adapter.card.ranks), "a tree of unit branches"
    found = placed(ancestor, _known(adapter), phylogeny)
    words = phylogeny.name
    if found.missing:
        words += f", which lacks {len(found.missing)} more"
    if found.strangers:
        words += f", where {found.strangers} of other taxa descend from it too"
    return found.descent, words


def cloud(
    adapter: Adapter,
    ancestor: Lineage,
    seeds: Sequence[int],
    guidance: Guidance,
    *,
    mean: bool = False,
    phylogeny: Phylogeny | None = None,
) -> tuple[list[Request], str]:
    """A picture for each seed, which also draws the ancestor that it shows from the posterior; and a note of it.

    mean: all show the mean, so that they differ by the noise alone. phylogeny: as of `descent_of`.
    """
    descent, tree = descent_of(adapter, ancestor, phylogeny)
    found = _posterior(descent, tree)
    weights = [found.weights if mean else found.draw(np.random.default_rng([seed, 7])) for seed in seeds]
    requests = [
        Request(ancestor, seed, guidance, blend=_blend(descent.tips, own))
        for seed, own in zip(seeds, weights, strict=True)
    ]
    return requests, (
        f"{'the mean of' if mean else 'a draw of'} the ancestor as {len(descent.tips)} descendants tell of it, by "
        f"Brownian motion on {tree}; its variance is {found.variance:.3g} times the rate"
    )


def way(
    adapter: Adapter,
    one: Lineage,
    other: Lineage,
    number: int,
    seed: int,
    guidance: Guidance,
    phylogeny: Phylogeny | None = None,
) -> tuple[list[Request], str]:
    """`number` pictures of one seed on the way between two taxa, through the mean of their common ancestor: of the
    taxon that holds both, or of the node of a phylogeny where they part.

    phylogeny: as of `descent_of`. Raises `DataError` where they have no ancestor that the model knows, or one is the
    other's.
    """
    shared = next((n for n, (a, b) in enumerate(zip(one.names, other.names, strict=False)) if a != b), None)
    if shared is None:
        raise DataError(f"{one.label} and {other.label} are one taxon, or one is in the other: there is no way between")
    if not shared:
        raise DataError(f"{one.label} and {other.label} have no ancestor in common that the model knows")
    ancestor = Lineage(one.names[:shared])
    if phylogeny is None:
        descent, tree = descent_of(adapter, ancestor)
    else:  # they may have parted elsewhere than their names say
        descent, tree = descent_between(one, other, _known(adapter), phylogeny), phylogeny.name
    weights = _blend(descent.tips, _posterior(descent, tree).weights)
    requests = [Request(ancestor, seed, guidance, blend=blend) for blend in between(one, other, weights, number)]
    return requests, (
        f"on the way from {one.label} to {other.label} through the mean of their common ancestor, of which "
        f"{len(descent.tips)} descendants tell, on {tree}"
    )


def _known(adapter: Adapter) -> list[Lineage]:
    """All taxa of the model, by its ranks."""
    return [adapter.taxonomy.lineage(number).only(adapter.card.ranks) for number in range(len(adapter.taxonomy))]


def _posterior(descent: Descent, tree: str) -> Posterior:
    try:
        return posterior(descent)
    except DataError as error:
        raise DataError(f"{tree}: {error}") from error


def _blend(tips: Sequence[Lineage], weights: np.ndarray) -> Blend:
    return tuple((lineage, float(weight)) for lineage, weight in zip(tips, weights, strict=True))
