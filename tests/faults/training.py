"""What the children do: a tiny run in a directory, its steps noted as they happen, resumed by running it again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from taxadiffusion import checkpoint
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.trainer import events
from taxadiffusion.trainer.lock import RunLock
from taxadiffusion.trainer.loop import Trainer
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.watchers import MetricsLog, read_metrics, watched
from taxadiffusion.trainer.world import World
from tests.faults.harness import Child, folder, fork
from tests.tiny_run import OracleSource, loop_settings, state_hash, tiny_denoiser, tiny_trainer

Hook = Callable[[events.Event, Trainer], None]

NOTES = "notes.txt"
"""Beside the run: one line per event that a watcher saw, written at once."""


@lru_cache(maxsize=8)
def pristine() -> Denoiser:
    """Built once in the parent; every fork starts from it."""
    return tiny_denoiser()


@dataclass(frozen=True)
class Job:
    """A run, by value: what a child needs to begin it or to go on with it."""

    run_dir: Path
    steps: int = 5  # a stage, of three
    strategy: str = "progressive"
    settings: Mapping[str, Any] = field(default_factory=lambda: {"checkpoint": {"every_steps": 1, "keep_last": 3}})
    source: OracleSource = field(default_factory=OracleSource)
    hook: Hook | None = None
    prepare: Callable[[Trainer], None] | None = None  # injects its fault before the run begins
    before: Callable[[], None] | None = None  # the same, before anything is opened
    world: Callable[[], World] | None = None
    takes_notes: bool = True
    stop: StopSignal = field(default_factory=StopSignal)

    def run(self) -> None:
        """In a child: the whole run under its lock, as the command does it."""
        self.stop.install()
        if self.before:
            self.before()
        world = self.world() if self.world else World()
        lock: list[RunLock] = []
        world.first_does(lambda: lock.append(RunLock(self.run_dir)))
        settings = loop_settings(**self.settings)
        trainer = tiny_trainer(
            self.run_dir, steps=self.steps, strategy=self.strategy, source=self.source, settings=settings,
            denoiser=pristine(), world=world, stop=self.stop, in_worker=lock[0].release if lock else None,
        )  # fmt: skip
        if self.prepare:
            self.prepare(trainer)
        watchers = [MetricsLog(self.run_dir)] if world.is_first else []
        for event in watched(trainer.run(), watchers):
            if world.is_first and self.takes_notes:
                self.note(event)
            if self.hook:
                self.hook(event, trainer)

    def note(self, event: events.Event) -> None:
        line = f"{type(event).__name__} {event.step}\n"
        descriptor = os.open(self.run_dir.parent / NOTES, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def start(self) -> Child:
        self.run_dir.parent.mkdir(parents=True, exist_ok=True)
        return fork(self.run, self.run_dir.parent)

    def finish(self, timeout_s: float = 120.0) -> None:
        """Run the same command to its end in a child; it must end well."""
        child = self.start()
        code = child.wait(timeout_s)
        assert code == 0, f"exit {code}: {child.output()[-500:]}"

    def noted(self, kind: str) -> list[int]:
        """Steps of the events of a kind that were seen so far."""
        path = self.run_dir.parent / NOTES
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == kind]

    def committed_step(self) -> int:
        """Of the newest good commit; 0: none."""
        found = checkpoint.latest(self.run_dir)
        return found.manifest.step if found else 0


def logged(run_dir: Path) -> str:
    """The numbers of every step, without durations: they must be those of the undisturbed run."""
    kept = ("step", "stage", "stage_step", "loss", "grad_norm", "learning_rate", "num_samples_seen")
    lines = [line for line in read_metrics(run_dir / "metrics.jsonl") if line["event"] == "StepDone"]
    return json.dumps([[line[key] for key in kept] for line in lines])


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run comes to."""

    state: str
    log: str
    seconds: float

    def check(self, run_dir: Path) -> None:
        """Parameters, moments, average, progress and every logged number are equal, to the bit."""
        assert state_hash(run_dir) == self.state, "final weights differ from the undisturbed run's"
        assert logged(run_dir) == self.log, "logged losses differ from the undisturbed run's"


def undisturbed(job: Callable[[Path], Job]) -> Reference:
    """Run a job to its end, without faults."""
    import time

    with folder() as place:
        started = time.perf_counter()
        chosen = job(place / "run")
        chosen.finish(600)
        return Reference(state_hash(chosen.run_dir), logged(chosen.run_dir), time.perf_counter() - started)
