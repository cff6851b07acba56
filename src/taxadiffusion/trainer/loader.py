"""Micro-batches by number: what a sample is follows from (seed, step, position) alone, in any process or worker."""

# Letters: b samples of a micro-batch, B of the global batch; C, H, W of a latent.
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from taxadiffusion.errors import SettingsError
from taxadiffusion.trainer.order import Order
from taxadiffusion.trainer.randomness import Draws, Purpose, draw, stratified
from taxadiffusion.trainer.signals import ignore_in_worker


class LatentSource(Protocol):
    """Latents of images by row."""

    @property
    def num_variants(self) -> int:
        """2 where the mirror image is cached as well."""
        ...

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...

    def read(
        self, rows: NDArray[np.int64], variants: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(b, C, H, W) latents, and which of them could be read: (b,). An unreadable one is zero."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """How a global batch is cut: `num_blocks` blocks of `size` samples; block k·processes + process is its k-th."""

    batch_size: int
    size: int
    process_index: int
    num_processes: int

    @classmethod
    def of(cls, batch_size: int, micro_batch_size: int | None, process_index: int, num_processes: int) -> Share:
        """Raises `SettingsError` where the batch does not divide evenly."""
        size = micro_batch_size or max(1, batch_size // num_processes)
        if batch_size % (size * num_processes):
            raise SettingsError(
                f"training.batch_size = {batch_size} is not a multiple of micro_batch_size ({size}) × processes "
                f"({num_processes}); change one of them"
            )
        return cls(batch_size, size, process_index, num_processes)

    @property
    def accumulation(self) -> int:
        """Forward passes of one process in one step."""
        return self.batch_size // (self.size * self.num_processes)

    def positions(self, index: int) -> NDArray[np.int64]:
        """Positions in the global batch of this process's micro-batch `index` (≥ 0) of a step (F4)."""
        block = index * self.num_processes + self.process_index
        return np.arange(block * self.size, (block + 1) * self.size, dtype=np.int64)

    def every_position(self) -> NDArray[np.int64]:
        """All positions of the global batch."""
        return np.arange(self.batch_size, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The samples of one forward pass, before the stage says how they are conditioned."""

    step: int
    positions: NDArray[np.int64]  # (b,)
    rows: NDArray[np.int64]  # (b,)
    readable: NDArray[np.bool_]  # (b,)
    latents: Tensor  # (b, C, H, W) float32
    noise: Tensor  # (b, C, H, W) float32
    draws: Draws  # its noise is the tensor above


class MicroBatches(Dataset[MicroBatch]):
    """Micro-batch number n = step · accumulation + index, of one process."""

    def __init__(
        self,
        source: LatentSource,
        order: Order,
        share: Share,
        *,
        timesteps: Literal["uniform", "stratified"] = "uniform",
        purpose: Purpose = "sample",
    ) -> None:
        self.source = source
        self.order = order
        self.share = share
        self.timesteps = timesteps
        self.purpose: Purpose = purpose

    def __getitem__(self, number: int) -> MicroBatch:
        step, index = divmod(number, self.share.accumulation)
        positions = self.share.positions(index)
        rows = self.order.rows_at(step * self.share.batch_size + positions)
        draws = draw(self.order.seed, step, positions, self.source.latent_shape, self.purpose)
        if self.timesteps == "stratified":
            draws.timestep[:] = stratified(self.order.seed, step, positions, self.share.batch_size)
        variants = (draws.variant * self.source.num_variants).astype(np.int64)
        latents, readable = self.source.read(rows, variants)
        return MicroBatch(
            step, positions, rows, readable, torch.from_numpy(latents), torch.from_numpy(draws.noise), draws
        )


def micro_batches(
    dataset: MicroBatches, start: int, stop: int, num_workers: int = 0, in_worker: Callable[[], None] | None = None
) -> Iterator[MicroBatch]:
    """Micro-batches `start` … `stop` − 1 in order, made here or ahead of time by worker processes: the same bits.

    The processes are forked: they share the mapped latents and never run the caller's own script. Raises
    `SettingsError` when they cannot be started.
    """
    if num_workers == 0:
        return (dataset[number] for number in range(start, stop))
    loader: DataLoader[MicroBatch] = DataLoader(
        dataset,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=num_workers,
        worker_init_fn=partial(_begin_worker, in_worker),
        prefetch_factor=4,
        multiprocessing_context="fork",
    )
    try:
        return iter(loader)
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(
            f"{num_workers} loader processes cannot be started ({reason}): lower training.num_workers (0: none)"
        ) from error


@contextmanager
def loader_faults() -> Iterator[None]:
    """Turn the end of a loader process, which torch reports wherever the run is, into one `SettingsError`."""
    try:
        yield
    except RuntimeError as error:
        reason = re.match(r"DataLoader worker \(pid.*? (is|exited) [^.]*", str(error))
        if reason is None:
            raise
        raise SettingsError(
            f"{reason[0]}: is the machine short of memory? Lower training.num_workers (0: none) and run the same "
            "command again; it goes on from the last commit"
        ) from error


def _begin_worker(in_worker: Callable[[], None] | None, _index: int) -> None:
    ignore_in_worker()
    if in_worker:
        in_worker()
