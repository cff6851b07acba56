"""What a reproduction found, as the report tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.evaluate.pictures import Pictures
from taxadiffusion.evaluate.results import Results
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.tables.experiments import Experiment, RareRow
from taxadiffusion.tables.search import Choice
from taxadiffusion.tables.training import Budget, Model


@dataclass(slots=True)
class TablesStory:
    """Everything the report tells."""

    dataset: PreparedDataset
    ranks: tuple[Rank, ...]
    results: dict[Experiment, Results] = field(default_factory=dict)
    pictures: dict[str, Pictures] = field(default_factory=dict)
    """The first run's images of each row of the tables."""
    budgets: dict[str, list[Budget]] = field(default_factory=dict)
    curves: dict[str, Path] = field(default_factory=dict)
    """Strategy → the run directory of its first seed."""
    thinned: tuple[Lineage, ...] = ()
    rare: tuple[RareRow, ...] = ()
    """The rows of the rare experiment."""
    choices: dict[str, Choice] = field(default_factory=dict)
    """What the search found, where there was one."""
    base_saw: str = ""
    """What the base had seen of the thinned species, where there are any."""
    left_out: dict[Experiment, dict[str, str]] = field(default_factory=dict)
    """Experiment → row that was asked for and is not in its table → why."""
    models: dict[Experiment, dict[str, Model]] = field(default_factory=dict)
    """Experiment → strategy → the model of its first seed."""
    size_px: int = 0
    """At which pictures and photographs were compared, once something was measured."""


def table1_of(results: Mapping[Experiment, Results]) -> dict[str, object]:
    """`table1[method][rank][metric]` of the table1 experiment, {} where it was not run."""
    if "table1" not in results:
        return {}
    found: dict[str, object] = results["table1"].to_json()["table1"]
    return found
