"""A phylogeny with branch lengths from a Newick or NEXUS file, and what it holds of a taxon's descendants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage
from taxadiffusion.taxonomy.brownian import Descent, descendants


@dataclass(frozen=True)
class Phylogeny:
    """N nodes, parents before their children.

    `parents` (N,) are smaller than the node, -1 for the root; `lengths` (N,) lead to each node from its parent, not a
    number where the file gives none; `tips` are the nodes at the ends by name, "Genus epithet".
    """

    name: str
    """Of the file, for messages."""
    parents: tuple[int, ...]
    lengths: tuple[float, ...]
    tips: Mapping[str, int]

    def path(self, node: int) -> list[int]:
        """A node and all above it, the root last."""
        found = [node]
        while (node := self.parents[node]) >= 0:
            found.append(node)
        return found


@dataclass(frozen=True)
class Placed:
    """A taxon's descendants on a phylogeny. missing: those that are no tip of it. strangers: tips of other taxa that
    descend from the same last common ancestor: by this tree the taxon is not the whole of a branch."""

    descent: Descent
    missing: tuple[Lineage, ...]
    strangers: int


def read_phylogeny(path: Path) -> Phylogeny:
    """The tree of a file, NEXUS where it begins with `#NEXUS`, else Newick; underscores in names are blanks.

    Raises `DataError` for what is no such file, for several trees, for two tips of one name, and for one without.
    """
    import dendropy
    from dendropy.utility.error import DataParseError

    try:
        text = path.read_text(encoding="utf-8")
        schema = "nexus" if text.lstrip()[:6].upper() == "#NEXUS" else "newick"
        trees = dendropy.TreeList.get(data=text, schema=schema)
    except (OSError, ValueError, DataParseError) as error:
        raise DataError(f"{path}: cannot be read as a Newick or NEXUS tree ({error})") from error
    except RecursionError as error:
        raise DataError(f"{path}: its branches are nested more deeply than can be read") from error
    if len(trees) != 1:
        raise DataError(f"{path}: holds {len(trees)} trees; give a file with one")
    nodes = list(trees[0].preorder_node_iter())
    number = {id(node): index for index, node in enumerate(nodes)}
    tips: dict[str, int] = {}
    for index, node in enumerate(nodes):
        if node.is_leaf():
            name = node.taxon.label if node.taxon else ""
            if not name or name in tips:
                raise DataError(
                    f"{path}: {f'two tips are named {name}' if name else 'a tip has no name'}; mend the tree"
                )
            tips[name] = index
    return Phylogeny(
        path.name,
        tuple(-1 if node.parent_node is None else number[id(node.parent_node)] for node in nodes),
        tuple(math.nan if node.edge.length is None else float(node.edge.length) for node in nodes),
        tips,
    )


def placed(ancestor: Lineage, lineages: Sequence[Lineage], phylogeny: Phylogeny) -> Placed:
    """The ancestor's descendants among the lineages at their finest names, on the part of the phylogeny below their
    last common ancestor.

    Raises `DataError` where the phylogeny has none of them, where two have one name, and for a branch between them
    whose length is missing or negative.
    """
    below = descendants(ancestor, lineages)
    labels = [lineage.label for lineage in below]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise DataError(f"{phylogeny.name}: names species by two words, and two in {ancestor.label} are named {twice}")
    there = [lineage for lineage in below if lineage.label in phylogeny.tips]
    if not there:
        raise DataError(
            f"{phylogeny.name}: none of the {len(below)} descendants of {ancestor.label} is a tip of this tree, "
            f"such as {below[0].label}; its tips are named like {next(iter(phylogeny.tips))}"
        )
    paths = [phylogeny.path(phylogeny.tips[lineage.label]) for lineage in there]
    shared = set.intersection(*map(set, paths))
    top = max(shared)  # numbers grow downwards
    kept = sorted({node for path in paths for node in path if node not in shared} | {top})
    place = {node: index for index, node in enumerate(kept)}
    for path, lineage in zip(paths, there, strict=True):
        for node in path[: path.index(top)]:
            if not (math.isfinite(phylogeny.lengths[node]) and phylogeny.lengths[node] >= 0):
                raise DataError(
                    f"{phylogeny.name}: a branch on the way to {lineage.label} has no length, or a negative one"
                )
    ours = set(labels)
    strangers = sum(top in phylogeny.path(node) for name, node in phylogeny.tips.items() if name not in ours)
    descent = Descent(
        parents=(-1, *(place[phylogeny.parents[node]] for node in kept[1:])),
        lengths=(0.0, *(phylogeny.lengths[node] for node in kept[1:])),
        tip_nodes=tuple(place[path[0]] for path in paths),
        tips=tuple(there),
    )
    return Placed(descent, tuple(one for one in below if one not in set(there)), strangers)
