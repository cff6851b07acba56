"""The taxonomic tree as arrays: parent, rank and name of each taxon id."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from taxadiffusion.errors import DataError
from taxadiffusion.names import RANKS, Lineage, Rank, ordered_ranks, rank_index
from taxadiffusion.taxonomy.name_index import NameIndex, nearest_text

SCHEMA = 1
IntArray = npt.NDArray[np.int32]


class Taxonomy:
    """Taxa 0 … len-1. `TaxonomyBuilder` numbers them depth first in name order, so ids do not depend on row order;
    `extended` appends, so ids never change. A parent's id is always smaller than its children's.
    """

    def __init__(
        self, ranks: Sequence[Rank], parents: IntArray, rank_codes: npt.NDArray[np.int8], names: pa.Array
    ) -> None:
        """`parents` (N,), -1 for a root; `rank_codes` (N,) index into `names.RANKS`; `names` (N,) text. Checked."""
        self.ranks: tuple[Rank, ...] = tuple(ranks)
        self.parents = parents
        self.rank_codes = rank_codes
        self.names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
        self._check()

    def _check(self) -> None:
        if list(self.ranks) != list(ordered_ranks(self.ranks)):
            raise DataError(f"taxonomy ranks must run coarse to fine without repeats, got {', '.join(self.ranks)}")
        num_taxa = len(self.names)
        if len(self.parents) != num_taxa or len(self.rank_codes) != num_taxa or self.names.null_count:
            raise DataError("taxonomy columns differ in length or hold nulls")
        if not num_taxa:
            return
        allowed = np.array([rank_index(rank) for rank in self.ranks], dtype=np.int8)
        wrong = np.flatnonzero(~np.isin(self.rank_codes, allowed))
        if len(wrong):
            raise DataError(f"taxon {wrong[0]} has a rank that is not one of the taxonomy's: {', '.join(self.ranks)}")
        ids = np.arange(num_taxa)
        below = self.parents >= 0
        coarser = np.where(below, self.rank_codes[np.maximum(self.parents, 0)], -1) < self.rank_codes
        wrong = np.flatnonzero((self.parents < -1) | (self.parents >= ids) | ~coarser)
        if len(wrong):
            raise DataError(f"taxon {wrong[0]} has no valid parent: {int(self.parents[wrong[0]])}")

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Taxonomy) and self.content_hash == other.content_hash

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def content_hash(self) -> str:
        """sha256 over the ranks and every taxon's parent, rank and name in id order, hence over all lineages."""
        encoded = [name.encode() for name in self.names.to_pylist()]
        digest = hashlib.sha256(f"taxonomy {SCHEMA}\n{' '.join(self.ranks)}\n{len(self)}\n".encode())
        digest.update(np.ascontiguousarray(self.parents, dtype="<i4").tobytes())
        digest.update(np.ascontiguousarray(self.rank_codes, dtype="i1").tobytes())
        digest.update(np.array([len(name) for name in encoded], dtype="<i4").tobytes())
        digest.update(b"".join(encoded))
        return digest.hexdigest()

    # One taxon

    def rank(self, taxon_id: int) -> Rank:
        return str(RANKS[self.rank_codes[self._checked(taxon_id)]])

    def name(self, taxon_id: int) -> str:
        return str(self.names[self._checked(taxon_id)].as_py())

    def parent(self, taxon_id: int) -> int | None:
        parent = int(self.parents[self._checked(taxon_id)])
        return parent if parent >= 0 else None

    def ancestors(self, taxon_id: int) -> tuple[int, ...]:
        """The taxon and its ancestors, finest first."""
        return tuple(self._upwards(self._checked(taxon_id)))

    def _upwards(self, taxon_id: int) -> Iterator[int]:
        while taxon_id >= 0:
            yield taxon_id
            taxon_id = int(self.parents[taxon_id])

    def lineage(self, taxon_id: int) -> Lineage:
        path = self.ancestors(taxon_id)[::-1]
        return Lineage(tuple((RANKS[self.rank_codes[t]], str(self.names[t].as_py())) for t in path))

    def id_of(self, lineage: Lineage) -> int:
        """The taxon with exactly this lineage. Raises `DataError` that names the nearest known taxa."""
        taxon_id = -1
        for rank, name in lineage.names:
            code, name = rank_index(rank), unicodedata.normalize("NFC", name)
            siblings = self._children_of(taxon_id)
            taxon_id = next(
                (int(t) for t in siblings if self.rank_codes[t] == code and self.names[int(t)].as_py() == name), -1
            )
            if taxon_id < 0:
                raise DataError(f"no taxon {lineage}{nearest_text(self.name_index.labels, lineage.label, self.ranks)}")
        if taxon_id < 0:
            raise DataError("the empty lineage is no taxon")
        return taxon_id

    @cached_property
    def name_index(self) -> NameIndex:
        """Every name that leads to a taxon; built when a name is first looked up."""
        return NameIndex.of(self.names.to_pylist(), self.rank_codes.tolist(), self.parents.tolist())

    # Relations

    def children(self, taxon_id: int) -> tuple[int, ...]:
        return tuple(int(t) for t in self._children_of(self._checked(taxon_id)))

    def roots(self) -> tuple[int, ...]:
        return tuple(int(t) for t in self._children_of(-1))

    def subtree(self, taxon_id: int) -> tuple[int, ...]:
        """The taxon and all its descendants, ascending."""
        found, front = [self._checked(taxon_id)], [taxon_id]
        while front:
            front = [int(child) for t in front for child in self._children_of(t)]
            found.extend(front)
        return tuple(sorted(found))

    def lowest_common_ancestor(self, a: int, b: int) -> int | None:
        """The finest taxon that is an ancestor of both (a taxon counts as its own); None without one."""
        above_a = set(self.ancestors(a))
        return next((t for t in self.ancestors(b) if t in above_a), None)

    def at_rank(self, rank: Rank) -> tuple[int, ...]:
        """All taxa of one rank, ascending."""
        return tuple(int(t) for t in np.flatnonzero(self.rank_codes == rank_index(rank)))

    def summed(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """`counts` (N,) of each taxon alone → (N,) with its whole subtree."""
        total = counts.copy()
        for code in sorted(set(self.rank_codes.tolist()), reverse=True):
            of_rank = np.flatnonzero((self.rank_codes == code) & (self.parents >= 0))
            np.add.at(total, self.parents[of_rank], total[of_rank])
        return total

    @cached_property
    def _child_index(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        order = np.argsort(self.parents, kind="stable")
        starts = np.searchsorted(self.parents[order], np.arange(-1, len(self) + 1))
        return order, starts

    def _children_of(self, taxon_id: int) -> npt.NDArray[np.int64]:
        order, starts = self._child_index
        return order[starts[taxon_id + 1] : starts[taxon_id + 2]]

    def _checked(self, taxon_id: int) -> int:
        if not 0 <= taxon_id < len(self):
            raise DataError(f"no taxon with id {taxon_id}; this taxonomy holds 0 to {len(self) - 1}")
        return int(taxon_id)

    # On disk

    def write(self, path: Path) -> None:
        """Parquet: taxon_id, parent_id (null for a root), rank, name; ranks and content hash in the file's metadata."""
        table = pa.table(
            {
                "taxon_id": np.arange(len(self), dtype=np.int32),
                "parent_id": pa.array(self.parents, mask=self.parents < 0),
                "rank": pa.DictionaryArray.from_arrays(self.rank_codes, list(RANKS)),
                "name": self.names,
            },
            metadata={"taxadiffusion.ranks": " ".join(self.ranks), "taxadiffusion.content_hash": self.content_hash},
        )
        pq.write_table(table, path, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> Taxonomy:
        """What `write` wrote. Raises `DataError` for a missing, damaged or altered file."""
        try:
            table = pq.read_table(path)
            metadata = table.schema.metadata or {}
            ranks = metadata[b"taxadiffusion.ranks"].decode().split()
            ranks_column = table["rank"].cast(pa.string()).combine_chunks().dictionary_encode()
            code_of = np.array([rank_index(rank) for rank in ranks_column.dictionary.to_pylist()], dtype=np.int8)
            codes = code_of[ranks_column.indices.to_numpy()]
            parents = table["parent_id"].fill_null(-1).to_numpy().astype(np.int32)
            names = table["name"].cast(pa.string()).combine_chunks()
        except (OSError, pa.ArrowException, KeyError) as error:
            raise DataError(f"{path}: not a readable taxonomy: {error}; run prepare again") from error
        taxonomy = cls(ranks, parents, codes, names)
        if taxonomy.content_hash != metadata.get(b"taxadiffusion.content_hash", b"").decode():
            raise DataError(f"{path}: the taxonomy was altered after it was written; run prepare again")
        return taxonomy

    def to_json(self) -> dict[str, Any]:
        """For adapters: plain lists, read back by `from_json`."""
        return {
            "schema": SCHEMA,
            "ranks": list(self.ranks),
            "parents": self.parents.tolist(),
            "rank": [RANKS[code] for code in self.rank_codes.tolist()],
            "names": self.names.to_pylist(),
            "content_hash": self.content_hash,
        }

    @classmethod
    def from_json(cls, value: Any) -> Taxonomy:
        """From `to_json`'s value. Raises `DataError` for anything else; nothing in it is executed or trusted."""
        keys = {"schema": int, "ranks": list, "parents": list, "rank": list, "names": list, "content_hash": str}
        if not isinstance(value, dict) or set(value) != set(keys):
            raise DataError(f"not a taxonomy: expected an object with {', '.join(keys)}")
        wrong = [key for key, kind in keys.items() if not isinstance(value[key], kind)]
        if wrong or value["schema"] != SCHEMA:
            raise DataError(f"not a taxonomy of schema {SCHEMA}: {', '.join(wrong) or 'another schema'}")
        if not all(isinstance(text, str) for key in ("ranks", "rank", "names") for text in value[key]) or not all(
            type(parent) is int and -1 <= parent < len(value["parents"]) for parent in value["parents"]
        ):
            raise DataError("not a taxonomy: ranks and names must be text, parents must be taxon ids or -1")
        codes = np.array([rank_index(rank) for rank in value["rank"]], dtype=np.int8)
        parents = np.array(value["parents"], dtype=np.int32)
        if len(set(zip(value["parents"], value["rank"], value["names"], strict=False))) < len(parents):
            raise DataError("not a taxonomy: a lineage appears twice")
        taxonomy = cls(value["ranks"], parents, codes, pa.array(value["names"], pa.string()))
        if taxonomy.content_hash != value["content_hash"]:
            raise DataError("the taxonomy does not match its content hash: it was altered after it was written")
        return taxonomy
