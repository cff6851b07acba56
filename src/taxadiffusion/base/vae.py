"""How a VAE's latents become what the U-Net reads, and back; how many pictures it takes at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from taxadiffusion.errors import CheckpointError

VAE_BATCH = 16
_LARGEST_BATCH = 256
_LIVE = 6  # activations of the VAE's first block that are alive at once, generously


@dataclass(frozen=True, slots=True)
class LatentScale:
    """How a VAE's latents become what the U-Net reads: `(x − shift)·factor`, or `(x − mean)·factor/std` by channel."""

    factor: float
    shift: float
    statistics: tuple[Tensor, Tensor] | None  # mean and standard deviation, each (1, C, 1, 1)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> LatentScale:
        """From a VAE's settings. Raises `CheckpointError` for numbers that cannot be these."""
        factor, shift = settings["scaling_factor"], settings["shift_factor"]
        mean, std = settings["latents_mean"], settings["latents_std"]
        if not _is_number(factor) or factor <= 0:
            raise CheckpointError(f"the VAE's scaling_factor is {factor!r}, expected a number above 0")
        if shift is not None and not _is_number(shift):
            raise CheckpointError(f"the VAE's shift_factor is {shift!r}, expected a number")
        if mean is None and std is None:
            return cls(float(factor), float(shift or 0.0), None)
        channels = settings["latent_channels"]
        for key, values in (("latents_mean", mean), ("latents_std", std)):
            if not isinstance(values, list | tuple) or len(values) != channels or not all(map(_is_number, values)):
                raise CheckpointError(f"the VAE's {key} is {values!r}, expected {channels} numbers")
        if shift or min(std) <= 0:
            raise CheckpointError("the VAE's latents_std must be above 0, and latents_mean go without shift_factor")
        tensors = tuple(torch.tensor(values, dtype=torch.float32)[None, :, None, None] for values in (mean, std))
        return cls(float(factor), 0.0, (tensors[0], tensors[1]))

    def scaled(self, latents: Tensor) -> Tensor:
        """The VAE's (B, C, H, W) → the U-Net's."""
        if self.statistics is None:
            return (latents - self.shift) * self.factor
        mean, std = (tensor.to(latents) for tensor in self.statistics)
        return (latents - mean) * self.factor / std

    def unscaled(self, latents: Tensor) -> Tensor:
        """The U-Net's (B, C, H, W) → the VAE's."""
        if self.statistics is None:
            return latents / self.factor + self.shift
        mean, std = (tensor.to(latents) for tensor in self.statistics)
        return latents * std / self.factor + mean


def encode_batch(settings: Mapping[str, Any], device: torch.device, size_px: int) -> int:
    """Images that a VAE takes at once: on a CUDA device as many as half of its free memory holds, else 16."""
    if device.type != "cuda":
        return VAE_BATCH
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # free for us as well
    free = torch.cuda.mem_get_info(device)[0] + held
    one = _LIVE * 4 * int(settings["block_out_channels"][0]) * size_px**2  # bytes, float32
    return max(1, min(_LARGEST_BATCH, free // 2 // one))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
