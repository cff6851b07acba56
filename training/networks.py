"""The two networks that learn, and the noise schedule they learn by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from taxadiffusion.base.transfer import multiplies_in_bfloat16
from taxadiffusion.errors import DataError
from training.tokenizer import NUM_TOKENS

# C latent channels

WIDTH = 256
CHANNELS, HEADS = (128, 256), (4, 8)
NUM_TIMESTEPS = 1000


@dataclass(frozen=True)
class Tokens:
    """Ids of a tokenizer that captions are built with, and the size of its vocabulary."""

    bos: int
    eos: int
    pad: int
    any: int
    layout: int
    vocab: int

    @classmethod
    def read(cls, packs: Path) -> Tokens:
        path = packs / "tokens.json"
        if not path.is_file():
            raise DataError(f"{path}: missing; run training.describe first")
        return cls(**json.loads(path.read_text()))

    def write(self, packs: Path) -> None:
        (packs / "tokens.json").write_text(json.dumps(self.__dict__))


def unet(num_components: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=num_components,
        out_channels=num_components,
        down_block_types=("CrossAttnDownBlock2D",) * len(CHANNELS),
        up_block_types=("CrossAttnUpBlock2D",) * len(CHANNELS),
        block_out_channels=CHANNELS,
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=HEADS,  # diffusers' name for the number of heads
    )


def text_encoder(tokens: Tokens) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokens.vocab,
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=8,
            max_position_embeddings=NUM_TOKENS,
            projection_dim=WIDTH,
            bos_token_id=tokens.bos,
            eos_token_id=tokens.eos,
            pad_token_id=tokens.pad,
        )
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with v-prediction, ended in pure noise; the one of training and sampling.

    Unended it leaves a twentieth of the picture at its last level. Averaged over 256 patches that is a plain view of
    the picture's colour, so the network takes its colour from the noise: from the seed, not from the name (Lin et al.
    2024, "Common diffusion noise schedules and sample steps are flawed").
    """
    return DDIMScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",  # sampling begins where there is no picture yet
    )


def arithmetic(device: torch.device) -> torch.autocast:
    """bfloat16 where the device multiplies in it, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=multiplies_in_bfloat16(device))


def for_device(model: nn.ModuleDict, device: torch.device) -> None:
    """Put both networks there.

    On a CPU in bfloat16 attention is written as products: the backward pass of torch's own is slow there. In float32
    torch's own is the faster one (docs/log.md, "The 128 px base on one core").
    """
    model.to(device)
    model["unet"].to(memory_format=torch.channels_last)
    if device.type == "cpu" and multiplies_in_bfloat16(device):
        model["unet"].set_attn_processor(AttnProcessor())


def start_from(model: nn.ModuleDict, base: Path) -> int:
    """Take every weight of an earlier base that fits; of its latent channels the leading ones. → how many were taken.

    A base of fewer channels than ours gives all but its first and last layer.
    """
    taken = 0
    for name, folder in (("unet", "unet"), ("text", "text_encoder")):
        files = sorted((base / folder).glob("*.safetensors"))
        if not files:
            raise DataError(f"{base / folder}: holds no safetensors")
        own = model[name].state_dict()
        found = {key: value.float() for key, value in load_file(files[0]).items() if key in own}
        if name == "unet":
            number = own["conv_out.bias"].shape[0]
            found["conv_in.weight"] = found["conv_in.weight"][:, :number]
            found |= {key: found[key][:number] for key in ("conv_out.weight", "conv_out.bias")}
        fits = {key: value for key, value in found.items() if value.shape == own[key].shape}
        model[name].load_state_dict(own | fits)
        taken += len(fits)
    return taken
