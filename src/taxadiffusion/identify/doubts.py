"""Labels that a model doubts: another taxon explains the photograph better than the one it bears."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError
from taxadiffusion.files import whole
from taxadiffusion.identify.held_out import Progress, head_of, silent
from taxadiffusion.identify.identifier import Identifier
from taxadiffusion.identify.journal import Journal
from taxadiffusion.images import ImageError

DOUBTFUL = 3.0
"""Standard errors by which another taxon must be ahead of the label."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One photograph. standard_errors: by which the rival is ahead of the label, below 0 where the label is ahead."""

    row: int
    label: int
    rival: int
    standard_errors: float
    num_draws: int


def doubts(
    identifier: Identifier,
    dataset: PreparedDataset,
    rows: Sequence[int],
    journal: Path,
    *,
    labels: Mapping[int, int] | None = None,
    progress: Progress = silent,
    left_out: Counter[str] | None = None,
) -> Iterator[Doubt]:
    """Each photograph of `rows`, its label against the best of the other taxa; those in the journal are read from it.

    labels: of some rows, another taxon of the model than the data set's label (planted errors). left_out: counts, by
    reason, the photographs that cannot be judged.
    """
    left_out = Counter() if left_out is None else left_out
    planted = labels or {}
    kept = Journal(journal, head_of(identifier, dataset, "doubts"))
    with identifier.at_work():
        for done, row in enumerate(rows):
            progress(done, len(rows))
            label = planted.get(row, identifier.tree.deepest(dataset.lineage(row)))
            if label is None:
                left_out["the model knows none of its taxa"] += 1
                continue
            if row not in kept.rows or kept.rows[row].get("label") != label:
                kept.add(row, {"label": label, **_looked_at(identifier, dataset, row, label)})
            entry = kept.rows[row]
            if "fault" in entry:
                left_out["it cannot be read"] += 1
            elif entry["rival"] is None:
                left_out["its taxon has no rival in the model"] += 1
            else:
                yield Doubt(row, label, entry["rival"], entry["standard_errors"], entry["draws"])
    progress(len(rows), len(rows))


def _looked_at(identifier: Identifier, dataset: PreparedDataset, row: int, label: int) -> dict[str, object]:
    try:
        image = dataset.image(row, identifier.size_px, identifier.fit)
    except ImageError as error:
        return {"fault": str(error)}
    found = identifier.walk(image, label).against_all(label)
    if found is None:
        return {"rival": None, "standard_errors": 0.0, "draws": 0}
    ahead = -max(-1e6, min(1e6, found.standard_errors))
    return {"rival": found.rival, "standard_errors": ahead, "draws": found.num_draws}


def write_doubts(path: Path, identifier: Identifier, dataset: PreparedDataset, found: Iterable[Doubt]) -> None:
    """A table, the most doubtful first. Raises `DataError` where it cannot be written."""
    columns = ("file", "split", "label", "rather", "standard_errors", "draws")
    try:
        with whole(path) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(columns)
            for one in sorted(found, key=lambda doubt: -doubt.standard_errors):
                record = dataset.record(one.row)
                label, rival = (identifier.tree.lineage(taxon) for taxon in (one.label, one.rival))
                errors = f"{one.standard_errors:.2f}"
                table.writerow([str(record.path), record.split, str(label), str(rival), errors, one.num_draws])
    except OSError as error:
        raise DataError(f"{path}: the doubts cannot be written: {error.strerror}") from error
