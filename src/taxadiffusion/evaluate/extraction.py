"""Features of many pictures: computed block by block by any number of processes, kept, and read by the first."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.cache.parts import Part, build_shared
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.errors import CheckpointError, DataError
from taxadiffusion.evaluate.pictures import Pictures
from taxadiffusion.features import Extractor
from taxadiffusion.files import sha256_of, whole

# N images, D feature width

_BLOCK = 1024  # images of a file of features: a multiple of a batch, so blocks and the whole give the same bits
_VERSION = 1  # raised when the same files would give other pixels

BESIDE_DATA = "features"
"""Folder of a prepared data set that holds its photographs' features, for every command."""


class FeatureStore:
    """Features in `folder`, a file for every block of images, under a hash of all that they are made of.

    That is the extractor, the size, the content of every file and which part of it counts: a changed picture is another
    block, so nothing stale is read. Processes that ask for the same features share the blocks, and a killed one's are
    done by the others.
    """

    def __init__(self, folder: Path | None, shard: Shard | None = None, *, with_data: bool = False) -> None:
        """folder: none: what has no other place is computed each time. with_data: features of a prepared set's
        photographs are kept in that set's folder, where every command finds them; in `folder` where that one cannot be
        written, with a warning."""
        self._folder = folder
        self._with_data = with_data
        self._shard = shard or Shard.of_environment()
        self._digests: dict[tuple[str, int, int], bytes] = {}

    def features(
        self,
        pictures: Pictures,
        extractor: Extractor,
        size_px: int,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> NDArray[np.float32]:
        """(N, D) features of the images at `size_px`; equal to `Pictures.features`, bit for bit.

        `progress(done, total)` counts the images of all processes. Raises `DataError` for a picture that is gone, and
        where there is none.
        """
        total = len(pictures)
        if not total:
            raise DataError(f"{pictures.name}: holds no image to compute features from")
        blocks = [range(start, min(start + _BLOCK, total)) for start in range(0, total, _BLOCK)]
        names = [self._key(pictures, rows, extractor, size_px) for rows in blocks]
        folder = self._kept_in(pictures, names)
        if folder is None:
            return pictures.features(extractor, size_px, progress)
        parts = [Part(rows.start, rows.stop, folder / f"{name}.json") for rows, name in zip(blocks, names, strict=True)]
        by_start = {part.start: part for part in parts}
        for part in parts:
            if not _is_sound(part) and os.access(folder, os.W_OK):
                part.path.unlink(missing_ok=True)  # what says that it is done

        def build(part: Part, report: Callable[[int], None]) -> None:
            rows = range(part.start, part.stop)
            _write(_features_of(by_start[part.start]), pictures.select(rows).features(extractor, size_px))
            part.write(len(rows))
            report(len(rows))

        try:
            build_shared(
                parts,
                build,
                lambda: not folder.is_dir(),
                lambda done: progress(done, total),
                first=self._shard.number * len(blocks) // self._shard.count,
            )
            return np.concatenate([np.load(_features_of(part), allow_pickle=False) for part in parts])
        except FileNotFoundError as error:
            raise DataError(f"{folder}: was deleted while features were put there; the same command again") from error

    def _kept_in(self, pictures: Pictures, names: Sequence[str]) -> Path | None:
        """A folder that is there and can be written, or holds all of these blocks; none: they are not kept."""
        if self._with_data and pictures.prepared is not None:
            beside = pictures.prepared / BESIDE_DATA
            with suppress(OSError):
                beside.mkdir(exist_ok=True)
            whole_blocks = (beside / f"{name}.npy" for name in names)
            if beside.is_dir() and (os.access(beside, os.W_OK) or all(path.is_file() for path in whole_blocks)):
                return beside
            elsewhere = f"are kept in {self._folder}" if self._folder else "will be computed anew each time"
            warnings.warn(f"{beside} cannot be written: features of photographs {elsewhere}", stacklevel=3)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def _key(self, pictures: Pictures, rows: range, extractor: Extractor, size_px: int) -> str:
        digest = hashlib.sha256(json.dumps([_VERSION, extractor.content_hash, size_px]).encode())
        for i in rows:
            digest.update(self._digest(pictures.files[i]))
            digest.update(pictures.cut(i).encode())
        return digest.hexdigest()[:32]

    def _digest(self, file: str) -> bytes:
        """Of the file's content, read once as long as it does not change."""
        try:
            status = Path(file).stat()
            known = (file, status.st_size, status.st_mtime_ns)
            if known not in self._digests:
                self._digests[known] = sha256_of(Path(file))
        except OSError as error:
            raise DataError(f"{file}: the picture cannot be read ({error.strerror}); make it again") from error
        return self._digests[known]


def _features_of(part: Part) -> Path:
    return part.path.with_suffix(".npy")


def _is_sound(part: Part) -> bool:
    """Not said to be done, or as many rows of features lie there as it says."""
    try:
        return not part.is_done or len(np.load(_features_of(part), mmap_mode="r", allow_pickle=False)) == (
            part.stop - part.start
        )
    except (OSError, ValueError, EOFError, LookupError, TypeError, CheckpointError):
        return False


def _write(path: Path, features: NDArray[np.float32]) -> None:
    """Whole or absent."""
    with whole(path) as aside, aside.open("wb") as stream:
        np.save(stream, features, allow_pickle=False)
