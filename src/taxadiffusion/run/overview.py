"""The runs below a folder, as their files tell of them: how far each has come, and in what two of them differ."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from taxadiffusion import checkpoint
from taxadiffusion.checkpoint import MANIFEST, Manifest
from taxadiffusion.errors import CheckpointError, DataError
from taxadiffusion.files import locked, sha256_of
from taxadiffusion.trainer.history import ADAPTER_DIR
from taxadiffusion.trainer.lock import LOCK_FILE
from taxadiffusion.trainer.watchers import METRICS_FILE

MAX_DEPTH = 4
"""Folders below the given one that are looked into; photographs and caches lie deeper, or in the runs themselves."""

_SETTINGS_FILE = "settings.json"
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run's folder says. Entries are None where it does not say; `faults` are those that are not readable."""

    path: Path
    stage: str | None  # to go on with; "finished" at the end
    step: int | None  # of the newest commit
    loss: float | None  # of the last step in the log
    committed_at: datetime | None
    size_bytes: int
    running: bool  # whether a process holds its lock
    has_adapter: bool
    faults: tuple[str, ...] = ()


def find_runs(folder: Path) -> list[RunSummary]:
    """The runs in the folder and up to four below it, by path; links are not followed. Nothing is written.

    A commit is read by its manifest and the sizes of its files; `train` also hashes them. Raises `DataError` where
    there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return [summary(path) for path in _runs(folder, MAX_DEPTH)]


def summary(run_dir: Path) -> RunSummary:
    """What one run's folder says."""
    faults: list[str] = []
    newest: tuple[Path, Manifest] | None = None
    for path in checkpoint.candidates(run_dir):
        try:
            newest = path, _read_manifest(path)
            break
        except CheckpointError as error:
            faults.append(str(error))
    loss, size_bytes = None, 0
    try:
        loss = _last_loss(run_dir / METRICS_FILE)
    except (OSError, ValueError) as error:
        faults.append(f"{run_dir / METRICS_FILE}: not readable ({error})")
    try:
        size_bytes = _size_of(run_dir)
    except OSError as error:
        faults.append(f"{error.filename}: {error.strerror}")
    return RunSummary(
        path=run_dir,
        stage=newest[1].stage_name if newest else None,
        step=newest[1].step if newest else None,
        loss=loss,
        committed_at=_time_of(newest[0] / MANIFEST) if newest else None,
        size_bytes=size_bytes,
        running=_is_held(run_dir / LOCK_FILE),
        has_adapter=(run_dir / ADAPTER_DIR / "adapter.json").is_file(),
        faults=tuple(faults),
    )


def differences(one: Path, other: Path) -> dict[str, tuple[Any, Any]]:
    """Key → the values of both runs, where they differ; a key that one lacks has None there.

    Compared is what their newest commits keep: the settings that decide the weights, and the hashes of data, taxonomy
    and base. Raises `CheckpointError` for a folder without a good commit.
    """
    mine, theirs = _settings_of(one), _settings_of(other)
    keys = sorted(mine.keys() | theirs.keys())
    return {key: (mine.get(key), theirs.get(key)) for key in keys if mine.get(key) != theirs.get(key)}


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    """Runs do not lie in runs."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return  # a folder that may not be read holds no run of ours
    folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    files = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    if checkpoint.candidates(folder) or {LOCK_FILE, METRICS_FILE} & files:
        yield folder
    elif depth:
        for below in folders:
            yield from _runs(below, depth - 1)


def _read_manifest(path: Path) -> Manifest:
    """Raises `CheckpointError`."""
    try:
        manifest = Manifest.from_bytes((path / MANIFEST).read_bytes(), path / MANIFEST)
        for name, entry in manifest.files.items():
            size = (path / name).stat().st_size
            if size != entry.size_bytes:
                raise CheckpointError(f"{path / name}: {size} bytes, the manifest says {entry.size_bytes}")
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: {error.strerror}") from error
    if path.name != f"step-{manifest.step}":
        raise CheckpointError(f"{path}: its manifest is of step {manifest.step}; the directory was renamed or copied")
    return manifest


def _settings_of(run_dir: Path) -> Mapping[str, Any]:
    faults = []
    for path in checkpoint.candidates(run_dir):
        try:
            manifest = _read_manifest(path)
            file = path / _SETTINGS_FILE
            if _SETTINGS_FILE not in manifest.files or sha256_of(file).hex() != manifest.files[_SETTINGS_FILE].sha256:
                raise CheckpointError(f"{file}: is not the one that was committed")
            settings: dict[str, Any] = json.loads(file.read_bytes())
            hashes = {f"hash of {name}": value for name, value in manifest.hashes.items() if name != "config"}
            return {**settings, **hashes}
        except CheckpointError as error:
            faults.append(str(error))
    why = "; ".join(faults) or "it has no commit"
    raise CheckpointError(f"{run_dir}: its settings cannot be read: {why}")


def _last_loss(path: Path) -> float | None:
    """Of the last whole line that tells of a step. Raises `OSError`, `ValueError`."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = max(0, path.stat().st_size - _TAIL_BYTES)
        file.seek(start)
        lines = file.read().split(b"\n")[1 if start else 0 : -1]  # the first may be cut by us, the last by a crash
    for line in reversed(lines):
        entry = json.loads(line)
        if not isinstance(entry, dict):
            raise ValueError("a line is no table")
        if entry.get("event") == "StepDone":
            return float(entry["loss"]) if isinstance(entry.get("loss"), int | float) else None
    return None


def _is_held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not locked(descriptor, shared=True)
    finally:
        os.close(descriptor)


def _time_of(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, tz=timezone.utc)


def _size_of(folder: Path) -> int:
    """Of all files in it; a running run may take some away meanwhile."""
    total = 0
    for entry in os.scandir(folder):
        try:
            if entry.is_dir(follow_symlinks=False):
                total += _size_of(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
    return total
