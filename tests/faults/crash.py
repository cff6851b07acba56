"""Goal 1: kill -9 at random times and at every touch of the disk; the run goes on by itself, to the same bits."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taxadiffusion import checkpoint
from tests.faults.harness import Plan, Recorder, folder
from tests.faults.training import Job, undisturbed

FAILPOINTS = [
    (name, moment)
    for name in ("_make_dir", "_write_tensors", "_write_bytes", "_fsync", "_rename", "_sync_dir")
    for moment in ("before", "within", "after")
    if moment != "within" or name.startswith("_write")
]


def job(run_dir: Path, before: Callable[[], None] | None = None) -> Job:
    return Job(run_dir, before=before)


def kill_at(name: str, moment: str, occurrence: int) -> None:
    """In a child: die at the `occurrence`-th call of a disk function, before, within (half written) or after it."""
    original: Callable[..., Any] = getattr(checkpoint, name)
    calls = 0

    def deadly(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == occurrence and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments)
        if calls == occurrence:
            if moment == "within":
                os.truncate(arguments[0], arguments[0].stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(checkpoint, name, deadly)


def random_kill(recorder: Recorder, seed: int, reference: Any) -> None:
    rng = random.Random(seed)
    with recorder.case("kill -9 at a random time", seed, "resumes by itself; equal bits") as case, folder() as place:
        chosen = job(place / "run")
        kills = 0
        while kills < 3:  # a long-lived run is killed again and again
            child = chosen.start()
            time.sleep(rng.uniform(0, 1.2 * reference.seconds))
            child.kill()
            code = child.wait()
            kills += 1
            seen = max(chosen.noted("Committed"), default=0)
            assert chosen.committed_step() >= seen, f"step {seen} was committed and is lost"
            if code == 0:
                break
        chosen.finish()
        reference.check(chosen.run_dir)
        case.observed = f"equal after {kills} kills"
        case.hashes = {"state": reference.state}


def failpoint(recorder: Recorder, name: str, moment: str, occurrence: int, reference: Any) -> None:
    label = f"kill -9 {moment} {name} #{occurrence}"
    with recorder.case(label, occurrence, "resumes by itself; equal bits") as case, folder() as place:
        child = job(place / "run", lambda: kill_at(name, moment, occurrence)).start()
        code = child.wait()
        assert code == -signal.SIGKILL, f"the failpoint was not reached: exit {code}"
        chosen = job(place / "run")
        before = chosen.committed_step()
        assert before >= max(chosen.noted("Committed"), default=0)
        chosen.finish()
        resumed = chosen.noted("Resumed")
        assert resumed == ([before] if before else []), f"resumed from {resumed}, newest commit was {before}"
        assert not list((place / "run").glob(".tmp-*")), "leftovers of the killed commit are still there"
        reference.check(chosen.run_dir)
        case.hashes = {"state": reference.state}


def run(plan: Plan) -> Recorder:
    times = plan.few(200, 3)
    occurrences = plan.few(3, 1)
    recorder = Recorder(1, times + len(FAILPOINTS) * occurrences)
    reference = undisturbed(job)
    for seed in range(times):
        random_kill(recorder, plan.seed + seed, reference)
    rng = random.Random(plan.seed)
    for name, moment in FAILPOINTS:
        for occurrence in sorted(rng.sample(range(1, 14), occurrences)):
            failpoint(recorder, name, moment, occurrence, reference)
    return recorder
