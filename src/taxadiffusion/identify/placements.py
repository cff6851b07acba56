"""Two classifications of a group: under which place of a taxon do its photographs have the smaller loss?"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.dataset.columns import TAXONOMY
from taxadiffusion.errors import DataError
from taxadiffusion.identify.held_out import Progress, silent
from taxadiffusion.identify.identifier import Identifier
from taxadiffusion.images import ImageError
from taxadiffusion.metrics.intervals import Interval, mean_over_taxa
from taxadiffusion.names import RANKS, Lineage, Rank, rank_index
from taxadiffusion.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class Move:
    """A taxon that two classifications place differently: `own` and `other` end at the rank where they part."""

    taxon: str
    own: Lineage
    other: Lineage


@dataclass(frozen=True, slots=True)
class Preference:
    """gain: by how much the loss under `move.own` is the smaller, over species of the moved taxon and photographs, as a
    share of the loss. learnt: the model learnt the taxon in its own place, so its preference for that is no news."""

    move: Move
    gain: Interval
    num_images: int
    num_species: int
    learnt: bool

    @property
    def verdict(self) -> str:
        """ "own", "other", or "undecided" where the interval holds 0 or is not known."""
        if not self.gain.known or self.gain.low <= 0 <= self.gain.high:
            return "undecided"
        return "own" if self.gain.mean > 0 else "other"


def read_classification(path: Path) -> list[Lineage]:
    """The lineages of a prepared set, of its `taxonomy.parquet`, or of a CSV table with a column a rank.

    Raises `DataError` for a file that is none of these, and for a row without a name.
    """
    file = path / TAXONOMY if path.is_dir() else path
    if file.suffix == ".parquet":
        taxonomy = Taxonomy.read(file)
        return [taxonomy.lineage(taxon) for taxon in range(len(taxonomy))]
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as a table of lineages: {error}") from error
    found = []
    for number, row in enumerate(rows, 2):
        names = {rank: (row.get(rank) or "").strip() for rank in RANKS}
        if names["genus"]:
            names["species"] = names["species"].removeprefix(f"{names['genus']} ")
        lineage = Lineage.of(names)
        if not lineage:
            raise DataError(f"{file} row {number}: no name in any column of a rank (order, family, genus, species …)")
        found.append(lineage)
    if not found:
        raise DataError(f"{file}: holds no lineage")
    return found


def moves(own: Iterable[Lineage], other: Sequence[Lineage], ranks: Sequence[Rank]) -> dict[Lineage, Move]:
    """Which of `own` the other classification places otherwise, found there by rank and label where these are unique.

    A lineage is placed by the first of `ranks` at which both name a taxon and differ; what moved is the coarsest taxon
    below that has one name in both.
    """
    known: dict[tuple[Rank | None, str], set[Lineage]] = defaultdict(set)
    for lineage in other:
        for rank in lineage.ranks:
            cut = lineage.truncated(rank)
            known[rank, cut.label].add(cut)
    found = {}
    for lineage in dict.fromkeys(own):
        there = known.get((lineage.rank, lineage.label), set())
        if len(there) != 1:
            continue
        placed = next(iter(there))
        parted = next((rank for rank in ranks if _differ(lineage.get(rank), placed.get(rank))), None)
        if parted is None:
            continue
        finer = (rank for rank in lineage.ranks if rank_index(rank) > rank_index(parted))
        taxon = next((rank for rank in finer if lineage.get(rank) == placed.get(rank)), None)
        if taxon is not None:
            own_place, other_place = (one.truncated(parted).only(ranks) for one in (lineage, placed))
            found[lineage] = Move(lineage.truncated(taxon).label, own_place, other_place)
    return found


def _differ(ours: str | None, theirs: str | None) -> bool:
    return ours is not None and theirs is not None and ours != theirs


def preferences(
    identifier: Identifier,
    dataset: PreparedDataset,
    rows: Sequence[int],
    moved: Mapping[Lineage, Move],
    progress: Progress = silent,
    left_out: Counter[str] | None = None,
) -> list[Preference]:
    """For each move, over the photographs of its taxon among `rows`, which place has the smaller loss.

    Both places are seen through the same noises. left_out: counts photographs by why they say nothing.
    """
    left_out = Counter() if left_out is None else left_out
    gains: dict[Move, dict[Lineage, list[float]]] = defaultdict(lambda: defaultdict(list))
    asked = [row for row in rows if dataset.lineage(row) in moved]
    num_draws = identifier.settings.draws[1]
    backbone = identifier.adapter.denoiser.backbone
    with identifier.at_work():
        for done, row in enumerate(asked):
            progress(done, len(asked))
            lineage = dataset.lineage(row)
            move = moved[lineage]
            if not all(_known(identifier, place) for place in (move.own, move.other)):
                left_out["the model does not know both places"] += 1
                continue
            try:
                image = dataset.image(row, identifier.size_px, identifier.fit)
            except ImageError:
                left_out["it cannot be read"] += 1
                continue
            latents = backbone.encode(image[None])[0]
            own, other = identifier.losses(latents, [move.own, move.other], range(num_draws))
            gains[move][lineage].append(float((other - own).mean() / own.mean()))
    progress(len(asked), len(asked))
    return [_preference(identifier, move, by_species) for move, by_species in gains.items()]


def _known(identifier: Identifier, place: Lineage) -> bool:
    taxon = identifier.tree.deepest(place)
    return taxon is not None and identifier.tree.lineage(taxon) == place


def _preference(identifier: Identifier, move: Move, by_species: Mapping[Lineage, Sequence[float]]) -> Preference:
    gain = mean_over_taxa([[np.array(values)] for values in by_species.values()])
    taxonomy, own = identifier.adapter.taxonomy, identifier.tree.deepest(move.own)
    learnt = own is not None and any(taxonomy.lineage(below).label == move.taxon for below in taxonomy.subtree(own))
    return Preference(move, gain, sum(map(len, by_species.values())), len(by_species), learnt)
