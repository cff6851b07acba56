"""What a base's components are in diffusers' own words, their defaults filled in; what cannot be served is refused."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import CLIPTextConfig

from taxadiffusion.base.noise import NoiseSchedule
from taxadiffusion.base.vae import LatentScale
from taxadiffusion.base.weights import component_variant, read_json
from taxadiffusion.errors import CheckpointError

_OTHER_UNETS: Mapping[str, tuple[object, str]] = {
    "time_cond_proj_dim": (None, "a latent consistency model: it reads the guidance scale beside the noise level"),
    "addition_embed_type": (None, "of Stable Diffusion XL's kind: it reads pooled text and sizes beside the prompt"),
    "class_embed_type": (None, "conditioned on classes"),
    "num_class_embeds": (None, "conditioned on classes"),
    "encoder_hid_dim": (None, "one that projects its text states itself"),
    "encoder_hid_dim_type": (None, "one that projects its text states itself"),
    "attention_type": ("default", "of GLIGEN's kind: it reads boxes"),
    "dual_cross_attention": (False, "of Versatile Diffusion's kind: it reads two conditions"),
}
"""U-Nets that need more than a noise level and token states: setting → (value where not so, what it is)."""

_OTHER_CHANNELS = {
    5: "depth to image",
    7: "an upscaler",
    8: "editing by instructions",
    9: "inpainting",
}
_SERVED = (
    "served are Stable Diffusion 1 and 2 and bases of their form: one CLIP text encoder, a U-Net, a KL autoencoder"
)

# Whatever settings of a stranger make diffusers stumble over.
_LOADING_FAULTS = (
    SafetensorError, OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError,
    AssertionError,
)  # fmt: skip


def check_base(base: Path) -> None:
    """Look at a base's settings alone. Raises `CheckpointError` naming what cannot be served."""
    if not (base / "unet" / "config.json").is_file():
        index = base / "model_index.json"
        kind = f": it is a {read_json(index).get('_class_name')}" if index.is_file() else ""
        raise CheckpointError(
            f"{base} is not a base in diffusers' layout with a U-Net (it has no unet/config.json){kind}; {_SERVED}. "
            "Single files are converted with StableDiffusionPipeline.from_single_file('FILE').save_pretrained('NEW')"
        )
    _check_pipeline(base)
    NoiseSchedule(read_json(base / "scheduler" / "scheduler_config.json"))
    unet, vae, text = unet_settings(base), vae_settings(base), text_settings(base)
    LatentScale.of(vae)
    channels, latents = unet["in_channels"], vae["latent_channels"]
    if channels != latents:
        kind = _OTHER_CHANNELS.get(channels, "another task")
        raise _refused(base, f"its U-Net reads {channels} channels, its VAE gives {latents}; it is for {kind}")
    if unet["out_channels"] != channels:
        raise _refused(base, f"its U-Net gives {unet['out_channels']} channels for {channels} (learned variances)")
    if unet["cross_attention_dim"] != text.hidden_size:
        raise _refused(
            base,
            f"its U-Net reads states of width {unet['cross_attention_dim']}, its text encoder gives {text.hidden_size}",
        )
    if not (base / "tokenizer").is_dir():
        raise CheckpointError(f"{base / 'tokenizer'} is missing: the text encoder needs its tokenizer")


def _check_pipeline(base: Path) -> None:
    """`model_index.json` where there is one: the pipeline that the base was published as."""
    if not (base / "model_index.json").is_file():
        return
    index = read_json(base / "model_index.json")
    more = [
        name for name, value in index.items() if isinstance(value, list) and any(value) and name[-2:] in ("_2", "_3")
    ]
    if more:
        raise _refused(
            base, f"it is a {index.get('_class_name')} with {', '.join(sorted(more))}: text encoders beside one"
        )
    kind = index.get("text_encoder")
    if isinstance(kind, list) and kind and kind[-1] != "CLIPTextModel":
        raise _refused(base, f"its text encoder is a {kind[-1]}, not a CLIPTextModel")


