"""What a run learns from: one prepared set, and where it goes on from an adapter also that one's taxa."""

# Letters: N rows of all sets, one after another.
from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.adapter import LearnedSet
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage, Rank, ordered_ranks
from taxadiffusion.run.held_out import hold_out
from taxadiffusion.taxonomy import Taxonomy, TaxonomyBuilder

MAX_REPLAY_HELD_OUT = 128
"""Photographs to replay held out where they have no validation split: losses of old taxa are measured there."""

_MAX_LISTED = 5


@dataclass(frozen=True)
class Photographs:
    """Rows of all sets, the run's own first."""

    sets: tuple[PreparedDataset, ...]
    taxonomy: Taxonomy
    taxon_ids: NDArray[np.int32]
    """(N,) in the taxonomy."""
    train_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]
    replay_rows: NDArray[np.int64]
    """Of the training rows, those of the set that is replayed."""
    num_known: int = 0
    """The first so many taxa are those of the adapter gone on from."""

    def taxa(self, ranks: Sequence[Rank]) -> tuple[Lineage, ...]:
        """The lineage of every taxon id, over the ranks that are trained."""
        return tuple(self.taxonomy.lineage(taxon_id).only(ranks) for taxon_id in range(len(self.taxonomy)))

    def source_taxon_ids(self, known: Mapping[int, str]) -> dict[int, str]:
        """Taxon → its source's id: what the run's own set says, over what the adapter said."""
        own = self.sets[0]
        if not self.num_known:
            return own.source_taxon_ids()
        numbers = _numbers(own.taxonomy, self.taxonomy)
        found = {numbers[taxon]: text for taxon, text in own.source_taxon_ids().items() if numbers[taxon] >= 0}
        return dict(sorted({**known, **found}.items()))

    def learned_sets(self) -> tuple[LearnedSet, ...]:
        """What the run trains on, by set, for the adapter's card."""
        found, start = [], 0
        for number, dataset in enumerate(self.sets):
            rows = self.train_rows[(self.train_rows >= start) & (self.train_rows < start + len(dataset))]
            found.append(
                LearnedSet(
                    name=dataset.path.name,
                    content_hash=dataset.content_hash,
                    num_photographs=len(rows),
                    num_taxa=len(np.unique(self.taxon_ids[rows])),
                    replayed=number > 0,
                )
            )
            start += len(dataset)
        return tuple(found)


def of_one_set(
    dataset: PreparedDataset, train_rows: NDArray[np.int64], validation_rows: NDArray[np.int64]
) -> Photographs:
    """Of a run that begins anew."""
    return Photographs((dataset,), dataset.taxonomy, dataset.taxon_ids(), train_rows, validation_rows, train_rows[:0])


def joined(
    own: Photographs, known: Taxonomy, ranks: Sequence[Rank], replay: PreparedDataset | None, seed: int
) -> Photographs:
    """With the taxa of an adapter, which keep their ids, and photographs of them. Raises `DataError`.

    Missing names of higher ranks are those that the adapter's taxonomy has above the genus (or whichever taxon it
    knows). ranks: those the adapter was trained on.
    """
    dataset = own.sets[0]
    builder = TaxonomyBuilder(known.ranks, known)
    complete = _Completion(known)
    lineages = [complete(dataset.taxonomy.lineage(taxon)) for taxon in range(len(dataset.taxonomy))]
    provisional = np.array([builder.add(lineage) for lineage in lineages], np.int32)
    _check_ranks(dataset, lineages, provisional, ranks)
    taxonomy, final = builder.finish()
    taxon_ids = [final[provisional[dataset.taxon_ids()]]]
    train, validation, again = [own.train_rows], [own.validation_rows], own.train_rows[:0]
    if replay is not None:
        if replay.content_hash == dataset.content_hash:
            raise DataError(f"start.replay: {replay.path} is the set to learn from: give one of taxa known before")
        taxon_ids.append(_known_ids(replay, known))
        held_out = replay.rows("val") if len(replay.rows("val")) else hold_out(replay, MAX_REPLAY_HELD_OUT, seed).rows
        again = np.setdiff1d(replay.rows("train"), held_out) + len(dataset)
        if not len(again):
            raise DataError(f"start.replay: {replay.path} has no photograph in its split “train”")
        train.append(again)
        validation.append(held_out + len(dataset))
    return Photographs(
        (dataset, replay) if replay is not None else (dataset,),
        taxonomy,
        np.concatenate(taxon_ids),
        np.concatenate(train),
        np.concatenate(validation),
        again,
        len(known),
    )


