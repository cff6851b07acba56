"""All processor cores at the verification of parts, safely: nothing is lost or left running when a process dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as NoAnswerError
from concurrent.futures.process import BrokenProcessPool

from loky import ProcessPoolExecutor
from loky.backend import get_context

from taxadiffusion.dataset.verify import FileFacts, SetPart, is_verified, look_at, verify_part, write_result
from taxadiffusion.errors import SettingsError

_PARTS_IN_FLIGHT_PER_WORKER = 3
_START_S = 300.0  # for the first answer of a new pool; a cold network disk imports slowly
_PARENT_POLL_S = 0.5


def num_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def verify_parts(parts: Iterable[SetPart], num_workers: int) -> Iterator[int]:
    """Verifies `parts` in `num_workers` processes; yields the number of rows of each as it is done.

    One worker means this process. The processes never run the caller's own script, which so needs no main guard. A
    picture whose decoding kills a worker is found by looking at the lost parts' pictures one by one, and becomes a
    fault of that picture. Raises `SettingsError` when no process can be started.
    """
    if num_workers <= 1:
        for part in parts:
            yield verify_part(part)
        return
    waiting = iter(parts)
    unfinished: dict[str, SetPart] = {}
    while True:
        executor = _executor(num_workers)
        running: set[Future[SetPart]] = set()
        whole = False
        try:
            for part in waiting:
                unfinished[part.result] = part
                running.add(executor.submit(_verified, part))
                if len(running) >= _PARTS_IN_FLIGHT_PER_WORKER * num_workers:
                    yield from _finished(running, unfinished)
            while running:
                yield from _finished(running, unfinished)
            whole = True
            return
        except BrokenProcessPool:
            for part in unfinished.values():
                yield _verify_one_by_one(part)
            unfinished.clear()
        finally:
            executor.shutdown(wait=True, kill_workers=not whole)  # what they were writing lies aside, never in a result


def _verified(part: SetPart) -> SetPart:
    verify_part(part)
    return part


def _finished(running: set[Future[SetPart]], unfinished: dict[str, SetPart]) -> Iterator[int]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        part = future.result()
        running.remove(future)
        del unfinished[part.result]
        yield len(part.images)


def _verify_one_by_one(part: SetPart) -> int:
    if is_verified(part):
        return len(part.images)
    facts: list[FileFacts] = []
    executor = _executor(1)
    try:
        for image, member in zip(part.images, part.members, strict=True):
            try:
                looked = executor.submit(look_at, part.root, image, member, part.unpack_dir, part.follow_links)
                facts.append(looked.result())
            except BrokenProcessPool:
                facts.append({"fault": "decoding the picture ended the process"})
                executor = _executor(1)
    finally:
        executor.shutdown(wait=True, kill_workers=True)
    write_result(part, facts)
    return len(part.images)


def _executor(num_workers: int) -> ProcessPoolExecutor:
    """A pool that has answered: what breaks it later is its work. Raises `SettingsError` when it does not start."""
    loky = get_context("loky")  # whose processes never import the caller's main module
    executor = ProcessPoolExecutor(num_workers, context=loky, initializer=_start_worker, initargs=(os.getpid(),))
    try:
        executor.submit(os.getpid).result(_START_S)
    except (BrokenProcessPool, NoAnswerError, OSError) as error:
        executor.shutdown(wait=True, kill_workers=True)
        reason = str(error).split(". ")[0] or f"no answer within {_START_S:.0f} s"
        raise SettingsError(
            f"{num_workers} worker processes cannot be started: {reason}. Give fewer (--workers, num_workers); "
            "1 works in this process alone"
        ) from error
    return executor


def _start_worker(parent: int) -> None:
    """Leaves Ctrl-C to the parent, and ends with it: a worker of a killed parent would wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    os._exit(1)
