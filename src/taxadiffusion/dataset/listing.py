"""First pass: every row of a source to a memory-mapped file, its taxa to a taxonomy, faulty rows to the quarantine."""

from __future__ import annotations

import csv
import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taxadiffusion.dataset.columns import LISTED, SPLITS
from taxadiffusion.names import Rank
from taxadiffusion.readers import Record, Rejected
from taxadiffusion.taxonomy import TaxonomyBuilder

ROWS_PER_BATCH = 1024
_NUM_FIRST = 5
_SPLIT_CODES: dict[str | None, int] = {None: -1, **{split: code for code, split in enumerate(SPLITS)}}


class Quarantine:
    """Writes `quarantine.csv` (source, row, value, reason) and counts by reason."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, list[str]] = {}
        """The first values quarantined for each reason."""
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(["source", "row", "value", "reason"])

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self.reasons.total()

    def add(self, source: str, row: int, value: str, reason: str) -> None:
        """An image that is left out, counted and written down with its reason (F8)."""
        self.reasons[reason] += 1
        if self.reasons[reason] <= _NUM_FIRST:
            self.first.setdefault(reason, []).append(value)
        self._writer.writerow([source, row, value, reason])


class Listing:
    """All records of a source, in source order, with what the later passes need of each as arrays of N rows.

    `taxon_ids`; `keys`, a hash of image, package member and box (equal keys show the same thing); `groups`, a hash of
    the group, or of the image where a row has none; `splits`, index into `SPLITS` or -1. `first_row` is "table:row" of
    the first row identified exactly at each taxon, "" for the others.
    """

    def __init__(self, ranks: tuple[Rank, ...], path: Path) -> None:
        self.path = path
        self.num_rows = 0
        self._builder = TaxonomyBuilder(ranks)
        self._digest = hashlib.sha256()
        self._taxa, self._splits, self._has_group = array("i"), array("b"), array("b")
        self._keys, self._groups = array("Q"), array("Q")
        self._first_row: dict[int, str] = {}

    def read(
        self,
        rows: Iterable[Record | Rejected],
        quarantine: Quarantine,
        limit: int | None,
        on_rows: Callable[[int], None],
    ) -> None:
        """Streams `rows` (at most `limit` of them) to the file. Memory: some 30 bytes a row, and the taxa."""
        batch: list[Record] = []
        with pa.OSFile(str(self.path), "wb") as sink, pa.ipc.new_file(sink, LISTED) as writer:
            for item in rows:
                if limit is not None and self.num_rows >= limit:
                    break
                self.num_rows += 1
                if isinstance(item, Rejected):
                    quarantine.add(item.source, item.row, item.value, item.reason)
                    continue
                taxon = self._add(item)
                if taxon < 0:
                    quarantine.add(item.source, item.row, item.image, "none of the chosen ranks has a name")
                    continue
                batch.append(item)
                if len(batch) == ROWS_PER_BATCH:
                    self._write(writer, batch)
                    on_rows(self.num_rows)
                    batch = []
            if batch:
                self._write(writer, batch)
        on_rows(self.num_rows)
        self._finish()

    def _add(self, record: Record) -> int:
        taxon = self._builder.add(record.lineage)
        if taxon < 0:
            return taxon
        image = f"{record.image}\0{record.member or ''}"
        box = record.box
        shown = f"{image}\0{box.x},{box.y},{box.width},{box.height}" if box else image
        self._taxa.append(taxon)
        self._keys.append(_hash64(shown))
        self._groups.append(_hash64(f"group\0{record.group}" if record.group else image))
        self._has_group.append(record.group is not None)
        self._splits.append(_SPLIT_CODES[record.split])
        if taxon not in self._first_row:
            self._first_row[taxon] = f"{record.source}:{record.row}"
        return taxon

    def _write(self, writer: pa.RecordBatchWriter, records: list[Record]) -> None:
        first = len(self._taxa) - len(records)
        columns: dict[str, Any] = {
            name: [getattr(record, name) for record in records] for name in LISTED.names if name not in ("taxon", "box")
        }
        columns["taxon"] = self._taxa[first:]
        columns["box"] = [[b.x, b.y, b.width, b.height] if (b := record.box) else None for record in records]
        batch = pa.record_batch([pa.array(columns[field.name], field.type) for field in LISTED], schema=LISTED)
        writer.write_batch(batch)
        for record in records:
            self._digest.update(repr(record).encode())
            if record.source_taxon_id is not None:
                self._digest.update(f"taxonID {record.source_taxon_id}\n".encode())

    def _finish(self) -> None:
        self.taxonomy, final = self._builder.finish()
        self.taxon_ids: npt.NDArray[np.int32] = final[np.frombuffer(self._taxa, np.int32)] if self._taxa else final[:0]
        self.keys = np.array(self._keys, np.uint64)
        self.groups = np.array(self._groups, np.uint64)
        self.has_group = np.array(self._has_group, np.bool_)
        self.splits = np.array(self._splits, np.int8)
        self.first_row = [""] * len(final)
        for taxon, row in self._first_row.items():
            self.first_row[final[taxon]] = row
        self.content_hash = self._digest.hexdigest()

    def __len__(self) -> int:
        return len(self.taxon_ids)

    def batches(self) -> pa.RecordBatchFileReader:
        """The rows, memory-mapped: batch `i` holds rows from `i * ROWS_PER_BATCH`."""
        return pa.ipc.open_file(pa.memory_map(str(self.path)))


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
