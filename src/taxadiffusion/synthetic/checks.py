"""The checks of made pictures, from photographs of a prepared data set: opened once, by the words of `--accept`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.errors import SettingsError
from taxadiffusion.evaluate.copies import CopyJudge, CopySettings
from taxadiffusion.evaluate.extraction import FeatureStore
from taxadiffusion.evaluate.filter import Filter
from taxadiffusion.evaluate.judges import Tell
from taxadiffusion.evaluate.naming import Namer
from taxadiffusion.evaluate.pictures import Pictures, photographs, unseen_split
from taxadiffusion.evaluate.planted import Planter
from taxadiffusion.evaluate.side import Side
from taxadiffusion.features import Extractor
from taxadiffusion.files import sha256_of, user_path
from taxadiffusion.images import load_image
from taxadiffusion.names import Rank
from taxadiffusion.synthetic.accept import (
    FEWEST_TO_NAME,
    ByExpert,
    Check,
    Distinct,
    Looked,
    NamedRight,
    Original,
    refusals,
    spread_within,
)
from taxadiffusion.synthetic.making import Candidate

ORIGINAL, DISTINCT, NONE = "original", "distinct", "none"


@dataclass(frozen=True, slots=True)
class Accepting:
    """What a picture must be: named right down to `rank`, no copy, distinct, passed by an expert's filter."""

    rank: Rank | None = None
    original: bool = False
    distinct: bool = False
    expert: Path | None = None
    alarms: float = 0.01
    """Share of unseen photographs that may be called copies."""

    @classmethod
    def of(cls, words: Sequence[str], ranks: Sequence[Rank], alarms: float = 0.01) -> Accepting:
        """Of the words of `--accept`: a rank, `original`, `distinct`, a filter's file, or `none` alone; no word is the
        finest rank, original and distinct. Raises `SettingsError`."""
        if not words:
            return cls(ranks[-1], original=True, distinct=True, alarms=alarms)
        if NONE in words:
            if len(words) > 1:
                raise SettingsError("--accept none accepts every picture, so it stands alone")
            return cls()
        asked = [word for word in words if word in ranks]
        paths = [_filter_path(word, ranks) for word in words if word not in (*ranks, ORIGINAL, DISTINCT)]
        if len(asked) > 1 or len(paths) > 1:
            raise SettingsError(f"--accept: one rank and one filter at most, got {', '.join(words)}")
        expert = paths[0] if paths else None
        return cls(asked[0] if asked else None, ORIGINAL in words, DISTINCT in words, expert, alarms)

    def __bool__(self) -> bool:
        return bool(self.rank or self.original or self.distinct or self.expert)


def _filter_path(word: str, ranks: Sequence[Rank]) -> Path:
    try:
        path = user_path(word)
    except ValueError as error:
        raise SettingsError(f"--accept {word!r}: {error}") from error
    if not path.is_file():
        raise SettingsError(
            f"--accept {path}: is no file, and none of {', '.join(ranks)}, {ORIGINAL}, {DISTINCT}, {NONE}"
        )
    return path


@dataclass(frozen=True, slots=True)
class Sight:
    """What looks at pictures and photographs, at which size, and where features are kept."""

    extractor: Extractor
    store: FeatureStore
    size_px: int

    def side(self, pictures: Pictures, ranks: Sequence[Rank]) -> Side:
        """The pictures with their features; lineages over `ranks`."""
        return Side(
            self.store.features(pictures, self.extractor, self.size_px),
            tuple(lineage.only(ranks) for lineage in pictures.lineages),
            pictures.files,
            (0,) * len(pictures),
            pictures.load,
        )


def sight(extractor: Extractor, folder: Path, size_px: int) -> Sight:
    """Features are kept in `folder`, those of photographs beside their prepared set."""
    return Sight(extractor, FeatureStore(folder, Shard(), with_data=True), size_px)


