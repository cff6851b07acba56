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
    """

    names: tuple[tuple[Rank, str], ...] = ()

    def __post_init__(self) -> None:
        indices = [rank_index(rank) for rank, _ in self.names]
        if any(a >= b for a, b in pairwise(indices)):
            raise DataError(f"lineage ranks must run coarse to fine without repeats, got {self.names!r}")

    @classmethod
    def of(cls, names: Mapping[Rank, str | None] | Iterable[tuple[Rank, str | None]]) -> Lineage:
        """From rank → name in any order; empty names are left out; names are trimmed and NFC-normalised."""
        pairs = names.items() if isinstance(names, Mapping) else names
        cleaned = [(rank, unicodedata.normalize("NFC", name).strip()) for rank, name in pairs if name]
        return cls(tuple(sorted(((r, n) for r, n in cleaned if n), key=lambda pair: rank_index(pair[0]))))

    def __bool__(self) -> bool:
        return bool(self.names)

    def __str__(self) -> str:
        return " > ".join(f"{rank}: {name}" for rank, name in self.names) or "(unconditional)"

    @property
    def ranks(self) -> tuple[Rank, ...]:
        return tuple(rank for rank, _ in self.names)

    @property
    def rank(self) -> Rank | None:
        """The finest rank present; None for the empty lineage."""
        return self.names[-1][0] if self.names else None

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
        """Only the ranks at or above (coarser than or equal to) `rank`."""
        limit = rank_index(rank)
        return Lineage(tuple(pair for pair in self.names if rank_index(pair[0]) <= limit))

    def without(self, rank: Rank) -> Lineage:
        """With a hole at `rank`; the finer ranks stay."""
        return Lineage(tuple(pair for pair in self.names if pair[0] != rank))

    def only(self, ranks: Iterable[Rank]) -> Lineage:
        """Only the named ranks."""
        wanted = set(ranks)
        return Lineage(tuple(pair for pair in self.names if pair[0] in wanted))
