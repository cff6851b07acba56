"""Goals 8 and 9: signals in every phase, and two runs in one directory."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taxadiffusion import checkpoint
from taxadiffusion.errors import CheckpointError
from taxadiffusion.trainer import events
from taxadiffusion.trainer.lock import RunLock
from taxadiffusion.trainer.loop import Trainer
from tests.faults.harness import Child, Plan, Recorder, folder, survivors, tree_hash
from tests.faults.training import Job, Reference, pristine, undisturbed

CODES = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}
PHASES = ("data", "step", "validation", "save", "stage switch", "preview", "random")


def job(run_dir: Path, workers: int = 0, prepare: Any = None, hook: Any = None) -> Job:
    settings = {
        "checkpoint": {"every_steps": 4},
        "validation": {"every_steps": 2},
        "num_workers": workers,
        "preview": {"every_steps": 3},
    }
    return Job(run_dir, settings=settings, prepare=prepare, hook=hook)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def injected(phase: str, number: int, step: int) -> tuple[Any, Any]:
    """A patch before the run, or a hook on its events, that signals the process itself in a phase."""

    def around(target: Any, name: str, when: Callable[..., bool]) -> None:
        original = getattr(target, name)
        sent = False

        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal sent
            if not sent and when(*arguments):
                sent = True
                send(number)
            return original(*arguments, **options)

        setattr(target, name, wrapped)

    def on(kind: type) -> Callable[[events.Event, Trainer], None]:
        return lambda event, _: send(number) if isinstance(event, kind) and event.step == step else None

    if phase == "data":
        return (lambda trainer: around(trainer.data.source, "read", lambda *_: trainer.progress.step >= step)), None
    if phase == "step":
        return (lambda trainer: around(trainer.gradients, "losses", lambda _, batch: batch.step >= step)), None
    if phase == "validation":
        return (lambda trainer: around(trainer.validation, "run", lambda *_: trainer.progress.step >= step)), None
    if phase == "save":
        return (lambda _: around(checkpoint, "_write_bytes", lambda *_: True)), None
    return None, on({"stage switch": events.StageDone, "preview": events.PreviewDue}[phase])


def one_signal(recorder: Recorder, seed: int, phase: str, reference: Reference) -> None:
    rng = random.Random(seed)
    number = rng.choice(list(CODES))
    workers = 2 if phase == "random" and seed % 3 == 0 else 0
    label = f"{signal.Signals(number).name}, {phase}, {workers} workers"
    expected = "right code, at most 10 s, no step lost, no process left, equal bits"
    with recorder.case(label, seed, expected) as case, folder() as place:
        if phase == "random":
            chosen = job(place / "run", workers)
            child = chosen.start()
            while not chosen.noted("StepDone"):
                time.sleep(0.005)
            time.sleep(rng.uniform(0, reference.seconds))
            child.kill(number)
        else:
            step = 5 if phase == "stage switch" else 3 if phase == "preview" else rng.randrange(2, 13)
            prepare, hook = injected(phase, number, step)
            chosen = job(place / "run", 0, prepare, hook)
            child = chosen.start()
        started = time.monotonic()
        code = child.wait(10 if phase == "random" else 60)
        ended = code == 0 and phase == "random"  # the run had finished before the signal came
        assert code == CODES[number] or ended, f"exit {code}: {child.output()[-300:]}"
        left = survivors_after(child)
        assert not left, f"processes left: {left}"
        case.observed = f"exit {code} after {time.monotonic() - started:.2f} s"
        last = max(chosen.noted("StepDone"))
        assert chosen.committed_step() == last, f"stopped at step {last}, committed {chosen.committed_step()}"
        rest = job(place / "run", workers)
        rest.finish()
        reference.check(rest.run_dir)


def survivors_after(child: Child) -> list[int]:
    """Processes of the child's session that are still there after two seconds of grace."""
    deadline = time.monotonic() + 2
    while (left := survivors(child.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def second_signal(recorder: Recorder, seed: int, reference: Reference) -> None:
    """The second signal leaves at once, in the middle of a step; the last commit is whole."""
    with (
        recorder.case("second signal", seed, "leaves at once; last commit whole; equal bits after") as case,
        folder() as place,
    ):

        def slow(trainer: Trainer) -> None:
            original = trainer.gradients.losses

            def losses(stage: Any, batch: Any, **options: Any) -> Any:
                if batch.step == 6:
                    (place / "slow").touch()
                    time.sleep(30)
                return original(stage, batch, **options)

            trainer.gradients.losses = losses  # type: ignore[method-assign]

        child = job(place / "run", prepare=slow).start()
        while not (place / "slow").exists():
            time.sleep(0.005)
        child.kill(signal.SIGTERM)
        time.sleep(0.2)
        started = time.monotonic()
        child.kill(signal.SIGTERM)
        assert child.wait(10) == 75
        case.observed = f"left after {time.monotonic() - started:.2f} s"
        rest = job(place / "run")
        rest.finish()
        reference.check(rest.run_dir)


def while_starting(recorder: Recorder, seed: int) -> None:
    """In a fresh interpreter, while it imports: nothing is there to commit, the code is right."""
    number = list(CODES)[seed % 3]
    with (
        recorder.case(f"{signal.Signals(number).name}, import", seed, "right code, at most 10 s") as case,
        folder() as place,
    ):
        command = [sys.executable, "-m", "tests.faults.starting", str(place / "run"), str(place / "ready")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while not (place / "ready").exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(random.Random(seed).uniform(0, 0.5))
        process.send_signal(number)
        started = time.monotonic()
        code = process.wait(30)
        seconds = time.monotonic() - started
        case.observed = f"exit {code} after {seconds:.2f} s"
        assert code == CODES[number], (process.stderr.read() if process.stderr else "")[-300:]
        assert seconds <= 10


def all_signals(plan: Plan) -> Recorder:
    each, starting, twice = plan.few(13, 1), plan.few(5, 0), plan.few(4, 1)
    recorder = Recorder(8, each * len(PHASES) + starting + twice)
    reference = undisturbed(job)
    for phase in PHASES:
        for seed in range(each):
            one_signal(recorder, plan.seed + seed, phase, reference)
    for seed in range(starting):
        while_starting(recorder, seed)
    for seed in range(twice):
        second_signal(recorder, seed, reference)
    return recorder


def pair(recorder: Recorder, seed: int) -> None:
    expected = "one winner; the loser writes nothing and leaves with 4 in 5 s; a killed run's lock is free at once"
    with recorder.case("two runs at once", seed, expected) as case, folder() as place:
        run_dir = place / "run"

        def start(name: str) -> Child:
            return Job(run_dir, steps=30, before=lambda: note_writes(run_dir, place / f"{name}.writes")).start()

        first, second = start("first"), start("second")
        children = {"first": first, "second": second}
        started = time.monotonic()
        loser = None
        while loser is None and time.monotonic() - started < 5:
            for name, child in children.items():
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    loser = name
                    code = os.waitstatus_to_exitcode(status)
                    break
            time.sleep(0.002)
        assert loser, "both runs hold the directory, or the loser took more than 5 s"
        assert code == 4, f"exit {code}"
        writes = (place / f"{loser}.writes").read_text().splitlines() if (place / f"{loser}.writes").exists() else []
        assert not writes, f"the loser wrote: {writes[:3]}"
        winner = children["second" if loser == "first" else "first"]
        case.observed = f"loser left after {time.monotonic() - started:.2f} s"
        winner.kill()
        assert winner.wait() == -signal.SIGKILL
        before = tree_hash(run_dir)
        freed = time.monotonic()
        RunLock(run_dir).release()
        assert time.monotonic() - freed < 0.5
        assert before  # the directory was left as the killed run had it


def note_writes(run_dir: Path, log: Path) -> None:
    """In a child: write down whatever it opens for writing, renames, makes or removes below the run directory."""
    changing = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")
    busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy or event not in (*changing, "open"):
            return
        path = str(arguments[0])
        if not path.startswith(str(run_dir)) or path in (str(run_dir), str(run_dir / "lock")):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        busy = True
        with log.open("a") as file:
            file.write(f"{event} {path}\n")
        busy = False

    sys.addaudithook(hook)


def pairs(plan: Plan) -> Recorder:
    number = plan.few(20, 3)
    recorder = Recorder(9, number + 1)
    pristine()
    for seed in range(number):
        pair(recorder, seed)
    with recorder.case("a held lock names its owner", 0, "exit 4 at once"), folder() as place:
        lock = RunLock(place / "run")
        try:
            RunLock(place / "run")
        except CheckpointError as error:
            message = str(error)
        else:
            message = "two locks on one directory"
        lock.release()
        assert f"process {os.getpid()}" in message, message
    return recorder
