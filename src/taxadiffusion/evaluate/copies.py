"""Looks for copies of training photographs: candidates by features, then place by place; tested on planted copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.memorisation import CopyFindings, CopyFound, Eyesight, LikePair
from taxadiffusion.evaluate.planted import JUDGED, Planter
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.evaluate.side import Rows, Side, spread, truncated
from taxadiffusion.features import Extractor
from taxadiffusion.metrics.copies import (
    PARTS,
    Floats,
    Maps,
    PicturePart,
    candidates,
    contrast_maps,
    likeness,
    middle_of,
    standing,
    threshold_at,
)
from taxadiffusion.metrics.frequency import BUCKETS, bucket_of
from taxadiffusion.metrics.intervals import Interval, mean_over_taxa
from taxadiffusion.names import Lineage, Rank

# M pictures, K candidates of each, D feature width

MAX_LOOKED_AT = 1000
"""Pictures of a method at a rank, and unseen photographs, that are compared place by place."""
MAX_PLANTED = 100
"""Training photographs of which copies are planted, one of every kind."""
NUM_CANDIDATES = 100
"""Training photographs that a picture is compared with: those nearest by features."""
NUM_PAIRS = 24

_BATCH = 64

NO_BASE = "copies can be planted only with the base that made the pictures; name it with --base"


@dataclass(frozen=True, slots=True)
class CopySettings:
    """How copies are sought."""

    size_px: int
    """Of the pictures and photographs as they are compared."""
    expected: float
    """Share of unseen photographs that may be flagged: the false alarms."""
    seed: int


class CopyJudge:
    """Training photographs in which copies are sought.

    How unseen photographs, passed through the autoencoder as the pictures were, stand to training sets the threshold,
    at the expected false alarms; copies planted with `planter` say what is found at it. Everything follows from the
    photographs and the settings. Time: about 8 ms a picture, and a photograph read for each new candidate; memory: 8 KB
    a photograph read.
    """

    def __init__(
        self,
        train: Side,
        unseen: Side,
        extractor: Extractor,
        planter: Planter,
        settings: CopySettings,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        size_px, seed = settings.size_px, settings.seed
        self._train, self._extractor, self._size_px, self._seed = train, extractor, size_px, seed
        self._maps: dict[int, NDArray[np.float16]] = {}
        progress("copies: looking at unseen photographs")
        chosen = unseen.select(drawn(unseen, MAX_LOOKED_AT, seed))
        photographs = _images(chosen, size_px)
        passed = planter.through_autoencoder(photographs)
        unseen_scores, _ = self._scores(passed, self._features(passed))
        thresholds = {part: threshold_at(unseen_scores[part], settings.expected) for part in PARTS}
        originals = drawn(train, MAX_PLANTED, seed)
        self._copied = tuple(train.lineages[i] for i in originals)
        planted: dict[str, dict[PicturePart, Floats]] = {}
        if None not in thresholds.values():  # without a threshold nothing can be found
            progress("copies: planting and finding them again")
            planted = self._planted(planter, originals, photographs)
        self.eyesight: dict[PicturePart, Eyesight] = {}
        self._judged: dict[PicturePart, NDArray[np.bool_]] = {}  # (kinds, originals)
        for part, threshold in thresholds.items():
            level = np.inf if threshold is None else threshold
            flags = {kind: scores[part] > level for kind, scores in planted.items()}
            judged = [flags[kind] for kind in JUDGED[part] if kind in flags]
            self._judged[part] = np.reshape(judged, (-1, len(originals))).astype(bool)
            found = {kind: _found(flag) for kind, flag in flags.items()}
            self.eyesight[part] = Eyesight(
                threshold, settings.expected, len(passed), found, _found(self._judged[part]), {}
            )

    def __call__(self, side: Side, rank: Rank) -> CopyFindings:
        """Of the images of a method that show taxa of `rank`; taxa count as common or rare at that rank."""
        num_images, kept = len(side.files), drawn(side, MAX_LOOKED_AT, self._seed)
        side = side.select(kept)
        scores, nearest = self._scores(_images(side, self._size_px), side.features)
        counts = Counter(truncated((one for one in self._train.lineages if one.get(rank)), rank))
        eyesight = self._eyesight_at(rank, counts)
        flags = {
            part: scores[part] > sight.threshold
            for part, sight in eyesight.items()
            if sight.cannot_tell() is None and sight.threshold is not None
        }
        buckets: dict[str, CopyFound] = {}
        taxa: dict[Lineage, CopyFound] = {}
        if "picture" in flags:
            names = np.array([bucket_of(counts[taxon]) for taxon in side.lineages])
            telling = [
                b.name for b in BUCKETS if (names == b.name).any() and not eyesight["picture"].cannot_tell(b.name)
            ]
            buckets = {b: _found(flags["picture"][names == b]) for b in telling}
            groups = side.groups().items()
            taxa = {taxon: _found(flags["picture"][rows]) for taxon, rows in groups if names[rows[0]] in telling}
        return CopyFindings(
            num_images=num_images,
            num_looked_at=len(kept),
            flagged={part: _share(flag, side) for part, flag in flags.items()},
            taxa=taxa,
            buckets=buckets,
            eyesight=eyesight,
            pairs=self._pairs(side, scores["picture"], nearest, flags.get("picture")),
        )

    def require_sight(self) -> None:
        """Raises `DataError` where it cannot tell copies from others."""
        if why := self.eyesight["picture"].cannot_tell():
            raise DataError(
                f"whether pictures are copies of photographs cannot be told: {why}; allow more false alarms, or do not "
                "ask for it"
            )

    def flags(self, images: NDArray[np.uint8], features: Floats) -> NDArray[np.bool_]:
        """(M, 3, s, s) uint8 images of its size, with their (M, D) features → (M,) which of them are copies."""
        self.require_sight()
        threshold = self.eyesight["picture"].threshold
        assert threshold is not None, "without one it cannot tell"
        return np.asarray(self._scores(images, features)[0]["picture"] > threshold)

    def _eyesight_at(self, rank: Rank, counts: Mapping[Lineage, int]) -> dict[PicturePart, Eyesight]:
        """With what is found of the copies of each bucket's taxa; counts: training photographs by taxon of `rank`."""
        names = np.array([bucket_of(counts[one.truncated(rank)]) if one.get(rank) else "" for one in self._copied])
        present = [b.name for b in BUCKETS if (names == b.name).any()]
        return {
            part: replace(sight, buckets={b: _found(self._judged[part][:, names == b]) for b in present})
            for part, sight in self.eyesight.items()
        }

    def _planted(
        self, planter: Planter, originals: Rows, unseen: NDArray[np.uint8]
    ) -> dict[str, dict[PicturePart, Floats]]:
        """Likeness of the planted copies to training, by kind and part."""
        photographs = _images(self._train.select(originals), self._size_px)
        partners = np.random.default_rng(self._seed).permutation(np.resize(np.arange(len(unseen)), len(originals)))
        images = {
            **planter(photographs, self._seed),
            **planter.partial(photographs, unseen[partners], middle_of(self._size_px)),
        }
        return {kind: self._scores(copies, self._features(copies))[0] for kind, copies in images.items()}

    def _scores(self, images: NDArray[np.uint8], features: Floats) -> tuple[dict[PicturePart, Floats], Rows]:
        """Of (M, 3, s, s) images: `standing` (M,) by part, and the most like training photograph (M,), by the whole."""
        likely = candidates(features, self._train.features, NUM_CANDIDATES)  # (M, K)
        stands, best = [], []
        for start in range(0, len(images), _BATCH):
            mine = likely[start : start + _BATCH]
            positions, inverse = np.unique(mine, return_inverse=True)
            maps = contrast_maps(images[start : start + _BATCH])
            found = likeness(maps, self._maps_of(positions), inverse.reshape(mine.shape))
            stands.append({part: standing(values) for part, values in found.items()})
            best.append(mine[np.arange(len(mine)), found["picture"].argmax(1)])
        return {part: np.concatenate([s[part] for s in stands]) for part in PARTS}, np.concatenate(best)

    def _features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        starts = range(0, len(images), _BATCH)
        return np.concatenate([self._extractor(np.ascontiguousarray(images[i : i + _BATCH])) for i in starts])

    def _maps_of(self, positions: Rows) -> Maps:
        """Contrast maps of training photographs; each is read once."""
        new = [int(i) for i in positions if int(i) not in self._maps]
        for start in range(0, len(new), _BATCH):
            rows = new[start : start + _BATCH]
            images = np.stack([self._train.load(i, self._size_px) for i in rows])
            self._maps.update(zip(rows, contrast_maps(images).astype(np.float16), strict=True))
        return np.stack([self._maps[int(i)] for i in positions]).astype(np.float32)

    def _pairs(
        self, side: Side, scores: Floats, nearest: Rows, flags: NDArray[np.bool_] | None
    ) -> tuple[LikePair, ...]:
        return tuple(
            LikePair(
                generated=side.files[i],
                photograph=self._train.files[nearest[i]],
                taxon=side.lineages[i],
                standing=float(scores[i]),
                flagged=flags is not None and bool(flags[i]),
            )
            for i in np.argsort(-scores, kind="stable")[:NUM_PAIRS]
        )


