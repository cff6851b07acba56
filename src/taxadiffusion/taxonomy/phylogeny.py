"""A phylogeny with branch lengths from a Newick or NEXUS file, and what it holds of a taxon's descendants."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage
from taxadiffusion.taxonomy.brownian import Descent, descendants, ends_below

_NEXUS = re.compile(r"\s*(\[[^\]]*\]\s*)*#nexus", re.IGNORECASE)
_NUMBER = re.compile(r"[\W\d_]+(e[+-]?\d+)?")


@dataclass(frozen=True)
class Phylogeny:
    """N nodes, parents before their children.

    `parents` (N,) are smaller than the node, -1 for the root; `lengths` (N,) lead to each node from its parent, not a
    number where the file gives none; `tips` are the nodes at the ends by `key` of their names.
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

    def last_common(self, nodes: Iterable[int]) -> int:
        """The last common ancestor of one node or more."""
        return max(set.intersection(*(set(self.path(node)) for node in nodes)))  # numbers grow downwards


@dataclass(frozen=True)
class Placed:
    """A taxon's descendants on a phylogeny. missing: those that are no tip of it. strangers: tips below the same last
    common ancestor that the model knows, or whose genus it knows, as of other taxa: by this tree the taxon is no
    branch of its own."""

    descent: Descent
    missing: tuple[Lineage, ...]
    strangers: int


def key(name: str) -> str:
    """By which tips and taxa are found: underscores are blanks, capitals and the ways to write an accent are equal."""
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").split()).casefold()


def read_phylogeny(path: Path) -> Phylogeny:
    """The tree of a file, NEXUS where it begins with `#NEXUS`, else Newick.

    Raises `DataError` for what is no such file, for several trees, for one that says of itself that it has no root, for
    two tips of one name, and for a tip without a name or with digits for one.
    """
    import dendropy
    from dendropy.utility.error import DataParseError

    faults = (OSError, ValueError, TypeError, AttributeError, LookupError, DataParseError)  # NEXUS raises any of these
    try:
        text = path.read_text(encoding="utf-8-sig")
        schema = "nexus" if _NEXUS.match(text) else "newick"
        trees = dendropy.TreeList.get(data=text, schema=schema, rooting="default-rooted")
    except faults as error:
        raise DataError(f"{path}: cannot be read as a Newick or NEXUS tree ({error})") from error
    except RecursionError as error:
        raise DataError(f"{path}: its branches are nested more deeply than can be read") from error
    if len(trees) != 1:
        raise DataError(f"{path}: holds {len(trees)} trees; give a file with one")
    if not trees[0].is_rooted:
        raise DataError(f"{path}: says that it is not rooted ([&U]), so it tells no ancestor; root it by an outgroup")
    nodes = list(trees[0].preorder_node_iter())
    number = {id(node): index for index, node in enumerate(nodes)}
    tips: dict[str, int] = {}
    for index, node in enumerate(nodes):
        if node.is_leaf():
            name = key(node.taxon.label) if node.taxon else ""
            if fault := _fault_of(name, tips):
                raise DataError(f"{path}: {fault}; mend the tree")
            tips[name] = index
    return Phylogeny(
        path.name,
        tuple(-1 if node.parent_node is None else number[id(node.parent_node)] for node in nodes),
        tuple(math.nan if node.edge.length is None else float(node.edge.length) for node in nodes),
        tips,
    )


def _fault_of(name: str, tips: Mapping[str, int]) -> str:
    """Of a tip's name beside those that were read; empty where there is none."""
    if not name:
        return "a tip has no name"
    if name in tips:
        return f"two tips are named {name}"
    if _NUMBER.fullmatch(name):  # the second half of 2,5 is one
        return f"a tip is named {name}, which is no taxon; decimals are written with a point"
    return ""


