"""Darwin Core archives as files: zip, tar or folder, with or without meta.xml, row by row as term → value."""

from __future__ import annotations

import csv
import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from taxadiffusion.errors import DataError
from taxadiffusion.readers.record import Rejected

MEDIA_TYPES = frozenset({"multimedia", "image", "media"})
_METADATA = frozenset(
    {"eml.xml", "metadata.xml", "meta.xml", "citations.txt", "rights.txt", "readme.txt", "verbatim.txt"}
)
_ESCAPES = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\r\\n": "\r\n", "&quot;": '"'}
_NUL = "\udc00"


@dataclass(frozen=True)
class DataFile:
    """One table of an archive, as its descriptor (or its header) describes it."""

    name: str
    row_type: str
    """Last word of the rowType, lower case: "occurrence", "taxon", "event", "multimedia"."""
    columns: dict[str, int]
    """Term (last word of its IRI) → column; "id" is the core's id, an extension's link to it."""
    defaults: dict[str, str] = field(default_factory=dict)
    delimiter: str = "\t"
    quote: str = ""
    encoding: str = "utf-8"
    header_lines: int = 1


@dataclass(frozen=True)
class Row:
    number: int
    values: dict[str, str]

    def get(self, *terms: str) -> str:
        """The first of the terms that has a value, trimmed."""
        return next((value for term in terms if (value := self.values.get(term, "").strip())), "")


