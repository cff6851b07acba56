"""Laws of trackers: they hold the run's numbers, sheets and recipe; one that fails costs the run nothing in silence."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taxadiffusion.config import Settings, parse
from taxadiffusion.errors import SettingsError
from taxadiffusion.run.training import trackers_of
from taxadiffusion.trainer import events, trackers
from taxadiffusion.trainer.trackers import require_installed
from taxadiffusion.trainer.watchers import read_metrics
from tests.trainer.tracked import a_run, done, watch


class Broken:
    """A tracker whose server goes away after a step."""

    def __init__(self) -> None:
        self.calls = 0

    def start(self) -> None: ...

    def store_init_configuration(self, _: object) -> None: ...

    def log(self, *_: object) -> None:
        self.calls += 1
        if self.calls > 1:
            raise ConnectionError("no route to host")


def test_tensorboard_holds_numbers_by_stage_names_sheets_and_recipe(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra [track]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert watch(tmp_path, "tensorboard", a_run()) == a_run()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    scalars = {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert scalars["train/loss"] == [(1, 0.75), (2, 0.5)]
    assert scalars["train_loss/order"] == [(1, 0.75)]
    assert scalars["train_loss/family"] == [(2, 0.5)]
    assert scalars["validation_loss/order"] == [(1, 0.625)]
    assert scalars["names_apart/order"] == [(1, 0.25)]
    assert scalars["cost/core_hours"] == [(2, 0.5)]
    (sheet,) = found.Images("preview/order")
    assert (sheet.width, sheet.height) == (16, 8)
    assert "lora.rank: 4" in next((tmp_path / "tensorboard").rglob("hparams.yml")).read_text()


def test_steps_that_are_done_again_stand_once_in_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra [track]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watch(tmp_path, "tensorboard", [events.StageStarted(0, "order", 3, 1, 0), done(1, "order", 1), done(2, "order", 9)])
    again = [events.Resumed(1, Path("step"), (), ()), events.StageStarted(1, "order", 3, 1, 8), done(2, "order", 0.5)]
    watch(tmp_path, "tensorboard", [*again, events.Finished(2, False)])
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(1, 1.0), (2, 0.5)]


def test_a_run_that_had_ended_opens_no_tracker(tmp_path: Path) -> None:
    stream = [events.Resumed(2, Path("step"), (), ()), events.Finished(2, True)]
    assert watch(tmp_path, "tensorboard", stream) == stream
    assert not (tmp_path / "tensorboard").exists()


def records(data: bytes) -> Iterator[bytes]:
    """Of a `.wandb` file: LevelDB's log format, pieces of records in blocks of 32 KiB, after a header of 7 bytes."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if (room := -at % 32768) and room < 7:  # no piece begins in the last bytes of a block
            at += room
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def offline_records(run_dir: Path) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Of all files that W&B wrote there: the history, column → values, and the configuration."""
    from wandb.proto import wandb_internal_pb2

    history, config = defaultdict(list), {}
    for path in sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb")):
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            for item in record.history.item:
                history[item.key or ".".join(item.nested_key)].append(json.loads(item.value_json))
            for item in [*record.run.config.update, *record.config.update]:
                config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return history, config


def test_wandb_offline_holds_numbers_sheets_and_recipe_and_a_run_that_goes_on_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, as W&B leaves a server behind in the one that uses it."""
    pytest.importorskip("wandb", reason="needs the extra [track]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    script = "import sys; from pathlib import Path; from tests.trainer.tracked import twice; twice(Path(sys.argv[1]))"
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")], cwd=root, capture_output=True, text=True, env=os.environ
    )
    assert result.returncode == 0, result.stderr
    history, config = offline_records(tmp_path / "run")
    assert history["train/loss"] == [0.75, 0.5, 0.25]
    assert history["train_loss/family"] == [0.5, 0.25]
    assert history["names_apart/order"] == [0.25]
    assert history["preview/order.path"][0].endswith(".png")
    assert history["step"][-1] == 3
    assert config["lora.rank"] == 4
    assert json.loads(config["data.ranks"]) == ["order", "family"]
    assert len({path.name for path in (tmp_path / "run").glob("wandb/offline-run-*/run-*.wandb")}) == 1


def test_a_tracker_that_fails_midway_is_told_of_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken()
    monkeypatch.setattr(trackers, "_tensorboard", lambda *_: broken)
    seen = watch(tmp_path, "tensorboard", a_run())
    (lost,) = [event for event in seen if isinstance(event, events.TrackerLost)]
    assert lost == events.TrackerLost(1, "tensorboard", "ConnectionError: no route to host")
    assert [event for event in seen if event is not lost] == a_run()
    assert broken.calls == 2  # never again
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["event"] for line in lines if line["step"] == 2 and "loss" in line] == ["StepDone"]
    assert "no route to host" in next(line["reason"] for line in lines if line["event"] == "TrackerLost")


def test_a_tracker_that_cannot_begin_is_a_wrong_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broken, "start", lambda _: 1 / 0)
    monkeypatch.setattr(trackers, "_wandb", lambda *_: Broken())
    with pytest.raises(SettingsError, match=r"wandb cannot begin \(ZeroDivisionError.*WANDB_MODE=offline"):
        watch(tmp_path, "wandb", a_run())


def test_unknown_missing_and_repeated_trackers_are_wrong_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"output\.trackers.*'mlflow'.*'tensorboard' or 'wandb'"):
        parse({}, ["output.trackers=[mlflow]"])
    with pytest.raises(SettingsError, match="names a tracker twice"):
        parse({}, ["output.trackers=[wandb,wandb]"])
    monkeypatch.setattr(trackers, "installed", lambda name: name != "wandb")
    with pytest.raises(SettingsError, match=r"output\.trackers: wandb cannot be found: pip install"):
        require_installed(("tensorboard", "wandb"))


def test_tensorboard_is_one_however_it_is_asked_for() -> None:
    pytest.importorskip("tensorboard", reason="needs the extra [track]")
    assert trackers_of(Settings()) == ("tensorboard",)
    assert trackers_of(parse({}, ["output.trackers=[wandb,tensorboard]"])) == ("wandb", "tensorboard")
    assert trackers_of(parse({}, ["output.trackers=[wandb]", "output.tensorboard=false"])) == ("wandb",)
