"""Goal 14: one long run under a supervisor that only ever runs the same command again, with faults of every kind."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from taxadiffusion import checkpoint
from taxadiffusion.trainer.loop import Trainer
from tests.faults.harness import Child, Plan, Recorder, folder
from tests.faults.training import Job, undisturbed
from tests.tiny_run import OracleSource

BAD_ROWS, POISONED_ROWS = (3, 19), (27,)
"""By sample id: the fault-free run leaves out the same samples, so that both see the same ones."""

FAULTS = ("kill", "SIGTERM", "SIGUSR1", "SIGINT", "disk full", "file size limit", "bit flip", "kill in a commit")


def job(run_dir: Path, steps: int) -> Job:
    settings = {
        "checkpoint": {"every_steps": 5, "keep_last": 3},
        "training": {"max_bad_fraction": 0.2, "max_refused_steps": 1000},
        "validation": {"every_steps": 25},
    }
    return Job(run_dir, steps, settings=settings, source=OracleSource(unreadable=BAD_ROWS, poisoned=POISONED_ROWS))


@dataclass
class Supervisor:
    """Starts the run again whenever it has ended, and injects one fault into each start."""

    chosen: Job
    rng: random.Random
    counts: Counter[str]
    pause_s: float

    def run(self, until: float, least: int) -> None:
        """Until the run has finished; faults stop coming after the deadline, once enough of them came."""
        while True:
            calm = time.monotonic() > until and sum(self.counts.values()) >= least
            fault = "" if calm else self.rng.choice(FAULTS)
            child = self.start(fault)
            code = self.inject(fault, child)
            if code == 0:
                if fault:
                    self.counts[fault] -= 1  # the run had finished before it could strike
                return
            assert code in (4, 70, 75, 130, -signal.SIGKILL), f"{fault}: exit {code}: {child.output()[-300:]}"

    def start(self, fault: str) -> Child:
        if fault:
            self.counts[fault] += 1
        if fault == "bit flip":
            self.flip()
        before: Callable[[], None] | None = None
        prepare: Callable[[Trainer], None] | None = None
        if fault == "file size limit":
            before = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY))  # noqa: E731
        elif fault == "disk full":
            prepare = self.full_disk
        elif fault == "kill in a commit":
            prepare = self.deadly_commit
        return replace(self.chosen, before=before, prepare=prepare, takes_notes=False).start()

    def inject(self, fault: str, child: Child) -> int:
        if fault in ("kill", "SIGTERM", "SIGUSR1", "SIGINT", "bit flip"):
            time.sleep(self.rng.uniform(0.0, 2 * self.pause_s))
            child.kill(signal.SIGKILL if fault in ("kill", "bit flip") else getattr(signal, fault))
        return child.wait(600)

    def flip(self) -> None:
        """One bit of the newest commit, where there is an older one to go back to."""
        commits = checkpoint.candidates(self.chosen.run_dir)
        if len(commits) < 2:
            return
        file = self.rng.choice(sorted(commits[0].iterdir()))
        data = bytearray(file.read_bytes())
        data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        file.write_bytes(data)

    def full_disk(self, _: Trainer) -> None:
        """In the child: the disk is full from some write on."""
        left = self.rng.randrange(1, 12)
        original = checkpoint._write_bytes

        def write(path: Path, data: bytes) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                path.write_bytes(data[: len(data) // 2])
                raise OSError(28, "No space left on device")
            original(path, data)

        checkpoint._write_bytes = write

    def deadly_commit(self, _: Trainer) -> None:
        """In the child: killed at some touch of the disk."""
        left = self.rng.randrange(1, 40)
        for name in ("_make_dir", "_write_tensors", "_write_bytes", "_fsync", "_rename", "_sync_dir"):
            original: Callable[..., Any] = getattr(checkpoint, name)

            def deadly(*arguments: Any, original: Callable[..., Any] = original) -> None:
                nonlocal left
                left -= 1
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                original(*arguments)

            setattr(checkpoint, name, deadly)


def run(plan: Plan) -> Recorder:
    """Round after round of the same run until the time is over; every round must end on the fault-free weights."""
    minutes, least, steps = plan.few(1, 0) * plan.soak_minutes, plan.few(100, 8), plan.few(1500, 40)
    recorder = Recorder(14, 1)
    expected = f"at least {least} mixed faults, ends unattended, equal bits"
    with recorder.case("chaos soak", plan.seed, expected) as case:
        reference = undisturbed(lambda run_dir: job(run_dir, steps))
        rng, counts, rounds = random.Random(plan.seed), Counter[str](), 0
        started = time.monotonic()
        until = started + minutes * 60
        while time.monotonic() < until or counts.total() < least:  # a run may end before its share of faults came
            with folder() as place:
                chosen = job(place / "run", steps)
                supervisor = Supervisor(chosen, rng, counts, pause_s=min(6.0, reference.seconds / 10))
                supervisor.run(until, least)
                reference.check(chosen.run_dir)
            rounds += 1
        faults = sum(counts.values())
        case.observed = (
            f"{faults} faults in {(time.monotonic() - started) / 60:.1f} min over {rounds} runs of {3 * steps} steps "
            f"({dict(counts)}), {len(BAD_ROWS) + len(POISONED_ROWS)} bad samples throughout"
        )
        assert faults >= least, case.observed
        case.hashes = {"state": reference.state}
    return recorder
