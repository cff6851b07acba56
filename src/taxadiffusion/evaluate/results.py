"""What an evaluation found, with how it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from taxadiffusion.evaluate.pick import Pick, at_finest
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.metrics.distribution import FRECHET_DISTANCE
from taxadiffusion.metrics.frequency import bucket_of
from taxadiffusion.metrics.intervals import Interval
from taxadiffusion.metrics.naming import FIRST_JUDGE, SECOND_JUDGE
from taxadiffusion.names import Lineage, Rank


@dataclass(frozen=True, slots=True)
class JudgeProtocol:
    """A judge: in whose features a probe names the images, and how that probe was fitted."""

    extractor: str
    extractor_sha256: str
    namer: str
    """`Namer.kind`; "nothing" where fewer than two taxa have enough photographs: it then knows none."""
    splits: tuple[str, ...]
    """Of the photographs that it was fitted on."""
    num_photographs: int
    num_taxa: int
    fewest_photographs: int
    """Of a taxon; one that has fewer is not judged."""
    inverse_penalty: float | None
    """Its regularisation; None of a discriminant, like the next two."""
    candidates: tuple[float, ...] | None
    """Among which it was chosen, by cross-validation that keeps groups of photographs together …"""
    losses: tuple[float, ...] | None
    """… the mean loss of each on photographs held out; () where there were too few to choose by."""
    num_searched: int | None
    """Photographs held out in turn."""


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
    judges: tuple[JudgeProtocol, ...] = ()
    """What names the images: one, or two that look with different networks."""


@dataclass(frozen=True, slots=True)
class Results:
    """Methods by name, each with its ranks; `real` holds unseen photographs measured the same way: the ceiling."""

    protocol: Protocol
    methods: Mapping[str, tuple[RankScores, ...]]
    real: tuple[RankScores, ...]
    differences: Mapping[str, Mapping[Rank, Interval]]
    """How much more often the compared method is named right than each other one (`pick.differences`)."""
    distance_differences: Mapping[str, Mapping[Rank, Interval]]
    """The compared method's Fréchet distance minus each other one's: below 0 where it is nearer to photographs."""
    compared: Pick
    """The method that the others are compared with."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Images not measured, since they show no taxon of the ranks: by method, and of the photographs by split."""

    differences_second: Mapping[str, Mapping[Rank, Interval]] = field(default_factory=dict)
    """`differences` of the same best method by the second judge."""
    not_judged: Mapping[Rank, tuple[int, int]] = field(default_factory=dict)
    """By rank, how many of how many taxa of the training photographs are not judged, where there are any."""

    trainings: Mapping[str, int] = field(default_factory=dict)
    """Of each method; the intervals of one that was trained once are of this model."""
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of each method the hashes of the cards of the models that drew, where all of its pictures name theirs."""
    against: Mapping[str, str] = field(default_factory=dict)
    """Methods whose differences are from another one than `compared`, and from which."""

    def to_json(self) -> dict[str, Any]:
        """JSON with `table1[method][rank][metric] = {mean, low, high}` first, details after."""
        named = {**self.methods, "real_test_photographs": self.real}
        return {
            "schema": 1,
            "protocol": asdict(self.protocol),
            "left_out": dict(self.left_out),
            "not_judged": {rank: {"taxa": number, "of": of} for rank, (number, of) in self.not_judged.items()},
            "trainings": dict(self.trainings),
            "models": {name: list(hashes) for name, hashes in self.models.items()},
            "table1": {
                method: {s.rank: {name: i.to_json() for name, i in s.metrics.items()} for s in ranks}
                for method, ranks in named.items()
            },
            "copies": {
                method: {s.rank: s.copies.to_json() for s in ranks if s.copies}
                for method, ranks in self.methods.items()
            },
            "differences": {
                "from": self.compared.name,
                "picked": asdict(self.compared),
                **({"against": dict(self.against)} if self.against else {}),
                FIRST_JUDGE: _differences_to_json(self.differences),
                **({SECOND_JUDGE: _differences_to_json(self.differences_second)} if self.differences_second else {}),
                FRECHET_DISTANCE.key: _differences_to_json(self.distance_differences),
            },
            "details": {method: {s.rank: _details(s) for s in ranks} for method, ranks in named.items()},
        }

    def best(self) -> str:
        """The method named right most often at the finest rank of any, over all of its pictures: part of it is luck."""
        scores = self.at_finest()
        return max(scores, key=lambda name: _named_right(scores[name]))

    def at_finest(self) -> dict[str, RankScores]:
        """The scores at the finest rank of any method, of those methods that were measured there."""
        return at_finest(self.methods)


def _differences_to_json(differences: Mapping[str, Mapping[Rank, Interval]]) -> dict[str, dict[Rank, Any]]:
    return {method: {rank: i.to_json() for rank, i in found.items()} for method, found in differences.items()}


def _named_right(scores: RankScores) -> float:
    """Below every share where no taxon is judged."""
    found = scores.metrics.get(FIRST_JUDGE)
    return found.mean if found else -1.0


def _details(scores: RankScores) -> dict[str, Any]:
    return {
        "num_images": scores.num_images,
        "buckets": {b: {name: i.to_json() for name, i in found.items()} for b, found in scores.buckets.items()},
        "taxa": [
            {**asdict(t), "taxon": _names(t.taxon), "label": t.taxon.label, "bucket": bucket_of(t.num_photographs)}
            for t in scores.taxa
        ],
        "confusions": [
            {"true": c.true.label, "predicted": c.predicted.label, "count": c.count, "of": c.of}
            for c in scores.confusions
        ],
        "traits": dict(scores.traits),
        "most_alike": [
            {**asdict(p), "taxon": _names(p.taxon), "label": p.taxon.label}
            for p in (scores.copies.pairs if scores.copies else ())
        ],
        "nearest": [{**asdict(p), "taxon": _names(p.taxon), "label": p.taxon.label} for p in scores.nearest],
    }


def _names(lineage: Lineage) -> dict[Rank, str]:
    return dict(lineage.names)
