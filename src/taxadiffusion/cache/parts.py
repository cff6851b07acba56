"""Processes share the rows of a cache: each takes a part that no other holds, until all are done.

Nobody is told its share. A part is held by a lock on its file, so a process that is killed frees it, one that is slow
takes fewer, and one that comes later, on any machine with the same file system, joins in. A part is the same rows and
the same batches whoever computes it, so the bits do not depend on the number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxadiffusion.base.weights import read_json
from taxadiffusion.cache.files import disk_faults, write_document
from taxadiffusion.errors import CheckpointError
from taxadiffusion.files import locked

ROWS_PER_PART = 2048
"""A multiple of every batch, and of what makes a part whole memory pages: no two processes write to one page."""

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `start` … `stop - 1` of a cache, and the document that says how far they are."""

    start: int
    stop: int
    path: Path

    def written(self) -> dict[str, Any]:
        """Its document; `done` rows of it are computed."""
        try:
            return read_json(self.path)
        except CheckpointError:
            if self.path.exists():
                raise
            return {"done": 0}

    @property
    def is_done(self) -> bool:
        return int(self.written()["done"]) == self.stop - self.start

    def write(self, done: int, **more: Any) -> None:
        """Say that the first `done` rows are computed; their values must lie on disk."""
        write_document(self.path, {"done": done, **more})


def parts_of(folder: Path, num_rows: int) -> list[Part]:
    """All parts of a cache in `folder`."""
    starts = range(0, num_rows, ROWS_PER_PART)
    stops = [min(start + ROWS_PER_PART, num_rows) for start in starts]
    return [Part(start, stop, folder / f"{start}-{stop}.json") for start, stop in zip(starts, stops, strict=True)]


def build_shared(
    parts: Sequence[Part],
    build: Callable[[Part, Callable[[int], None]], None],
    finished: Callable[[], bool],
    progress: Callable[[int], None],
    first: int = 0,
) -> None:
    """Return when every part is done, by this process or by another.

    `build(part, report)` computes a part from where its document stands and reports how many rows of it are done.
    `finished()`: another process has put the cache together, and the documents may be gone. `progress(rows)` counts the
    rows of all processes; what it raises leaves. first: where this process begins to look for work.
    """
    left = {(first + i) % len(parts): None for i in range(len(parts))}
    done = 0
    while left and not finished():
        before = len(left)
        for number in list(left):
            part = parts[number]
            if not part.is_done:
                with _held(part) as mine:
                    if not mine:
                        continue
                    if not part.is_done and not finished():
                        build(part, lambda rows, so_far=done: progress(so_far + rows))  # type: ignore[misc]
            del left[number]
            done += part.stop - part.start
        if left and len(left) == before:
            progress(done)
            time.sleep(_POLL_S)


@contextmanager
def _held(part: Part) -> Iterator[bool]:
    """Hold the part, if no other process does; not where its folder is gone, for then the cache is finished."""
    stream = None
    with disk_faults(part.path.parent.parent, 0), suppress(FileNotFoundError):
        stream = part.path.with_suffix(".lock").open("w")
    if stream is None:
        yield False
        return
    with stream:
        yield locked(stream.fileno())
