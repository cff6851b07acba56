"""Ranks and lineages: what a taxon is called, from coarse to fine, as plain frozen values."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from taxadiffusion.errors import DataError

Rank = str
"""A rank's name in lower case, one of `RANKS`."""

RANKS: tuple[Rank, ...] = (
    "domain", "kingdom", "phylum", "subphylum", "superclass", "class", "subclass", "infraclass", "superorder", "order",
    "suborder", "infraorder", "superfamily", "family", "subfamily", "tribe", "genus", "subgenus", "species",
    "subspecies",
)  # fmt: skip
"""Every rank this software knows, coarse to fine. A data set's ranks are an ordered subset."""

_RANK_INDEX = {rank: index for index, rank in enumerate(RANKS)}


def rank_index(rank: Rank) -> int:
    """Position of `rank` in `RANKS` (0 = coarsest). Raises `DataError` for an unknown rank."""
    if rank not in _RANK_INDEX:
        raise DataError(f"unknown rank {rank!r}; known ranks, coarse to fine: {', '.join(RANKS)}")
    return _RANK_INDEX[rank]


def ordered_ranks(ranks: Iterable[Rank]) -> tuple[Rank, ...]:
    """The given ranks coarse to fine, duplicates removed. Raises `DataError` for an unknown rank."""
    return tuple(sorted(set(ranks), key=rank_index))


@dataclass(frozen=True, slots=True)
class Lineage:
    """A taxon's names from coarse to fine: `((rank, name), …)`, strictly ordered; a missing rank is simply absent.

    At rank `species` the name is the epithet ("clarkii"); `binomial` joins it with the genus. The lineage is the
    taxon's identity: homonyms differ in it. The empty lineage stands for "unconditional".

    A rank missing above the finest name is a hole. Below it nothing is said, unless `hole` names a rank: then the ranks
    down to that one are holes as well ("order: Perciformes, family unknown" is not "order: Perciformes").
    """

    names: tuple[tuple[Rank, str], ...] = ()
    hole: Rank | None = None

    def __post_init__(self) -> None:
        indices = [rank_index(rank) for rank, _ in self.names]
        if self.hole is not None:
            indices.append(rank_index(self.hole))
        if any(a >= b for a, b in pairwise(indices)):
            raise DataError(
                f"lineage ranks must run coarse to fine without repeats, got {self.names!r}"
                + (f" and a hole at {self.hole!r}" if self.hole else "")
            )

    @classmethod
    def of(cls, names: Mapping[Rank, str | None] | Iterable[tuple[Rank, str | None]]) -> Lineage:
        """From rank → name in any order; empty names are left out; names are trimmed and NFC-normalised."""
        pairs = names.items() if isinstance(names, Mapping) else names
        cleaned = [(rank, unicodedata.normalize("NFC", name).strip()) for rank, name in pairs if name]
        return cls(tuple(sorted(((r, n) for r, n in cleaned if n), key=lambda pair: rank_index(pair[0]))))

    def __bool__(self) -> bool:
        return bool(self.names) or self.hole is not None

    def __str__(self) -> str:
        parts = [f"{rank}: {name}" for rank, name in self.names]
        return " > ".join(parts + ([f"{self.hole}: none"] if self.hole else [])) or "(unconditional)"

    @property
    def ranks(self) -> tuple[Rank, ...]:
        return tuple(rank for rank, _ in self.names)

    @property
    def rank(self) -> Rank | None:
        """The finest rank that has a name; None where none has."""
        return self.names[-1][0] if self.names else None

    @property
    def depth(self) -> Rank | None:
        """The finest rank of which something is said, a name or a hole; None for the empty lineage."""
        return self.hole or self.rank

    def get(self, rank: Rank) -> str | None:
        return next((name for r, name in self.names if r == rank), None)

    @property
    def binomial(self) -> str | None:
        """ "Genus epithet" where both are known, else None."""
        genus, epithet = self.get("genus"), self.get("species")
        return f"{genus} {epithet}" if genus and epithet else None

    @property
    def label(self) -> str:
        """What a person calls the taxon: the binomial at species rank, the trinomial below it ("Canis lupus lupus",
        "Brassica oleracea var. capitata"), else the finest name, "" when empty."""
        if self.rank == "species" and self.binomial:
            return self.binomial
        if self.rank == "subspecies" and self.binomial:
            return f"{self.binomial} {self.names[-1][1]}"
        return self.names[-1][1] if self.names else ""

    def truncated(self, rank: Rank) -> Lineage:
        """Only the ranks at or above (coarser than or equal to) `rank`; a hole that reaches further ends there."""
        limit = rank_index(rank)
        names = tuple(pair for pair in self.names if rank_index(pair[0]) <= limit)
        hole = self.hole
        if hole is not None and rank_index(hole) > limit:
            hole = rank if names == self.names and self.rank != rank else None
        return Lineage(names, hole)

    def without(self, rank: Rank) -> Lineage:
        """With a hole in place of the name at `rank`, also where that is the finest; unchanged where there is none."""
        if self.get(rank) is None:
            return self
        own = rank if rank == self.rank else None  # above a finer name the gap says it
        return Lineage(tuple(pair for pair in self.names if pair[0] != rank), self.hole or own)

    def only(self, ranks: Iterable[Rank]) -> Lineage:
        """Only the named ranks; a hole at another rank ends at the finest of them that it reaches."""
        wanted = set(ranks)
        names = tuple(pair for pair in self.names if pair[0] in wanted)
        if self.hole is None or self.hole in wanted:
            return Lineage(names, self.hole)
        coarsest = rank_index(names[-1][0]) if names else -1
        reached = [r for r in wanted if coarsest < rank_index(r) < rank_index(self.hole)]
        return Lineage(names, max(reached, key=rank_index, default=None))
