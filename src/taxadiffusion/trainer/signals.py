"""Signals: the first asks the run to finish its step, commit and leave; the second leaves at once."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

from taxadiffusion.errors import InterruptedByUserError, PreemptedError, TaxaDiffusionError

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

PASSED_ON_S = 5.0


class StopSignal:
    """Whether a stop was asked for. `install` it before anything slow; it costs nothing to read."""

    def __init__(self) -> None:
        self.number = 0  # of the first signal received; 0: none
        self.received_at = 0.0
        self.passed_on_s = 0.0

    def install(self) -> None:
        """Take over SIGTERM, SIGINT and SIGUSR1 (main thread only).

        A launcher passes on the signal that its whole group has received: under one (it sets LOCAL_RANK), what comes
        within `PASSED_ON_S` of the first is the same request, not a second one.
        """
        self.passed_on_s = PASSED_ON_S if "LOCAL_RANK" in os.environ else 0.0
        for number in _WATCHED:
            signal.signal(number, self._receive)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if not self.number:
            self.number, self.received_at = number, time.monotonic()
        elif time.monotonic() - self.received_at >= self.passed_on_s:
            os._exit(stop_error(self.number, "").exit_code)

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
