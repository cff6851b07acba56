"""Folders for what tests make outside of a fixture: gone when the process that made them ends."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def scratch(prefix: str) -> Path:
    """A new folder, which this process removes at its end; one that it forks leaves it alone."""
    path, maker = Path(tempfile.mkdtemp(prefix=prefix)), os.getpid()

    def remove() -> None:
        if os.getpid() == maker:
            shutil.rmtree(path, ignore_errors=True)

    atexit.register(remove)
    return path


def shared_scratch(variable: str, prefix: str) -> tuple[Path, bool]:
    """The same folder for this process and those it starts, which learn of it by an environment variable.

    Also whether it was made just now, and is still empty. A child that is killed leaves nothing behind.
    """
    if (known := os.environ.get(variable)) and Path(known).is_dir():
        return Path(known), False
    path = scratch(prefix)
    os.environ[variable] = str(path)
    return path, True
