"""Large JSON files of the form `{"images": […], "categories": […]}`, element by element."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import ijson

from taxadiffusion.errors import DataError
from taxadiffusion.readers.bounded import BoundError

_CHUNK_BYTES = 1 << 16
_MAX_ELEMENT_BYTES = 64 << 20
_MAX_DEPTH = 100
_BOM = b"\xef\xbb\xbf"


def stream_arrays(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield (key, element) for every element of the named top-level arrays, in file order; other keys are passed over.

    Memory holds one element and one chunk. Numbers are int or Decimal. Raises `DataError` (file, byte) for anything
    that is not such a file, and for an element of more than 64 MiB or 100 levels.
    """
    with path.open("rb") as file:
        if file.read(len(_BOM)) != _BOM:
            file.seek(0)
        source = _Source(path, file)
        try:
            yield from _elements(source, keys)
        except ijson.JSONError as error:
            reason = str(error).removeprefix("b'").replace("\\n", "\n").split("\n", 1)[0]
            raise DataError(f"{path}: not JSON near byte {_fault_at(path, source)}: {reason}") from error


class _Source:
    """The file, watched: `mark` is where the value that is held in memory begins."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.first = file.tell()
        self.position = self.mark = self.first
        self._file = file

    def read(self, size: int) -> bytes:
        if size and self.position - self.mark > _MAX_ELEMENT_BYTES:
            raise BoundError(self.path, f"the element at byte {self.mark} has more than {_MAX_ELEMENT_BYTES} bytes")
        data = self._file.read(size)
        self.position += len(data)
        return data


def _elements(source: _Source, keys: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Level 1 is the file's object, level 2 a named array, and what begins in it is built."""
    depth, top_key, wanted = 0, "", False
    built: ijson.ObjectBuilder | None = None  # the element that is open
    for event, value in ijson.basic_parse(source, buf_size=_CHUNK_BYTES):
        if event in ("end_map", "end_array"):
            depth -= 1
            wanted = wanted and depth > 1
        elif depth == 0 and event != "start_map":
            raise DataError(f"{source.path}: the file must begin with an object, not with {event}")
        opens = event in ("start_map", "start_array")
        if event == "map_key" and depth == 1:
            top_key = value
        if wanted:
            built = built or ijson.ObjectBuilder()
            built.event(event, value)
            if depth == 2 and not opens:
                yield top_key, built.value
                built = None
        depth += opens
        if depth > _MAX_DEPTH:
            where = f"JSON nested too deeply near byte {source.mark}"
            raise BoundError(source.path, f"{where}: more than {_MAX_DEPTH} levels")
        if depth == 2 and event == "start_array":
            wanted = top_key in keys
        if built is None:
            source.mark = source.position


def _fault_at(path: Path, source: _Source) -> int:
    """The byte at which the parser stops: the part with the fault in smaller and smaller pieces."""
    begin = max(source.first, source.position - 2 * _CHUNK_BYTES)
    for num_bytes in (_CHUNK_BYTES >> 6, _CHUNK_BYTES >> 12, 1):
        begin = _faulty_piece(path, source.first, begin, num_bytes)
    return begin


def _faulty_piece(path: Path, first: int, begin: int, num_bytes: int) -> int:
    """Where the piece begins that the parser refuses, of pieces of `num_bytes` from `begin` on; else the file's end."""
    parser = ijson.basic_parse_coro(_Nothing())
    position = first
    with path.open("rb") as file:
        file.seek(first)
        while data := file.read(num_bytes if position >= begin else min(_CHUNK_BYTES, begin - position)):
            try:
                parser.send(data)
            except ijson.JSONError:
                return position
            position += len(data)
    return position


class _Nothing:
    """Takes events and keeps none."""

    def send(self, event: Any) -> None:
        pass
