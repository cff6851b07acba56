"""Those who watch a run from outside: the log of numbers, the curve, the preview pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from taxadiffusion.checkpoint import write_error
from taxadiffusion.files import whole
from taxadiffusion.names import Rank
from taxadiffusion.trainer import events
from taxadiffusion.trainer.curve import draw_curve

METRICS_FILE = "metrics.jsonl"

_LOGGED = (
    events.StepDone
    | events.Validated
    | events.NamesCompared
    | events.StepRefused
    | events.SamplesSkipped
    | events.Spent
    | events.TrackerLost
)


class Watcher(Protocol):
    """Sees every event, in order; changes nothing of the run. What it returns is shown to all as well."""

    def __call__(self, event: events.Event) -> events.Event | None: ...


class MetricsLog:
    """`metrics.jsonl`: a line per step, validation, comparison of names, refusal, skip, cost; no step twice."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / METRICS_FILE
        self.begun = False

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Resumed):
            self._begin(event.step)
        elif isinstance(event, _LOGGED):
            self._begin(0)
            line = json.dumps({"event": type(event).__name__, **asdict(event)})
            with _guarded(self.path, len(line)), self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def _begin(self, step: int) -> None:
        """Forget what came after `step`: those steps are done again."""
        if self.begun:
            return
        self.begun = True
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        with _guarded(self.path, len(text)), whole(self.path) as aside:
            aside.write_text(text, encoding="utf-8")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, but for a last one that a crash cut short; none if there is no file."""
    if not path.is_file():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


class Curve:
    """`losses.png`: drawn again at every commit and at the end, from the log of numbers."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.CheckpointCommitted):
            lines = read_metrics(self.run_dir / METRICS_FILE)
            picture, path = draw_curve(lines), self.run_dir / "losses.png"
            with _guarded(path, picture.width * picture.height), whole(path) as aside:
                picture.save(aside, format="PNG")


class Previews:
    """`previews/step-N-RANK.png`: the same taxa and seeds each time. `draw` makes the sheet and may give up (None)."""

    def __init__(self, run_dir: Path, draw: Callable[[Rank], Any | None]) -> None:
        self.run_dir = run_dir
        self.draw = draw

    def __call__(self, event: events.Event) -> None:
        if not isinstance(event, events.PreviewDue):
            return
        picture = self.draw(event.rank)
        if picture is None:
            return
        path = preview_path(self.run_dir, event)
        with _guarded(path, picture.width * picture.height):
            path.parent.mkdir(exist_ok=True)
            picture.save(path)


def preview_path(run_dir: Path, event: events.PreviewDue) -> Path:
    """Where the sheet of this moment lies."""
    return run_dir / "previews" / f"step-{event.step}-{event.rank}.png"


def watched(run: events.EventStream, watchers: Sequence[Watcher]) -> events.EventStream:
    """The same events, each shown to every watcher before it is passed on; then what the watchers said to it."""
    for event in run:
        yield from _shown(event, watchers)


def _shown(event: events.Event, watchers: Sequence[Watcher]) -> events.EventStream:
    said = [watcher(event) for watcher in watchers]
    yield event
    for more in said:
        if more is not None:
            yield from _shown(more, watchers)


@contextmanager
def _guarded(path: Path, num_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(error, path, num_bytes) from error
