"""Copies made on purpose: photographs as a model that memorised them gives them back, to test what finds copies."""

# Letters: N images, C latent channels, H W latent size, B batch, T tokens, D width.
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.metrics.copies import PicturePart

Images = NDArray[np.uint8]

CHANGES: tuple[str, ...] = ("unchanged", "mirrored", "cropped", "recoloured", "mirrored, cropped, recoloured")
"""What is done to a photograph before the autoencoder."""

STRENGTHS: tuple[float, ...] = (0.3, 0.5, 0.7)
"""Of image-to-image: how far through the noise schedule a photograph goes before it is denoised again."""

PARTIAL: tuple[str, ...] = ("animal alone", "scene alone")
"""A training photograph and an unseen one joined: the middle of one, the surroundings of the other."""

_CROP = 0.9  # of the side
_GAIN, _OFFSET = 0.3, 30.0  # at most, of each channel; the offset in levels of 255
_NUM_STEPS = 10  # of a denoising from pure noise; a strength takes its share of them
_BATCH = 32
_MULTIPLE_PX = 64  # sides that every known base's U-Net takes

Denoise = Callable[[Tensor, float, int], Tensor]
"""(latents (N, C, H, W), strength, seed) → latents that were noised so far and denoised."""


def noised(strength: float) -> str:
    """The name of the kind of copy."""
    return f"noised to {strength:g}"


KINDS: tuple[str, ...] = (*CHANGES, *map(noised, STRENGTHS))
"""Every kind of copy of a whole photograph."""

JUDGED: Mapping[PicturePart, tuple[str, ...]] = {
    "picture": KINDS[:-1],
    "animal": ("animal alone",),
    "scene": ("scene alone",),
}
"""The kinds that each comparison must find. The strongest noise leaves little of a photograph to find."""


@dataclass(frozen=True, slots=True)
class Planter:
    """Makes every kind of copy with the autoencoder, and the U-Net, of the base whose pictures are judged.

    Without `denoise` the base's own U-Net denoises, told no name.
    """

    backbone: Backbone
    denoise: Denoise | None = None

    def through_autoencoder(self, images: Images) -> Images:
        """uint8 (N, 3, s, s) → the same size: what of them can come out of the base at all."""
        return self._decoded(self._encoded(images), images.shape[2:])

    def __call__(self, photographs: Images, seed: int) -> Mapping[str, Images]:
        """uint8 (N, 3, s, s) → by kind, the same shape. Photograph n's copies follow from it, `seed` and n."""
        rngs = [np.random.default_rng([seed, number]) for number in range(len(photographs))]
        crops = _each(_cropped, photographs, rngs)
        changed = {
            "unchanged": photographs,
            "mirrored": photographs[..., ::-1],
            "cropped": crops,
            "recoloured": _each(_recoloured, photographs, rngs),
            "mirrored, cropped, recoloured": _each(_recoloured, crops[..., ::-1], rngs),
        }
        size = photographs.shape[2:]
        latents = self._encoded(photographs)
        denoise = self.denoise or self._denoised
        found = {kind: self.through_autoencoder(changed[kind]) for kind in CHANGES}
        for strength in STRENGTHS:
            found[noised(strength)] = self._decoded(denoise(latents, strength, seed), size)
        return found

    def partial(self, photographs: Images, unseen: Images, middle: NDArray[np.floating]) -> Mapping[str, Images]:
        """Each (N, 3, s, s) photograph's animal in an unseen scene, and its scene around an unseen animal.

        middle: (s, s) from 0 to 1, how much of a place belongs to the animal.
        """
        joined = middle * photographs + (1 - middle) * unseen, (1 - middle) * photographs + middle * unseen
        return {kind: self.through_autoencoder(_levels(images)) for kind, images in zip(PARTIAL, joined, strict=True)}

    def _encoded(self, images: Images) -> Tensor:
        rows, columns = (-size % _MULTIPLE_PX for size in images.shape[2:])
        padded = np.pad(images, ((0, 0), (0, 0), (0, rows), (0, columns)), mode="edge")
        batches = [padded[start : start + _BATCH] for start in range(0, len(padded), _BATCH)]
        return torch.cat([self.backbone.encode(np.ascontiguousarray(batch)) for batch in batches])

    def _decoded(self, latents: Tensor, size: tuple[int, ...]) -> Images:
        images = np.concatenate([self.backbone.decode(batch) for batch in torch.split(latents, _BATCH)])
        return images[:, :, : size[0], : size[1]]

    @torch.no_grad()
    def _denoised(self, latents: Tensor, strength: float, seed: int) -> Tensor:
        nameless = self.backbone.text([""]).to(self.backbone.device)  # (1, T, D)

        def predict(noisy: Tensor, timesteps: Tensor, _: slice) -> Tensor:
            prediction: Tensor = self.backbone(noisy, timesteps, nameless.expand(len(noisy), -1, -1))
            return prediction

        return image_to_image(latents, strength, seed, self.backbone, predict)


def image_to_image(
    latents: Tensor,
    strength: float,
    seed: int,
    backbone: Backbone,
    predict: Callable[[Tensor, Tensor, slice], Tensor],
    num_steps: int = _NUM_STEPS,
) -> Tensor:
    """Latents (N, C, H, W) noised to `strength` of the schedule (1: pure noise) and denoised (Meng et al. 2022).

    predict: (noisy latents (B, C, H, W), timesteps (B,), which B of the N) → the U-Net's prediction.
    """
    schedule = backbone.schedule
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    done = []
    for start in range(0, len(latents), _BATCH):
        rows = slice(start, start + _BATCH)
        scheduler = schedule.scheduler()
        scheduler.set_timesteps(num_steps, device=backbone.device)
        left = [t for t in scheduler.timesteps if schedule.noise_fraction(float(t)) <= strength + 1e-3]
        noisy = schedule.add_noise(latents[rows], noise[rows], left[0].expand(len(latents[rows])))
        for timestep in left:
            prediction = predict(noisy, timestep.expand(len(noisy)), rows)
            noisy = scheduler.step(prediction, timestep, noisy).prev_sample
        done.append(noisy)
    return torch.cat(done)


def _each(
    change: Callable[[Images, np.random.Generator], Images], images: Images, rngs: list[np.random.Generator]
) -> Images:
    return np.stack([change(image, rng) for image, rng in zip(images, rngs, strict=True)])


def _cropped(image: Images, rng: np.random.Generator) -> Images:
    """(3, s, s): a crop anywhere, scaled back to the whole size."""
    height, width = image.shape[1:]
    top, left = rng.uniform(0, 1 - _CROP, 2) * (height, width)
    box = (left, top, left + _CROP * width, top + _CROP * height)
    scaled = Image.fromarray(image.transpose(1, 2, 0)).resize((width, height), Image.Resampling.BICUBIC, box=box)
    return np.asarray(scaled).transpose(2, 0, 1)


def _recoloured(image: Images, rng: np.random.Generator) -> Images:
    """(3, s, s): each channel with another contrast and brightness."""
    gain = rng.uniform(1 - _GAIN, 1 + _GAIN, (3, 1, 1))
    offset = rng.uniform(-_OFFSET, _OFFSET, (3, 1, 1))
    mean = image.mean((1, 2), keepdims=True)
    return _levels((image - mean) * gain + mean + offset)


def _levels(values: NDArray[np.floating]) -> Images:
    return np.asarray(values.round().clip(0, 255), dtype=np.uint8)