class Checks:
    """Judges made pictures. `described` says by what, in plain values; `judged_at` down to which rank each species."""

    def __init__(
        self, accepting: Accepting, by: Sight | None, checks: Sequence[Check], least: float, described: dict[str, Any]
    ) -> None:
        """by: None where every picture is accepted. least: as of `Distinct`."""
        self._by, self._checks, self._least, self._accepting = by, tuple(checks), least, accepting
        self.described = described
        self._distinct = Distinct(least)

    def __call__(self, new: Sequence[Candidate]) -> Sequence[str | None]:
        """The reason against each; those that pass are remembered, and later ones must differ from them."""
        if self._by is None:
            return [None] * len(new)
        size_px = self._by.size_px
        files = [one.path for one in new]
        pictures = Pictures(
            "made pictures",
            tuple(map(str, files)),
            tuple(one.taxon for one in new),
            lambda i, px: load_image(files[i], px),
        )
        features = self._by.store.features(pictures, self._by.extractor, size_px)
        looked = Looked(pictures.lineages, features, np.concatenate(list(pictures.images(size_px))))
        found = refusals(self._checks, looked)
        if self._accepting.distinct:
            for i, reason in enumerate(found):
                if reason is None:
                    found[i] = self._distinct(looked.taxa[i], features[i], looked.images[i])
        return found


def open_checks(
    dataset: PreparedDataset,
    ranks: Sequence[Rank],
    accepting: Accepting,
    by: Sight | None,
    planter: Callable[[], Planter],
    seed: int = 0,
    tell: Tell = lambda _: None,
) -> Checks:
    """Fit what judges: a probe on the photographs of `train` and `judge`; the search for copies of those of `train`.

    planter: with the base that makes the pictures. Raises `DataError` where copies are to be looked for and cannot be
    told.
    """
    if by is None or not accepting:
        return Checks(accepting, None, (), 0.0, {"accepting": "everything"})
    tell("looking at the training photographs")
    train = by.side(photographs(dataset, "train", ranks), ranks)
    described: dict[str, Any] = {"extractor": by.extractor.name, "extractor_sha256": by.extractor.content_hash}
    checks: list[Check] = []
    if accepting.rank:
        tell("fitting the probe that names pictures")
        checks.append(NamedRight(_namer(dataset, ranks, train, by, seed), accepting.rank))
        described["named right down to"] = accepting.rank
    if accepting.original:
        tell("making the search for copies ready")
        unseen = by.side(photographs(dataset, unseen_split(dataset), ranks), ranks)
        settings = CopySettings(by.size_px, accepting.alarms, seed)
        judge = CopyJudge(train, unseen, by.extractor, planter(), settings, tell)
        judge.require_sight()
        checks.append(Original(judge.flags))
        described |= {
            "no copy, false alarms": accepting.alarms,
            "planted copies found": str(judge.eyesight["picture"].judged),
        }
    if accepting.expert:
        expert = Filter.read(accepting.expert)
        expert.require(by.extractor, by.size_px)
        checks.append(ByExpert(expert.accepts))
        described["expert's filter"] = sha256_of(accepting.expert).hex()
    least = spread_within(train.features, train.lineages) if accepting.distinct else 0.0
    if accepting.distinct:
        described["least cosine distance of two"] = least
    return Checks(accepting, by, checks, least, described)


def _namer(dataset: PreparedDataset, ranks: Sequence[Rank], train: Side, by: Sight, seed: int) -> Namer:
    """On the photographs of `train`, and of the split for judges where there is one."""
    pictures = [photographs(dataset, "train", ranks)]
    sides = [train]
    if len(dataset.rows("judge")):
        pictures.append(photographs(dataset, "judge", ranks))
        sides.append(by.side(pictures[1], ranks))
    groups = [group for one in pictures for group in one.groups or ()]
    lineages = [lineage for side in sides for lineage in side.lineages]
    return Namer.fit(np.concatenate([side.features for side in sides]), lineages, groups, seed, FEWEST_TO_NAME)
