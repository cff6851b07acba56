"""Ratios of two ways to do the same, run in turn in one process; and whether the machine was free meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

Clock = Callable[[], float]

QUIET_SPREAD = 1.15
"""On a free machine the calibration kernel's slowest quarter takes at most so much longer than its fastest run."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long the peer takes: median over pairs of runs, and the quartiles."""

    name: str
    ratio: float
    low: float
    high: float
    peer_s: float
    ours_s: float
    num_pairs: int


def interleaved(
    name: str, peer: Callable[[], object], ours: Callable[[], object], num_pairs: int, clock: Clock
) -> Ratio:
    """Peer, ours, peer, ours …, after one run of each that does not count."""
    return interleaved_all(peer, {name: ours}, num_pairs, clock)[0]


def interleaved_all(
    peer: Callable[[], object],
    ours: Mapping[str, Callable[[], object]],
    num_pairs: int,
    clock: Clock,
    *,
    warm: bool = False,
) -> list[Ratio]:
    """The same for several of ours: the peer, each of ours, the peer, … `warm`: all have run before."""
    sides = [peer, *ours.values()]
    for side in () if warm else sides:
        side()
    seconds = np.array([[timed(side, clock) for side in sides] for _ in range(num_pairs)])
    found = []
    for column, name in enumerate(ours, 1):
        low, middle, high = np.percentile(seconds[:, 0] / seconds[:, column], [25, 50, 75])
        peer_s, ours_s = np.median(seconds[:, [0, column]], axis=0)
        found.append(Ratio(name, float(middle), float(low), float(high), float(peer_s), float(ours_s), num_pairs))
    return found


def timed(work: Callable[[], object], clock: Clock) -> float:
    _wait_for_device()
    start = clock()
    work()
    _wait_for_device()
    return clock() - start


class DeviceClock:
    """Seconds of the GPU's own clock. A host that others load makes it wait, but is not mistaken for work."""

    def __init__(self) -> None:
        self._start = self._event()

    def __call__(self) -> float:
        now = self._event()
        now.synchronize()
        return self._start.elapsed_time(now) / 1e3

    @staticmethod
    def _event() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fixed kernel on all of the benchmark's threads: its median time, its spread, its share of the processor."""

    seconds: float
    spread: float
    cpu_share: float

    @property
    def quiet(self) -> bool:
        return self.spread <= QUIET_SPREAD and self.cpu_share >= 1 / QUIET_SPREAD


def calibrate(num_runs: int = 24, num_attempts: int = 5) -> Calibration:
    """The first quiet calibration, else the last. A process that loads the machine shows in each of them; a virtual
    machine's own hiccup does not last."""
    for number in range(num_attempts):
        found = _calibration(num_runs)
        if found.quiet:
            break
        if number + 1 < num_attempts:
            time.sleep(2.0)
    return found


def _calibration(num_runs: int) -> Calibration:
    """A product of 768 × 768 matrices, `num_runs` times; another process on one of the threads' cores shows at once."""
    left = torch.ones(768, 768)
    left @ left
    started, cpu_started = time.perf_counter(), time.process_time()
    seconds = []
    for _ in range(num_runs):
        start = time.perf_counter()
        for _ in range(8):
            left @ left
        seconds.append(time.perf_counter() - start)
    share = (time.process_time() - cpu_started) / (time.perf_counter() - started) / torch.get_num_threads()
    spread = float(np.percentile(seconds, 75) / min(seconds))
    return Calibration(float(np.median(seconds)), spread, share)
