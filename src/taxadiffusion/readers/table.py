"""Tables as text: CSV, TSV, JSON Lines and Parquet, row by row, with faulty rows reported instead of guessed at."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from taxadiffusion.errors import DataError
from taxadiffusion.readers.record import Rejected

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")
_UNDECODABLE = re.compile("[\0\ud800-\udfff]")
_UNDECODABLE_REASON = "the row holds NUL or bytes that are not UTF-8"
_NUL = "\udc00"  # stands for a NUL byte while csv parses: Python 3.10's csv refuses the real one
_MAX_LINE_CHARS = 4 << 20
_JSONL_ROWS_FOR_COLUMNS = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """One row; every value is text as written, "" where the cell is empty or the key absent."""

    number: int
    values: dict[str, str]

    def get(self, column: str | None) -> str:
        return self.values.get(column, "").strip() if column else ""


class Table:
    """Streams one table. `columns` are the header's names; iterating yields `Row | Rejected`, again from the start.

    Nothing is inferred: "NA" stays "NA", 007 stays "007". Raises `DataError` (file:row: reason) for a table that cannot
    be read at all: empty, no header, a column named twice, not UTF-8 text, damaged Parquet or gzip.
    """

    def __init__(self, path: Path, *, delimiter: str | None = None, quoted: bool = True, header: bool = True) -> None:
        """`quoted=False` takes quotation marks literally (GBIF and iNaturalist dumps); no header: columns "0", "1"…"""
        self.path = path
        self._quoted = quoted
        self._header = header
        if not path.is_file():
            raise DataError(f"{path}: no such table")
        kind = path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]
        self._kind = kind if kind in ("jsonl", "parquet") else "csv"
        if self._kind == "csv":
            self._delimiter = delimiter or _guess_delimiter(path)
        self.columns = self._read_columns()

    def __iter__(self) -> Iterator[Row | Rejected]:
        if self._kind == "parquet":
            return self._parquet_rows()
        return self._jsonl_rows() if self._kind == "jsonl" else self._csv_rows()

    def _read_columns(self) -> tuple[str, ...]:
        if self._kind == "parquet":
            columns = list(_open_parquet(self.path).schema_arrow.names)
        elif self._kind == "jsonl":
            head = itertools.islice(self._jsonl_rows(), _JSONL_ROWS_FOR_COLUMNS)
            columns = list(dict.fromkeys(key for row in head if isinstance(row, Row) for key in row.values))
        else:
            columns = [name.strip() for name in self._csv_header()]
        if not any(columns):
            raise DataError(f"{self.path}:1: the table is empty: no column names")
        repeated = sorted({name for name in columns if name and columns.count(name) > 1})
        if repeated:
            raise DataError(f"{self.path}:1: column {repeated[0]!r} appears twice; rename or drop one of them")
        return tuple(columns)

    # CSV

    def _csv_header(self) -> list[str]:
        try:
            first: list[str] | None = next(self._csv_reader(), None)
        except csv.Error as error:
            raise DataError(f"{self.path}:1: the header cannot be read: {error}") from error
        if not first:
            raise DataError(f"{self.path}:1: the table is empty")
        if _UNDECODABLE.search("".join(first)):
            raise DataError(f"{self.path}:1: the header is not UTF-8 text; save the table as UTF-8")
        return first if self._header else [str(i) for i in range(len(first))]

    def _csv_reader(self) -> Any:
        csv.field_size_limit(_MAX_LINE_CHARS)
        lines = (line.replace("\0", _NUL) for line in _lines(self.path))
        if self._quoted:
            return csv.reader(lines, delimiter=self._delimiter)
        return csv.reader(lines, delimiter=self._delimiter, quoting=csv.QUOTE_NONE)

    def _csv_rows(self) -> Iterator[Row | Rejected]:
        reader = self._csv_reader()
        if self._header:
            next(reader)
        for number in itertools.count(2 if self._header else 1):
            start = reader.line_num
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Rejected(self.path.name, number, "", f"the row cannot be read: {error}")
                continue
            if cells:
                yield self._checked(number, cells, reader.line_num - start)

    def _checked(self, number: int, cells: list[str], num_lines: int) -> Row | Rejected:
        num_columns = len(self.columns)
        text = self._delimiter.join(cells)
        if _UNDECODABLE.search(text):
            return Rejected(self.path.name, number, _shown(text), _UNDECODABLE_REASON)
        if len(cells) > num_columns and not any(cells[num_columns:]):
            cells = cells[:num_columns]
        if len(cells) != num_columns:
            hint = f"; it spans {num_lines} lines: is a quotation mark left open?" if num_lines > 1 else ""
            reason = f"the row has {len(cells)} cells, the header {num_columns}{hint}"
            return Rejected(self.path.name, number, text[:80], reason)
        return Row(number, {name: cell for name, cell in zip(self.columns, cells, strict=True) if name})

    # JSON Lines

    def _jsonl_rows(self) -> Iterator[Row | Rejected]:
        for number, line in enumerate(_lines(self.path), start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line, parse_constant=lambda _: None, parse_float=str, parse_int=str)
            except (ValueError, RecursionError) as error:
                yield Rejected(self.path.name, number, _shown(line), f"not a JSON object: {error}")
                continue
            if not isinstance(value, dict):
                yield Rejected(self.path.name, number, _shown(line), "not a JSON object")
                continue
            row = Row(number, {key.strip(): _as_text(cell) for key, cell in value.items()})
            if any(_UNDECODABLE.search(text) for text in (*row.values, *row.values.values())):
                yield Rejected(self.path.name, number, _shown(line), _UNDECODABLE_REASON)
            else:
                yield row

    # Parquet

    def _parquet_rows(self) -> Iterator[Row | Rejected]:
        import pyarrow as pa

        number = 0
        try:
            for batch in _open_parquet(self.path).iter_batches(batch_size=4096):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, {str(key): _as_text(cell) for key, cell in values.items()})
        except pa.ArrowException as error:
            raise DataError(f"{self.path}: damaged after row {number}: {error}") from error


def _open_text(path: Path) -> IO[str]:
    with path.open("rb") as raw:
        start = raw.read(4)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: the table is UTF-16 text; save it as UTF-8")
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _open_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error


def _lines(path: Path) -> Iterator[str]:
    """Lines with their ends, the longest cut at `_MAX_LINE_CHARS`."""
    with _open_text(path) as file:
        try:
            yield from iter(lambda: file.readline(_MAX_LINE_CHARS), "")
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path}: damaged or unreadable: {error}") from error


def _guess_delimiter(path: Path) -> str:
    header = next(_lines(path), "")
    return max(("," if ".csv" in path.name.lower() else "\t", ",", "\t", ";"), key=header.count)


def _shown(line: str) -> str:
    return line.strip()[:80].replace(_NUL, "\\0").encode("utf-8", "backslashreplace").decode()


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
