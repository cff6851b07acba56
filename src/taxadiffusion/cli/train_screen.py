"""What a person sees of a training run: one bar for what is computed, one line for what was done."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

from taxadiffusion.config import Settings
from taxadiffusion.trainer import events

_SAY_EVERY_S = 60

COLLAPSED = 0.02
"""Names nearer than this were drawn alike; encoders that told them apart had 0.05 to 0.35 (docs/log.md)."""

if TYPE_CHECKING:
    from taxadiffusion.run import Run


class Silence:
    """What processes other than the first show: nothing."""

    caching = None

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None: ...

    def begin(self, run: Run) -> None: ...

    def show(self, event: events.Event) -> None: ...


class Screen:
    """Progress with the time that is left, warnings, and where things were written."""

    def __init__(self, settings: Settings) -> None:
        self.run_dir = settings.output.path
        self.output = settings.output
        self.console = Console(highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            Remaining(elapsed_when_finished=False),
            console=self.console,
        )
        self.cache_task: dict[str, TaskID] = {}
        self.task: TaskID | None = None
        self.smoothed: float | None = None
        self.cost = ""
        self.said_at = float("-inf")

    def __enter__(self) -> Screen:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def caching(self, what: str, done: int, total: int) -> None:
        """Progress of a cache that is being computed."""
        if what not in self.cache_task:
            self.cache_task[what] = self.progress.add_task(f"computing {what}", total=total, note="once")
        self.progress.update(self.cache_task[what], completed=done)

    def begin(self, run: Run) -> None:
        """Say what is about to happen."""
        from taxadiffusion.base.device import described

        total = sum(stage.num_steps for stage in run.plan)
        self._say(
            f"{run.settings.recipe} recipe, {run.settings.stages.strategy}: "
            + " → ".join(f"{stage.name} ({stage.num_steps})" for stage in run.plan)
        )
        self._say(f"{len(run.trainer.data.train_rows):,} images, {len(run.taxa):,} taxa; writing to {self.run_dir}")
        for note in run.notes:
            self._say(note)
        self._say(f"on {described(run.trainer.world.device)}")
        self._note_trackers()
        self.task = self.progress.add_task("training", total=total, note="")

    def show(self, event: events.Event) -> None:
        """One event, as one changes the screen."""
        assert self.task is not None
        if isinstance(event, events.StepDone):
            self._step(event)
        elif isinstance(event, events.Resumed):
            self._resumed(event)
        elif isinstance(event, events.StageStarted):
            self.smoothed = None
            self._say(f"stage {event.stage}: {event.num_trained:,} parameters learn, {event.num_steps} steps")
        elif isinstance(event, events.Validated):
            self._say(f"step {event.step}: loss on {event.num_samples} held-out images {event.loss:.4f}")
        elif isinstance(event, events.NamesCompared):
            self._names(event)
        elif isinstance(event, events.Spent):
            self._spent(event)
        elif isinstance(event, events.Finished):
            self._finished(event)
        else:
            self._trouble(event)

    def _trouble(self, event: events.Event) -> None:
        if isinstance(event, events.StepRefused):
            self._warn(f"step {event.step}: {event.reason}, no parameter was changed; rows {list(event.rows[:8])}")
        elif isinstance(event, events.SamplesSkipped):
            self._warn(
                f"step {event.step}: rows {list(event.rows)} cannot be read and were left out ({event.total} so far)"
            )
        elif isinstance(event, events.TrackerLost):
            self._warn(f"step {event.step}: {event.tracker} failed and is told nothing more ({event.reason})")

    def _step(self, event: events.StepDone) -> None:
        assert self.task is not None
        self.smoothed = event.loss if self.smoothed is None else 0.98 * self.smoothed + 0.02 * event.loss
        cost = f" · {self.cost}" if self.cost else ""
        note = f"loss {self.smoothed:.4f}{cost}"
        self.progress.update(self.task, completed=event.step, description=event.stage, note=note)

    def _spent(self, event: events.Spent) -> None:
        """In the bar at every commit; as a line, which a job's log keeps, at most once a minute."""
        hours = [f"{event.gpu_hours:.2f} GPU-hours"] if event.gpu_hours else []
        hours += [f"{event.core_hours:.2f} core-hours"] if event.core_hours else []
        self.cost = f"{event.images_per_second:.1f} images/s · {' + '.join(hours)}"
        if time.monotonic() - self.said_at >= _SAY_EVERY_S:
            self.said_at = time.monotonic()
            left = timedelta(seconds=round(event.left_s))
            self._say(f"step {event.step}: {self.cost.replace(' · ', ', ')} so far, about {left} left")

    def _resumed(self, event: events.Resumed) -> None:
        assert self.task is not None
        for reason in event.passed_over:
            self._warn(f"passed over: {reason}")
        for warning in event.warnings:
            self._warn(warning)
        self._say(f"going on from step {event.step} ({event.path})")
        # Steps done before do not count towards the speed of these.
        self.progress.reset(self.task, total=self.progress.tasks[self.task].total, completed=event.step)

    def _names(self, event: events.NamesCompared) -> None:
        found = ", ".join(f"{rank} {spread:.3f}" for rank, spread in event.spread.items())
        self._say(f"step {event.step}: how far apart names are encoded: {found}")
        collapsed = [rank for rank, spread in event.spread.items() if spread < COLLAPSED]
        if collapsed:
            self._warn(
                f"the encoder of {' and of '.join(collapsed)} makes nearly the same of every name: pictures show no "
                "difference that no other rank's encoder or vector makes; train with conditioner.norm_first=true or a "
                "lower optimiser.learning_rate"
            )

    def _finished(self, event: events.Finished) -> None:
        from taxadiffusion.run.kept import read_kept

        if event.already:
            self._say(f"this run had finished at step {event.step}; nothing to do")
        kept = read_kept(self.run_dir)
        for line in kept.lines() if kept else ():
            self._say(line)
        self._say(f"the model is in {Path(self.run_dir) / 'adapter'}")

    def _note_trackers(self) -> None:
        from taxadiffusion.trainer.trackers import installed

        if self.output.tensorboard and not installed("tensorboard"):
            self._say("no TensorBoard events: tensorboard is not installed (pip install 'taxadiffusion[track]')")
        if self.output.trackers:
            self._say(f"also told to {' and '.join(self.output.trackers)}")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def _warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)
