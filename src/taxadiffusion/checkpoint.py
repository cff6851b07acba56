"""Commits of a run: written aside, verified, renamed; read back strictly, the newest good one first.

The commit rule: `.tmp-<uuid>/` → fsync of each file → `manifest.json` → fsync → rename to `step-N/` → fsync of the run
directory → only then prune. A kill at any instant leaves earlier commits whole. Tensors are safetensors, else JSON.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from taxadiffusion.errors import CheckpointError, NonFiniteError
from taxadiffusion.files import sha256_of

Json = Any
"""A value that `json` writes and reads back unchanged."""

SCHEMA = 1
MANIFEST = "manifest.json"
_STEP_DIR = re.compile(r"step-(0|[1-9][0-9]*)")
_FILE_NAME = re.compile(r"[a-z0-9_]+\.(safetensors|json)")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a commit's file must be, byte for byte."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a commit is: where the run stands, what it depends on and the exact content of each file."""

    step: int  # optimizer steps done, over all stages
    stage: int  # index of the stage to go on with; the number of stages when the run has ended
    stage_name: str
    seed: int
    num_threads: int
    hashes: Mapping[str, str]  # "data", "taxonomy", "base", "config"
    versions: Mapping[str, str]
    files: Mapping[str, FileEntry] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The canonical text: sorted keys, and a digest over everything else, so that a flip of any bit shows."""
        payload: dict[str, Json] = {
            "schema": SCHEMA, "step": self.step, "stage": self.stage, "stage_name": self.stage_name, "seed": self.seed,
            "num_threads": self.num_threads, "hashes": dict(self.hashes), "versions": dict(self.versions),
            "files": {name: {"sha256": e.sha256, "size_bytes": e.size_bytes} for name, e in self.files.items()},
        }  # fmt: skip
        body = json.dumps(payload, sort_keys=True).encode()
        payload["digest"] = hashlib.sha256(body).hexdigest()
        return (json.dumps(payload, sort_keys=True, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> Manifest:
        """Parse and check against the schema; `CheckpointError` names `path`."""
        try:
            payload = json.loads(data)
            manifest = cls(
                step=int(payload["step"]), stage=int(payload["stage"]), stage_name=str(payload["stage_name"]),
                seed=int(payload["seed"]), num_threads=int(payload["num_threads"]),
                hashes={str(k): str(v) for k, v in payload["hashes"].items()},
                versions={str(k): str(v) for k, v in payload["versions"].items()},
                files={
                    str(name): FileEntry(str(e["sha256"]), int(e["size_bytes"])) for name, e in payload["files"].items()
                },
            )  # fmt: skip
            schema = payload["schema"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path}: not a manifest of ours ({type(error).__name__}: {error})") from error
        if schema != SCHEMA:
            raise CheckpointError(
                f"{path}: schema {schema!r}, this version reads {SCHEMA}; use the version that wrote it"
            )
        for name in manifest.files:
            if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
                raise CheckpointError(f"{path}: lists {name!r}, which is no plain file name of a commit")
        if manifest.to_bytes() != data:
            raise CheckpointError(f"{path}: does not match its own digest; the file was altered after it was written")
        return manifest


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit whose every byte was verified; `passed_over` says which newer ones were not good, and why."""

    path: Path
    manifest: Manifest
    passed_over: tuple[str, ...] = ()

    def tensors(self, name: str) -> dict[str, Tensor]:
        """All tensors of `name.safetensors` on the CPU. Raises `CheckpointError` when the commit has no such file."""
        tensors: dict[str, Tensor] = load_file(self._listed(f"{name}.safetensors"))
        return tensors

    def document(self, name: str) -> Json:
        """The JSON value of `name.json`. Raises `CheckpointError` when the commit has no such file."""
        return json.loads(self._listed(f"{name}.json").read_bytes())

    def _listed(self, file_name: str) -> Path:
        if file_name not in self.manifest.files:
            raise CheckpointError(f"{self.path}: holds no {file_name}, which is needed to go on exactly from here")
        return self.path / file_name


def commit(
    run_dir: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    documents: Mapping[str, Json],
    manifest: Manifest,
) -> Path:
    """Write `run_dir/step-N` by the commit rule and return its path.

    `tensors` maps a file stem to named tensors, `documents` a stem to a JSON value; `manifest.files` is filled in here.
    Raises `NonFiniteError` when a tensor holds NaN or infinity, `CheckpointError` when the disk is full or refuses;
    both leave every earlier commit as it was and no partial `step-N`.
    """
    _require_finite(tensors)
    final = path_of(run_dir, manifest.step)
    num_bytes = sum(t.numel() * t.element_size() for group in tensors.values() for t in group.values())
    _require_space(run_dir, final, num_bytes)
    aside = run_dir / f".tmp-{uuid.uuid4().hex}"
    try:
        _make_dir(aside)
        for stem, group in tensors.items():
            _write_tensors(aside / f"{stem}.safetensors", group)
        for stem, value in documents.items():
            _write_bytes(aside / f"{stem}.json", (json.dumps(value, sort_keys=True, indent=1) + "\n").encode())
        files = {path.name: _entry(path) for path in sorted(aside.iterdir())}
        _write_bytes(aside / MANIFEST, replace(manifest, files=files).to_bytes())
        _sync_dir(aside)
        replaced = run_dir / f".tmp-{uuid.uuid4().hex}"
        if final.exists():  # it did not verify, or the run would not have come here again
            _rename(final, replaced)
        _rename(aside, final)
        _sync_dir(run_dir)
        if replaced.exists():
            shutil.rmtree(replaced)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise write_error(error, final, num_bytes) from error
    return final


