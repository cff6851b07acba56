"""Photographs whose taxon is known, walked by a model: what a calibration and a measurement are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError
from taxadiffusion.identify.calibration import Calibration, fit_calibration
from taxadiffusion.identify.identifier import Answer, Identifier
from taxadiffusion.identify.journal import Journal
from taxadiffusion.identify.walk import Evidence
from taxadiffusion.images import ImageError
from taxadiffusion.names import Rank

Progress = Callable[[int, int], None]
"""Told how many photographs of how many are done."""

_MOST = 1e6  # standard errors; JSON has no infinity


def silent(_done: int, _total: int) -> None:
    """No progress."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One photograph: what it shows, as a taxon of the model, the path found, and its evidence."""

    row: int
    truth: int
    path: tuple[int, ...]
    evidence: tuple[Evidence, ...]
    num_predictions: int
    seconds: float


def drawn_rows(dataset: PreparedDataset, split: str, limit: int | None, seed: int = 0) -> list[int]:
    """Rows of a split in an order drawn by `seed`, the first `limit`: fewer are always a part of more.

    Raises `DataError` for a split without a photograph.
    """
    rows = dataset.rows(split)
    if not len(rows):
        raise DataError(f"{dataset.path}: split {split!r} holds no photograph; name another with --split")
    order = np.random.default_rng(seed).permutation(rows)
    return [int(row) for row in (order if limit is None else order[:limit])]


def head_of(identifier: Identifier, dataset: PreparedDataset, kind: str) -> dict[str, str]:
    """What results in a journal depend on."""
    return {
        "kind": kind,
        "model": identifier.adapter.card.content_hash,
        "data": dataset.content_hash,
        **identifier.way,
    }


def judged(
    identifier: Identifier,
    dataset: PreparedDataset,
    rows: Sequence[int],
    journal: Path,
    progress: Progress = silent,
    left_out: Counter[str] | None = None,
) -> Iterator[Judged]:
    """Each photograph of `rows` walked once; those in the journal are read from it.

    left_out: counts, by reason, the photographs that cannot be judged.
    """
    left_out = Counter() if left_out is None else left_out
    kept = Journal(journal, head_of(identifier, dataset, "walks"))
    with identifier.at_work():
        for done, row in enumerate(rows):
            progress(done, len(rows))
            truth = identifier.tree.deepest(dataset.lineage(row))
            if truth is None:
                left_out["the model knows none of its taxa"] += 1
                continue
            if row not in kept.rows:
                try:
                    answer = identifier(dataset.image(row, identifier.size_px, identifier.fit))
                except ImageError as error:
                    kept.add(row, {"fault": str(error)})
                else:
                    kept.add(row, _entry(identifier, answer))
            if "fault" in kept.rows[row]:
                left_out["it cannot be read"] += 1
                continue
            yield _read(kept.rows[row], truth)
    progress(len(rows), len(rows))


def right_at(identifier: Identifier, one: Judged) -> dict[Rank, bool]:
    """Whether each name of the path is right, at the ranks that the label names."""
    truth = {identifier.tree.rank(taxon): taxon for taxon in identifier.tree.path(one.truth)}
    named = {identifier.tree.rank(taxon): taxon for taxon in one.path}
    return {rank: named.get(rank) == taxon for rank, taxon in truth.items()}


def calibrated(identifier: Identifier, photographs: Sequence[Judged], words: str) -> Calibration:
    """The calibration that these photographs give; `words`: which they are. Raises `DataError` without any."""
    by_rank: dict[Rank, list[tuple[Evidence, bool]]] = {rank: [] for rank in identifier.tree.ranks}
    for one in photographs:
        right = right_at(identifier, one)
        for taxon, evidence in zip(one.path, one.evidence, strict=True):
            rank = identifier.tree.rank(taxon)
            if rank not in right:
                break
            by_rank[rank].append((evidence, right[rank]))
            if not right[rank]:
                break
    ranks = fit_calibration(by_rank)
    if not ranks:
        raise DataError(f"{words}: no photograph shows a taxon that has a rival in the model; nothing to calibrate by")
    model = identifier.adapter.card.content_hash
    return Calibration(model_sha256=model, settings=identifier.way, photographs=words, ranks=ranks)


def _entry(identifier: Identifier, answer: Answer) -> dict[str, Any]:
    path = () if answer.taxon is None else identifier.tree.path(answer.taxon)
    names = [
        [taxon, named.evidence.rival, *(_finite(value) for value in (named.evidence.standard_errors,
         named.evidence.effect)), named.evidence.num_draws, named.evidence.num_candidates]
        for taxon, named in zip(path, answer.names, strict=True)
    ]  # fmt: skip
    return {"names": names, "predictions": answer.num_predictions, "seconds": round(answer.seconds, 4)}


def _finite(value: float) -> float:
    return max(-_MOST, min(_MOST, value))


def _read(entry: dict[str, Any], truth: int) -> Judged:
    return Judged(
        entry["row"],
        truth,
        tuple(name[0] for name in entry["names"]),
        tuple(Evidence(*name[1:]) for name in entry["names"]),
        entry["predictions"],
        entry["seconds"],
    )
