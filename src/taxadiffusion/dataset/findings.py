"""What is wrong or worth knowing in a taxonomy: contradictions, homonyms, spellings, gaps, rarity. Pure functions."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taxadiffusion.metrics.frequency import TAIL
from taxadiffusion.names import Rank, folded_spelling, rank_index
from taxadiffusion.taxonomy import Taxonomy

Ids = npt.NDArray[np.int32]

_ODD = re.compile(r"[/_\d|\[\]{}<>;:\"“”„«»]|^['‘]|['’]$|\b(?:sp|spp|cf|aff|nr|gen|indet|nov)\b\.?|^[a-z]|\?")
_MIN_CHARS_FOR_MISSPELLING = 5


@dataclass(frozen=True)
class Conflict:
    """One name that stands below several parents of one rank: a contradiction."""

    rank: Rank
    name: str
    parent_rank: Rank
    parents: tuple[tuple[str, int, str], ...]
    """Parent's name, images there, first row there; most images first."""
    kingdom: str | None = None


@dataclass(frozen=True)
class TaxonPair:
    """Two names of one rank that may be one taxon, with their images."""

    rank: Rank
    first: str
    second: str
    first_images: int
    second_images: int
    where: str
    """What they share: their parent, or the number of children that lie in both."""


class Tree:
    """A taxonomy with its ancestors as an array: `ancestor[i, t]` is taxon `t`'s ancestor at `ranks[i]`, -1 without."""

    def __init__(self, taxonomy: Taxonomy, images: npt.NDArray[np.int64], first_row: Sequence[str]) -> None:
        self.taxonomy = taxonomy
        self.ranks = taxonomy.ranks
        self.images = taxonomy.summed(images)
        self.own_images = images
        self.first_row = first_row
        self.names = taxonomy.names.to_pylist()
        self.ancestor = np.full((len(self.ranks), len(taxonomy)), -1, dtype=np.int32)
        for i, rank in enumerate(self.ranks):
            ids = self.at(rank)
            below = ids[taxonomy.parents[ids] >= 0]
            self.ancestor[:, below] = self.ancestor[:, taxonomy.parents[below]]
            self.ancestor[i, ids] = ids

    def at(self, rank: Rank) -> Ids:
        return np.flatnonzero(self.taxonomy.rank_codes == rank_index(rank)).astype(np.int32)

    def above(self, taxon_id: int, rank: Rank) -> int:
        """The taxon's ancestor at `rank`, -1 without."""
        return int(self.ancestor[self.ranks.index(rank), taxon_id]) if rank in self.ranks else -1

    def name_above(self, taxon_id: int, rank: Rank) -> str | None:
        found = self.above(taxon_id, rank)
        return self.names[found] if found >= 0 else None

    def label(self, taxon_id: int) -> str:
        """A species' binomial, a subspecies' trinomial, another taxon's name."""
        if self.taxonomy.rank(taxon_id) not in ("species", "subspecies"):
            return str(self.names[taxon_id])
        return self.taxonomy.lineage(taxon_id).label

    def example(self, taxon_id: int) -> str:
        """A row of the source where the taxon, or the first one below it, is named."""
        return next((row for t in self.taxonomy.subtree(taxon_id) if (row := self.first_row[t])), "")


