"""What the pages know of the model: its name, its taxa and their relations. Plain values, no weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.taxonomy import OtherName, Taxonomy, find_taxon


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the worker says of the model that it has opened."""

    ranks: tuple[Rank, ...]
    taxonomy: Mapping[str, Any]
    """As `Taxonomy.to_json`."""
    image_size_px: int
    base: str
    sha256: str
    """As in the recipes of its pictures."""
    device: str
    folder: str = ""
    """Of the adapter; "" where it has none."""


class ServedModel:
    """The taxa of a model that have one of its ranks, by their number in its taxonomy."""

    def __init__(self, name: str, facts: ModelFacts, base: str | None = None) -> None:
        """name, base: as the person who serves it wrote them; base None: the model's own word for it."""
        self.name, self.facts, self.ranks, self.base = name, facts, facts.ranks, base
        self.taxonomy = Taxonomy.from_json(dict(facts.taxonomy))
        self.lineages: dict[int, Lineage] = {}
        """Over the model's ranks, ascending by number."""
        self.parents: dict[int, int | None] = {}
        self.children: dict[int | None, list[int]] = {}
        self.other_names: dict[int, list[OtherName]] = {}
        for taxon in range(len(self.taxonomy)):
            if self.taxonomy.rank(taxon) not in self.ranks:
                continue
            self.lineages[taxon] = self.taxonomy.lineage(taxon).only(self.ranks)
            above = self.taxonomy.parent(taxon)
            while above is not None and above not in self.lineages:
                above = self.taxonomy.parent(above)
            self.parents[taxon] = above
            self.children.setdefault(above, []).append(taxon)

    def called(self, others: Iterable[OtherName]) -> ServedModel:
        """Itself, which from now on knows these names of its taxa too."""
        for other in others:
            if other.taxon in self.lineages:
                self.other_names.setdefault(other.taxon, []).append(other)
        return self

    def common_name(self, taxon: int) -> str:
        """ "" where none is known."""
        names = self.other_names.get(taxon, [])
        return next((other.name for other in names if other.kind == "common name"), "")

    def lineage(self, taxon: int) -> Lineage:
        """Raises `DataError` for a number that is no taxon of the model."""
        if taxon not in self.lineages:
            raise DataError(f"this model has no taxon {taxon}")
        return self.lineages[taxon]

    @cached_property
    def ids(self) -> dict[Lineage, int]:
        """Lineage → number; of several the first."""
        found: dict[Lineage, int] = {}
        for taxon, lineage in self.lineages.items():
            found.setdefault(lineage, taxon)
        return found

    @cached_property
    def finest_below(self) -> dict[int, int]:
        """How many taxa of the model's finest rank each holds; itself is one."""
        finest = self.ranks[-1]
        found = {taxon: int(lineage.rank == finest) for taxon, lineage in self.lineages.items()}
        for taxon in reversed(found):
            if (above := self.parents[taxon]) is not None:
                found[above] += found[taxon]
        return found

    @property
    def finest_words(self) -> str:
        """What `finest_below` counts: "species", or "genus taxa"."""
        return "species" if self.ranks[-1] == "species" else f"{self.ranks[-1]} taxa"

    @cached_property
    def finest(self) -> list[int]:
        """Its taxa of the finest rank, in the order of their names."""
        found = [taxon for taxon, lineage in self.lineages.items() if lineage.rank == self.ranks[-1]]
        return sorted(found, key=lambda taxon: self.lineages[taxon].label)

    def path(self, taxon: int) -> tuple[int, ...]:
        """The taxon's ancestors and itself, coarse to fine."""
        found = [taxon]
        while (above := self.parents[found[-1]]) is not None:
            found.append(above)
        return tuple(reversed(found))

    def written(self, lineage: Lineage) -> str:
        """What to type for this taxon and no other: its label where that is enough, else its whole lineage."""
        try:
            found = find_taxon(self.taxonomy, lineage.label)
        except DataError:
            return str(lineage)
        plain = found.note is None and found.lineage.only(self.ranks) == lineage
        return lineage.label if plain else str(lineage)
