"""The one way into files from strangers: no file makes us hold or unpack more than a stated bound.

A small archive may claim terabytes: sparse entries, long runs of one byte, lines without end. Every reader of a
container (zip, tar, gzip) and of long text comes through here. What breaks a bound is a `BoundError`, whose message
names the bound.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from taxadiffusion.errors import DataError

MAX_MEMBER_BYTES = 256 << 20
"""One entry that is read as a whole: a picture."""
MAX_TEXT_BYTES = 1 << 20
"""A small text that is read as a whole: a descriptor, a caption, one sample's JSON."""
MAX_LINE_CHARS = 4 << 20
"""One row of a table, all lines of its quoted cells together."""
MAX_MEMBERS = 8_000_000
"""Entries of one archive that are looked at."""
MAX_RATIO = 250
"""Unpacked to packed bytes. Real tables stay below 100; deflate can reach 1,032."""
FREE_BYTES = 64 << 20
"""Up to here the ratio is not asked: short tables may repeat one row."""
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, NotImplementedError)
"""What the standard library raises on a damaged or unsupported archive; and `RuntimeError` where it asks a password."""

_SKIPPED_CHARS = 1 << 20
_UNPACKERS: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.GzipFile),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
)


class BoundError(DataError):
    """A file asks for more than the bound that its message names; `reason` says so without the path."""

    def __init__(self, where: Path | str, reason: str) -> None:
        super().__init__(f"{where}: {reason}; refused")
        self.reason = reason


class Unpacked(io.RawIOBase):
    """A binary stream over packed bytes that is refused once it has grown beyond `MAX_RATIO` (and `FREE_BYTES`)."""

    def __init__(self, stream: Any, packed_bytes: int, where: Path | str, *owned: Any) -> None:
        """`owned` is closed together with the stream."""
        self._stream = stream
        self._limit = max(FREE_BYTES, MAX_RATIO * packed_bytes)
        self._where = where
        self._owned = owned
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return self.readall()
        if size > MAX_MEMBER_BYTES:
            raise BoundError(self._where, f"one piece of {size} bytes is asked for, more than {MAX_MEMBER_BYTES}")
        data: bytes = self._stream.read(size)
        self._advance(len(data))
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _advance(self, count: int) -> None:
        self._position += count
        if self._position > self._limit:
            raise BoundError(
                self._where, f"it unpacks to more than {self._limit} bytes, more than {MAX_RATIO} times its size"
            )

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Going forward unpacks what lies between."""
        target = offset + (self._position if whence == io.SEEK_CUR else 0)
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("packed streams have no known end")
        self._advance(max(0, target - self._position))
        self._position = int(self._stream.seek(target))
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed:
            for part in (self._stream, *self._owned):
                part.close()
        super().close()


def read_small(path: Path) -> bytes:
    """A plain file as a whole, of at most `MAX_MEMBER_BYTES`."""
    max_bytes = MAX_MEMBER_BYTES
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise BoundError(path, f"it has more than {max_bytes} bytes")
    return data


def open_plain(path: Path) -> IO[bytes]:
    """The bytes of a plain or gzip-packed file."""
    if not path.name.lower().endswith(".gz"):
        return path.open("rb")
    return io.BufferedReader(Unpacked(gzip.open(path, "rb"), path.stat().st_size, path), 1 << 16)


def lines(text: IO[str]) -> Iterator[str | None]:
    """Lines with their ends; None stands for one longer than `MAX_LINE_CHARS`, of which nothing is kept."""
    while line := text.readline(MAX_LINE_CHARS):
        if len(line) < MAX_LINE_CHARS or line.endswith(("\n", "\r")):
            yield line
            continue
        while line and not line.endswith(("\n", "\r")):
            line = text.readline(_SKIPPED_CHARS)
        yield None


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip archive. Raises `BoundError`, and the standard library's errors (`DAMAGED`)."""
    archive = zipfile.ZipFile(path)
    if len(archive.filelist) > MAX_MEMBERS:
        archive.close()
        raise BoundError(path, f"the archive has {len(archive.filelist)} entries, more than {MAX_MEMBERS}")
    return archive


def open_zip_entry(path: Path, name: str) -> IO[bytes]:
    """One entry as a stream of bounded ratio; the archive is closed with it. `KeyError` for a missing one."""
    archive = open_zip(path)
    try:
        info = archive.getinfo(name)
        stream = archive.open(info)
    except BaseException:
        archive.close()
        raise
    packed = min(info.compress_size, path.stat().st_size)
    return io.BufferedReader(Unpacked(stream, packed, f"{path}: entry {name!r}", archive), 1 << 16)


def read_zip_entry(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """One entry as a whole. `KeyError` for a missing one."""
    info = archive.getinfo(name)
    if info.file_size > max_bytes:
        raise BoundError(str(archive.filename), f"entry {name!r} has {info.file_size} bytes, more than {max_bytes}")
    with archive.open(info) as stream:
        return stream.read()


class _Plain(io.BufferedReader):
    """A plain file; a header that claims a piece beyond its end gets what there is, and no room for the claim."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._num_bytes = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, max(0, self._num_bytes - self.tell())))


class TarArchive:
    """A tar archive. Raises `BoundError`, and the standard library's errors (`DAMAGED`)."""

    def __init__(self, path: Path, *, packed: bool = False) -> None:
        """`packed` allows gzip, bzip2 and xz too, whose entries weigh next to nothing: then ask for few `entries`."""
        self._path = path
        with path.open("rb") as raw:
            start = raw.read(6)
        unpacker = next((kind for magic, kind in _UNPACKERS if packed and start.startswith(magic)), None)
        packed_bytes = path.stat().st_size
        stream: Any = _Plain(path) if unpacker is None else Unpacked(unpacker(path, "rb"), packed_bytes, path)
        try:
            self._archive, self._stream = tarfile.open(fileobj=stream, mode="r:"), stream  # noqa: SIM115
        except BaseException:
            stream.close()
            raise

    def close(self) -> None:
        self._archive.close()
        self._stream.close()

    def entries(self, most: int | None = None) -> Iterator[tarfile.TarInfo]:
        """The regular files, in the archive's order. A sparse one is refused: its size is a claim, not bytes."""
        most = MAX_MEMBERS if most is None else most
        for number, entry in enumerate(self._archive, start=1):
            if number > most:
                raise BoundError(self._path, f"the archive has more than {most} entries")
            if entry.issparse():
                claim = f"it claims {entry.size} bytes that the archive does not hold"
                raise BoundError(self._path, f"entry {entry.name!r} is a sparse file: {claim}")
            if entry.isreg():
                yield entry

    def open(self, entry: tarfile.TarInfo) -> IO[bytes]:
        file = self._archive.extractfile(entry)
        if file is None or entry.issparse():
            raise BoundError(self._path, f"entry {entry.name!r} is no plain file")
        return file

    def read(self, entry: tarfile.TarInfo, max_bytes: int) -> bytes:
        """One entry as a whole. Raises `OSError` where the archive ends inside it."""
        if entry.size > max_bytes:
            raise BoundError(self._path, f"entry {entry.name!r} has {entry.size} bytes, more than {max_bytes}")
        data = self.open(entry).read()
        if len(data) != entry.size:
            raise OSError("the archive ends inside this entry")
        return data
