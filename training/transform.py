"""The nano base's encoder: principal components of 8×8 patches, written into the weights of a diffusers autoencoder.

A convolutional encoder of this size, trained for twenty minutes of one core, kept 24 dB; the 24 leading components of
8×8×3 patches keep 28 dB and need no training. The components are a linear map, and an `AutoencoderKL` encoder can hold
one exactly: shortcuts and strided convolutions carry it, every residual branch adds zero.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

# C latent channels, K patch values (3·8·8); pixels in [-1, 1]

PATCH = 8
LATENT_CHANNELS = 24
CHANNELS = (16, 32, 64, 128)
GROUPS = 8
_SHIFT = 20.0  # SiLU is the identity to 4e-8 beyond it
_ANCHOR = 256.0  # constant channels that fix the variance a group norm sees


def autoencoder() -> AutoencoderKL:
    """The nano autoencoder with fresh weights: downscale 8, narrow at full resolution, where its time goes."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=GROUPS,
        sample_size=64,
        scaling_factor=1.0,
    )


def components(images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Filters (C, 3, 8, 8) and bias (C,) of the leading principal components of uint8 (N, 3, 64, 64).

    A component of variance λ is scaled by λ^(-3/8), three quarters of the way to whitening, so that a diffusion model
    neither drowns the details in noise nor spends itself on them; then all are scaled to a mean variance of 1.
    """
    x = images.astype(np.float32) / 127.5 - 1
    side = x.shape[2] // PATCH
    patches = x.reshape(-1, 3, side, PATCH, side, PATCH).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 3 * PATCH * PATCH)
    mean = patches.mean(0)
    values, vectors = np.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    values, vectors = values[::-1][:LATENT_CHANNELS], vectors[:, ::-1][:, :LATENT_CHANNELS]
    scale = values**-0.375 / np.sqrt(np.mean(values**0.25))
    filters = (vectors * scale).T  # (C, K)
    bias = -filters @ mean
    return (
        torch.from_numpy(filters.reshape(LATENT_CHANNELS, 3, PATCH, PATCH).copy()).float(),
        torch.from_numpy(bias).float(),
    )


def project(pixels: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
    """Latents (B, C, 8, 8) of pixels (B, 3, 64, 64), directly: what the encoder computes."""
    return functional.conv2d(pixels, filters, bias, stride=PATCH)


def unproject(latents: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
    """The pixels (B, 3, 64, 64) of least squares: a linear decoder, for previews while the real one is not trained."""
    inverse = torch.linalg.pinv(filters.flatten(1))  # (K, C)
    batch, _, height, width = latents.shape
    values = torch.einsum("kc,bcyx->bkyx", inverse, latents - bias.view(1, -1, 1, 1))
    patches = values.reshape(batch, 3, PATCH, PATCH, height, width).permute(0, 1, 4, 2, 5, 3)
    return patches.reshape(batch, 3, height * PATCH, width * PATCH)


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
def write_encoder(vae: AutoencoderKL, filters: Tensor, bias: Tensor) -> None:
    """Set the encoder of `vae` so that its posterior mean is `project`, and its variance nothing."""
    encoder = vae.encoder
    blocks = [*(block.resnets[0] for block in encoder.down_blocks), *encoder.mid_block.resnets]
    for block in blocks:
        _zero(block.conv2)
    _zero(encoder.mid_block.attentions[0].to_out[0])
    _identity(encoder.conv_in, 3)
    # 2×2 patches: 3 → 12 channels, exact
    first = torch.zeros(12, 3, 2, 2)
    for c in range(3):
        for dy in range(2):
            for dx in range(2):
                first[c * 4 + dy * 2 + dx, c, dy, dx] = 1.0
    _halve(encoder.down_blocks[0].downsamplers[0].conv, first)
    _identity(encoder.down_blocks[1].resnets[0].conv_shortcut, 12)
    # 4×4 patches: 48 values in at most 32 channels, the span of the filters' own 4×4 quarters
    quarters = filters.reshape(LATENT_CHANNELS, 3, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 48)
    basis = torch.linalg.svd(quarters, full_matrices=False)[2][: CHANNELS[1]]  # (32, 48), orthonormal rows
    ordered = basis.reshape(-1, 3, 2, 2, 2, 2)  # (32, c, Y, dy, X, dx): pixel (2Y+dy, 2X+dx) of a 4×4 patch
    second = ordered.permute(0, 1, 3, 5, 2, 4).reshape(len(basis), 12, 2, 2)  # input channel c·4+dy·2+dx at (Y, X)
    _halve(encoder.down_blocks[1].downsamplers[0].conv, second)
    _identity(encoder.down_blocks[2].resnets[0].conv_shortcut, CHANNELS[1])
    # 8×8 patches: the components
    third = (quarters @ basis.T).reshape(LATENT_CHANNELS, 2, 2, -1).permute(0, 3, 1, 2)
    last = encoder.down_blocks[2].downsamplers[0].conv
    _halve(last, third)
    last.bias[:LATENT_CHANNELS] = bias
    _spread(encoder)
    _zero(vae.quant_conv)
    for k in range(2 * LATENT_CHANNELS):
        vae.quant_conv.weight[k, k, 0, 0] = 1.0


def _spread(encoder: nn.Module) -> None:
    """Carry the components through the last norm and SiLU unchanged: each with its negative, so that a group's mean is
    zero, beside two constants that fix its variance, and shifted to where SiLU is the identity."""
    width, per_group = CHANNELS[-1] // GROUPS, LATENT_CHANNELS // GROUPS
    shortcut = encoder.down_blocks[3].resnets[0].conv_shortcut
    _zero(shortcut)
    _zero(encoder.conv_out)
    encoder.conv_norm_out.bias.fill_(_SHIFT)
    encoder.conv_norm_out.weight.fill_(_ANCHOR * (2 / width) ** 0.5)
    for k in range(LATENT_CHANNELS):
        group, place = divmod(k, per_group)
        plus, minus = group * width + 2 * place, group * width + 2 * place + 1
        shortcut.weight[plus, k, 0, 0], shortcut.weight[minus, k, 0, 0] = 1.0, -1.0
        encoder.conv_out.weight[k, plus, 1, 1], encoder.conv_out.weight[k, minus, 1, 1] = 0.5, -0.5
    for group in range(GROUPS):
        shortcut.bias[group * width + width - 2] = _ANCHOR
        shortcut.bias[group * width + width - 1] = -_ANCHOR
    encoder.conv_out.bias[LATENT_CHANNELS:] = -20.0  # log variance
