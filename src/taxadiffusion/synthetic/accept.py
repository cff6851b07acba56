"""Which made pictures a classifier may learn from: each is accepted, or refused for the first reason that holds."""

# M pictures, D feature width
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taxadiffusion.dataset.duplicates import MAX_DISTANCE, MAX_LAYOUT_DISTANCE
from taxadiffusion.evaluate.naming import Namer
from taxadiffusion.images import colour_layout, layout_distance, perceptual_hash
from taxadiffusion.names import Lineage, Rank

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]

MISNAMED, NOT_JUDGED, COPY, EXPERT = "misnamed", "not judged", "copy", "expert's filter"
NEAR_DUPLICATE, TOO_ALIKE, NOT_NEEDED = "near-duplicate", "too alike", "not needed"
REASONS = (NOT_JUDGED, MISNAMED, COPY, EXPERT, NEAR_DUPLICATE, TOO_ALIKE, NOT_NEEDED)
"""Of a refusal, in the order in which they are asked for; `NOT_NEEDED`: its species had enough by then."""

ALIKE_QUANTILE = 0.05
"""Of the distances of training photographs to the nearest of their own species: two pictures nearer than that are
nearer than nearly all photographs."""


FEWEST_TO_NAME = 5
"""Photographs that make a species known to the probe that accepts. An evaluation asks for more, since its figures are
read; here an unsure probe refuses some good pictures, and without it those of rare species would not be judged."""


@dataclass(frozen=True, slots=True)
class Looked:
    """Made pictures as the checks see them."""

    taxa: tuple[Lineage, ...]
    """What each was asked to show."""
    features: Floats
    """(M, D)."""
    images: NDArray[np.uint8]
    """(M, 3, s, s)."""

    def select(self, rows: Sequence[int] | NDArray[np.integer]) -> Looked:
        kept = [int(i) for i in rows]
        return Looked(tuple(self.taxa[i] for i in kept), self.features[kept], self.images[kept])


class Check(Protocol):
    """Looks at each picture by itself."""

    def __call__(self, looked: Looked) -> Sequence[str | None]:
        """(M,) the reason why each is refused; None: it passes."""
        ...


@dataclass(frozen=True, slots=True)
class NamedRight:
    """A probe of photographs names it as its species, down to `rank`, all species taken as equally frequent: a picture
    was asked for by its species, and is not refused because that has few photographs.

    Of a species that the probe does not know, down to the finest rank above at which it knows it; where there is none
    the picture is `NOT_JUDGED`.
    """

    namer: Namer
    rank: Rank

    def judged_at(self, taxon: Lineage) -> Rank | None:
        """The rank down to which pictures of the taxon are judged."""
        cut = taxon.truncated(self.rank) if taxon.get(self.rank) else taxon
        return next((rank for rank in reversed(cut.ranks) if _known(self.namer, cut.truncated(rank))), None)

    def __call__(self, looked: Looked) -> Sequence[str | None]:
        ranks = {taxon: self.judged_at(taxon) for taxon in set(looked.taxa)}
        named = self.namer(looked.features.astype(np.float32), even=True)
        return [_verdict(ranks[asked], asked, seen) for asked, seen in zip(looked.taxa, named, strict=True)]


def _known(namer: Namer, taxon: Lineage) -> bool:
    return taxon in namer.known


def _verdict(rank: Rank | None, asked: Lineage, named: Lineage) -> str | None:
    if rank is None:
        return NOT_JUDGED
    return None if named.get(rank) and named.truncated(rank) == asked.truncated(rank) else MISNAMED


@dataclass(frozen=True, slots=True)
class Original:
    """It is no copy of a training photograph. flags: (M, 3, s, s), (M, D) → (M,) what the instrument calls copies."""

    flags: Callable[[NDArray[np.uint8], Floats], Flags]

    def __call__(self, looked: Looked) -> Sequence[str | None]:
        found = self.flags(looked.images, looked.features)
        return [COPY if flag else None for flag in found]


@dataclass(frozen=True, slots=True)
class ByExpert:
    """A filter that was fitted on an expert's judgements passes it. accepts: (M, D) → (M,)."""

    accepts: Callable[[Floats], Flags]

    def __call__(self, looked: Looked) -> Sequence[str | None]:
        return [None if good else EXPERT for good in self.accepts(looked.features)]


class Distinct:
    """It differs from every accepted picture of its species: in pixels, mirrored too, and in features.

    least: cosine distance of features below which two are too alike (`spread_within`). What it passes it remembers, so
    the pictures of one set are given to one `Distinct`, in order.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._features: dict[Lineage, list[Floats]] = {}
        self._seen: dict[Lineage, list[tuple[int | None, NDArray[np.uint8]]]] = {}

    def __call__(self, taxon: Lineage, feature: Floats, image: NDArray[np.uint8]) -> str | None:
        """The reason against one picture, (D,) and uint8 (3, s, s); None: it passes, and is remembered."""
        pixels, unit = _pixels(image), _unit(feature[None])[0]
        mirrored = _pixels(image[..., ::-1])
        others = self._seen.setdefault(taxon, [])
        if any(_same(pixels, other) or _same(mirrored, other) for other in others):
            return NEAR_DUPLICATE
        features = self._features.setdefault(taxon, [])
        if features and 1 - float((np.stack(features) @ unit).max()) < self._least:
            return TOO_ALIKE
        others.append(pixels)
        features.append(unit)
        return None


def spread_within(features: Floats, taxa: Sequence[Lineage], quantile: float = ALIKE_QUANTILE) -> float:
    """The `quantile` of cosine distances of (N, D) photographs to the nearest other one of their taxon; 0 where no
    taxon has two."""
    groups: dict[Lineage, list[int]] = {}
    for row, taxon in enumerate(taxa):
        groups.setdefault(taxon, []).append(row)
    nearest = []
    for rows in groups.values():
        if len(rows) > 1:
            unit = _unit(features[rows])
            cosine = unit @ unit.T
            np.fill_diagonal(cosine, -1)
            nearest.append(1 - cosine.max(1))
    return float(np.quantile(np.concatenate(nearest), quantile)) if nearest else 0.0


def refusals(checks: Sequence[Check], looked: Looked) -> list[str | None]:
    """(M,) the first reason of any check against each picture; a later check sees only what the earlier ones passed."""
    found: list[str | None] = [None] * len(looked.taxa)
    for check in checks:
        left = [i for i, reason in enumerate(found) if reason is None]
        if left:
            for i, reason in zip(left, check(looked.select(left)), strict=True):
                found[i] = reason
    return found


def _unit(features: Floats) -> Floats:
    wide = features.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=-1, keepdims=True).clip(1e-12))


def _pixels(image: NDArray[np.uint8]) -> tuple[int | None, NDArray[np.uint8]]:
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return perceptual_hash(picture), np.frombuffer(colour_layout(picture), np.uint8)


def _same(a: tuple[int | None, NDArray[np.uint8]], b: tuple[int | None, NDArray[np.uint8]]) -> bool:
    """As `prepare` finds photographs that are nearly the same; of flat pictures colours alone decide."""
    if (a[0] is None) != (b[0] is None):
        return False
    if a[0] is not None and b[0] is not None and (a[0] ^ b[0]).bit_count() > MAX_DISTANCE:
        return False
    return float(layout_distance(a[1][None], b[1][None])[0]) <= MAX_LAYOUT_DISTANCE
