"""LoRA on a U-Net, by peft: added, read, written in diffusers' names, merged and taken out again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from pydantic import Field
from torch import Tensor, nn

from taxadiffusion.errors import SettingsError
from taxadiffusion.sections import SettingsSection

ADAPTER = "default"
METADATA_KEY = "lora_adapter_metadata"
"""Where diffusers' `load_lora_weights` looks for rank, alpha and targets in the file's metadata."""

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class LoRASettings(SettingsSection):
    """LoRA's shape; the defaults are the paper's. `targets` are ends of module names, e.g. also "ff.net.2", "conv1"."""

    rank: int = Field(default=4, ge=1, le=1024, description="inner dimension (paper: 4)")
    alpha: int = Field(default=4, ge=1, description="scale numerator (paper: 4)")
    targets: tuple[str, ...] = Field(default=ATTENTION, min_length=1, max_length=64, description="module names (paper)")


def add_lora(unet: Any, settings: LoRASettings, *, seed: int) -> None:
    """Put LoRA layers (float32, gaussian A, zero B: the prediction is unchanged) beside every target module.

    Raises `SettingsError` where a target names no module of the U-Net.
    """
    names = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for target in settings.targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise SettingsError(f"LoRA target {target!r} names no linear or convolution layer of the U-Net")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(_config(settings), adapter_name=ADAPTER)
    for parameter in lora_parameters(unet).values():
        parameter.data = parameter.data.float()


def _config(settings: LoRASettings) -> LoraConfig:
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        init_lora_weights="gaussian",
        target_modules=list(settings.targets),
    )


def lora_parameters(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The LoRA parameters of a U-Net by their full names; empty where no LoRA was added."""
    return {name: p for name, p in unet.named_parameters() if ".lora_A." in name or ".lora_B." in name}


def _file_name(parameter_name: str) -> str:
    return f"unet.{parameter_name.replace(f'.{ADAPTER}.', '.')}"


def lora_metadata(settings: LoRASettings) -> dict[str, str]:
    """File metadata that tells diffusers rank, alpha and targets."""
    config = {
        "unet.r": settings.rank,
        "unet.lora_alpha": float(settings.alpha),
        "unet.target_modules": sorted(settings.targets),
    }
    # One key alone: safetensors writes several in an order that differs from run to run, and with it the file's hash.
    return {METADATA_KEY: json.dumps(config, sort_keys=True)}


def lora_targets(unet: nn.Module) -> dict[str, Tensor]:
    """The live LoRA parameters under the names that diffusers' `load_lora_weights` reads: "unet.….lora_A.weight"."""
    return {_file_name(name): parameter for name, parameter in lora_parameters(unet).items()}


def _layers(unet: nn.Module) -> Iterator[LoraLayer]:
    return (module for module in unet.modules() if isinstance(module, LoraLayer))


def merge_lora(unet: nn.Module) -> dict[str, Tensor]:
    """Add the LoRA's product to the frozen weights, so that a frozen LoRA costs nothing; gives back the weights as they
    were, for `unmerge_lora`. The sum is made in float32 and rounded once."""
    before = {}
    for name, layer in unet.named_modules():
        if isinstance(layer, LoraLayer):
            weight = layer.get_base_layer().weight
            before[name] = weight.detach().to("cpu", copy=True)
            weight.data.copy_(weight.float() + layer.get_delta_weight(ADAPTER))
    for layer in _layers(unet):
        layer.merged_adapters.append(ADAPTER)
    return before


def unmerge_lora(unet: nn.Module, before: Mapping[str, Tensor]) -> None:
    """Undo `merge_lora`, bit for bit."""
    for name, weight in before.items():
        layer = unet.get_submodule(name)
        assert isinstance(layer, LoraLayer)
        layer.get_base_layer().weight.data.copy_(weight)
        layer.merged_adapters.remove(ADAPTER)
