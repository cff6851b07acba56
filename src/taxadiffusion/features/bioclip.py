"""BioCLIP by open_clip: image features, and text features of taxonomic names in the same space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Published:
    """Weights of BioCLIP's kind: where they are, and the shape in open_clip's words that a file of them has."""

    hub_id: str
    architecture: str


PUBLISHED: Mapping[str, Published] = {
    "bioclip": Published("imageomics/bioclip", "ViT-B-16"),
    "bioclip-2": Published("imageomics/bioclip-2", "ViT-L-14"),
    "bioclip-2.5": Published("imageomics/bioclip-2.5-vith14", "ViT-H-14"),
}
"""By the name that a user gives (Stevens et al. 2024, arXiv 2311.18803; Gu et al. 2025, arXiv 2505.23883; its
successor "BioCLIP 2.5 Huge")."""

TEMPLATE = "a photo of {name}."
"""`name` is the lineage's names from coarse to fine with spaces between, BioCLIP's "taxonomic name"."""


class BioclipExtractor:
    """uint8 images (B, 3, H, W) → (B, D), and lineages → (B, D) by `texts`.

    `name`: of `PUBLISHED`. `weights`: a folder in open_clip's hub layout, a weights file of that one's shape, or None
    for the hub's. Raises `SettingsError` without weights and network, or for weights of another shape.
    """

    def __init__(self, weights: Path | None = None, device: str = "cpu", *, name: str = "bioclip") -> None:
        published = PUBLISHED[name]
        open_clip = library("open_clip", name)
        errors = library("huggingface_hub.errors", name)
        source: dict[str, Any] = {"model_name": f"hf-hub:{published.hub_id}"}
        if weights is not None and weights.is_dir():
            source = {"model_name": f"local-dir:{weights}"}
        elif weights is not None and weights.is_file():
            source = {"model_name": published.architecture, "pretrained": str(weights)}
        elif weights is not None:
            raise SettingsError(f"extractor {name}: weights {weights} do not exist; give a folder or file of open_clip")
        try:
            network, _, preprocess = open_clip.create_model_and_transforms(**source, device=device)
            self._tokenizer = open_clip.get_tokenizer(source["model_name"])
        except (OSError, RuntimeError, errors.HfHubHTTPError, errors.LocalEntryNotFoundError) as error:
            raise SettingsError(
                f"extractor {name}: cannot load {weights or published.hub_id} ({error}); "
                "without network give open_clip weights with --weights, or use another extractor (onnx:FILE)"
            ) from error
        self._network = network.requires_grad_(False).eval()
        self._preprocess = preprocess
        self._device = device
        self.name = name
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


def encoder_of_names(source: str, device: str) -> BioclipExtractor:
    """Of a setting: a name of `PUBLISHED` ("hub": the first), `NAME:FILE` for a file of that one's shape, or a folder
    or file alone. Raises `SettingsError`."""
    name, separator, path = source.partition(":")
    if source == "hub":
        return BioclipExtractor(None, device)
    if name in PUBLISHED:
        return BioclipExtractor(Path(path) if separator else None, device, name=name)
    return BioclipExtractor(Path(source), device)


def taxonomic_name(lineage: Lineage) -> str:
    """The names of a lineage from coarse to fine: "Animalia Chordata … Amphiprion clarkii"."""
    return " ".join(name for _, name in lineage.names)
