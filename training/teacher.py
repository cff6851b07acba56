"""Features of a pretrained tiny autoencoder's encoder (taef2, of the TAESD family): what a decoder's loss compares."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

# B batch, H height and W width in pixels

LAST_LAYERS = (1, 5, 9)
"""Features are taken after these layers: at full, half and a quarter of the resolution."""


class Teacher:
    """The first ten layers of the encoder: a convolution, then groups of residual blocks, each group after halving."""

    def __init__(self, path: Path, device: torch.device | None = None) -> None:
        found = torch.load(path, weights_only=True, map_location=device)
        self.weights = {name: value.float() for name, value in found.items()}

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """Three feature maps (B, 64, …) of pixels (B, 3, H, W) in [-1, 1]."""
        x = (pixels + 1) / 2
        found = []
        for layer in range(max(LAST_LAYERS) + 1):
            if f"{layer}.weight" in self.weights:
                x = functional.conv2d(
                    x,
                    self.weights[f"{layer}.weight"],
                    self.weights.get(f"{layer}.bias"),
                    stride=1 if layer == 0 else 2,
                    padding=1,
                )
            else:
                x = self._block(layer, x)
            if layer in LAST_LAYERS:
                found.append(x)
        return found

    def _block(self, layer: int, x: Tensor) -> Tensor:
        y = x
        for part in (0, 2, 4):
            y = self._conv(f"{layer}.conv.{part}", functional.relu(y) if part else y)
        return functional.relu(y + x)

    def _conv(self, name: str, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], padding=1)

    def distance(self, output: Tensor, images: Tensor) -> Tensor:
        """Mean absolute difference of the features, each map in units of its own standard deviation on `images`."""
        with torch.no_grad():
            wanted = self(images)
        total = output.new_zeros(())
        for a, b in zip(self(output), wanted, strict=True):
            total = total + (a - b).abs().mean() / b.std()
        return total / len(wanted)
