"""A simulated clade: a birth-death tree cut into ranks, with named taxa, the true traits of species and ancestors."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Lineage, Rank, ordered_ranks
from taxadiffusion.simulate.latin import LatinNamer
from taxadiffusion.simulate.traits import Traits, evolve

DEFAULT_RANKS: tuple[Rank, ...] = ("order", "family", "genus", "species")
EXTINCTION = 0.35  # deaths per birth


@dataclass(frozen=True)
class Clade:
    """Tree, taxa and traits of a simulated clade. Species are the tips, in the order of `species`.

    `parents` (N,) is the node above each node (-1 for the root, always smaller than the node); `times` (N,) in 0 … 1 is
    when a node splits, 1 for every tip; `tips` (S,) are the nodes of the species; `traits` (S,) are theirs, and
    `node_traits` (N,) those of every node.
    """

    seed: int
    ranks: tuple[Rank, ...]
    parents: NDArray[np.int64]
    times: NDArray[np.float64]
    tips: NDArray[np.int64]
    species: tuple[Lineage, ...]
    traits: tuple[Traits, ...]
    node_traits: tuple[Traits, ...]

    @classmethod
    def grow(cls, seed: int, num_species: int = 24, ranks: Sequence[Rank] = DEFAULT_RANKS) -> Clade:
        """Grow a clade of exactly `num_species` living species; the same seed gives the same clade.

        Raises `SettingsError` for fewer than 2 species, or for ranks that do not end in genus and species.
        """
        ranks = ordered_ranks(ranks)
        if num_species < 2:
            raise SettingsError(f"a clade needs at least 2 species, got num_species = {num_species}")
        if ranks[-2:] != ("genus", "species"):
            raise SettingsError(f"the ranks of a clade end in genus, species; got {', '.join(ranks) or 'none'}")
        rng = np.random.default_rng([seed, 0])
        parents, times = _reconstructed(*_birth_death(num_species, rng))
        tips = np.flatnonzero(times == 1.0)
        species = _lineages(parents, times, tips, ranks, LatinNamer(rng))
        latents = evolve(parents, times, np.random.default_rng([seed, 1]))
        node_traits = tuple(Traits.from_latent(latent) for latent in latents)
        return cls(seed, ranks, parents, times, tips, species, tuple(node_traits[tip] for tip in tips), node_traits)

    def __len__(self) -> int:
        return len(self.species)

    def taxa(self, rank: Rank) -> dict[Lineage, tuple[int, ...]]:
        """Every taxon of `rank` with the indices of its species."""
        members: dict[Lineage, tuple[int, ...]] = {}
        for index, lineage in enumerate(self.species):
            taxon = lineage.truncated(rank)
            members[taxon] = (*members.get(taxon, ()), index)
        return members

    def species_below(self, node: int) -> tuple[int, ...]:
        """Indices of the species that descend from a node of the tree."""
        found = []
        for index, tip in enumerate(self.tips.tolist()):
            while tip > node:
                tip = int(self.parents[tip])
            if tip == node:
                found.append(index)
        return tuple(found)

    def ancestors(self, known: Container[Lineage] | None = None) -> dict[Lineage, int]:
        """Every taxon with two or more taxa of the next rank, and the node where its species part.

        A taxon with a single one below it would repeat that one's node. known: of these species alone, as of those
        that a model learned; none: of all.
        """
        found = {}
        for rank, finer in pairwise(self.ranks):
            for taxon, all_species in self.taxa(rank).items():
                species = [index for index in all_species if known is None or self.species[index] in known]
                if len({self.species[index].truncated(finer) for index in species}) > 1:
                    found[taxon] = max(set.intersection(*(self._path(int(self.tips[index])) for index in species)))
        return found

    def _path(self, node: int) -> set[int]:
        """A node and all above it."""
        path = {node}
        while (node := int(self.parents[node])) >= 0:
            path.add(node)
        return path

    def newick(self) -> str:
        """The tree in Newick format: tips named Genus_epithet, branch lengths in units of the clade's age."""
        children: dict[int, list[int]] = {}
        for node, parent in enumerate(self.parents.tolist()):
            children.setdefault(parent, []).append(node)
        names = {
            int(t): (s.binomial or s.label).replace(" ", "_") for t, s in zip(self.tips, self.species, strict=True)
        }
        text: dict[int, str] = {}
        for node in reversed(range(len(self.parents))):  # children have larger numbers than their parent
            parent = int(self.parents[node])
            below = children.get(node, [])
            inner = f"({','.join(text[child] for child in below)})" if below else names[node]
            length = float(self.times[node] - self.times[parent]) if parent >= 0 else 0.0
            text[node] = f"{inner}:{length:.6f}" if parent >= 0 else f"{inner};"
        return text[0]


