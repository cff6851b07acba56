"""The same small search for every method: some learning rates, names enlarged or not, chosen by the held-out loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from taxadiffusion.config import Settings
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import NonFiniteError, SettingsError
from taxadiffusion.names import Rank
from taxadiffusion.run import open_run, plan_of, ranks_of
from taxadiffusion.stages import Stage
from taxadiffusion.tables.training import Model, OnEvent, model_of, trained
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.watchers import METRICS_FILE, read_metrics
from taxadiffusion.trainer.world import World

SEED = 1000
"""Of every training of a search: none that a table reports."""

CRITERION = (
    "the denoising loss on validation photographs with the finest name as the condition, at the end of training: the "
    "same photographs, noise levels and noise for every candidate, and no picture, network or seed of a table"
)

_AT_THE_END = 10**9
"""Steps between validations: only a stage's end is one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Settings to try, and the run that tries them."""

    learning_rate: float | None
    """None: nothing is trained."""
    name_gain: float | None
    """None: no name is read."""
    model: Model
    num_samples: int
    """That its training sees."""

    @property
    def assignments(self) -> tuple[str, ...]:
        """The settings as `key=value`."""
        return _assignments(_gain_key(self.model.settings), self.learning_rate, self.name_gain)


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate and what came of it."""

    learning_rate: float | None
    name_gain: float | None
    loss: float | None
    """None: its loss or gradients were no numbers."""
    num_samples: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What was tried for a strategy."""

    strategy: str
    gain_key: str | None
    """The setting that enlarges the names it reads; None: it reads none."""
    tried: tuple[Tried, ...]

    @property
    def chosen(self) -> Tried:
        """The one of the lowest loss, the first of equals."""
        return min(self.tried, key=lambda one: math.inf if one.loss is None else one.loss)

    @property
    def at_edge(self) -> bool:
        """Is its learning rate the lowest or highest of several? A rate beyond the grid might be better still."""
        rates = {one.learning_rate for one in self.tried if one.learning_rate is not None}
        return len(rates) > 1 and self.chosen.learning_rate in (min(rates), max(rates))

    @property
    def assignments(self) -> tuple[str, ...]:
        """The chosen settings as `key=value`."""
        return _assignments(self.gain_key, self.chosen.learning_rate, self.chosen.name_gain)


def candidates(config: Settings, strategy: str, out: Path, own: Mapping[str, Sequence[str]]) -> tuple[Candidate, ...]:
    """Every learning rate with every gain of names, where a strategy has these: runs below `out / "search"`.

    own: `key=value` that a strategy alone has; the rates are multiples of its own. Raises `SettingsError` where there
    is no validation photograph to choose by.
    """
    dataset = PreparedDataset.open(config.data.path, config.data.root)
    if not len(dataset.rows("val")):
        raise SettingsError(
            f"--search chooses on validation photographs and {dataset.path} has none: prepare it with --val-fraction"
        )
    ranks = ranks_of(config, dataset)
    grid = config.search
    usual = model_of(config, strategy, SEED, out, own=own).settings
    own_rate = usual.optimiser.learning_rate
    rates = [float(f"{own_rate * f:.6g}") for f in grid.learning_rate_factors] if usual.method.trains else [None]
    gains = grid.name_gains if _gain_key(usual) else (None,)
    return tuple(_candidate(config, strategy, out, own, ranks, rate, gain) for rate in rates for gain in gains)


def searched(tries: Sequence[Candidate], stop: StopSignal, on_event: OnEvent, *, device: str = "cpu") -> Choice:
    """Train whatever of it is missing, and choose. A run that ends in numbers that are none is a loser, no error.

    Raises `NonFiniteError` where all of them do.
    """
    strategy, failure, tried = tries[0].model.strategy, None, []
    for candidate in tries:
        try:
            loss: float | None = _loss(candidate.model, stop, on_event, device)
        except NonFiniteError as error:
            loss, failure = None, error
        tried.append(Tried(candidate.learning_rate, candidate.name_gain, loss, candidate.num_samples))
    if failure and all(one.loss is None for one in tried):
        raise failure
    return Choice(strategy, _gain_key(tries[0].model.settings), tuple(tried))


def search_document(choices: Mapping[str, Choice], config: Settings) -> dict[str, Any]:
    """The search as JSON: what was tried, what it cost, what was chosen and by what."""
    tried = [one for choice in choices.values() for one in choice.tried]
    return {
        "criterion": CRITERION,
        "seed": SEED,
        "budget": config.search.budget,
        "trainings": sum(one.num_samples > 0 for one in tried),
        "samples": sum(one.num_samples for one in tried),
        "strategies": {
            strategy: {
                "chosen": _entry(choice.chosen),
                "at_edge": choice.at_edge,
                "tried": [_entry(one) for one in choice.tried],
            }
            for strategy, choice in choices.items()
        },
    }


