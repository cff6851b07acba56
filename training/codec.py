"""The base's codec: principal components of 8×8 patches, written exactly into the weights of a diffusers autoencoder.

The encoder needs no training: 24 leading components of 8×8×3 patches keep nearly all that names a species at 128 px,
where autoencoders trained for an hour of a core lose much of it. They are a linear map, and an `AutoencoderKL` encoder
can hold one: shortcuts and strided convolutions carry it, every residual branch adds zero. The decoder is learned
(`training.decoder`); until it is, the pseudo-inverse decodes.

    python -m training.codec work/packs --components 24 --out work/codec.safetensors
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from training.command import run
from training.packs import Pack, as_pixels, evenly, packs

# B batch, C latent channels, K patch values (3·8·8), h × w latents; pixels (B, 3, H, W) in [-1, 1]

PATCH = 8
NUM_FITTED = 3000
"""Training photographs of each pack that the components are those of."""
FEWEST, MOST = 16, 32
"""Components that the autoencoder below can carry and that are worth having."""
CHANNELS = (32, 48, 64, 128)
"""Widths from full resolution to an eighth. At a quarter 48 are all values of a 4×4 patch, so that nothing is cut."""
GROUPS = 8
_SHIFT = 20.0  # SiLU is the identity to 4e-8 beyond it
_ANCHOR = 256.0  # constant channels that fix the variance a group norm sees


@dataclass(frozen=True)
class Codec:
    """A linear encoder: filters (C, 3, 8, 8) and bias (C,)."""

    filters: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, pixels: Tensor, num_components: int) -> Codec:
        """The leading components of pictures (B, 3, H, W), computed in float64.

        A component of variance λ is scaled by λ^(-3/8), three quarters of the way to whitening, so that a diffusion
        model neither drowns the details in noise nor spends itself on them; then all are scaled to a mean variance
        of 1.
        """
        _check(num_components)
        mean, covariance = _moments(pixels)
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(0)[:num_components], vectors.flip(1)[:, :num_components]
        filters = (vectors * (values**-0.375 / (values**0.25).mean().sqrt())).T  # (C, K)
        return cls(filters.reshape(-1, 3, PATCH, PATCH).float().contiguous(), (-filters @ mean).float())

    @property
    def num_components(self) -> int:
        return len(self.bias)

    @cached_property
    def inverse(self) -> Tensor:
        """(K, C)"""
        return torch.linalg.pinv(self.filters.flatten(1))

    def first(self, num_components: int) -> Codec:
        """The leading components alone: those of a smaller codec, to a common factor."""
        _check(num_components)
        if num_components > self.num_components:
            raise ValueError(f"{num_components} components asked for, this codec has {self.num_components}")
        return Codec(self.filters[:num_components].contiguous(), self.bias[:num_components].contiguous())

    def to(self, device: torch.device) -> Codec:
        return Codec(self.filters.to(device), self.bias.to(device))

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, C, H/8, W/8), not scaled."""
        return functional.conv2d(pixels, self.filters, self.bias, stride=PATCH)

    def decode(self, latents: Tensor) -> Tensor:
        """The pixels of least squares: (B, C, h, w) → (B, 3, 8h, 8w)."""
        values = torch.einsum("kc,bchw->bkhw", self.inverse, latents - self.bias.view(1, -1, 1, 1))
        return functional.pixel_shuffle(values, PATCH)


def fitted(sets: Sequence[Pack], num_components: int) -> Codec:
    """To training photographs of all packs that hold photographs; where none does, to what there is."""
    large = [pack for pack in sets if pack.held] or sets
    pictures = [pack.pictures(evenly(pack.train, NUM_FITTED)) for pack in large]
    return Codec.fit(torch.cat([as_pixels(p) for p in pictures]), num_components)


def _check(num_components: int) -> None:
    if not FEWEST <= num_components <= MOST:
        raise ValueError(f"{num_components} components: the autoencoder carries {FEWEST} to {MOST}")


def _moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (K,) and covariance (K, K) of all patches, a few pictures at a time."""
    total, squares, number = 0, 0, 0
    for chunk in pixels.split(64):
        patches = functional.unfold(chunk.double(), PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
        total, squares, number = total + patches.sum(0), squares + patches.T @ patches, number + len(patches)
    mean = total / number
    return mean, squares / number - torch.outer(mean, mean)


def autoencoder(num_components: int) -> AutoencoderKL:
    """The autoencoder with fresh weights: downscale 8, no attention, narrow at full resolution, where its time goes."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=num_components,
        norm_num_groups=GROUPS,
        sample_size=128,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.zero_()


