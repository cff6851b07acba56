"""Bases with the configuration files that were published, key for key, and random weights; at full or at tiny width."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from tests.tiny_base import write_tokenizer

Name = Literal["sd14", "sd15", "sd21", "flow"]
Form = Literal["whole", "sharded", "fp16"]
Documents = dict[str, dict[str, Any]]

SIZE_PX = 64
"""Of the pictures that the tiny bases are tried with: 8 latents along a side, as few as their U-Nets take."""

_UNET_2022: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu", "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": False, "cross_attention_dim": 768,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"], "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}  # fmt: skip
_VAE_2022: dict[str, Any] = {
    "_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3,
    "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
_TEXT_2022: dict[str, Any] = {
    "_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"], "attention_dropout": 0.0,
    "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "hidden_act": "quick_gelu", "hidden_size": 768,
    "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 12,
    "num_hidden_layers": 12, "pad_token_id": 1, "projection_dim": 768, "torch_dtype": "float32",
    "transformers_version": "4.22.0.dev0", "vocab_size": 49408,
}  # fmt: skip
_SCHEDULER_2022: dict[str, Any] = {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
}  # fmt: skip
_INDEX_2022: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0",
    "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}  # fmt: skip
_SD15: Documents = {
    "unet": _UNET_2022, "vae": _VAE_2022, "text_encoder": _TEXT_2022, "index": _INDEX_2022,
    "scheduler": _SCHEDULER_2022 | {"clip_sample": False},
}  # fmt: skip
_SD21: Documents = {
    "unet": _UNET_2022 | {
        "_diffusers_version": "0.10.0.dev0", "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024,
        "dual_cross_attention": False, "num_class_embeds": None, "only_cross_attention": False, "sample_size": 96,
        "upcast_attention": True, "use_linear_projection": True,
    },
    "vae": _VAE_2022 | {
        "_diffusers_version": "0.10.0.dev0", "_name_or_path": "hf-models/stable-diffusion-v2-768x768/vae",
        "sample_size": 768,
    },
    "text_encoder": _TEXT_2022 | {
        "_name_or_path": "hf-models/stable-diffusion-v2-768x768/text_encoder", "hidden_act": "gelu",
        "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23,
        "projection_dim": 512, "transformers_version": "4.25.0.dev0",
    },
    "scheduler": _SCHEDULER_2022 | {
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "clip_sample": False,
        "prediction_type": "v_prediction",
    },
    "index": _INDEX_2022 | {
        "_diffusers_version": "0.8.0", "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": False, "safety_checker": [None, None], "scheduler": ["diffusers", "DDIMScheduler"],
    },
}  # fmt: skip
PUBLISHED: dict[Name, Documents] = {
    "sd14": _SD15 | {"scheduler": _SCHEDULER_2022 | {"_diffusers_version": "0.4.0.dev0"}},
    "sd15": _SD15,
    "sd21": _SD21,
    # A U-Net that predicts the flow, with the scheduler's and the autoencoder's keys of Stable Diffusion 3.
    "flow": _SD15 | {
        "unet": _UNET_2022 | {"_diffusers_version": "0.29.0.dev0", "in_channels": 16, "out_channels": 16},
        "vae": _VAE_2022 | {
            "_diffusers_version": "0.29.0.dev0", "force_upcast": True, "latent_channels": 16, "latents_mean": None,
            "latents_std": None, "sample_size": 1024, "scaling_factor": 1.5305, "shift_factor": 0.0609,
            "use_post_quant_conv": False, "use_quant_conv": False,
        },
        "scheduler": {
            "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.29.0.dev0",
            "num_train_timesteps": 1000, "shift": 3.0,
        },
        "index": _INDEX_2022 | {
            "requires_safety_checker": False, "safety_checker": [None, None], "feature_extractor": [None, None],
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        },
    },
}  # fmt: skip
"""As published in 2022 (Stable Diffusion 1.4, 1.5, 2.1): silent about the VAE's scaling, the prediction and more."""


def tiny(name: Name) -> Documents:
    """The same keys, every width and depth shrunk; the text encoder keeps its width, and the U-Net what it reads."""
    documents = copy.deepcopy(PUBLISHED[name])
    heads = [2, 4, 4, 4] if isinstance(documents["unet"]["attention_head_dim"], list) else 8
    documents["unet"] |= {"block_out_channels": [32, 64, 64, 64], "attention_head_dim": heads, "layers_per_block": 1}
    documents["vae"] |= {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1}
    documents["text_encoder"] |= {"num_hidden_layers": 1, "intermediate_size": 64}
    return documents


def write_documents(path: Path, documents: Documents) -> None:
    """The JSON files and a tokenizer over single bytes."""
    for component in ("unet", "vae", "text_encoder"):
        (path / component).mkdir(parents=True, exist_ok=True)
        (path / component / "config.json").write_text(json.dumps(documents[component], indent=2))
    (path / "scheduler").mkdir(exist_ok=True)
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(documents["scheduler"], indent=2))
    (path / "model_index.json").write_text(json.dumps(documents["index"], indent=2))
    write_tokenizer(path / "tokenizer")
    if documents["text_encoder"]["hidden_size"] == 1024:  # Stable Diffusion 2 pads with "!", token 0
        config = path / "tokenizer" / "tokenizer_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token": "!"}))


def write_published_base(path: Path, name: Name, form: Form = "whole", *, seed: int = 0) -> Path:
    """A tiny base; the same name and seed give the same weights in every form ("fp16": rounded)."""
    documents = tiny(name)
    write_documents(path, documents)
    vocabulary = json.loads((path / "tokenizer" / "vocab.json").read_text())
    documents["text_encoder"]["vocab_size"] = len(vocabulary)
    (path / "text_encoder" / "config.json").write_text(json.dumps(documents["text_encoder"], indent=2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel.from_config(documents["unet"])
        vae = AutoencoderKL.from_config(documents["vae"])
        text = CLIPTextModel(CLIPTextConfig.from_dict(documents["text_encoder"]))
    _write(path / "unet", "diffusion_pytorch_model", unet.state_dict(), form)
    # Shards are written by later versions, which know the new names alone; so does diffusers when it reads shards.
    latents = vae.state_dict() if form == "sharded" else _older_names(vae.state_dict())
    _write(path / "vae", "diffusion_pytorch_model", latents, form)
    states = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in text.state_dict().items()}
    states["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    _write(path / "text_encoder", "model", states, form)
    return path


def _older_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the published autoencoders name their attention."""
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for key, value in state.items():
        for new, former in names.items():
            key = key.replace(new, former)
        renamed[key] = value
    return renamed


def _write(folder: Path, stem: str, state: dict[str, Tensor], form: Form) -> None:
    tensors = {key: value.contiguous() for key, value in state.items()}
    if form == "fp16":
        half = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
        save_file(half, folder / f"{stem}.fp16.safetensors", {"format": "pt"})
    elif form == "whole":
        save_file(tensors, folder / f"{stem}.safetensors", {"format": "pt"})
    else:
        names = sorted(tensors)
        parts = {f"{stem}-0000{part + 1}-of-00002.safetensors": names[part::2] for part in range(2)}
        for file, keys in parts.items():
            save_file({key: tensors[key] for key in keys}, folder / file, {"format": "pt"})
        size = sum(value.nbytes for value in tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": {key: f for f, keys in parts.items() for key in keys}}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
