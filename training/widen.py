"""Begin a decoder from that of a smaller autoencoder: channels are copied, latents fitted to its own."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from taxadiffusion.errors import DataError
from training.codec import GROUPS

# B batch, C latent channels of the new autoencoder, D of the old

DISTURBANCE = 0.02
"""Copied channels learn alike until something tells them apart: noise of this share of a weight's own spread."""


def copies(old: int, new: int) -> Tensor:
    """(new,) which of the old channels each of the new ones is: copies stay in their group, so that a group norm of as
    many groups sees the same values, all of them twice or some."""
    if old % GROUPS or new % GROUPS:
        return torch.arange(old)
    width = torch.arange(new // GROUPS) % (old // GROUPS)
    return (torch.arange(GROUPS)[:, None] * (old // GROUPS) + width).flatten()


def widened(weight: Tensor, shape: torch.Size) -> Tensor:
    """A weight with more outputs, inputs, or both, that computes the same of copied channels."""
    if weight.dim() > 1 and shape[1] != weight.shape[1]:
        which = copies(weight.shape[1], shape[1])
        weight = weight[:, which] / which.bincount()[which].view(1, -1, *[1] * (weight.dim() - 2))
    if shape[0] != weight.shape[0]:
        weight = weight[copies(weight.shape[0], shape[0])]
    if weight.shape != shape:
        raise DataError(f"a weight of shape {tuple(weight.shape)} cannot be widened to {tuple(shape)}")
    return weight


@torch.no_grad()
def start_from(model: AutoencoderKL, other: Path, pixels: Tensor, latents: Tensor, disturbance: float) -> None:
    """Set the decoder of `model` from the autoencoder in the folder `other`.

    pixels (B, 3, H, W) and their latents (B, C, h, w): by these the latents are mapped to the other's, linearly, and
    the map goes into `post_quant_conv`. Attention of the other is left out.
    """
    vae = AutoencoderKL.from_pretrained(other, torch_dtype=torch.float32)
    wanted = vae.encode(pixels).latent_dist.mean.permute(0, 2, 3, 1).flatten(0, 2)  # (N, D)
    given = latents.permute(0, 2, 3, 1).flatten(0, 2)  # (N, C)
    solution = torch.linalg.lstsq(torch.cat([given, torch.ones(len(given), 1)], 1), wanted).solution.T  # (D, C + 1)
    through, shift = solution[:, :-1], solution[:, -1]
    first, own = vae.post_quant_conv.weight[:, :, 0, 0], model.post_quant_conv
    if len(wanted.T) != len(given.T):
        raise DataError(f"{other}: has {len(wanted.T)} latent channels, this codec {len(given.T)}")
    own.weight.copy_((first @ through)[:, :, None, None])
    own.bias.copy_(first @ shift + vae.post_quant_conv.bias)
    found = vae.decoder.state_dict()
    for name, p in model.decoder.named_parameters():
        weight = widened(found[name], p.shape)
        p.copy_(weight + disturbance * weight.std(unbiased=False) * torch.randn(p.shape))
