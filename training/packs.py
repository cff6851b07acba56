"""Packs of pictures: what `training.pack` writes, and pretraining and the decoder read.

A pack `NAME` in a folder is `NAME.bin` (WebP after WebP), `NAME.offsets.npy`, `NAME.rows.json` (noun, split, measured
phrases), `NAME.seen.json` (how many photographs of which taxon), and, once described, `NAME.slots.npz` (caption slots).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from taxadiffusion.errors import DataError

# N pictures, S caption slots, H = W side in pixels

SIMULATED = "simulated"
"""The one pack that shows no taxon that lives."""


@dataclass(frozen=True)
class Slots:
    """The caption of each picture and of its mirror image: token ids and kinds, both (N, 2, S) int64."""

    tokens: Tensor
    kinds: Tensor


class Pack:
    """One set of pictures; nothing is decoded before it is asked for."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._offsets = np.load(self._file("offsets.npy"), allow_pickle=False)
        self._data = np.memmap(self._file("bin"), mode="r")
        if self._offsets[-1] != len(self._data):
            raise DataError(f"{self._file('bin')}: is not whole; run training.pack again")

    def _file(self, end: str) -> Path:
        path = self.folder / f"{self.name}.{end}"
        if not path.is_file():
            raise DataError(f"{path}: missing; run training.pack, and training.describe after it")
        return path

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def picture(self, row: int) -> NDArray[np.uint8]:
        """uint8 (3, H, W)"""
        blob = self._data[self._offsets[row] : self._offsets[row + 1]].tobytes()
        return np.asarray(Image.open(io.BytesIO(blob), formats=["WEBP"]).convert("RGB")).transpose(2, 0, 1)

    def pictures(self, rows: Sequence[int]) -> Tensor:
        """uint8 (B, 3, H, W), decoded in threads."""
        with ThreadPoolExecutor() as pool:
            return torch.from_numpy(np.stack(list(pool.map(self.picture, rows))))

    @cached_property
    def rows(self) -> list[dict[str, object]]:
        return list(json.loads(self._file("rows.json").read_text()))

    @cached_property
    def train(self) -> list[int]:
        """Pictures to learn from."""
        return [i for i, row in enumerate(self.rows) if row["split"] == "train"]

    @cached_property
    def held(self) -> list[int]:
        """Photographs never learnt from, whose loss is followed."""
        return [i for i, row in enumerate(self.rows) if row["split"] != "train"]

    def slots(self) -> Slots:
        with np.load(self._file("slots.npz"), allow_pickle=False) as found:
            return Slots(*(torch.from_numpy(found[key].astype(np.int64)) for key in ("slots", "kinds")))


def packs(folder: Path) -> list[Pack]:
    """All packs of a folder, by name."""
    names = sorted(path.name.removesuffix(".bin") for path in folder.glob("*.bin"))
    if not names:
        raise DataError(f"{folder}: holds no pack; run training.pack first")
    return [Pack(folder, name) for name in names]


def write_pack(folder: Path, name: str, blobs: Sequence[bytes], rows: Sequence[dict[str, object]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.bin").write_bytes(b"".join(blobs))
    np.save(folder / f"{name}.offsets.npy", np.cumsum([0, *map(len, blobs)]))
    (folder / f"{name}.rows.json").write_text(json.dumps(list(rows)))


def webp(picture: NDArray[np.uint8], quality: int = 82) -> bytes:
    """uint8 (3, H, W) → WebP."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0))).save(buffer, "WEBP", quality=quality, method=6)
    return buffer.getvalue()


def as_pixels(pictures: Tensor) -> Tensor:
    """uint8 → float in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def resized(pixels: Tensor, size_px: int) -> Tensor:
    """(B, 3, H, W) at another size; as it is where it has it."""
    if pixels.shape[-1] == size_px:
        return pixels
    return functional.interpolate(pixels, size=(size_px, size_px), mode="bicubic", antialias=True).clamp(-1, 1)


def evenly(rows: Sequence[int], number: int) -> list[int]:
    """At most `number` of the rows, from the first to the last."""
    places = np.linspace(0, len(rows) - 1, min(number, len(rows))).astype(int)
    return [rows[i] for i in places]


def in_chunks(rows: Sequence[int], size: int, make: Callable[[Sequence[int]], Tensor]) -> Iterable[Tensor]:
    return (make(rows[start : start + size]) for start in range(0, len(rows), size))
