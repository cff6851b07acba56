"""The generator as a taxonomist, measured: against a probe at every rank, its growth with taxa, planted label errors,
and genera moved to a wrong family.

`python -m benchmarks.identify WHAT --model MODEL --data PREPARED --out FOLDER [--limit N]`. Results of each photograph
are kept in the folder, so the same command goes on, and a larger `--limit` adds to what is there; `moved` begins anew.

ranks: held-out photographs named by the model and by a linear probe on the features of `--onnx FILE` (fitted on the
training photographs; also at even odds, as if all species were equally frequent), the share named right at every rank,
and apart for species of at most `--rare` training photographs. Probabilities are fitted on one half of the photographs
and judged on the other. growth: the same model walking ever larger parts of its taxonomy. doubts: a share of labels is
exchanged for another species'; precision and recall of the doubts by threshold. moved: each genus of the data that the
model did not learn, though it knows its family, is compared in its own place and in every other known family, as
`identify --compare` does.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from taxadiffusion.adapter import open_model
from taxadiffusion.base.device import chosen_device
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.extraction import FeatureStore
from taxadiffusion.evaluate.pictures import Pictures, photographs
from taxadiffusion.features.onnx import OnnxExtractor
from taxadiffusion.identify.doubts import doubts
from taxadiffusion.identify.held_out import Judged, calibrated, drawn_rows, judged, right_at
from taxadiffusion.identify.identifier import Identifier
from taxadiffusion.identify.placements import Move, Preference, moves, preferences
from taxadiffusion.identify.walk import WalkSettings
from taxadiffusion.metrics.intervals import mean_of_means
from taxadiffusion.metrics.probe import choose_penalty, fit_probe
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.taxonomy import TaxonomyBuilder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identify", description=__doc__)
    parser.add_argument("what", choices=("ranks", "growth", "doubts", "moved"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="the prepared set")
    parser.add_argument("--out", type=Path, required=True, help="where results are kept")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="so many photographs; none: all of the split")
    parser.add_argument("--onnx", type=Path, help="the probe's network (ranks)")
    parser.add_argument("--size-px", type=int, default=128, help="of the probe's photographs")
    parser.add_argument("--rare", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 30, 100], help="species (growth)")
    parser.add_argument("--planted", type=float, default=0.05, help="share of labels exchanged (doubts)")
    parser.add_argument("--max-draws", type=int, default=32)
    parser.add_argument("--beam", type=int, default=3)
    parser.add_argument("--separation", type=float, default=2.0)
    parser.add_argument("--base")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dataset = PreparedDataset.open(options.data)
    adapter = open_model(options.model, base=options.base, device=chosen_device(options.device))
    way = WalkSettings(options.separation, (min(8, options.max_draws), options.max_draws), options.beam)
    identifier = Identifier(adapter, way)
    options.out.mkdir(parents=True, exist_ok=True)
    measures = {"ranks": ranks, "growth": growth, "doubts": planted_errors, "moved": moved_genera}
    found = measures[options.what](identifier, dataset, options)
    command = shlex.join(["python", "-m", "benchmarks.identify", *sys.argv[1:]])
    document = {"command": command, "settings": identifier.way, "model": adapter.card.content_hash, **found}
    (options.out / f"{options.what}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=1))


def walked(identifier: Identifier, dataset: PreparedDataset, rows: Sequence[int], journal: Path) -> list[Judged]:
    with Progress(*Progress.get_default_columns(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("walked", total=len(rows))
        told = lambda done, _: bar.update(task, completed=done)  # noqa: E731
        return list(judged(identifier, dataset, rows, journal, told))


def ranks(identifier: Identifier, dataset: PreparedDataset, options: argparse.Namespace) -> dict[str, Any]:
    """Share named right at every rank, beside the probe's; time; how good the probabilities are."""
    rows = drawn_rows(dataset, options.split, options.limit, options.seed)
    found = walked(identifier, dataset, rows, options.out / "ranks.jsonl")
    right = {one.row: right_at(identifier, one) for one in found}
    probes = probes_right(dataset, list(right), options) if options.onnx else {}
    counts = dataset.counts("train")
    rare = {row for row in right if counts[dataset.taxon_ids()[row]] <= options.rare}
    table: dict[str, Any] = {}
    for rank in identifier.tree.ranks:
        asked = [row for row in right if rank in right[row]]
        for name, chosen in (("all", asked), ("rare", [row for row in asked if row in rare])):
            if chosen:
                entry = {"photographs": len(chosen), "identify": mean(right[row][rank] for row in chosen)}
                for kind, probe in probes.items():
                    entry[kind] = mean(probe[row].get(rank, False) for row in chosen)
                table[f"{rank}, {name}"] = entry
    return {
        "right": table,
        "seconds_per_photograph": mean(one.seconds for one in found),
        "predictions_per_photograph": mean(one.num_predictions for one in found),
        "calibration": calibration_error(identifier, found),
    }


