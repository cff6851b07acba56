"""What an evaluation found, as plain values that go to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.metrics.intervals import Interval, difference_over_taxa
from taxadiffusion.names import RANKS, Lineage, Rank

BUCKETS: tuple[tuple[str, int, int | None], ...] = (
    ("1–5", 1, 5),
    ("6–20", 6, 20),
    ("21–100", 21, 100),
    (">100", 101, None),
)
"""Frequency buckets: name, fewest and most training photographs of a taxon."""

LOWER_IS_BETTER = frozenset(
    {
        "frechet_distance",
        "kernel_distance",
        "lpips_to_real",
        "distance_to_real",
        "error_height",
        "copies",
        "trait_error",
    }
)
"""Metrics of which less is better; `nearer_than_real` is best at 0.5."""


def bucket_of(num_photographs: int) -> str:
    """The frequency bucket of a taxon with so many training photographs (1 or more)."""
    return next(
        name for name, low, high in BUCKETS if num_photographs >= low and (high is None or num_photographs <= high)
    )


@dataclass(frozen=True, slots=True)
class TaxonScores:
    """One taxon's images: share named right, how far off the others are, and copies among them."""

    taxon: Lineage
    num_photographs: int
    """In training."""
    num_images: int
    named_right: float
    error_height: float
    copies: float


@dataclass(frozen=True, slots=True)
class CopyPair:
    """A generated image and its nearest training photograph."""

    generated: str
    photograph: str
    taxon: Lineage
    distance: float
    flagged: bool


@dataclass(frozen=True, slots=True)
class ConfusionPair:
    """How many of `of` images of `true` were taken for `predicted`."""

    true: Lineage
    predicted: Lineage
    count: int
    of: int


@dataclass(frozen=True, slots=True)
class RankScores:
    """A method at one rank: every metric with its interval, the same by frequency bucket, and what lies behind them."""

    rank: Rank
    num_images: int
    metrics: Mapping[str, Interval]
    buckets: Mapping[str, Mapping[str, Interval]]
    taxa: tuple[TaxonScores, ...]
    confusions: tuple[ConfusionPair, ...]
    nearest: tuple[CopyPair, ...]
    """The pairs nearest to each other, nearest first."""
    traits: Mapping[str, float] = field(default_factory=dict)
    """Of a simulated clade: what the images tell of each species' true traits (`TraitScores.of_species`)."""
    right: Mapping[Lineage, tuple[NDArray[np.floating], ...]] = field(default_factory=dict)
    """By taxon and run: 1 for each image named right, 0 for the others."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """What the figures depend on beside the images: stated with every result."""

    dataset: str
    dataset_hash: str
    ranks: tuple[Rank, ...]
    extractor: str
    extractor_sha256: str
    size_px: int
    reference_split: str
    max_reference_per_taxon: int
    copy_quantile: float
    seed: int
    software: Mapping[str, str]
    unseen_split: str = "test"
    """Of the photographs that are measured as `real`."""
    perceptual: str | None = None
    perceptual_sha256: str | None = None
    namer: str = "logistic regression"
    """What names the images: `Namer.kind`."""


@dataclass(frozen=True, slots=True)
class Results:
    """Methods by name, each with its ranks; `real` holds unseen photographs measured the same way: the ceiling."""

    protocol: Protocol
    methods: Mapping[str, tuple[RankScores, ...]]
    real: tuple[RankScores, ...]
    differences: Mapping[str, Mapping[Rank, Interval]]
    """How much more often the best method is named right than each other one (`differences_from_best`)."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Images not measured, since they show no taxon of the ranks: by method, and of the photographs by split."""

    def to_json(self) -> dict[str, Any]:
        """JSON with `table1[method][rank][metric] = {mean, low, high}` first, details after."""
        named = {**self.methods, "real_test_photographs": self.real}
        return {
            "schema": 1,
            "protocol": asdict(self.protocol),
            "left_out": dict(self.left_out),
            "table1": {
                method: {s.rank: {name: asdict(i) for name, i in s.metrics.items()} for s in ranks}
                for method, ranks in named.items()
            },
            "differences": {
                "from": self.best(),
                "rank_accuracy": {
                    method: {rank: asdict(i) for rank, i in found.items()} for method, found in self.differences.items()
                },
            },
            "details": {method: {s.rank: _details(s) for s in ranks} for method, ranks in named.items()},
        }

    def best(self) -> str:
        """The method that is named right most often at the finest rank of any."""
        return _best(self.methods)

    def at_finest(self) -> dict[str, RankScores]:
        """The scores at the finest rank of any method, of those methods that were measured there."""
        return _at_finest(self.methods)


def differences_from_best(methods: Mapping[str, tuple[RankScores, ...]], seed: int) -> dict[str, dict[Rank, Interval]]:
    """How much more often the best method is named right than each other one, where they show the same taxa."""
    winner = _best(methods)
    best = {scores.rank: scores.right for scores in methods[winner]}
    found: dict[str, dict[Rank, Interval]] = {}
    for name, ranks in methods.items():
        rng = np.random.default_rng(seed)
        pairs = {s.rank: (best[s.rank], s.right) for s in ranks if name != winner and s.rank in best}
        found[name] = {
            rank: difference_over_taxa([ours[t] for t in ours], [theirs[t] for t in ours], rng)
            for rank, (ours, theirs) in pairs.items()
            if set(ours) == set(theirs)
        }
    return {name: intervals for name, intervals in found.items() if intervals}


def _best(methods: Mapping[str, tuple[RankScores, ...]]) -> str:
    scores = _at_finest(methods)
    return max(scores, key=lambda name: scores[name].metrics["rank_accuracy"].mean)


def _at_finest(methods: Mapping[str, tuple[RankScores, ...]]) -> dict[str, RankScores]:
    finest = max((ranks[-1].rank for ranks in methods.values()), key=RANKS.index)
    return {name: ranks[-1] for name, ranks in methods.items() if ranks[-1].rank == finest}


def _details(scores: RankScores) -> dict[str, Any]:
    return {
        "num_images": scores.num_images,
        "buckets": {b: {name: asdict(i) for name, i in found.items()} for b, found in scores.buckets.items()},
        "taxa": [
            {**asdict(t), "taxon": _names(t.taxon), "label": t.taxon.label, "bucket": bucket_of(t.num_photographs)}
            for t in scores.taxa
        ],
        "confusions": [
            {"true": c.true.label, "predicted": c.predicted.label, "count": c.count, "of": c.of}
            for c in scores.confusions
        ],
        "traits": dict(scores.traits),
        "nearest": [{**asdict(p), "taxon": _names(p.taxon), "label": p.taxon.label} for p in scores.nearest],
    }


def _names(lineage: Lineage) -> dict[Rank, str]:
    return dict(lineage.names)
