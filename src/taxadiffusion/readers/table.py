"""Tables as text: CSV, TSV, JSON Lines and Parquet, row by row, with faulty rows reported instead of guessed at."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from taxadiffusion.errors import DataError
from taxadiffusion.readers import bounded
from taxadiffusion.readers.delimited import Broken, Cells, declared_separator, guess_separator, split_rows
from taxadiffusion.readers.parquet import as_text, open_parquet, rows_as_text, text_columns
from taxadiffusion.readers.record import Rejected

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")
SHORT_ROWS = "rows_with_trailing_cells_missing"
"""The word under which readers count the rows that `Table.num_short` tells of."""
_UNDECODABLE = re.compile("[\0\ud800-\udfff]")
_UNDECODABLE_REASON = "the row holds NUL or bytes that are not UTF-8"
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

    Nothing is inferred: "NA" stays "NA", 007 stays "007". A spreadsheet's first line `sep=;` is understood. Raises
    `DataError` (file:row: reason) for a table that cannot be read at all: empty, no header, a column named twice, not
    UTF-8 text, damaged Parquet or gzip.
    """

    def __init__(self, path: Path, *, delimiter: str | None = None, quoted: bool = True, header: bool = True) -> None:
        """`quoted=False` takes quotation marks literally (GBIF and iNaturalist dumps); no header: columns "0", "1"…"""
        self.path = path
        self.num_short = 0
        """Rows of the last iteration that were read although trailing cells are missing (see `may_end_after`)."""
        self._quote = '"' if quoted else ""
        self._header = header
        self._first_lines = 0
        self._needed: frozenset[str] | None = None
        if not path.is_file():
            raise DataError(f"{path}: no such table")
        kind = path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]
        self._kind = kind if kind in ("jsonl", "parquet") else "csv"
        if self._kind == "csv":
            self._delimiter = delimiter or self._guess_delimiter()
        self.columns = self._read_columns()

    def may_end_after(self, needed: Iterable[str | None]) -> None:
        """Read rows that end early, as spreadsheets write them, where none of the `needed` columns is missing."""
        self._needed = frozenset(name for name in needed if name)

    def __iter__(self) -> Iterator[Row | Rejected]:
        self.num_short = 0
        if self._kind == "parquet":
            return (Row(number, values) for number, values in enumerate(rows_as_text(self.path), start=1))
        return self._jsonl_rows() if self._kind == "jsonl" else self._csv_rows()

    def _read_columns(self) -> tuple[str, ...]:
        if self._kind == "parquet":
            columns = text_columns(open_parquet(self.path).schema_arrow)
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

    def _guess_delimiter(self) -> str:
        with closing(_lines(self.path)) as lines:
            first = next(lines, "") or ""
        if (declared := declared_separator(first)) is not None:
            self._first_lines = 1
            return declared
        return guess_separator(first, "," if ".csv" in self.path.name.lower() else "\t")

    def _csv_header(self) -> list[str]:
        with closing(_lines(self.path)) as lines:
            first = next(
                split_rows(itertools.islice(lines, self._first_lines, None), self._delimiter, self._quote), None
            )
        if isinstance(first, Broken):
            raise DataError(f"{self.path}:1: the header cannot be read: {first.told(1)}")
        if first is None or not first.cells:
            raise DataError(f"{self.path}:1: the table is empty")
        if _UNDECODABLE.search("".join(first.cells)):
            raise DataError(f"{self.path}:1: the header is not UTF-8 text; save the table as UTF-8")
        return first.cells if self._header else [str(i) for i in range(len(first.cells))]

    def _csv_rows(self) -> Iterator[Row | Rejected]:
        with closing(_lines(self.path)) as all_lines:
            lines = itertools.islice(all_lines, self._first_lines, None)
            if self._header:
                next(split_rows(lines, self._delimiter, self._quote))
            number = 1 + self._header
            for row in split_rows(lines, self._delimiter, self._quote, len(self.columns)):
                if isinstance(row, Broken):
                    reason = row.told(number)
                    for line in row.lines:
                        yield Rejected(self.path.name, number, _shown(line), reason)
                        number += 1
                    continue
                if row.cells:
                    yield self._checked(number, row)
                number += 1

    def _checked(self, number: int, row: Cells) -> Row | Rejected:
        cells, num_columns = row.cells, len(self.columns)
        text = self._delimiter.join(cells)
        if _UNDECODABLE.search(text):
            return Rejected(self.path.name, number, _shown(text), _UNDECODABLE_REASON)
        if len(cells) > num_columns and not any(cells[num_columns:]):
            cells = cells[:num_columns]
        missing = self.columns[len(cells) :]
        if missing and self._needed is not None and row.ended and self._needed.isdisjoint(missing):
            self.num_short += 1
            cells = [*cells, *("" for _ in missing)]
        if len(cells) != num_columns:
            return Rejected(self.path.name, number, text[:80], self._wrong_length(row, missing))
        return Row(number, {name: cell for name, cell in zip(self.columns, cells, strict=True) if name})

    def _wrong_length(self, row: Cells, missing: tuple[str, ...]) -> str:
        reason = f"the row has {len(row.cells)} cells, the header {len(self.columns)}"
        if row.num_lines > 1:
            return f"{reason}; it spans {row.num_lines} lines: is a quotation mark left open?"
        if missing and not row.ended:
            return f"{reason}; the file ends inside this row"
        if lost := [name for name in missing if self._needed and name in self._needed]:
            return (
                f"{reason}: {', '.join(lost)} missing; write every cell (a last column that is never empty keeps them)"
            )
        return reason

    # JSON Lines

    def _jsonl_rows(self) -> Iterator[Row | Rejected]:
        with closing(_lines(self.path)) as lines:
            for number, line in enumerate(lines, start=1):
                if line is None:
                    reason = f"the line has more than {bounded.MAX_LINE_CHARS} characters"
                    yield Rejected(self.path.name, number, "", reason)
                elif line.strip():
                    yield self._jsonl_row(number, line)

    def _jsonl_row(self, number: int, line: str) -> Row | Rejected:
        try:
            value = json.loads(line, parse_constant=lambda _: None, parse_float=str, parse_int=str)
        except (ValueError, RecursionError) as error:
            return Rejected(self.path.name, number, _shown(line), f"not a JSON object: {error}")
        if not isinstance(value, dict):
            return Rejected(self.path.name, number, _shown(line), "not a JSON object")
        row = Row(number, {key.strip(): as_text(cell) for key, cell in value.items()})
        if any(_UNDECODABLE.search(text) for text in (*row.values, *row.values.values())):
            return Rejected(self.path.name, number, _shown(line), _UNDECODABLE_REASON)
        return row


def _lines(path: Path) -> Generator[str | None, None, None]:
    """Lines with their ends (`bounded.lines`) of a plain or gzip-packed UTF-8 file."""
    with bounded.open_plain(path) as raw:
        if raw.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):  # type: ignore[attr-defined]
            raise DataError(f"{path}: the table is UTF-16 text; save it as UTF-8")
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            yield from bounded.lines(text)
        except bounded.DAMAGED as error:
            raise DataError(f"{path}: damaged or unreadable: {error}") from error


def _shown(line: str) -> str:
    return line.strip()[:80].replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