def probes_right(
    dataset: PreparedDataset, rows: Sequence[int], options: argparse.Namespace
) -> dict[str, dict[int, dict[Rank, bool]]]:
    """Whether a probe fitted on all training photographs names each held-out one right, by rank: as it is, and as if
    all species were equally frequent."""
    extractor, store = OnnxExtractor(options.onnx), FeatureStore(options.out / "features", with_data=True)

    def told(done: int, total: int) -> None:
        print(f"features {done} of {total}", file=sys.stderr)

    def seen(split: str) -> tuple[Pictures, np.ndarray]:
        pictures = photographs(dataset, split, dataset.ranks)
        return pictures, store.features(pictures, extractor, options.size_px, told)

    train, features = seen("train")
    taxa = sorted(set(train.lineages), key=lambda lineage: lineage.names)
    labels = np.array([taxa.index(lineage) for lineage in train.lineages])
    penalty = choose_penalty(features, labels, seed=options.seed).inverse_penalty
    probe = fit_probe(features, labels, tuple(map(str, taxa)), inverse_penalty=penalty)
    _, features = seen(options.split)
    shown = [row for row in map(int, dataset.rows(options.split)) if dataset.lineage(row).only(dataset.ranks)]
    truths = {row: dataset.lineage(row) for row in rows}
    kinds = {"probe": None, "probe, even odds": np.bincount(labels)}
    named = {
        kind: {row: taxa[i] for row, i in zip(shown, probe.predict(features, counts), strict=True)}
        for kind, counts in kinds.items()
    }
    return {
        kind: {
            row: {rank: found[row].truncated(rank) == truth.truncated(rank) for rank in truth.ranks}
            for row, truth in truths.items()
        }
        for kind, found in named.items()
    }


def calibration_error(identifier: Identifier, found: Sequence[Judged]) -> dict[str, Any]:
    """Fitted on every other photograph, judged on the rest: Brier score, and said against right by tenths."""
    calibration = calibrated(identifier, found[::2], "every other one")
    said: dict[Rank, list[tuple[float, bool]]] = {}
    for one in found[1::2]:
        right = right_at(identifier, one)
        evidence = [(identifier.tree.rank(taxon), seen) for taxon, seen in zip(one.path, one.evidence, strict=True)]
        for (rank, _), probability in zip(evidence, calibration.probabilities(evidence), strict=True):
            if probability is not None and rank in right:
                said.setdefault(rank, []).append((probability, right[rank]))
    return {rank: judged_probabilities(pairs) for rank, pairs in said.items()}


def judged_probabilities(pairs: Sequence[tuple[float, bool]]) -> dict[str, float]:
    said, right = np.array([p for p, _ in pairs]), np.array([r for _, r in pairs], float)
    tenth = np.minimum((said * 10).astype(int), 9)
    gaps = [abs(said[tenth == i].mean() - right[tenth == i].mean()) * (tenth == i).mean() for i in np.unique(tenth)]
    return {
        "photographs": len(pairs),
        "right": float(right.mean()),
        "said": float(said.mean()),
        "brier": float(((said - right) ** 2).mean()),
        "expected_calibration_error": float(sum(gaps)),
    }


def growth(identifier: Identifier, dataset: PreparedDataset, options: argparse.Namespace) -> dict[str, Any]:
    """Predictions and seconds a photograph by the number of species the walk has to choose among."""
    everything = identifier.adapter.taxonomy
    finest = identifier.tree.ranks[-1]
    tips = np.random.default_rng(options.seed).permutation(everything.at_rank(finest))
    table = []
    for size in [*(size for size in options.sizes if size < len(tips)), len(tips)]:
        builder = TaxonomyBuilder(everything.ranks)
        for tip in tips[:size]:
            builder.add(everything.lineage(int(tip)))
        part = Identifier(replace(identifier.adapter, taxonomy=builder.finish()[0]), identifier.settings)
        known = {everything.lineage(int(tip)) for tip in tips[:size]}
        rows = [row for row in drawn_rows(dataset, options.split, None, options.seed) if dataset.lineage(row) in known]
        found = walked(part, dataset, rows[: options.limit], options.out / f"growth-{size}.jsonl")
        if found:
            table.append(
                {
                    "species": size,
                    "photographs": len(found),
                    "right": mean(right_at(part, one).get(finest, False) for one in found),
                    "predictions": mean(one.num_predictions for one in found),
                    "seconds": mean(one.seconds for one in found),
                    "predictions_of_all_species": size * identifier.settings.draws[1],
                }
            )
    return {"growth": table}


