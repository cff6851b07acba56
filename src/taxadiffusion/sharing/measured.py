"""What an evaluation found of one model, read from its `results.json`, for cards."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.metrics.declared import METRICS
from taxadiffusion.names import Rank

RESULTS = "results.json"
_REAL = "real_test_photographs"


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric at a rank, with its 95 % interval."""

    rank: Rank
    key: str
    label: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one method: the data set that it was measured on, who looked, and its figures."""

    dataset: str
    extractor: str
    command: str
    figures: tuple[Figure, ...]


def evaluation_beside(model: Path) -> Path | None:
    """`evaluation/results.json` in a model's folder or its run's, where there is one."""
    folders: list[Path] = [model, *([model.parent] if model.name == "adapter" else [])]
    found = (folder / "evaluation" / RESULTS for folder in folders)
    return next((path for path in found if path.is_file()), None)


def read_measured(path: Path, method: str | None, model_sha256: str | None = None) -> Measured:
    """The figures of a method. path: `results.json`, or the folder of it; method: None where there is but one.

    model_sha256: of the model's card; what another model drew for is refused, where the file says who drew. Raises
    `DataError` for that, and for a file that `evaluate` did not write, `SettingsError` where it is not clear which
    method.
    """
    path = path / RESULTS if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        table = document["table1"]
        methods = {name: ranks for name, ranks in table.items() if name != _REAL}
        protocol = document.get("protocol", {})
        chosen = _chosen(path, list(methods), method)
        drew = [str(one) for one in document.get("models", {}).get(chosen, ())]
        figures = tuple(figure for rank, metrics in methods[chosen].items() for figure in _figures(rank, metrics))
        told = (str(protocol.get("dataset", "")), str(protocol.get("extractor", "")), str(document.get("command", "")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path}: is no results.json of `taxadiffusion evaluate` ({type(error).__name__}: {error})"
        ) from error
    if model_sha256 is not None and drew and model_sha256 not in drew:
        raise DataError(
            f"{path}: {chosen} was drawn by another model, not by this one ({model_sha256[:12]}…); evaluate this one, "
            "or name its evaluation with --evaluation"
        )
    return Measured(*told, figures)


def _chosen(path: Path, methods: list[str], method: str | None) -> str:
    if method is None and len(methods) == 1:
        return methods[0]
    if method not in methods:
        what = "say which is this model" if method is None else f"{method!r} is none of them"
        raise SettingsError(f"{path}: holds figures of {', '.join(methods) or 'no method'}; {what} with --method NAME")
    return method


def _figures(rank: Rank, metrics: Mapping[str, Any]) -> list[Figure]:
    found = []
    for metric in METRICS:
        if metric.key not in metrics:
            continue
        mean, low, high = (float(metrics[metric.key][part]) for part in ("mean", "low", "high"))
        if not all(map(math.isfinite, (mean, low, high))):
            raise ValueError(f"{metric.key} at {rank} is not a finite number")
        found.append(Figure(rank, metric.key, metric.label, mean, low, high))
    return found


def measured_lines(measured: Measured | None) -> list[str]:
    """Markdown: a table of figures; where there are none, that it says so."""
    if measured is None:
        return ["Nobody has measured it: no evaluation lies beside the model. How right its pictures are is not known."]
    rows = [
        f"| {figure.rank} | {figure.label} | {figure.mean:.3f} | {figure.low:.3f} to {figure.high:.3f} |"
        for figure in measured.figures
    ]
    return [
        f"Against real photographs of `{measured.dataset}`, seen by `{measured.extractor}`; intervals at 95 %.",
        "",
        "| rank | metric | value | interval |",
        "|---|---|---:|---:|",
        *rows,
        *(["", f"    {measured.command}"] if measured.command else []),
    ]
