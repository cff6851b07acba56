"""The processes of a run: who this one is, and the few decisions they take together. Set up by `accelerate launch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor

from taxadiffusion.errors import PreemptedError, SettingsError, TaxaDiffusionError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """One process of `num_processes`. Alone, every method is free."""

    process_index: int = 0
    num_processes: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def join(cls, timeout_s: int, device: torch.device) -> World:
        """This process's place, read from what the launcher set; one process when started without a launcher.

        device: where this process computes (`base.device.chosen_device`). Raises `SettingsError` where processes cannot
        share it.
        """
        from accelerate import PartialState

        state = PartialState(cpu=device.type != "cuda", timeout=timedelta(seconds=timeout_s))
        if state.num_processes > 1 and device.type not in ("cpu", "cuda"):
            raise SettingsError(f"{state.num_processes} processes cannot share {device}: start one, or --device cpu")
        return cls(state.process_index, state.num_processes, device)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.process_index == 0

    @property
    def reads_late(self) -> bool:
        """Whether what a step came to is read while the next one is computed. Several processes wait for each other in
        every step anyway."""
        return self.device.type == "cuda" and self.num_processes == 1

    def sum_(self, tensor: Tensor) -> None:
        """Replace `tensor` by its sum over the processes: the same bits on each."""
        if self.num_processes > 1:
            with _together():
                torch.distributed.all_reduce(tensor)

    def gathered(self, values: Sequence[T]) -> list[T]:
        """The values of all processes, in order of process."""
        if self.num_processes == 1:
            return list(values)
        parts: list[list[T]] = [[] for _ in range(self.num_processes)]
        with _together():
            torch.distributed.all_gather_object(parts, list(values))
        return [value for part in parts for value in part]

    def first_does(self, work: Callable[[], T]) -> T:
        """The first process works, all get its result (picklable), or all raise its error, with its exit code."""
        if self.num_processes == 1:
            return work()
        outcome: list[T | TaxaDiffusionError | None] = [None]
        if self.is_first:
            try:
                outcome[0] = work()
            except TaxaDiffusionError as error:
                outcome[0] = error
        with _together():
            torch.distributed.broadcast_object_list(outcome, src=0)
        result = outcome[0]
        if isinstance(result, TaxaDiffusionError):
            raise result
        return result  # type: ignore[return-value]


@contextmanager
def _together() -> Iterator[None]:
    """A process that dies or hangs ends the others: with the code that says "run the same command again"."""
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises for a lost or late peer, whatever the backend
        raise PreemptedError(
            f"another process of this run is gone or did not answer in time ({str(error).splitlines()[0]}); every "
            "process stops, run the same command again"
        ) from error
