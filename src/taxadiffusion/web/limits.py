"""What one visitor, and all together, may ask of the machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers that bound the queue, a job, a request and what is kept."""

    queue: int = 32
    """Jobs that wait or are drawn, of all clients."""
    per_client: int = 4
    pictures: int = 16
    """Of one job."""
    steps: int = 100
    scale: float = 30.0
    """The largest guidance scale, either way."""
    seconds: float = 900.0
    """Of one job; what is drawn by then is kept."""
    jobs_kept: int = 256
    """Finished jobs that can still be looked at."""
    body_bytes: int = 16_384
    """Of a request; and of its head: the address and all headers."""
    head_bytes: int = 16_384
    letters: int = 300
    """Of a name that is sought, or of a field."""
    streams: int = 64
    """Pages that watch a job at the same time."""
    store_pictures: int = 5000
    store_bytes: int = 1 << 29
    thumbnail_bytes: int = 1 << 26
    """Of photographs made small, in memory."""
    page_bytes: int = 1 << 25
    """Of pages that are kept as they were sent."""
    picture_bytes: int = 1 << 26
    """Of pictures in memory."""
    tree_taxa: int = 20_000
    """Of the drawing of the tree; where there are more, the finest ranks are left out of it."""


LIMITS = Limits()
