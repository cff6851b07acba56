"""Which models the rows need, what they cost, and training those that are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from taxadiffusion.config import Settings, changed
from taxadiffusion.run import train, trial
from taxadiffusion.trainer import events
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.watchers import METRICS_FILE, read_metrics
from taxadiffusion.trainer.world import World

OnEvent = Callable[[events.Event], object]


@dataclass(frozen=True, slots=True)
class Model:
    """One training: a strategy with its own seed, on one data set."""

    strategy: str
    seed: int
    settings: Settings

    @property
    def run_dir(self) -> Path:
        return self.settings.output.path


@dataclass(frozen=True, slots=True)
class Budget:
    """What a model was trained with."""

    samples: int
    seconds: float


def model_of(
    base: Settings,
    strategy: str,
    seed: int,
    out: Path,
    *,
    own: Mapping[str, Sequence[str]],
    data: Path | None = None,
) -> Model:
    """The settings of the run for one strategy and seed: those of the configuration, in its own directory in `out`.

    All runs share one cache of latents and names. own: `key=value` that a strategy alone has, e.g. its learning rate.
    `data` is another prepared data set than the configuration's; of a model of the configuration's own, trained in
    stages, the commit that rows are guided away from is kept.
    """
    base = changed(base, own.get(strategy, ()), source=f"--set-for {strategy}")
    folder = f"{strategy}-{data.name}-seed{seed}" if data else f"{strategy}-seed{seed}"
    settings = base.model_copy(
        update={
            "seed": seed,
            "stages": base.stages.model_copy(update={"strategy": strategy}),
            "data": base.data.model_copy(
                update={"path": data or base.data.path, "cache_dir": base.data.cache_dir or out / "cache"}
            ),
            "output": base.output.model_copy(update={"path": out / "models" / folder}),
            "checkpoint": base.checkpoint.model_copy(update={"keep_weaker": base.checkpoint.keep_weaker or not data}),
            "preview": base.preview.model_copy(update={"num_taxa": 0}),
        }
    )
    return Model(strategy, seed, settings)


def trained(model: Model, stop: StopSignal, on_event: OnEvent | None = None, *, device: str = "cpu") -> Path:
    """The adapter's directory, after training whatever of it is missing on `device`."""
    return train(model.settings, stop=stop, world=World(device=torch.device(device)), on_event=on_event)


def budget_of(model: Model) -> Budget:
    """Samples seen and seconds of training, from the run's own log."""
    steps = [line for line in read_metrics(model.run_dir / METRICS_FILE) if line["event"] == "StepDone"]
    return Budget(
        samples=steps[-1]["num_samples_seen"] if steps else 0,
        seconds=float(sum(line["seconds"] for line in steps)),
    )


def seconds_to_train(models: Sequence[Model], device: str = "cpu") -> dict[str, float]:
    """Run directory → estimated seconds of training, a few steps measured once for each strategy."""
    measured: dict[str, float] = {}
    for model in models:
        if model.strategy not in measured:
            # A thinned data set is not the one that is measured.
            world = World(device=torch.device(device))
            costs = trial(model.settings, world, allow_change=("data", "taxonomy")).costs
            measured[model.strategy] = sum(cost.seconds for cost in costs)
    return {model.run_dir.name: measured[model.strategy] for model in models}