class _Completion:
    """Adds to a lineage the names that a taxonomy has above the finest of its taxa that it knows by one name alone."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.by_name: defaultdict[tuple[Rank, str], list[int]] = defaultdict(list)
        for taxon in range(len(taxonomy)):
            self.by_name[taxonomy.rank(taxon), taxonomy.name(taxon)].append(taxon)

    def __call__(self, lineage: Lineage) -> Lineage:
        for rank, name in reversed(lineage.names):
            found = self.by_name.get((rank, name), [])
            if rank not in ("species", "subspecies") and len(found) == 1:  # an epithet alone names nothing
                return Lineage.of({**dict(self.taxonomy.lineage(found[0]).names), **dict(lineage.names)})
        return lineage


def _check_ranks(
    dataset: PreparedDataset, lineages: Sequence[Lineage], ids: NDArray[np.int32], ranks: Sequence[Rank]
) -> None:
    """Ranks that the set does not have must be known of each of its taxa. Raises `DataError`."""
    shown = np.unique(dataset.taxon_ids()).tolist()
    absent = [rank for rank in ranks if rank not in dataset.ranks]
    gaps = {}
    for taxon in shown:
        lineage = lineages[taxon].only(ranks)
        missing = [rank for rank in absent if rank in ranks[: _depth(lineage, ranks)] and lineage.get(rank) is None]
        if ids[taxon] < 0 or not lineage or missing:
            gaps[lineages[taxon].label] = ", ".join(missing or ranks)
    if gaps:
        listed = "; ".join(f"{label}: no {missing}" for label, missing in list(gaps.items())[:_MAX_LISTED])
        more = f"; … {len(gaps)} taxa in all" if len(gaps) > _MAX_LISTED else ""
        raise DataError(
            f"{dataset.path}: its ranks are {', '.join(dataset.ranks)}, the adapter's {', '.join(ranks)}, and the "
            f"adapter knows no relative that says what is missing ({listed}{more}): add these columns to the table, or "
            "prepare it with --names (a catalogue)"
        )


def _depth(lineage: Lineage, ranks: Sequence[Rank]) -> int:
    """How many of the ranks lie down to the lineage's finest name."""
    return max((index + 1 for index, rank in enumerate(ranks) if lineage.get(rank)), default=0)


def _numbers(theirs: Taxonomy, taxonomy: Taxonomy) -> NDArray[np.int32]:
    """Their taxon → the same one's id in `taxonomy`, -1 where there is none."""
    builder, complete = TaxonomyBuilder(taxonomy.ranks, taxonomy), _Completion(taxonomy)
    ids = np.array([builder.add(complete(theirs.lineage(taxon))) for taxon in range(len(theirs))], np.int32)
    return np.where(ids < len(taxonomy), ids, -1).astype(np.int32)


def _known_ids(replay: PreparedDataset, known: Taxonomy) -> NDArray[np.int32]:
    """The adapter's taxon of each photograph to replay. Raises `DataError` for taxa that it does not know."""
    numbers = _numbers(replay.taxonomy, known)
    shown = np.unique(replay.taxon_ids())
    unknown = shown[numbers[shown] < 0].tolist()
    if unknown:
        labels = ", ".join(str(replay.taxonomy.lineage(taxon)) for taxon in unknown[:_MAX_LISTED])
        raise DataError(
            f"start.replay: {replay.path} holds {len(unknown)} taxa that the adapter does not know, e.g. {labels}: "
            "photographs to learn new taxa from belong into data.path"
        )
    return numbers[replay.taxon_ids()]


def new_ranks(photographs: Photographs, ranks: Sequence[Rank]) -> tuple[Rank, ...]:
    """The ranks whose stage has something to learn: from the coarsest with a new name on; the finest, without any."""
    own = photographs.taxa(ranks)
    new = {lineage.rank for lineage in own[photographs.num_known :] if lineage}
    shown = [own[taxon] for taxon in np.unique(photographs.taxon_ids[photographs.train_rows]).tolist()]
    named = [rank for rank in ranks if any(lineage.get(rank) for lineage in shown)]
    first = min((ranks.index(rank) for rank in new if rank in ranks), default=None)
    return tuple(named[-1:] if first is None else (rank for rank in named if ranks.index(rank) >= first))


def ordered_extra(dataset: PreparedDataset, known: Taxonomy) -> tuple[Rank, ...]:
    """Ranks of the set that the adapter's taxonomy does not have, and that are left out."""
    return tuple(rank for rank in ordered_ranks(dataset.ranks) if rank not in known.ranks)
