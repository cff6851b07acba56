"""How near the latent cache comes to the VAE's own speed: `python -m benchmarks.latents [--device cuda] [--base DIR]`.

The VAE alone encodes pictures that are in memory, in the batches that the cache uses. The cache decodes JPEG files,
encodes them and writes the latents. Both in one process, in turn. On a CPU, decoding takes processors from the VAE, so
the ratio says what decoding costs; on a GPU it says what the overlap leaves of it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import timed
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.transfer import use_fast_arithmetic
from taxadiffusion.base.weights import SHIPPED_BASE
from taxadiffusion.cache import LatentForm, cached_latents

PHOTO_PX = (500, 375)  # the usual size of iNaturalist's "medium" photographs


@dataclass(frozen=True)
class Photo:
    path: Path
    box: None = None
    content_box: None = None
    seen: None = None


class Photos:
    """Files on disk, as the cache asks for them."""

    def __init__(self, folder: Path, number: int, name: str) -> None:
        rng = np.random.default_rng(0)
        self.content_hash = name
        self.paths = [folder / f"{index}.jpg" for index in range(number)]
        for path in self.paths:
            if not path.exists():
                small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
                small.resize(PHOTO_PX, Image.Resampling.BICUBIC).save(path, quality=90)

    def __len__(self) -> int:
        return len(self.paths)

    def record(self, row: int) -> Photo:
        return Photo(self.paths[row])


def measure(backbone: Backbone, folder: Path, *, size_px: int, num_photos: int, num_rounds: int) -> dict[str, float]:
    """Images a second of the VAE alone and of the cache (medians), and their ratio."""
    photos = Photos(folder, num_photos, "")
    batch = min(num_photos, max(32, backbone.encode_batch(size_px)))
    pixels = torch.randint(0, 256, (batch, 3, size_px, size_px), dtype=torch.uint8)
    backbone.encode(pixels)
    alone, cached = [], []
    for number in range(num_rounds):
        photos.content_hash = f"round {number}"
        alone.append(batch / timed(lambda: backbone.encode(pixels).cpu(), time.perf_counter))
        seconds = timed(lambda: cached_latents(folder, photos, backbone, LatentForm(size_px)), time.perf_counter)
        cached.append(num_photos / seconds)
    found = {"vae_images_per_s": float(np.median(alone)), "cache_images_per_s": float(np.median(cached))}
    return found | {"ratio": float(np.median(np.array(cached) / np.array(alone)))}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latents", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--base", default=SHIPPED_BASE)
    parser.add_argument("--size-px", type=int)
    parser.add_argument("--num-photos", type=int, default=256)
    parser.add_argument("--num-rounds", type=int, default=3)
    args = parser.parse_args()
    use_fast_arithmetic(torch.device(args.device))
    backbone = Backbone.load(args.base, device=args.device)
    with tempfile.TemporaryDirectory() as folder:
        size_px = args.size_px or backbone.image_size_px
        found = measure(backbone, Path(folder), size_px=size_px, num_photos=args.num_photos, num_rounds=args.num_rounds)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
