"""The folder a run of `prepare` works in, beside its output, and how the output appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taxadiffusion import files
from taxadiffusion.dataset.columns import IMAGES
from taxadiffusion.errors import DataError


def check_out(out: Path) -> None:
    """Raises `DataError` for an output that holds something other than a prepared data set."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give a folder for the prepared data set")
    if out.is_dir() and any(out.iterdir()) and not (out / IMAGES).is_file():
        raise DataError(f"{out}: the folder is not empty and holds no prepared data set; give another one")


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """Holds the work folder; raises `DataError` when another process does."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        if not files.locked(lock.fileno()):
            raise DataError(f"{work}: another process prepares this data set; wait for it or stop it")
        yield


def is_locked(work: Path) -> bool:
    """Whether a process holds the work folder."""
    try:
        with (work / "lock").open("a") as lock:
            return not files.locked(lock.fileno())
    except FileNotFoundError:
        return False


def publish(done: Path, out: Path) -> None:
    """Moves a finished folder to `out`, safe against a power cut: files first, then the name."""
    for file in sorted(done.iterdir()):
        if file.is_file():
            files.sync(file)
    files.sync(done)
    if out.is_dir():
        out.rmdir()
    done.replace(out)
    files.sync(out.parent)
