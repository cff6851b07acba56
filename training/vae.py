"""Train the nano base's autoencoder (64 px → 16 latent channels at 8×8) on arrays of pictures; resumes by itself."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

# B batch, C channels, H = W side in pixels

CHANNELS = (16, 32, 64, 128)
LATENT_CHANNELS = 16


def autoencoder() -> AutoencoderKL:
    """The nano autoencoder: downscale 8, narrow at full resolution, where almost all of its time goes."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
    )


def reconstruction_loss(output: Tensor, images: Tensor) -> Tensor:
    """Mean absolute error of pixels and, for edges, of differences between neighbours, at full and at half resolution."""
    loss = (output - images).abs().mean()
    for _ in range(2):
        for dim in (2, 3):
            loss = loss + 0.5 * (output.diff(dim=dim) - images.diff(dim=dim)).abs().mean()
        output, images = functional.avg_pool2d(output, 2), functional.avg_pool2d(images, 2)  # (B, 3, H/2, H/2)
    return loss


def batch_of(arrays: list[np.ndarray], weights: list[float], size: int, generator: np.random.Generator) -> Tensor:
    """A float batch in [-1, 1] drawn from the arrays in proportion to the weights, half of it mirrored. (B, 3, H, W)"""
    which = generator.choice(len(arrays), size=size, p=np.asarray(weights) / sum(weights))
    rows = [arrays[k][generator.integers(len(arrays[k]))] for k in which]
    images = np.stack([row[:, :, ::-1] if generator.random() < 0.5 else row for row in rows])
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1)


def psnr(model: AutoencoderKL, images: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of reconstructions of uint8 (N, 3, H, W)."""
    errors = []
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            x = torch.from_numpy(images[start : start + 64].astype(np.float32) / 127.5 - 1)
            y = model.decode(model.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
            errors.append((y - x).square().mean(dim=(1, 2, 3)) / 4)  # on a [0, 1] scale
    return float(-10 * torch.cat(errors).mean().log10())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="uint8 (N, 3, 64, 64) .npy files")
    parser.add_argument("--weights", type=float, nargs="+", help="share of each file (default: equal)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--kl-weight", type=float, default=1e-3)
    args = parser.parse_args()

    arrays = [np.load(path, mmap_mode="r", allow_pickle=False) for path in args.images]
    held_out = [array[-128:] for array in arrays]
    arrays = [array[:-128] for array in arrays]
    shares = args.weights or [1.0] * len(arrays)
    torch.manual_seed(0)
    model = autoencoder().to(memory_format=torch.channels_last)
    args.out.mkdir(parents=True, exist_ok=True)
    state_path, log_path = args.out / "vae.safetensors", args.out / "vae.jsonl"
    samples = 0
    if state_path.exists():
        model.load_state_dict(load_file(state_path))
        samples = json.loads(log_path.read_text().splitlines()[-1])["samples"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=1e-4, betas=(0.9, 0.99))
    ema = {key: value.clone() for key, value in model.state_dict().items()}
    start = last = time.monotonic()
    generator = np.random.default_rng(samples)
    step = 0
    while (elapsed := time.monotonic() - start) < args.minutes * 60:
        share = elapsed / (args.minutes * 60)
        for group in optimizer.param_groups:  # linear warm-up, then cosine to zero over the minutes given
            group["lr"] = args.learning_rate * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * share))
        x = batch_of(arrays, shares, args.batch_size, generator).contiguous(memory_format=torch.channels_last)
        posterior = model.encode(x).latent_dist
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        loss = reconstruction_loss(model.decode(posterior.sample()).sample, x) + args.kl_weight * kl
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step, samples = step + 1, samples + args.batch_size
        for key, value in model.state_dict().items():
            ema[key].lerp_(value, min(0.002, 1.0) if step > 500 else 1 - step / (step + 10))
        if time.monotonic() - last > 60:
            last = time.monotonic()
            live = {key: value.clone() for key, value in model.state_dict().items()}
            model.load_state_dict(ema)
            record = {"samples": samples, "loss": loss.item(), "kl": kl.item(), "minutes": elapsed / 60}
            record |= {path.stem: round(psnr(model, h), 2) for path, h in zip(args.images, held_out, strict=True)}
            save_file({key: value.contiguous() for key, value in ema.items()}, state_path)
            model.load_state_dict(live)
            with log_path.open("a") as log:
                log.write(json.dumps(record) + "\n")
            print(record, flush=True)
    save_file({key: value.contiguous() for key, value in ema.items()}, state_path)


if __name__ == "__main__":
    main()
