"""Signals: the first asks the run to finish its step, commit and leave; the second leaves at once."""

from __future__ import annotations

import os
import signal
from types import FrameType

from taxadiffusion.errors import InterruptedByUserError, PreemptedError, TaxaDiffusionError

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopSignal:
    """Whether a stop was asked for. `install` it before anything slow; it costs nothing to read."""

    def __init__(self) -> None:
        self.number = 0  # of the first signal received; 0: none

    def install(self) -> None:
        """Take over SIGTERM, SIGINT and SIGUSR1 (main thread only)."""
        for number in _WATCHED:
            signal.signal(number, self._receive)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            os._exit(stop_error(self.number, "").exit_code)
        self.number = number

    def raise_if_set(self, doing: str) -> None:
        """Between steps of work that needs no commit: leave with the signal's exit code."""
        if self.number:
            raise stop_error(self.number, f"stopped by {signal.Signals(self.number).name} while {doing}")


def stop_error(number: int, message: str) -> TaxaDiffusionError:
    """130 for SIGINT (a person), 75 for the signals a scheduler sends."""
    if number == signal.SIGINT:
        return InterruptedByUserError(message)
    return PreemptedError(message)


def ignore_in_worker() -> None:
    """In a loader's process: the parent decides when to stop, also when a terminal signals the whole group."""
    for number in _WATCHED:
        signal.signal(number, signal.SIG_IGN)
