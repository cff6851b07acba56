"""Inception-v3 pool features by torch-fidelity: the network of published Fréchet distances."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from taxadiffusion.errors import SettingsError
from taxadiffusion.features.weights import fetched, library, read_state, state_hash

# B batch


class InceptionExtractor:
    """uint8 images (B, 3, H, W) → (B, 2048), resized inside to 299 px as TensorFlow 1 does it.

    `weights`: torch-fidelity's converted TensorFlow weights, as a PyTorch or safetensors file; without it they are
    fetched from torch-fidelity's release. Raises `SettingsError` without weights and network.
    """

    name = "inception-v3-compat"

    def __init__(self, weights: Path | None = None, device: str = "cpu") -> None:
        module = library("torch_fidelity.feature_extractor_inceptionv3", "inception")
        if weights is None:
            state = fetched(lambda: _download(module.URL_INCEPTION_V3), "inception", "torch-fidelity's Inception-v3")
        else:
            state = read_state(weights, "inception")
        # torch-fidelity unpickles whatever file it is given: give it one of our own that holds only these tensors
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "inception.pth"
            torch.save(state, plain)
            try:
                network = module.FeatureExtractorInceptionV3(
                    self.name, ["2048"], feature_extractor_weights_path=str(plain)
                )
            except RuntimeError as error:
                raise SettingsError(f"extractor inception: the weights do not fit Inception-v3: {error}") from error
        self._network = network.to(device)
        self._device = device
        self.content_hash = state_hash(network)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (B, 3, H, W) → float32 (B, 2048)."""
        (features,) = self._network(torch.from_numpy(np.ascontiguousarray(images)).to(self._device))
        return np.asarray(features.cpu().numpy(), dtype=np.float32)


def _download(url: str) -> dict[str, torch.Tensor]:
    """The release's file, kept in torch's hub folder; its name ends in the start of its sha256, which is checked."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[-1], progress=False)
    return read_state(path, "inception")
