"""Laws of commits: whole or absent, verified to the bit, the newest good one first."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from taxadiffusion import checkpoint
from taxadiffusion.checkpoint import Manifest
from taxadiffusion.errors import CheckpointError, NonFiniteError


def manifest(step: int) -> Manifest:
    return Manifest(
        step=step,
        stage=0,
        stage_name="order",
        seed=1,
        num_threads=1,
        hashes={"data": "d", "taxonomy": "t", "base": "b", "config": "c"},
        versions={"torch": "2"},
    )


def commit(run_dir: Path, step: int, value: float = 1.0) -> Path:
    tensors = {"model": {"a": torch.full((4, 3), value)}, "optimizer": {"a/step": torch.tensor(step)}}
    return checkpoint.commit(run_dir, tensors, {"state": {"step": step}}, manifest(step))


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_a_commit_reads_back_to_the_bit(tmp_path: Path) -> None:
    commit(tmp_path, 7, 0.1)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.manifest.step == 7
    assert torch.equal(found.tensors("model")["a"], torch.full((4, 3), 0.1))
    assert found.document("state") == {"step": 7}
    with pytest.raises(CheckpointError, match="ema"):
        found.tensors("ema")


def test_newest_is_by_number_and_pruning_keeps_the_newest(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        commit(tmp_path, step)
    assert [path.name for path in checkpoint.candidates(tmp_path)] == ["step-100", "step-10", "step-9"]
    checkpoint.prune(tmp_path, tmp_path / "step-100", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-100"]


def test_pruning_keeps_one_older_step_that_is_asked_for_and_no_newer_one(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        commit(tmp_path, step)
    checkpoint.prune(tmp_path, tmp_path / "step-8", 1, 4)
    assert [path.name for path in checkpoint.candidates(tmp_path)] == ["step-8", "step-4"]
    checkpoint.prune(tmp_path, commit(tmp_path, 3), 1, 4)  # the run fell back behind it: it did not verify
    assert [path.name for path in checkpoint.candidates(tmp_path)] == ["step-3"]


def test_pruning_after_a_fall_back_keeps_what_was_just_committed(tmp_path: Path) -> None:
    """A damaged newer commit must not push out the good one."""
    (commit(tmp_path, 30) / "model.safetensors").write_bytes(b"")
    commit(tmp_path, 25)
    checkpoint.prune(tmp_path, commit(tmp_path, 26), 1)
    assert [path.name for path in checkpoint.candidates(tmp_path)] == ["step-26"]
    assert checkpoint.latest(tmp_path) is not None


def test_every_single_bit_of_a_commit_is_watched(tmp_path: Path) -> None:
    path = commit(tmp_path, 1)
    for file in path.iterdir():
        data = file.read_bytes()
        for bit in range(0, len(data) * 8, 37):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            with pytest.raises(CheckpointError):
                checkpoint.verify(path)
        file.write_bytes(data)
    checkpoint.verify(path)


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove", "rename"])
def test_a_damaged_newest_is_passed_over_and_none_good_is_an_error(tmp_path: Path, damage: str) -> None:
    commit(tmp_path, 1)
    newest = commit(tmp_path, 2) / "model.safetensors"
    if damage == "truncate":
        newest.write_bytes(newest.read_bytes()[:-1])
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "remove":
        newest.unlink()
    else:
        newest.parent.rename(tmp_path / "step-3")
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.manifest.step == 1
    assert len(found.passed_over) == 1
    (tmp_path / "step-1" / "manifest.json").write_text("[]")
    with pytest.raises(CheckpointError, match="none verifies"):
        checkpoint.latest(tmp_path)


def test_no_candidate_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "step-x").mkdir()
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "missing") is None


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.json", "manifest.json", "x.bin"])
def test_a_manifest_may_list_only_plain_names(tmp_path: Path, name: str) -> None:
    path = commit(tmp_path, 1)
    good = checkpoint.verify(path)
    bad = Manifest(1, 0, "order", 1, 1, good.hashes, good.versions, {name: checkpoint.FileEntry("0" * 64, 1)})
    (path / "manifest.json").write_bytes(bad.to_bytes())
    with pytest.raises(CheckpointError, match="plain file name"):
        checkpoint.verify(path)


def test_not_finite_is_never_committed(tmp_path: Path) -> None:
    commit(tmp_path, 1)
    before = tree(tmp_path)
    for value in (float("nan"), float("inf")):
        with pytest.raises(NonFiniteError, match="model: a"):
            commit(tmp_path, 2, value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("call", ["_make_dir", "_write_tensors", "_write_bytes", "_rename", "_sync_dir", "_fsync"])
def test_a_disk_that_refuses_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    commit(tmp_path, 1)
    before = tree(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, call, refuse)
    with pytest.raises(CheckpointError, match=r"step-2.*needs [\d,]+ bytes, [\d,]+ are free"):
        commit(tmp_path, 2)
    assert tree(tmp_path) == before


def test_order_of_touching_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are durable before the manifest, the manifest before the rename, the rename before any pruning."""
    calls: list[str] = []
    for name in ("_write_tensors", "_write_bytes", "_rename", "_sync_dir"):
        original = getattr(checkpoint, name)

        def record(path: Path, *rest: object, name: str = name, original: object = original) -> None:
            calls.append(f"{name} {path.name if 'tmp' not in path.name else 'aside'}")
            original(path, *rest)  # type: ignore[operator]

        monkeypatch.setattr(checkpoint, name, record)
    commit(tmp_path, 1)
    assert calls == [
        "_write_tensors model.safetensors",
        "_write_tensors optimizer.safetensors",
        "_write_bytes state.json",
        "_write_bytes manifest.json",
        "_sync_dir aside",
        "_rename aside",
        f"_sync_dir {tmp_path.name}",
    ]


def test_committing_a_step_again_replaces_it(tmp_path: Path) -> None:
    damaged = commit(tmp_path, 1) / "model.safetensors"
    damaged.write_bytes(b"")
    commit(tmp_path, 1, 2.0)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert float(found.tensors("model")["a"][0, 0]) == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
