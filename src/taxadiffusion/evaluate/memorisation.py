"""What a search for copies found, with what the search can see: no figure without its error rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from taxadiffusion.metrics.copies import PARTS, PicturePart
from taxadiffusion.metrics.intervals import Interval
from taxadiffusion.names import Lineage

FEWEST_PLANTED = 10
"""Of a group of taxa: with fewer planted copies nothing is said of the group."""

LEAST_FOUND = 0.5
"""Of the planted copies: an instrument that finds fewer cannot tell."""


@dataclass(frozen=True, slots=True)
class CopyFound:
    """How many of `of` planted copies were flagged."""

    found: int
    of: int

    @property
    def share(self) -> float:
        return self.found / self.of if self.of else 0.0

    def __str__(self) -> str:
        return f"{self.share:.0%} of {self.of}" if self.of else "none planted"


@dataclass(frozen=True, slots=True)
class Eyesight:
    """What the comparison of one part of the frame can see: set by unseen photographs, tested on planted copies."""

    threshold: float | None
    """`metrics.copies.standing` above which a picture is flagged; None: too few unseen photographs for one."""
    expected: float
    """Of unseen photographs at most this share is flagged."""
    num_unseen: int
    planted: Mapping[str, CopyFound]
    """By kind of copy."""
    judged: CopyFound
    """Those that the comparison must find (`planted.JUDGED`)."""
    buckets: Mapping[str, CopyFound]
    """`judged` by how many training photographs the copied taxon has."""

    def cannot_tell(self, bucket: str | None = None) -> str | None:
        """Why it cannot tell, of all pictures or of those of one frequency bucket; None: it can."""
        if self.threshold is None:
            return f"{self.num_unseen} unseen photographs are too few for {self.expected:.0%} false alarms"
        planted = self.judged if bucket is None else self.buckets.get(bucket, CopyFound(0, 0))
        if planted.of < FEWEST_PLANTED:
            return f"only {planted.of} copies could be planted"
        if planted.share < LEAST_FOUND:
            return f"it finds {planted} planted copies"
        return None


@dataclass(frozen=True, slots=True)
class LikePair:
    """A generated image and the training photograph that it is most like."""

    generated: str
    photograph: str
    taxon: Lineage
    standing: float
    """How far it stands above the image's other candidates."""
    flagged: bool


@dataclass(frozen=True, slots=True)
class CopyFindings:
    """A method's pictures at one rank, looked at for copies of training photographs."""

    num_images: int
    num_looked_at: int
    """Of more, so many are drawn, evenly over the taxa."""
    flagged: Mapping[PicturePart, Interval]
    """Share of the pictures looked at; only parts for which the instrument can tell."""
    taxa: Mapping[Lineage, CopyFound]
    """Flagged by all of it, of those looked at; only taxa for which the instrument can tell."""
    buckets: Mapping[str, CopyFound]
    """The same by frequency bucket."""
    eyesight: Mapping[PicturePart, Eyesight]
    """Empty where nothing could be planted."""
    pairs: tuple[LikePair, ...]
    """The pairs most like each other, most alike first."""
    reason: str | None = None
    """Why nothing was looked for; None: it was."""

    def cannot_tell(self, part: PicturePart = "picture") -> str | None:
        """Why nothing can be said of copies; None: it can."""
        return self.reason if self.reason else self.eyesight[part].cannot_tell()

    def verdict(self, part: PicturePart = "picture") -> str:
        """The share flagged, or "cannot tell"; never without the share of planted copies that is found."""
        why = self.cannot_tell(part)
        if why:
            return f"cannot tell: {why}"
        share, sight = self.flagged[part], self.eyesight[part]
        return (
            f"{share.mean:.1%} flagged ({share.low:.1%} to {share.high:.1%}) of {self.num_looked_at} looked at; finds "
            f"{sight.judged} planted copies, flags {sight.expected:.0%} of unseen photographs"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, without single taxa and images; `cannot_tell` stands beside every figure."""
        return {
            "num_images": self.num_images,
            "num_looked_at": self.num_looked_at,
            "parts": {part: self._part(part) for part in PARTS if self.reason is None},
            "cannot_tell": self.reason,
            "buckets": {bucket: asdict(found) for bucket, found in self.buckets.items()},
        }

    def _part(self, part: PicturePart) -> dict[str, Any]:
        sight = self.eyesight[part]
        share = self.flagged.get(part)
        return {
            "flagged": share.to_json() if share else None,
            "cannot_tell": sight.cannot_tell(),
            "threshold": sight.threshold,
            "false_alarms": sight.expected,
            "num_unseen": sight.num_unseen,
            "planted_found": {kind: asdict(found) for kind, found in sight.planted.items()},
            "planted_that_it_must_find": asdict(sight.judged),
            "planted_found_by_bucket": {bucket: asdict(found) for bucket, found in sight.buckets.items()},
        }
