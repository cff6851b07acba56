"""What every reader yields: records, rejected rows, and the rules for names and paths that all readers share."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from taxadiffusion.names import Lineage, Rank, clean_name

__all__ = ["Box", "Reader", "Record", "Rejected", "clean_name", "path_fault"]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the oriented image, origin top left."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Record:
    """One image with its taxon, as a source states it."""

    image: str
    """Path below the reader's root, posix, never absolute or with ".." (see `path_fault`)."""
    lineage: Lineage
    """At its true depth: a missing rank is absent; at rank species the name is the epithet."""
    source: str
    """File name of the table (or folder) the record came from, for messages."""
    row: int
    """Row in `source` as a spreadsheet numbers it: the header is row 1; a line of JSON Lines; 1-based otherwise."""
    split: str | None = None
    """"train", "val", "test" or "judge" as published; None lets `prepare` decide."""
    group: str | None = None
    """Trajectory, observation …: images of one group stay on one side of a split."""
    box: Box | None = None
    source_id: str | None = None
    license: str | None = None
    rights_holder: str | None = None
    authorship: str | None = None
    qualifier: str | None = None
    member: str | None = None
    """Entry inside the package (zip, tar, HDF5) that `image` names; None: `image` is the picture itself."""
    source_taxon_id: str | None = field(default=None, repr=False)
    """The source's id of the taxon that `lineage` names (Darwin Core's taxonID)."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot become a `Record`."""

    source: str
    row: int
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source}:{self.row}: {self.reason} ({self.value!r})"


class Reader(Protocol):
    """Streams one source; iterating again starts afresh. Rows in = records + rejected rows out."""

    name: str
    """The `--format` word."""
    ranks: tuple[Rank, ...]
    """The ranks this source can name, coarse to fine."""
    root: Path
    """Folder below which every `Record.image` lies."""

    def __iter__(self) -> Iterator[Record | Rejected]: ...


LEFT_OUT = "_left_out"
"""End of a reader's count of what it passes over by design: "films_left_out"."""


def left_out(counts: Mapping[str, int]) -> dict[str, int]:
    """What a reader passed over by design, in words: "films left out" → 3."""
    return {key.replace("_", " "): number for key, number in counts.items() if key.endswith(LEFT_OUT) and number}


_ADDRESS = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:(?:$|//)|(?:urn|doi|hdl|ark|lsid|info|data|file|mailto|javascript|blob|about|tel):",
    re.IGNORECASE,
)


def is_address(value: str) -> bool:
    """Whether a text is a URL or another global identifier; "CAM1:0000.jpg" is a file name."""
    return _ADDRESS.match(value) is not None


_UNPRINTABLE = re.compile("[\x00-\x1f\ud800-\udfff]")


def path_fault(value: str) -> str | None:
    """Why `value` may not be used as an image path below a root; None when it may.

    Purely textual. That the file exists, is regular and does not leave the root through a link is checked by `prepare`.
    """
    if not value.strip():
        return "no image path"
    if _UNPRINTABLE.search(value):
        return "image path holds control characters or undecodable bytes"
    if is_address(value) or re.match(r"[A-Za-z]:", value):
        return "image path is a URL or has a drive letter; download the image and give its path below the image root"
    if "\\" in value:
        return "image path holds a backslash; write it with /"
    if value.startswith(("/", "~/")) or value == "~":
        return "image path is absolute; give it relative to the image root"
    if ".." in value.split("/"):
        return 'image path holds ".."; it must stay below the image root'
    if len(value.encode()) > 4096 or any(len(part.encode()) > 255 for part in value.split("/")):
        return "image path is too long"
    return None


def as_on_disk(root: Path, image: str) -> str:
    """The path as the disk spells it: macOS writes "é" as two characters, tables as one. Unchanged where it is not."""
    if image.isascii() or os.path.exists(root / image):  # noqa: PTH110 - False for names that no disk takes
        return image
    forms = (unicodedata.normalize(form, image) for form in ("NFD", "NFC"))
    return next((form for form in forms if form != image and os.path.exists(root / form)), image)  # noqa: PTH110
