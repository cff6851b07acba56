"""The next micro-batch is made, and copied to the device, while the device computes the current one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch

from taxadiffusion.base.transfer import moved
from taxadiffusion.trainer.loader import MicroBatch

T = TypeVar("T")


def ahead(batches: Iterator[MicroBatch], device: torch.device) -> Iterator[MicroBatch]:
    """The same micro-batches in the same order; on a CUDA device one is always under way (a double buffer).

    Elsewhere they are made when they are asked for: the processor that would make them early computes the step.
    """
    if device.type != "cuda":
        return batches
    return one_ahead(batches, _Copies(device))


def one_ahead(batches: Iterator[T], prepared: Callable[[T], Callable[[], T]]) -> Iterator[T]:
    """Every item of `batches`, made and prepared by a thread while the caller works with the one before it.

    prepared: called in the thread; what it returns is called by the caller's thread when the item is wanted.
    """

    def make() -> Callable[[], T] | None:
        try:
            batch = next(batches)
        except StopIteration:
            return None
        return prepared(batch)

    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(make)
        while (ready := coming.result()) is not None:
            coming = thread.submit(make)
            yield ready()


class _Copies:
    """Copies micro-batches to a CUDA device on a stream of their own, beside what is computed there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, batch: MicroBatch) -> Callable[[], MicroBatch]:
        with torch.cuda.stream(self.stream):
            copied = replace(batch, latents=moved(batch.latents, self.device), noise=moved(batch.noise, self.device))
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self.stream)

        def wanted() -> MicroBatch:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(arrived)
            for tensor in (copied.latents, copied.noise):
                tensor.record_stream(current)  # its memory is not given away before the step has read it
            return copied

        return wanted
