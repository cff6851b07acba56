"""Paths as people write them; files that are whole or absent, flushed, locked, hashed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_LONGEST_NAME = 255  # bytes, of most file systems
_LONGEST_PATH = 4095
_PIECE_BYTES = 1 << 22


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


@contextmanager
def whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A new path beside `path` to write to: it becomes `path` where the block ends, and is gone where the block raises.

    Whoever looks finds the file of before or the new one, never a piece. durable: its bytes are on the disk before it
    has its name.
    """
    aside = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        yield aside
        if durable:
            sync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """A folder of these files in the place of an older one or none: aside, flushed, renamed. Raises `OSError`.

    Where it raises, a whole folder stands there, the older one or the new one.
    """
    aside, old = (path.with_name(f".tmp-{uuid.uuid4().hex}") for _ in range(2))
    try:
        aside.mkdir(parents=True)
        for name, data in files.items():
            (aside / name).write_bytes(data)
            sync(aside / name)
        if path.exists():
            path.rename(old)
        aside.rename(path)
    except BaseException:
        if old.exists():
            old.rename(path)
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the system write a file, or a folder's names, to the disk before anything else is done."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def locked(descriptor: int, *, wait: bool = False, shared: bool = False) -> bool:
    """Take the system's lock on an open file, and say whether it was free; `wait` until it is.

    It is freed where the file is closed, and the moment its owner dies. Local and NFSv4 file systems keep it. shared:
    who only looks whether it is free refuses nobody else who looks, and writes nothing. The `filelock` library shares
    by a database alone, which each reader writes to.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def sha256_of(path: Path) -> bytes:
    """Of a file's bytes, read in pieces. Raises `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.digest()


def joined_hash(parts: Iterable[str]) -> str:
    """One sha256 of several."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
