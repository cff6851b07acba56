"""What both caches do with files: one writer at a time, and documents that are whole or absent."""

from __future__ import annotations

import json
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import CheckpointError
from taxadiffusion.files import locked, whole

FILE, FINISHED = "latents.f16", "cache.json"
"""Of a cache of latents: its numbers, and the document that says that they are whole."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, waiting for another process that builds the same cache; a killed one's lock is free."""
    with disk_faults(folder.parent, 0):
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / "lock").open("w")
    with stream:
        locked(stream.fileno(), wait=True)
        yield


def mapped(path: Path, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """A float16 file of at least one entry as a read-only array, read in random order.

    Training reads single images of a file that may be larger than memory. Without the advice the system reads 128 KiB
    around each of them, tens of times what is wanted.
    """
    with path.open("rb") as stream:
        memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    memory.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(memory, np.float16).reshape(shape)


def write_document(path: Path, value: dict[str, Any]) -> None:
    """JSON, written aside, flushed to disk and renamed."""
    text = json.dumps(value, indent=1, sort_keys=True)
    with disk_faults(path.parent, len(text)), whole(path, durable=True) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def disk_faults(path: Path, num_bytes: int) -> Iterator[None]:
    """Turn a failed write into a `CheckpointError` that names path, need and free space."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(_existing(path)).free
        raise CheckpointError(
            f"{path}: the cache cannot be written ({error.strerror or error}); it needs {num_bytes / 1e6:.1f} MB, "
            f"{free / 1e6:.1f} MB are free: make room or set another cache_dir"
        ) from error


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def reserve(path: Path, num_bytes: int) -> None:
    """Make the file `num_bytes` long with its blocks allocated: a full disk fails here, not in a mapped write.

    What the file holds already is kept.
    """
    with disk_faults(path.parent, num_bytes), path.open("r+b" if path.exists() else "w+b") as stream:
        stream.truncate(num_bytes)
        if num_bytes:
            os.posix_fallocate(stream.fileno(), 0, num_bytes)
