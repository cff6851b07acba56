"""A run by the clock: how much of its minutes has passed, whether to stop, what is due, and its log."""

from __future__ import annotations

import json
import time
from pathlib import Path

from taxadiffusion.trainer.signals import StopSignal


class Clock:
    """Counts from its making. SIGTERM and SIGINT end the run after its step; what it has learnt is then saved."""

    def __init__(self, minutes: float, stop: StopSignal | None = None) -> None:
        self._seconds, self._start = minutes * 60, time.monotonic()
        self._last: dict[str, float] = {}
        self.stop = stop or StopSignal()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    @property
    def share(self) -> float:
        """Of its minutes, 0 … 1."""
        return min(1.0, self.elapsed_s / self._seconds) if self._seconds else 1.0

    @property
    def running(self) -> bool:
        return not self.stop.number and self.share < 1

    def due(self, what: str, every_s: float) -> bool:
        """Whether `what` was last due so long ago; first `every_s` after the start."""
        now = self.elapsed_s
        if now - self._last.get(what, 0.0) < every_s:
            return False
        self._last[what] = now
        return True


def log(path: Path, **values: object) -> None:
    """Print a line of figures and add it to a file of JSON lines."""
    line = json.dumps(values)
    print(line, flush=True)
    with path.open("a") as stream:
        stream.write(line + "\n")
