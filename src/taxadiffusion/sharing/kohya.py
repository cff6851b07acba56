"""A LoRA under the names of kohya's trainer, which ComfyUI and diffusers read, with ModelSpec's metadata."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from taxadiffusion.adapter import AdapterCard
from taxadiffusion.base.lora import LoRASettings

_PREFIX = "unet."
_ENDINGS = {".lora_A.weight": ".lora_down.weight", ".lora_B.weight": ".lora_up.weight"}


def kohya_names(lora: Mapping[str, Tensor], settings: LoRASettings) -> dict[str, Tensor]:
    """From diffusers' names ("unet.….to_q.lora_A.weight") to "lora_unet_…_to_q.lora_down.weight", with an alpha each.

    A module's name is that in diffusers with "_" for "."; alpha is a number of its own beside each pair, and the
    product counts alpha / rank times.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in lora.items():
        ending = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
        assert ending is not None, f"{name} is no weight of a LoRA"
        module = f"lora_unet_{name.removeprefix(_PREFIX).removesuffix(ending).replace('.', '_')}"
        renamed[module + _ENDINGS[ending]] = tensor.detach().cpu().contiguous()
        renamed[f"{module}.alpha"] = torch.tensor(float(settings.alpha))
    return renamed


def model_spec(card: AdapterCard, *, architecture: str, title: str, prediction: str, is_lora: bool) -> dict[str, str]:
    """Metadata of a safetensors file by Stability AI's ModelSpec 1.0.0, and what kohya's trainer writes of a LoRA.

    architecture: "stable-diffusion-v1" …; prediction: "epsilon" or "v_prediction".
    """
    size = f"{card.image_size_px}x{card.image_size_px}"
    found = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/lora" if is_lora else architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.description": (
            f"TaxaDiffusion: draws taxa by their lineage ({', '.join(card.ranks)}), conditioned on files of its own"
        ),
        "modelspec.resolution": size,
        "modelspec.prediction_type": "v" if prediction == "v_prediction" else "epsilon",
        "modelspec.tags": "taxadiffusion, species, biodiversity",
        "modelspec.usage_hint": "takes conditions of taxa, not prompts; its pictures are synthetic",
    }
    if is_lora and card.lora is not None:
        found |= {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(card.lora.rank),
            "ss_network_alpha": f"{float(card.lora.alpha)}",
            "ss_base_model_version": "sd_v2" if architecture.startswith("stable-diffusion-v2") else "sd_v1",
            "ss_v2": str(architecture.startswith("stable-diffusion-v2")),
        }
    return found