class Archive:
    """The data files of one archive. Raises `DataError` when it cannot be understood."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members = _members(path)
        meta = self._members.get("meta.xml")
        self.core, self.extensions = self._described() if meta else self._undescribed()

    def extension(self, row_types: frozenset[str]) -> DataFile | None:
        return next((file for file in self.extensions if file.row_type in row_types), None)

    def rows(self, file: DataFile) -> Iterator[Row | Rejected]:
        """Rows of one data file; a row shorter than its descriptor or not decodable is rejected."""
        short_name = file.name.rsplit("/", 1)[-1]
        with self._open(file.name) as raw:
            text = io.TextIOWrapper(
                raw, encoding=file.encoding, errors="surrogateescape", newline="" if file.quote else "\n"
            )
            lines = (line.removeprefix("\ufeff").replace("\0", _NUL) for line in text)
            csv.field_size_limit(1 << 24)
            reader = _split(lines, file)
            last = max(file.columns.values(), default=0)
            for number, cells in enumerate(reader, start=1):
                if number == file.header_lines and not isinstance(cells, str) and len(cells) <= last:
                    raise DataError(
                        f"{self.path}: meta.xml describes {last + 1} columns, {short_name} has {len(cells)}; correct it"
                    )
                if number <= file.header_lines or not any(cells):
                    continue
                if isinstance(cells, str) or len(cells) <= last:
                    reason = (
                        cells
                        if isinstance(cells, str)
                        else f"the row has {len(cells)} cells, the descriptor {last + 1}"
                    )
                    yield Rejected(
                        short_name, number, file.delimiter.join(cells)[:80] if cells is not reason else "", reason
                    )
                    continue
                if any(0xDC00 <= ord(c) <= 0xDCFF for cell in cells if not cell.isascii() for c in cell):
                    yield Rejected(short_name, number, "", f"the row holds NUL or bytes that are not {file.encoding}")
                    continue
                named = {term: cells[column] for term, column in file.columns.items()}
                yield Row(number, {**named, **{t: v for t, v in file.defaults.items() if not named.get(t)}})

    def _open(self, name: str) -> IO[bytes]:
        member = self._members[name]
        if isinstance(member, Path):
            return member.open("rb")
        if zipfile.is_zipfile(self.path):
            return zipfile.ZipFile(self.path).open(member)
        extracted = tarfile.open(self.path).extractfile(member)  # noqa: SIM115 - closed with the member by its reader
        if extracted is None:
            raise DataError(f"{self.path}: {member} is no file")
        return extracted

    def _read(self, name: str) -> bytes:
        with self._open(name) as file:
            return file.read()

    def _described(self) -> tuple[DataFile, list[DataFile]]:
        document = self._read("meta.xml")
        if b"<!ENTITY" in document:
            raise DataError(f"{self.path}: meta.xml defines entities; refused")
        try:
            root = ElementTree.fromstring(document)
        except ElementTree.ParseError as error:
            raise DataError(f"{self.path}: meta.xml is not XML: {error}") from error
        parts = [(_local(element.tag), element) for element in root]
        cores = [self._described_file(element) for tag, element in parts if tag == "core"]
        core = cores[0] if len(cores) == 1 else None
        if core is None:
            raise DataError(f"{self.path}: meta.xml must describe one core with a file, an id and fields")
        if core.name not in self._members:
            raise DataError(f"{self.path}: the core file {core.name!r} is missing from the archive")
        extensions = [file for tag, element in parts if tag == "extension" and (file := self._described_file(element))]
        missing = [file.name for file in extensions if file.name not in self._members and file.row_type in MEDIA_TYPES]
        if missing:
            raise DataError(f"{self.path}: the media file {missing[0]!r} is missing from the archive")
        return core, [file for file in extensions if file.name in self._members]

    def _described_file(self, element: ElementTree.Element) -> DataFile | None:
        """None for a table without a file location (which is then of no use)."""
        location = next((e.text.strip() for e in element.iter() if _local(e.tag) == "location" and e.text), None)
        if location is None:
            return None
        columns: dict[str, int] = {}
        defaults: dict[str, str] = {}
        for child in element:
            index, term = child.get("index"), child.get("term", "").strip()
            name = (
                "id" if _local(child.tag) in ("id", "coreid") else term.rstrip("/").replace("#", "/").rsplit("/", 1)[-1]
            )
            if _local(child.tag) not in ("id", "coreid", "field") or not name:
                continue
            if index is not None and index.strip().isdigit():
                columns.setdefault(name, int(index))
            if (default := child.get("default")) is not None:
                defaults[name] = default
        delimiter = element.get("fieldsTerminatedBy")
        header = element.get("ignoreHeaderLines", "0").strip()
        return DataFile(
            name=location,
            row_type=_local(element.get("rowType", "").replace("/", "}")).lower(),
            columns=columns,
            defaults=defaults,
            delimiter=_ESCAPES.get(delimiter, delimiter) if delimiter else self._guess_delimiter(location),
            quote=_ESCAPES.get(element.get("fieldsEnclosedBy", '"'), element.get("fieldsEnclosedBy", '"')),
            encoding=_codec(self.path, element.get("encoding", "utf-8")),
            header_lines=int(header) if header.isdigit() else 0,
        )

    def _guess_delimiter(self, name: str) -> str:
        if name not in self._members:
            return "\t"
        with self._open(name) as file:
            head = file.readline(1 << 20)
        return "\t" if head.count(b"\t") >= head.count(b",") else ","

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
        delimiter = self._guess_delimiter(name)
        with self._open(name) as file:
            head = file.readline(1 << 20).decode("utf-8-sig", errors="replace")
        terms = next(csv.reader([head.rstrip("\r\n")], delimiter=delimiter), [])
        columns = {_TERMS.get(term.strip().lower(), term.strip()): i for i, term in reversed(list(enumerate(terms)))}
        if not {"scientificName", "species", "genus", "family"} & set(columns) and row_type == "occurrence":
            raise DataError(f"{self.path}: {name} has no taxon column; its header: {', '.join(terms[:8])}")
        link = next((term for term in ("id", "gbifID", "occurrenceID") if term in columns), None)
        if link is not None:
            columns["id"] = columns[link]
        return DataFile(
            name, row_type, columns, delimiter=delimiter, quote='"' if '"' in head or delimiter == "," else ""
        )


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


def _split(lines: Iterator[str], file: DataFile) -> Iterator[list[str] | str]:
    """Cells of each row; a text instead where a row cannot be read."""
    if not file.quote:
        for line in lines:
            yield line.rstrip("\r\n").split(file.delimiter)
        return
    reader = csv.reader(lines, delimiter=file.delimiter, quotechar=file.quote)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"the row cannot be read: {error}"


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]


def _codec(path: Path, name: str) -> str:
    try:
        "".encode(name)
    except LookupError as error:
        raise DataError(f"{path}: meta.xml names the unknown encoding {name!r}") from error
    return name


def _members(path: Path) -> dict[str, str | Path]:
    """Name inside the archive → where to read it; one enclosing folder and macOS's resource files are left out."""
    try:
        if path.is_dir():
            found: dict[str, str | Path] = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found = {name: name for name in archive.namelist() if not name.endswith("/")}
        elif path.is_file() and tarfile.is_tarfile(path):
            with tarfile.open(path) as archive_tar:
                found = {entry.name.removeprefix("./"): entry.name for entry in archive_tar if entry.isreg()}
        elif path.is_file() and path.suffix.lower() in (".txt", ".csv", ".tsv"):
            found = {path.name: path}
        else:
            raise DataError(f"{path}: neither a Darwin Core archive (zip, tar, folder) nor an occurrence table")
    except (zipfile.BadZipFile, tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: damaged archive: {error}") from error
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