def _identity(conv: nn.Conv2d, num_channels: int) -> None:
    """Pass the first channels on; the rest is zero."""
    _zero(conv)
    centre = conv.kernel_size[0] // 2
    for k in range(num_channels):
        conv.weight[k, k, centre, centre] = 1.0


def _halve(conv: nn.Conv2d, matrix: Tensor) -> None:
    """A strided convolution as a map of 2×2 patches: `matrix` (out, in, 2, 2). Its taps start at the patch's corner."""
    _zero(conv)
    out, taken = matrix.shape[:2]
    conv.weight[:out, :taken, :2, :2] = matrix


@torch.no_grad()
def write_encoder(vae: AutoencoderKL, codec: Codec) -> None:
    """Set the encoder of `vae` so that its posterior mean is `codec.encode`, and its variance nothing."""
    encoder, number = vae.encoder, codec.num_components
    for block in [*(block.resnets[0] for block in encoder.down_blocks), *encoder.mid_block.resnets]:
        _zero(block.conv1)  # what conv2 makes nothing of; the same file each time
        _zero(block.conv2)
    _identity(encoder.conv_in, 3)
    # 2×2 patches: 3 → 12 channels, channel c·4 + dy·2 + dx
    _halve(encoder.down_blocks[0].downsamplers[0].conv, torch.eye(12).reshape(12, 3, 2, 2))
    _identity(encoder.down_blocks[1].resnets[0].conv_shortcut, 12)
    # 4×4 patches: 12 → 48 channels, channel q·4 + Dy·2 + Dx of place (Dy, Dx) and channel q above
    _halve(encoder.down_blocks[1].downsamplers[0].conv, torch.eye(48).reshape(48, 12, 2, 2))
    _identity(encoder.down_blocks[2].resnets[0].conv_shortcut, 48)
    # 8×8 patches: the components; pixel (4·Y + 2·Dy + dy, 4·X + 2·Dx + dx)
    places = codec.filters.cpu().reshape(number, 3, 2, 2, 2, 2, 2, 2)  # C, c, Y, Dy, dy, X, Dx, dx
    last = encoder.down_blocks[2].downsamplers[0].conv
    _halve(last, places.permute(0, 1, 4, 7, 3, 6, 2, 5).reshape(number, 48, 2, 2))
    last.bias[:number] = codec.bias.cpu()
    _spread(encoder, number)
    _identity(vae.quant_conv, 2 * number)


def _spread(encoder: nn.Module, number: int) -> None:
    """Carry the components through the last norm and SiLU unchanged: each with its negative, so that a group's mean is
    zero, beside two constants that fix its variance, and shifted to where SiLU is the identity."""
    width, per_group = CHANNELS[-1] // GROUPS, math.ceil(number / GROUPS)
    shortcut = encoder.down_blocks[3].resnets[0].conv_shortcut
    _zero(shortcut)
    _zero(encoder.conv_out)
    encoder.conv_norm_out.bias.fill_(_SHIFT)
    encoder.conv_norm_out.weight.fill_(_ANCHOR * (2 / width) ** 0.5)
    for k in range(number):
        group, place = divmod(k, per_group)
        plus, minus = group * width + 2 * place, group * width + 2 * place + 1
        shortcut.weight[plus, k, 0, 0], shortcut.weight[minus, k, 0, 0] = 1.0, -1.0
        encoder.conv_out.weight[k, plus, 1, 1], encoder.conv_out.weight[k, minus, 1, 1] = 0.5, -0.5
    for group in range(GROUPS):
        shortcut.bias[group * width + width - 2] = _ANCHOR
        shortcut.bias[group * width + width - 1] = -_ANCHOR
    encoder.conv_out.bias[number:] = -20.0  # log variance


def command() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("packs", type=Path)
    parser.add_argument("--components", type=int, default=24, help="latent channels, 16 to 32")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    codec = fitted(packs(args.packs), args.components)
    save_file({"filters": codec.filters, "bias": codec.bias}, args.out)
    print(f"{codec.num_components} components in {args.out}")


if __name__ == "__main__":
    run(command)