class CopySearch:
    """A `CopyJudge` for every set of training photographs that a method learnt from, made when first needed."""

    def __init__(
        self,
        train: Side,
        unseen: Side,
        extractor: Extractor,
        planter: Planter,
        settings: CopySettings,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """As of `CopyJudge`."""
        self._train = train

        def judge_of(photographs: Side) -> CopyJudge:
            return CopyJudge(photographs, unseen, extractor, planter, settings, progress)

        self._judge_of = judge_of
        self._judges: dict[frozenset[str] | None, CopyJudge] = {}

    def __call__(self, scores: RankScores, side: Side, seen: Collection[str] | None = None) -> RankScores:
        """`scores` of a method at one rank with what was found among its images; seen: the files it learnt from."""
        key = None if seen is None else frozenset(seen)
        if key not in self._judges:
            rows = [i for i, file in enumerate(self._train.files) if key is None or file in key]
            self._judges[key] = self._judge_of(self._train.select(rows))
        found = self._judges[key](side, scores.rank)
        taxa = tuple(replace(taxon, copies=found.taxa.get(taxon.taxon)) for taxon in scores.taxa)
        return replace(scores, copies=found, taxa=taxa)


def not_looked(num_images: int, reason: str) -> CopyFindings:
    """Nothing was looked for, and why."""
    return CopyFindings(num_images, 0, {}, {}, {}, {}, (), reason)


def _share(flags: NDArray[np.bool_], side: Side) -> Interval:
    """The mean over taxa and runs; where none is flagged, each taxon says as much as one image."""
    values = flags.astype(np.float64)
    return mean_over_taxa([[values[rows] for rows in runs] for runs in side.cells().values()], share=True)


def _found(flags: NDArray[np.bool_]) -> CopyFound:
    return CopyFound(int(flags.sum()), flags.size)


def drawn(side: Side, number: int, seed: int) -> Rows:
    """Sorted positions of at most `number` images of each run, evenly over the taxa."""
    return np.sort(np.concatenate(spread(number, side.cells(), np.random.default_rng(seed))))


def _images(side: Side, size_px: int) -> NDArray[np.uint8]:
    return np.stack([side.load(i, size_px) for i in range(len(side.files))])
