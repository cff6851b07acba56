"""BioCLIP by open_clip: image features, and text features of taxonomic names in the same space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from taxadiffusion.errors import SettingsError
from taxadiffusion.features.weights import library, state_hash
from taxadiffusion.names import Lineage

# B batch, D feature width

HUB_ID = "imageomics/bioclip"
ARCHITECTURE = "ViT-B-16"  # of BioCLIP's published weights
TEMPLATE = "a photo of {name}."
"""`name` is the lineage's names from coarse to fine with spaces between, BioCLIP's "taxonomic name"."""


class BioclipExtractor:
    """uint8 images (B, 3, H, W) → (B, D), and lineages → (B, D) by `texts`.

    `weights`: a folder in open_clip's hub layout, a weights file of BioCLIP's ViT-B-16, or None for the hub's
    `imageomics/bioclip`. Raises `SettingsError` without weights and network.
    """

    def __init__(self, weights: Path | None = None, device: str = "cpu") -> None:
        open_clip = library("open_clip", "bioclip")
        errors = library("huggingface_hub.errors", "bioclip")
        source: dict[str, Any] = {"model_name": f"hf-hub:{HUB_ID}"}
        if weights is not None and weights.is_dir():
            source = {"model_name": f"local-dir:{weights}"}
        elif weights is not None and weights.is_file():
            source = {"model_name": ARCHITECTURE, "pretrained": str(weights)}
        elif weights is not None:
            raise SettingsError(
                f"extractor bioclip: weights {weights} do not exist; give a folder or file of open_clip"
            )
        try:
            network, _, preprocess = open_clip.create_model_and_transforms(**source, device=device)
            self._tokenizer = open_clip.get_tokenizer(source["model_name"])
        except (OSError, RuntimeError, errors.HfHubHTTPError, errors.LocalEntryNotFoundError) as error:
            raise SettingsError(
                f"extractor bioclip: cannot load {weights or HUB_ID} ({error}); "
                "without network give open_clip weights with --weights, or use another extractor (onnx:FILE)"
            ) from error
        self._network = network.requires_grad_(False).eval()
        self._preprocess = preprocess
        self._device = device
        self.name = "bioclip"
        self.content_hash = state_hash(network)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (B, 3, H, W) → float32 (B, D), scaled to length 1."""
        pictures = [Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]
        pixels = torch.stack([self._preprocess(picture) for picture in pictures]).to(self._device)
        return np.asarray(self._network.encode_image(pixels, normalize=True).cpu().numpy(), dtype=np.float32)

    @torch.inference_mode()
    def texts(self, lineages: Sequence[Lineage]) -> NDArray[np.float32]:
        """Lineages → float32 (B, D), scaled to length 1, by `TEMPLATE`."""
        names = [TEMPLATE.format(name=taxonomic_name(lineage)) for lineage in lineages]
        tokens = self._tokenizer(names).to(self._device)
        return np.asarray(self._network.encode_text(tokens, normalize=True).cpu().numpy(), dtype=np.float32)


def taxonomic_name(lineage: Lineage) -> str:
    """The names of a lineage from coarse to fine: "Animalia Chordata … Amphiprion clarkii"."""
    return " ".join(name for _, name in lineage.names)
