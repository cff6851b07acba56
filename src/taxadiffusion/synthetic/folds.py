"""What a comparison learns from: folds of the training photographs, and the rows of training sets made of each.

Within a fold everything that chooses (the probe that names pictures, the search for copies, the distance below which
two are too alike) has seen the photographs that the fold learns from, and no other. Only the threshold of the search
for copies needs photographs that nobody learnt from: those that the fold leaves out.
"""

# N photographs, S species
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.evaluate.copies import NUM_CANDIDATES
from taxadiffusion.evaluate.naming import Namer
from taxadiffusion.features import Extractor
from taxadiffusion.metrics.copies import candidates, contrast_maps, likeness, standing, threshold_at
from taxadiffusion.names import Lineage
from taxadiffusion.synthetic.accept import (
    FEWEST_TO_NAME,
    NOT_NEEDED,
    Check,
    Distinct,
    Looked,
    NamedRight,
    Original,
    refusals,
    spread_within,
)
from taxadiffusion.synthetic.classifiers import Pack
from taxadiffusion.synthetic.paste import pasted

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Flags = NDArray[np.bool_]

REAL, EVEN, RESAMPLED, PASTED = "real alone", "real, even odds", "real, resampled", "copy and paste"
UNFILTERED, FILTERED = "unfiltered", "filtered"

_BATCH = 64


def deal(labels: Ints, groups: Sequence[str], num_folds: int, seed: int) -> NDArray[np.intp]:
    """(N,) the fold that leaves each photograph out; −1: none does.

    The groups of each species are dealt in turn, so a fold leaves out about 1/`num_folds` of every species, a group
    whole, and never the last group of a species.
    """
    rng = np.random.default_rng(seed)
    fold_of: dict[str, int] = {}
    for label in np.unique(labels):
        mine = list(dict.fromkeys(groups[i] for i in np.flatnonzero(labels == label).tolist()))
        start = int(rng.integers(num_folds))
        for place, i in enumerate(rng.permutation(len(mine))):
            fold_of.setdefault(mine[i], -1 if len(mine) == 1 else (start + place) % num_folds)
    return np.array([fold_of[group] for group in groups], dtype=np.intp)


def copy_flags(learnt: Pack, left_out: Pack, alarms: float) -> tuple[Original | None, str]:
    """What calls pictures copies of the photographs learnt from, and how that was set, in words.

    The instrument of an evaluation without its planted copies: `standing` above what at most `alarms` of the left-out
    photographs reach. None where these are too few.
    """
    maps = contrast_maps(learnt.images)

    def stand(images: NDArray[np.uint8], features: Floats) -> Floats:
        likely = candidates(features, learnt.features, NUM_CANDIDATES)
        parts = [
            standing(likeness(contrast_maps(images[i : i + _BATCH]), maps, likely[i : i + _BATCH])["picture"])
            for i in range(0, len(images), _BATCH)
        ]
        return np.concatenate(parts)

    threshold = None
    if len(left_out) and len(learnt) > 1:
        threshold = threshold_at(stand(left_out.images, left_out.features), alarms)
    if threshold is None:
        return (
            None,
            f"copies were not looked for: {len(left_out)} photographs are too few for {alarms:.1%} false alarms",
        )
    level = threshold
    return (
        Original(lambda images, features: np.asarray(stand(images, features) > level)),
        f"copies: above what {alarms:.1%} of {len(left_out)} photographs reach",
    )


@dataclass(frozen=True, slots=True)
class Pool:
    """Every picture that a synthetic set drew, in order, and how many of each species it was to give, (S,)."""

    name: str
    pack: Pack
    limits: Ints

    def first(self) -> Pack:
        """Unfiltered: the first of each species, as many as were to be given."""
        seen = np.zeros(len(self.limits), dtype=np.intp)
        kept = []
        for i, label in enumerate(self.pack.labels):
            if seen[label] < self.limits[label]:
                kept.append(i)
                seen[label] += 1
        return self.pack.select(np.array(kept, dtype=np.intp))

    def counts(self) -> Ints:
        """(S,) of the unfiltered ones."""
        return np.bincount(self.first().labels, minlength=len(self.limits))


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a fold's filter accepts of a pool, the number refused by reason, and remarks."""

    pack: Pack
    refused: dict[str, int]
    remark: str


def filtered(pool: Pool, learnt: Pack, left_out: Pack, taxa: Sequence[Lineage], alarms: float, seed: int) -> Chosen:
    """Those pictures that are named right at species by a probe of what the fold learns from, are no copies of it, and
    are distinct; as many of each species as were to be given."""
    lineages = [taxa[i] for i in learnt.labels]
    rank = taxa[0].rank
    assert rank is not None, "classes are species"
    namer = Namer.fit(learnt.features.astype(np.float32), lineages, None, seed, FEWEST_TO_NAME)
    checks: list[Check] = [NamedRight(namer, rank)]
    original, remark = copy_flags(learnt, left_out, alarms)
    if original is not None:
        checks.append(original)
    looked = Looked(tuple(taxa[i] for i in pool.pack.labels), pool.pack.features, pool.pack.images)
    reasons = refusals(checks, looked)
    distinct = Distinct(spread_within(learnt.features, lineages))
    left = pool.limits.copy()
    for i, reason in enumerate(reasons):
        label = pool.pack.labels[i]
        if reason is None and not left[label]:
            reasons[i] = NOT_NEEDED
        elif reason is None:
            reasons[i] = distinct(looked.taxa[i], looked.features[i], looked.images[i])
            left[label] -= reasons[i] is None
    kept = np.array([i for i, reason in enumerate(reasons) if reason is None], dtype=np.intp)
    refused = [reason for reason in reasons if reason]
    return Chosen(pool.pack.select(kept), {reason: refused.count(reason) for reason in dict.fromkeys(refused)}, remark)


def resampled(learnt: Pack, counts: Ints, seed: int) -> Pack:
    """Photographs drawn anew with replacement, `counts` (S,) of each species that has any."""
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(np.flatnonzero(learnt.labels == label), count) for label, count in _some(learnt, counts)]
    return learnt.select(np.concatenate([np.zeros(0, dtype=np.intp), *drawn]))


def pasted_anew(learnt: Pack, counts: Ints, extractor: Extractor, seed: int) -> Pack:
    """As many of each species: the subject of one of its photographs on the background of one of another species."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for label, count in _some(learnt, counts):
        own, others = np.flatnonzero(learnt.labels == label), np.flatnonzero(learnt.labels != label)
        for _ in range(count):
            subject, background = learnt.images[rng.choice(own)], learnt.images[rng.choice(others)]
            images.append(pasted(subject, background, mirrored=bool(rng.integers(2))))
            labels.append(label)
    if not images:
        return learnt.select(np.zeros(0, dtype=np.intp))
    stacked = np.stack(images)
    parts = [extractor(stacked[i : i + _BATCH]) for i in range(0, len(stacked), _BATCH)]
    return Pack(stacked, np.concatenate(parts), np.array(labels))


def _some(learnt: Pack, counts: Ints) -> list[tuple[int, int]]:
    there = set(learnt.labels.tolist())
    return [(label, int(count)) for label, count in enumerate(counts) if count and label in there]