def unet_settings(base: Path) -> dict[str, Any]:
    """Of the U-Net. Raises `CheckpointError`."""
    settings = _settings(UNet2DConditionModel, base, "unet", ("in_channels", "out_channels", "cross_attention_dim"))
    size = settings["sample_size"]
    sides = size if isinstance(size, list | tuple) else [size]
    if size is not None and not (sides and all(map(_is_count, sides))):
        raise CheckpointError(f"{base / 'unet' / 'config.json'}: sample_size is {size!r}, expected a number of latents")
    for key, (plain, what) in _OTHER_UNETS.items():
        if settings[key] != plain:
            raise _refused(base, f"its U-Net is {what} ({key} = {settings[key]!r})")
    return settings


def vae_settings(base: Path) -> dict[str, Any]:
    """Of the VAE. Raises `CheckpointError`."""
    settings = _settings(AutoencoderKL, base, "vae", ("in_channels", "out_channels", "latent_channels"))
    if (settings["in_channels"], settings["out_channels"]) != (3, 3):
        raise _refused(base, f"its VAE is not one of colour pictures ({settings['in_channels']} channels)")
    return settings


def text_settings(base: Path) -> CLIPTextConfig:
    """Of the text encoder. Raises `CheckpointError`."""
    path = base / "text_encoder" / "config.json"
    stated = read_json(path)
    if stated.get("model_type") != "clip_text_model":
        raise CheckpointError(
            f"{base}/text_encoder is a {stated.get('model_type')!r}; only CLIP's (clip_text_model) is read"
        )
    kinds = stated.get("architectures") or ["CLIPTextModel"]
    if not isinstance(kinds, list) or "CLIPTextModel" not in kinds:
        raise _refused(base, f"its text encoder is {kinds}, not CLIPTextModel")
    if stated.get("use_attention_mask"):
        raise _refused(base, "its text encoder masks padding (use_attention_mask)")
    try:
        settings = CLIPTextConfig.from_dict(stated)
    except (StrictDataclassError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise CheckpointError(f"{path} holds no settings of a CLIP text encoder: {error}") from error
    if not _is_count(settings.max_position_embeddings):
        raise CheckpointError(f"{path}: max_position_embeddings is {settings.max_position_embeddings!r}")
    return settings


def load_model(model_class: Any, base: Path, component: str, dtype: torch.dtype) -> Any:
    """A diffusers model, strictly: every weight present, none unknown. Raises `CheckpointError`."""
    try:
        model, loading = model_class.from_pretrained(
            base, subfolder=component, use_safetensors=True, local_files_only=True, torch_dtype=dtype,
            output_loading_info=True, variant=component_variant(base, component),
        )  # fmt: skip
    except _LOADING_FAULTS as error:
        raise CheckpointError(f"{base / component} cannot be loaded as {model_class.__name__}: {error}") from error
    wrong = [*loading["missing_keys"], *loading["unexpected_keys"], *(k[0] for k in loading["mismatched_keys"])]
    if wrong:
        raise CheckpointError(
            f"{base / component}: weights do not match the model's settings, e.g. {sorted(map(str, wrong))[0]}"
        )
    return model


def _settings(model_class: Any, base: Path, component: str, counts: tuple[str, ...]) -> dict[str, Any]:
    """A component's settings with the defaults of its class: what the loaded model's `config` will be."""
    path = base / component / "config.json"
    stated = read_json(path)
    name = stated.get("_class_name", model_class.__name__)
    if name != model_class.__name__:
        raise _refused(base, f"its {component} is a {name}, not a {model_class.__name__}")
    parameters = inspect.signature(model_class.__init__).parameters
    defaults = {key: parameter.default for key, parameter in parameters.items() if key != "self"}
    settings = defaults | {key: value for key, value in stated.items() if key in defaults}
    for key in counts:
        if not _is_count(settings[key]):
            raise CheckpointError(f"{path}: {key} is {settings[key]!r}, expected a whole number above 0")
    widths = settings["block_out_channels"]
    if not (isinstance(widths, list | tuple) and widths and all(map(_is_count, widths))):
        raise CheckpointError(f"{path}: block_out_channels is {widths!r}, expected the widths of the blocks")
    return settings


def _refused(base: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{base} cannot be served: {what}; {_SERVED}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
