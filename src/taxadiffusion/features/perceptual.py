"""LPIPS distances of image pairs, by the lpips package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from taxadiffusion.errors import SettingsError
from taxadiffusion.features.weights import fetched, library, read_state, state_hash

# B batch


class PerceptualDistance:
    """LPIPS v0.1 on AlexNet, its authors' choice for measuring (Zhang et al. 2018).

    The calibrated layers come with the lpips package; `weights` are torchvision's AlexNet for ImageNet (a state
    dictionary with keys `features.N.weight`), fetched where not given. Raises `SettingsError` without weights
    and network.
    """

    name = "lpips-alex-v0.1"

    def __init__(self, weights: Path | None = None, device: str = "cpu") -> None:
        lpips = library("lpips", "lpips")
        if weights is None:
            models = library("torchvision.models", "lpips")
            kind = models.AlexNet_Weights.IMAGENET1K_V1
            state = fetched(lambda: dict(kind.get_state_dict(progress=False, check_hash=True)), "lpips", "AlexNet")
        else:
            state = read_state(weights, "lpips")
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        self._network = _with_trunk(network, state).to(device)
        self._device = device
        self.content_hash = state_hash(network)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (B, 3, H, W) twice, 32 px or more on a side → (B,) distances of the pairs; equal images give 0."""
        if min(images.shape[-2:]) < 32:
            raise SettingsError(f"LPIPS on AlexNet needs images of 32 px or more, got {images.shape[-2:]}")
        pair = [torch.from_numpy(side.astype(np.float32) / 127.5 - 1).to(self._device) for side in (images, others)]
        return np.asarray(self._network(*pair).flatten().cpu().numpy(), dtype=np.float32)


def _with_trunk(network: torch.nn.Module, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """LPIPS names layer N of AlexNet's `features` `net.sliceK.N`; put `state` there, every tensor of the trunk."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.startswith("net.slice"):
                continue
            layer = "features." + name.split(".", 2)[2]
            if layer not in state or state[layer].shape != parameter.shape:
                found = tuple(state[layer].shape) if layer in state else "nothing"
                raise SettingsError(
                    f"extractor lpips: the weights hold {found} at {layer}, AlexNet has {tuple(parameter.shape)}"
                )
            parameter.copy_(state[layer])
    return network.requires_grad_(False).eval()
