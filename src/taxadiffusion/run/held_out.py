"""Photographs held out of training for validation, where the data set has no validation split of its own."""

# Letters: N rows of the data set, G groups of training rows.
from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.base.weights import read_json
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import CheckpointError
from taxadiffusion.files import joined_hash, whole

FILE = "held_out.json"
MIN_PHOTOGRAPHS = 20
"""A taxon with fewer training photographs gives none away."""
MAX_SHARE = 0.1
"""Nor does any taxon give more than this share of its own."""


@dataclass(frozen=True)
class HeldOut:
    """Rows of the training split that a run does not train on, ascending."""

    rows: NDArray[np.int64]
    data_hash: str

    @property
    def identity(self) -> str:
        """What a resumed run must share: the data, and which of it is held out."""
        return joined_hash((self.data_hash, hashlib.sha256(self.rows.astype("<i8").tobytes()).hexdigest()))

    def words(self, dataset: PreparedDataset, run_dir: Path) -> str:
        num_taxa = len(np.unique(dataset.taxon_ids(self.rows)))
        return (
            f"validation: {dataset.path} has no validation split, so {len(self.rows):,} photographs of {num_taxa:,} "
            f"taxa are held out of training ({run_dir / FILE})"
        )


def hold_out(dataset: PreparedDataset, num_samples: int, seed: int) -> HeldOut:
    """About `num_samples` training photographs, or as many as the limits above allow (none, perhaps).

    Whole groups, spread over the taxa, chosen by the groups' hashes and the seed: the same in any process and any order
    of rows.
    """
    rows = dataset.rows("train")
    taxa = dataset.taxon_ids(rows)
    counts = np.bincount(taxa, minlength=len(dataset.taxonomy))
    limits = np.where(counts >= MIN_PHOTOGRAPHS, np.floor(counts * MAX_SHARE), 0).astype(np.int64)
    if not limits.any():
        return HeldOut(rows[:0], dataset.content_hash)
    hashes = np.fromiter((_hash64(group, seed) for group in dataset.groups(rows)), np.uint64, len(rows))
    names, group_of_row, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    by_group = np.argsort(group_of_row, kind="stable")  # rows of a group side by side
    starts = np.cumsum(sizes) - sizes
    taxon_of_group = np.full(len(names), np.iinfo(np.int32).max, np.int32)
    np.minimum.at(taxon_of_group, group_of_row, taxa)
    order = np.argsort(taxon_of_group, kind="stable")  # within a taxon by hash, for names are sorted
    first = np.r_[True, np.diff(taxon_of_group[order]) != 0]
    place = np.arange(len(order)) - np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    taken: list[NDArray[np.int64]] = []
    num_taken = 0
    for group in order[np.lexsort((names[order], place))]:  # one of each taxon, then a second one …
        if num_taken >= num_samples:
            break
        members = by_group[starts[group] : starts[group] + sizes[group]]
        own, numbers = np.unique(taxa[members], return_counts=True)
        if (limits[own] >= numbers).all():
            limits[own] -= numbers
            taken.append(rows[members])
            num_taken += len(members)
    found = np.sort(np.concatenate(taken)) if taken else rows[:0]
    return HeldOut(found, dataset.content_hash)


def recorded(run_dir: Path, dataset: PreparedDataset) -> HeldOut | None:
    """What the run holds out; None where it holds out nothing, or of another data set. Raises `CheckpointError`."""
    path = run_dir / FILE
    if not path.exists():
        return None
    document = read_json(path)
    try:
        rows, data_hash = np.array([entry["row"] for entry in document["images"]], np.int64), str(document["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not the list of held-out photographs that a run writes ({error!r})") from error
    if data_hash != dataset.content_hash:
        return None
    if not len(rows) or not np.isin(rows, dataset.rows("train")).all() or (np.diff(rows) <= 0).any():
        raise CheckpointError(f"{path}: its rows are no training rows of {dataset.path}; restore it from a backup")
    return HeldOut(rows, data_hash)


def record(held_out: HeldOut, run_dir: Path, dataset: PreparedDataset) -> None:
    """Write it into the run directory, whole or not at all. Raises `CheckpointError`."""
    images = []
    for row in held_out.rows.tolist():
        entry = dataset.record(row)
        base = dataset.root if entry.path.is_relative_to(dataset.root) else dataset.path
        name = entry.path.relative_to(base).as_posix()
        images.append({"row": row, "file": name, "taxon": dataset.taxonomy.lineage(entry.taxon_id).label})
    document: dict[str, Any] = {"data": held_out.data_hash, "images": images}
    try:
        with whole(run_dir / FILE, durable=True) as aside:
            aside.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{run_dir / FILE}: cannot be written ({error.strerror}); make room and run it again"
        ) from error


def _hash64(group: str, seed: int) -> int:
    key = seed.to_bytes(8, "little")
    digest = hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8, key=key, person=b"held out")
    return int.from_bytes(digest.digest(), "little")