def placed(ancestor: Lineage, lineages: Sequence[Lineage], phylogeny: Phylogeny) -> Placed:
    """The ancestor's descendants among the lineages at their finest names, on the part of the phylogeny below their
    last common ancestor.

    Raises `DataError` where the phylogeny has fewer than two of them, where two have one name, and for a branch between
    them whose length is missing or negative.
    """
    below = descendants(ancestor, lineages)
    there = _tips(below, phylogeny)
    if len(there) < 2:
        named = f"one, {next(iter(there)).label}" if there else "none"
        raise DataError(
            f"{phylogeny.name}: of the {len(below)} descendants of {ancestor.label}, such as {below[0].label}, {named} "
            f"is a tip of this tree, and two are needed; its tips are named like “{next(iter(phylogeny.tips))}”"
        )
    top = phylogeny.last_common(there.values())
    return Placed(
        _descent(top, there, phylogeny),
        tuple(one for one in below if one not in there),
        _strangers(top, ancestor, lineages, phylogeny),
    )


def descent_between(one: Lineage, other: Lineage, lineages: Sequence[Lineage], phylogeny: Phylogeny) -> Descent:
    """All known taxa below the last common ancestor that two taxa have by the phylogeny.

    Raises `DataError` where one of the two has no tip of it, and as `placed` does.
    """
    ends: list[int] = []
    for taxon in (one, other):
        found = _tips(ends_below(taxon, lineages), phylogeny)
        if not found:
            raise DataError(f"{phylogeny.name}: has no tip of {taxon.label}, so it does not tell where the way leads")
        ends += found.values()
    top = phylogeny.last_common(ends)
    return _descent(top, _tips(ends_below(Lineage(), lineages), phylogeny, top), phylogeny)


def _tips(taxa: Sequence[Lineage], phylogeny: Phylogeny, top: int = 0) -> dict[Lineage, int]:
    """Those of the taxa that are a tip below a node → the tip's. Raises `DataError` where two are the same tip."""
    found: dict[int, Lineage] = {}
    for taxon in taxa:
        node = phylogeny.tips.get(key(taxon.label))
        if node is not None and top in phylogeny.path(node) and found.setdefault(node, taxon) != taxon:
            raise DataError(f"{phylogeny.name}: the tip {taxon.label} may be {found[node]} or {taxon}")
    return {taxon: node for node, taxon in found.items()}


def _descent(top: int, tips: Mapping[Lineage, int], phylogeny: Phylogeny) -> Descent:
    """The part of the phylogeny that leads from a node to these tips."""
    paths = {tip: path[: path.index(top)] for tip, path in ((tip, phylogeny.path(node)) for tip, node in tips.items())}
    for tip, path in paths.items():
        if not all(math.isfinite(phylogeny.lengths[node]) and phylogeny.lengths[node] >= 0 for node in path):
            raise DataError(f"{phylogeny.name}: a branch on the way to {tip.label} has no length, or a negative one")
    kept = sorted({top, *(node for path in paths.values() for node in path)})
    place = {node: index for index, node in enumerate(kept)}
    return Descent(
        parents=(-1, *(place[phylogeny.parents[node]] for node in kept[1:])),
        lengths=(0.0, *(phylogeny.lengths[node] for node in kept[1:])),
        tip_nodes=tuple(place[node] for node in tips.values()),
        tips=tuple(tips),
    )


def _strangers(top: int, ancestor: Lineage, lineages: Sequence[Lineage], phylogeny: Phylogeny) -> int:
    depth = len(ancestor.names)
    inside = [one for one in lineages if one.names[:depth] == ancestor.names]
    outside = [one for one in lineages if one.names[:depth] != ancestor.names]
    ours = {key(one.label) for one in inside} | _genera(inside)
    others = {key(one.label) for one in outside} | _genera(outside)
    return sum(
        not ours & {name, name.split()[0]} and bool(others & {name, name.split()[0]})
        for name, node in phylogeny.tips.items()
        if top in phylogeny.path(node)
    )


def _genera(lineages: Iterable[Lineage]) -> set[str]:
    return {key(genus) for one in lineages if (genus := one.get("genus"))}
