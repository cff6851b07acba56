"""Latents of the same pictures in another data set's cache: labels or splits that change cost no encoding."""

# Letters: N images, b rows read, V variants, C latent channels, H W latent size.
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.base.weights import read_json
from taxadiffusion.cache.files import FILE, FINISHED, disk_faults, mapped
from taxadiffusion.errors import CheckpointError
from taxadiffusion.files import whole

if TYPE_CHECKING:
    from taxadiffusion.cache.encoding import SourceImage

IMAGES = "images.u64"
"""Beside the latents: a key of each image's content, in their order."""

_UNKNOWN = 0


def image_key(image: SourceImage) -> int:
    """Of the file's content, as `prepare` saw it, and the parts of it that count; 0 where its content is not known."""
    if image.seen is None:
        return _UNKNOWN
    told = json.dumps([image.seen.sha256, repr(image.box), repr(image.content_box)])
    return int.from_bytes(hashlib.blake2b(told.encode(), digest_size=8).digest(), "big") or 1


def image_keys(images: Iterable[SourceImage], number: int) -> NDArray[np.uint64]:
    """(N,) keys in the images' order."""
    return np.fromiter(map(image_key, images), np.uint64, number)


def write_keys(folder: Path, keys: NDArray[np.uint64]) -> None:
    """Whole or absent. Raises `CheckpointError` when the disk is full."""
    with disk_faults(folder, keys.nbytes), whole(folder / IMAGES, durable=True) as aside:
        aside.write_bytes(keys.tobytes())


@dataclass(frozen=True)
class _Cache:
    """A finished one: its latents (N, V, C, H, W), and its keys sorted, with the row of each."""

    latents: NDArray[np.float16]
    keys: NDArray[np.uint64]
    rows: NDArray[np.int64]


class Elsewhere:
    """What finished caches beside `folder`, of the same encoder and form, hold of the images with these keys."""

    def __init__(self, folder: Path, key: dict[str, Any], keys: NDArray[np.uint64]) -> None:
        self._caches = tuple(_finished(folder, key))
        self._place = np.full((len(keys), 2), -1, np.int64)  # cache and row of each image
        for number, cache in enumerate(self._caches):
            found = np.minimum(np.searchsorted(cache.keys, keys), len(cache.keys) - 1)
            here = (cache.keys[found] == keys) & (keys != _UNKNOWN)
            self._place[here, 0], self._place[here, 1] = number, cache.rows[found[here]]

    def has(self, rows: range) -> bool:
        """Whether all of these images are there."""
        return bool((self._place[rows.start : rows.stop] >= 0).all())

    def read(self, rows: range) -> NDArray[np.float16]:
        """(b, V, C, H, W) of images that are there."""
        places = self._place[rows.start : rows.stop].tolist()
        return np.stack([self._caches[cache].latents[row] for cache, row in places])


def _finished(folder: Path, key: dict[str, Any]) -> Iterator[_Cache]:
    """Of another data set, and otherwise of the same key. One that cannot be read is none."""
    for document in sorted(folder.parent.glob(f"latents-*/{FINISHED}")):
        try:
            found = read_json(document)
            keys = np.fromfile(document.with_name(IMAGES), np.uint64)
            shape = tuple(found["shape"])
            if found["key"] == {**key, "dataset_hash": found["key"]["dataset_hash"]} and len(keys) == shape[0]:
                keys[[fault["row"] for fault in found["unreadable"]]] = _UNKNOWN
                order = np.argsort(keys, kind="stable")
                yield _Cache(mapped(document.with_name(FILE), shape), keys[order], order)
        except (OSError, ValueError, KeyError, TypeError, CheckpointError):
            continue
