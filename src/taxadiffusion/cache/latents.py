"""Latents of a prepared data set: computed once, memory-mapped, keyed by what they are made of."""

# Letters: N images, V variants of an image (0 plain, 1 mirrored), C latent channels, H W latent size, b rows read.
from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.transfer import memory_faults
from taxadiffusion.base.weights import read_json
from taxadiffusion.cache.files import disk_faults, mapped, reserve, sole_writer, write_document
from taxadiffusion.cache.parts import Part, build_shared, parts_of
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.errors import CheckpointError, DataError, NonFiniteError
from taxadiffusion.images import Fit, ImageError, Seen, load_image

VERSION = 2
"""Part of the key: raised when the same inputs would give other latents."""

_BATCH = 32  # at least
_KEEP_S = 10.0
_NAME, _DONE, _PARTS = "latents.f16", "cache.json", "parts"


class SourceImage(Protocol):
    """One image of a prepared data set: its file, the parts of it that count, and the file as it was prepared."""

    @property
    def path(self) -> Path: ...
    @property
    def box(self) -> Any: ...
    @property
    def content_box(self) -> Any: ...
    @property
    def seen(self) -> Seen | None: ...


class SourceImages(Protocol):
    """A prepared data set, as far as its images are concerned."""

    @property
    def content_hash(self) -> str: ...
    def __len__(self) -> int: ...
    def record(self, row: int) -> SourceImage: ...


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that gave no latents; it is never replaced by another."""

    row: int
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class LatentKey:
    """Everything the latents depend on; another key is another cache."""

    dataset_hash: str
    vae_hash: str
    size_px: int
    fit: Fit
    num_variants: int
    version: int = VERSION

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:20]


class Latents:
    """Memory-mapped float16 latents (N, V, C, H, W)."""

    def __init__(self, folder: Path, key: LatentKey) -> None:
        """Raises `CheckpointError` where the folder holds no finished cache of this key."""
        document = read_json(folder / _DONE)
        if document.get("key") != asdict(key):
            raise CheckpointError(f"{folder} holds latents of something else; delete it and they are computed anew")
        self.shape: tuple[int, ...] = tuple(document["shape"])
        self.unreadable = tuple(Unreadable(**entry) for entry in document["unreadable"])
        path = folder / _NAME
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


def cached_latents(
    cache_dir: Path,
    pictures: SourceImages,
    backbone: Backbone,
    *,
    size_px: int | None = None,
    fit: Fit = "crop",
    mirror: bool = False,
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
    key = _key(pictures, backbone, size_px, fit, mirror)
    folder = cache_dir / f"latents-{key.digest}"
    threads = num_threads or len(os.sched_getaffinity(0))
    if not (folder / _DONE).is_file():
        _build(folder, key, pictures, backbone, threads, progress or (lambda _done, _total: None))
    return Latents(folder, key)


def latents_to_come(
    cache_dir: Path,
    pictures: SourceImages,
    backbone: Backbone,
    *,
    size_px: int | None = None,
    fit: Fit = "crop",
    mirror: bool = False,
) -> tuple[Path, int]:
    """Where `cached_latents` will write, and how many bytes; 0 where all are computed."""
    key = _key(pictures, backbone, size_px, fit, mirror)
    folder = cache_dir / f"latents-{key.digest}"
    if (folder / _DONE).is_file():
        return folder, 0
    num_bytes = 2 * len(pictures) * key.num_variants * int(np.prod(backbone.latent_shape_at(key.size_px)))
    reserved = (folder / _NAME).stat().st_blocks * 512 if (folder / _NAME).is_file() else 0
    return folder, max(0, num_bytes - reserved)


def _key(pictures: SourceImages, backbone: Backbone, size_px: int | None, fit: Fit, mirror: bool) -> LatentKey:
    size_px = size_px or backbone.image_size_px
    return LatentKey(pictures.content_hash, backbone.vae_hash, size_px, fit, 2 if mirror else 1)


def _build(
    folder: Path,
    key: LatentKey,
    pictures: SourceImages,
    backbone: Backbone,
    num_threads: int,
    progress: Callable[[int, int], None],
) -> None:
    """Compute what no other process does, wait for the rest, and be the one that puts it together, or not."""
    total = len(pictures)
    shape = (total, key.num_variants, *backbone.latent_shape_at(key.size_px))
    parts = parts_of(folder / _PARTS, total)
    with sole_writer(folder):
        if not (folder / _DONE).is_file():
            _make_room(folder, 2 * int(np.prod(shape)))
    process = Shard.of_environment()
    build_shared(
        parts,
        lambda part, report: _build_part(folder / _NAME, part, shape[1:], key, pictures, backbone, num_threads, report),
        (folder / _DONE).is_file,
        lambda done: progress(done, total),
        first=process.number * len(parts) // process.count,
    )
    with sole_writer(folder):
        if not (folder / _DONE).is_file():
            unreadable = [fault for part in parts for fault in part.written().get("unreadable", [])]
            write_document(folder / _DONE, {"key": asdict(key), "shape": list(shape), "unreadable": unreadable})
            shutil.rmtree(folder / _PARTS, ignore_errors=True)


def _make_room(folder: Path, num_bytes: int) -> None:
    path = folder / _NAME
    if not path.is_file() or path.stat().st_size != num_bytes:
        reserve(path, num_bytes)
    with disk_faults(folder, 0):
        (folder / _PARTS).mkdir(exist_ok=True)


def _build_part(
    path: Path,
    part: Part,
    shape: tuple[int, ...],
    key: LatentKey,
    pictures: SourceImages,
    backbone: Backbone,
    num_threads: int,
    report: Callable[[int], None],
) -> None:
    """The part's latents (rows, *shape) in their place of the file, from where an interrupted process left them.

    Batches begin at the same rows in any case: on a CPU they give the same bits as without an interruption, and as by
    any number of processes.
    """
    size = max(_BATCH, backbone.encode_batch(key.size_px))
    with path.open("r+b") as stream:
        kept = _Kept(part, stream)
        batches = [
            range(start, min(start + size, part.stop)) for start in range(part.start + kept.done, part.stop, size)
        ]
        with closing(_decoded(pictures, key, batches, num_threads)) as decoded:
            try:
                for rows, loaded in zip(batches, decoded, strict=True):
                    latents = _encode(backbone, loaded, shape, rows.start)
                    with disk_faults(path, latents.nbytes):
                        stream.seek(rows.start * latents[0].nbytes)
                        stream.write(latents.tobytes())
                    kept.add(rows.stop - part.start, [fault for fault in loaded if isinstance(fault, Unreadable)])
                    report(rows.stop - part.start)
            finally:
                kept.flush()


class _Kept:
    """How far a part has come, on disk every `_KEEP_S` seconds and at the end: what a crash costs is no more."""

    def __init__(self, part: Part, stream: BinaryIO) -> None:
        written = part.written()
        self.part = part
        self.stream = stream
        self.done = self.on_disk = int(written["done"])
        self.unreadable: list[dict[str, Any]] = list(written.get("unreadable", []))
        self.last = time.monotonic()

    def add(self, done: int, faults: Sequence[Unreadable]) -> None:
        self.done = done
        self.unreadable += map(asdict, faults)
        if time.monotonic() - self.last >= _KEEP_S:
            self.flush()

    def flush(self) -> None:
        """Latents first, then the line that makes them count."""
        if self.done != self.on_disk:
            with disk_faults(self.part.path, 0):
                self.stream.flush()
                os.fsync(self.stream.fileno())
            self.part.write(self.done, unreadable=self.unreadable)
            self.on_disk, self.last = self.done, time.monotonic()


def _decoded(
    pictures: SourceImages, key: LatentKey, batches: Sequence[range], num_threads: int
) -> Generator[list[NDArray[np.uint8] | Unreadable], None, None]:
    """The pictures of each batch; threads decode the next one while the caller encodes this one."""
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:

        def asked_for(rows: range) -> list[Future[NDArray[np.uint8] | Unreadable]]:
            return [pool.submit(_load, pictures, row, key) for row in rows]

        try:
            coming = [asked_for(rows) for rows in batches[:1]]
            for number in range(len(batches)):
                coming += [asked_for(rows) for rows in batches[number + 1 : number + 2]]
                yield [future.result() for future in coming.pop(0)]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # left early: what was only asked for is not decoded


def _load(pictures: SourceImages, row: int, key: LatentKey) -> NDArray[np.uint8] | Unreadable:
    picture = pictures.record(row)
    try:
        return load_image(picture.path, key.size_px, key.fit, picture.box, picture.content_box, picture.seen)
    except ImageError as error:
        return Unreadable(row, str(picture.path), error.reason)


def _encode(
    backbone: Backbone, loaded: list[NDArray[np.uint8] | Unreadable], shape: tuple[int, ...], start: int
) -> NDArray[np.float16]:
    """(batch, V, C, H, W); zero where an image could not be read."""
    latents = np.zeros((len(loaded), *shape), np.float16)
    good = [index for index, image in enumerate(loaded) if not isinstance(image, Unreadable)]
    if not good:
        return latents
    images = torch.from_numpy(np.stack([image for image in loaded if not isinstance(image, Unreadable)]))
    for variant in range(shape[0]):
        pixels = images.flip(-1) if variant == 1 else images
        with memory_faults(f"{len(pixels)} pictures to encode", "free the device, or lower base.image_size_px"):
            latents[good, variant] = backbone.encode(pixels).half().cpu().numpy()
    finite = np.isfinite(latents).all(axis=(1, 2, 3, 4))
    if not finite.all():
        rows = [start + int(index) for index in np.flatnonzero(~finite)]
        raise NonFiniteError(f"the VAE of base {backbone.name!r} gives latents that float16 cannot hold, rows {rows}")
    return latents
