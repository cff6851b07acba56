"""How often a model's pictures are named right, from the `results.json` that `evaluate` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.naming import FIRST_JUDGE
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.web.served import ServedModel

RESULTS = "results.json"
_REAL = "real_test_photographs"


@dataclass(frozen=True, slots=True)
class Share:
    """Named right: of all taxa of a rank with its interval, or of one taxon's images."""

    mean: float
    low: float | None = None
    high: float | None = None
    num_images: int | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Shares by rank and by taxon; photographs that nobody trained on are named right as often as `real` says."""

    method: str
    ranks: Mapping[Rank, Share]
    real: Mapping[Rank, Share]
    taxa: Mapping[Lineage, Share]
    num_photographs: Mapping[Lineage, int]


def found_evaluation(model: str) -> Path | None:
    """The evaluation that lies in a model's folder, where there is one."""
    places = (Path(model) / "evaluation" / RESULTS, Path(model) / RESULTS)
    return next((path for path in places if path.is_file()), None)


def read_evaluation(path: Path, model: ServedModel) -> Evaluated:
    """Of the method that this model drew for; where the file does not say who drew, of the one that bears the model's
    name, or the only one. Raises `DataError`, for an evaluation of another model too.

    path: the file, or the folder that it lies in.
    """
    file = path / RESULTS if path.is_dir() else path
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return _evaluated(document, file, model)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: is no evaluation that `taxadiffusion evaluate` wrote ({error!r})") from error


def _evaluated(document: Mapping[str, Any], file: Path, model: ServedModel) -> Evaluated:
    tables, details = document["table1"], document["details"]
    method = _method(document, file, model)
    taxa, photographs = {}, {}
    for rank in model.ranks:
        for entry in details[method].get(rank, {}).get("taxa", ()):
            lineage = Lineage.of(entry["taxon"]).only(model.ranks)
            photographs[lineage] = int(entry["num_photographs"])
            if entry["named_right"] is not None:
                taxa[lineage] = Share(float(entry["named_right"]), num_images=int(entry["num_images"]))
    return Evaluated(method, _by_rank(tables[method], model), _by_rank(tables.get(_REAL, {}), model), taxa, photographs)


def _method(document: Mapping[str, Any], file: Path, model: ServedModel) -> str:
    """Whose figures are this model's."""
    methods = [str(name) for name in document["table1"] if name != _REAL]
    drew: Mapping[str, Sequence[str]] = document.get("models", {})
    for name in methods:
        if model.facts.sha256 in drew.get(name, ()):
            return name
    silent = [name for name in methods if name not in drew]
    named = Path(model.name).name
    if methods and not silent:
        raise DataError(
            f"{file}: measures another model, not this one ({named}, {model.facts.sha256[:12]}…); evaluate this one, "
            "or name its evaluation with --evaluation"
        )
    if named in silent:
        return named
    if len(silent) != 1 or len(methods) != 1:
        raise DataError(
            f"{file}: measures {', '.join(methods)}, none of them called {named!r}; evaluate this model as {named}=PATH"
        )
    return silent[0]


def _by_rank(table: Mapping[str, Any], model: ServedModel) -> dict[Rank, Share]:
    judged = {rank: table[rank][FIRST_JUDGE] for rank in model.ranks if FIRST_JUDGE in table.get(rank, {})}
    return {rank: Share(float(i["mean"]), float(i["low"]), float(i["high"])) for rank, i in judged.items()}
