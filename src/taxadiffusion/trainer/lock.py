"""The lock of a run directory: one run at a time, freed by the system the moment its owner dies."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from taxadiffusion.errors import CheckpointError
from taxadiffusion.files import locked

LOCK_FILE = "lock"


def require_free(run_dir: Path) -> None:
    """Raise what `RunLock` would raise, and leave nothing behind: neither lock nor directory."""
    try:
        require_writable(run_dir)
        descriptor = os.open(run_dir / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(run_dir, error) from error
    try:
        _lock(descriptor, run_dir, shared=True)
    finally:
        os.close(descriptor)


def require_writable(folder: Path) -> None:
    """Raise `OSError` where no file can be made in the folder, or the folder cannot be made. Nothing stays."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    with tempfile.TemporaryFile(dir=existing):
        pass


class RunLock:
    """An `flock` on `run_dir/lock`, held from creation to `release`. Local and NFSv4 file systems keep it.

    Raises `CheckpointError` at once when another run holds it (its process id is named) or when the directory cannot be
    written. The loser changes nothing.
    """

    def __init__(self, run_dir: Path) -> None:
        try:
            require_writable(run_dir)
            run_dir.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(run_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _unwritable(run_dir, error) from error
        try:
            _lock(self._descriptor, run_dir)
        except CheckpointError:
            self.release()
            raise
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Free the lock. In a forked child: forget the inherited descriptor, so that it cannot outlive the owner."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _lock(descriptor: int, run_dir: Path, *, shared: bool = False) -> None:
    if not locked(descriptor, shared=shared):
        owner = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
        raise CheckpointError(
            f"{run_dir}: another run holds it (process {owner}); wait for it, stop it or set another output"
        )


def _unwritable(run_dir: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{run_dir}: the output directory cannot be written ({error.strerror})")
