"""Laws of cost: the rate is of the steps since the last commit, and hours go on where an earlier command left them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from taxadiffusion.cli.train_screen import Screen
from taxadiffusion.config import Settings
from taxadiffusion.trainer import events
from taxadiffusion.trainer.spent import Held, Spending
from taxadiffusion.trainer.watchers import MetricsLog, read_metrics, watched
from taxadiffusion.trainer.world import World


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run_of(clock: Clock, first: int, last: int) -> events.EventStream:
    """Steps of 8 images that take a second each; before a commit two more pass."""
    yield events.StageStarted(first, "order", 99, 1, 8 * first)
    for step in range(first + 1, last + 1):
        clock.now += 1
        yield events.StepDone(step, "order", step, 0.5, 0.1, 1e-4, 8 * step, 1.0)
    clock.now += 2
    yield events.CheckpointCommitted(last, Path("step"), 0.1)


def test_rate_time_left_and_hours_follow_the_clock(tmp_path: Path) -> None:
    clock = Clock()
    clock.now = 10.0  # the caches took that long
    spending = Spending(tmp_path, 100, Held(cores=4), started=0.0, clock=clock)
    spent = [e for e in watched(run_of(clock, 0, 18), [MetricsLog(tmp_path), spending]) if isinstance(e, events.Spent)]
    (first,) = spent
    assert first.images_per_second == pytest.approx(8.0)
    assert first.left_s == pytest.approx(82 * 20 / 18)  # the commit is a part of the pace
    assert first.core_hours == pytest.approx(4 * 30 / 3600)
    assert first.gpu_hours == 0
    (line,) = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["event"] == "Spent"]
    assert line["core_hours"] == first.core_hours

    clock.now = 1000.0  # what passes between two commands is nobody's
    again = Spending(tmp_path, 100, Held(gpus=2), started=1000.0, clock=clock)
    events_again = [events.Resumed(18, Path("step"), (), ()), *()]
    later = list(watched(iter(events_again), [MetricsLog(tmp_path), again]))
    later += watched(run_of(clock, 18, 28), [MetricsLog(tmp_path), again])
    (second,) = [event for event in later if isinstance(event, events.Spent)]
    assert second.images_per_second == pytest.approx(8.0)
    assert second.core_hours == first.core_hours
    assert second.gpu_hours == pytest.approx(2 * 12 / 3600)


def test_what_is_held_is_a_gpu_a_process_or_the_threads_of_all() -> None:
    assert Held.by(World(0, 3)) == Held(cores=3 * torch.get_num_threads())
    assert Held.by(World(0, 3, torch.device("cuda", 0))) == Held(gpus=3)


def test_the_screen_tells_rate_cost_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(Settings())
    screen.task = screen.progress.add_task("training", note="")
    screen.show(events.Spent(500, 41.25, 3725.0, 0.0, 1.5))
    assert "step 500: 41.2 images/s, 1.50 GPU-hours so far, about 1:02:05 left" in capsys.readouterr().out
    screen.show(events.Spent(501, 41.25, 3725.0, 0.0, 1.5))
    assert capsys.readouterr().out == ""  # once a minute; the bar and the log have all
    screen.show(events.StepDone(502, "order", 2, 0.5, 0.1, 1e-4, 8, 0.1))
    assert "41.2 images/s · 1.50 GPU-hours" in screen.progress.tasks[screen.task].fields["note"]
