"""Those who watch a run from outside: the log of numbers, the curve, TensorBoard, the preview pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from taxadiffusion.checkpoint import write_error
from taxadiffusion.files import whole
from taxadiffusion.names import Rank
from taxadiffusion.trainer import events
from taxadiffusion.trainer.curve import draw_curve

METRICS_FILE = "metrics.jsonl"

_LOGGED = events.StepDone | events.Validated | events.NamesCompared | events.StepRefused | events.SamplesSkipped


class Watcher(Protocol):
    """Sees every event, in order; changes nothing of the run."""

    def __call__(self, event: events.Event) -> None: ...


class MetricsLog:
    """`metrics.jsonl`: one line per step, validation, comparison of names, refusal, skip; no step is there twice."""

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


class TensorBoard:
    """Event files for TensorBoard, below `tensorboard/`."""

    def __init__(self, run_dir: Path) -> None:
        self.directory = run_dir / "tensorboard"
        self.writer: Any = None

    @staticmethod
    def installed() -> bool:
        return find_spec("tensorboard") is not None

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Resumed):
            self._open(event.step + 1)
        elif isinstance(event, events.StepDone):
            writer = self._open(None)
            for name in ("loss", "grad_norm", "learning_rate", "seconds"):
                writer.add_scalar(f"train/{name}", getattr(event, name), event.step)
        elif isinstance(event, events.Validated):
            self._open(None).add_scalar("validation/loss", event.loss, event.step)
        elif isinstance(event, events.NamesCompared):
            for rank, spread in event.spread.items():
                self._open(None).add_scalar(f"names_apart/{rank}", spread, event.step)
        elif isinstance(event, events.CheckpointCommitted):
            self._open(None).flush()
        elif isinstance(event, events.Finished) and self.writer is not None:
            self.writer.close()

    def _open(self, purge_step: int | None) -> Any:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.directory), purge_step=purge_step)
        return self.writer


class Previews:
    """`previews/step-N-RANK.png`: the same taxa and seeds each time. `draw` makes the sheet and may give up (None)."""

    def __init__(self, run_dir: Path, draw: Callable[[Rank], Any | None]) -> None:
        self.directory = run_dir / "previews"
        self.draw = draw

    def __call__(self, event: events.Event) -> None:
        if not isinstance(event, events.PreviewDue):
            return
        picture = self.draw(event.rank)
        if picture is None:
            return
        path = self.directory / f"step-{event.step}-{event.rank}.png"
        with _guarded(path, picture.width * picture.height):
            self.directory.mkdir(exist_ok=True)
            picture.save(path)


def watched(run: events.EventStream, watchers: Sequence[Watcher]) -> events.EventStream:
    """The same events, each shown to every watcher before it is passed on."""
    for event in run:
        for watcher in watchers:
            watcher(event)
        yield event


@contextmanager
def _guarded(path: Path, num_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(error, path, num_bytes) from error
