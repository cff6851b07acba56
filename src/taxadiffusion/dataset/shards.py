"""Several processes, perhaps on several machines with one file system, share the image work of one `prepare`.

Process 0 makes the data set; the others verify their share of the parts for it. They meet in the files of the parts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from taxadiffusion.dataset.columns import IMAGES
from taxadiffusion.dataset.verify import SetPart, is_verified
from taxadiffusion.dataset.workers import verify_parts
from taxadiffusion.dataset.workspace import is_locked
from taxadiffusion.errors import DataError, SettingsError

_POLL_S = 0.2
PATIENCE_S = 60.0
_START_SPREAD_S = 600.0  # processes of one launch may start this far apart


@dataclass(frozen=True, slots=True)
class Shard:
    """Process `number` of `count`."""

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise SettingsError(f"process {self.number} of {self.count} cannot be")

    @classmethod
    def of_environment(cls) -> Shard:
        """From RANK and WORLD_SIZE, which `accelerate launch` and `torchrun` set; the only process without them."""
        number, count = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        if not (number.isdecimal() and count.isdecimal()):
            raise SettingsError(f"RANK={number!r} and WORLD_SIZE={count!r} must be numbers")
        return cls(int(number), int(count))

    def share(self, parts: Sequence[SetPart]) -> Sequence[SetPart]:
        return parts[self.number :: self.count]

    def others(self, parts: Sequence[SetPart]) -> list[SetPart]:
        return [part for index, part in enumerate(parts) if index % self.count != self.number]


def await_parts(parts: Sequence[SetPart], num_workers: int, patience_s: float = PATIENCE_S) -> Iterator[int]:
    """Yields the number of rows of each part that the other processes finish; verifies what they leave undone.

    They are given up when nothing new has appeared for `patience_s`.
    """
    fresh_ns = time.time_ns() - int(_START_SPREAD_S * 1e9)
    waiting = list(parts)
    last = time.monotonic()
    while waiting and time.monotonic() - last < patience_s:
        done = [part for part in waiting if _is_done(part, fresh_ns)]
        for part in done:
            waiting.remove(part)
            yield len(part.images)
        if done:
            last = time.monotonic()
        elif waiting:
            time.sleep(_POLL_S)
    yield from verify_parts(waiting, min(num_workers, len(waiting)))


def _is_done(part: SetPart, fresh_ns: int) -> bool:
    try:
        written_ns = Path(part.result).stat().st_mtime_ns
    except FileNotFoundError:
        return False
    return written_ns >= fresh_ns or is_verified(part)


def await_first(out: Path, work: Path, patience_s: float = PATIENCE_S) -> None:
    """Waits for process 0 to publish `out`. Raises `DataError` when it has not been at work for `patience_s`."""
    last = time.monotonic()
    while not (out / IMAGES).is_file():
        if is_locked(work):
            last = time.monotonic()
        if time.monotonic() - last > patience_s:
            raise DataError(f"{out}: process 0 of this run is not at work; start all processes again")
        time.sleep(_POLL_S)
