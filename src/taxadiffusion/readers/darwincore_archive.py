"""Darwin Core archives as files: zip, tar or folder, with or without meta.xml, row by row as term → value."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from taxadiffusion.errors import DataError
from taxadiffusion.readers import bounded
from taxadiffusion.readers.darwincore_descriptor import DataFile, read_descriptor
from taxadiffusion.readers.delimited import Broken, Cells, guess_separator, split_rows
from taxadiffusion.readers.record import Rejected

MEDIA_TYPES = frozenset({"multimedia", "image", "media"})
_METADATA = frozenset(
    {"eml.xml", "metadata.xml", "meta.xml", "citations.txt", "rights.txt", "readme.txt", "verbatim.txt"}
)
_MAX_FILES = 100_000
_HEAD_BYTES = 1 << 16
_NEEDED_TERMS = ("id", "scientificName", "identifier", "accessURI")


@dataclass(frozen=True)
class ArchiveRow:
    number: int
    values: dict[str, str]
    source: str = ""
    """The file it stands in."""

    def get(self, *terms: str) -> str:
        """The first of the terms that has a value, trimmed."""
        return next((value for term in terms if (value := self.values.get(term, "").strip())), "")


class Archive:
    """The data files of one archive. Raises `DataError` when it cannot be understood or asks for too much."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_short = 0
        """Rows, over all iterations, that were read although trailing cells are missing."""
        self._is_zip = path.is_file() and zipfile.is_zipfile(path)
        self._members = _members(path, is_zip=self._is_zip)
        self.core, self.extensions = self._described() if "meta.xml" in self._members else self._undescribed()

    def extension(self, row_types: frozenset[str]) -> DataFile | None:
        return next(iter(self.extensions_of(row_types)), None)

    def extensions_of(self, row_types: frozenset[str]) -> list[DataFile]:
        return [file for file in self.extensions if file.row_type in row_types]

    def rows(self, file: DataFile) -> Iterator[ArchiveRow | Rejected]:
        """Rows of one table, file after file.

        Rejected: lines that a stray quotation mark ran together, undecodable rows, and rows that end before their id,
        scientificName or the medium's address; other missing trailing cells are empty ones.
        """
        for name in file.names:
            yield from self._rows_of(name, file)

    def _rows_of(self, name: str, file: DataFile) -> Iterator[ArchiveRow | Rejected]:
        source = name.rsplit("/", 1)[-1]
        with self._text(name, file) as text:
            lines = _without_bom(bounded.lines(text))
            num_columns = self._past_header(lines, file, source)
            number = file.header_lines + 1
            for row in split_rows(lines, file.delimiter, file.quote, num_columns):
                if isinstance(row, Broken):
                    reason = row.told(number)
                    for line in row.lines:
                        yield Rejected(source, number, _shown(line), reason)
                        number += 1
                    continue
                if any(row.cells):
                    yield self._checked(row, file, name, number)
                number += 1

    def _past_header(self, lines: Iterator[str | None], file: DataFile, source: str) -> int:
        """Passes the header lines over; returns the number of columns, by the widest of them or the descriptor."""
        described = max(file.columns.values(), default=0) + 1
        header = [next(lines, None) or "" for _ in range(file.header_lines)]
        if not header:
            return described
        widest = max(line.rstrip("\r\n").count(file.delimiter) + 1 for line in header)
        if widest < described:
            raise DataError(f"{self.path}: meta.xml describes {described} columns, {source} has {widest}; correct it")
        return widest

    def _checked(self, row: Cells, file: DataFile, name: str, number: int) -> ArchiveRow | Rejected:
        source = name.rsplit("/", 1)[-1]
        cells, num_columns = row.cells, max(file.columns.values(), default=0) + 1
        if len(cells) < num_columns:
            reason = f"the row has {len(cells)} cells, the descriptor {num_columns}"
            if len(cells) <= max((file.columns[t] for t in _NEEDED_TERMS if t in file.columns), default=0):
                return Rejected(source, number, file.delimiter.join(cells)[:80], reason)
            if not row.ended:
                return Rejected(source, number, file.delimiter.join(cells)[:80], f"{reason}; the file ends inside it")
            self.num_short += 1
            cells = [*cells, *[""] * (num_columns - len(cells))]
        if any(c == "\0" or "\udc00" <= c <= "\udcff" for cell in cells if not cell.isprintable() for c in cell):
            return Rejected(source, number, "", f"the row holds NUL or bytes that are not {file.encoding}")
        named = {term: cells[column] for term, column in file.columns.items()}
        return ArchiveRow(number, {**named, **{t: v for t, v in file.defaults.items() if not named.get(t)}}, name)

    # Files

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        where = self._members[name]
        try:
            if isinstance(where, Path):
                with where.open("rb", buffering=_HEAD_BYTES) as file:
                    yield file
            elif self._is_zip:
                with bounded.open_zip_entry(self.path, where) as file:
                    yield file
            else:
                with closing(bounded.TarArchive(self.path, packed=True)) as archive:
                    yield archive.open(next(entry for entry in archive.entries(_MAX_FILES) if entry.name == where))
        except (*bounded.DAMAGED, RuntimeError, UnicodeError) as error:
            raise DataError(f"{self.path}: {name} is damaged or cannot be read: {error}") from error

    @contextmanager
    def _text(self, name: str, file: DataFile) -> Iterator[IO[str]]:
        """The file as text, its line ends as they are: CR alone where the descriptor or the file itself says so."""
        with self._open(name) as raw:
            head = raw.peek(_HEAD_BYTES)[:_HEAD_BYTES].decode(file.encoding, "replace")  # type: ignore[attr-defined]
            only_returns = "\n" not in head and "\r" in head
            mostly_returns = file.line_end == "\r" and head.count("\r") > head.count("\n")
            newline = "\r" if only_returns or mostly_returns else "" if file.quote else "\n"
            yield io.TextIOWrapper(raw, file.encoding, errors="surrogateescape", newline=newline)

    # What the tables are

    def _described(self) -> tuple[DataFile, list[DataFile]]:
        with self._open("meta.xml") as file:
            document = file.read(bounded.MAX_TEXT_BYTES + 1)
        if len(document) > bounded.MAX_TEXT_BYTES:
            raise bounded.BoundError(self.path, f"meta.xml has more than {bounded.MAX_TEXT_BYTES} bytes")
        described = read_descriptor(self.path, document)
        cores = [file for kind, file in described if kind == "core"]
        if len(cores) != 1:
            raise DataError(f"{self.path}: meta.xml must describe one core with a file, an id and fields")
        extensions = [file for kind, file in described if kind == "extension"]
        media = [table for table in extensions if table.row_type in MEDIA_TYPES]
        for table, what in ((cores[0], "core"), *((table, "media") for table in media)):
            if missing := [name for name in table.names if name not in self._members]:
                raise DataError(f"{self.path}: the {what} file {missing[0]!r} is missing from the archive")
        present = [file for file in extensions if all(name in self._members for name in file.names)]
        return self._with_separator(cores[0]), [self._with_separator(file) for file in present]

    def _with_separator(self, file: DataFile) -> DataFile:
        return file if file.delimiter else replace(file, delimiter=guess_separator(self._first_line(file), "\t"))

    def _first_line(self, file: DataFile) -> str:
        with self._text(file.names[0], file) as text:
            return next(bounded.lines(text), "") or ""

    def _undescribed(self) -> tuple[DataFile, list[DataFile]]:
        """Without meta.xml: occurrence.txt (+ multimedia.txt), or the one table there is; headers name the terms."""
        tables = [n for n in self._members if n.rsplit("/", 1)[-1].lower() not in _METADATA
                  and n.lower().endswith((".txt", ".csv", ".tsv"))]  # fmt: skip
        named = {name.rsplit("/", 1)[-1].rsplit(".", 1)[0].lower(): name for name in tables}
        core = named.get("occurrence") or named.get("occurrences") or (tables[0] if len(tables) == 1 else None)
        if core is None or named.get("multimedia") == core:
            listed = ", ".join(sorted(self._members)[:8])
            raise DataError(f"{self.path}: no meta.xml and no occurrence table that could be told from: {listed}")
        media = named.get("multimedia")
        return self._headed(core, "occurrence"), [self._headed(media, "multimedia")] if media else []

    def _headed(self, name: str, row_type: str) -> DataFile:
        file = DataFile((name,), row_type, {}, encoding="utf-8-sig")
        head = self._first_line(file)
        separator = guess_separator(head, "\t")
        quote = '"' if '"' in head or separator in (",", ";") else ""
        first = next(split_rows(iter([head]), separator, quote), None)
        terms = first.cells if isinstance(first, Cells) else []
        columns = {_TERMS.get(term.strip().lower(), term.strip()): i for i, term in reversed(list(enumerate(terms)))}
        if not {"scientificName", "species", "genus", "family"} & set(columns) and row_type == "occurrence":
            raise DataError(f"{self.path}: {name} has no taxon column; its header: {', '.join(terms[:8])[:200]}")
        link = next((term for term in ("id", "gbifID", "occurrenceID") if term in columns), None)
        if link is not None:
            columns["id"] = columns[link]
        return replace(file, columns=columns, delimiter=separator, quote=quote)