def planted_errors(identifier: Identifier, dataset: PreparedDataset, options: argparse.Namespace) -> dict[str, Any]:
    """Precision and recall of the doubts, with so many labels exchanged for another species'."""
    rows = drawn_rows(dataset, options.split, options.limit, options.seed)
    labels = {row: identifier.tree.deepest(dataset.lineage(row)) for row in rows}
    tips = identifier.adapter.taxonomy.at_rank(identifier.tree.ranks[-1])
    planted: dict[int, int] = {}
    for row in rows:  # a row's fate does not depend on how many are looked at
        rng = np.random.default_rng((options.seed, row))
        if labels[row] is not None and rng.random() < options.planted:
            planted[row] = int(rng.choice([tip for tip in tips if tip != labels[row]]))
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("doubted", total=len(rows))
        told = lambda done, _: bar.update(task, completed=done)  # noqa: E731
        journal = options.out / "doubts.jsonl"
        found = list(doubts(identifier, dataset, rows, journal, labels=planted, progress=told))
    scores = np.array([one.standard_errors for one in found])
    wrong = np.array([one.row in planted for one in found])
    table = []
    for threshold in (1, 2, 3, 4, 5, 7, 10):
        doubted = scores > threshold
        table.append(
            {
                "standard_errors": threshold,
                "doubted": int(doubted.sum()),
                "precision": float(wrong[doubted].mean()) if doubted.any() else None,
                "recall": float(doubted[wrong].mean()) if wrong.any() else None,
            }
        )
    return {"photographs": len(found), "planted": int(wrong.sum()), "doubts": table}


def moved_genera(identifier: Identifier, dataset: PreparedDataset, options: argparse.Namespace) -> dict[str, Any]:
    """Of each genus that the model did not learn, and each other place that it knows: which place explains it better.

    `gain_percent` is how much smaller the loss is in the own place; of several genera, their mean with its interval.
    """
    ranks = identifier.tree.ranks
    family = ranks[ranks.index("genus") - 1]
    families = [identifier.tree.lineage(taxon) for taxon in identifier.adapter.taxonomy.at_rank(family)]
    rows_of: dict[Lineage, list[int]] = defaultdict(list)
    for row in drawn_rows(dataset, options.split, options.limit, options.seed):
        genus = dataset.lineage(row).only(ranks).truncated("genus")
        known = identifier.tree.deepest(genus)
        if genus.rank == "genus" and known is not None and identifier.tree.lineage(known) == genus.truncated(family):
            rows_of[genus].append(row)
    if not rows_of:
        raise DataError(f"{dataset.path}: shows no genus that the model did not learn in a {family} that it knows")
    comparisons = []
    with Progress(console=Console(stderr=True)) as bar:
        for genus, rows in sorted(rows_of.items(), key=lambda item: item[0].names):
            asked: dict[tuple[Lineage, Lineage], dict[Lineage, Move]] = {}
            for place in families:
                elsewhere = [
                    Lineage((*place.names, *dataset.lineage(row).only(("genus", "species")).names)) for row in rows
                ]
                for lineage, move in moves(map(dataset.lineage, rows), elsewhere, ranks).items():
                    asked.setdefault((move.own, move.other), {})[lineage] = move
            for found in bar.track(list(asked.values()), description=genus.label):
                comparisons += preferences(identifier, dataset, rows, found)
    return {"experiments": {"moved": summed_up(comparisons)}}


def summed_up(comparisons: Sequence[Preference]) -> dict[str, Any]:
    """The comparisons counted by the rank at which the two places part, and by genus, and each of them."""
    by_rank: dict[str, list[Preference]] = defaultdict(list)
    by_genus: dict[str, list[Preference]] = defaultdict(list)
    for one in comparisons:
        by_rank[str(one.move.own.rank)].append(one)
        by_genus[one.move.taxon].append(one)
    table: dict[str, Any] = {}
    for name, some in (*by_rank.items(), *by_genus.items()):
        gains: dict[str, list[float]] = defaultdict(list)
        for one in some:
            gains[one.move.taxon].append(100 * one.gain.mean)
        means = np.array([[np.mean(values)] for values in gains.values()])  # (genera, 1)
        table[name] = {
            "genera": len(gains),
            "species": sum({one.move.taxon: one.num_species for one in some}.values()),
            "photographs": sum({one.move.taxon: one.num_images for one in some}.values()),
            "places": len(some),
            **{verdict: sum(one.verdict == verdict for one in some) for verdict in ("own", "other", "undecided")},
            "smaller_in_own": sum(one.gain.mean > 0 for one in some),
            "gain_percent": mean_of_means(means, len(means)).to_json(),
        }
    return {
        "table1": table,
        "comparisons": [
            {
                "taxon": one.move.taxon,
                "own": str(one.move.own),
                "other": str(one.move.other),
                "verdict": one.verdict,
                "gain_percent": {
                    key: None if value is None else 100 * value for key, value in one.gain.to_json().items()
                },
                "photographs": one.num_images,
                "species": one.num_species,
                "learnt": one.learnt,
            }
            for one in comparisons
        ],
    }


def mean(values: Any) -> float:
    return round(float(np.mean([float(value) for value in values])), 4)


if __name__ == "__main__":
    main()
