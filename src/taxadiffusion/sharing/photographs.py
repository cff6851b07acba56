"""What a model learnt from, in numbers: taxa and photographs per rank, and the photographs' licences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from taxadiffusion.adapter import Adapter
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError
from taxadiffusion.names import Rank

UNSTATED = "not stated"


@dataclass(frozen=True, slots=True)
class RankCount:
    """Of one rank. photographs: that name a taxon of it, and how many the rarest, median and commonest taxon has."""

    rank: Rank
    num_taxa: int
    num_photographs: int | None = None
    fewest: int | None = None
    median: float | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Learnt:
    """ranks: coarse to fine. licences: of the training photographs, most first; {} where no data set was looked at."""

    ranks: tuple[RankCount, ...]
    licences: Mapping[str, int]


def taxa_known(adapter: Adapter) -> Learnt:
    """What the model itself says: its taxa."""
    return Learnt(tuple(RankCount(rank, len(adapter.taxonomy.at_rank(rank))) for rank in adapter.card.ranks), {})


def photographs_learnt(adapter: Adapter, dataset: PreparedDataset) -> Learnt:
    """The training photographs of the data set. Raises `DataError` where the model is of another one."""
    if dataset.taxonomy.content_hash != adapter.card.taxonomy_hash:
        raise DataError(
            f"{dataset.path}: its taxa are not those that the model was trained on; give the data set of the training, "
            "or leave --data out"
        )
    counts = dataset.counts("train")
    ranks = []
    for rank in adapter.card.ranks:
        taxa = np.asarray(list(dataset.taxonomy.at_rank(rank)), dtype=np.int64)
        seen = counts[taxa][counts[taxa] > 0]
        if len(seen):
            found = (int(seen.sum()), int(seen.min()), float(np.median(seen)), int(seen.max()))
            ranks.append(RankCount(rank, len(seen), *found))
        else:
            ranks.append(RankCount(rank, 0, 0))
    licences = Counter(dataset.record(int(row)).license or UNSTATED for row in dataset.rows("train"))
    return Learnt(tuple(ranks), dict(licences.most_common()))


def learnt_lines(learnt: Learnt) -> Sequence[str]:
    """Markdown: a table of ranks and one of licences."""
    lines = ["| rank | taxa | photographs | fewest, median, most of a taxon |", "|---|---:|---:|---:|"]
    for count in learnt.ranks:
        if count.num_photographs is None:
            photographs, spread = UNSTATED, UNSTATED
        else:
            photographs = f"{count.num_photographs:,}"
            spread = f"{count.fewest:,}, {count.median:g}, {count.most:,}" if count.fewest is not None else "none"
        lines.append(f"| {count.rank} | {count.num_taxa:,} | {photographs} | {spread} |")
    if not learnt.licences:
        return [*lines, "", "Licences of the photographs: not stated here; ask whoever trained the model."]
    rows = [f"| {licence.replace('|', '/')} | {number:,} |" for licence, number in learnt.licences.items()]
    return [*lines, "", "| licence of the photographs | photographs |", "|---|---:|", *rows]
