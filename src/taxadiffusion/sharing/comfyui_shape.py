"""Whether ComfyUI can hold a base: it knows a few shapes of U-Net and tells them apart by their weights alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel

from taxadiffusion.base.components import unet_settings, vae_settings
from taxadiffusion.base.noise import NoiseSchedule
from taxadiffusion.base.weights import read_json
from taxadiffusion.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Shape:
    """A base that ComfyUI knows.

    architecture: ModelSpec's name. blocks: widths of the U-Net's four blocks, of `layers` residual blocks each. width:
    of the token states. heads: as diffusers writes them. linear: projections around a transformer are linear layers,
    not 1×1 convolutions. vae_blocks: widths of the autoencoder's blocks.
    """

    name: str
    architecture: str
    width: int
    heads: int | tuple[int, ...]
    linear: bool
    blocks: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    vae_blocks: tuple[int, ...] = (128, 256, 512, 512)

    def unet(self) -> dict[str, Any]:
        """Every setting of its U-Net; those not named here are diffusers' defaults, which are Stable Diffusion's."""
        defaults = {
            key: parameter.default
            for key, parameter in inspect.signature(UNet2DConditionModel.__init__).parameters.items()
            if key != "self"
        }
        return defaults | {
            "block_out_channels": self.blocks,
            "layers_per_block": self.layers,
            "cross_attention_dim": self.width,
            "attention_head_dim": self.heads,
            "use_linear_projection": self.linear,
        }


SHAPES: Sequence[Shape] = (
    Shape("Stable Diffusion 1", "stable-diffusion-v1", 768, 8, linear=False),
    Shape("Stable Diffusion 2", "stable-diffusion-v2", 1024, (5, 10, 20, 20), linear=True),
)
"""What ComfyUI builds of the bases that are served here (its `model_detection` and `supported_models`)."""

_SCALE = 0.18215
"""The only scale of latents that ComfyUI knows of these shapes."""

_FREE = frozenset({"sample_size", "upcast_attention", "dropout"})
"""Settings that change no weight and no prediction."""

_SCHEDULE = {
    "trained_betas": None,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
}
"""The only one that it gives to these shapes."""


@dataclass(frozen=True, slots=True)
class Held:
    """How ComfyUI holds a base."""

    shape: Shape
    prediction: str
    """ "epsilon" or "v_prediction"."""
    zero_snr: bool
    """The schedule ends in pure noise."""


def held(base: Path, name: str) -> Held:
    """The shape that a base has. Raises `SettingsError` naming the first setting that none of `SHAPES` has.

    name: of the base, for messages.
    """
    unet = unet_settings(base)
    shape = min(SHAPES, key=lambda shape: len(_differing(unet, shape.unet())))
    if wrong := _differing(unet, shape.unet()):
        key = wrong[0]
        raise _refused(name, f"{key} of its U-Net is {unet[key]!r}, of {shape.name} {shape.unet()[key]!r}")
    vae = vae_settings(base)
    found = (tuple(vae["block_out_channels"]), vae["latent_channels"], vae["scaling_factor"], vae["shift_factor"])
    if found != (shape.vae_blocks, 4, _SCALE, None):
        raise _refused(name, f"its autoencoder (widths, latent channels, scale, shift) is {found}")
    schedule = NoiseSchedule(read_json(base / "scheduler" / "scheduler_config.json"))
    if schedule.prediction not in ("epsilon", "v_prediction"):
        raise _refused(name, f"it predicts {schedule.prediction}")
    for key, value in _SCHEDULE.items():
        if (own := schedule.config.get(key)) != value:
            raise _refused(name, f"{key} of its noise schedule is {own!r}, ComfyUI's is {value!r}")
    return Held(shape, schedule.prediction, bool(schedule.config.get("rescale_betas_zero_snr")))


def _differing(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    def plain(value: Any) -> Any:
        return tuple(value) if isinstance(value, list | tuple) else value

    return [key for key in expected if key not in _FREE and plain(found[key]) != plain(expected[key])]


def _refused(name: str, what: str) -> SettingsError:
    known = " and ".join(shape.name for shape in SHAPES)
    return SettingsError(
        f"base {name!r} has a shape that ComfyUI cannot hold: {what}; it holds {known}. "
        "Export with --to diffusers, or train on such a base"
    )
