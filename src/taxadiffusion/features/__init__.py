"""Networks from images to features, each with its name and the hash of its weights."""

from __future__ import annotations

from pathlib import Path

from taxadiffusion.errors import SettingsError
from taxadiffusion.features.cache import CachedExtractor, Extractor

__all__ = ["CachedExtractor", "Extractor", "open_extractor"]


def open_extractor(name: str, weights: Path | None = None, device: str = "cpu") -> Extractor:
    """The extractor `inception`, one of `bioclip.PUBLISHED`, or `onnx:FILE`. Raises `SettingsError` for any other.

    `weights` is a file (for BioCLIP's also a folder) used instead of a download; an ONNX file is its own weights.
    """
    kind, _, path = name.partition(":")
    if kind == "onnx" and path:
        from taxadiffusion.features.onnx import OnnxExtractor

        if weights is not None:
            raise SettingsError(f"extractor {name}: the ONNX file holds its weights; leave --weights out")
        return OnnxExtractor(Path(path), device)
    if name == "inception":
        from taxadiffusion.features.inception import InceptionExtractor

        return InceptionExtractor(weights, device)
    from taxadiffusion.features.bioclip import PUBLISHED, BioclipExtractor

    if name in PUBLISHED:
        return BioclipExtractor(weights, device, name=name)
    raise SettingsError(f"unknown extractor {name!r}; use inception, {', '.join(PUBLISHED)} or onnx:FILE")
