"""Pictures become latents in one file, part by part, by as many processes as ask for the same."""

# Letters: V variants of an image (0 plain, 1 mirrored), C latent channels, H W latent size.
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
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.transfer import memory_faults
from taxadiffusion.cache.elsewhere import Elsewhere, image_keys, write_keys
from taxadiffusion.cache.files import FILE, FINISHED, disk_faults, reserve, sole_writer, write_document
from taxadiffusion.cache.parts import Part, build_shared, parts_of
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.errors import NonFiniteError
from taxadiffusion.images import Fit, ImageError, Seen, load_image

VERSION = 2
"""Part of the key: raised when the same inputs would give other latents."""

_BATCH = 32  # at least
_KEEP_S = 10.0
_PARTS = "parts"


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
class LatentForm:
    """How pictures are brought to the VAE. size_px: their side; None: the base's own. mirror: each also mirrored."""

    size_px: int | None = None
    fit: Fit = "crop"
    mirror: bool = False


@dataclass(frozen=True, slots=True)
class LatentKey:
    """Everything the latents depend on; another key is another cache."""

    dataset_hash: str
    vae_hash: str
    size_px: int
    fit: Fit
    num_variants: int
    version: int = VERSION

    @classmethod
    def of(cls, pictures: SourceImages, backbone: Backbone, form: LatentForm) -> LatentKey:
        size_px = form.size_px or backbone.image_size_px
        return cls(pictures.content_hash, backbone.vae_hash, size_px, form.fit, 2 if form.mirror else 1)

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:20]


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


@dataclass(frozen=True)
class Encoding:
    """The latents of `key` on their way into `folder`; `num_threads` decode."""

    folder: Path
    key: LatentKey
    pictures: SourceImages
    backbone: Backbone
    num_threads: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(V, C, H, W) of one picture."""
        return self.key.num_variants, *self.backbone.latent_shape_at(self.key.size_px)

    def run(self, progress: Callable[[int, int], None]) -> None:
        """Compute what no other process does, wait for the rest, and be the one that puts it together, or not."""
        total = len(self.pictures)
        shape = (total, *self.shape)
        parts = parts_of(self.folder / _PARTS, total)
        finished = self.folder / FINISHED
        with sole_writer(self.folder):
            if not finished.is_file():
                self._make_room(2 * int(np.prod(shape)))
        process = Shard.of_environment()
        keys = image_keys(map(self.pictures.record, range(total)), total)
        elsewhere = Elsewhere(self.folder, asdict(self.key), keys)
        build_shared(
            parts,
            partial(self._build_part, elsewhere),
            finished.is_file,
            lambda done: progress(done, total),
            first=process.number * len(parts) // process.count,
        )
        with sole_writer(self.folder):
            if not finished.is_file():
                unreadable = [fault for part in parts for fault in part.written().get("unreadable", [])]
                write_keys(self.folder, keys)
                write_document(finished, {"key": asdict(self.key), "shape": list(shape), "unreadable": unreadable})
                shutil.rmtree(self.folder / _PARTS, ignore_errors=True)

    def _make_room(self, num_bytes: int) -> None:
        path = self.folder / FILE
        if not path.is_file() or path.stat().st_size != num_bytes:
            reserve(path, num_bytes)
        with disk_faults(self.folder, 0):
            (self.folder / _PARTS).mkdir(exist_ok=True)

    def _build_part(self, elsewhere: Elsewhere, part: Part, report: Callable[[int], None]) -> None:
        """The part's latents (rows, *shape) in their place of the file, from where an interrupted process left them.

        Batches begin at the same rows in any case: on a CPU they give the same bits as without an interruption, and as
        by any number of processes. A batch that another data set's cache holds is taken from there.
        """
        path = self.folder / FILE
        size = max(_BATCH, self.backbone.encode_batch(self.key.size_px))
        with path.open("r+b") as stream:
            kept = _Kept(part, stream)
            batches = [
                range(start, min(start + size, part.stop)) for start in range(part.start + kept.done, part.stop, size)
            ]
            known = {rows for rows in batches if elsewhere.has(rows)}
            with closing(self._decoded([rows for rows in batches if rows not in known])) as decoded:
                try:
                    for rows in batches:
                        loaded = [] if rows in known else next(decoded)
                        latents = elsewhere.read(rows) if rows in known else self._encode(loaded, rows.start)
                        with disk_faults(path, latents.nbytes):
                            stream.seek(rows.start * latents[0].nbytes)
                            stream.write(latents.tobytes())
                        kept.add(rows.stop - part.start, [fault for fault in loaded if isinstance(fault, Unreadable)])
                        report(rows.stop - part.start)
                finally:
                    kept.flush()

    def _decoded(self, batches: Sequence[range]) -> Generator[list[NDArray[np.uint8] | Unreadable], None, None]:
        """The pictures of each batch; threads decode the next one while the caller encodes this one."""
        with ThreadPoolExecutor(self.num_threads, thread_name_prefix="decode") as pool:

            def asked_for(rows: range) -> list[Future[NDArray[np.uint8] | Unreadable]]:
                return [pool.submit(self._load, row) for row in rows]

            try:
                coming = [asked_for(rows) for rows in batches[:1]]
                for number in range(len(batches)):
                    coming += [asked_for(rows) for rows in batches[number + 1 : number + 2]]
                    yield [future.result() for future in coming.pop(0)]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)  # left early: what was only asked for is not decoded

    def _load(self, row: int) -> NDArray[np.uint8] | Unreadable:
        key, picture = self.key, self.pictures.record(row)
        try:
            return load_image(picture.path, key.size_px, key.fit, picture.box, picture.content_box, picture.seen)
        except ImageError as error:
            return Unreadable(row, str(picture.path), error.reason)

    def _encode(self, loaded: list[NDArray[np.uint8] | Unreadable], start: int) -> NDArray[np.float16]:
        """(batch, V, C, H, W); zero where an image could not be read."""
        latents = np.zeros((len(loaded), *self.shape), np.float16)
        good = [index for index, image in enumerate(loaded) if not isinstance(image, Unreadable)]
        if not good:
            return latents
        images = torch.from_numpy(np.stack([image for image in loaded if not isinstance(image, Unreadable)]))
        for variant in range(self.key.num_variants):
            pixels = images.flip(-1) if variant == 1 else images
            with memory_faults(f"{len(pixels)} pictures to encode", "free the device, or lower base.image_size_px"):
                latents[good, variant] = self.backbone.encode(pixels).half().cpu().numpy()
        finite = np.isfinite(latents).all(axis=(1, 2, 3, 4))
        if not finite.all():
            rows = [start + int(index) for index in np.flatnonzero(~finite)]
            raise NonFiniteError(
                f"the VAE of base {self.backbone.name!r} gives latents that float16 cannot hold, rows {rows}"
            )
        return latents
