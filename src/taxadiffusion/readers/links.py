"""One rule for links to folders and files: followed inside the image root, and out of it where that is allowed."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEAVES_ROOT = "the path leaves the image root through a link; --follow-links (follow_links=True) allows it"
FOLDER_LEAVES_ROOT = "the folder is a link out of the image root; --follow-links (follow_links=True) allows it"
LEADS_NOWHERE = "the link leads to nothing: what it names is missing"
FOLDER_AS_TEXT = "the file holds the path of a folder: a link that was copied as text; make the link again"
FILE_AS_TEXT = "the file holds the path of another file: a link that was copied as text; copy the picture itself"
UNREADABLE = "the folder cannot be read"
REFUSED_FOLDERS = (FOLDER_LEAVES_ROOT, LEADS_NOWHERE, FOLDER_AS_TEXT, UNREADABLE)
"""Reasons for which the pictures of a whole folder are left out, nobody knows how many."""

PASSED_OVER = "links_to_folders_above_or_read_already"
_MAX_TEXT_BYTES = 4096
_FILE_ENDING = re.compile(r"\.[A-Za-z0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Refused:
    """A folder, or a link that may stand for one, which is not read."""

    path: Path
    reason: str


class Links:
    """Walks the folders below `root`: every folder is read once, whatever links lead to it, so that a walk ends."""

    def __init__(self, root: Path, follow_links: bool) -> None:
        self.counts: Counter[str] = Counter()
        """Links that were passed over, as they lead back to a folder above them or to one that was read."""
        self._root = Path(os.path.realpath(root))
        self._follow = follow_links

    def folders(self, folder: Path) -> Iterator[Path | Refused]:
        """The folders in `folder` and the links to such, by name; what stands for a folder and is none is refused."""
        for entry in sorted(folder.iterdir()):
            if _leads_nowhere(entry):
                yield Refused(entry, LEADS_NOWHERE)
            elif entry.is_dir():
                yield from self._judged(entry, folder) if entry.is_symlink() else [entry]
            elif not entry.suffix and names_another(entry):
                yield Refused(entry, FOLDER_AS_TEXT)

    def files(self, folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], list[Refused]]:
        """The files below `folder`, at any depth and in order, with these suffixes; and what is refused in it."""
        files: list[Path] = []
        refused: list[Refused] = []
        read: set[str] = set()
        waiting = [folder]  # links wait until the folders themselves are read
        for start in waiting:
            for at, names, found in os.walk(start, onerror=lambda e: refused.append(_unreadable(e))):
                real = os.path.realpath(at)
                if real in read:
                    self.counts[PASSED_OVER] += 1
                    names.clear()
                    continue
                read.add(real)
                names.sort()  # which of two links is followed does not depend on the disk
                for path in (Path(at, name) for name in found):
                    if path.suffix.lower() in suffixes:
                        files.append(path)
                    elif _leads_nowhere(path):
                        refused.append(Refused(path, LEADS_NOWHERE))
                for link in (path for name in names if (path := Path(at, name)).is_symlink()):
                    for judged in self._judged(link, folder):
                        if isinstance(judged, Refused):
                            refused.append(judged)
                        else:
                            waiting.append(judged)
        return sorted(files), sorted(refused, key=lambda refusal: refusal.path)

    def _judged(self, link: Path, above: Path) -> Iterator[Path | Refused]:
        """The link, its refusal, or nothing where it leads back to `above` or higher."""
        target = Path(os.path.realpath(link))
        if Path(os.path.realpath(above)).is_relative_to(target):
            self.counts[PASSED_OVER] += 1
        elif self._follow or target.is_relative_to(self._root):
            yield link
        else:
            yield Refused(link, FOLDER_LEAVES_ROOT)


def _leads_nowhere(path: Path) -> bool:
    """Whether a link without target may stand for a folder: not one named as a file, nor a hidden one (a lock)."""
    if not path.is_symlink() or path.exists():
        return False
    return not path.name.startswith(".") and not _FILE_ENDING.fullmatch(path.suffix)


def _unreadable(error: OSError) -> Refused:
    return Refused(Path(error.filename), UNREADABLE)


def names_another(path: Path, data: bytes | None = None) -> bool:
    """Whether a file (its `data`, if read already) is the text of a path that exists, seen from where the file lies."""
    try:
        if data is None:
            data = path.read_bytes() if path.stat().st_size < _MAX_TEXT_BYTES else b""
        text = data.decode() if 0 < len(data) < _MAX_TEXT_BYTES else ""
        return "/" in text and "\0" not in text and (path.parent / text.strip()).exists()
    except (OSError, ValueError):
        return False
