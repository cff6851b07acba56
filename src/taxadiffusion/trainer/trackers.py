"""A run in its lab's tracker, through accelerate: numbers, previews, and the recipe as its configuration."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from taxadiffusion.errors import SettingsError
from taxadiffusion.trainer import events
from taxadiffusion.trainer.settings import TrackerName
from taxadiffusion.trainer.watchers import preview_path

_PROJECT = "taxadiffusion"


def installed(name: TrackerName) -> bool:
    return find_spec(name) is not None


def require_installed(names: Sequence[TrackerName]) -> None:
    """Raises `SettingsError` for trackers that are asked for and not there."""
    missing = [name for name in names if not installed(name)]
    if missing:
        raise SettingsError(
            f"output.trackers: {' and '.join(missing)} cannot be found: pip install 'taxadiffusion[track]', or leave "
            "it out"
        )


class Tracker:
    """One tracker of a run. It opens with the first stage, so that a run that had ended opens none.

    A tracker that cannot begin is a `SettingsError`. One that fails later is given up: the run is worth more than its
    numbers elsewhere, which `metrics.jsonl` holds as well. Who watches is told by `events.TrackerLost`.
    """

    def __init__(self, name: TrackerName, run_dir: Path, recipe: Mapping[str, Any]) -> None:
        self.name, self.run_dir, self.recipe = name, run_dir, recipe
        self._tracker: Any = None
        self._resumed_at: int | None = None
        self._lost = False

    def __call__(self, event: events.Event) -> events.TrackerLost | None:
        if isinstance(event, events.Resumed):
            self._resumed_at = event.step
        values = _values(event)
        images = self._images(event)
        if self._lost or not (values or images or isinstance(event, events.StageStarted | events.Finished)):
            return None
        if self._tracker is None:
            if isinstance(event, events.Finished):
                return None
            self._tracker = self._opened()
        try:
            if values:
                self._log(values, event.step)
            if images:
                self._log_images(images, event.step)
            if isinstance(event, events.Finished):
                self._tracker.finish()
        except Exception as error:  # noqa: BLE001 - a tracker may raise anything
            self._lost = True
            return events.TrackerLost(event.step, self.name, f"{type(error).__name__}: {error}")
        return None

    def _opened(self) -> Any:
        try:
            from accelerate import PartialState

            PartialState()  # accelerate's own log asks for it
            tracker = (
                _tensorboard(self.run_dir, self._resumed_at) if self.name == "tensorboard" else _wandb(self.run_dir)
            )
            tracker.start()
            tracker.store_init_configuration(
                {
                    key: value if isinstance(value, str | int | float | None) else json.dumps(value)
                    for key, value in self.recipe.items()
                }
            )
            if self.name == "wandb":
                tracker.tracker.define_metric("*", step_metric="step")
        except Exception as error:
            raise SettingsError(
                f"output.trackers: {self.name} cannot begin ({type(error).__name__}: {error}); mend this"
                f"{', set WANDB_MODE=offline' if self.name == 'wandb' else ''} or leave it out"
            ) from error
        return tracker

    def _log(self, values: Mapping[str, float], step: int) -> None:
        # W&B takes no step twice and none that is earlier; a run that goes on does some again, so its axis is a value.
        if self.name == "wandb":
            self._tracker.log({**values, "step": step})
        else:
            self._tracker.log(values, step)

    def _log_images(self, images: Mapping[str, Image.Image], step: int) -> None:
        arrays = {key: np.asarray(image.convert("RGB"))[None] for key, image in images.items()}
        if self.name == "wandb":
            import wandb

            self._tracker.log({**{key: wandb.Image(array[0]) for key, array in arrays.items()}, "step": step})
        else:
            self._tracker.log_images(arrays, step, dataformats="NHWC")

    def _images(self, event: events.Event) -> dict[str, Image.Image]:
        """The sheet that was just drawn, if one was."""
        if not isinstance(event, events.PreviewDue):
            return {}
        path = preview_path(self.run_dir, event)
        if not path.is_file():
            return {}
        with Image.open(path, formats=("PNG",)) as image:
            return {f"preview/{event.rank}": image.copy()}


def _values(event: events.Event) -> dict[str, float]:
    """What an event adds to the charts; losses also by stage, which is a rank where one stage trains each."""
    if isinstance(event, events.StepDone):
        found = {f"train/{name}": getattr(event, name) for name in ("loss", "grad_norm", "learning_rate", "seconds")}
        return {**found, f"train_loss/{event.stage}": event.loss}
    if isinstance(event, events.Validated):
        return {"validation/loss": event.loss, f"validation_loss/{event.stage}": event.loss}
    if isinstance(event, events.NamesCompared):
        return {f"names_apart/{rank}": spread for rank, spread in event.spread.items()}
    if isinstance(event, events.Spent):
        return {
            "cost/images_per_second": event.images_per_second,
            "cost/core_hours": event.core_hours,
            "cost/gpu_hours": event.gpu_hours,
        }
    return {}


def _tensorboard(run_dir: Path, resumed_at: int | None) -> Any:
    from accelerate.tracking import TensorBoardTracker

    purge_step = None if resumed_at is None else resumed_at + 1  # those steps are done again
    return TensorBoardTracker("tensorboard", run_dir, purge_step=purge_step)


def _wandb(run_dir: Path) -> Any:
    from accelerate.tracking import WandBTracker

    quiet = {"console": "off", "silent": True}  # the screen is the progress bar's
    return WandBTracker(
        os.environ.get("WANDB_PROJECT", _PROJECT),
        dir=str(run_dir),
        name=run_dir.absolute().name,
        id=_wandb_id(run_dir / "wandb" / "run-id"),
        resume="allow",
        settings=quiet,
    )


def _wandb_id(path: Path) -> str:
    """The run's id there: drawn once, so that a run that goes on is one run."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
