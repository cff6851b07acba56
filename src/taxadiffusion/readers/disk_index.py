"""A key → values look-up on disk, for joining tables that do not fit in memory."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from taxadiffusion.readers.record import Rejected

KeyedRow = tuple[str, tuple[str, ...]]
_Row = TypeVar("_Row")
_ROWS_AT_ONCE = 4096


class DiskIndex:
    """Filled with (key, values) pairs, then asked by key; a temporary SQLite file that is removed at the end.

    The first pair of a repeated key is kept. `values` are texts; their number is fixed by the first pair.
    """

    def __init__(self, pairs: Iterable[KeyedRow] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="taxadiffusion-join-")
        self._connection = sqlite3.connect(Path(self._folder.name) / "index.sqlite")
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("CREATE TABLE pairs (key TEXT PRIMARY KEY, cells TEXT) WITHOUT ROWID")
        self.add(pairs)

    def add(self, pairs: Iterable[KeyedRow]) -> None:
        rows = ((key, "\x1f".join(values)) for key, values in pairs)
        self._connection.executemany("INSERT OR IGNORE INTO pairs VALUES (?, ?)", rows)
        self._connection.commit()

    def fill(
        self, rows: Iterable[_Row | Rejected], pairs_of: Callable[[_Row], Iterable[KeyedRow]]
    ) -> Iterator[Rejected]:
        """Adds what `pairs_of` gives for every good row; yields the others, so that they count."""
        all_rows = iter(rows)
        while some := list(islice(all_rows, _ROWS_AT_ONCE)):
            self.add(pair for row in some if not isinstance(row, Rejected) for pair in pairs_of(row))
            yield from (row for row in some if isinstance(row, Rejected))

    def __enter__(self) -> DiskIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._folder.cleanup()

    def get(self, key: str) -> tuple[str, ...] | None:
        found = self._connection.execute("SELECT cells FROM pairs WHERE key = ?", (key,)).fetchone()
        return tuple(found[0].split("\x1f")) if found else None