def footnote(models: Mapping[str, Model], choices: Mapping[str, Choice], config: Settings) -> str:
    """With which settings each strategy of a table was trained, and how these were come by."""
    gains = " or ".join(f"{gain:g}" for gain in config.search.name_gains)
    settings = "; ".join(_words(strategy, model.settings, choices.get(strategy)) for strategy, model in models.items())
    if not choices:
        return f"Settings were not searched for; each strategy has those of the configuration: {settings}."
    mine = [choices[strategy] for strategy in models if strategy in choices]
    found = search_document({choice.strategy: choice for choice in mine}, config)
    return (
        f"Settings of every strategy were searched for alike: {len(config.search.learning_rate_factors)} learning "
        f"rates, and names enlarged by {gains} where names are read; "
        f"{found['trainings']} trainings of one seed and {config.search.budget:g} of the steps, "
        f"{found['samples']:,} samples. Chosen by {CRITERION}. Chosen: {settings}."
        + (" *: the lowest or highest rate tried; one beyond might be better." if any(c.at_edge for c in mine) else "")
    )


def _candidate(
    config: Settings,
    strategy: str,
    out: Path,
    own: Mapping[str, Sequence[str]],
    ranks: Sequence[Rank],
    rate: float | None,
    gain: float | None,
) -> Candidate:
    key = _gain_key(model_of(config, strategy, SEED, out, own=own).settings)
    settled = {strategy: (*own.get(strategy, ()), *_assignments(key, rate, gain))}
    model = model_of(config, strategy, SEED, out, own=settled)
    parts = [strategy, *([] if rate is None else [f"rate{rate:g}"]), *([] if gain is None else [f"names{gain:g}"])]
    settings = model.settings
    settings = settings.model_copy(
        update={
            "stages": settings.stages.model_copy(update={"steps": _shortened(settings.stages.steps, config)}),
            "validation": settings.validation.model_copy(update={"every_steps": _AT_THE_END}),
            "checkpoint": config.checkpoint,  # nothing is drawn of a try
            "output": settings.output.model_copy(update={"path": out / "search" / "-".join(parts)}),
        }
    )
    steps = sum(stage.num_steps for stage in plan_of(settings, ranks))
    model = Model(strategy, SEED, settings)
    return Candidate(rate, gain, model, steps * settings.training.batch_size)


def _gain_key(settings: Settings) -> str | None:
    """Of `conditioner`: the setting that enlarges the names that the method reads; None: it reads none."""
    return settings.method.conditioner.settings_class.gain_key(settings.conditioner)


def _assignments(gain_key: str | None, rate: float | None, gain: float | None) -> tuple[str, ...]:
    found = [] if rate is None else [f"optimiser.learning_rate={rate!r}"]
    return (*found, *([] if gain is None else [f"conditioner.{gain_key}={gain!r}"]))


def _shortened(steps: int | dict[Rank, int], config: Settings) -> int | dict[Rank, int]:
    """The budget's share, at least one step a stage."""

    def share(number: int) -> int:
        return max(1, round(number * config.search.budget))

    return share(steps) if isinstance(steps, int) else {rank: share(number) for rank, number in steps.items()}


def _loss(model: Model, stop: StopSignal, on_event: OnEvent, device: str) -> float:
    if not model.settings.method.trains:
        world = World(device=torch.device(device))
        with open_run(model.settings, stop=stop, world=world) as run:
            finest = run.trainer.data.ranks[-1]
            return run.trainer.validation.run(Stage(model.strategy, finest, 0, ()), 0).loss
    trained(model, stop, on_event, device=device)
    validated = [line for line in read_metrics(model.run_dir / METRICS_FILE) if line["event"] == "Validated"]
    loss = float(validated[-1]["loss"])
    if not math.isfinite(loss):
        raise NonFiniteError(f"{model.run_dir}: the loss on validation photographs is {loss}")
    return loss


def _entry(tried: Tried) -> dict[str, Any]:
    return {
        "learning_rate": tried.learning_rate,
        "name_gain": tried.name_gain,
        "validation_loss": tried.loss,
        "samples": tried.num_samples,
    }


def _words(strategy: str, settings: Settings, choice: Choice | None) -> str:
    rate = f" rate {settings.optimiser.learning_rate:g}" if settings.method.trains else ""
    edge = "*" if choice and choice.at_edge else ""
    key = _gain_key(settings)
    names = f" names ×{getattr(settings.conditioner, key):g}" if key else ""
    return f"{strategy}{rate}{edge}{names}"
