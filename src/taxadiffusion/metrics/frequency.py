"""Frequency buckets: taxa by how many photographs they have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Bucket:
    """Taxa of `fewest` to `most` photographs; None: of any more."""

    name: str
    fewest: int
    most: int | None

    @overload
    def holds(self, numbers: int) -> bool: ...
    @overload
    def holds(self, numbers: NDArray[np.integer]) -> NDArray[np.bool_]: ...
    def holds(self, numbers: int | NDArray[np.integer]) -> bool | NDArray[np.bool_]:
        """Whether a taxon of so many photographs is in it; each of an array."""
        most = math.inf if self.most is None else self.most
        return (numbers >= self.fewest) & (numbers <= most)


def buckets(limits: Sequence[int], dash: str) -> tuple[Bucket, ...]:
    """From 1 photograph to the first limit, from there to the next …, and above the last one."""
    starts = (1, *(limit + 1 for limit in limits[:-1]))
    between = (
        Bucket(str(most) if fewest == most else f"{fewest}{dash}{most}", fewest, most)
        for fewest, most in zip(starts, limits, strict=True)
    )
    return (*between, Bucket(f">{limits[-1]}", limits[-1] + 1, None))


_LIMITS = (5, 20, 100)

BUCKETS = (Bucket("0", 0, 0), *buckets(_LIMITS, "–"))
"""Of an evaluation, by training photographs."""

TAIL = buckets((1, *_LIMITS), "-")
"""Of a check, by all photographs; taxa with a single one stand alone. Both names are written to JSON since schema 1."""


def bucket_of(num_photographs: int) -> str:
    """The bucket of a taxon with so many training photographs."""
    return next(bucket.name for bucket in BUCKETS if bucket.holds(num_photographs))
