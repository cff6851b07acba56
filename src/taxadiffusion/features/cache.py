"""What every feature extractor is, and features kept on disk under the hash of what they were computed from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.files import whole

# B batch, H height, W width, D feature width


class Extractor(Protocol):
    """A network from images to features. `content_hash` (sha256) covers its weights and preprocessing."""

    name: str
    content_hash: str

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (B, 3, H, W) → float32 (B, D)."""
        ...


class CachedExtractor:
    """An extractor that remembers each batch on disk, keyed by the pixels' and the network's content.

    A changed picture or network is a new key, so nothing stale is ever read; an interrupted extraction goes on where it
    was. Files are written aside and renamed, so that a reader never sees half of one.
    """

    def __init__(self, extractor: Extractor, cache_dir: Path) -> None:
        self._extractor = extractor
        self._dir = cache_dir / extractor.content_hash[:16]
        self._dir.mkdir(parents=True, exist_ok=True)
        self.name = extractor.name
        self.content_hash = extractor.content_hash

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (B, 3, H, W) → float32 (B, D)."""
        digest = hashlib.sha256(f"{self.content_hash} {images.shape}".encode())
        digest.update(np.ascontiguousarray(images).tobytes())
        path = self._dir / f"{digest.hexdigest()}.npy"
        if path.exists():
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
        features = self._extractor(images)
        with whole(path) as aside, aside.open("wb") as stream:
            np.save(stream, features, allow_pickle=False)
        return features
