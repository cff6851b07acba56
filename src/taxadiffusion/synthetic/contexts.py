"""Captions that pictures of every species draw from, so that surroundings say nothing of the species."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taxadiffusion.errors import DataError
from taxadiffusion.guidance import CONTEXT_SCALE, Context


def read_contexts(path: Path, scale: float = CONTEXT_SCALE) -> tuple[Context, ...]:
    """A caption a line, blank lines aside; one that stands twice is drawn twice as often. Raises `DataError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the captions cannot be read: {error}") from error
    contexts = tuple(Context(line.strip(), scale) for line in lines if line.strip())
    if not contexts:
        raise DataError(f"{path}: holds no caption; write one a line, such as “over green”")
    return contexts


def drawn_context(contexts: Sequence[Context], seed: int) -> Context | None:
    """That of the picture with this seed, whatever it shows; None: there are none."""
    return contexts[seed % len(contexts)] if contexts else None
