"""Laws of the list of runs: it says what the files say, changes none, and falls over nothing that lies there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taxadiffusion.cli import app
from taxadiffusion.errors import CheckpointError, DataError
from taxadiffusion.run.overview import differences, find_runs, summary
from taxadiffusion.trainer.lock import RunLock
from taxadiffusion.trainer.watchers import MetricsLog, watched
from tests.tiny_run import IDENTITY, tiny_trainer


def trained(run_dir: Path, **options: object) -> Path:
    trainer = tiny_trainer(run_dir, **options)  # type: ignore[arg-type]
    list(watched(trainer.run(), [MetricsLog(run_dir)]))
    return run_dir


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended, and another with other settings, deeper; both of one stage."""
    folder = tmp_path_factory.mktemp("runs")
    trained(folder / "a", steps=1, strategy="all")
    other = replace(IDENTITY, settings={"seed": 1, "lora.rank": 4}, hashes={**IDENTITY.hashes, "data": "other"})
    trained(folder / "lab" / "b", steps=2, strategy="all", identity=other)
    return folder


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["runs", *map(str, arguments)], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.exception
    return result.output


def test_runs_are_found_with_what_their_files_say_and_nothing_is_changed(runs: Path) -> None:
    before = content(runs)
    first, second = find_runs(runs)
    assert [first.path, second.path] == [runs / "a", runs / "lab" / "b"]
    assert (first.stage, first.step, first.has_adapter, first.running, first.faults) == ("finished", 3, True, False, ())
    losses = [json.loads(line) for line in (runs / "a" / "metrics.jsonl").read_text().splitlines()]
    assert first.loss == [line["loss"] for line in losses if line["event"] == "StepDone"][-1]
    assert first.size_bytes == sum(path.stat().st_size for path in (runs / "a").rglob("*") if path.is_file())
    assert first.committed_at is not None
    assert content(runs) == before
    (alone,) = find_runs(runs / "lab" / "b")
    assert alone.step == 6


def test_a_run_that_is_held_is_running(runs: Path) -> None:
    lock = RunLock(runs / "a")
    try:
        assert summary(runs / "a").running
    finally:
        lock.release()
    assert not summary(runs / "a").running


def test_only_what_differs_is_compared(runs: Path) -> None:
    assert differences(runs / "a", runs / "lab" / "b") == {
        "hash of data": ("d", "other"),
        "lora.rank": (None, 4),
        "seed": (0, 1),
    }
    assert differences(runs / "a", runs / "a") == {}
    shown = invoke(runs, "--compare", "a", "lab/b")
    assert shown.splitlines() == ['hash of data: "d" | "other"', "lora.rank: – | 4", "seed: 0 | 1"]
    assert "are equal" in invoke(runs, "--compare", "a", runs / "a")


def damaged(runs: Path, tmp_path: Path) -> Path:
    """Foreign and broken folders, each beside a good one."""
    folder = tmp_path / "runs"
    shutil.copytree(runs / "a", folder / "good")
    for name in ("bits", "cut", "gone", "log"):
        shutil.copytree(runs / "a", folder / name)
    manifest = folder / "bits" / "step-3" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"stage": 1', b'"stage": 0'))
    model = folder / "cut" / "step-3" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    (folder / "gone" / "step-3" / "manifest.json").unlink()
    (folder / "log" / "metrics.jsonl").write_bytes(b'{"event": "StepDone", "loss"\n[]\n\xff\n')
    (folder / "foreign" / "step-7").mkdir(parents=True)
    (folder / "foreign" / "step-7" / "manifest.json").write_text("[" * 100_000)
    (folder / "empty" / "deep").mkdir(parents=True)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "metrics.txt").write_text("x")
    (folder / "[red]x").mkdir()
    (folder / "[red]x" / "lock").write_text("1\n")
    (folder / "circle").symlink_to(folder)
    return folder


def test_damaged_and_foreign_folders_are_told_of_and_the_others_listed(runs: Path, tmp_path: Path) -> None:
    folder = damaged(runs, tmp_path)
    found = {run.path.name: run for run in find_runs(folder)}
    assert sorted(found) == ["[red]x", "bits", "cut", "foreign", "gone", "good", "log"]
    assert not found["good"].faults
    for name, fault in {
        "bits": "does not match its own digest",
        "cut": "the manifest says",
        "gone": "No such file",
        "foreign": "not a manifest of ours",
        "log": "metrics.jsonl: not readable",
    }.items():
        assert fault in " ".join(found[name].faults), name
    assert found["log"].step == 3  # what can be read is
    shown = invoke(folder)
    assert "[red]x" in shown
    assert shown.count("warning: ") >= 5
    with pytest.raises(CheckpointError, match=r"its settings cannot be read: .*does not match its own digest"):
        differences(folder / "bits", folder / "good")
    settings = folder / "good" / "step-3" / "settings.json"
    settings.write_bytes(settings.read_bytes().replace(b"0", b"1"))
    with pytest.raises(CheckpointError, match="is not the one that was committed"):
        differences(folder / "good", folder / "log")


def test_no_folder_and_no_run_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        find_runs(tmp_path / "none")
    assert "no run in" in invoke(tmp_path)
    with pytest.raises(CheckpointError, match="it has no commit"):
        differences(tmp_path, tmp_path)
