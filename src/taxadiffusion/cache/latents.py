"""Latents of a prepared data set: computed once, memory-mapped, keyed by what they are made of."""

# Letters: N images, V variants of an image (0 plain, 1 mirrored), C latent channels, H W latent size, b rows read.
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.weights import read_json
from taxadiffusion.cache.encoding import Encoding, LatentForm, LatentKey, SourceImages, Unreadable
from taxadiffusion.cache.files import FILE, FINISHED, mapped
from taxadiffusion.errors import CheckpointError, DataError

_PLAIN = LatentForm()


class Latents:
    """Memory-mapped float16 latents (N, V, C, H, W)."""

    def __init__(self, folder: Path, key: LatentKey) -> None:
        """Raises `CheckpointError` where the folder holds no finished cache of this key."""
        document = read_json(folder / FINISHED)
        if document.get("key") != asdict(key):
            raise CheckpointError(f"{folder} holds latents of something else; delete it and they are computed anew")
        self.shape: tuple[int, ...] = tuple(document["shape"])
        self.unreadable = tuple(Unreadable(**entry) for entry in document["unreadable"])
        path = folder / FILE
        if not path.is_file() or path.stat().st_size != 2 * int(np.prod(self.shape)):
            raise CheckpointError(f"{path} is cut short; delete {folder} and the latents are computed anew")
        self._map: NDArray[np.float16] = mapped(path, self.shape)
        self._readable = np.ones(self.shape[0], np.bool_)
        self._readable[[fault.row for fault in self.unreadable]] = False

    @property
    def num_variants(self) -> int:
        return self.shape[1]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.shape[2], self.shape[3], self.shape[4]

    def __len__(self) -> int:
        return self.shape[0]

    def read(
        self, rows: NDArray[np.int64], variants: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Latents (b, C, H, W) of image rows, and which of them could be read (b,); an unreadable one is zero."""
        return self._map[rows, variants].astype(np.float32), self._readable[rows]


class JoinedLatents:
    """Several sets' latents as one: rows of each set follow those of the set before."""

    def __init__(self, sets: Sequence[Latents]) -> None:
        self.sets = tuple(sets)
        self._starts = np.cumsum([0, *(len(latents) for latents in sets)])

    @property
    def num_variants(self) -> int:
        return self.sets[0].num_variants

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.sets[0].latent_shape

    def read(
        self, rows: NDArray[np.int64], variants: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """As `Latents.read`."""
        latents, readable = np.zeros((len(rows), *self.latent_shape), np.float32), np.zeros(len(rows), np.bool_)
        for number, one in enumerate(self.sets):
            here = (rows >= self._starts[number]) & (rows < self._starts[number + 1])
            latents[here], readable[here] = one.read(rows[here] - self._starts[number], variants[here])
        return latents, readable


def cached_latents(
    cache_dir: Path,
    pictures: SourceImages,
    backbone: Backbone,
    form: LatentForm = _PLAIN,
    *,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Latents:
    """The latents of every image, from the cache or else computed into it (F10).

    Processes that ask for the same latents share them (`cache.parts`), and an interrupted computation goes on where it
    stopped. `progress(done, total)` counts the images of all of them. Raises `CheckpointError` when the disk is full,
    `NonFiniteError` when the VAE yields no numbers, `DataError` for an empty set. num_threads: that decode; None: as
    many as this process may use processors.
    """
    if not len(pictures):
        raise DataError("the prepared data set holds no images: there is nothing to train on")
    key = LatentKey.of(pictures, backbone, form)
    folder = cache_dir / f"latents-{key.digest}"
    threads = num_threads or len(os.sched_getaffinity(0))
    if not (folder / FINISHED).is_file():
        Encoding(folder, key, pictures, backbone, threads).run(progress or (lambda _done, _total: None))
    return Latents(folder, key)


def latents_to_come(
    cache_dir: Path,
    pictures: SourceImages,
    backbone: Backbone,
    form: LatentForm = _PLAIN,
) -> tuple[Path, int]:
    """Where `cached_latents` will write, and how many bytes; 0 where all are computed."""
    key = LatentKey.of(pictures, backbone, form)
    folder = cache_dir / f"latents-{key.digest}"
    if (folder / FINISHED).is_file():
        return folder, 0
    num_bytes = 2 * len(pictures) * key.num_variants * int(np.prod(backbone.latent_shape_at(key.size_px)))
    reserved = (folder / FILE).stat().st_blocks * 512 if (folder / FILE).is_file() else 0
    return folder, max(0, num_bytes - reserved)
