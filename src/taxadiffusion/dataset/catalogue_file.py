"""The table of names of a Catalogue of Life archive (ColDP or Darwin Core), streamed batch by batch."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv

from taxadiffusion.errors import DataError

OnBytes = Callable[[int, int], None]
"""Bytes read so far, and of how many."""

_TABLES = ("nameusage.tsv", "nameusage.csv", "nameusage.txt", "taxon.tsv", "taxon.txt", "taxon.csv")
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError)
_BLOCK_BYTES = 4 << 20
_COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "taxonid"),
    "parent": ("parentid", "parentnameusageid"),
    "accepted": ("acceptednameusageid",),
    "status": ("status", "taxonomicstatus"),
    "rank": ("rank", "taxonrank"),
    "name": ("scientificname",),
    "authorship": ("authorship", "scientificnameauthorship"),
    "kingdom": ("kingdom",),
}
"""Our word for a column → what ColDP and Darwin Core call it, without "col:" or "dwc:", in small letters."""
_NEEDED = ("id", "status", "rank", "name")


@dataclass(frozen=True)
class NamesTable:
    """Where the names are: a file, or a member of a zip; `columns` are our words → the table's own."""

    path: Path
    member: str | None
    num_bytes: int
    delimiter: str
    columns: dict[str, str]

    @property
    def is_darwin_core(self) -> bool:
        return "accepted" in self.columns

    def batches(self, wanted: Sequence[str], on_bytes: OnBytes | None = None) -> Iterator[pa.RecordBatch]:
        """The wanted columns (those the table has) as text under our words. Memory: a block of the file.

        Raises `DataError` for a damaged archive or a row that has not the header's cells.
        """
        own = [self.columns[word] for word in wanted if word in self.columns]
        words = [word for word in wanted if word in self.columns]
        quoted = self.delimiter == ","
        try:
            with _opened(self.path, self.member) as stream:
                reader = pyarrow.csv.open_csv(
                    _Counting(stream, self.num_bytes, on_bytes),
                    pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
                    pyarrow.csv.ParseOptions(
                        delimiter=self.delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
                    ),
                    pyarrow.csv.ConvertOptions(
                        column_types=dict.fromkeys(own, pa.string()), include_columns=own, strings_can_be_null=False
                    ),
                )
                for batch in reader:
                    yield batch.rename_columns(words)
        except (pa.ArrowException, *_DAMAGED) as error:
            raise DataError(f"{self.path}: the table of names cannot be read: {error}; download it again") from error


class _Counting:
    """A binary stream that tells how much of it was read."""

    def __init__(self, stream: IO[bytes], total: int, on_bytes: OnBytes | None) -> None:
        self._stream, self._total, self._on_bytes, self._done = stream, total, on_bytes, 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._done += len(data)
        if self._on_bytes is not None:
            self._on_bytes(self._done, self._total)
        return data

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


def is_catalogue(path: Path) -> bool:
    """Whether a zip, folder or file holds a table of names by its file name (NameUsage, Taxon)."""
    try:
        return _find(path) is not None
    except (zipfile.BadZipFile, OSError):
        return False


def open_names(path: Path) -> NamesTable:
    """The table of names of an archive. Raises `DataError` for anything that is no such archive, saying what to get."""
    try:
        found = _find(path)
        header = _header(*found[:2]) if found is not None else ""
    except _DAMAGED as error:
        raise DataError(f"{path}: not a readable archive: {error}; download it again") from error
    if found is None:
        raise DataError(
            f"{path}: holds no table of names; give the Catalogue of Life's download in ColDP (NameUsage.tsv) or as a "
            "Darwin Core archive (Taxon.tsv), zipped or unpacked"
        )
    where, member, num_bytes = found
    delimiter = "\t" if "\t" in header else ","
    cells = next(csv.reader([header], delimiter=delimiter), [])
    plain = {cell.strip().rpartition(":")[2].lower(): cell for cell in reversed(cells)}
    columns = {word: plain[name] for word, names in _COLUMNS.items() for name in reversed(names) if name in plain}
    if missing := [word for word in _NEEDED if word not in columns]:
        raise DataError(
            f"{member or where}: its table of names has no column for {', '.join(missing)} (it has "
            f"{', '.join(cells[:12])}); get the download whose table NameUsage holds names and taxa together, or the "
            "Darwin Core archive"
        )
    return NamesTable(where, member, num_bytes, delimiter, columns)


def _header(path: Path, member: str | None) -> str:
    with _opened(path, member) as stream:
        line: bytes = stream.readline(1 << 20)
    return line.decode("utf-8-sig", "replace").rstrip("\r\n")


def _find(path: Path) -> tuple[Path, str | None, int] | None:
    """(file, member, size) of the table of names; the first of `_TABLES`, the one nearest the top."""
    if path.is_dir():
        files = [f for f in sorted((*path.glob("*"), *path.glob("*/*"))) if f.is_file()]
        best = min(files, key=lambda f: (_order(f.name), len(f.parts)), default=None)
        return (best, None, best.stat().st_size) if best is not None and _order(best.name) < len(_TABLES) else None
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    if not zipfile.is_zipfile(path):
        return (path, None, path.stat().st_size) if _order(path.name) < len(_TABLES) else None
    with zipfile.ZipFile(path) as archive:
        infos = [i for i in archive.infolist() if not i.is_dir() and not i.filename.startswith("__MACOSX")]
    entry = min(infos, key=lambda i: (_order(i.filename.rpartition("/")[2]), i.filename.count("/")), default=None)
    if entry is None or _order(entry.filename.rpartition("/")[2]) == len(_TABLES):
        return None
    return path, entry.filename, entry.file_size


def _order(name: str) -> int:
    return _TABLES.index(name.lower()) if name.lower() in _TABLES else len(_TABLES)


@contextmanager
def _opened(path: Path, member: str | None) -> Iterator[Any]:
    if member is None:
        with path.open("rb") as stream:
            yield stream
    else:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            yield stream
