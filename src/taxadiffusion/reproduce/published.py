"""The paper's figures (arXiv 2506.01923), shown beside ours where the protocol is the same, and never otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from taxadiffusion.evaluate.scores import Protocol

RANKS = ("order", "family", "genus", "species")

FISHNET: Mapping[str, Mapping[str, tuple[float, float, float, float]]] = {
    "frechet_distance": {
        "zero_shot": (74.98, 67.46, 65.12, 61.93),
        "lora": (56.12, 52.81, 45.41, 43.91),
        "full": (50.72, 47.35, 41.72, 39.41),
        "taxadiffusion": (41.92, 40.16, 27.35, 31.87),
    },
    "lpips_to_real": {
        "zero_shot": (0.7854, 0.7859, 0.7821, 0.7737),
        "lora": (0.7698, 0.7705, 0.7617, 0.7574),
        "full": (0.7536, 0.7616, 0.7582, 0.7574),
        "taxadiffusion": (0.7303, 0.7324, 0.7349, 0.7319),
    },
    "alignment": {
        "zero_shot": (7.48, 8.12, 8.15, 3.35),
        "lora": (10.11, 10.77, 12.20, 7.61),
        "full": (11.83, 11.98, 13.74, 8.31),
        "taxadiffusion": (15.06, 16.67, 18.42, 10.43),
    },
}
"""Table 1, FishNet: metric → method → order, family, genus, species."""

_NETWORKS = {"frechet_distance": "inception-v3-compat", "alignment": "bioclip"}


def published(metric: str, protocol: Protocol, base: str) -> Mapping[str, tuple[float, float, float, float]]:
    """The paper's rows for a metric, where all else is the same: FishNet, Stable Diffusion 1.5, 512 px, network."""
    network = protocol.perceptual if metric == "lpips_to_real" else protocol.extractor
    same = (
        protocol.dataset == "fishnet"
        and "stable-diffusion-v1-5" in base
        and protocol.size_px == 512
        and protocol.ranks[-4:] == RANKS
        and (network == _NETWORKS.get(metric) if metric in _NETWORKS else network is not None)
    )
    return FISHNET.get(metric, {}) if same else {}
