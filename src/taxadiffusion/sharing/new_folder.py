"""A folder that is there whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taxadiffusion.errors import DataError, SettingsError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write to that becomes `out` where the block ends, and is gone where it raises.

    Raises `SettingsError` where `out` exists, `DataError` where it cannot be written.
    """
    if out.exists():
        raise SettingsError(f"{out}: exists already; name a new folder, nothing is overwritten")
    aside = out.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        aside.mkdir(parents=True)
        yield aside
        aside.rename(out)
    except OSError as error:
        raise DataError(f"{out}: the model cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
