"""Large JSON files of the form `{"images": […], "categories": […]}`, element by element."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from taxadiffusion.errors import DataError

_CHUNK_CHARS = 1 << 20
_MAX_ELEMENT_CHARS = 64 << 20


def stream_arrays(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield (key, element) for every element of the named top-level arrays, in file order; other keys are passed over.

    Memory holds one element and one chunk. Raises `DataError` (file, character) for anything that is not such a file.
    """
    with path.open(encoding="utf-8-sig", errors="strict") as file:
        scanner = _Scanner(path, file)
        try:
            scanner.expect("{")
            while scanner.next_mark() != "}":
                key = scanner.value()
                scanner.expect(":")
                if scanner.next_mark() == "[":
                    yield from ((str(key), element) for element in scanner.elements() if key in keys)
                else:
                    scanner.value()
                if scanner.next_mark() != "}":
                    scanner.expect(",")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 JSON: {error}") from error
        except RecursionError as error:
            raise DataError(f"{path}: JSON nested too deeply near character {scanner.offset}") from error


class _Scanner:
    """A window over the file's text that grows until the next value is whole."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.offset = 0
        self._path = path
        self._file = file
        self._text = ""
        self._position = 0
        self._decoder = json.JSONDecoder()

    def next_mark(self) -> str:
        """The next character that is not white space, left in place; "" at the end raises `DataError`."""
        while True:
            while self._position < len(self._text):
                if not self._text[self._position].isspace():
                    return self._text[self._position]
                self._position += 1
            if not self._grow():
                raise DataError(f"{self._path}: the JSON ends early, after character {self.offset + self._position}")

    def expect(self, mark: str) -> None:
        if (found := self.next_mark()) != mark:
            where = self.offset + self._position
            raise DataError(f"{self._path}: expected {mark!r} at character {where}, found {found!r}")
        self._position += 1

    def value(self) -> Any:
        self.next_mark()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                value, end, fault = None, len(self._text), error
            else:
                if end < len(self._text):
                    self._position = end
                    return value
                fault = json.JSONDecodeError("the JSON ends early", self._text, end)
            too_long = len(self._text) - self._position > _MAX_ELEMENT_CHARS
            if too_long or not self._grow():
                raise DataError(
                    f"{self._path}: not JSON near character {self.offset + fault.pos}: {fault.msg}"
                ) from fault

    def elements(self) -> Iterator[Any]:
        self.expect("[")
        if self.next_mark() == "]":
            return self.expect("]")
        while True:
            yield self.value()
            if self.next_mark() == "]":
                return self.expect("]")
            self.expect(",")

    def _grow(self) -> bool:
        more = self._file.read(_CHUNK_CHARS)
        self.offset += self._position
        self._text = self._text[self._position :] + more
        self._position = 0
        return bool(more)
