"""Name generated images by a linear probe fitted on real training photographs: the number a model is chosen by.

    python -m training.probe --real PREPARED --onnx FILE [--base DIR] [--generated DIR …] [--size-px 64] [--cache DIR]

Prints balanced accuracy at every rank, real test photographs beside it (with --base also after a pass through that
base's autoencoder, the most that images from it can reach), the ten rarest species alone, and what each species is
taken for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.evaluate.naming import FEWEST_PHOTOGRAPHS, Namer
from taxadiffusion.evaluate.pictures import Places, generated_folder, photographs
from taxadiffusion.features.cache import CachedExtractor
from taxadiffusion.features.onnx import OnnxExtractor
from taxadiffusion.metrics.naming import confusions, correct_at
from taxadiffusion.names import Lineage, Rank

RANKS: tuple[Rank, ...] = ("order", "family", "genus", "species")


def balanced_accuracy(rank: Rank, predicted: Sequence[Lineage], true: Sequence[Lineage]) -> float:
    """Share named correctly at `rank`, averaged within each deepest taxon of `true` first, then over taxa."""
    right = np.asarray(correct_at(rank, predicted, true), float)
    return float(np.mean([right[[other == taxon for other in true]].mean() for taxon in dict.fromkeys(true)]))


def print_scores(name: str, predicted: Sequence[Lineage], true: Sequence[Lineage], rarest: Sequence[Lineage]) -> None:
    """One line of balanced accuracies: each rank, then the rarest taxa alone at species rank."""
    scores = [f"{rank} {balanced_accuracy(rank, predicted, true):.3f}" for rank in reversed(RANKS)]
    rare = [i for i, taxon in enumerate(true) if taxon in set(rarest)]
    if rare:
        accuracy = balanced_accuracy("species", [predicted[i] for i in rare], [true[i] for i in rare])
        scores.append(f"rarest {len({true[i] for i in rare})} species {accuracy:.3f}")
    print(f"{name}: {'  '.join(scores)}  ({len(true)} images)", flush=True)


def print_taxa(predicted: Sequence[Lineage], true: Sequence[Lineage], namer: Namer) -> None:
    """Each taxon, rarest first: training photographs, share named right, and the commonest mistakes."""
    wrong = confusions(predicted, true)
    for count, taxon in sorted(zip(namer.counts, namer.taxa, strict=True), key=lambda pair: pair[0]):
        mine = [p for p, t in zip(predicted, true, strict=True) if t == taxon]
        if mine:
            mistakes = ", ".join(f"{c.predicted.label} {c.count}/{c.of}" for c in wrong if c.true == taxon)
            print(f"  {taxon.label:32s} {count:5d} photographs  right {mine.count(taxon)}/{len(mine)}  {mistakes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--real", type=Path, required=True, help="prepared data set")
    parser.add_argument("--generated", type=Path, nargs="*", default=[], help="folders with images and metadata.csv")
    parser.add_argument("--onnx", type=Path, required=True, help="feature network")
    parser.add_argument("--base", help="also name the test photographs as this base's autoencoder gives them back")
    parser.add_argument("--size-px", type=int, default=64)
    parser.add_argument("--cache", type=Path, default=Path("runs/features"), help="where features are kept")
    options = parser.parse_args()

    extractor = CachedExtractor(OnnxExtractor(options.onnx), options.cache)
    dataset = PreparedDataset.open(options.real)

    train = photographs(dataset, "train", RANKS)
    namer = Namer.fit(train.features(extractor, options.size_px), train.lineages, train.groups)
    if not namer.taxa:
        sys.exit(f"{train.name}: fewer than two species have {FEWEST_PHOTOGRAPHS} training photographs; none is judged")
    unjudged = {lineage for lineage in train.lineages if lineage.rank == "species"} - set(namer.taxa)
    if unjudged:
        print(f"not judged: {len(unjudged)} species with fewer than {FEWEST_PHOTOGRAPHS} training photographs")
    fewest = sorted(zip(namer.counts, namer.taxa, strict=True), key=lambda pair: pair[0])
    rarest = [taxon for _, taxon in fewest if taxon.rank == "species"][:10]
    test = photographs(dataset, "test", RANKS)
    if options.base:
        backbone = Backbone.load(options.base)
        passed = [backbone.decode(backbone.encode(batch)) for batch in test.images(options.size_px)]
        predicted = namer(np.concatenate([extractor(batch) for batch in passed]))
        print_scores(f"{test.name} through {options.base}", predicted, test.lineages, rarest)
    places = Places(train.lineages, dataset.ranks)
    sets = [test, *(generated_folder(folder, RANKS) for folder in options.generated)]
    for everything in sets:
        # images asked for at a coarser rank are no attempt at a species
        lineages = tuple(places(lineage, everything.name) for lineage in everything.lineages)
        pictures = replace(everything, lineages=lineages)
        pictures = pictures.select([i for i, lineage in enumerate(lineages) if lineage in set(namer.taxa)])
        predicted = namer(pictures.features(extractor, options.size_px))
        print_scores(pictures.name, predicted, pictures.lineages, rarest)
        print_taxa(predicted, pictures.lineages, namer)


if __name__ == "__main__":
    main()
