"""Which images are held out for validation: whole groups, some of every taxon, independent of row order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from taxadiffusion.dataset.columns import SPLITS

TRAIN, VAL = SPLITS.index("train"), SPLITS.index("val")


def assign_splits(
    published: npt.NDArray[np.int8],
    taxon_ids: npt.NDArray[np.int32],
    groups: npt.NDArray[np.uint64],
    val_fraction: float,
) -> npt.NDArray[np.int8]:
    """Split of each of N rows. Rows without a published split train; of each taxon's training groups, `val_fraction`
    (rounded, never all) go to validation, chosen by the groups' hashes. Published val, test and judge rows stay.
    """
    splits = np.where(published < 0, TRAIN, published).astype(np.int8)
    if val_fraction <= 0 or not len(splits):
        return splits
    names, group_of_row = np.unique(groups, return_inverse=True)
    taxon_of_group = np.full(len(names), np.iinfo(np.int32).max, np.int32)
    np.minimum.at(taxon_of_group, group_of_row, taxon_ids)
    held_out = np.zeros(len(names), np.bool_)
    held_out[group_of_row[splits != TRAIN]] = True
    free = np.flatnonzero(~held_out)
    order = free[np.lexsort((_mixed(names[free]), taxon_of_group[free]))]
    taxa = taxon_of_group[order]
    starts = np.flatnonzero(np.r_[True, taxa[1:] != taxa[:-1]]) if len(taxa) else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[starts, len(taxa)])
    place = np.arange(len(taxa)) - np.repeat(starts, sizes)
    num_val = np.minimum(np.floor(sizes * val_fraction + 0.5), sizes - 1)
    chosen = np.zeros(len(names), np.bool_)
    chosen[order[place < np.repeat(num_val, sizes)]] = True
    splits[chosen[group_of_row]] = VAL
    return splits


def groups_across_splits(groups: npt.NDArray[np.uint64], splits: npt.NDArray[np.int8]) -> int:
    """Number of groups with rows in more than one split."""
    pairs = np.unique(np.stack([groups, splits.astype(np.uint64)]), axis=1)
    _, num_splits = np.unique(pairs[0], return_counts=True)
    return int((num_splits > 1).sum())


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finaliser (Steele et al. 2014), so that the order is unrelated to other uses of the hash."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
