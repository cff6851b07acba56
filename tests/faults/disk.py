"""Goals 2 and 3: a disk that fills, and bits that rot."""

from __future__ import annotations

import random
import re
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taxadiffusion import checkpoint
from taxadiffusion.errors import CheckpointError
from tests.faults.harness import Plan, Recorder, folder, fork
from tests.faults.training import Job, Reference, undisturbed

_MESSAGE = re.compile(r"error: (?P<path>\S+): .*needs [\d,]+ bytes, [\d,]+ are free")


def job(run_dir: Path) -> Job:
    return Job(run_dir, settings={"checkpoint": {"every_steps": 2, "keep_last": 100}})


def check_stopped(chosen: Job, code: int, output: str, committed_before: int) -> None:
    """What a run must leave behind that could not write."""
    assert code == 4, f"exit {code}: {output[-300:]}"
    message = _MESSAGE.search(output)
    assert message, f"the message names no path, need and free space: {output[-300:]}"
    assert message["path"].startswith(str(chosen.run_dir)), message["path"]
    for path in checkpoint.candidates(chosen.run_dir):
        checkpoint.verify(path)  # no partial step-N
    assert chosen.committed_step() >= committed_before


def file_size_limit(recorder: Recorder, seed: int, limit: int, reference: Reference) -> None:
    """RLIMIT_FSIZE: no file may grow beyond `limit` bytes."""
    label = f"file size limit of {limit} bytes"
    with (
        recorder.case(label, seed, "exit 4, message, earlier commits verify, equal bits after") as case,
        folder() as place,
    ):
        chosen = job(place / "run")
        first = Job(chosen.run_dir, settings=chosen.settings, hook=lambda event, _: stop_after(event, 4))
        first.start().wait()
        before = chosen.committed_step()
        assert before == 4
        limited = Job(
            chosen.run_dir,
            settings=chosen.settings,
            takes_notes=False,
            before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),
        )
        child = limited.start()
        check_stopped(chosen, child.wait(), child.output(), before)
        chosen.finish()
        reference.check(chosen.run_dir)
        case.hashes = {"state": reference.state}


def stop_after(event: object, step: int) -> None:
    import os

    from taxadiffusion.trainer import events

    if isinstance(event, events.CheckpointCommitted) and event.step == step:
        os._exit(9)


@contextmanager
def tmpfs(path: Path, num_bytes: int) -> Iterator[None]:
    """A file system in memory of so many bytes. Raises `PermissionError` where this user may not mount."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PermissionError(done.stderr.strip() or "mount failed")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def small_disk(recorder: Recorder, seed: int, num_bytes: int, reference: Reference) -> None:
    label = f"tmpfs of {num_bytes} bytes"
    with folder() as place:
        try:
            context = tmpfs(place / "disk", num_bytes)
            context.__enter__()
        except (PermissionError, FileNotFoundError) as error:
            recorder.skip(label, f"cannot mount: {error}")
            return
        try:
            with recorder.case(label, seed, "exit 4, message, earlier commits verify, equal bits after") as case:
                chosen = job(place / "disk" / "run")
                child = fork(chosen.run, place)  # what it says must not need the full disk
                code = child.wait()
                check_stopped(chosen, code, child.output(), max(chosen.noted("Committed"), default=0))
                subprocess.run(["mount", "-o", "remount,size=64m", str(place / "disk")], check=True)
                chosen.finish()
                reference.check(chosen.run_dir)
                case.hashes = {"state": reference.state}
        finally:
            context.__exit__(None, None, None)


def full_disk(plan: Plan) -> Recorder:
    half = plan.few(20, 2)
    recorder = Recorder(2, 2 * half)
    reference = undisturbed(job)
    with folder() as place:
        probe = Job(place / "run", settings={"checkpoint": {"every_steps": 100, "keep_last": 1}})
        probe.finish()
        (newest,) = checkpoint.candidates(probe.run_dir)[:1]
        largest = max(file.stat().st_size for file in newest.iterdir())
        whole = sum(file.stat().st_size for file in newest.iterdir())
    rng = random.Random(plan.seed)
    for index in range(half):
        limit = 2000 + int((largest - 2500) * index / half)  # below 2,000 the child could not write its own message
        file_size_limit(recorder, index, limit, reference)
    for index in range(half):
        small_disk(recorder, index, int(whole * rng.uniform(1.5, 6.0)), reference)
    return recorder


def bit_rot(plan: Plan) -> Recorder:
    """Goal 3: one flipped bit anywhere in the newest commit is found, and the previous commit is used."""
    flips = plan.few(1000, 100)
    recorder = Recorder(3, flips)
    rng = random.Random(plan.seed)
    with folder() as place:
        chosen = job(place / "run")
        chosen.finish()
        newest, previous = checkpoint.candidates(chosen.run_dir)[:2]
        files = sorted(newest.iterdir())
        sizes = [file.stat().st_size for file in files]
        for seed in range(flips):
            file = files[seed % len(files)] if seed < 2 * len(files) else rng.choices(files, sizes)[0]
            data = file.read_bytes()
            bit = rng.randrange(8 * len(data))
            with recorder.case(f"bit {bit} of {file.name}", seed, "found; the previous commit is used"):
                flipped = bytearray(data)
                flipped[bit // 8] ^= 1 << bit % 8
                file.write_bytes(flipped)
                try:
                    found = checkpoint.latest(chosen.run_dir)
                except CheckpointError as error:
                    raise AssertionError(f"the previous commit was not used: {error}") from error
                finally:
                    file.write_bytes(data)
                assert found is not None
                assert found.path == previous
                assert len(found.passed_over) == 1
        checkpoint.verify(newest)
    return recorder
