"""All processor cores at the verification of parts, safely: nothing is lost or left running when a process dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for

from taxadiffusion.dataset.verify import Facts, Part, is_verified, look_at, verify_part, write_result

_PARTS_IN_FLIGHT_PER_WORKER = 3


def num_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def verify_parts(parts: Iterable[Part], num_workers: int) -> Iterator[int]:
    """Verifies `parts` in `num_workers` processes; yields the number of rows of each as it is done.

    One worker means this process. A picture whose decoding kills a worker is found by looking at the lost parts'
    pictures one by one, and becomes a fault of that picture.
    """
    if num_workers <= 1:
        for part in parts:
            yield verify_part(part)
        return
    waiting = iter(parts)
    unfinished: dict[str, Part] = {}
    while True:
        executor = _executor(num_workers)
        running: set[Future[Part]] = set()
        try:
            for part in waiting:
                unfinished[part.result] = part
                running.add(executor.submit(_verified, part))
                if len(running) >= _PARTS_IN_FLIGHT_PER_WORKER * num_workers:
                    yield from _finished(running, unfinished)
            while running:
                yield from _finished(running, unfinished)
            return
        except BrokenProcessPool:
            for part in unfinished.values():
                yield _verify_one_by_one(part)
            unfinished.clear()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _verified(part: Part) -> Part:
    verify_part(part)
    return part


def _finished(running: set[Future[Part]], unfinished: dict[str, Part]) -> Iterator[int]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        part = future.result()
        running.remove(future)
        del unfinished[part.result]
        yield len(part.images)


def _verify_one_by_one(part: Part) -> int:
    if is_verified(part):
        return len(part.images)
    facts: list[Facts] = []
    executor = _executor(1)
    for image, member in zip(part.images, part.members, strict=True):
        try:
            facts.append(executor.submit(look_at, part.root, image, member, part.unpack_dir).result())
        except BrokenProcessPool:
            facts.append({"fault": "decoding the picture ended the process"})
            executor = _executor(1)
    executor.shutdown()
    write_result(part, facts)
    return len(part.images)


def _executor(num_workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
    return ProcessPoolExecutor(num_workers, context, initializer=_start_worker)


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends with it: a worker of a killed parent would wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)