def verify(path: Path) -> Manifest:
    """Read the manifest of the commit at `path` and compare size and sha256 of each file it lists."""
    manifest_path = path / MANIFEST
    try:
        manifest = Manifest.from_bytes(manifest_path.read_bytes(), manifest_path)
        for name, entry in manifest.files.items():
            file = path / name
            if file.stat().st_size != entry.size_bytes:
                raise CheckpointError(f"{file}: {file.stat().st_size} bytes, the manifest says {entry.size_bytes}")
            if _entry(file) != entry:
                raise CheckpointError(f"{file}: its sha256 is not the manifest's; the file was damaged or altered")
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: {error.strerror}") from error
    if path.name != f"step-{manifest.step}":
        raise CheckpointError(f"{path}: its manifest is of step {manifest.step}; the directory was renamed or copied")
    return manifest


def candidates(run_dir: Path) -> tuple[Path, ...]:
    """Directories named `step-N`, newest first by number (100 before 10 before 9), verified or not."""
    found = (
        [(int(m[1]), p) for p in run_dir.iterdir() if (m := _STEP_DIR.fullmatch(p.name))] if run_dir.is_dir() else []
    )
    return tuple(path for _, path in sorted(found, reverse=True))


def latest(run_dir: Path) -> Committed | None:
    """The newest commit that verifies (F5); None when there is no candidate at all.

    Raises `CheckpointError` when candidates exist and none verifies: a run never starts anew over the ruins of another.
    """
    passed_over: list[str] = []
    for path in candidates(run_dir):
        try:
            return Committed(path, verify(path), tuple(passed_over))
        except CheckpointError as error:
            passed_over.append(str(error))
    if passed_over:
        raise CheckpointError(
            f"{run_dir}: {len(passed_over)} commits, none verifies: {'; '.join(passed_over)}. "
            "Restore one from a backup, or move the directory away to begin anew"
        )
    return None


def path_of(run_dir: Path, step: int) -> Path:
    """Where the commit of a step lies, if there is one."""
    return run_dir / f"step-{step}"


def prune(run_dir: Path, newest: Path, keep_last: int, keep_step: int | None = None) -> None:
    """Keep `newest`, just committed, the `keep_last` − 1 before it and that of `keep_step`; delete the others.

    Commits of a higher step are deleted too: they did not verify, or the run would have gone on from there. A kill in
    the middle leaves no half-deleted candidate.
    """
    found = candidates(run_dir)
    first = found.index(newest)
    kept = None if keep_step is None else path_of(run_dir, keep_step)
    older = (path for path in found[first + max(keep_last, 1) :] if path != kept)
    for path in (*found[:first], *older):
        doomed = run_dir / f".tmp-{uuid.uuid4().hex}"
        _rename(path, doomed)
        _sync_dir(run_dir)
        shutil.rmtree(doomed)


def remove_leftovers(run_dir: Path) -> None:
    """Delete what killed commits left aside. Only the owner of the run's lock may call it."""
    for path in run_dir.glob(".tmp-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _require_finite(tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    for stem, group in tensors.items():
        for name, tensor in group.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise NonFiniteError(f"{stem}: {name} holds values that are not finite; nothing was committed")


def _require_space(run_dir: Path, final: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(run_dir).free
    if free < num_bytes:
        raise CheckpointError(
            f"{final}: disk full: needs {num_bytes:,} bytes, {free:,} are free; make room and run the command again"
        )


def write_error(error: OSError | SafetensorError, final: Path, num_bytes: int) -> CheckpointError:
    """What to tell of a file that cannot be written: its path, the space it needs and the space there is."""
    # safetensors reports the system's error only as text: "… (os error 28)"
    text = re.search(r"os error (\d+)", str(error))
    number = error.errno if isinstance(error, OSError) else int(text[1]) if text else None
    free = shutil.disk_usage(final.parent).free
    if number in _DISK_FULL:
        cause = f"disk full or size limit reached: needs {num_bytes:,} bytes, {free:,} are free; make room"
    else:
        cause = f"cannot be written ({error}); it needs {num_bytes:,} bytes, {free:,} are free; make it writable"
    return CheckpointError(f"{final}: {cause} and run the same command again; earlier commits are untouched")


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256_of(path).hex(), path.stat().st_size)


# Every touch of the disk goes through these, so that tests can fail or kill the process at each of them.
def _make_dir(path: Path) -> None:
    path.mkdir()


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    with path.open("rb") as file:
        _fsync(file.fileno())


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        _fsync(file.fileno())


def _rename(source: Path, target: Path) -> None:
    source.rename(target)


def _sync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync(descriptor: int) -> None:
    os.fsync(descriptor)