def conflicts(tree: Tree, rank: Rank, parent_rank: Rank) -> list[Conflict]:
    """Names of `rank` below several names of `parent_rank` within one kingdom, most images first.

    Where the kingdom is not known or is the parent itself, homonyms across kingdoms cannot be told apart and count.
    """
    by_name: defaultdict[tuple[str, str | None], defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for taxon_id in tree.at(rank).tolist():
        parent = tree.name_above(taxon_id, parent_rank)
        if parent is not None:
            kingdom = None if parent_rank == "kingdom" else tree.name_above(taxon_id, "kingdom")
            by_name[tree.names[taxon_id], kingdom][parent].append(taxon_id)
    found = []
    for (name, kingdom), parents in by_name.items():
        if len(parents) > 1:
            listed = [(parent, int(tree.images[ids].sum()), tree.example(ids[0])) for parent, ids in parents.items()]
            found.append(Conflict(rank, name, parent_rank, tuple(sorted(listed, key=lambda p: (-p[1], p[0]))), kingdom))
    return sorted(found, key=lambda c: (-sum(images for _, images, _ in c.parents), c.name))


def all_conflicts(tree: Tree) -> list[Conflict]:
    """Conflicts of every rank with the next coarser one, and of the family with the order.

    A species' parent is its genus, which its binomial holds, so species cannot be in conflict.
    """
    pairs = [(b, a) for a, b in zip(tree.ranks, tree.ranks[1:], strict=False) if b not in ("species", "subspecies")]
    if {"family", "order"} <= set(tree.ranks) and ("family", "order") not in pairs:
        pairs.append(("family", "order"))
    return [conflict for rank, parent_rank in pairs for conflict in conflicts(tree, rank, parent_rank)]


def homonyms_across_kingdoms(tree: Tree) -> dict[str, tuple[str, ...]]:
    """Names above species, and binomials, that occur in several kingdoms: allowed, kept apart by their lineage."""
    if "kingdom" not in tree.ranks:
        return {}
    kingdoms: defaultdict[str, set[str]] = defaultdict(set)
    for taxon_id in range(len(tree.taxonomy)):
        kingdom = tree.name_above(taxon_id, "kingdom")
        if kingdom is not None and tree.taxonomy.rank(taxon_id) != "subspecies":
            kingdoms[tree.label(taxon_id)].add(kingdom)
    return {name: tuple(sorted(found)) for name, found in sorted(kingdoms.items()) if len(found) > 1}


def shared_epithets(tree: Tree) -> dict[str, int]:
    """Epithets that occur in several genera → number of genera, most first: why a bare epithet is no identity."""
    genera: defaultdict[str, set[str | None]] = defaultdict(set)
    for taxon_id in tree.at("species").tolist():
        genera[tree.names[taxon_id]].add(tree.name_above(taxon_id, "genus"))
    shared = {epithet: len(found) for epithet, found in genera.items() if len(found) > 1}
    return dict(sorted(shared.items(), key=lambda item: (-item[1], item[0])))


def misspellings(tree: Tree) -> list[TaxonPair]:
    """Siblings whose names differ by one edit (or only in diacritics and hyphens), the rarer second.

    Names under five letters are left out, and so are endings that differ by grammar alone in different genera: siblings
    share a genus, so "albus" beside "alba" is suspicious.
    """
    siblings: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for taxon_id, parent in enumerate(tree.taxonomy.parents.tolist()):
        siblings[parent, int(tree.taxonomy.rank_codes[taxon_id])].append(taxon_id)
    found = []
    for (parent, _), ids in siblings.items():
        where = tree.label(parent) if parent >= 0 else "the root"
        for a, b in _near(tree, ids):
            first, second = (a, b) if tree.images[a] >= tree.images[b] else (b, a)
            rank, images = tree.taxonomy.rank(a), tree.images
            found.append(
                TaxonPair(rank, tree.label(first), tree.label(second), int(images[first]), int(images[second]), where)
            )
    return sorted(found, key=lambda pair: (pair.rank, pair.first, pair.second))


def _near(tree: Tree, ids: list[int]) -> Iterator[tuple[int, int]]:
    """Pairs at edit distance one: both lose one letter to the same text, or one is the other's."""
    by_form: defaultdict[str, list[int]] = defaultdict(list)
    folded = {taxon_id: folded_spelling(tree.names[taxon_id]) for taxon_id in ids}
    if len(ids) < 2:
        return
    for taxon_id, text in folded.items():
        if len(text) >= _MIN_CHARS_FOR_MISSPELLING:
            for form in {text, *(text[:i] + text[i + 1 :] for i in range(len(text)))}:
                by_form[form].append(taxon_id)
    seen = set()
    for candidates in by_form.values():
        for i, a in enumerate(candidates):
            for b in candidates[i + 1 :]:
                pair = (min(a, b), max(a, b))
                if pair not in seen and _is_one_edit(folded[a], folded[b]):
                    seen.add(pair)
                    yield pair


def _is_one_edit(a: str, b: str) -> bool:
    """Equal, or one letter inserted, dropped, replaced or swapped with its neighbour."""
    if len(a) > len(b):
        a, b = b, a
    if len(b) - len(a) > 1:
        return False
    start = next((i for i in range(len(a)) if a[i] != b[i]), len(a))
    if len(a) < len(b):
        return a[start:] == b[start + 1 :]
    swapped = a[start : start + 2] == b[start : start + 2][::-1] and a[start + 2 :] == b[start + 2 :]
    return a[start + 1 :] == b[start + 1 :] or swapped


def mixed_spellings(tree: Tree, found: Sequence[Conflict]) -> list[TaxonPair]:
    """Pairs of parents that share children in several conflicts: probably two names of one taxon (Actinopterygii and
    Actinopteri), the more frequent first."""
    shared: Counter[tuple[Rank, str, str]] = Counter()
    images: Counter[tuple[Rank, str]] = Counter()
    for rank in tree.ranks:
        for taxon_id in tree.at(rank).tolist():
            images[rank, tree.names[taxon_id]] += int(tree.images[taxon_id])
    for conflict in found:
        names = sorted(name for name, _, _ in conflict.parents)
        shared.update((conflict.parent_rank, a, b) for i, a in enumerate(names) for b in names[i + 1 :])
    pairs = []
    for (rank, a, b), number in shared.items():
        alike = a[:6].casefold() == b[:6].casefold() or _is_one_edit(folded_spelling(a), folded_spelling(b))
        if number > 1 and (alike or number >= 5):
            first, second = (a, b) if images[rank, a] >= images[rank, b] else (b, a)
            where = f"{number} names lie in both"
            pairs.append(TaxonPair(rank, first, second, images[rank, first], images[rank, second], where))
    return sorted(pairs, key=lambda pair: -int(pair.where.split()[0]))


def missing_ranks(tree: Tree) -> dict[Rank, int]:
    """Rank → images whose lineage goes on below it but has no name at it."""
    holes = {}
    for i, rank in enumerate(tree.ranks):
        deeper = tree.taxonomy.rank_codes > rank_index(rank)
        holes[rank] = int(tree.own_images[deeper & (tree.ancestor[i] < 0)].sum())
    return {rank: number for rank, number in holes.items() if number}


def without_species(tree: Tree) -> int:
    """Images identified above species (all of them where the data set has no species rank)."""
    if "species" not in tree.ranks:
        return int(tree.own_images.sum())
    return int(tree.own_images[tree.ancestor[tree.ranks.index("species")] < 0].sum())


def monotypic(tree: Tree) -> dict[Rank, int]:
    """Rank → taxa with a single child: their condition and the child's are learnt from the same images."""
    num_children = np.bincount(tree.taxonomy.parents[tree.taxonomy.parents >= 0], minlength=len(tree.taxonomy))
    return {rank: int((num_children[tree.at(rank)] == 1).sum()) for rank in tree.ranks}


def long_tail(tree: Tree) -> dict[Rank, dict[str, int]]:
    """Rank → number of taxa by images each (`TAIL`)."""
    tail = {}
    for rank in tree.ranks:
        images = tree.images[tree.at(rank)]
        tail[rank] = {bucket.name: int(bucket.holds(images).sum()) for bucket in TAIL}
    return tail


def odd_names(tree: Tree) -> list[tuple[Rank, str, int]]:
    """Names that do not look like names: digits, slashes, quotation marks, "sp.", lower-case names above species.

    Rank, name, images.
    """
    found: Counter[tuple[Rank, str]] = Counter()
    for taxon_id, name in enumerate(tree.names):
        rank = tree.taxonomy.rank(taxon_id)
        is_epithet = rank in ("species", "subspecies")
        plain = re.sub(r"^(?:var|f|subsp)\. ", "", name) if is_epithet else name
        if _ODD.search(plain.capitalize() if is_epithet else plain):
            found[rank, name] += int(tree.images[taxon_id])
    return [(rank, name, images) for (rank, name), images in sorted(found.items(), key=lambda item: -item[1])]
