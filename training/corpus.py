"""What pretraining draws its batches from: latents of all pictures in a few crops, and their captions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.caption_tokens import CaptionTokens
from training.codec import Codec
from training.packs import SIMULATED, Pack, Slots, as_pixels, in_chunks, resized

# B batch, N pictures, V crops, C latent channels, h × w latents

SHARES = {128: {"butterflies": 0.6, "fish": 0.4}, 64: {"butterflies": 0.25, "fish": 0.2, SIMULATED: 0.55}}
"""Of each pack at each size in pixels; of packs with other names an equal share. Simulated pictures are 64 px large."""
NUM_CROPS = {128: 8, 64: 1}
CROPPED = (0.86, 0.98)
"""Sides of the crops, of the whole; the first variant is the whole picture."""
NUM_HELD = 256


@dataclass
class Part:
    """A pack as it is trained on. latents: size in pixels → float16 (V, 2, N, C, h, w), whole and mirrored."""

    name: str
    slots: Slots
    train: Tensor
    held: Tensor
    latents: dict[int, Tensor]


def part(pack: Pack, codec: Codec, device: torch.device) -> Part:
    """Encode a pack at every size that it is trained at; the crops are the same whenever it is done."""
    slots = pack.slots()
    on = Slots(slots.tokens.to(device), slots.kinds.to(device))
    rows = (torch.tensor(kind, dtype=torch.long, device=device) for kind in (pack.train, pack.held))
    sizes = (64,) if pack.name == SIMULATED else (128, 64)
    return Part(pack.name, on, *rows, {size: _latents(pack, codec, size, device) for size in sizes})


@torch.no_grad()
def _latents(pack: Pack, codec: Codec, size_px: int, device: torch.device) -> Tensor:
    draw = np.random.default_rng([len(pack), size_px])
    chunks = []
    for pictures in in_chunks(range(len(pack)), 256, pack.pictures):
        whole, views = as_pixels(pictures.to(device)), []
        for variant in range(NUM_CROPS[size_px]):
            x = resized(_crop(whole, draw) if variant else whole, size_px)
            views.append(torch.stack([codec.encode(view).half() for view in (x, x.flip(3))]))
        chunks.append(torch.stack(views))
    return torch.cat(chunks, 2)


def _crop(pixels: Tensor, draw: np.random.Generator) -> Tensor:
    whole = pixels.shape[-1]
    side = int(whole * draw.uniform(*CROPPED))
    top, left = draw.integers(0, whole - side + 1, 2)
    return pixels[..., top : top + side, left : left + side]


def scaling(parts: list[Part]) -> float:
    """What latents are multiplied with: 1 / their standard deviation, over photographs at 128 px."""
    some = [p.latents[128][0, 0, ::7].flatten() for p in parts if 128 in p.latents]
    return 1.0 / float(torch.cat(some or [parts[0].latents[64][0, 0].flatten()]).float().std())


def batch(
    parts: list[Part], captions: CaptionTokens, size_px: int, count: int, seed: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Latents (B, C, h, w), not scaled, and token ids, of all packs with pictures of that size, by their shares."""
    there = [p for p in parts if size_px in p.latents]
    known = SHARES[size_px]
    weights = np.array([known.get(p.name, 1 / len(there)) for p in there])
    numbers = np.random.default_rng([*seed, size_px]).multinomial(count, weights / weights.sum())
    latents, ids = [], []
    for p, number in zip(there, numbers, strict=True):
        found, device = p.latents[size_px], p.train.device
        rows = p.train[torch.randint(len(p.train), (int(number),), device=device)]
        flips = torch.randint(2, (int(number),), device=device)
        variants = torch.randint(len(found), (int(number),), device=device)
        latents.append(found[variants, flips, rows].float())
        ids.append(captions(p.slots, rows, flips))
    return torch.cat(latents), torch.cat(ids)


@dataclass(frozen=True)
class Examples:
    """Of one size: scaled latents (B, C, h, w), token ids, timesteps (B,), noise as the latents."""

    latents: Tensor
    ids: Tensor
    timesteps: Tensor
    noise: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.latents, self.ids, self.timesteps, self.noise)


def held_of(p: Part, captions: CaptionTokens, scale: float, num_timesteps: int) -> Examples:
    """Photographs never learnt from, each with its noise and timestep, so that losses can be compared."""
    rows = p.held[:NUM_HELD]
    latents = p.latents[128][0, 0, rows].float() * scale
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)).to(latents)
    timesteps = torch.arange(len(rows), device=rows.device) * num_timesteps // max(1, len(rows))
    return Examples(latents, captions.whole(p.slots, rows), timesteps, noise)
