"""What a run has cost so far: its rate, the time that is left, and hours of cores or GPUs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from taxadiffusion.trainer import events
from taxadiffusion.trainer.watchers import METRICS_FILE, read_metrics
from taxadiffusion.trainer.world import World


@dataclass(frozen=True, slots=True)
class Held:
    """What a run holds of the machines while it lasts."""

    cores: int = 0
    gpus: int = 0

    @classmethod
    def by(cls, world: World) -> Held:
        """A GPU a process; or on a CPU the threads that each process computes with, taken to be as many on all."""
        if world.device.type == "cpu":
            return cls(cores=world.num_processes * torch.get_num_threads())
        return cls(gpus=world.num_processes)


class Spending:
    """Says at every commit what was spent: a watcher, beside the log of numbers, from which it goes on counting.

    started: seconds of `clock` when the command began, so that caches, validation and previews count as well. Time that
    a killed run spent after its last commit is not known to anyone.
    """

    def __init__(
        self, run_dir: Path, num_steps: int, held: Held, *, started: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self.num_steps, self.held, self.clock = run_dir / METRICS_FILE, num_steps, held, clock
        self._counted_to = started
        self._core_hours = self._gpu_hours = 0.0
        self._began: tuple[float, int] | None = None  # of the steps since the last telling: when, and after which
        self._images, self._seconds, self._seen = 0, 0.0, 0

    def __call__(self, event: events.Event) -> events.Spent | None:
        if isinstance(event, events.Resumed):
            spent = [
                line for line in read_metrics(self.path) if line["event"] == "Spent" and line["step"] <= event.step
            ]
            if spent:
                self._core_hours, self._gpu_hours = spent[-1]["core_hours"], spent[-1]["gpu_hours"]
        elif isinstance(event, events.StageStarted):
            self._seen = event.num_samples_seen
            self._began = self._began or (self.clock(), event.step)
        elif isinstance(event, events.StepDone):
            self._images += event.num_samples_seen - self._seen
            self._seen = event.num_samples_seen
            self._seconds += event.seconds
        elif isinstance(event, events.CheckpointCommitted):
            return self._told(event.step)
        return None

    def _told(self, step: int) -> events.Spent | None:
        now = self.clock()
        hours = (now - self._counted_to) / 3600
        self._counted_to = now
        self._core_hours += self.held.cores * hours
        self._gpu_hours += self.held.gpus * hours
        began, after = self._began or (now, step)
        done = step - after
        rate = self._images / self._seconds if self._seconds else 0.0
        left_s = (now - began) / done * (self.num_steps - step) if done else 0.0
        self._began, self._images, self._seconds = (now, step), 0, 0.0
        return events.Spent(step, rate, left_s, self._core_hours, self._gpu_hours) if done else None
