"""Goals 4 and 5: a run cut anywhere, or run in another environment, is the same run to the last bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taxadiffusion.trainer import events
from taxadiffusion.trainer.loop import Trainer
from tests.faults.harness import Plan, Recorder, folder
from tests.faults.training import Job, Reference, logged, undisturbed
from tests.tiny_run import NUM_ROWS, state_hash

STEPS = 7  # a stage; an epoch is 5 steps of 8 samples
BATCH = 8
POINTS = ("step 1", "mid-epoch", "epoch end", "inside accumulation", "in validation", "stage boundary", "last step")


def settings(workers: int) -> dict[str, Any]:
    return {
        "checkpoint": {"every_steps": 1},
        "training": {"balance": 0.0},
        "validation": {"every_steps": 3},
        "num_workers": workers,
    }


def job(run_dir: Path, workers: int = 0, prepare: Callable[[Trainer], None] | None = None, hook: Any = None) -> Job:
    def injected(trainer: Trainer) -> None:
        record_samples(trainer, run_dir.parent / "samples.jsonl")
        if prepare:
            prepare(trainer)

    return Job(run_dir, steps=STEPS, settings=settings(workers), prepare=injected, hook=hook)


def record_samples(trainer: Trainer, path: Path) -> None:
    """Write down which rows every training step really used."""
    original = trainer.gradients.losses

    def losses(stage: Any, batch: Any, **options: Any) -> Any:
        if batch.draws is not None and trainer.gradients.denoiser.training is not None and options["rank_dropout"]:
            with path.open("a") as file:
                file.write(json.dumps([batch.step, int(batch.positions[0]), batch.rows.tolist()]) + "\n")
        return original(stage, batch, **options)

    trainer.gradients.losses = losses  # type: ignore[method-assign]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def cut_at(point: str, stage: int) -> tuple[Callable[[Trainer], None] | None, Any]:
    """Injections that kill the process at a point of a stage: before the run (patches), or on an event."""
    first = stage * STEPS

    def on(kind: type, step: int) -> Callable[[events.Event, Trainer], None]:
        return lambda event, _: die() if isinstance(event, kind) and event.step == step else None

    if point == "inside accumulation":
        return (lambda trainer: patch_losses(trainer, first + 3)), None
    if point == "in validation":
        return (lambda trainer: patch_validation(trainer, first)), None
    step = {
        "step 1": first + 1,
        "mid-epoch": first + 2 if (first + 2) * BATCH % NUM_ROWS else first + 3,
        "epoch end": next(s for s in range(first + 1, first + 7) if s * BATCH % NUM_ROWS == 0),
        "stage boundary": first + STEPS,
        "last step": first + STEPS,
    }[point]
    return None, on(events.StageDone if point == "stage boundary" else events.StepDone, step)


def patch_losses(trainer: Trainer, step: int) -> None:
    original = trainer.gradients.losses
    count = Counter[int]()

    def losses(stage: Any, batch: Any, **options: Any) -> Any:
        result = original(stage, batch, **options)
        count[batch.step] += 1
        if batch.step == step and count[step] == 2:
            die()
        return result

    trainer.gradients.losses = losses  # type: ignore[method-assign]


def patch_validation(trainer: Trainer, first_step: int) -> None:
    original = trainer.validation.run

    def run(stage: Any, step: int) -> Any:
        if step > first_step:
            trainer.gradients.denoiser.eval()
            die()
        return original(stage, step)

    trainer.validation.run = run  # type: ignore[method-assign]


def check_samples(path: Path) -> None:
    """Each epoch used each row once: none repeated, none missed."""
    used: dict[tuple[int, int], list[int]] = {}
    for line in path.read_text().splitlines():
        step, position, rows = json.loads(line)
        assert used.setdefault((step, position), rows) == rows, "a step that was done again used other samples"
    order = [row for key in sorted(used) for row in used[key]]
    assert len(order) == 3 * STEPS * BATCH
    for epoch in range(len(order) // NUM_ROWS):
        counts = Counter(order[epoch * NUM_ROWS : (epoch + 1) * NUM_ROWS])
        assert len(counts) == NUM_ROWS, f"epoch {epoch}: {NUM_ROWS - len(counts)} missed"
        assert set(counts.values()) == {1}, f"epoch {epoch}: some repeated"


def stop_point(recorder: Recorder, point: str, stage: int, workers: int, reference: Reference) -> None:
    label = f"{point}, stage {stage}, {workers} workers"
    with recorder.case(label, stage, "equal bits; 0 samples repeated, 0 missed") as case, folder() as place:
        prepare, hook = cut_at(point, stage)
        child = job(place / "run", workers, prepare, hook).start()
        code = child.wait()
        assert code == -signal.SIGKILL, f"the point was not reached: exit {code}: {child.output()[-300:]}"
        chosen = job(place / "run", workers)
        chosen.finish()
        reference.check(chosen.run_dir)
        check_samples(place / "samples.jsonl")
        case.hashes = {"state": reference.state}


def resume(plan: Plan) -> Recorder:
    stages, workers = plan.few(3, 1), (0, 2) if not plan.subset else (0,)
    recorder = Recorder(4, len(POINTS) * stages * len(workers))
    reference = undisturbed(job)
    for point in POINTS:
        for stage in range(3)[-stages:]:
            for number in workers:
                stop_point(recorder, point, stage, number, reference)
    return recorder


ENVIRONMENTS: tuple[tuple[str, dict[str, str], list[str]], ...] = (
    ("plain", {}, []),
    ("PYTHONHASHSEED 0", {"PYTHONHASHSEED": "0"}, []),
    ("PYTHONHASHSEED 4242", {"PYTHONHASHSEED": "4242"}, []),
    ("locale C", {"LC_ALL": "C", "LANG": "C"}, []),
    ("locale C.UTF-8", {"LC_ALL": "C.UTF-8"}, []),
    ("time zone Kiritimati", {"TZ": "Pacific/Kiritimati"}, []),
    ("clock a year ahead", {}, ["--clock", "31536000"]),
    ("clock a year behind", {}, ["--clock", "-31536000"]),
    ("1 worker", {}, ["--workers", "1"]),
    ("2 workers", {}, ["--workers", "2"]),
    ("validation every step", {}, ["--validate", "1"]),
    ("validation never", {}, ["--validate", "0"]),
)


def environments(plan: Plan) -> Recorder:
    """Goal 5: fresh interpreters in different environments come to one hash."""
    chosen = ENVIRONMENTS if not plan.subset else (ENVIRONMENTS[2],)
    recorder = Recorder(5, len(chosen))
    with folder() as place:
        job(place / "run").finish()
        expected = state_hash(place / "run"), logged(place / "run")
    for number, (label, variables, options) in enumerate(chosen):
        with recorder.case(label, number, "the one hash") as case, folder() as place:
            command = [sys.executable, "-m", "tests.faults.environment", str(place / "run"), *options]
            done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-300:]
            assert (state_hash(place / "run"), logged(place / "run")) == expected, "another hash"
            case.hashes = {"state": expected[0]}
    return recorder
