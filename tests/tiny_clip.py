"""A model of BioCLIP's kind with random weights, in open_clip's folder layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WIDTH = 16


def write_tiny_clip(path: Path) -> Any:
    """Write it below `path` and return the network."""
    import open_clip
    from safetensors.torch import save_file

    settings = {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    network = open_clip.model.CLIP(**settings).eval()
    document = {"model_cfg": settings, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    path.mkdir(parents=True, exist_ok=True)
    (path / "open_clip_config.json").write_text(json.dumps(document))
    save_file(network.state_dict(), path / "open_clip_model.safetensors")
    return network