_TERMS = {
    term.lower(): term
    for term in (
        "id", "gbifID", "occurrenceID", "kingdom", "phylum", "class", "order", "superfamily", "family", "subfamily",
        "tribe", "genus", "subgenus", "species", "specificEpithet", "infraspecificEpithet", "scientificName",
        "scientificNameAuthorship", "taxonRank", "license", "rightsHolder", "associatedMedia", "identifier", "type",
        "format", "creator", "accessURI",
    )
}  # fmt: skip
"""Terms this software reads, by their lower-case spelling (GBIF's simple downloads write them in lower case)."""


def _without_bom(lines: Iterator[str | None]) -> Iterator[str | None]:
    for number, line in enumerate(lines):
        yield line.removeprefix("\ufeff") if line and not number else line


def _shown(line: str) -> str:
    return line.strip()[:80].replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _members(path: Path, *, is_zip: bool) -> dict[str, str | Path]:
    """Name inside the archive → where to read it; one enclosing folder and macOS's resource files are left out."""
    try:
        if path.is_dir():
            found: dict[str, str | Path] = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
        elif is_zip:
            with bounded.open_zip(path) as archive:
                found = {name: name for name in archive.namelist() if not name.endswith("/")}
        elif path.is_file() and path.suffix.lower() in (".txt", ".csv", ".tsv"):
            found = {path.name: path}
        elif path.is_file() and _is_tar(path):
            with closing(bounded.TarArchive(path, packed=True)) as archive_tar:
                found = {entry.name.removeprefix("./"): entry.name for entry in archive_tar.entries(_MAX_FILES)}
        else:
            raise DataError(f"{path}: neither a Darwin Core archive (zip, tar, folder) nor an occurrence table")
    except (*bounded.DAMAGED, RuntimeError) as error:
        raise DataError(f"{path}: damaged archive: {error}") from error
    if not path.is_dir() and len(found) > _MAX_FILES:
        raise bounded.BoundError(path, f"the archive has {len(found)} files, more than {_MAX_FILES}")
    found = {
        n: where
        for n, where in found.items()
        if not n.startswith("__MACOSX/") and not n.split("/")[-1].startswith("._")
    }
    tops = {name.split("/", 1)[0] for name in found}
    if len(tops) == 1 and found and all("/" in name for name in found):
        found = {name.split("/", 1)[1]: where for name, where in found.items()}
    if not found:
        raise DataError(f"{path}: the archive is empty")
    return found


def _is_tar(path: Path) -> bool:
    try:
        bounded.TarArchive(path, packed=True).close()
    except bounded.DAMAGED:
        return False
    return True
