"""The frozen diffusers base and its LoRA; with `base.components` the only file that names diffusers' models."""

# Letters: B batch, C latent channels, H W latent size, T tokens, D width.
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from taxadiffusion.base.attention import Conditions, Current, share_attention
from taxadiffusion.base.components import check_base, load_model, text_settings, vae_settings
from taxadiffusion.base.extra_attention import add_decoupled_attention
from taxadiffusion.base.lora import LoRASettings, add_lora, merge_lora, unmerge_lora
from taxadiffusion.base.noise import NoiseSchedule
from taxadiffusion.base.onnx import OnnxUnet, keep_compiled_code
from taxadiffusion.base.text import TextEncoder, load_tokenizer, longest_text
from taxadiffusion.base.transfer import arithmetic, moved
from taxadiffusion.base.vae import VAE_BATCH, LatentScale, encode_batch
from taxadiffusion.base.weights import component_hash, read_json, resolve_base
from taxadiffusion.errors import NonFiniteError, SettingsError
from taxadiffusion.files import joined_hash


class Backbone(nn.Module):
    """A latent text-to-image base: U-Net, VAE, text encoder and noise schedule, frozen until a stage says otherwise.

    The VAE and the text encoder are read when first used: training from caches needs neither. The U-Net
    computes in `dtype`, or in `autocast` where that is set; VAE, text encoder and LoRA weights are always float32.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        unet: UNet2DConditionModel,
        schedule: NoiseSchedule,
        num_text_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.path, self.name = path, name
        self.unet = unet.eval().requires_grad_(False)
        self.schedule = schedule
        self.lora_settings: LoRASettings | None = None
        self._vae_settings = vae_settings(path)
        self.latent_scale = LatentScale.of(self._vae_settings)
        self._text_settings = text_settings(path)
        self._num_text_tokens = num_text_tokens
        self._before_merge: dict[str, Tensor] | None = None
        self._current = Current()
        self._shares_attention = share_attention(unet, self._current)
        self._engine: OnnxUnet | None = None
        self._compiled: Any = None
        self._compiles_predictions = False
        self.autocast: torch.dtype | None = None
        """The U-Net's arithmetic where its weights must be float32, for they are trained themselves."""

    @classmethod
    def load(
        cls,
        base: str,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        num_text_tokens: int | None = None,
        trained: bool = False,
    ) -> Backbone:
        """From the shipped one's name, a directory in diffusers' layout, or a hub id; safetensors only.

        Raises `CheckpointError`: what cannot be served is refused by name before any weights are read.
        num_text_tokens: token trimming, see `TextEncoder`; None = as many as the base's text encoder takes.
        trained: the U-Net's own weights learn, or have learnt, so they are float32 whatever `dtype`, which is then that
        of its arithmetic (autocast).
        """
        path = resolve_base(base, check_base)
        schedule = NoiseSchedule(read_json(path / "scheduler" / "scheduler_config.json"))
        unet = load_model(UNet2DConditionModel, path, "unet", torch.float32 if trained else dtype)
        backbone = cls(path, base, unet.to(device), schedule, num_text_tokens)
        backbone.autocast = dtype if trained and dtype != torch.float32 else None
        return backbone

    @property
    def device(self) -> torch.device:
        return self.unet.device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the frozen U-Net."""
        return self.unet.conv_in.weight.dtype  # type: ignore[no-any-return]

    @property
    def precision(self) -> str:
        """What the U-Net computes in: "float32", "bfloat16"."""
        return str(self.autocast or self.dtype).removeprefix("torch.")

    @property
    def width(self) -> int:
        """D of the conditions that the U-Net reads."""
        return int(self.unet.config.cross_attention_dim)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the base's own size. Raises `SettingsError` where it has none, or one that is not square."""
        size = self.unet.config.sample_size
        sides = set(size) if isinstance(size, list | tuple) else {size}
        if len(sides) != 1 or None in sides:
            raise SettingsError(
                f"base {self.name!r} has the size {size}; squares are made: say their size (base.image_size_px)"
            )
        side = int(sides.pop())
        return self._channels, side, side

    @property
    def _channels(self) -> int:
        return int(self.unet.config.in_channels)

    @property
    def downscale(self) -> int:
        """Pixels of an image per latent, along a side."""
        return int(2 ** (len(self._vae_settings["block_out_channels"]) - 1))

    @property
    def image_size_px(self) -> int:
        """Side of the images the base was trained on."""
        return self.latent_shape[1] * self.downscale

    @property
    def num_text_tokens(self) -> int:
        """T of the token states, known without reading the text encoder's weights."""
        return self._num_text_tokens or self._longest_text

    @cached_property
    def _longest_text(self) -> int:
        return longest_text(self._text_settings, load_tokenizer(self.path))

    def latent_shape_at(self, size_px: int) -> tuple[int, int, int]:
        """(C, H, W) of square images of this size. Raises `SettingsError` where the base cannot make them."""
        step = self.downscale * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if size_px < step or size_px % step:
            raise SettingsError(f"base {self.name!r} makes images whose side is a multiple of {step} px, not {size_px}")
        side = size_px // self.downscale
        return self._channels, side, side

    def release(self) -> None:
        """Forget the VAE and the text encoder until they are used again: training from caches needs neither."""
        self.__dict__.pop("_vae", None)
        self.__dict__.pop("_text", None)

    @cached_property
    def unet_hash(self) -> str:
        return component_hash(self.path, "unet")

    @cached_property
    def vae_hash(self) -> str:
        return component_hash(self.path, "vae")

    @cached_property
    def text_hash(self) -> str:
        return component_hash(self.path, "text_encoder")

    @cached_property
    def content_hash(self) -> str:
        """Of all weights that the adapter was trained against, whatever the base is called or wherever it lies."""
        return joined_hash((self.unet_hash, self.vae_hash, self.text_hash))

    # The two below are kept outside of `nn.Module`'s registry: they are tools of the backbone, never part of its state.
    @property
    def vae(self) -> Any:
        if "_vae" not in self.__dict__:
            model = load_model(AutoencoderKL, self.path, "vae", torch.float32).eval().requires_grad_(False)
            self.__dict__["_vae"] = model
        return self.__dict__["_vae"].to(self.device)

    @property
    def text(self) -> TextEncoder:
        if "_text" not in self.__dict__:
            self.__dict__["_text"] = TextEncoder.load(self.path, device=self.device, num_tokens=self._num_text_tokens)
        return self.__dict__["_text"].to(self.device)  # type: ignore[no-any-return]

    def encode_batch(self, size_px: int) -> int:
        """Images that the VAE takes at once; see `vae.encode_batch`."""
        return encode_batch(self._vae_settings, self.device, size_px)

    @torch.no_grad()
    def encode(self, images: npt.NDArray[np.uint8] | Tensor) -> Tensor:
        """uint8 (B, 3, h, w) → latents (B, C, H, W) float32: the mode, scaled with the VAE's own numbers."""
        pixels = moved(torch.as_tensor(images), self.device).float() / 127.5 - 1.0  # (B, 3, h, w) in [−1, 1]
        blocks = torch.split(pixels, self.encode_batch(pixels.shape[-1]))
        latents = torch.cat([self.vae.encode(block).latent_dist.mode() for block in blocks])
        return self.latent_scale.scaled(latents)  # (B, C, H, W)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> npt.NDArray[np.uint8]:
        """Latents (B, C, H, W) → uint8 (B, 3, h, w). Raises `NonFiniteError` naming the latents that are not finite."""
        finite = torch.isfinite(latents).flatten(1).all(1)
        if not bool(finite.all()):
            raise NonFiniteError(f"latents are not finite at batch positions {(~finite).nonzero().flatten().tolist()}")
        unscaled = self.latent_scale.unscaled(latents.to(self.device).float())
        pixels = torch.cat([self.vae.decode(block).sample for block in torch.split(unscaled, VAE_BATCH)])
        return ((pixels + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()

    def add_lora(self, settings: LoRASettings, *, seed: int = 0) -> None:
        """Put LoRA on the U-Net, drawn from `seed`; the output stays as it was until the LoRA is trained or loaded."""
        assert self.lora_settings is None, "the backbone has a LoRA already"
        add_lora(self.unet, settings, seed=seed)
        self.lora_settings = settings
        self.unet.eval().requires_grad_(False)

    def add_decoupled_attention(self, num_extra: int) -> None:
        """Give a condition's last tokens their own cross-attention; nothing changes until it is trained or loaded."""
        add_decoupled_attention(self.unet, num_extra)
        self._shares_attention = False
        self.unet.eval().requires_grad_(False)

    def compile(self) -> None:
        """Compile the U-Net (torch.compile) where gradients are recorded; sampling and validation go on as without.

        The first step then takes minutes, and so does that of a stage that trains other parameters than the one before;
        after a restart most of it is found in `keep_compiled_code`'s folder.
        """
        keep_compiled_code()
        self._compiled = torch.compile(self.unet.forward)

    @contextmanager
    def on_compiled_code(self) -> Iterator[None]:
        """Within: predictions without gradients come from the compiled U-Net too; one of another shape builds anew."""
        if self._compiled is None:
            self.compile()
        self._compiles_predictions = True
        try:
            yield
        finally:
            self._compiles_predictions = False

    def checkpoint_gradients(self) -> None:
        """Keep the U-Net's activations at block borders alone; the backward pass computes the rest once more: the same
        gradients for less memory and about a third more time."""
        self.unet.enable_gradient_checkpointing(self._current.recomputed)

    @property
    def lora_is_merged(self) -> bool:
        return self._before_merge is not None

    def merge_lora(self) -> None:
        """Add a frozen LoRA to the weights it belongs to: same prediction (to rounding), at the price of none."""
        if self.lora_settings is not None and self._before_merge is None:
            self._before_merge = merge_lora(self.unet)

    def unmerge_lora(self) -> None:
        """The weights as they were before `merge_lora`, bit for bit."""
        if self._before_merge is not None:
            unmerge_lora(self.unet, self._before_merge)
            self._before_merge = None

    @contextmanager
    def on_onnxruntime(self, latent_shape: tuple[int, int, int]) -> Iterator[None]:
        """Within: predictions for latents (C, H, W) come from ONNX Runtime, with the weights as they are on entry.

        They carry no gradients. Raises `SettingsError` where that cannot be (see `OnnxUnet`).
        """
        self._engine = OnnxUnet(self.unet, latent_shape, self.num_text_tokens)
        try:
            yield
        finally:
            self._engine = None

    def forward(self, noisy_latents: Tensor, timesteps: Tensor, condition: Tensor | Conditions) -> Tensor:
        """The U-Net's prediction, float32 (B, C, H, W), at timesteps (B,).

        condition: (B, T, D), or the distinct ones of the batch, whose keys and values are then computed once each.
        """
        if isinstance(condition, Conditions):
            condition = condition.at(self.device)
            # Compiled code has fixed shapes, and a batch's number of distinct conditions is not fixed.
            if self._shares_attention and self._engine is None and not self._compiles:
                with self._current.set_to(condition):
                    return self._predicted(noisy_latents, timesteps, condition.states)
            condition = condition.expanded()
        return self._predicted(noisy_latents, timesteps, condition)

    @property
    def _compiles(self) -> bool:
        return self._compiled is not None and (torch.is_grad_enabled() or self._compiles_predictions)

    def _predicted(self, noisy_latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        if self._engine is not None:
            return self._engine(noisy_latents, timesteps, states)
        unet = self._compiled if self._compiles else self.unet
        with arithmetic(self.device, self.autocast, self.dtype):
            prediction: Tensor = unet(
                noisy_latents.to(self.dtype), timesteps, encoder_hidden_states=states.to(self.device, self.dtype)
            ).sample
        return prediction.float()
