"""A base of under a million parameters in diffusers' layout, random weights, made on the fly; 16 px images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

Prediction = Literal["epsilon", "v_prediction", "flow_prediction"]

WIDTH = 16
NUM_TOKENS = 77
IMAGE_PX = 16


def write_tokenizer(path: Path, max_length: int = NUM_TOKENS) -> CLIPTokenizer:
    """CLIP's tokenizer over single bytes: no merges, so every text can be written and none needs a download."""
    path.mkdir(parents=True, exist_ok=True)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (path / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(path, model_max_length=max_length)
    tokenizer.save_pretrained(path)
    return tokenizer


def write_scheduler(path: Path, prediction: Prediction) -> None:
    if prediction == "flow_prediction":
        FlowMatchEulerDiscreteScheduler(shift=2.0).save_pretrained(path)
        return
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(path)


def write_tiny_base(path: Path, prediction: Prediction = "v_prediction", *, seed: int = 0) -> Path:
    """Write the base; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = write_tokenizer(path / "tokenizer")
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
            norm_num_groups=8,
        )
        vae = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=IMAGE_PX,
            scaling_factor=0.7,
            shift_factor=0.1,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=NUM_TOKENS,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    unet.save_pretrained(path / "unet")
    vae.save_pretrained(path / "vae")
    text.save_pretrained(path / "text_encoder")
    write_scheduler(path / "scheduler", prediction)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": [
            "diffusers",
            "FlowMatchEulerDiscreteScheduler" if prediction == "flow_prediction" else "DDIMScheduler",
        ],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (path / "model_index.json").write_text(json.dumps(index, indent=2))
    return path


def write_sd15_shaped_base(path: Path) -> Path:
    """Stable Diffusion 1.5 in its shape and its files' keys (2022) with 8 channels, one layer a block, 64 px."""
    from diffusers import PNDMScheduler

    write_tiny_base(path, "epsilon")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16, 16, 16),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
            norm_num_groups=8,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(4, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=64,
        )
    unet.save_pretrained(path / "unet")
    vae.save_pretrained(path / "vae")
    config = json.loads((path / "vae/config.json").read_text())
    published = ("_class_name", "act_fn", "block_out_channels", "down_block_types", "in_channels", "latent_channels")
    published += ("layers_per_block", "norm_num_groups", "out_channels", "sample_size", "up_block_types")
    kept = {key: config[key] for key in published} | {"_diffusers_version": "0.6.0"}
    (path / "vae/config.json").write_text(json.dumps(kept, indent=2))
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(path / "scheduler")
    index = json.loads((path / "model_index.json").read_text()) | {"scheduler": ["diffusers", "PNDMScheduler"]}
    (path / "model_index.json").write_text(json.dumps(index, indent=2))
    return path
