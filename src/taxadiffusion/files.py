"""Paths as people write them: `~` is a home folder, and what no file system can hold is refused."""

from __future__ import annotations

import os
from pathlib import Path

_LONGEST_NAME = 255  # bytes, of most file systems
_LONGEST_PATH = 4095


def user_path(text: str | Path) -> Path:
    """The path that a person wrote, `~` and `~user` expanded. Raises `ValueError` with the reason and what to do."""
    given = str(text)
    if "\0" in given:
        raise ValueError(f"a path cannot hold a null character: {given!r}")
    path = Path(os.path.expanduser(given))  # noqa: PTH111 - Path.expanduser raises for an unknown user
    if given.startswith("~") and str(path).startswith("~"):
        raise ValueError(f"no home folder is known for {path.parts[0]!r}; for a file of that name write ./{given}")
    for name in path.parts:
        if len(os.fsencode(name)) > _LONGEST_NAME:
            raise ValueError(f"the name {name[:20]}… has {len(os.fsencode(name))} bytes, files have at most 255")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(f"the path {given[:20]}… has {len(os.fsencode(path))} bytes, at most {_LONGEST_PATH} are read")
    return path


def user_text(text: str) -> str:
    """A word that may be a path or something else (a hub id, a shipped name): the same but for a `~` at its start."""
    path = user_path(text)
    return str(path) if text.startswith("~") else text
