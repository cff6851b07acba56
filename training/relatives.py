"""Does a species look like its relatives? How many pictures are named in their own family, genus …, beside chance.

    python -m training.relatives tables/butterflies/results.json --data prepared/butterflies --experiment rare \
        --method 0

Reads the namings of an evaluation or of a reproduction's experiment. Chance: which species a set of pictures was drawn
for is shuffled among the species, so how often each name is given stays as it is. `p` is the share of shuffles with as
many in the own taxon, or more; the species are what it counts, and one training stays one training.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage, Rank
from training.command import run

NUM_SHUFFLES = 20_000


def namings(method: Mapping[str, Any], known: Mapping[str, Lineage]) -> dict[Lineage, list[Lineage]]:
    """Taxon that pictures were asked to show → what each was named.

    Raises `DataError` for a name that is not known, and where the file does not say what every picture was named.
    """
    found: dict[str, list[str]] = {one["label"]: [] for one in method["taxa"]}
    for one in method["confusions"]:
        found[one["true"]] += [one["predicted"]] * one["count"]
    for one in method["taxa"]:
        right = round(one["named_right"] * one["num_images"])
        found[one["label"]] += [one["label"]] * right
        if len(found[one["label"]]) != one["num_images"]:
            raise DataError(f"{one['label']}: {len(found[one['label']])} of {one['num_images']} namings are there")
    if missing := sorted({*found, *(name for names in found.values() for name in names)} - {*known}):
        raise DataError(f"the data set shows no {missing[0]}; give the one that was measured on")
    return {known[true]: [known[name] for name in names] for true, names in found.items()}


def shares(named: Mapping[Lineage, Sequence[Lineage]], rank: Rank, seed: int = 0) -> tuple[float, float, float]:
    """→ share in the own taxon of this rank, its mean over shuffles, and p."""
    taxa = list(named)
    own = [taxon.truncated(rank) for taxon in taxa]
    counts = np.array([[sum(one.truncated(rank) == o for one in named[taxon]) for o in own] for taxon in taxa])
    total, rng = sum(map(len, named.values())), np.random.default_rng(seed)
    rows = np.arange(len(taxa))
    drawn = np.array([counts[rows, rng.permutation(len(taxa))].sum() for _ in range(NUM_SHUFFLES)])
    there = int(counts[rows, rows].sum())
    return there / total, float(drawn.mean()) / total, float((drawn >= there).sum() + 1) / (NUM_SHUFFLES + 1)


def command() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="results.json")
    parser.add_argument("--data", type=Path, required=True, help="the prepared set")
    parser.add_argument("--experiment", help="of a reproduction; none: an evaluation's results")
    parser.add_argument("--method", required=True, help="the row")
    args = parser.parse_args()
    document = json.loads(args.results.read_text(encoding="utf-8"))
    if args.experiment:
        document = document["experiments"][args.experiment]
    dataset = PreparedDataset.open(args.data)
    finest = dataset.ranks[-1]
    known = {one.label: one for one in map(dataset.taxonomy.lineage, dataset.taxonomy.at_rank(finest))}
    named = namings(document["details"][args.method][finest], known)
    print("| rank | in the own taxon | shuffled | p |\n|---|---|---|---|")
    for rank in dataset.ranks[:-1]:
        share, chance, p = shares(named, rank)
        if chance < 1:
            print(f"| {rank} | {share:.3f} | {chance:.3f} | {p:.5f} |")


if __name__ == "__main__":
    run(command)
