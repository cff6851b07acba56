"""What ComfyUI and kohya's trainer take: which names a LoRA's weights may have, and what they add to a weight.

Written from what ComfyUI does (`comfy/lora.py`, `comfy/utils.py`, `comfy/weight_adapter/lora.py`): for each weight of a
U-Net of Stable Diffusion's form, by its name in diffusers with "_" for ".", a pair of up and down and one alpha.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

_ATTENTION = [f"attn{n}.{part}" for n in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")]
_TRANSFORMER = [*_ATTENTION, "ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"]
_AROUND = ["proj_in", "proj_out", "norm"]
_RESIDUAL = ["conv1", "conv2", "time_emb_proj", "conv_shortcut", "norm1", "norm2"]


def known_modules(layers: int, with_attention: Sequence[bool]) -> set[str]:
    """The modules of a U-Net (diffusers' names) that a LoRA may name; with_attention: of the blocks on the way down."""
    found = {"conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"}

    def block(place: str, residuals: int, attentions: int) -> None:
        found.update(f"{place}.resnets.{i}.{part}" for i in range(residuals) for part in _RESIDUAL)
        for i in range(attentions):
            found.update(f"{place}.attentions.{i}.{part}" for part in _AROUND)
            found.update(f"{place}.attentions.{i}.transformer_blocks.0.{part}" for part in _TRANSFORMER)

    number = len(with_attention)
    for i, attends in enumerate(with_attention):
        block(f"down_blocks.{i}", layers, layers * attends)
        block(f"up_blocks.{number - 1 - i}", layers + 1, (layers + 1) * attends)
        found.update({f"down_blocks.{i}.downsamplers.0.conv", f"up_blocks.{i}.upsamplers.0.conv"})
    block("mid_block", 2, 1)
    return found


def patches(lora: Mapping[str, Tensor], modules: set[str]) -> tuple[dict[str, Tensor], set[str]]:
    """What is added to the weight of each module, flattened to (out, in · kernel), and the keys that nothing reads."""
    added: dict[str, Tensor] = {}
    unread = set(lora)
    for module in modules:
        stem = f"lora_unet_{module.replace('.', '_')}"
        up, down, alpha = (f"{stem}.{part}" for part in ("lora_up.weight", "lora_down.weight", "alpha"))
        if up not in lora:
            continue
        unread -= {up, down, alpha}
        scale = lora[alpha].item() / lora[down].shape[0] if alpha in lora else 1.0
        added[module] = scale * lora[up].flatten(1) @ lora[down].flatten(1)
    return added, unread
