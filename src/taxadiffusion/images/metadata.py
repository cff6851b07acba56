"""The parts of an image file that describe it and hold no pixel: EXIF and MPF, which programs often damage."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

EXIF, MPF = "EXIF", "MPF"

_ORIENTATION = 0x0112
_PIXEL_TAGS = frozenset({
    254, 256, 257, 258, 259, 262, 266, 273, _ORIENTATION, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325,
    330, 332, 338, 339, 347, 512, 513, 514, 529, 530, 531, 532, 34675,
})  # fmt: skip
"""TIFF tags without which pixels cannot be decoded, the colour profile and the orientation included."""


@dataclass(frozen=True, slots=True)
class Bare:
    """A file without some of its metadata: the same pixels."""

    data: bytes
    left_out: str
    """ "EXIF", "MPF" or "EXIF, MPF"."""
    orientation: int | None
    """1 … 8, as far as the EXIF that was left out can be read; None: it says nothing."""


def without_metadata(data: bytes) -> Iterator[Bare]:
    """`data` without its MPF, without its EXIF, and without both; nothing where it holds neither.

    Knows JPEG (APP1 and APP2), PNG (eXIf, raw profiles), WebP (EXIF) and TIFF (tags that say nothing of the pixels).
    """
    for kinds in ({MPF}, {EXIF}, {EXIF, MPF}):
        drops = _Drops(kinds)
        try:
            bare = _bare(data, drops)
        except (struct.error, IndexError):
            return  # not even its outer structure can be read
        if drops.found == kinds:
            orientation = next((o for exif in drops.exif if (o := orientation_in(exif)) is not None), None)
            yield Bare(bare, ", ".join(sorted(kinds)), orientation)


class _Drops:
    """Called with each piece of metadata: whether it is left out. Keeps what was."""

    def __init__(self, kinds: set[str]) -> None:
        self.found: set[str] = set()
        self.exif: list[bytes] = []
        self._kinds = kinds

    def __call__(self, kind: str, content: bytes) -> bool:
        if kind not in self._kinds:
            return False
        self.found.add(kind)
        if kind == EXIF:
            self.exif.append(content)
        return True


def orientation_in(exif: bytes) -> int | None:
    """The orientation (1 … 8) in the first directory of an EXIF block, whatever else of it is damaged."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (num_entries,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(num_entries):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * entry)
            if (tag, kind, count) == (_ORIENTATION, 3, 1):
                return value if 1 <= value <= 8 else None
    except struct.error:
        pass  # cut short before it
    return None


def _bare(data: bytes, drops: _Drops) -> bytes:
    if data.startswith(b"\xff\xd8\xff"):
        return _bare_jpeg(data, drops)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _bare_png(data, drops)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _bare_webp(data, drops)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _bare_tiff(data, drops)
    return data


def _bare_jpeg(data: bytes, drops: _Drops) -> bytes:
    kept, at = [data[:2]], 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:  # up to the first scan
        if data[at + 1] == 0xFF:  # padding
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        content = data[at + 4 : at + 2 + length]
        is_exif = data[at + 1] == 0xE1 and content.startswith(b"Exif\0")
        is_mpf = data[at + 1] == 0xE2 and content.startswith(b"MPF\0")
        if not ((is_exif and drops(EXIF, content)) or (is_mpf and drops(MPF, content))):
            kept.append(data[at : at + 2 + length])
        at += 2 + length
    return b"".join((*kept, data[at:]))


def _bare_png(data: bytes, drops: _Drops) -> bytes:
    kept, at = [data[:8]], 8
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length]
        is_exif = name == b"eXIf" or (name[1:] == b"TXt" and content.startswith(b"Raw profile type exif\0"))
        if not (is_exif and drops(EXIF, content)):
            kept.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join(kept)


def _bare_webp(data: bytes, drops: _Drops) -> bytes:
    kept, at = [], 12
    while at < len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length + length % 2
        if not (name == b"EXIF" and drops(EXIF, data[at + 8 : at + 8 + length])):
            kept.append(data[at:end])
        at = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bare_tiff(data: bytes, drops: _Drops) -> bytes:
    """Only the first directory, which is the first picture's."""
    order = "<" if data[:1] == b"I" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (num_entries,) = struct.unpack_from(f"{order}H", data, start)
    entries = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * num_entries, 12)]
    kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in _PIXEL_TAGS]
    if len(kept) == len(entries) or not drops(EXIF, b""):
        return data
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:start] + directory + data[start + len(directory) :]
