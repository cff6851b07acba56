"""The lock of a run directory: one run at a time, freed by the system the moment its owner dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from taxadiffusion.errors import CheckpointError


class RunLock:
    """An `flock` on `run_dir/lock`, held from creation to `release`. Local and NFSv4 file systems keep it.

    Raises `CheckpointError` at once when another run holds it (its process id is named) or when the directory cannot be
    written. The loser changes nothing.
    """

    def __init__(self, run_dir: Path) -> None:
        path = run_dir / "lock"
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CheckpointError(f"{run_dir}: the output directory cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise CheckpointError(
                f"{run_dir}: another run holds it (process {owner}); wait for it, stop it or set another output"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Free the lock. In a forked child: forget the inherited descriptor, so that it cannot outlive the owner."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