def _birth_death(num_species: int, rng: np.random.Generator) -> tuple[list[int], list[float], set[int]]:
    """Run a birth-death process from two lineages until `num_species` live; returns parents, end times, living tips."""
    while True:
        parents, ends = [-1, 0, 0], [0.0, np.inf, np.inf]
        living, now = [1, 2], 0.0
        while living and len(living) <= num_species:
            now += rng.exponential(1.0 / (len(living) * (1.0 + EXTINCTION)))
            if len(living) == num_species:  # stop half a waiting time after the last species arose
                ends = [now if end == np.inf else end for end in ends]
                both_sides = {_side(parents, tip) for tip in living} == {1, 2}
                if both_sides:
                    return parents, ends, set(living)
                break
            node = living.pop(int(rng.integers(len(living))))
            ends[node] = now
            if rng.random() < 1.0 / (1.0 + EXTINCTION):
                for _ in range(2):
                    living.append(len(parents))
                    parents.append(node)
                    ends.append(np.inf)


def _side(parents: list[int], node: int) -> int:
    """Which of the two first lineages, 1 or 2, a node descends from."""
    while parents[node] != 0:
        node = parents[node]
    return node


def _reconstructed(
    parents: list[int], ends: list[float], living: set[int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The tree of the living: extinct branches cut off, nodes with one child merged, age scaled to 1."""
    num_alive = [0] * len(parents)
    for tip in living:
        node = tip
        while node >= 0:
            num_alive[node] += 1
            node = parents[node]
    new_of: dict[int, int] = {}
    kept_parents: list[int] = []
    kept_times: list[float] = []
    now = max(ends)
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(parents):
        if num_alive[node]:
            children.setdefault(parent, []).append(node)
    for node in range(len(parents)):
        if not num_alive[node] or (node not in living and len(children[node]) == 1):
            continue
        above = parents[node]
        while above >= 0 and above not in new_of:
            above = parents[above]
        new_of[node] = len(kept_parents)
        kept_parents.append(new_of[above] if above >= 0 else -1)
        kept_times.append(1.0 if node in living else ends[node] / now)
    return np.array(kept_parents, dtype=np.int64), np.array(kept_times)


def _lineages(
    parents: NDArray[np.int64],
    times: NDArray[np.float64],
    tips: NDArray[np.int64],
    ranks: tuple[Rank, ...],
    namer: LatinNamer,
) -> tuple[Lineage, ...]:
    """Cut the tree at one time per rank: what lives at the cut is a taxon, so taxa are monophyletic and nested.

    The numbers of taxa grow geometrically from rank to rank (24 species: 2 orders, 5 families, 11 genera).
    """
    splits = np.sort(times[times < 1.0])
    cuts = []
    for index in range(len(ranks) - 1):
        num_taxa = max(2, round(len(tips) ** ((index + 1) / len(ranks))))
        after = splits[num_taxa - 1] if num_taxa - 1 < len(splits) else 1.0
        cuts.append((splits[num_taxa - 2] + after) / 2.0)
    paths = []
    for tip in tips.tolist():
        ancestors = [tip]
        while parents[ancestors[-1]] >= 0:
            ancestors.append(int(parents[ancestors[-1]]))
        # the taxon at a cut is the oldest node of this path that splits after the cut
        paths.append([next(node for node in reversed(ancestors) if times[node] > cut) for cut in cuts])
    stems: dict[int, str] = {path[-1]: namer.stem() for path in paths}
    genera = {node: namer.genus(stem) for node, stem in stems.items()}
    named: dict[tuple[Rank, int], str] = {}
    lineages = []
    for path in paths:
        names: dict[Rank, str | None] = {"genus": genera[path[-1]], "species": namer.epithet()}
        for rank, node in zip(ranks[:-2], path[:-1], strict=True):
            if (rank, node) not in named:
                named[rank, node] = namer.higher(stems[path[-1]], rank)
            names[rank] = named[rank, node]
        lineages.append(Lineage.of(names))
    return tuple(lineages)
