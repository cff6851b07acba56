"""A run that W&B is told of, twice: to its end, and on from its second step."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from taxadiffusion.trainer import events
from taxadiffusion.trainer.trackers import Tracker
from taxadiffusion.trainer.watchers import MetricsLog, Previews, watched

RECIPE = {"seed": 7, "lora.rank": 4, "data.ranks": ["order", "family"], "optimiser.ema_decay": None}


def done(step: int, stage: str, loss: float) -> events.StepDone:
    return events.StepDone(step, stage, step, loss, 0.1, 1e-4, 8 * step, 0.01)


def a_run() -> list[events.Event]:
    return [
        events.StageStarted(0, "order", 2, 10, 0),
        done(1, "order", 0.75),
        events.Validated(1, "order", 0.625, 8),
        events.PreviewDue(1, "order", "order"),
        events.NamesCompared(1, "order", {"order": 0.25}),
        events.StageStarted(1, "family", 1, 10, 8),
        done(2, "family", 0.5),
        events.Spent(2, 80.0, 1.0, 0.5, 0.0),
        events.Finished(2, False),
    ]


def watch(run_dir: Path, name: str, stream: list[events.Event]) -> list[events.Event]:
    sheets = Previews(run_dir, lambda _: Image.new("RGB", (16, 8), "red"))
    return list(watched(iter(stream), [MetricsLog(run_dir), sheets, Tracker(name, run_dir, RECIPE)]))  # type: ignore[arg-type]


def twice(run_dir: Path) -> None:
    run_dir.mkdir()
    watch(run_dir, "wandb", a_run())
    again = [events.Resumed(2, Path("step"), (), ()), events.StageStarted(2, "family", 2, 1, 16)]
    watch(run_dir, "wandb", [*again, done(3, "family", 0.25), events.Finished(3, False)])
