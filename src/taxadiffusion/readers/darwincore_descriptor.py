"""What a Darwin Core archive says of its tables: meta.xml, within bounds, read from decoded text."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from taxadiffusion.errors import DataError

_ESCAPES = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\r\\n": "\r\n", "&quot;": '"'}
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
         (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_WITHOUT_BOM = ((b"<\0\0\0", "utf-32-le"), (b"\0\0\0<", "utf-32-be"), (b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))


@dataclass(frozen=True)
class DataFile:
    """One table of an archive, in one or more files, as its descriptor (or its header) describes it."""

    names: tuple[str, ...]
    row_type: str
    """Last word of the rowType, lower case: "occurrence", "taxon", "event", "multimedia"."""
    columns: dict[str, int]
    """Term (last word of its IRI) → column; "id" is the core's id, an extension's link to it."""
    defaults: dict[str, str] = field(default_factory=dict)
    delimiter: str = ""
    """"" where the descriptor names none that could be one: then it is told from the file."""
    quote: str = ""
    encoding: str = "utf-8"
    header_lines: int = 1
    line_end: str = ""


def read_descriptor(path: Path, document: bytes) -> list[tuple[str, DataFile]]:
    """("core" or "extension", table) for each that meta.xml describes with a file, in its order.

    Raises `DataError` for what is no XML, and for a document type or entities: those can make a small text huge.
    """
    text = _decoded(path, document)
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise DataError(f"{path}: meta.xml has a document type or defines entities; refused")
    try:
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path}: meta.xml is not XML: {error}") from error
    found = [(local_name(element.tag), _described(path, element)) for element in root]
    return [(kind, file) for kind, file in found if file is not None]


def _decoded(path: Path, document: bytes) -> str:
    """By its byte-order mark, its first bytes or the encoding it names, as an XML parser would."""
    named = re.match(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""", document)
    encoding = named[1].decode() if named else "utf-8"
    for start, name in (*_BOMS, *_WITHOUT_BOM):
        if document.startswith(start):
            encoding = name
            break
    try:
        return document.decode(codec_name(path, encoding)).removeprefix("\ufeff")
    except UnicodeError as error:
        raise DataError(f"{path}: meta.xml is not {encoding} text: {error}") from error


def _described(path: Path, element: ElementTree.Element) -> DataFile | None:
    """None for a table without a file location (which is then of no use)."""
    locations = [e.text.strip() for e in element.iter() if local_name(e.tag) == "location" and e.text]
    names = tuple(dict.fromkeys(name.removeprefix("./") for name in locations if name))
    if not names:
        return None
    columns: dict[str, int] = {}
    defaults: dict[str, str] = {}
    for child in element:
        index, term = child.get("index"), child.get("term", "").strip()
        is_id = local_name(child.tag) in ("id", "coreid")
        name = "id" if is_id else term.rstrip("/").replace("#", "/").rsplit("/", 1)[-1]
        if not name or not (is_id or local_name(child.tag) == "field"):
            continue
        if index is not None and index.strip().isdecimal():
            columns.setdefault(name, int(index))
        if (default := child.get("default")) is not None:
            defaults[name] = default
    quote = element.get("fieldsEnclosedBy", '"')
    header = element.get("ignoreHeaderLines", "0").strip()
    return DataFile(
        names=names,
        row_type=local_name(element.get("rowType", "").replace("/", "}")).lower(),
        columns=columns,
        defaults=defaults,
        delimiter=_separator(element.get("fieldsTerminatedBy", "")),
        quote=_ESCAPES.get(quote, quote),
        encoding=codec_name(path, element.get("encoding", "utf-8")),
        header_lines=int(header) if header.isdecimal() else 0,
        line_end=_line_end(path, element.get("linesTerminatedBy", "")),
    )


def _separator(text: str) -> str:
    """A tab that was written as such reaches us as a blank, which XML makes of it: no separator then."""
    text = _ESCAPES.get(text, text)
    return "" if text.isspace() and text != "\t" else text


def _line_end(path: Path, text: str) -> str:
    text = _ESCAPES.get(text, text)
    if text.strip():
        raise DataError(f"{path}: meta.xml says that lines end in {text!r}; only \\n, \\r\\n and \\r are read")
    return text


def local_name(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]


def codec_name(path: Path, name: str) -> str:
    try:
        "".encode(name)
    except (LookupError, ValueError) as error:
        raise DataError(f"{path}: meta.xml names the unknown encoding {name!r}") from error
    return name
